import Foundation
import TestSupport
import Testing

@Suite("The report is one page of what is kept, what it cost and what was proven")
struct ReportTests {
    let workspace: Workspace
    let volume: Volume

    private static let segment = "collections/c/0/segments/s"

    init() throws {
        workspace = try Workspace.ready("report")
        volume = try Volume(workspace.path("volume"))
        try volume.write("\(Self.segment)/vector_storage/vectors/chunk_0.mmap", noise(3 << 20, seed: 1))
        try volume.write("\(Self.segment)/payload_storage/page_0.dat", noise(1 << 20, seed: 2))
        try volume.write("\(Self.segment)/vector_index/graph.bin", noise(1 << 19, seed: 3))
        try volume.write("collections/c/0/wal/open-1", noise(1 << 18, seed: 4))
    }

    private func report() throws -> [String: Any] {
        try #require(try workspace.expect(0, ["report", "--json"]).document as? [String: Any])
    }

    private func page() throws -> String {
        let path = workspace.path("page.html")
        try workspace.expect(0, ["report", "-o", path, "-q"])
        return try String(contentsOfFile: path, encoding: .utf8)
    }

    @Test func `New bytes are told by what the files hold, of each snapshot`() throws {
        try workspace.backup(volume)
        try volume.write("\(Self.segment)/payload_storage/page_0.dat", noise(200_000, seed: 9), at: 65536)
        let second = try workspace.backup(volume)
        let volumes = try #require(try report()["volumes"] as? [[String: Any]])
        let snapshots = try #require(volumes.first?["snapshots"] as? [[String: Any]])
        #expect(volumes.count == 1 && snapshots.count == 2)
        let first = try #require(snapshots.first?["bytes_new_by_role"] as? [String: Int])
        #expect(first == ["vectors": 3 << 20, "payload": 1 << 20, "indexes": 1 << 20, "log": 1 << 18])
        let later = try #require(snapshots.last?["bytes_new_by_role"] as? [String: Int])
        #expect(later.keys.sorted() == ["payload"])
        #expect((200_000...262_144).contains(later["payload"] ?? 0), "\(later)")
        #expect(snapshots.last?["snapshot_id"] as? String == second.id)
        let text = try page()
        for words in ["2 snapshots of 1 volume", "What each kind of file cost", "No snapshot here has been proven", "<rect"] {
            #expect(text.contains(words), "\(words)")
        }
    }

    @Test func `The page needs nothing else and takes names as text`() throws {
        let odd = "<script>alert(1)</script>"
        try workspace.expect(0, ["backup", volume.path, "--node", odd])
        let text = try page()
        #expect(text.contains("&lt;script&gt;alert(1)") && !text.contains("<script"))
        #expect(text.firstMatch(of: /(src|href)=|@import|url\(/) == nil)
        #expect(text.contains("default-src 'none'"))
    }

    @Test func `A held snapshot is framed, a damaged one is said and makes it 17`() throws {
        let first = try workspace.backup(volume)
        #expect(try !page().contains(", held</title>"))
        try workspace.expect(0, ["hold", first.id, "--reason", "before the move"])
        #expect(try page().contains("1 snapshot, held</title>"))
        try workspace.backup(volume)
        let names = try FileManager.default.contentsOfDirectory(atPath: workspace.repository + "/v1/snapshots").sorted()
        try Data("nothing".utf8).write(to: URL(filePath: workspace.repository + "/v1/snapshots/\(names[0])"))
        let damaged = try workspace.expect(17, ["report", "--json"])
        #expect(((damaged.document as? [String: Any])?["problems"] as? [String])?.count == 1)
        try workspace.expect(17, ["report", "-o", workspace.path("bad.html")])
        #expect(try String(contentsOfFile: workspace.path("bad.html"), encoding: .utf8).contains("1 thing cannot be read"))
    }

    @Test func `Notes that cannot be read are said, and nothing is taken for unproven`() throws {
        let first = try workspace.backup(volume)
        try workspace.expect(0, ["hold", first.id, "--reason", "before the move"])
        try volume.shell("find '\(workspace.repository)/v1/notes' -type f -exec sh -c 'echo nothing >\"$0\"' {} \\;")
        let result = try workspace.expect(17, ["report", "--json"])
        let document = try #require(result.document as? [String: Any])
        #expect(
            document["drills"] as? [Any] == nil && (document["problems"] as? [String])?.first?.contains("held and proven") == true
        )
        try workspace.expect(17, ["report", "-o", workspace.path("bad.html")])
        let text = try String(contentsOfFile: workspace.path("bad.html"), encoding: .utf8)
        #expect(text.contains("notes of drills cannot be read") && !text.contains("No snapshot here has been proven"))
    }

    @Test func `Prunes on this node make the curve of stored bytes`() throws {
        try workspace.backup(volume)
        #expect(try page().contains("Prunes that run on this node note it; none has"))
        for _ in 0..<2 { try workspace.expect(0, ["prune", "--grace", "0s"]) }
        let storage = try #require(try report()["storage"] as? [[String: Any]])
        #expect(storage.count == 2)
        #expect((storage.last?["bytes_live"] as? Int ?? 0) > 4 << 20, "\(storage)")
        #expect(try page().contains("<polygon"))
    }

    @Test func `An empty repository has a page too`() throws {
        #expect(try page().contains("No snapshots yet"))
        #expect(try workspace.expect(1, ["report", "-o", workspace.path("no/such/page.html")]).errors.contains("cannot write"))
    }
}
