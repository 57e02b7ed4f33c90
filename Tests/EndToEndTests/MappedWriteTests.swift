import Foundation
import TestSupport
import Testing

/// Where restic 0.14 loses data: a second store into a page that is still
/// dirty moves no time stamp.
@Suite("Stores through a mapping, without msync", .serialized)
struct MappedWriteTests {
    @Test func `The second store into a dirty page is in the second snapshot`() async throws {
        let workspace = try Workspace.ready("mapped")
        try await expectSecondStore(workspace, in: workspace.path("volume"))
    }

    @Test(.enabled(if: Requirement.root, "needs root and loop mounts"), arguments: Requirement.mountable)
    func `The second store into a dirty page is found on every file system`(type: String) async throws {
        let workspace = try Workspace.ready("mapped-\(type)")
        let mount = try LoopMount(type, megabytes: 320, in: workspace.directory)
        try await expectSecondStore(workspace, in: mount.path + "/volume")
    }

    @Test(.enabled(if: FileManager.default.isWritableFile(atPath: "/dev/shm"), "needs /dev/shm"))
    func `It is found on a memory file system, which never writes pages out`() async throws {
        let workspace = try Workspace.ready("mapped-tmpfs")
        let folder = "/dev/shm/bgbackup-\(UUID().uuidString.prefix(8))"
        defer { try? FileManager.default.removeItem(atPath: folder) }
        try await expectSecondStore(workspace, in: folder)
    }

    private func expectSecondStore(
        _ workspace: Workspace, in path: String, sourceLocation: SourceLocation = #_sourceLocation
    ) async throws {
        let volume = try Volume(path)
        try volume.write("page_0.dat", noise(128 << 10, seed: 1))
        try volume.write("untouched.dat", noise(128 << 10, seed: 2))
        try await settle()
        let writer = try MappedWriter(volume("page_0.dat"))
        try writer.store("FIRST", at: 50_000)
        // So long that the rule about files changed a moment ago cannot help.
        try await settle()
        try workspace.backup(volume, sourceLocation: sourceLocation)
        try writer.store("SECOND", at: 50_010)
        try workspace.backup(volume, sourceLocation: sourceLocation)
        // And once more right away, within one tick of the file system's clock.
        try writer.store("THIRD", at: 50_020)
        let third = try workspace.backup(volume, sourceLocation: sourceLocation)

        let snapshots = try #require(try workspace.run(["snapshots", "--json"]).document as? [[String: Any]])
        let texts = try snapshots.map { snapshot in
            let bytes = try workspace.dump(try #require(snapshot["id"] as? String), "page_0.dat")
            return String(decoding: bytes[50_000..<50_026].filter { (65...90).contains($0) }, as: UTF8.self)
        }
        try #require(texts.count == 3)
        #expect(texts[0].hasPrefix("FIRST") && !texts[0].contains("SECOND"), sourceLocation: sourceLocation)
        #expect(texts[1].contains("SECOND") && !texts[1].contains("THIRD"), sourceLocation: sourceLocation)
        #expect(texts[2].contains("THIRD"), sourceLocation: sourceLocation)
        // Noticing it must not mean to read everything.
        if !path.hasPrefix("/dev/shm") {
            #expect(try third.number("bytes_read") == 128 << 10, sourceLocation: sourceLocation)
        }
    }
}
