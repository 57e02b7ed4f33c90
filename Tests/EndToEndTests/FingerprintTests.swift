import Foundation
import TestSupport
import Testing

@Suite(
    "A snapshot keeps what the running server answered", .serialized,
    .enabled(if: Fixture.engineIsAvailable, "qdrant-edge-py cannot be installed"))
struct FingerprintTests {
    let workspace: Workspace
    let volume: String

    init() throws {
        workspace = try Workspace.ready("fingerprint")
        volume = try SharedQdrant.volume
    }

    private func fingerprint(_ snapshot: String) throws -> [String: Any]? {
        let record = try workspace.show(snapshot).fields["fingerprint"] as? [String: Any]
        guard let text = record?["document"] as? String else { return nil }
        return try #require(try JSONSerialization.jsonObject(with: Data(text.utf8)) as? [String: Any])
    }

    @Test func `Counts, versions, samples and answers are what the engine has`() throws {
        let summary = try workspace.backup(volume, "--qdrant-url", SharedQdrant.url)
        let seconds = try #require((summary.fields["fingerprint_seconds"] as? NSNumber)?.doubleValue)
        // It begins before the capture, and is confirmed after it.
        #expect(seconds < 0 && seconds > -30)
        let found = try #require(try fingerprint(summary.id))
        #expect(found["version"] as? String == "1.19.0")
        let collections = try #require(found["collections"] as? [[String: Any]])
        #expect(collections.map { $0["name"] as? String } == ["documents", "images"])
        let engine = try #require(
            try JSONSerialization.jsonObject(with: Data(Fixture.run("fingerprint", volume).output.utf8)) as? [String: Any])
        #expect("\(engine)".contains("200"))
        for (collection, count) in zip(collections, [200, 50]) {
            #expect(collection["points"] as? Int == count)
            #expect((collection["shards"] as? [[String: Any]])?.map { $0["points"] as? Int } == [count])
            #expect(collection["status"] as? String == "green" && collection["optimizer"] as? String == "ok")
            #expect(collection["wasWritten"] as? Bool == false)
            #expect((collection["samples"] as? [[String: Any]])?.count == 5)
            let searches = try #require(collection["searches"] as? [[String: Any]])
            #expect(searches.count == 3)
            for search in searches {
                // A sparse vector has fewer neighbours than are asked for.
                let (ids, scores) = (search["ids"] as? [Any] ?? [], search["scores"] as? [Any] ?? [])
                #expect((1...10).contains(ids.count) && ids.count == scores.count)
            }
        }
        #expect(try workspace.expect(0, ["show", summary.id]).output.contains("250 points in 2 collections"))
        #expect(try workspace.expect(0, ["show", summary.id]).output.contains("before the capture"))
        let listed = try workspace.expect(0, ["snapshots", "--json"]).output
        #expect(!listed.contains("fingerprint"))
    }

    @Test func `A server that fails makes a warning and takes nothing from the backup`() throws {
        for url in ["http://127.0.0.1:1"] {
            let summary = try workspace.backup(volume, "--qdrant-url", url)
            #expect(summary.fields["fingerprint_seconds"] is NSNull)
            #expect(
                (summary.fields["warnings"] as? [String])?.contains { $0.contains("no fingerprint") && $0.contains(url) } == true)
            #expect(try fingerprint(summary.id) == nil)
        }
        let odd = try FalseQdrant(["/": #"{"title":"qdrant","version":"1.19.0"}"#, "/collections": "deep"])
        let summary = try workspace.backup(volume, "--qdrant-url", odd.url)
        #expect((summary.fields["warnings"] as? [String])?.contains { $0.contains("nested too deeply") } == true)
        try workspace.expect(64, ["backup", volume, "--qdrant-url", "http://me:pw@h", "--writer-key", try workspace.writerKey()])
        try workspace.expect(64, ["backup", volume, "--qdrant-api-key-file", "x", "--writer-key", try workspace.writerKey()])
    }
}
