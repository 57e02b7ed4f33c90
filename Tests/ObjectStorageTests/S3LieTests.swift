import BackupBase
import Crypto
import Foundation
import TestSupport
import Testing

@testable import ObjectStorage

/// What becomes of a call when the store does not do what it says.
@Suite(.serialized, .enabled(if: S3Bench.hasStrict, "the strict server is not built")) struct S3LieTests {
    private let bytes = S3Bench.bytes

    @Test(arguments: [("storesNothing", "has none"), ("storesTruncated", "others")])
    func `a store that does not store what it says is found out`(_ lie: String, _ words: String) async throws {
        let bench = try await S3Bench(configuration: S3Bench.personality("\"\(lie)\": true"))
        let error = await storeError { try await bench.store().put("v1/x", bytes) }
        #expect(error?.kind == .failed && error?.detail.contains(words) == true, "\(error?.whole ?? "none")")
        #expect(error?.hint?.contains("repo probe") == true)
    }

    @Test(arguments: ["storesNothing", "storesTruncated"])
    func `what was taken at the store's word is found out by looking`(_ lie: String) async throws {
        let bench = try await S3Bench()
        let store = try bench.store()
        try await store.putUnconfirmed("v1/packs/good", AlignedBuffer(copying: bytes))
        #expect(try await bench.log().map(\.operation) == ["PutObject"], "looking is left for later")
        try await store.confirm("v1/packs/good", size: bytes.count)
        try await bench.personality("\"\(lie)\": true")
        try await store.putUnconfirmed("v1/packs/bad", AlignedBuffer(copying: bytes))
        let error = await storeError { try await store.confirm("v1/packs/bad", size: bytes.count) }
        #expect(error?.kind == .failed && error?.hint?.contains("repo probe") == true, "\(error?.whole ?? "none")")
    }

    @Test func `another object of the same size is not the one that was put`() async throws {
        let bench = try await S3Bench()
        let store = try bench.store()
        try await store.putUnconfirmed("v1/packs/x", AlignedBuffer(copying: bytes))
        try await bench.store().put("v1/packs/x", AlignedBuffer(copying: bytes.reversed()), ifAbsent: false)
        #expect(await storeError { try await store.confirm("v1/packs/x", size: bytes.count) }?.kind == .failed)
    }

    @Test func `a store that is late to show what it has is waited for`() async throws {
        let bench = try await S3Bench(configuration: S3Bench.personality("\"lateReads\": 0.3"))
        try await bench.store().put("v1/x", bytes)
    }

    @Test(arguments: [
        "\"ignoreRanges\": true", "\"checksumOnRange\": true", "\"chunkedAnswers\": true", "\"prettyXML\": true",
        "\"headerCase\": true",
        "\"closeAfterAnswer\": true", "\"etagUnquoted\": true", "\"opaqueETag\": true", "\"deleteMissing404\": true",
        "\"listDuplicates\": true, \"maxKeysCap\": 2", "\"listUnsorted\": true, \"maxKeysCap\": 3", "\"maxKeysCap\": 1",
        "\"forgetsMetadata\": true",
    ])
    func `what is unusual but sound is made good`(_ fields: String) async throws {
        let bench = try await S3Bench(configuration: S3Bench.personality(fields))
        let store = try bench.store("checksums=on")
        let probe = try await StoreProbe.run(store, ambient: .prompt)
        #expect(probe.results.allSatisfy { $0.holds }, "\(probe.results.filter { !$0.holds })")
        try await S3Bench.sequence(store)
    }

    @Test(arguments: [
        ("\"corruptBody\": true", "readBack"), ("\"wrongRange\": true", "ranges"),
        ("\"truncateListing\": true, \"maxKeysCap\": 3", "listing"),
        ("\"listDelaySeconds\": 100", "listing"), ("\"ignoreConditions\": true", "conditionalCreate"),
        ("\"claimConditions\": true", "conditionalCreate"), ("\"ignoreIfMatch\": true", "conditionalReplace"),
        ("\"conditionsNotImplemented\": true", "conditionalCreate"), ("\"staleReads\": 100", "conditionalReplace"),
        ("\"storesNothing\": true", "readBack"), ("\"storesTruncated\": true", "readBack"),
        ("\"deletesNothing\": true", "removal"),
        ("\"clockSkewSeconds\": 600", "clock"),
    ])
    func `what is unsound is found by the probe`(_ fields: String, _ name: String) async throws {
        let bench = try await S3Bench(configuration: S3Bench.personality(fields))
        let probe = try await StoreProbe.run(bench.store(), ambient: .prompt)
        #expect(probe.record[name] == "no", "\(probe.results)")
        let needed = !["conditionalCreate", "conditionalReplace", "clock"].contains(name)
        #expect(probe.isUsable == !needed, "\(probe.results)")
        #expect((await storeError { try probe.requireUsable() } != nil) == needed)
    }

    @Test func `a list that turns in circles ends in an error`() async throws {
        let bench = try await S3Bench()
        let store = try bench.store()
        for number in 0..<4 { try await store.put("tmp/\(number)", [1]) }
        try await bench.personality("\"listLoops\": true, \"maxKeysCap\": 2")
        let error = await storeError { _ = try await store.list("tmp/") }
        #expect(error?.detail.contains("where the list goes on") == true)
        #expect(try await bench.statistics().count < 10)
        // Also in a larger circle than of one page.
        let circle = ScriptedTransport { _, number in
            HTTPResponse(
                200, [],
                "<ListBucketResult><IsTruncated>true</IsTruncated><NextContinuationToken>\(number % 3)</NextContinuationToken></ListBucketResult>"
            )
        }
        #expect(await storeError { _ = try await S3Store.scripted("s3://bucket?endpoint=https://h", circle).list("v1/") } != nil)
        #expect(circle.requests.count < 10)
    }

    @Test(arguments: [
        "", "<html/>", "<Error><Code>x</Code></Error>", "{}",
        "<ListBucketResult><IsTruncated>true</IsTruncated></ListBucketResult>",
        "<ListBucketResult><Contents><Key>p/v1/a</Key></Contents></ListBucketResult>",
        "<ListBucketResult><Contents><Key>p/v1/a</Key><Size>-1</Size></Contents></ListBucketResult>",
        "<ListBucketResult><Contents><Key>p/v1/a</Key><Size>99999999999999999999</Size></Contents></ListBucketResult>",
        "<ListBucketResult><Contents><Key>p/v2/a</Key><Size>1</Size></Contents></ListBucketResult>",
        "<ListBucketResult><Contents><Key>q/v1/a</Key><Size>1</Size></Contents></ListBucketResult>",
        "<ListBucketResult><EncodingType>url</EncodingType><Contents><Key>p/v1/%zz</Key><Size>1</Size></Contents></ListBucketResult>",
        "<ListBucketResult><Contents><Size>1</Size></Contents></ListBucketResult>",
    ])
    func `a list that is none is an error, not an empty one`(_ text: String) async throws {
        let store = try S3Store.scripted(
            "s3://bucket/p?endpoint=https://h", ScriptedTransport { _, _ in HTTPResponse(200, [], text) })
        let error = await storeError { _ = try await store.list("v1/") }
        #expect(error?.kind == .failed && error?.hint?.contains("probe") == true, "\(error?.whole ?? "no error")")
    }

    @Test func `a store without conditions is looked at first`() async throws {
        let bench = try await S3Bench(configuration: S3Bench.personality("\"conditionsNotImplemented\": true"))
        let store = try bench.store()
        try await store.put("v1/x", [1])
        #expect(await storeError { try await store.put("v1/x", [2]) }?.kind == .exists)
        #expect(try await store.bytes("v1/x") == [1])
        #expect(await storeError { try await store.replace("tmp/l", [1], expecting: nil) }?.kind == .unsupported)
    }
}
