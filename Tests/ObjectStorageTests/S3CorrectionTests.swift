import BackupBase
import Crypto
import Foundation
import TestSupport
import Testing

@testable import ObjectStorage

/// What a store complains of: clocks and keys; and calls that are given up.
@Suite(.serialized, .enabled(if: S3Bench.hasStrict, "the strict server is not built")) struct S3CorrectionTests {
    private let bytes = S3Bench.bytes

    // MARK: - Clock and keys

    @Test func `a store that tells no date is refused: what is old may be taken away`() async throws {
        let list = "<ListBucketResult><Contents><Key>v1/x</Key><Size>1</Size></Contents></ListBucketResult>"
        let transport = ScriptedTransport { request, _ in
            request.method == "HEAD"
                ? HTTPResponse(200, [("content-length", "1")]) : HTTPResponse(200, [("etag", "\"1\"")], list)
        }
        let store = try S3Store.scripted("s3://bucket?endpoint=http://localhost", transport)
        #expect(await storeError { _ = try await store.info("v1/x") }?.detail.contains("no date") == true)
        #expect(await storeError { _ = try await store.fetch("v1/x", limit: 1000) }?.detail.contains("no date") == true)
        #expect(await storeError { _ = try await store.list("v1/") }?.detail.contains("no date") == true)
    }

    @Test(arguments: [1200.0, -1200, 86_400, -86_400])
    func `the store's clock counts, and is asked once`(_ skew: Double) async throws {
        let bench = try await S3Bench(configuration: S3Bench.personality("\"clockSkewSeconds\": \(skew)"))
        let store = try bench.store()
        for number in 0..<3 { try await store.put("tmp/\(number)", [1]) }
        #expect(try await bench.log().map(\.status) == [403, 200, 200, 200])
        #expect(abs(Double(store.client.skew) / 1e9 - skew) < 60)
        // HEAD has no body that says why.
        #expect(try await bench.store().info("tmp/1")?.size == 1)
    }

    @Test func `a clock that is wrong again and again is told`() async throws {
        let transport = ScriptedTransport { _, number in
            .error(403, "RequestTimeTooSkewed", "no", [("date", "Sun, 06 Nov 20\(20 + number) 08:49:37 GMT")])
        }
        let store = try S3Store.scripted("s3://bucket?endpoint=https://h", transport)
        let error = await storeError { _ = try await store.list("v1/") }
        #expect(error?.detail.contains("off that of the store") == true && error?.hint?.contains("timedatectl") == true)
        #expect(transport.requests.count == 2)
    }

    @Test func `a correction of the clock counts for locks too`() async throws {
        let bench = try await S3Bench(
            configuration:
                "{\"buckets\": [{\"name\": \"bucket\", \"region\": \"us-east-1\", \"objectLock\": true}], \"personality\": {\"clockSkewSeconds\": 864000}}"
        )
        let store = try bench.store("lock=compliance&lock-for=2d")
        _ = try await store.list("v1/")
        try await store.put("v1/a", [1])
        let until = try #require(try await bench.object("v1/a").lock.flatMap { parseListDate($0.until) })
        #expect(abs(until - Ambient.system.now() - 12 * 86_400_000_000_000) < 120_000_000_000)
        #expect(await storeError { try await store.delete("v1/a") }?.kind == .locked)
    }

    private func temporary(_ bench: S3Bench) -> [String: String] {
        [
            "AWS_ACCESS_KEY_ID": "", "AWS_SECRET_ACCESS_KEY": "",
            "AWS_CONTAINER_CREDENTIALS_FULL_URI": "\(bench.server.endpoint)/_control/credentials",
        ]
    }

    @Test(arguments: [400, 403]) func `keys that expire are fetched anew`(_ status: Int) async throws {
        let bench = try await S3Bench(
            configuration: S3Bench.personality("\"expireTokensAfterRequests\": 4, \"tokenErrorStatus\": \(status)"))
        let store = try bench.store(environment: temporary(bench))
        for number in 0..<6 {
            try await store.put("v1/\(number)", [1])
            #expect(try await store.bytes("v1/\(number)") == [1])
        }
        let log = try await bench.log()
        #expect(log.filter { $0.error == "ExpiredToken" }.count >= 4)
        #expect(log.allSatisfy { ($0.status ?? 0) < 300 || $0.error == "ExpiredToken" })
    }

    @Test func `keys that are expired when they come end in an error after one more`() async throws {
        let bench = try await S3Bench(configuration: S3Bench.personality("\"expireTokensAfterRequests\": 0"))
        let store = try bench.store(environment: temporary(bench))
        let error = await storeError { _ = try await store.list("v1/") }
        #expect(error?.kind == .credentials && error?.detail.contains("expired") == true)
        #expect(try await bench.log().count == 2)
    }

    @Test func `a refusal is not repeated`() async throws {
        let bench = try await S3Bench(
            configuration: "{\"keys\": [{\"access\": \"STRICTACCESS\", \"secret\": \"strict-secret-key\", \"policies\": []}]}")
        let store = try bench.store()
        #expect(await storeError { try await store.put("v1/a", [1]) }?.kind == .denied)
        #expect(await storeError { _ = try await store.list("v1/") }?.kind == .denied)
        #expect(await storeError { _ = try await store.info("v1/a") }?.kind == .denied)
        #expect(try await bench.log().count == 3)
    }

    @Test func `wrong keys are told apart, and no secret is in the words`() async throws {
        let bench = try await S3Bench(own: false)
        for (keys, words) in [
            (["AWS_SECRET_ACCESS_KEY": "wrong-canary"], "secret key is not that"),
            (["AWS_ACCESS_KEY_ID": "NOBODY"], "does not know the access key"),
            (["AWS_SESSION_TOKEN": "token-canary"], "expired"), (["AWS_ACCESS_KEY_ID": "", "AWS_SECRET_ACCESS_KEY": ""], "no"),
        ] {
            let store = try bench.store(environment: keys)
            let error = await storeError { _ = try await store.list("v1/") }
            #expect(error?.kind == .credentials && error?.detail.contains(words) == true, "\(error?.whole ?? "none")")
            #expect(error?.whole.contains("canary") == false && error?.whole.contains("strict-secret-key") == false)
        }
    }

    @Test func `a refusal that comes and goes is asked about once with temporary keys`() async throws {
        let transport = ScriptedTransport { request, number in
            number % 2 == 0 ? HTTPResponse(403) : HTTPResponse(200, [("content-length", "1"), dated])
        }
        let store = try S3Store.scripted("s3://bucket?endpoint=https://h", transport, keys: ["AWS_SESSION_TOKEN": "t"])
        for _ in 0..<3 { #expect(try await store.info("v1/a")?.size == 1) }
        #expect(transport.requests.count == 6)
        let always = ScriptedTransport { _, _ in HTTPResponse(403) }
        let refused = try S3Store.scripted("s3://bucket?endpoint=https://h", always, keys: ["AWS_SESSION_TOKEN": "t"])
        #expect(await storeError { _ = try await refused.info("v1/a") }?.kind == .denied)
        #expect(always.requests.count == 2)
    }

    // MARK: - Cancellation and reach

    @Test func `a cancelled call ends at once and asks nothing more`() async throws {
        let bench = try await S3Bench(configuration: S3Bench.faults("\"hang\": 1", more: ", \"hangSeconds\": 300"))
        let store = try bench.store("connections=2")
        let bytes = bytes
        let asking = (0..<2).map { number in Task { try await store.put("v1/\(number)", bytes) } }
        #expect(try await eventually { try await bench.statistics().count == 2 })
        let waiting = (2..<6).map { number in Task { try await store.put("v1/\(number)", bytes) } }
        let start = monotonicSeconds()
        // Those first that have no place yet.
        for task in waiting + asking { task.cancel() }
        for task in waiting + asking { await #expect(throws: CancellationError.self) { try await task.value } }
        #expect(monotonicSeconds() - start < 60)
        try await Task.sleep(for: .milliseconds(300))
        #expect(try await bench.statistics().count == 2, "those that waited for a place have asked nothing")
        #expect(try await bench.keys().keys.count <= 2)
    }

    @Test func `a cancelled call does not wait between repetitions`() async throws {
        let transport = ScriptedTransport { _, _ in HTTPResponse(500) }
        let slow = Ambient(now: Ambient.system.now, random: { [UInt8](repeating: 255, count: $0) })
        let store = try S3Store.scripted("s3://bucket?endpoint=https://h", transport, ambient: slow)
        let task = Task { try await store.put("v1/a", [1]) }
        #expect(await eventually { transport.requests.count >= 3 })
        task.cancel()
        await #expect(throws: CancellationError.self) { try await task.value }
        let count = transport.requests.count
        try await Task.sleep(for: .milliseconds(100))
        #expect(transport.requests.count == count)
    }

    @Test func `a task that is cancelled already asks nothing`() async throws {
        let transport = ScriptedTransport { _, _ in HTTPResponse(200, [("content-length", "1"), dated]) }
        let store = try S3Store.scripted("s3://bucket?endpoint=https://h", transport)
        let task = Task {
            while !Task.isCancelled { await Task.yield() }
            for body in [
                { _ = try await store.info("v1/a") }, { try await store.put("v1/a", [1]) }, { _ = try await store.list("v1/") },
            ]
                as [() async throws -> Void]
            {
                await #expect(throws: CancellationError.self) { try await body() }
            }
        }
        task.cancel()
        await task.value
        #expect(transport.requests.isEmpty)
    }

    @Test(arguments: [
        ("http://127.0.0.1:1", "nobody answers", 3), ("http://no-such-host.invalid", "has no address", 3),
        ("http://127.0.0.1:99999", "cannot be used", 1),
    ])
    func `a server that is not there is given up soon`(_ endpoint: String, _ words: String, _ tries: Int) async throws {
        let bench = try await S3Bench(own: false)
        let start = monotonicSeconds()
        let error = await storeError { _ = try await bench.store(endpoint: endpoint).list("v1/") }
        #expect(
            [.unreachable, .usage].contains(error?.kind) && error?.detail.contains(words) == true, "\(error?.whole ?? "none")")
        #expect(error?.hint != nil)
        #expect(monotonicSeconds() - start < 60)
    }
}
