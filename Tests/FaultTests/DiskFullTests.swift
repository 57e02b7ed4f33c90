import Foundation
import Glibc
import TestSupport
import Testing

/// Real file systems that run full.
@Suite(.enabled(if: LoopDevices.areAvailable, "needs root, losetup and mkfs.ext4"))
struct DiskFullTests {
    private let work: Workspace
    private let stage: BackupStage

    init() throws {
        stage = try BackupStage.shared.get()
        work = try stage.workspace.copy("full")
    }

    private func fill(_ folder: String, leaving bytes: Int = 0) throws {
        var status = statvfs()
        try #require(
            statvfs(folder, &status) == 0 && status.f_blocks * status.f_frsize < 64 << 20, "only a small file system is filled")
        let file = open("\(folder)/filler", O_WRONLY | O_CREAT, 0o600)
        defer { close(file) }
        var step = 1 << 20
        let block = [UInt8](repeating: 7, count: step)
        while step >= 512 {
            if write(file, block, step) <= 0 { step /= 2 }
        }
        fsync(file)
        let size = Int(lseek(file, 0, SEEK_END))
        if bytes > 0 { ftruncate(file, off_t(max(size - bytes, 0))) }
    }

    @Test(arguments: [0, 64 << 10, 400 << 10]) func `a full repository loses nothing and goes on when there is room`(_ room: Int)
        throws
    {
        let disk = try LoopMount("ext4", megabytes: 16, in: work.directory)
        defer { withExtendedLifetime(disk) {} }
        try Program.run("/bin/cp", ["-a", work.repository, "\(disk.path)/repository"])
        var moved = work
        moved.environment["BGBACKUP_REPOSITORY"] = "\(disk.path)/repository"
        try SmallVolume.write("segment/large.dat", bytes(3_000_000), in: try volume())
        try fill(disk.path, leaving: room)
        let full = try moved.bgbackup("backup", work.path("volume"), "--json")
        #expect(full.status == 1, "\(full.errors)")
        #expect(full.summary["code"] as? String == "store-full")
        #expect((full.summary["hint"] as? String)?.isEmpty == false)
        // Reading needs no room.
        #expect(try moved.restored(stage.first, to: "first") == stage.firstTree)
        #expect(try moved.bgbackup("check", "--read-data").status == 0)
        let names = try FileManager.default.contentsOfDirectory(atPath: "\(disk.path)/repository/v1/snapshots")
        #expect(names.count == 1)
        try FileManager.default.removeItem(atPath: "\(disk.path)/filler")
        #expect(try moved.bgbackup("backup", work.path("volume")).status == 0)
        #expect(try moved.restored("latest", to: "latest") == Fixture.hash(work.path("volume")))
    }

    private func volume() throws -> String {
        try SmallVolume.make(work.path("volume"))
        return work.path("volume")
    }

    private func bytes(_ count: Int) -> Data {
        var random = Seeded(77)
        return random.bytes(count)
    }

    @Test func `a full cache does not stop a backup`() throws {
        let disk = try LoopMount("ext4", megabytes: 8, in: work.directory)
        defer { withExtendedLifetime(disk) {} }
        try fill(disk.path)
        let result = try work.bgbackup("backup", stage.volume, extra: ["BGBACKUP_CACHE_DIR": disk.path])
        #expect(result.status == 0, "\(result.errors)")
        #expect(try work.restored("latest", to: "latest") == stage.secondTree)
    }

    @Test func `a full state directory does not stop a backup, and its snapshot is complete`() throws {
        let disk = try LoopMount("ext4", megabytes: 8, in: work.directory)
        defer { withExtendedLifetime(disk) {} }
        try fill(disk.path)
        let result = try work.bgbackup("backup", stage.volume, "--json", extra: ["BGBACKUP_STATE_DIR": disk.path])
        #expect(result.status == 0 || result.status == 3, "\(result.errors)")
        #expect(try work.restored("latest", to: "latest") == stage.secondTree)
        let shown = try work.bgbackup("show", "latest", "--json").document as? [String: Any]
        #expect(shown?["complete"] as? Bool == true, "\(shown ?? [:])")
    }

    @Test func `a full target is marked unfinished, and --resume finishes it`() throws {
        let disk = try LoopMount("ext4", megabytes: 8, in: work.directory)
        defer { withExtendedLifetime(disk) {} }
        try fill(disk.path, leaving: 600 << 10)
        let target = "\(disk.path)/target"
        let full = try work.bgbackup("restore", "latest", "--target", target, "--json")
        #expect(full.status == 1, "\(full.errors)")
        #expect(full.summary["code"] as? String == "target-full")
        #expect((full.summary["hint"] as? String)?.contains("--resume") == true)
        #expect(FileManager.default.fileExists(atPath: "\(target)/.bgbackup-incomplete"))
        #expect(try work.bgbackup("restore", "latest", "--target", target).status == 15)
        try FileManager.default.removeItem(atPath: "\(disk.path)/filler")
        let resumed = try work.bgbackup("restore", "latest", "--target", target, "--resume")
        #expect(resumed.status == 0, "\(resumed.errors)")
        #expect(try Fixture.hash(target) == stage.firstTree)
    }
}
