import BackupBase
import Foundation
import Glibc
import TestSupport
import Testing

/// The program as a service: what it tells systemd, how it stops, what the journal gets.
@Suite("As a service")
struct ServiceTests {
    let workspace: Workspace
    let volume: Volume

    init() throws {
        workspace = try Workspace.ready("service")
        volume = try Volume(workspace.path("volume"))
    }

    private func start(_ arguments: [String], _ socket: NotifySocket, watchdog: Double? = nil) throws -> Running {
        try Running(
            Program.binary, arguments,
            environment: workspace.environment.merging(socket.environment(watchdog: watchdog)) { $1 })
    }

    @Test(arguments: [false, true])
    func `it says that it is ready, how far it is and that it works`(isAbstract: Bool) throws {
        try volume.writeRandom("matrix.dat", megabytes: 60)
        let socket = try NotifySocket(in: workspace.directory, isAbstract: isAbstract)
        let run = try start(
            ["backup", volume.path, "--limit-read", "16MiB", "--writer-key", workspace.writerKey()], socket, watchdog: 2)
        let (status, said) = (run.wait(), try run.printed)
        #expect(status == 0, "\(said)")
        #expect(socket.messages.first?.lines == ["READY=1", "STATUS=backup"])
        #expect(socket.lines.filter { $0 == "READY=1" }.count == 1)
        let statuses = socket.lines.filter { $0.hasPrefix("STATUS=read") }
        #expect(statuses.contains { $0.contains(/read  \d+%  .* of 60.0 MiB  .*\/s/) }, "\(socket.lines)")
        #expect(statuses.count <= 10, "more than one a second: \(statuses)")
        // Four seconds' work and more where others work too, a ping each half second at the most.
        let gaps = zip(socket.pings, socket.pings.dropFirst()).map { $1 - $0 }
        #expect(socket.pings.count >= 3 && gaps.allSatisfy { $0 > 0.3 }, "\(socket.pings)")
    }

    @Test func `a file name with a line feed is no message of its own, and nothing is told to nobody`() throws {
        try volume.write("collections/READY=1\nSTOPPING=1", "x")
        let socket = try NotifySocket(in: workspace.directory)
        let run = try start(["backup", volume.path, "--writer-key", workspace.writerKey()], socket)
        #expect(run.wait() == 0)
        #expect(Set(socket.lines.compactMap { $0.split(separator: "=").first }) == ["READY", "STATUS"])
        #expect(socket.pings.isEmpty, "nobody watches")
        // Nobody there, no socket's name, a name that is too long: the backup is made all the same.
        for name in [workspace.path("nobody"), "relative", "/" + String(repeating: "x", count: 200), "@"] {
            try workspace.expect(
                0, ["backup", volume.path, "--writer-key", workspace.writerKey()],
                extra: ["NOTIFY_SOCKET": name, "WATCHDOG_USEC": "1000000"])
        }
    }

    @Test func `the watchdog of another process is not answered`() throws {
        try volume.writeRandom("matrix.dat", megabytes: 20)
        let socket = try NotifySocket(in: workspace.directory)
        let run = try Running(
            Program.binary,
            ["backup", volume.path, "--limit-read", "10MiB", "--writer-key", workspace.writerKey()],
            environment: workspace.environment.merging(socket.environment(watchdog: 1)) { $1 }
                .merging(["WATCHDOG_PID": "1"]) { $1 })
        #expect(run.wait() == 0)
        #expect(socket.lines.contains("READY=1") && socket.pings.isEmpty)
    }

    @Test func `programs that it starts cannot speak for it`() throws {
        try volume.write("a.json", "1")
        let socket = try NotifySocket(in: workspace.directory)
        let dump = workspace.path("environment")
        try workspace.expect(
            0, ["backup", volume.path],
            extra: socket.environment(watchdog: 5).merging([
                "BGBACKUP_PASSWORD_FILE": "", "BGBACKUP_PASSWORD_COMMAND": "env > \(dump); cat \(workspace.passwordFile)",
            ]) { $1 })
        let seen = try String(contentsOfFile: dump, encoding: .utf8)
        #expect(seen.contains("BGBACKUP_STATE_DIR"), "the command did not run")
        #expect(!seen.contains("NOTIFY_SOCKET") && !seen.contains("WATCHDOG"))
    }

    @Test(.enabled(if: S3Server.available.contains(.strict), "needs the strict S3 server"))
    func `a store that hangs stops the pings, and still the service stops when it is told`() throws {
        let server = try S3Server(.strict)
        let remote = try Workspace("service-s3", server: server, options: "timeout=300")
        try volume.writeRandom("matrix.dat", megabytes: 200)
        let socket = try NotifySocket(in: workspace.directory)
        let run = try Running(
            Program.binary, ["backup", volume.path, "--limit-upload", "8MiB"],
            environment: remote.environment.merging(socket.environment(watchdog: 2)) { $1 })
        try run.wait { socket.pings.count >= 4 }
        server.pause()
        defer { server.resume() }
        // What the pipeline and the sockets still take is progress, and has an end.
        let paused = monotonicSeconds()
        while monotonicSeconds() - (try #require(socket.pings.last)) < 6 {
            try #require(monotonicSeconds() - paused < 60, "somebody pings while the store hangs")
            usleep(50_000)
        }
        let told = monotonicSeconds()
        #expect(run.end(SIGTERM) == 128 + SIGTERM)
        #expect(monotonicSeconds() - told < 10)
        #expect(socket.lines.contains("STOPPING=1"))
    }

    @Test func `a watch that waits works`() throws {
        try volume.write("a.json", "1")
        let socket = try NotifySocket(in: workspace.directory)
        let watch = try start(
            ["backup", volume.path, "--watch", "--every", "1h", "--writer-key", workspace.writerKey()], socket, watchdog: 2)
        try watch.wait { socket.lines.contains { $0.hasPrefix("STATUS=snapshot ") } }
        let before = socket.pings.count
        sleep(4)
        #expect(socket.pings.count > before)
        #expect(watch.end(SIGTERM) == 128 + SIGTERM)
    }

    /// Ends a command in the middle of its work; it has to be gone in ten seconds.
    private func stop(_ arguments: [String], after bytes: Int64, sourceLocation: SourceLocation = #_sourceLocation) throws {
        let socket = try NotifySocket(in: workspace.directory)
        let run = try start(arguments, socket)
        let begin = monotonicSeconds()
        try run.wait { run.bytesMoved >= bytes || monotonicSeconds() - begin > 60 }
        let told = monotonicSeconds()
        let (status, said) = (run.end(SIGTERM), try run.printed)
        #expect(status == 128 + SIGTERM, "\(said)", sourceLocation: sourceLocation)
        #expect(monotonicSeconds() - told < 10, sourceLocation: sourceLocation)
        #expect(socket.lines.contains("STOPPING=1"), sourceLocation: sourceLocation)
        #expect(try run.printed.contains("ended by signal 15"), sourceLocation: sourceLocation)
    }

    @Test func `backup, check, restore and drill stop within ten seconds, and what they did is not lost`() throws {
        // Somebody needs the processors and the disk as well.
        let load = try Running(
            "/bin/sh",
            [
                "-c",
                "while :; do :; done & while :; do dd if=/dev/zero of=\(workspace.path("load")) bs=1M count=64 conv=fsync; done",
            ],
            environment: [:])
        defer { load.endGroup() }
        for name in 0..<6 { try volume.writeRandom("collections/c/0/segments/s/vector_storage/\(name).mmap", megabytes: 40) }
        let key = try workspace.writerKey()
        try stop(["backup", volume.path, "--priority", "normal", "--writer-key", key], after: 60 << 20)
        try workspace.backup(volume, "--priority", "normal")
        try stop(["check", "--read-data"], after: 60 << 20)
        try stop(["restore", "latest", "--target", workspace.path("restored")], after: 60 << 20)
        try workspace.expect(0, ["restore", "latest", "--target", workspace.path("restored"), "--resume"])
        try stop(
            ["drill", "--no-boot", "--scratch", workspace.path("scratch"), "--output", workspace.path("drills")], after: 60 << 20
        )
        #expect(try FileManager.default.contentsOfDirectory(atPath: workspace.path("scratch")).isEmpty, "the scratch is left")
        try workspace.expect(0, ["check", "--read-data"])
    }

    @Test func `in the journal each line has its priority, and nothing else does`() throws {
        try volume.write("a.json", "1")
        func run(_ stream: String, _ words: String) throws -> (output: String, errors: String) {
            let file = workspace.path("stderr")
            let command =
                "exec 2>'\(file)'; export JOURNAL_STREAM=\(stream); exec '\(Program.binary)' \(words)"
            let result = try Program.run(
                "/bin/sh", ["-c", command.replacing("FILE", with: file)], environment: workspace.environment)
            return (result.output, try String(contentsOfFile: file, encoding: .utf8))
        }
        let journal = "$(stat -Lc %d:%i 'FILE')"
        let failed = try run(journal, "backup '\(workspace.path("nowhere"))'")
        let lines = failed.errors.split(separator: "\n")
        #expect(lines.count >= 3 && lines.dropFirst().allSatisfy { $0.hasPrefix("<3>") }, "\(failed.errors)")
        #expect(lines.first == "<6>bgbackup: backup begins", "where the journal itself cannot be reached")
        #expect(try run("1:1", "backup '\(workspace.path("nowhere"))'").errors.hasPrefix("bgbackup: "), "another stream")
        #expect(try run("nonsense", "backup '\(workspace.path("nowhere"))'").errors.hasPrefix("bgbackup: "))
        let made = try run(journal, "backup '\(volume.path)'")
        #expect(made.output.hasPrefix("snapshot ") && !made.output.contains("\u{1b}") && !made.errors.contains("\u{1b}"))
    }
}

extension Running {
    /// Bytes that it had read or written so far, by whatever way.
    fileprivate var bytesMoved: Int64 {
        guard let text = try? String(contentsOfFile: "/proc/\(pid)/io", encoding: .utf8) else { return 0 }
        return text.split(separator: "\n").filter { $0.hasPrefix("rchar:") || $0.hasPrefix("wchar:") }
            .compactMap { Int64($0.split(separator: " ")[1]) }.reduce(0, +)
    }

    /// Ends a shell and what it started.
    fileprivate func endGroup() {
        _ = try? Program.tool("pkill", ["-KILL", "-P", "\(pid)"])
        end()
    }
}
