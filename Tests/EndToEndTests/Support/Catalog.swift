import Foundation
import TestSupport
import Testing

/// One repository for all tests that only read: three snapshots of two nodes.
/// Gone at the end of the process.
struct Catalog: Sendable {
    let workspace: Workspace
    /// The volume as it was in the first snapshot, and as it is in the second.
    let before: String
    let after: String
    let first: String
    let second: String
    /// Of another, smaller volume on another node, made between the two.
    let other: String

    static let shared = Result { try Catalog() }

    /// Bytes that are worth an indirect block list: ten thousand data ranges.
    static let indirect = "collections/c/0/segments/s/vector_storage/chunk_1.mmap"
    static let sparse = "collections/c/0/segments/s/payload_storage/page_0.dat"

    private init() throws {
        workspace = try Workspace.ready("catalog")
        AtExit.remove(workspace.directory)
        before = workspace.path("before")
        after = workspace.path("after")
        let volume = try Volume(after)
        try volume.write("collections/c/config.json", "{\"params\": 1}\n")
        try volume.write("collections/c/0/segments/s/vector_storage/matrix.dat", noise(1_300_000, seed: 1))
        try volume.write(Self.sparse, noise(30_000, seed: 2), at: 100_000, size: 900_001)
        try volume.write("collections/c/0/wal/open-1", noise(70_000, seed: 3))
        try volume.write("collections/c2/config.json", "{}")
        try volume.write("empty", "")
        try volume.write("removed/later", "gone")
        try volume.write([0x62, 0xff, 0x0a], [1, 2, 3])
        try volume.write("mode-changes", "x")
        try volume.link("collections/c/config.json", "name-two")
        try volume.symlink("collections/c/config.json", "pointer")
        try volume.shell(
            """
            python3 -c '
            import os
            f = os.open("\(Self.indirect)", os.O_RDWR | os.O_CREAT)
            for i in range(5000): os.pwrite(f, (b"%08d" % i) * 512, i * 16384 + i % 3 * 4096)
            os.ftruncate(f, 5001 * 16384)'
            chmod 640 collections/c2/config.json; touch -d '2024-05-06 07:08:09.123456789Z' collections/c2/config.json
            cp -a . '\(before)'
            """)
        let lesser = try Volume(workspace.path("lesser"))
        try lesser.write("raft_state.json", "{}")
        // The paths are part of what a snapshot says: it is always the same volume.
        first = try workspace.backup(volume, "--node", "green", "--tag", "first", "--tag", "both").id
        other = try workspace.backup(lesser, "--node", "blue", "--set", "night", "--tag", "both").id
        try volume.write("collections/c/0/wal/open-1", noise(10, seed: 9), at: 5)
        try volume.write("added/file", "new")
        try volume.shell("rm -r removed; chmod 600 mode-changes; ln -sfn empty pointer")
        second = try workspace.backup(volume, "--node", "green").id
    }
}
