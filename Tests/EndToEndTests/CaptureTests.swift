import Foundation
import Glibc
import TestSupport
import Testing

/// File systems that captures are tried on, and what `auto` does there.
private let places: [(type: String, method: String)] = [("btrfs", "btrfs"), ("xfs", "reflink"), ("ext4", "pause")]

@Suite("One moment of a volume that is written to", .enabled(if: Requirement.mountable.count == 3, "needs loop mounts"))
struct CaptureTests {
    let workspace: Workspace

    init() throws { workspace = try Workspace.ready("capture") }

    private func mounted(_ type: String, _ name: String = "mount") throws -> (LoopMount, Volume) {
        let mount = try LoopMount(type, megabytes: 600, in: workspace.directory, name: name)
        let volume = try Volume(mount.path + "/volume")
        // So much lies between the two files that a plain copy meets them at two moments.
        try volume.writeRandom("collections/c/0/segments/s/payload_storage/page_0.dat", megabytes: 24)
        try volume.writeRandom("collections/c/0/segments/s/payload_storage/page_1.dat", megabytes: 24)
        return (mount, volume)
    }

    @Test(arguments: places)
    func `auto finds a way, and every snapshot is of one moment`(_ place: (type: String, method: String)) throws {
        let (mount, volume) = try mounted(place.type)
        let writer = try TwinWriter(volume.path)
        for round in 0..<5 {
            let before = try writer.count()
            let summary = try workspace.backup(volume)
            #expect(try summary.text("capture") == place.method)
            #expect(try summary.text("consistency") == "atomic")
            #expect(summary.problems == [])
            #expect(try writer.isWriting(), "it was left stopped")
            try workspace.restore("latest", onto: "out\(round)")
            let (first, second) = try TwinWriter.counts(workspace.path("out\(round)"))
            #expect(second == first || second + 1 == first, "\(first) and \(second)")
            #expect(first > before, "older than the backup")
            #expect(try workspace.show("latest").text("consistency") == "atomic")
        }
        writer.stop()
        withExtendedLifetime(mount) {}
    }

    @Test func `a plain copy mixes moments, and says that it may`() throws {
        let (mount, volume) = try mounted("ext4")
        let writer = try TwinWriter(volume.path)
        var mixed = 0
        for round in 0..<5 {
            let result = try workspace.run(["backup", volume.path, "--capture", "none", "--json"])
            #expect(result.status == 3, "files changed while they were read")
            #expect(result.summary["consistency"] as? String == "fuzzy")
            try workspace.restore("latest", onto: "out\(round)")
            if try !TwinWriter.isOneMoment(workspace.path("out\(round)")) { mixed += 1 }
        }
        #expect(mixed > 0, "the test of the other methods could not fail")
        writer.stop()
        withExtendedLifetime(mount) {}
    }

    @Test(arguments: places)
    func `a volume that nobody writes to is atomic without anybody held`(_ place: (type: String, method: String)) throws {
        let (mount, volume) = try mounted(place.type)
        let summary = try workspace.backup(volume)
        #expect(try summary.text("capture") == (place.method == "pause" ? "quiet" : place.method))
        #expect(try summary.text("consistency") == "atomic")
        if place.method != "btrfs" { #expect(summary.fields["capture_seconds"] as? Double == 0) }
        try workspace.restore("latest")
        try expectIdentical(volume.path, workspace.path("restored"))
        withExtendedLifetime(mount) {}
    }

    @Test func `a log that is mounted or linked beneath is captured at the same moment`() throws {
        let (main, volume) = try mounted("btrfs")
        let other = try LoopMount("btrfs", megabytes: 320, in: workspace.directory, name: "log")
        let third = try LoopMount("ext4", megabytes: 64, in: workspace.directory, name: "linked")
        // The second file is on a file system of its own, mounted where the volume has its log.
        try volume.makeDirectory("collections_meta_wal")
        try volume.shell("mount --bind '\(other.path)' collections_meta_wal")
        defer { _ = try? volume.shell("umount collections_meta_wal") }
        try volume.makeDirectory("collections/c/0")
        try Volume(third.path + "/wal").write("open-1", "a log record")
        try volume.symlink(third.path + "/wal", "collections/c/0/wal")

        let writer = try TwinWriter(volume.path)
        for (round, capture) in ["auto", "pause"].enumerated() {
            let summary = try workspace.backup(volume, "--capture", capture)
            #expect(try summary.text("consistency") == "atomic")
            #expect(try summary.text("capture") == "pause", "one part is on ext4")
            try workspace.restore("latest", onto: "out\(round)")
            #expect(try TwinWriter.isOneMoment(workspace.path("out\(round)")))
            #expect(try workspace.dump("latest", "collections/c/0/wal/open-1") == Array("a log record".utf8))
        }
        // Without the part on ext4 all of it can be snapshots.
        try volume.shell("rm collections/c/0/wal")
        for round in 2..<6 {
            let summary = try workspace.backup(volume)
            #expect(try summary.text("capture") == "btrfs")
            #expect((summary.fields["capture_seconds"] as? Double ?? 0) > 0)
            try workspace.restore("latest", onto: "out\(round)")
            let (first, second) = try TwinWriter.counts(workspace.path("out\(round)"))
            #expect(second == first || second + 1 == first, "\(first) and \(second)")
            #expect(try writer.isWriting())
        }
        writer.stop()
        withExtendedLifetime((main, other, third)) {}
    }

    @Test func `a link to what is another's is not followed, and named`() throws {
        let (mount, volume) = try mounted("ext4")
        try Volume(workspace.path("secret")).write("key", "of root")
        try volume.shell("chown -R 12345 . && ln -s '\(workspace.path("secret"))' collections/c/0/wal")
        let summary = try workspace.backup(volume, status: 3)
        #expect(summary.problems.count == 1 && summary.problems[0].contains("collections/c/0/wal"), "\(summary.problems)")
        #expect(try !workspace.list("latest").contains("collections/c/0/wal/key"))
        withExtendedLifetime(mount) {}
    }

    @Test(arguments: ["link", "directory"])
    func `a place for captures that is another's is not used`(_ kind: String) throws {
        let (mount, volume) = try mounted("btrfs")
        let elsewhere = try Volume(workspace.path("elsewhere"))
        try elsewhere.write("precious", "of root")
        try volume.shell(
            kind == "link" ? "ln -s '\(elsewhere.path)' ../.bgbackup" : "mkdir ../.bgbackup && chown 12345 ../.bgbackup")
        let result = try workspace.expect(14, ["backup", volume.path, "--capture", "btrfs"])
        #expect(result.errors.contains(".bgbackup"), "\(result.errors)")
        #expect(elsewhere.exists("precious"))
        withExtendedLifetime(mount) {}
    }

    @Test func `captures stand beside the volume, and in it where it fills a file system`() throws {
        let mount = try LoopMount("btrfs", megabytes: 320, in: workspace.directory)
        let volume = try Volume(mount.path)
        try volume.write("collections/c/config.json", "{}")
        try workspace.backup(volume)
        try workspace.backup(volume)
        #expect(try volume.shell("ls -d .bgbackup/*/kept-*").split(separator: "\n").count == 1)
        #expect(try workspace.list("latest") == ["collections", "collections/c", "collections/c/config.json"])
        try workspace.backup(volume, "--no-keep-capture")
        #expect(try volume.shell("ls .bgbackup/*/") == "lock\n")
    }
}

@Suite("What cannot be captured", .enabled(if: Requirement.mountable.count == 3, "needs loop mounts"))
struct CaptureRefusalTests {
    let workspace: Workspace

    init() throws { workspace = try Workspace.ready("refusal") }

    /// One backup that has to end with status 14, a reason and a hint, and to leave no snapshot.
    private func refuse(_ volume: Volume, _ arguments: [String], _ reason: String, _ hint: String? = nil) throws {
        let before = try workspace.expect(0, ["snapshots", "--json"]).output
        let result = try workspace.expect(14, ["backup", volume.path] + arguments)
        #expect(result.errors.contains(reason), "\(result.errors)")
        if let hint { #expect(result.errors.contains(hint), "\(result.errors)") }
        #expect(try workspace.expect(0, ["snapshots", "--json"]).output == before)
    }

    @Test func `a method that the file system does not have is refused, and what would work is said`() throws {
        let mount = try LoopMount("ext4", megabytes: 64, in: workspace.directory)
        let volume = try Volume.small(mount.path + "/volume")
        try refuse(volume, ["--capture", "btrfs"], "no subvolume of btrfs", "--capture")
        try refuse(volume, ["--capture", "reflink"], "cannot be cloned", "--capture pause")
        try refuse(volume, ["--capture", "freeze"], "needs a program", "--capture-hook")
        try refuse(volume, ["--capture", "zfs"], "zfs")
        try refuse(volume, ["--capture", "lvm"], "lvs")
        #expect(try workspace.expect(64, ["backup", volume.path, "--capture-hook", "x"]).errors.contains("--capture freeze"))
        withExtendedLifetime(mount) {}
    }

    @Test func `a volume of which one part cannot be captured says which`() throws {
        let (main, other) = (
            try LoopMount("btrfs", megabytes: 320, in: workspace.directory),
            try LoopMount("ext4", megabytes: 64, in: workspace.directory, name: "other")
        )
        let volume = try Volume.small(main.path + "/volume")
        try volume.makeDirectory("collections_meta_wal")
        try volume.shell("mount --bind '\(other.path)' collections_meta_wal")
        defer { _ = try? volume.shell("umount collections_meta_wal") }
        try refuse(volume, ["--capture", "btrfs"], "collections_meta_wal")
        withExtendedLifetime((main, other)) {}
    }

    @Test func `a full file system is no capture, and the volume is as it was`() throws {
        let mount = try LoopMount("xfs", megabytes: 320, in: workspace.directory)
        let volume = try Volume.small(mount.path + "/volume")
        try volume.shell("mkdir many && cd many && seq 20000 | xargs touch")
        _ = try? volume.shell("cat /dev/zero > ../filler; sync")
        _ = try? volume.shell("i=0; while echo x > ../f$i; do i=$((i+1)); done 2>/dev/null")
        let result = try workspace.run(["backup", volume.path, "--capture", "reflink"])
        #expect(result.status == 14, "\(result.errors)")
        #expect(result.errors.contains("Make room") || result.errors.contains("No space"), "\(result.errors)")
        #expect(try volume.shell("ls -A ../.bgbackup/*/ 2>/dev/null || true").contains("taken") == false)
        withExtendedLifetime(mount) {}
    }

    @Test func `a process that cannot be paused is named`() throws {
        let mount = try LoopMount("ext4", megabytes: 64, in: workspace.directory)
        let volume = try Volume.small(mount.path + "/volume")
        let writer = try TwinWriter(volume.path)
        // Somebody traces it already, as a debugger would.
        let tracer = try Running(
            "/usr/bin/env", ["strace", "-f", "-e", "trace=none", "-o", "/dev/null", "-p", "\(writer.pid)"], environment: [:])
        while !(try String(contentsOfFile: "/proc/\(writer.pid)/status", encoding: .utf8)).contains("TracerPid:\t\(tracer.pid)") {
            usleep(1000)
        }
        try refuse(volume, [], "python3 (process \(writer.pid)) cannot be paused", "CAP_SYS_PTRACE")
        tracer.end()
        #expect(try writer.isWriting())
        try workspace.backup(volume)
        writer.stop()
        withExtendedLifetime(mount) {}
    }

    @Test func `somebody whose files cannot be seen is no reason to call a copy atomic`() throws {
        let mount = try LoopMount("ext4", megabytes: 64, in: workspace.directory)
        let volume = try Volume.small(mount.path + "/volume")
        // Opens, appends and closes: whoever looks finds nobody.
        let writer = try Running(
            "/bin/sh", ["-c", "while :; do echo x >> '\(volume("log"))'; done"], environment: [:])
        let result = try workspace.run(["backup", volume.path, "--json"])
        if result.status == 14 {
            #expect(result.errors.contains("keeps changing"), "\(result.errors)")
        } else {
            // It was met while it had the file open, and paused then.
            #expect(result.status == 0 && result.summary["capture"] as? String == "pause")
        }
        writer.end()
        withExtendedLifetime(mount) {}
    }
}
