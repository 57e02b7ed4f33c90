import BackupBase
import Crypto
import Foundation
import TestSupport
import Testing

@testable import ObjectStorage

/// What the options of a URL make of requests and objects, as the strict server saw and kept them.
@Suite(.serialized, .enabled(if: S3Bench.hasStrict, "the strict server is not built")) struct S3OptionTests {
    private static let lockBucket = "{\"buckets\": [{\"name\": \"bucket\", \"region\": \"us-east-1\", \"objectLock\": true}]}"
    private static let day: Int64 = 86_400_000_000_000

    // MARK: - Classes, digests, checksums

    @Test func `the storage class is that of packs only`() async throws {
        let bench = try await S3Bench(own: false)
        let store = try bench.store("class=STANDARD_IA")
        for name in ["v1/packs/ab/x", "v1/index/x", "v1/config", "tmp/x", "v1/packsx/y"] { try await store.put(name, [1]) }
        try await store.replace("tmp/lease", [1], expecting: nil)
        #expect(try await bench.object("v1/packs/ab/x").storageClass == "STANDARD_IA")
        for name in ["v1/index/x", "v1/config", "tmp/x", "v1/packsx/y", "tmp/lease"] {
            #expect(try await bench.object(name).storageClass == "STANDARD", "\(name)")
        }
    }

    @Test func `an object carries the digest of its bytes`() async throws {
        let bench = try await S3Bench(own: false)
        let store = try bench.store()
        for size in [0, 1, 70_000] {
            let bytes = [UInt8](repeating: 7, count: size)
            try await store.put("v1/d\(size)", bytes)
            let kept = try await bench.object("v1/d\(size)")
            #expect(kept.metadata["bgbackup-sha256"] == sha256(bytes) && kept.sha256 == sha256(bytes))
            #expect(kept.contentType == "application/octet-stream" && kept.checksum == nil && kept.sse == nil && kept.lock == nil)
        }
    }

    @Test func `checksums are sent when they are on, and not by themselves to an endpoint`() async throws {
        let bench = try await S3Bench()
        for (options, expected) in [("checksums=on", true), ("checksums=off", false), ("", false)] {
            try await bench.reset()
            let name = "v1/c-\(options)"
            try await bench.store(options).put(name, [1, 2, 3])
            let sent = try await bench.log().compactMap { $0.headers["x-amz-checksum-sha256"] }
            let digest = base64(Array(SHA256.hash(data: [1, 2, 3])))
            #expect(sent == (expected ? [digest] : []))
            #expect(try await bench.object(name).checksum?["sha256"] == (expected ? digest : nil))
        }
        let aws = try S3Headers(S3Place(url: "s3://bucket", environment: { _ in nil }))
        #expect(aws.checksums, "on AWS they are on")
    }

    @Test func `every request is signed over its true payload, and none asks to continue first`() async throws {
        let bench = try await S3Bench()
        let store = try bench.store()
        let bytes = [UInt8](repeating: 3, count: 100_000)
        try await store.put("v1/a", bytes)
        _ = try await store.bytes("v1/a")
        _ = try await store.list("v1/")
        try await store.replace("tmp/l", [9], expecting: nil)
        try await store.delete("v1/a")
        let log = try await bench.log()
        #expect(Set(log.map(\.operation)) == ["PutObject", "HeadObject", "GetObject", "ListObjectsV2", "DeleteObject"])
        let hashes = [sha256(bytes), sha256([9])]
        for entry in log {
            let hash = entry.headers["x-amz-content-sha256"] ?? ""
            #expect(entry.method == "PUT" ? hashes.contains(hash) : hash == S3Call.emptyHash, "\(entry)")
            #expect(entry.headers["expect"] == nil && entry.headers["transfer-encoding"] == nil && entry.headers["accept"] == nil)
            #expect(entry.status.map { (200..<300).contains($0) } ?? false, "\(entry)")
        }
    }

    // MARK: - Encryption

    @Test(arguments: [
        ("sse=AES256", ["x-amz-server-side-encryption": "AES256"]), ("sse=aws:kms", ["x-amz-server-side-encryption": "aws:kms"]),
        (
            "sse=aws:kms:arn:aws:kms:us-east-1:1:key/k",
            [
                "x-amz-server-side-encryption": "aws:kms",
                "x-amz-server-side-encryption-aws-kms-key-id": "arn:aws:kms:us-east-1:1:key/k",
            ]
        ),
    ])
    func `encryption by the store is asked for with every write`(_ options: String, _ expected: [String: String]) async throws {
        let bench = try await S3Bench(own: false)
        let store = try bench.store(options + "&multipart-above=6MiB&part-size=5MiB")
        let large = [UInt8](repeating: 1, count: 7 << 20)
        try await store.put("v1/packs/large", large)
        try await store.put("v1/a", [1])
        try await store.replace("tmp/l", [1], expecting: nil)
        for name in ["v1/packs/large", "v1/a", "tmp/l"] {
            let sse = try await bench.object(name).sse ?? [:]
            for (header, value) in expected { #expect(sse[header] == value, "\(name): \(sse)") }
        }
        #expect(try await store.bytes("v1/packs/large") == large)
        #expect(try await store.bytes("v1/a") == [1])
    }

    @Test(arguments: ["raw", "hexadecimal", "base64"])
    func `SSE-C objects are read back with their key only`(_ form: String) async throws {
        let bench = try await S3Bench()
        let directory = try TemporaryDirectory("sse-c")
        let key = (0..<32).map { UInt8($0 * 7 + 1) }
        let text: [UInt8] =
            switch form {
            case "raw": key
            case "hexadecimal": Array((key.hex.uppercased() + "\n").utf8)
            default: Array((base64(key) + "\n").utf8)
            }
        try Data(text).write(to: URL(filePath: directory("key")))
        let store = try bench.store("sse-c-key=\(directory("key"))&multipart-above=6MiB&part-size=5MiB")
        let large = [UInt8](repeating: 5, count: 7 << 20)
        try await store.put("v1/a", [1, 2, 3])
        try await store.put("v1/packs/large", large)
        #expect(try await store.bytes("v1/a") == [1, 2, 3])
        #expect(try await store.bytes("v1/a", .last(2)) == [2, 3])
        #expect(try await store.bytes("v1/packs/large", .from(6 << 20, count: 99)) == Array(large[..<99]))
        #expect(try await store.info("v1/a")?.size == 3)
        let version = try await store.replace("tmp/l", [1], expecting: nil)
        try await store.replace("tmp/l", [2], expecting: version)
        #expect(try await store.fetch("tmp/l", limit: 9)?.bytes == [2])
        #expect(try await store.list("v1/").count == 2)
        try await store.delete("v1/a")
        let plain = try bench.store()
        #expect(await storeError { _ = try await plain.bytes("v1/packs/large") } != nil)
        // The key goes with objects, never with the bucket's requests.
        for entry in try await bench.log() where entry.operation == "ListObjectsV2" {
            #expect(!entry.headers.keys.contains { $0.contains("customer") })
        }
        let sse = try await bench.object("v1/packs/large").sse ?? [:]
        #expect(!sse.values.contains(base64(key)), "the server keeps no key")
    }

    @Test func `a key file that holds no key is refused with what would be right`() async throws {
        let bench = try await S3Bench(own: false)
        let directory = try TemporaryDirectory("sse-c")
        for text in ["", "short", String(repeating: "0", count: 31), String(repeating: "zz", count: 32)] {
            try Data(text.utf8).write(to: URL(filePath: directory("key")))
            #expect { try bench.store("sse-c-key=\(directory("key"))") } throws: { error in
                guard let error = error as? StoreError else { return false }
                return error.kind == .usage && error.detail.contains("no key of 32 bytes")
                    && error.hint?.contains("openssl rand") == true
            }
        }
        #expect(throws: StoreError.self) { try bench.store("sse-c-key=\(directory("none"))") }
    }

    // MARK: - Locks

    @Test(arguments: ["compliance", "governance"])
    func `what is under v1 is locked, and nothing else`(_ mode: String) async throws {
        let bench = try await S3Bench(configuration: Self.lockBucket)
        let store = try bench.store("lock=\(mode)&lock-for=30d&multipart-above=6MiB&part-size=5MiB")
        #expect(store.lockDuration == 30 * Self.day)
        let begin = Ambient.system.now()
        try await store.put("v1/packs/ab/x", [1])
        try await store.put("v1/packs/large", [UInt8](repeating: 2, count: 7 << 20))
        try await store.put("tmp/x", [1])
        try await store.replace("tmp/lease", [1], expecting: nil)
        for name in ["v1/packs/ab/x", "v1/packs/large"] {
            let lock = try #require(try await bench.object(name).lock)
            #expect(lock.mode == mode.uppercased())
            let until = try #require(parseListDate(lock.until))
            #expect((begin + 30 * Self.day - 2_000_000_000...begin + 30 * Self.day + 120_000_000_000).contains(until))
            #expect(try await store.info(name)?.lockedUntil.map { abs($0 - until) < 1_000_000_000 } == true)
        }
        for name in ["tmp/x", "tmp/lease"] { #expect(try await bench.object(name).lock == nil, "\(name)") }
        for entry in try await bench.log() where entry.headers["x-amz-object-lock-mode"] != nil {
            #expect(entry.path.contains("/v1/"))
            // S3 refuses a locked write without a checksum.
            #expect(entry.method == "POST" || entry.headers["x-amz-checksum-sha256"] != nil)
        }
        let error = await storeError { try await store.delete("v1/packs/ab/x") }
        #expect(error?.kind == .locked && error?.detail.contains("locked until 20") == true, "\(error?.whole ?? "no error")")
        #expect(try await store.bytes("v1/packs/ab/x") == [1])
        #expect(try await bench.object("v1/packs/ab/x").versions.count == 1, "no marker either")
        try await store.delete("tmp/x")
        #expect(try await store.info("tmp/x") == nil)
    }

    @Test(arguments: ["compliance", "governance"])
    func `a lock is extended and never shortened`(_ mode: String) async throws {
        let bench = try await S3Bench(configuration: Self.lockBucket)
        let store = try bench.store("lock=\(mode)&lock-for=30d")
        try await store.put("v1/a", [1])
        let first = try #require(try await store.info("v1/a")?.lockedUntil)
        let later = first + 10 * Self.day
        try await store.extendLock("v1/a", until: later)
        #expect(try await store.info("v1/a")?.lockedUntil == later)
        for earlier in [first, later - Self.day] {
            _ = await storeError { try await store.extendLock("v1/a", until: earlier) }
            #expect(try await store.info("v1/a")?.lockedUntil == later)
        }
        try await store.extendLock("v1/a", until: later)
        #expect(await storeError { try await store.extendLock("v1/none", until: later) }?.kind == .notFound)
    }

    @Test func `without a lock in the URL there is none to extend`() async throws {
        let bench = try await S3Bench(own: false)
        let store = try bench.store()
        #expect(store.lockDuration == nil)
        #expect(await storeError { try await store.extendLock("v1/a", until: .max) }?.kind == .unsupported)
    }

    @Test func `a lock that a bucket cannot keep is an error, not a promise`() async throws {
        let bench = try await S3Bench(own: false)
        let store = try bench.store("lock=compliance&lock-for=30d")
        let error = await storeError { try await store.put("v1/a", [1]) }
        #expect(error?.detail.contains("Object Lock") == true, "\(error?.whole ?? "no error")")
        #expect(try await store.info("v1/a") == nil)
    }

    @Test func `in a bucket with versions a deleted object is gone, not hidden`() async throws {
        let bench = try await S3Bench(
            configuration: "{\"buckets\": [{\"name\": \"bucket\", \"region\": \"us-east-1\", \"versioning\": true}]}")
        let store = try bench.store()
        for name in ["v1/a", "v1/b"] { try await store.put(name, [1]) }
        // Also by a client that has seen no version yet.
        try await bench.store().delete("v1/a")
        try await store.delete("v1/b")
        #expect(try await bench.keys().keys.isEmpty)
        for name in ["v1/a", "v1/b"] { await #expect(throws: BackupError.self) { _ = try await bench.object(name) } }
    }

    @Test func `many objects go in one request, and those that it leaves by themselves`() async throws {
        let bench = try await S3Bench()
        let store = try bench.store()
        let names = (0..<30).map { "tmp/<&>\($0)" }
        for name in names { try await store.put(name, [1]) }
        _ = try await store.info(names[0])
        try await bench.reset()
        try await store.delete(all: Array(names[..<20]))
        #expect(try await bench.log().map(\.operation) == ["DeleteObjects"])
        #expect(try await bench.keys().keys.count == 10)
        try await bench.configure(S3Bench.faults("\"slowDownIn200\": 1", "DeleteObjects"))
        try await store.delete(all: Array(names[20...]))
        #expect(try await bench.keys().keys.isEmpty)
        #expect(try await bench.log().contains { $0.operation == "DeleteObject" })
    }

    @Test func `many locked or versioned objects go one by one, or say why not`() async throws {
        let bench = try await S3Bench(configuration: Self.lockBucket)
        let store = try bench.store("lock=compliance&lock-for=30d")
        for name in ["tmp/a", "tmp/b", "v1/c"] { try await store.put(name, [1]) }
        // Also by a client that knows nothing of the bucket yet.
        try await bench.store("lock=compliance&lock-for=30d").delete(all: ["tmp/a", "tmp/b"])
        for name in ["tmp/a", "tmp/b"] { await #expect(throws: BackupError.self) { _ = try await bench.object(name) } }
        #expect(await storeError { try await store.delete(all: ["v1/c", "tmp/none"]) }?.kind == .locked)
        #expect(try await store.bytes("v1/c") == [1])
    }

    // MARK: - Addresses

    @Test func `virtual-host style asks the bucket's own host`() async throws {
        let bench = try await S3Bench()
        let endpoint = "http://localhost:\(bench.server.port)"
        // libcurl takes *.localhost for this machine.
        let store = try bench.store("style=virtual", endpoint: endpoint)
        try await store.put("v1/a b", [1])
        #expect(try await store.list("v1/").map(\.name) == ["v1/a b"])
        #expect(try await store.bytes("v1/a b") == [1])
        let log = try await bench.log()
        #expect(log.allSatisfy { $0.headers["host"] == "bucket.localhost:\(bench.server.port)" && !$0.path.hasPrefix("/bucket") })
    }

    @Test(arguments: [
        "{\"buckets\": [{\"name\": \"bucket\", \"region\": \"eu-west-9\"}]}",
        "{\"personality\": {\"redirect\": {\"bucket\": \"eu-west-9\"}}}",
    ])
    func `the bucket's region is found out once`(_ configuration: String) async throws {
        let bench = try await S3Bench(configuration: configuration)
        let store = try bench.store()
        try await store.put("tmp/a", [1])
        try await store.put("tmp/b", [1])
        _ = try await store.info("tmp/b")
        #expect(try await bench.log().map { $0.status ?? 0 }.map { $0 < 300 } == [false, true, true, true])
        #expect(store.client.region == "eu-west-9")
        // HEAD has no body to say it.
        #expect(try await bench.store().info("tmp/a")?.size == 1)
    }

    @Test func `a store that names region after region is given up`() async throws {
        let transport = ScriptedTransport { _, number in HTTPResponse(301, [("x-amz-bucket-region", "r\(number)")]) }
        let store = try S3Store.scripted("s3://bucket?endpoint=https://h", transport)
        #expect(await storeError { _ = try await store.list("v1/") }?.kind == .usage)
        #expect(transport.requests.count == 2)
    }

    @Test func `a temporary redirect is signed anew for the other place`() async throws {
        let target = try await S3Bench()
        let bench = try await S3Bench(
            configuration: "{\"personality\": {\"temporaryRedirect\": {\"bucket\": \"127.0.0.1:\(target.server.port)\"}}}")
        let store = try bench.store()
        try await store.put("tmp/a", [1, 2, 3])
        try await store.put("tmp/b", [4])
        #expect(try await target.log().map(\.status) == [200])
        #expect(try await target.log().first?.headers["host"] == "127.0.0.1:\(target.server.port)")
        #expect(try await bench.log().map(\.status) == [307, 200])
    }

    @Test func `the transport follows no redirect by itself`() async throws {
        let target = try await S3Bench()
        let bench = try await S3Bench(
            configuration: "{\"personality\": {\"temporaryRedirect\": {\"bucket\": \"127.0.0.1:\(target.server.port)\"}}}")
        var request = HTTPRequest("GET", "\(bench.server.endpoint)/bucket/x")
        let keys = Credentials(
            accessKey: bench.server.accessKey, secretKey: SecretText(bench.server.secretKey), sessionToken: nil, expires: nil,
            source: "")
        request.headers = RequestSigner(credentials: keys, region: "us-east-1").headers(
            for: .init(
                method: "GET", host: "127.0.0.1:\(bench.server.port)", path: "/bucket/x", query: "", headers: [],
                payloadHash: S3Call.emptyHash), now: Ambient.system.now())
        #expect(try await CurlTransport().send(request).status == 307)
        #expect(try await target.statistics().count == 0)
    }

    // MARK: - Rates

    @Test func `uploads and downloads keep to their rates`() async throws {
        let bench = try await S3Bench(own: false)
        let store = try bench.store("limit-upload=4MiB&limit-download=4MiB")
        let bytes = Array(S3PartTests.large[..<(1 << 20)])
        var start = monotonicSeconds()
        try await withThrowingTaskGroup(of: Void.self) { group in
            for number in 0..<4 { group.addTask { try await store.put("tmp/r\(number)", bytes) } }
            try await group.waitForAll()
        }
        var elapsed = monotonicSeconds() - start
        // The last of 4 MiB may begin when three quarters have gone, after 0.75 s.
        #expect((0.7...60).contains(elapsed), "upload: \(elapsed)")
        start = monotonicSeconds()
        for number in 0..<4 { #expect(try await store.bytes("tmp/r\(number)").count == 1 << 20) }
        elapsed = monotonicSeconds() - start
        #expect((0.7...60).contains(elapsed), "download: \(elapsed)")
    }

    @Test func `no more connections than allowed are used`() async throws {
        let bench = try await S3Bench(configuration: "{\"personality\": {\"delayMilliseconds\": 20}}")
        let store = try bench.store("connections=3")
        try await withThrowingTaskGroup(of: Void.self) { group in
            for number in 0..<20 { group.addTask { _ = try await store.info("v1/\(number)") } }
            try await group.waitForAll()
        }
        let statistics = try await bench.statistics()
        #expect(statistics.count == 20)
        #expect((2...3).contains(statistics.maxConcurrentRequests))
    }
}
