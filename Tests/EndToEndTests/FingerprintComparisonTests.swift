import Foundation
import QdrantStorage
import TestSupport
import Testing

@Suite(
    "A fingerprint is compared with a running server", .serialized,
    .enabled(if: Fixture.engineIsAvailable, "qdrant-edge-py cannot be installed"))
struct FingerprintComparisonTests {
    let folder: TemporaryDirectory
    let fingerprint: ServerFingerprint

    /// FNV-1a: here it only has to differ where bytes do.
    private static let digest: ServerFingerprint.Digest = { bytes in
        var hash: UInt64 = 0xcbf2_9ce4_8422_2325
        for byte in bytes { hash = (hash ^ UInt64(byte)) &* 0x100_0000_01b3 }
        return withUnsafeBytes(of: hash) { Array($0) }
    }

    init() throws {
        folder = try TemporaryDirectory("fingerprint")
        fingerprint = try ServerFingerprint.take(from: Self.client(SharedQdrant.url), digest: Self.digest)
    }

    private static func client(_ url: String) throws -> QdrantClient { try QdrantClient(try QdrantAddress(url)) }

    /// Names of the checks that fail against a server on blue's volume after a change; also that of a fingerprint from its text.
    private func failures(_ change: (String) throws -> Void) throws -> Set<String> {
        let path = folder("v-\(UUID().uuidString.prefix(4))")
        try SharedQdrant.copy(to: path)
        try change(path)
        let server = try QdrantServer(path)
        let failed = try checks(server.url).filter { $0.verdict == .fail }
        return Set(failed.map { check in check.collection.map { "\(check.name) of \($0)" } ?? check.name })
    }

    private func checks(_ url: String) throws -> [ServerCheck] {
        try ServerFingerprint(text: fingerprint.text).checks(against: Self.client(url), digest: Self.digest)
    }

    @Test func `The same data passes all`() throws {
        let checks = try checks(SharedQdrant.url)
        #expect(checks.allSatisfy { $0.verdict == .pass }, "\(checks.map(\.reason))")
        #expect(checks.count == 2 + 2 * 7)
        #expect(try fingerprint.text.utf8.count < ServerFingerprint.sizeLimit)
    }

    /// The fingerprint as of collections that were written to while it was made.
    private func written() throws -> ServerFingerprint {
        var text = try fingerprint.text
        text = text.replacing("\"wasWritten\":false", with: "\"wasWritten\":true")
        return try ServerFingerprint(text: text)
    }

    @Test func `What changed on the two sides of a capture is left out, and the rest is compared strictly`() throws {
        var same = fingerprint
        try same.confirm(with: Self.client(SharedQdrant.url), digest: Self.digest)
        #expect(try same.text == fingerprint.text)

        // The same number of points, but one sample is another, and one search finds others.
        let samples = try #require(fingerprint.collections.first { $0.name == "documents" }?.samples)
        let point =
            "{\"id\":\(String(decoding: try samples[0].id.encoded, as: UTF8.self)),\"payload\":{\"other\":1},\"vector\":{}}"
        var moved = fingerprint
        let server = try FalseQdrant(
            [
                "/collections/documents/points": Self.answer("[\(point)]"),
                "/collections/documents/points/query": Self.answer("{\"points\":[]}"),
            ], behind: SharedQdrant.url)
        try moved.confirm(with: Self.client(server.url), digest: Self.digest)
        let documents = try #require(moved.collections.first { $0.name == "documents" })
        #expect(documents.wasWritten && documents.samples.isEmpty && documents.searches.isEmpty)
        #expect(moved.collections.first { $0.name == "images" }?.samples.count == 5)
        #expect(moved.compared == ["images"])

        // Without time nothing is believed.
        var late = fingerprint
        try late.confirm(with: Self.client(SharedQdrant.url), seconds: 0, digest: Self.digest)
        #expect(late.compared.isEmpty && late.collections.allSatisfy { $0.wasWritten && $0.samples.isEmpty })
    }

    @Test func `Of a busy collection samples that stayed the same must be there`() throws {
        let busy = try written()
        let server = try FalseQdrant(["/collections/documents/points": Self.answer("[]")], behind: SharedQdrant.url)
        let failed = try busy.checks(against: Self.client(server.url), digest: Self.digest).filter { $0.verdict == .fail }
        #expect(failed.map(\.name) == ["payload", "vectors"])
    }

    @Test func `Counts by shard are estimates: where only they differ it is worth a look, and none fails`() throws {
        func verdicts(_ shard: Int) throws -> [String: ServerCheck.Verdict] {
            let cluster = """
                {"peer_id":1,"shard_count":1,"local_shards":[{"shard_id":0,"points_count":\(shard),"state":"Active"}],\
                "remote_shards":[],"shard_transfers":[]}
                """
            let server = try FalseQdrant(["/collections/documents/cluster": Self.answer(cluster)], behind: SharedQdrant.url)
            let checks = try fingerprint.checks(against: Self.client(server.url), digest: Self.digest)
            return Dictionary(
                checks.filter { $0.collection == "documents" }.map { ($0.name, $0.verdict) }, uniquingKeysWith: { $1 })
        }
        #expect(try verdicts(230)["shards"] == .warn)
        #expect(try verdicts(230)["points"] == .pass)
        #expect(try verdicts(0)["shards"] == .fail)
    }

    private static func answer(_ result: String) -> String { #"{"result":\#(result),"status":"ok","time":0}"# }

    @Test func `Of what was written to meanwhile a difference is worth a look, and nothing is a failure`() throws {
        let fingerprint = try written()
        #expect(fingerprint.compared.isEmpty && (try self.fingerprint.compared) == ["documents", "images"])
        func verdicts(count: Int, points: String?) throws -> [String: ServerCheck.Verdict] {
            var answers = ["/collections/documents/points/count": Self.answer("{\"count\":\(count)}")]
            if let points { answers["/collections/documents/points"] = Self.answer(points) }
            let server = try FalseQdrant(answers, behind: SharedQdrant.url)
            let checks = try fingerprint.checks(against: Self.client(server.url), digest: Self.digest)
            return Dictionary(
                checks.filter { $0.collection == "documents" }.map { ($0.name, $0.verdict) }, uniquingKeysWith: { $1 })
        }
        let fewer = try verdicts(count: 150, points: nil)
        #expect(fewer["points"] == .warn && fewer["payload"] == .pass)
        let none = try verdicts(count: 0, points: "[]")
        #expect(none["points"] == .fail && none["payload"] == .fail && none["vectors"] == .fail)
    }

    @Test func `Where only the files tell, points without vectors fail, and so does a collection that is gone`() throws {
        let output = try Program.run(Program.binary, ["inspect", SharedQdrant.volume, "--json"]).outputBytes
        struct Document: Decodable { let inspection: VolumeInspection }
        let inspection = try JSONDecoder().decode(Document.self, from: output).inspection
        func failed(_ answers: [String: String], of names: Set<String>? = nil) throws -> [String] {
            let server = try FalseQdrant(answers, behind: SharedQdrant.url)
            let checks = try inspection.checks(against: Self.client(server.url), of: names)
            return checks.filter { $0.verdict == .fail }.map(\.name)
        }
        #expect(try failed([:]) == [])
        let bare = (1...20).map { "{\"id\":\($0),\"payload\":{},\"vector\":{}}" }.joined(separator: ",")
        let answers = ["/collections/documents/points": Self.answer("[\(bare)]")]
        #expect(try failed(answers) == ["sampled points"])
        #expect(try failed(answers, of: ["images"]) == [])
        let alone = ["/collections": Self.answer("{\"collections\":[{\"name\":\"images\"}]}")]
        #expect(try failed(alone) == ["collections in files"])
    }

    @Test func `Other data fails`() throws {
        let fewer = try failures { try Fixture.run("delete", $0, "--points", "20", "--seed", "4") }
        #expect(fewer.isSuperset(of: ["points of documents"]))
        let other = try failures { try Fixture.run("overwrite", $0, "--points", "200", "--seed", "3") }
        // All of one collection was overwritten and a part of the other, whose samples are chance's.
        #expect(other.isSuperset(of: ["payload of documents", "vectors of documents", "exact search of documents"]))
        #expect(!other.contains { $0.hasPrefix("points") || $0.hasPrefix("configuration") })
        let gone = try failures { try FileManager.default.removeItem(atPath: "\($0)/collections/images") }
        #expect(gone == ["collections"])
    }
}
