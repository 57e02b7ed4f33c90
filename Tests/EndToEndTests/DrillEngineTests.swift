import BackupBase
import Foundation
import Glibc
import TestSupport
import Testing

@Suite(
    "The database of a drill is cut off, watched and ended",
    .enabled(if: Fixture.engineIsAvailable && Requirement.root, "needs the engine and root"))
struct DrillEngineTests {
    let stage: DrillStage
    var workspace: Workspace { stage.workspace }

    init() throws {
        stage = try DrillStage("boot")
        try stage.backUp()
    }

    /// A program that does something of a test's before it becomes the engine.
    private func script(_ text: String) throws -> String {
        let path = workspace.path("boot")
        try Data("#!/usr/bin/python3\nimport os, socket, sys, time\n\(text)\n".utf8).write(to: URL(filePath: path))
        chmod(path, 0o755)
        return "\(path) {storage} {port}"
    }

    private static let engine = "os.execv('\(Program.root)scripts/boot-edge', ['boot-edge'] + sys.argv[1:])"

    @Test func `It reaches nothing of this machine's network, unless that is asked for`() throws {
        let blue = try FalseQdrant([:])
        let port = blue.url.split(separator: ":").last!
        let command = try script(
            """
            try:
                socket.create_connection(('127.0.0.1', \(port)), 2).close()
                answer = 'reached'
            except OSError: answer = 'cut off'
            # One is the listing's own.
            answer += ' ' + ' '.join(sorted(os.listdir('/proc/self/fd'))) + ' ' + str(sorted(os.environ))
            open('\(workspace.path("answer"))', 'w').write(answer)
            \(Self.engine)
            """)
        try stage.drill(boot: command)
        let isolated = try String(contentsOfFile: workspace.path("answer"), encoding: .utf8)
        // Nothing of the drill's own is passed on: no open file, no variable with a secret.
        #expect(isolated.hasPrefix("cut off 0 1 2 3 [") && !isolated.contains("PASSWORD"), "\(isolated)")
        // A proxy that the environment names is not asked: it could not be reached from there.
        let proxied = try workspace.expect(
            0, ["drill", "--json", "--scratch", stage.scratch, "--boot", command], extra: ["http_proxy": "http://127.0.0.1:1"])
        #expect(proxied.summary["verdict"] as? String == "pass")
        let report = try stage.drill("--shared-network", boot: command)
        #expect(try String(contentsOfFile: workspace.path("answer"), encoding: .utf8).hasPrefix("reached"))
        #expect(report["isolated"] as? Bool == false)
    }

    @Test func `One that dies or is never ready fails the drill with its last words`() throws {
        let dies = try stage.drill(status: 16, boot: try script("print('no such <luck>'); sys.exit(3)"))
        let reason = try #require(dies["reason"] as? String)
        #expect(reason.contains("the engine ended with status 3") && reason.contains("no such <luck>"), "\(reason)")
        #expect(try stage.report().contains("no such &lt;luck&gt;"))

        let marker = "sleeper-\(UUID().uuidString.prefix(8))"
        let hangs = try script(
            "import subprocess\nsubprocess.Popen(['\(marker)', '600'], executable='/bin/sleep')\ntime.sleep(600)")
        let never = try stage.drill("--boot-timeout", "1s", status: 16, boot: hangs)
        #expect((never["reason"] as? String)?.contains("not ready within 1.00s") == true)
        #expect(try !DrillStage.runs(marker), "what it started runs on")
    }

    @Test func `One that dies while it is asked fails the drill`() throws {
        let command = try script(
            """
            if os.fork() == 0:
                parent = os.getppid()
                time.sleep(0)
                while True:
                    try:
                        s = socket.create_connection(('127.0.0.1', int(sys.argv[2])), 1)
                        s.sendall(b'GET /collections HTTP/1.1\\r\\nHost: x\\r\\n\\r\\n')
                        if b'200' in s.recv(1000): os.kill(parent, 9)
                    except ConnectionRefusedError: time.sleep(0.005)
                    except OSError: sys.exit()
            \(Self.engine)
            """)
        let report = try stage.drill(status: 16, boot: command)
        #expect((report["reason"] as? String)?.contains("the engine ended by signal 9") == true, "\(report)")
    }

    /// A drill whose engine is up and never ready.
    private func hanging(_ marker: String, _ more: String...) throws -> Running {
        let command = try script("os.execv('/bin/sh', ['\(marker)', '-c', 'sleep 600; true'])")
        let running = try workspace.start(
            ["drill", "--scratch", stage.scratch, "--boot", command, "--no-progress"] + more)
        try running.wait { try DrillStage.runs(marker) }
        return running
    }

    /// Several times, because the kernel picks the thread that takes the signal: of those that
    /// watch programs one has none blocked.
    @Test(arguments: [SIGTERM, SIGINT], 0..<3)
    func `A signal ends it and leaves nothing`(_ signal: Int32, _ round: Int) throws {
        let marker = "hanging-\(UUID().uuidString.prefix(8))"
        let running = try hanging(marker, "--image", "ext4")
        #expect(running.end(signal) == 128 + signal)
        #expect(try running.printed.contains("ended by signal \(signal)"))
        #expect(stage.leftovers == [])
        #expect(try !DrillStage.runs(marker))
    }

    @Test func `Killed, its database dies with it, and the next drill removes the rest`() throws {
        let marker = "orphan-\(UUID().uuidString.prefix(8))"
        let running = try hanging(marker, "--image", "ext4")
        // One that runs is not disturbed.
        try workspace.expect(0, ["drill", "--no-boot", "--scratch", stage.scratch])
        #expect(stage.leftovers.count == 1 && running.isRunning)
        #expect(running.end() == 128 + SIGKILL)
        usleep(200_000)
        #expect(try !DrillStage.runs(marker), "the database outlives the drill")
        #expect(stage.leftovers.count == 1)
        try workspace.expect(0, ["drill", "--no-boot", "--scratch", stage.scratch])
        #expect(stage.leftovers == [])
        #expect(try !String(contentsOfFile: "/proc/self/mountinfo", encoding: .utf8).contains(stage.scratch))
    }

    @Test(.enabled(if: Requirement.ext4, "needs mkfs.ext4 and mounts")) func `A scratch without room is not filled`() throws {
        let mount = try LoopMount("ext4", megabytes: 300, in: workspace.directory)
        let report = try workspace.expect(
            16, ["drill", "--json", "--scratch", "\(mount.path)/s", "--boot", DrillStage.boot]
        ).summary
        #expect((report["reason"] as? String)?.contains("are to stay free") == true, "\(report)")
        // Nor through an image, which takes no room yet when it is made.
        let image = try workspace.expect(16, ["drill", "--json", "--no-boot", "--image", "ext4", "--scratch", "\(mount.path)/s"])
        #expect((image.summary["reason"] as? String)?.contains("are to stay free") == true, "\(image.output)")
        try workspace.expect(1, ["drill", "--no-boot", "--scratch", "/proc/none"])
        try workspace.expect(1, ["drill", "--no-boot", "--output", "/proc/none", "--scratch", stage.scratch])
    }
}
