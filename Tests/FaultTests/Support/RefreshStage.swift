import BackupBase
import Foundation
import TestSupport

/// A repository with two snapshots of a volume, of which the second differs in
/// every way that makes a refresh do something of its own.
struct RefreshStage: Sendable {
    let workspace: Workspace
    let first: String
    let second: String
    let firstTree: String
    let secondTree: String

    /// Made once; each test has a copy.
    static let shared = Result { try RefreshStage() }

    private init() throws {
        let work = try Workspace("refresh-stage")
        AtExit.remove(work.directory)
        workspace = work
        let volume = work.path("volume")
        try SmallVolume.make(volume)
        try Self.shell(
            "echo x > file-then-folder; mkdir -p folder-then-file/deep; echo y > folder-then-file/deep/y; ln -s one way", volume)
        first = try Self.backup(work, volume)
        firstTree = try Fixture.hash(volume)
        try SmallVolume.change(volume)
        try Self.shell(
            """
            rm -r file-then-folder folder-then-file
            mkdir -p file-then-folder/below; echo z > file-then-folder/below/z; echo w > folder-then-file
            ln -sfn two way; rm segment/page_again.dat; ln segment/page_0.dat third-name
            fallocate --punch-hole --offset 1048576 --length 8192 segment/sparse.dat
            dd if=/dev/zero of=segment/sparse.dat bs=65536 seek=4 count=1 conv=notrunc status=none
            truncate -s 400001 segment/matrix.dat; setfattr -x user.test raft_state.json || true
            """, volume)
        second = try Self.backup(work, volume)
        secondTree = try Fixture.hash(volume)
    }

    /// A copy in which the first snapshot is restored onto `target`.
    func restored() throws -> Workspace {
        let work = try workspace.copy("refresh")
        guard try work.restored(first, to: "target") == firstTree else { throw BackupError(.failed, "no restore to begin with") }
        return work
    }

    private static func backup(_ work: Workspace, _ volume: String) throws -> String {
        let result = try work.bgbackup("backup", volume, "--json")
        guard result.status == 0, let id = result.summary["snapshot_id"] as? String else {
            throw BackupError(.failed, "no backup: \(result.errors.prefix(2000))")
        }
        return id
    }

    private static func shell(_ command: String, _ folder: String) throws {
        let result = try Program.run("/bin/sh", ["-ec", command], directory: folder)
        guard result.status == 0 else { throw BackupError(.failed, "\(command): \(result.errors)") }
    }
}

extension KillPlan {
    /// Below the whole workspace: the node's note of the target is one of the changes.
    static let refresh = KillPlan { log in
        let stage = try RefreshStage.shared.get()
        let work = try stage.restored()
        return try work.bgbackup(
            "restore", stage.second, "--target", work.path("target"), "--refresh",
            extra: Faults(below: work.directory.path).logging(to: log).environment)
    }
}
