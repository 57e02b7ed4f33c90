import Foundation
import Glibc
import TestSupport
import Testing

@Suite("What a second backup reads and stores")
struct IncrementalTests {
    let workspace: Workspace
    let volume: Volume
    private static let matrix = "collections/c/0/segments/s/vector_storage/matrix.dat"
    private static let page = "collections/c/0/segments/s/payload_storage/page_0.dat"
    /// Bytes that the list of files may take.
    private static let metadata: Int64 = 32 << 10

    init() async throws {
        workspace = try Workspace.ready("incremental")
        volume = try Volume(workspace.path("volume"))
        try volume.write(Self.matrix, noise(4 << 20, seed: 1))
        try volume.write(Self.page, noise(1 << 20, seed: 2))
        try volume.write("collections/c/config.json", "{}")
        try await settle()
    }

    private func expectRestored(_ snapshot: Summary, sourceLocation: SourceLocation = #_sourceLocation) throws {
        try workspace.restore(snapshot.id, sourceLocation: sourceLocation)
        try expectIdentical(volume.path, workspace.path("restored"), sourceLocation: sourceLocation)
    }

    @Test func `Unchanged files are not read`() throws {
        let first = try workspace.backup(volume)
        #expect(try first.number("files_new") == 3)
        #expect(try first.number("bytes_read") == first.number("bytes_total"))
        let second = try workspace.backup(volume)
        #expect(try second.text("parent") == first.id)
        #expect(try second.number("files_unmodified") == 3)
        #expect(try second.number("files_new") == 0)
        #expect(try second.number("files_changed") == 0)
        #expect(try second.number("bytes_read") == 0)
        #expect(try second.number("bytes_new") == 0)
        #expect(try second.number("bytes_total") == first.number("bytes_total"))
        try expectRestored(second)
    }

    @Test func `A file written a moment before the backup is read again`() throws {
        try volume.write("fresh", "abc")
        try workspace.backup(volume)
        let second = try workspace.backup(volume)
        #expect(try second.number("bytes_read") == 3)
        #expect(try second.number("bytes_new") == 0)
    }

    @Test func `Of a changed file only the changed blocks are stored`() throws {
        try workspace.backup(volume)
        try volume.write(Self.matrix, noise(4096, seed: 9), at: 3 << 20)
        let matrix = try workspace.backup(volume)
        #expect(try matrix.number("files_changed") == 1)
        #expect(try matrix.number("bytes_read") == 4 << 20)
        #expect(try matrix.number("bytes_new") <= 1 << 20 + Self.metadata)
        try volume.write(Self.page, noise(100, seed: 9), at: 500_000)
        let page = try workspace.backup(volume)
        #expect(try page.number("bytes_new") <= 16 << 10 + Self.metadata)
        #expect(try page.number("bytes_stored") <= 24 << 10 + Self.metadata)
        try expectRestored(page)
    }

    @Test func `A file that grew stores its new end, one that shrank nothing`() throws {
        try workspace.backup(volume)
        try volume.write(Self.page, noise(50_000, seed: 5), at: 1 << 20)
        let grown = try workspace.backup(volume)
        #expect(try grown.number("bytes_new") <= 50_000 + Self.metadata)
        try volume.shell("truncate -s 512K '\(Self.page)'")
        let shrunk = try workspace.backup(volume)
        #expect(try shrunk.number("bytes_new") <= Self.metadata)
        try expectRestored(shrunk)
    }

    @Test func `Renamed and copied files are found by their content`() throws {
        try workspace.backup(volume)
        try volume.shell("mv collections/c/0/segments/s collections/c/0/segments/6f1c; cp -r collections/c collections/d")
        let second = try workspace.backup(volume)
        #expect(try second.number("files_new") == 5)
        #expect(try second.number("bytes_read") > 8 << 20)
        #expect(try second.number("bytes_new") <= Self.metadata)
        try expectRestored(second)
    }

    @Test func `Another node's volume of the same content stores nothing again`() throws {
        try workspace.backup(volume, "--node", "one")
        try volume.shell("cp -r '\(volume.path)' '\(workspace.path("other"))'")
        let other = try workspace.backup(workspace.path("other"), "--node", "two")
        #expect(other.fields["parent"] as? String == nil)
        #expect(try other.number("bytes_read") > 4 << 20)
        #expect(try other.number("bytes_new") <= Self.metadata)
    }

    @Test func `--rescan reads everything and stores nothing`() throws {
        let first = try workspace.backup(volume)
        let second = try workspace.backup(volume, "--rescan")
        #expect(try second.number("bytes_read") == first.number("bytes_total"))
        #expect(try second.number("bytes_new") == 0)
        // What it learned counts for the next one.
        #expect(try workspace.backup(volume).number("bytes_read") == 0)
    }

    @Test func `Content that changed under an old modification time is noticed`() throws {
        let before = try volume.stat(Self.page)
        try workspace.backup(volume)
        try volume.write(Self.page, noise(16, seed: 7), at: 1000)
        try volume.setTime(Self.page, before.st_mtim.tv_sec * 1_000_000_000 + before.st_mtim.tv_nsec)
        #expect(try volume.stat(Self.page).st_mtim.tv_nsec == before.st_mtim.tv_nsec)
        let second = try workspace.backup(volume)
        #expect(try second.number("files_changed") == 1)
        try expectRestored(second)
    }

    @Test func `A file replaced by one of equal size and time is noticed`() throws {
        try workspace.backup(volume)
        try volume.write("aside", noise(1 << 20, seed: 8))
        try volume.shell("touch -r '\(Self.page)' aside; mv aside '\(Self.page)'")
        let second = try workspace.backup(volume)
        #expect(try second.number("files_changed") == 1)
        try expectRestored(second)
    }

    @Test func `Two files that change places are both noticed`() throws {
        try volume.write("one", noise(5000, seed: 3))
        try volume.write("two", noise(5000, seed: 4))
        try volume.shell("touch -d @1700000000 one two")
        try workspace.backup(volume)
        try volume.shell("mv one three; mv two one; mv three two")
        let second = try workspace.backup(volume)
        #expect(try second.number("bytes_new") <= Self.metadata)
        try expectRestored(second)
    }

    @Test func `Metadata alone makes a new snapshot without reading`() throws {
        try workspace.backup(volume)
        try volume.makeDirectory("new/empty")
        try volume.symlink("x", "link")
        try volume.shell("rm collections/c/config.json")
        let second = try workspace.backup(volume)
        #expect(try second.number("bytes_read") == 0)
        try expectRestored(second)
    }

    @Test func `A dry run stores nothing and says what it would read`() throws {
        try workspace.backup(volume)
        try volume.write(Self.page, noise(16, seed: 7), at: 1000)
        let before = try workspace.storedBytes()
        let dry = try workspace.backup(volume, "--dry-run")
        #expect(try dry.number("bytes_read") == 1 << 20)
        #expect(dry.fields["dry_run"] as? Bool == true)
        #expect(try workspace.storedBytes() == before)
        #expect(try workspace.expect(0, ["snapshots", "--json"]).summary.isEmpty)
        let real = try workspace.backup(volume)
        #expect(try real.number("bytes_read") == 1 << 20)
    }

    @Test func `Parent, snapshots and statistics tell the lineage`() throws {
        let first = try workspace.backup(volume, "--node", "n1", "--tag", "a", "--tag", "b", "--set", "night")
        let second = try workspace.backup(volume, "--node", "n1")
        let shown = try workspace.show(first.id)
        #expect(shown.fields["tags"] as? [String] == ["a", "b"])
        #expect(shown.fields["set"] as? String == "night")
        #expect(shown.fields["node"] as? String == "n1")
        #expect(shown.fields["volume"] as? String == volume.path)
        #expect(shown.fields["consistency"] as? String == "atomic")
        #expect(try workspace.show(second.id).text("parent") == first.id)
    }
}
