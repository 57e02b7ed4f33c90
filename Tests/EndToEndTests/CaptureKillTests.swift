import BackupBase
import Foundation
import Glibc
import TestSupport
import Testing

/// Kills the program, its guard, or both, at each step of a capture.
@Suite(
    "A capture that is killed holds nothing and leaves nothing",
    .enabled(if: Requirement.mountable.count == 3 && Program.hasTool("strace"), "needs loop mounts and strace"))
struct CaptureKillTests {
    let workspace: Workspace

    init() throws { workspace = try Workspace.ready("kill") }

    private func mounted(_ type: String) throws -> (LoopMount, Volume) {
        let mount = try LoopMount(type, megabytes: 400, in: workspace.directory)
        let volume = try Volume(mount.path + "/volume")
        try volume.writeRandom("collections/c/0/segments/s/payload_storage/page_0.dat", megabytes: 6)
        return (mount, volume)
    }

    /// Runs a backup whose n-th system call of a kind ends it by SIGKILL; false when it has not so many.
    private func kill(_ volume: Volume, at call: String, _ number: Int, _ arguments: [String] = []) throws -> Bool {
        let key = try workspace.writerKey()
        let result = try Program.tool(
            "strace",
            ["-f", "-qq", "-o", "/dev/null", "-e", "trace=\(call)", "-e", "inject=\(call):signal=KILL:when=\(number)"]
                + [Program.binary, "backup", volume.path, "--writer-key", key] + arguments,
            environment: workspace.environment)
        return result.status != 0
    }

    /// A frozen file system lets nobody make a file; who tries cannot be killed,
    /// and must have nothing open that somebody waits for.
    private func isFrozen(_ mount: LoopMount) throws -> Bool {
        let script = """
            import os, subprocess, sys, time
            child = subprocess.Popen(["touch", sys.argv[1]], close_fds=True)
            for _ in range(100):
                if child.poll() is not None: os._exit(0)
                time.sleep(0.01)
            os._exit(9)
            """
        return try Program.tool("python3", ["-c", script, mount.path + "/probe"]).status == 9
    }

    @Test(
        arguments: [
            ("btrfs", ["ioctl", "renameat2", "mkdir"]),
            ("xfs", ["ioctl", "sendto", "recvfrom", "mkdirat", "renameat2", "linkat"]),
            ("ext4", ["sendto", "recvfrom", "pwrite64"]),
        ])
    func `at every step`(_ type: String, _ calls: [String]) throws {
        let (mount, volume) = try mounted(type)
        let writer = try TwinWriter(volume.path)
        try workspace.backup(volume)
        for call in calls {
            for number in [1, 2, 3, 4, 6, 9] {
                guard try kill(volume, at: call, number) else { break }
                #expect(try writer.isWriting(), "\(call) \(number) left it stopped")
                #expect(try !isFrozen(mount))
            }
        }
        let summary = try workspace.backup(volume)
        #expect(try summary.text("consistency") == "atomic")
        try workspace.restore("latest")
        #expect(try TwinWriter.isOneMoment(workspace.path("restored")))
        if type != "ext4" {
            #expect(
                try volume.shell("ls ../.bgbackup/*/").split(separator: "\n").sorted().map { $0.prefix(4) } == ["kept", "lock"])
        }
        writer.stop()
        withExtendedLifetime(mount) {}
    }

    /// A backup that is in the midst of holding writes: cloning a file waits for seconds.
    private func holding(_ volume: Volume, _ writer: TwinWriter) throws -> (run: Running, backup: Int32, guardian: Int32) {
        let key = try workspace.writerKey()
        let run = try Running(
            "/usr/bin/env",
            ["strace", "-f", "-qq", "-o", "/dev/null", "-e", "trace=ftruncate", "-P", "/nowhere", Program.binary]
                + ["backup", volume.path, "--writer-key", key, "--capture", "freeze", "--capture-hook", workspace.path("hook")],
            environment: workspace.environment)
        try run.wait { FileManager.default.fileExists(atPath: workspace.path("holding")) }
        let guardian = try Program.tool("pgrep", ["-n", "-f", "^bgbackup hold-guard"]).output
        let backup = try Program.tool("pgrep", ["-n", "-f", "^\(Program.binary) backup \(volume.path)"]).output
        return (run, Int32(backup.dropLast()) ?? 0, Int32(guardian.dropLast()) ?? 0)
    }

    private func makeHook() throws {
        let hook = workspace.path("hook")
        try Data("#!/bin/sh\n[ $1 = create ] && { touch '\(workspace.path("holding"))'; sleep 4; }\nexit 0\n".utf8)
            .write(to: URL(filePath: hook))
        chmod(hook, 0o755)
    }

    @Test(arguments: ["backup", "guard", "both"])
    func `in the midst of a freeze`(_ victim: String) throws {
        let (mount, volume) = try mounted("ext4")
        let writer = try TwinWriter(volume.path)
        try makeHook()
        let (run, backup, guardian) = try holding(volume, writer)
        #expect(backup > 0 && guardian > 0)
        #expect(try isFrozen(mount))
        if victim != "backup" { Glibc.kill(guardian, SIGKILL) }
        if victim != "guard" { Glibc.kill(backup, SIGKILL) }
        let status = run.wait()
        let printed = try run.printed
        switch victim {
        case "backup":
            #expect(status != 0)
            #expect(try !isFrozen(mount), "the guard did not thaw")
        case "guard":
            #expect(status == 14, "\(printed)")
            #expect(try !isFrozen(mount), "nobody thawed")
        default:
            // Nobody was left to thaw: the next run does.
            #expect(try isFrozen(mount))
            try? FileManager.default.removeItem(atPath: workspace.path("holding"))
            let next = try workspace.run(
                ["backup", volume.path, "--capture", "freeze", "--capture-hook", workspace.path("hook")])
            #expect(next.status == 14, "the hook shows no directory")
            #expect(try !isFrozen(mount))
        }
        #expect(try writer.isWriting())
        writer.stop()
        withExtendedLifetime(mount) {}
    }

    @Test func `a pause ends with its guard, whoever is killed`() throws {
        let (mount, volume) = try mounted("ext4")
        let writer = try TwinWriter(volume.path)
        for victims in [["guard"], ["backup"], ["guard", "backup"]] {
            let key = try workspace.writerKey()
            // What changed is put aside while writes are held: there the backup is stopped for good.
            let run = try Running(
                "/usr/bin/env",
                ["strace", "-f", "-qq", "-o", "/dev/null", "-e", "trace=pwrite64", "-e", "inject=pwrite64:delay_enter=3000000"]
                    + [Program.binary, "backup", volume.path, "--writer-key", key],
                environment: workspace.environment)
            func tracer() -> Int32 {
                let status = (try? String(contentsOfFile: "/proc/\(writer.pid)/status", encoding: .utf8)) ?? ""
                let line = status.split(separator: "\n").first { $0.hasPrefix("TracerPid:") }
                return Int32(line?.split(separator: "\t").last ?? "0") ?? 0
            }
            try run.wait { tracer() != 0 }
            let guardian = tracer()
            usleep(300_000)
            #expect(try !writer.isWriting(), "it was not held")
            if victims.contains("backup") {
                let backup = try Program.tool("pgrep", ["-n", "-f", "^\(Program.binary) backup \(volume.path)"]).output
                Glibc.kill(Int32(backup.dropLast())!, SIGKILL)
            }
            if victims.contains("guard") { Glibc.kill(guardian, SIGKILL) }
            let status = run.wait()
            let printed = try run.printed
            #expect(victims == ["guard"] ? status == 14 : status != 0, "\(printed)")
            #expect(try writer.isWriting(), "\(victims) killed: it was left stopped")
        }
        writer.stop()
        withExtendedLifetime(mount) {}
    }

    @Test func `writes are held no longer than they may be`() throws {
        let (mount, volume) = try mounted("ext4")
        let writer = try TwinWriter(volume.path)
        try makeHook()
        let result = try workspace.run(
            ["backup", volume.path, "--capture", "freeze", "--capture-hook", workspace.path("hook"), "--max-freeze", "0.5"])
        #expect(result.status == 14)
        #expect(result.errors.contains("took longer") || result.errors.contains("longer than"), "\(result.errors)")
        #expect(try writer.isWriting())
        #expect(try !isFrozen(mount))
        writer.stop()
        withExtendedLifetime(mount) {}
    }

    @Test func `a file system that somebody else has frozen is said to be, and stays so`() throws {
        let (mount, volume) = try mounted("ext4")
        try makeHook()
        try Program.tool("fsfreeze", ["--freeze", mount.path])
        defer { _ = try? Program.tool("fsfreeze", ["--unfreeze", mount.path]) }
        let result = try workspace.run(
            ["backup", volume.path, "--capture", "freeze", "--capture-hook", workspace.path("hook")])
        #expect(result.status == 14)
        #expect(result.errors.contains("frozen"), "\(result.errors)")
        #expect(try isFrozen(mount))
        withExtendedLifetime(mount) {}
    }
}
