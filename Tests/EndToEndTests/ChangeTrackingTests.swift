import Foundation
import Glibc
import TestSupport
import Testing

private let page = "collections/c/0/segments/s/payload_storage/page_0.dat"
private let block: Int64 = 16 << 10

@Suite("Only blocks that changed are read", .enabled(if: Requirement.mountable.count == 3, "needs loop mounts"))
struct ChangeTrackingTests {
    let workspace: Workspace

    init() throws { workspace = try Workspace.ready("tracking") }

    private func mounted(_ type: String, _ options: String = "") throws -> (LoopMount, Volume) {
        let mount = try LoopMount(type, megabytes: 600, in: workspace.directory)
        if !options.isEmpty { try Program.tool("mount", ["-o", "remount,\(options)", mount.path]) }
        let volume = try Volume(mount.path + "/volume")
        try volume.writeRandom(page, megabytes: 40)
        try volume.writeRandom("collections/c/0/segments/s/payload_storage/page_1.dat", megabytes: 8)
        try volume.write("raft_state.json", "{}")
        return (mount, volume)
    }

    /// Changes 4 KiB at each of the pages.
    private func change(_ volume: Volume, pages: [Int], seed: UInt64) throws {
        for number in pages { try volume.write(page, noise(4096, seed: seed &+ UInt64(number)), at: Int64(number) * 4096) }
    }

    private func expectRestored(_ volume: Volume, _ name: String, omitting fields: [String] = []) throws {
        try workspace.restore("latest", onto: name)
        try expectIdentical(volume.path, workspace.path(name), omitting: fields)
    }

    @Test(arguments: ["btrfs", "xfs"])
    func `what is read is what changed, and a hundredth of the rest`(_ type: String) throws {
        let (mount, volume) = try mounted(type)
        try workspace.backup(volume)
        for round in 1...3 as ClosedRange<UInt64> {
            let pages = [3, 700, 701, 5000, 9999].map { $0 + Int(round) * 17 }
            try change(volume, pages: pages, seed: round)
            let summary = try workspace.backup(volume)
            // XFS may have copied more than was written; a file system's own words are believed, not guessed.
            let most = Int64(pages.count) * (type == "btrfs" ? block : 1 << 20)
            #expect(try summary.number("bytes_read") <= most + 2, "\(summary.fields)")
            #expect(try summary.number("bytes_read") >= 4 * block)
            #expect(try summary.number("bytes_audited") > 0)
            #expect(try summary.number("files_changed") == 1)
            try expectRestored(volume, "out\(round)")
            #expect(try workspace.expect(0, ["check", "--read-data"]).status == 0)
        }
        withExtendedLifetime(mount) {}
    }

    @Test(arguments: ["btrfs", "xfs"])
    func `files that grow, shrink, get holes or lose them are right`(_ type: String) throws {
        let (mount, volume) = try mounted(type)
        try workspace.backup(volume)
        let steps = [
            "truncate -s 50000000 \(page)", "truncate -s 30000001 \(page)", "fallocate -p -o 4096000 -l 8192000 \(page)",
            "printf x | dd of=\(page) bs=1 seek=5000000 conv=notrunc status=none", "fallocate -o 36000000 -l 4000000 \(page)",
            "printf y | dd of=\(page) bs=1 seek=38000000 conv=notrunc status=none",
            "head -c 100 /dev/urandom | dd of=\(page) bs=1 seek=38000100 conv=notrunc status=none",
            "cp --reflink=always collections/c/0/segments/s/payload_storage/page_1.dat other && mv other \(page)",
            "truncate -s 0 \(page)", "head -c 3000000 /dev/urandom > \(page)",
        ]
        for (number, step) in steps.enumerated() {
            try volume.shell(step)
            try workspace.backup(volume)
            // XFS calls preallocated space data for as long as its pages are cached.
            try expectRestored(volume, "out\(number)", omitting: type == "xfs" ? ["segments"] : [])
        }
        withExtendedLifetime(mount) {}
    }

    @Test func `compressed and inline extents are read, whatever their place says`() throws {
        let (mount, volume) = try mounted("btrfs", "compress-force=zstd")
        try volume.shell("yes 'a line of text that is the same' | head -c 20000000 > \(page); sync")
        try workspace.backup(volume)
        try change(volume, pages: [100, 3000], seed: 9)
        let summary = try workspace.backup(volume)
        #expect(try summary.number("bytes_read") > 15_000_000)
        try expectRestored(volume, "out")
        withExtendedLifetime(mount) {}
    }

    /// What was replaced and removed; not what was added, and not what is as it was.
    @Test(arguments: ["btrfs", "xfs"])
    func `the space that only the kept capture holds is told`(_ type: String) throws {
        let (mount, volume) = try mounted(type)
        try volume.writeRandom("collections/c/0/segments/s/payload_storage/page_2.dat", megabytes: 4)
        #expect(try workspace.backup(volume).number("bytes_pinned") == 0)
        try volume.shell(
            """
            cd collections/c/0/segments/s/payload_storage; head -c 8M /dev/urandom > new; mv new page_1.dat; rm page_2.dat
            dd if=/dev/urandom of=page_0.dat bs=1M count=2 seek=10 conv=notrunc status=none
            head -c 6M /dev/urandom >> page_0.dat; head -c 5M /dev/urandom > page_3.dat
            """)
        let pinned = try workspace.backup(volume).number("bytes_pinned")
        #expect((14 << 20...15 << 20).contains(pinned), "\(pinned)")
        #expect(try workspace.backup(volume).number("bytes_pinned") == 0)
        withExtendedLifetime(mount) {}
    }

    @Test func `rescan reads everything`() throws {
        let (mount, volume) = try mounted("btrfs")
        try workspace.backup(volume)
        let summary = try workspace.backup(volume, "--rescan")
        #expect(try summary.number("bytes_read") == summary.number("bytes_total"))
        #expect(try summary.number("bytes_new") == 0)
        withExtendedLifetime(mount) {}
    }

    /// The one thing that tracking cannot see: somebody gave the kept capture the new extents.
    @Test func `a lie is found, said, and everything is read again`() async throws {
        let (mount, volume) = try mounted("xfs")
        // Only one file is to be looked at closer.
        try await settle()
        try workspace.backup(volume)
        // All of it changes, so that any stretch that is looked at tells.
        try volume.shell("head -c 41943040 /dev/urandom | dd of=\(page) bs=1M conv=notrunc status=none; sync")
        let inode = try volume.shell("printf %x $(stat -c %i \(page))")
        try volume.shell("cd ../.bgbackup/*/kept-* && cp --reflink=always '\(volume(page))' \(inode)")
        let summary = try workspace.backup(volume, status: 3)
        #expect(summary.problems.count == 1 && summary.problems[0].contains("changed-block tracking"), "\(summary.problems)")
        #expect(summary.problems[0].contains(page))
        #expect(try summary.number("bytes_read") >= summary.number("bytes_total"))
        try expectRestored(volume, "out")
        // And the next run starts from something true.
        try change(volume, pages: [5], seed: 4)
        #expect(try workspace.backup(volume).number("bytes_read") < 4 << 20)
        try expectRestored(volume, "again")
        withExtendedLifetime(mount) {}
    }

    @Test(arguments: ["lists", "state", "kept", "foreign"])
    func `what does not belong to the parent is not compared with`(_ loss: String) throws {
        let (mount, volume) = try mounted("btrfs")
        try workspace.backup(volume)
        switch loss {
        case "lists":
            try Program.run("/bin/sh", ["-c", "for f in '\(workspace.path("state"))'/*/*.blocks/*; do echo x >> $f; done"])
        case "state": try workspace.loseState()
        case "kept": try volume.shell("btrfs -q subvolume delete ../.bgbackup/*/kept-*")
        default:
            // The capture of another snapshot under its own name: a clock that went back, a copied disk.
            try volume.shell("cd ../.bgbackup/*/ && mv kept-* kept-00112233445566778899aabbccddeeff")
        }
        try change(volume, pages: [77], seed: 3)
        let summary = try workspace.backup(volume)
        #expect(try summary.number("bytes_read") >= 40 << 20)
        #expect(try summary.number("bytes_audited") == 0)
        try expectRestored(volume, "out")
        #expect(try volume.shell("ls ../.bgbackup/*/ | grep -c kept") == "1\n")
        withExtendedLifetime(mount) {}
    }

    @Test func `a capture is not kept where there is little room, and that is said`() throws {
        let (mount, volume) = try mounted("btrfs")
        _ = try? volume.shell("head -c 440M /dev/urandom > ../filler; sync")
        let result = try workspace.expect(0, ["backup", volume.path, "--json"])
        #expect(result.errors.contains("not kept"), "\(result.errors)")
        #expect(try volume.shell("ls ../.bgbackup/*/") == "lock\n")
        withExtendedLifetime(mount) {}
    }
}
