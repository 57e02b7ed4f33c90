import BackupBase
import Foundation
import Glibc
import TestSupport
import Testing

private let block: Int64 = 64 << 10

@Suite(
    "Raw images are cloned, and only what changed is read", .enabled(if: Requirement.mountable.count == 3, "needs loop mounts"))
struct ImageTrackingTests {
    let workspace: Workspace

    init() throws { workspace = try Workspace.ready("image") }

    /// A mounted file system with an image of 200 MiB, half of it data.
    private func mounted(_ type: String) throws -> (LoopMount, Volume) {
        let mount = try LoopMount(type, megabytes: 900, in: workspace.directory)
        let files = try Volume(mount.path + "/files")
        try files.shell("head -c 100M /dev/urandom > image.raw; truncate -s 200M image.raw; sync")
        return (mount, files)
    }

    private func change(_ files: Volume, _ count: Int, seed: UInt64) throws {
        for number in 0..<count {
            try files.write("image.raw", noise(4096, seed: seed &+ UInt64(number)), at: Int64(number * 79 + Int(seed)) * block)
        }
    }

    private func expectRestored(_ files: Volume, _ name: String, sourceLocation: SourceLocation = #_sourceLocation) throws {
        try workspace.restore("latest", onto: name)
        let result = try Program.tool("cmp", [files("image.raw"), workspace.path(name)])
        #expect(result.status == 0, "\(result.output)\(result.errors)", sourceLocation: sourceLocation)
        unlink(workspace.path(name))
    }

    private func area(_ files: Volume) throws -> String { try files.shell("ls .bgbackup/image-image.raw") }

    @Test(arguments: ["btrfs", "xfs"])
    func `what is read is what changed, and a hundredth of the rest`(_ type: String) throws {
        let (mount, files) = try mounted(type)
        let first = try workspace.backup(files("image.raw"))
        #expect(try first.text("capture") == "reflink")
        #expect(try first.text("consistency") == "atomic")
        #expect(try first.number("bytes_pinned") == 0)
        for round in 1...3 as ClosedRange<UInt64> {
            try change(files, 20, seed: round)
            let summary = try workspace.backup(files("image.raw"))
            #expect(try summary.number("bytes_read") <= 4 * 20 * block, "\(summary.fields)")
            #expect(try summary.number("bytes_read") >= 20 * block)
            #expect((1...20 << 20).contains(try summary.number("bytes_audited")))
            #expect(try summary.number("files_changed") == 1)
            try expectRestored(files, "out\(round).raw")
        }
        #expect(try workspace.expect(0, ["check", "--read-data"]).status == 0)
        #expect(try area(files).split(separator: "\n").count == 2, "the lock and one kept clone")
        withExtendedLifetime(mount) {}
    }

    @Test func `an image that grows, shrinks, gets holes or is replaced is right`() throws {
        let (mount, files) = try mounted("xfs")
        try workspace.backup(files("image.raw"))
        let steps = [
            "truncate -s 210000001 image.raw", "truncate -s 90000001 image.raw",
            "fallocate -p -o 4096000 -l 8192000 image.raw",
            "printf x | dd of=image.raw bs=1 seek=5000000 conv=notrunc status=none",
            "cp --reflink=always image.raw other; printf y >> other; mv other image.raw",
        ]
        for (number, step) in steps.enumerated() {
            try files.shell(step)
            try workspace.backup(files("image.raw"))
            try expectRestored(files, "out\(number).raw")
        }
        #expect(try files.shell("ls .bgbackup") == "image-image.raw\n", "one that was replaced leaves nothing")
        withExtendedLifetime(mount) {}
    }

    @Test func `rescan reads everything, --no-keep-capture keeps nothing`() throws {
        let (mount, files) = try mounted("btrfs")
        try workspace.backup(files("image.raw"))
        #expect(try workspace.backup(files("image.raw"), "--rescan").number("bytes_read") >= 100 << 20)
        try workspace.backup(files("image.raw"), "--no-keep-capture")
        #expect(try area(files) == "lock\n")
        withExtendedLifetime(mount) {}
    }

    @Test func `a lie of the kept clone is found, said, and everything is read again`() throws {
        let (mount, files) = try mounted("xfs")
        try workspace.backup(files("image.raw"))
        // All of it changes, so that any stretch that is looked at tells; and the kept clone gets the new extents.
        try files.shell(
            """
            head -c 200M /dev/urandom | dd of=image.raw bs=1M conv=notrunc status=none; sync
            cd .bgbackup/*/kept-*; cp --reflink=always ../../../image.raw *
            """)
        let summary = try workspace.backup(files("image.raw"), status: 3)
        #expect(summary.problems.count == 1 && summary.problems[0].contains("changed-block tracking"), "\(summary.problems)")
        #expect(try summary.number("bytes_read") >= 200 << 20)
        try expectRestored(files, "out.raw")
        try change(files, 3, seed: 5)
        #expect(try workspace.backup(files("image.raw")).number("bytes_read") <= 12 * block)
        try expectRestored(files, "again.raw")
        withExtendedLifetime(mount) {}
    }

    /// Two counts in different pages of the image, stored one after the other through mappings.
    @Test(arguments: ["btrfs", "xfs"])
    func `an image that a process writes to is cloned at one moment`(_ type: String) throws {
        let (mount, files) = try mounted(type)
        let writer = try Counter(files("image.raw"))
        for round in 0..<5 {
            let summary = try workspace.backup(files("image.raw"))
            #expect(try summary.text("consistency") == "atomic")
            #expect((summary.fields["capture_seconds"] as? Double ?? 0) > 0, "the writer was held")
            try workspace.restore("latest", onto: "out\(round).raw")
            let (first, second) = try Counter.counts(workspace.path("out\(round).raw"))
            #expect(first > 0 && (second == first || second + 1 == first), "\(first) and \(second)")
        }
        withExtendedLifetime((mount, writer)) {}
    }

    @Test func `one that a loop device writes to is status 14, and a moment when it rests`() throws {
        let (mount, files) = try mounted("xfs")
        let loop = try LoopDevice(files("image.raw"), megabytes: 200)
        let busy = Process()
        busy.executableURL = URL(filePath: "/bin/sh")
        busy.arguments = [
            "-c", "while :; do dd if=/dev/urandom of=\(loop.path) bs=4k count=1 oflag=direct conv=notrunc status=none; done",
        ]
        try busy.run()
        defer { kill(busy.processIdentifier, SIGKILL) }
        let result = try workspace.expect(14, ["backup", files("image.raw")])
        #expect(result.errors.contains(loop.path), "\(result.errors)")
        #expect(result.errors.contains("HINT"))
        #expect(try workspace.expect(0, ["snapshots"]).output.contains("reflink") == false)
        #expect(try area(files) == "lock\n", "no clone stays")
        kill(busy.processIdentifier, SIGKILL)
        busy.waitUntilExit()
        usleep(100_000)
        #expect(try workspace.backup(files("image.raw")).text("capture") == "reflink")
        try expectRestored(files, "out.raw")
        withExtendedLifetime((mount, loop)) {}
    }

    @Test func `one that is on no file system with reflinks is read whole, and that is said`() throws {
        let mount = try LoopMount("ext4", megabytes: 96, in: workspace.directory)
        let files = try Volume(mount.path + "/files")
        try files.write("image.raw", noise(3 << 20, seed: 3))
        let summary = try workspace.backup(files("image.raw"))
        #expect(try summary.text("capture") == "quiet")
        #expect(try summary.text("capture_reason").contains("reflinks"))
        let result = try workspace.expect(14, ["backup", files("image.raw"), "--capture", "reflink"])
        #expect(result.errors.contains("XFS and btrfs"), "\(result.errors)")
        try workspace.expect(14, ["backup", files("image.raw"), "--capture", "pause"])
        withExtendedLifetime(mount) {}
    }
}

/// A process that counts at both ends of a mapped image: in the first page and then in the last.
private final class Counter {
    private let process = Process()

    private static let script = """
        import mmap, os, struct, sys, time
        file = os.open(sys.argv[1], os.O_RDWR)
        size = os.fstat(file).st_size
        memory = mmap.mmap(file, size)
        os.close(file)
        count = 0
        while True:
            count += 1
            memory[0:8] = struct.pack("<Q", count)
            memory[size - 8:size] = struct.pack("<Q", count)
            if count % 100 == 0: time.sleep(0.001)
            if count == 1: print("ready", flush=True)
        """

    init(_ path: String) throws {
        let answers = Pipe()
        process.executableURL = URL(filePath: "/usr/bin/env")
        process.arguments = ["python3", "-c", Self.script, path]
        process.standardOutput = answers
        try process.run()
        guard !answers.fileHandleForReading.availableData.isEmpty else { throw BackupError(.failed, "nobody counts") }
    }

    static func counts(_ image: String) throws -> (UInt64, UInt64) {
        let file = try FileHandle(forReadingFrom: URL(filePath: image))
        let size = try file.seekToEnd()
        func count(_ offset: UInt64) throws -> UInt64 {
            try file.seek(toOffset: offset)
            let bytes = try file.read(upToCount: 8) ?? Data()
            return bytes.reversed().reduce(0) { $0 << 8 | UInt64($1) }
        }
        return (try count(0), try count(size - 8))
    }

    deinit {
        kill(process.processIdentifier, SIGKILL)
        process.waitUntilExit()
    }
}
