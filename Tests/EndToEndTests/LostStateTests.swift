import Foundation
import TestSupport
import Testing

@Suite("A lost or broken local state costs time, never correctness")
struct LostStateTests {
    let workspace: Workspace
    let volume: Volume
    private static let metadata: Int64 = 32 << 10

    init() async throws {
        workspace = try Workspace.ready("lost")
        volume = try Volume.small(workspace.path("volume"))
        try volume.write("chunk_0.mmap", noise(2 << 20, seed: 5))
        try await settle()
        try workspace.backup(volume)
        // What an out-of-date state would get wrong.
        try volume.write("chunk_0.mmap", noise(10, seed: 6), at: 70_000)
    }

    /// - Parameter storesAgain: whether storing known blocks again is right
    @discardableResult
    private func expectCorrect(
        storesAgain: Bool = false, sourceLocation: SourceLocation = #_sourceLocation
    ) throws -> Summary {
        let snapshot = try workspace.backup(volume, sourceLocation: sourceLocation)
        if !storesAgain {
            let limit = 64 << 10 + Self.metadata
            #expect(try snapshot.number("bytes_new") <= limit, sourceLocation: sourceLocation)
        }
        try expectRestored(snapshot, sourceLocation: sourceLocation)
        return snapshot
    }

    private func expectRestored(_ snapshot: Summary, sourceLocation: SourceLocation = #_sourceLocation) throws {
        try volume.shell("rm -rf '\(workspace.path("restored"))'")
        try workspace.restore(snapshot.id, sourceLocation: sourceLocation)
        try expectIdentical(volume.path, workspace.path("restored"), sourceLocation: sourceLocation)
    }

    private func loseBoth() throws {
        try workspace.loseState()
        try volume.shell("rm -rf '\(workspace.path("cache"))'")
    }

    private func damage(_ folder: String, _ how: String) throws {
        // All but the node's name for itself, without which it is another node.
        let find = "find '\(folder)' -type f -size +0 ! -name writer-id"
        let files = try Volume(workspace.directory.path).shell(find)
        try #require(!files.isEmpty)
        try Volume(workspace.directory.path).shell(
            """
            \(find) | while read -r f; do python3 - "$f" <<'END'
            import os, sys
            with open(sys.argv[1], "r+b") as f:
                size = os.path.getsize(sys.argv[1])
                \(how)
            END
            done
            """)
    }

    @Test func `The state is lost`() throws {
        try workspace.loseState()
        try expectCorrect()
    }

    @Test func `The cache is lost`() throws {
        try volume.shell("rm -rf '\(workspace.path("cache"))'")
        try expectCorrect()
    }

    @Test func `Both are lost`() throws {
        try loseBoth()
        try expectCorrect()
    }

    @Test(arguments: ["state", "cache"]) func `Bits of it are flipped`(folder: String) throws {
        for (position, count) in [("0", "1"), ("size // 2", "1"), ("size - 1", "1"), ("size // 3", "size // 4")] {
            try damage(
                folder, "f.seek(\(position)); b = f.read(\(count)); f.seek(\(position)); f.write(bytes(x ^ 16 for x in b))")
            let snapshot = try workspace.backup(volume)
            #expect(try snapshot.number("bytes_new") <= 64 << 10 + Self.metadata, "\(count) bytes at \(position)")
            #expect(try workspace.dump(snapshot.id, "chunk_0.mmap") == volume.read("chunk_0.mmap"))
        }
        try expectCorrect()
    }

    @Test(arguments: ["state", "cache"]) func `It is cut short, emptied or grown`(folder: String) throws {
        for change in ["f.truncate(size // 2)", "f.truncate(0)", "f.seek(size); f.write(os.urandom(1000))"] {
            try damage(folder, change)
            let snapshot = try workspace.backup(volume)
            #expect(try snapshot.number("bytes_new") <= 64 << 10 + Self.metadata, "\(change)")
        }
        try expectCorrect()
    }

    @Test func `The state of an earlier backup comes back`() throws {
        try volume.shell("cp -a '\(workspace.path("state"))' '\(workspace.path("old"))'")
        try workspace.backup(volume)
        try volume.write("chunk_0.mmap", noise(10, seed: 7), at: 1_000_000)
        try volume.shell("rm -rf '\(workspace.path("state"))'; mv '\(workspace.path("old"))' '\(workspace.path("state"))'")
        try expectCorrect()
    }

    @Test func `The repository is another one at the same place`() throws {
        try workspace.store.remove()
        try workspace.expect(0, ["init"])
        try volume.shell("rm '\(workspace.writerKey())'")
        try expectCorrect(storesAgain: true)
    }

    @Test func `The repository lost its latest snapshot and its packs`() throws {
        // As when an older copy of the repository is put back.
        try workspace.store.download(to: workspace.path("copy"))
        try workspace.backup(volume)
        try workspace.store.remove()
        try workspace.store.upload(from: workspace.path("copy"))
        try expectCorrect(storesAgain: true)
    }

    @Test func `A deleted index is rebuilt by repair, and then nothing is stored again`() throws {
        try workspace.store.remove("v1/index/")
        try loseBoth()
        let repaired = try workspace.expect(0, ["repair", "--json"])
        #expect(try Summary(fields: repaired.summary).number("packs_indexed") > 0)
        #expect(try !workspace.store.names("v1/index/").isEmpty)
        try expectCorrect()
    }

    @Test func `Without the index a backup and a restore are still correct`() throws {
        try workspace.store.remove("v1/index/")
        try loseBoth()
        try expectCorrect(storesAgain: true)
    }

    @Test func `The state names no path and no content`() throws {
        let found = try volume.shell(
            "grep -rlaE 'chunk_0|collections|matrix|volume' '\(workspace.path("state"))' '\(workspace.path("cache"))' || true")
        #expect(found == "")
    }

    @Test func `A state directory that cannot be made is said and costs nothing else`() throws {
        try volume.shell("touch '\(workspace.path("file"))'")
        let result = try workspace.run(
            ["backup", volume.path, "--json"], extra: ["BGBACKUP_STATE_DIR": workspace.path("file") + "/state"])
        guard TestStore.hasConditions else {
            // Where one node may write it has to be able to keep its name for itself.
            #expect(result.status == 11)
            return #expect(result.errors.contains("BGBACKUP_STATE_DIR"))
        }
        #expect(result.errors.contains("state directory"))
        #expect(result.status == 0, "every source was read: \(result.errors)")
        #expect(try workspace.show("latest").fields["complete"] as? Bool == true)
    }
}
