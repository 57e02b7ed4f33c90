import Foundation
import Glibc
import TestSupport
import Testing

private let page = "collections/c/0/segments/s/payload_storage/page_0.dat"
private let other = "collections/c/0/segments/s/payload_storage/page_1.dat"

/// The pool is a stand-in that compares what it copied: this kernel has no device mapper.
@Suite("A thin pool tells what changed", .enabled(if: Requirement.mountable.count == 3, "needs loop mounts"))
struct ThinTrackingTests {
    let workspace: Workspace

    init() throws { workspace = try Workspace.ready("thin") }

    private struct Stage {
        let mount: LoopMount
        let volume: Volume
        let fakes: SnapshotFakes
        let environment: [String: String]
    }

    private func stage(_ type: String = "ext4") throws -> Stage {
        let mount = try LoopMount(type, megabytes: 320, in: workspace.directory)
        let volume = try Volume(mount.path + "/volume")
        try volume.writeRandom(page, megabytes: 40)
        try volume.writeRandom(other, megabytes: 8)
        let fakes = try SnapshotFakes(workspace, mount: mount)
        try fakes.makeThin()
        let environment = fakes.environment.merging(["BGBACKUP_WRITER_KEY_FILE": try workspace.writerKey()]) { $1 }
        return Stage(mount: mount, volume: volume, fakes: fakes, environment: environment)
    }

    @discardableResult
    private func backup(_ stage: Stage, _ more: String..., status: Int32 = 0) throws -> Program.Result {
        try workspace.expect(
            status, ["backup", stage.volume.path, "--capture", "lvm", "--json"] + more, extra: stage.environment)
    }

    private func summary(_ result: Program.Result) -> Summary { Summary(fields: result.summary) }

    private func expectRestored(_ stage: Stage, _ name: String) throws {
        try workspace.restore("latest", onto: name)
        try expectIdentical(stage.volume.path, workspace.path(name))
    }

    /// But that Qdrant would not start on the volume, which is none that it wrote.
    private func warnings(_ summary: Summary) -> [String] {
        (summary.fields["warnings"] as? [String] ?? []).filter { !$0.contains("would not start") }
    }

    @Test(arguments: ["ext4", "xfs"])
    func `what is read is what changed, and a hundredth of the rest`(_ type: String) throws {
        let stage = try stage(type)
        let first = summary(try backup(stage))
        #expect(stage.fakes.snapshots == ["bgbackup-kept-\(first.id)"])
        for round in 1...2 as ClosedRange<UInt64> {
            for number in [3, 700, 5000, 9999] {
                try stage.volume.write(
                    page, noise(4096, seed: round &+ UInt64(number)), at: Int64(number + Int(round) * 17) * 4096)
            }
            let result = try backup(stage)
            let summary = summary(result)
            // A block of the pool is 64 KiB here.
            #expect((4 * 16384...4 * 2 * 65536).contains(try summary.number("bytes_read")), "\(summary.fields)")
            #expect(try summary.number("bytes_audited") > 0)
            #expect((4 * 65536...1 << 22).contains(try summary.number("bytes_pinned")))
            #expect(warnings(summary) == [])
            #expect(stage.fakes.snapshots == ["bgbackup-kept-\(summary.id)"])
            try expectRestored(stage, "out\(round)")
        }
        #expect(access("\(stage.fakes.directory)/metadata-snap", F_OK) != 0, "the pool's metadata is released")
        try backup(stage, "--no-keep-capture")
        #expect(stage.fakes.snapshots == [])
    }

    /// Nothing of this writes to the blocks that the file has afterwards.
    @Test func `a file whose blocks moved without a write is right`() throws {
        let stage = try stage()
        try backup(stage)
        let steps = [
            "fallocate --collapse-range -o 4096000 -l 4096000 \(page)", "fallocate -p -o 8192000 -l 4096000 \(page)",
            "fallocate --insert-range -o 4096000 -l 1048576 \(page)", "truncate -s 30000001 \(page)", "mv \(other) \(page)",
        ]
        for (number, step) in steps.enumerated() {
            try stage.volume.shell(step)
            try backup(stage)
            try expectRestored(stage, "out\(number)")
        }
    }

    @Test func `a lie of the pool is found, said, and everything is read again`() async throws {
        let stage = try stage()
        // Only one file is to be looked at closer.
        try await settle()
        try backup(stage)
        try stage.volume.shell("head -c 41943040 /dev/urandom | dd of=\(page) bs=1M conv=notrunc status=none; sync")
        try Data().write(to: URL(filePath: "\(stage.fakes.directory)/lies"))
        let summary = summary(try backup(stage, status: 3))
        #expect(summary.problems.count == 1 && summary.problems[0].contains("changed-block tracking"), "\(summary.problems)")
        try expectRestored(stage, "out")
    }

    @Test(arguments: ["thin_delta", "busy", "foreign", "full"])
    func `what cannot be compared is read whole, and that is said`(_ loss: String) throws {
        let stage = try stage()
        try backup(stage)
        switch loss {
        case "thin_delta": try Data().write(to: URL(filePath: "\(stage.fakes.directory)/broken"))
        case "busy": try Data().write(to: URL(filePath: "\(stage.fakes.directory)/metadata-snap"))
        case "full": try stage.fakes.makeThin(percent: "93.10")
        default: try workspace.loseState()
        }
        try stage.volume.write(page, noise(4096, seed: 7), at: 40960)
        let summary = summary(try backup(stage))
        let warnings = warnings(summary)
        #expect(warnings.count == (loss == "foreign" ? 0 : 1), "\(warnings)")
        if loss != "full" { #expect(try summary.number("bytes_read") >= 40 << 20) }
        #expect(stage.fakes.snapshots.contains("bgbackup-kept-\(summary.id)") == (loss != "full"))
        try expectRestored(stage, "out")
        if loss == "thin_delta" { #expect(access("\(stage.fakes.directory)/metadata-snap", F_OK) != 0) }
    }
}
