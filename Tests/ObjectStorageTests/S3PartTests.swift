import BackupBase
import Foundation
import TestSupport
import Testing

@testable import ObjectStorage

/// Uploads in parts: what the strict server is sent, keeps, and is left with when one does not end.
@Suite(.serialized, .enabled(if: S3Bench.hasStrict, "the strict server is not built")) struct S3PartTests {
    private static let parts = "multipart-above=1MiB&part-size=1MiB"
    private static let smallParts = "{\"minimumPartSize\": 1024}"
    static let large = (0..<(3 << 20) + 12_345).map { UInt8(truncatingIfNeeded: $0 &* 31 &+ $0 >> 9) }

    @Test(arguments: [false, true]) func `above a limit an object goes in parts`(_ checksums: Bool) async throws {
        let bench = try await S3Bench(configuration: Self.smallParts)
        let store = try bench.store(Self.parts + (checksums ? "&checksums=on" : ""))
        try await store.put("v1/packs/x", Self.large)
        let log = try await bench.log()
        #expect(
            log.map(\.operation) == ["CreateMultipartUpload"] + Array(repeating: "UploadPart", count: 4) + [
                "CompleteMultipartUpload", "HeadObject",
            ])
        #expect(log[5].headers["if-none-match"] == "*")
        #expect(log[1...4].map { Int($0.headers["content-length"] ?? "") } == [1 << 20, 1 << 20, 1 << 20, 12_345])
        #expect(log[1...4].allSatisfy { ($0.headers["x-amz-checksum-sha256"] != nil) == checksums })
        let kept = try await bench.object("v1/packs/x")
        #expect(kept.sha256 == sha256(Self.large) && kept.metadata["bgbackup-sha256"] == sha256(Self.large))
        #expect(try await bench.keys().uploads.isEmpty)
        #expect(try await store.bytes("v1/packs/x") == Self.large)
        // One that is as large as the limit goes whole.
        try await bench.reset()
        try await store.put("v1/packs/y", Array(Self.large[..<(1 << 20)]))
        #expect(try await bench.log().map(\.operation) == ["PutObject", "HeadObject"])
    }

    @Test func `a taken name is refused in parts too, and nothing is left`() async throws {
        let bench = try await S3Bench(configuration: Self.smallParts)
        let store = try bench.store(Self.parts)
        try await store.put("v1/x", [1])
        #expect(await storeError { try await store.put("v1/x", Self.large) }?.kind == .exists)
        #expect(try await store.bytes("v1/x") == [1])
        #expect(try await bench.keys().uploads.isEmpty)
        try await store.put("v1/x", AlignedBuffer(copying: Self.large), ifAbsent: false)
        #expect(try await store.bytes("v1/x") == Self.large)
    }

    @Test func `an upload that fails is aborted`() async throws {
        let bench = try await S3Bench(
            configuration: "{\"minimumPartSize\": 1024, \"rates\": {\"error500\": 1}, \"faultOperations\": [\"UploadPart\"]}")
        let store = try bench.store(Self.parts + "&retry-for=1s")
        #expect(await storeError { try await store.put("v1/x", Self.large) }?.detail.contains("500") == true)
        #expect(try await bench.log().contains { $0.operation == "AbortMultipartUpload" })
        let keys = try await bench.keys()
        #expect(keys.uploads.isEmpty && keys.keys.isEmpty)
    }

    @Test func `an upload that is cancelled is aborted`() async throws {
        let bench = try await S3Bench(
            configuration:
                "{\"minimumPartSize\": 1024, \"rates\": {\"hang\": 1}, \"hangSeconds\": 120, \"faultOperations\": [\"UploadPart\"]}"
        )
        let store = try bench.store(Self.parts)
        let task = Task { try await store.put("v1/x", Self.large) }
        #expect(try await eventually { try await bench.log().contains { $0.query.contains("partNumber") } })
        task.cancel()
        await #expect(throws: CancellationError.self) { try await task.value }
        let keys = try await bench.keys()
        #expect(keys.uploads.isEmpty && keys.keys.isEmpty)
    }

    @Test func `an error inside a 200 is one`() async throws {
        let bench = try await S3Bench(
            configuration:
                "{\"minimumPartSize\": 1024, \"rates\": {\"slowDownIn200\": 1}, \"faultOperations\": [\"CompleteMultipartUpload\"]}"
        )
        let store = try bench.store(Self.parts + "&retry-for=1s")
        #expect(await storeError { try await store.put("v1/x", Self.large) }?.detail.contains("SlowDown") == true)
        #expect(try await bench.keys().uploads.isEmpty)
        // And one that passes is repeated.
        try await bench.configure("{\"rates\": {\"slowDownIn200\": 0.6}, \"seed\": 5}")
        let patient = try bench.store(Self.parts)
        for number in 0..<6 { try await patient.put("v1/y\(number)", Self.large) }
        #expect(try await bench.statistics().faults["slowDownIn200"] ?? 0 > 0)
        for number in 0..<6 { #expect(try await bench.object("v1/y\(number)").sha256 == sha256(Self.large)) }
    }

    @Test(arguments: ["resetBefore", "resetAfter"])
    func `a lost answer to the last step is settled by looking`(_ fault: String) async throws {
        let bench = try await S3Bench(
            configuration:
                "{\"minimumPartSize\": 1024, \"rates\": {\"\(fault)\": 0.5}, \"faultOperations\": [\"CompleteMultipartUpload\"], \"seed\": 1}"
        )
        let store = try bench.store(Self.parts)
        for number in 0..<6 { try await store.put("v1/y\(number)", Self.large) }
        #expect(try await bench.statistics().faults[fault] ?? 0 > 0)
        for number in 0..<6 { #expect(try await bench.object("v1/y\(number)").sha256 == sha256(Self.large)) }
        #expect(try await bench.keys().uploads.isEmpty)
    }

    @Test func `only old uploads of this repository are leftovers`() async throws {
        let bench = try await S3Bench()
        let store = try bench.store()
        let other = try S3Bench.neighbour(of: bench).store()
        for (store, key) in [(store, "v1/packs/old"), (other, "v1/packs/others")] {
            var call = store.call("POST", key, "write")
            call.query = [("uploads", "")]
            _ = try await store.perform(call)
        }
        let now = Ambient.system.now()
        try await store.removeLeftovers(before: now - 3_600_000_000_000)
        #expect(try await bench.keys().uploads.count == 2)
        try await store.removeLeftovers(before: now + 3_600_000_000_000)
        #expect(try await bench.keys().uploads == [S3Bench.neighbour(of: bench).key("v1/packs/others")])
    }
}
