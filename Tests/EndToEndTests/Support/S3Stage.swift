import BackupBase
import Foundation
import TestSupport
import Testing

/// A repository on each server with three snapshots, for tests that only look.
struct S3Stage: Sendable {
    let workspace: Workspace
    /// The volume as it is in the last snapshot, and as it was in the first.
    let volume: Volume
    let before: String
    /// The second was made of an unchanged volume.
    let snapshots: [Summary]

    var first: String { snapshots[0].id }
    var last: String { snapshots[2].id }

    static let sparse = "collections/c/0/segments/s/payload_storage/page_0.dat"

    private static let made = Locked<[S3Server.Kind: Result<S3Stage, any Error>]>([:])

    static func on(_ kind: S3Server.Kind) throws -> S3Stage {
        try made.withLock { made in
            if let known = made[kind] { return try known.get() }
            let new = Result { try S3Stage(kind) }
            made[kind] = new
            return try new.get()
        }
    }

    private init(_ kind: S3Server.Kind) throws {
        workspace = try Workspace.ready("stage", kind: kind)
        AtExit.remove(workspace.directory)
        volume = try Volume.small(workspace.path("volume"))
        try volume.write("collections/c/0/segments/s/vector_storage/chunk_0.mmap", noise(2_500_000, seed: 7))
        try volume.write(Self.sparse, noise(30_000, seed: 2), at: 200_000, size: 900_001)
        try volume.link("collections/c/config.json", "second-name")
        try volume.symlink("collections", "pointer")
        // So old that the next backup need not look at them again.
        usleep(2_150_000)
        before = workspace.path("before")
        try Program.tool("cp", ["-a", volume.path, before])
        let first = try workspace.backup(volume, "--node", "green", "--tag", "one")
        let second = try workspace.backup(volume, "--node", "green")
        try volume.write("collections/c/config.json", "{\"params\": 2}\n")
        try volume.write("added", "new")
        snapshots = [first, second, try workspace.backup(volume, "--node", "green", "--set", "night")]
    }
}

extension Summary: @unchecked Sendable {}  // What JSONSerialization makes is never changed.
