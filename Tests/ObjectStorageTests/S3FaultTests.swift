import BackupBase
import Crypto
import Foundation
import TestSupport
import Testing

@testable import ObjectStorage

/// What becomes of a call when the store is overloaded, drops connections, lies or is slow.
@Suite(.serialized, .enabled(if: S3Bench.hasStrict, "the strict server is not built")) struct S3FaultTests {
    private let bytes: [UInt8] = {
        var random = Seeded(99)
        return random.bytes(70_000)
    }()
    private static func faults(_ rates: String, _ operations: String? = nil, seed: Int = 1, more: String = "") -> String {
        let only = operations.map { ", \"faultOperations\": [\"\($0)\"]" } ?? ""
        return "{\"rates\": {\(rates)}, \"seed\": \(seed)\(only)\(more)}"
    }
    private static func personality(_ fields: String) -> String { "{\"personality\": {\(fields)}}" }

    // MARK: - Trouble that passes

    @Test func `a burst of 503 halves the requests at once, and all succeed`() async throws {
        let bench = try await S3Bench(
            configuration: "{\"burst503\": {\"from\": 1, \"count\": 40}, \"personality\": {\"delayMilliseconds\": 10}}")
        let store = try bench.store("connections=16")
        @Sendable func ask(_ count: Int) async throws {
            try await withThrowingTaskGroup(of: Void.self) { group in
                for number in 0..<count {
                    group.addTask {
                        let info = try await store.info("v1/\(number)")
                        #expect(info == nil)
                    }
                }
                try await group.waitForAll()
            }
        }
        #expect(store.client.flow.limit == 16)
        try await ask(16)
        #expect(try await bench.statistics().faults["burst503"] == 40)
        #expect(store.client.flow.limit < 16)
        try await bench.configure("{\"burst503\": null, \"personality\": {\"delayMilliseconds\": 20}}")
        try await ask(20)
        let statistics = try await bench.statistics()
        // Eight, and one more for each round of answers.
        #expect(statistics.count == 20 && statistics.maxConcurrentRequests <= 12, "\(statistics)")
    }

    @Test(arguments: ["error500", "error503", "conflict409", "shortBody"])
    func `what fails now and then succeeds in the end`(_ fault: String) async throws {
        let bench = try await S3Bench(configuration: Self.faults("\"\(fault)\": 0.4", seed: 3))
        let store = try bench.store()
        for number in 0..<8 {
            try await store.put("v1/\(number)", bytes)
            #expect(try await store.bytes("v1/\(number)") == bytes)
            #expect(try await store.bytes("v1/\(number)", .from(100, count: 50_000)) == Array(bytes[100..<50_100]))
        }
        #expect(try await store.list("v1/").count == 8)
        var version = try await store.replace("tmp/l", [0], expecting: nil)
        for number in 1..<8 { version = try await store.replace("tmp/l", [UInt8(number)], expecting: version) }
        #expect(try await store.fetch("tmp/l", limit: 9)?.bytes == [7])
        for number in 0..<8 { try await store.delete("v1/\(number)") }
        #expect(try await bench.statistics().faults[fault] ?? 0 > 0)
        #expect(try await bench.keys().keys.map(\.key) == [bench.key("tmp/l")])
    }

    @Test(arguments: [("error500", "500"), ("error503", "503"), ("resetBefore", "break")])
    func `what does not pass ends in an error that says so`(_ fault: String, _ word: String) async throws {
        let bench = try await S3Bench()
        let store = try bench.store("retry-for=1s")
        // A store that was never reached is given up after 20 s only: it may be starting.
        #expect(try await store.info("v1/a") == nil)
        try await bench.configure(Self.faults("\"\(fault)\": 1"))
        for error in [
            await storeError { try await store.put("v1/a", bytes) }, await storeError { _ = try await store.bytes("v1/a") },
        ] {
            #expect(error?.kind == .failed || error?.kind == .unreachable, "\(error?.whole ?? "none")")
            #expect(error?.detail.contains(word) == true && error?.hint != nil, "\(error?.whole ?? "none")")
        }
        #expect(try await bench.statistics().count > 2, "it was repeated")
    }

    @Test func `a proxy's error page is an error of the store`() async throws {
        let bench = try await S3Bench(
            configuration: Self.faults("\"error503\": 0.5", seed: 2, more: ", \"personality\": {\"htmlErrors\": true}"))
        let store = try bench.store()
        for number in 0..<10 { try await store.put("tmp/\(number)", [1]) }
        #expect(try await bench.statistics().faults["error503"] ?? 0 > 0)
    }

    @Test func `a server that hangs is left after the time allowed`() async throws {
        let bench = try await S3Bench(configuration: Self.faults("\"hang\": 0.4", seed: 4, more: ", \"hangSeconds\": 300"))
        let store = try bench.store("timeout=1")
        let (start, bytes) = (monotonicSeconds(), bytes)
        try await withThrowingTaskGroup(of: Void.self) { group in
            for number in 0..<3 {
                group.addTask {
                    try await store.put("v1/\(number)", bytes)
                    #expect(try await store.bytes("v1/\(number)") == bytes)
                }
            }
            try await group.waitForAll()
        }
        #expect(try await bench.statistics().runningRequests > 0, "some hang yet")
        #expect(monotonicSeconds() - start < 120)
    }

    @Test func `a body that stops half-way is read again`() async throws {
        let bench = try await S3Bench()
        let store = try bench.store("timeout=1")
        try await store.put("v1/a", bytes)
        try await bench.configure(Self.faults("\"stallBody\": 0.5", "GetObject", seed: 15, more: ", \"hangSeconds\": 20"))
        #expect(try await store.bytes("v1/a") == bytes)
        #expect(try await bench.statistics().faults["stallBody"] ?? 0 > 0)
    }

    @Test func `a mixture of all faults damages nothing`() async throws {
        let rates =
            "\"error503\": 0.05, \"error500\": 0.02, \"resetBefore\": 0.02, \"resetAfter\": 0.02, \"shortBody\": 0.02, \"conflict409\": 0.02, \"slowDownIn200\": 0.01"
        let bench = try await S3Bench(configuration: Self.faults(rates, seed: 7, more: ", \"minimumPartSize\": 1024"))
        let store = try bench.store("multipart-above=64KiB&part-size=16KiB")
        let bytes = bytes
        try await withThrowingTaskGroup(of: Void.self) { group in
            for number in 0..<60 {
                if number >= 6 { try await group.next() }
                group.addTask {
                    let mine = Array(bytes[number...].prefix(number % 3 == 0 ? 69_000 : 900))
                    try await store.put("v1/\(number)", mine)
                    #expect(try await store.bytes("v1/\(number)") == mine)
                    #expect(try await store.bytes("v1/\(number)", .last(77)) == mine.suffix(77))
                    if number % 2 == 0 { try await store.delete("v1/\(number)") }
                }
            }
            try await group.waitForAll()
        }
        #expect(try await store.list("v1/").map(\.name) == (0..<60).filter { $0 % 2 == 1 }.map { "v1/\($0)" }.sorted())
        #expect(try await bench.statistics().faults.values.reduce(0, +) > 5)
    }

    // MARK: - Lost answers

    @Test(arguments: [("before", false), ("after", false), ("before", true), ("after", true)])
    func `a conditional write whose answer is lost is settled by looking`(_ when: String, _ forgets: Bool) async throws {
        let bench = try await S3Bench(
            configuration:
                "{\"drop\": {\"request\": 1, \"when\": \"\(when)\"}, \"personality\": {\"forgetsMetadata\": \(forgets)}}")
        try await bench.store().put("v1/x", bytes)
        let log = try await bench.log()
        #expect(log.filter { $0.operation == "PutObject" }.count == (when == "before" ? 2 : 1))
        #expect(log[1].operation == "HeadObject")
        // Without the digest among the metadata the object itself is read.
        #expect(log.contains { $0.operation == "GetObject" } == (forgets && when == "after"))
        let kept = try await bench.object("v1/x")
        #expect(kept.versions.count == 1 && kept.sha256 == Array(SHA256.hash(data: bytes)).hex)
    }

    @Test(arguments: [false, true])
    func `another writer's object is not taken for ours`(_ forgets: Bool) async throws {
        let bench = try await S3Bench(configuration: Self.personality("\"forgetsMetadata\": \(forgets)"))
        let store = try bench.store()
        // Of the same size: only its bytes tell.
        try await store.put("v1/x", bytes.reversed())
        for when in ["before", "after"] {
            try await bench.configure("{\"drop\": {\"request\": 1, \"when\": \"\(when)\"}}")
            #expect(await storeError { try await store.put("v1/x", bytes) }?.kind == .exists, "\(when)")
        }
        #expect(try await store.bytes("v1/x") == bytes.reversed())
    }

    @Test(arguments: ["before", "after"])
    func `a replacement whose answer is lost is ours, once`(_ when: String) async throws {
        let bench = try await S3Bench()
        let store = try bench.store()
        try await bench.configure("{\"drop\": {\"request\": 1, \"when\": \"\(when)\"}}")
        let one = try await store.replace("tmp/l", [1], expecting: nil)
        #expect(try await store.fetch("tmp/l", limit: 9)?.version == one)
        try await bench.configure("{\"drop\": {\"request\": 1, \"when\": \"\(when)\"}}")
        let two = try await store.replace("tmp/l", [2], expecting: one)
        let found = try await store.fetch("tmp/l", limit: 9)
        #expect(found?.version == two && found?.bytes == [2])
        for expected in [nil, one] {
            try await bench.configure("{\"drop\": {\"request\": 1, \"when\": \"\(when)\"}}")
            #expect(await storeError { try await store.replace("tmp/l", [9], expecting: expected) }?.kind == .exists)
        }
        #expect(try await store.fetch("tmp/l", limit: 9)?.bytes == [2])
    }

    /// Everything a repository does to a store, in small.
    private func sequence(_ store: S3Store) async throws {
        try await store.put("v1/a", bytes)
        try await store.put("tmp/b", [1])
        #expect(try await store.list("v1/").map(\.name) == ["v1/a"])
        #expect(try await store.bytes("v1/a", .last(1000)) == bytes.suffix(1000))
        let version = try await store.replace("tmp/l", [1], expecting: nil)
        try await store.replace("tmp/l", [2], expecting: version)
        #expect(try await store.fetch("tmp/l", limit: 9)?.bytes == [2])
        try await store.delete("tmp/b")
        try await store.delete("v1/a")
        #expect(try await store.list("v1/").isEmpty)
    }

    @Test(arguments: ["before", "after"])
    func `a connection may be lost at each request`(_ when: String) async throws {
        let bench = try await S3Bench()
        try await sequence(bench.store())
        let count = try await bench.statistics().count
        #expect(count > 10)
        for number in 1...count {
            _ = try await bench.control("POST", "reset?objects=1")
            try await bench.configure("{\"drop\": {\"request\": \(number), \"when\": \"\(when)\"}}")
            let error = await storeError { try await sequence(bench.store()) }
            #expect(error == nil, "request \(number): \(error?.whole ?? "")")
            #expect(try await bench.keys().keys.map(\.key) == [bench.key("tmp/l")], "request \(number)")
        }
    }

    @Test(arguments: ["before", "after"])
    func `a run that ends at any request is made good by the next one`(_ when: String) async throws {
        let bench = try await S3Bench()
        let hasty = "retry-for=0.000001s"
        try await sequence(bench.store(hasty))
        let count = try await bench.statistics().count
        for number in 1...count {
            _ = try await bench.control("POST", "reset?objects=1")
            try await bench.configure("{\"drop\": {\"request\": \(number), \"when\": \"\(when)\"}}")
            let error = await storeError { try await sequence(bench.store(hasty)) }
            #expect(
                error.map { !$0.detail.isEmpty && $0.kind != .credentials } ?? true, "request \(number): \(error?.whole ?? "")")
            // The next run: what is there is its own or nobody's, and all can be finished.
            let store = try bench.store()
            for info in try await store.list("v1/") {
                #expect(try await store.bytes(info.name) == bytes, "request \(number): whole or not at all")
                try await store.delete(info.name)
            }
            for name in ["tmp/b", "tmp/l"] { try await store.delete(name) }
            try await sequence(store)
        }
    }

    // MARK: - Stores that lie

    @Test(arguments: [("storesNothing", "has none"), ("storesTruncated", "others")])
    func `a store that does not store what it says is found out`(_ lie: String, _ words: String) async throws {
        let bench = try await S3Bench(configuration: Self.personality("\"\(lie)\": true"))
        let error = await storeError { try await bench.store().put("v1/x", bytes) }
        #expect(error?.kind == .failed && error?.detail.contains(words) == true, "\(error?.whole ?? "none")")
        #expect(error?.hint?.contains("repo probe") == true)
    }

    @Test func `a store that is late to show what it has is waited for`() async throws {
        let bench = try await S3Bench(configuration: Self.personality("\"lateReads\": 0.3"))
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
        let bench = try await S3Bench(configuration: Self.personality(fields))
        let store = try bench.store("checksums=on")
        let probe = try await StoreProbe.run(store, ambient: .prompt)
        #expect(probe.results.allSatisfy { $0.holds }, "\(probe.results.filter { !$0.holds })")
        try await sequence(store)
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
        let bench = try await S3Bench(configuration: Self.personality(fields))
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
        let bench = try await S3Bench(configuration: Self.personality("\"conditionsNotImplemented\": true"))
        let store = try bench.store()
        try await store.put("v1/x", [1])
        #expect(await storeError { try await store.put("v1/x", [2]) }?.kind == .exists)
        #expect(try await store.bytes("v1/x") == [1])
        #expect(await storeError { try await store.replace("tmp/l", [1], expecting: nil) }?.kind == .unsupported)
    }

    // MARK: - Clock and keys

    @Test(arguments: [1200.0, -1200, 86_400, -86_400])
    func `the store's clock counts, and is asked once`(_ skew: Double) async throws {
        let bench = try await S3Bench(configuration: Self.personality("\"clockSkewSeconds\": \(skew)"))
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
            configuration: Self.personality("\"expireTokensAfterRequests\": 4, \"tokenErrorStatus\": \(status)"))
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
        let bench = try await S3Bench(configuration: Self.personality("\"expireTokensAfterRequests\": 0"))
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
            number % 2 == 0 ? HTTPResponse(403) : HTTPResponse(200, [("content-length", "1")])
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
        let bench = try await S3Bench(configuration: Self.faults("\"hang\": 1", more: ", \"hangSeconds\": 300"))
        let store = try bench.store("connections=2")
        let bytes = bytes
        let tasks = (0..<6).map { number in Task { try await store.put("v1/\(number)", bytes) } }
        #expect(try await eventually { try await bench.statistics().count >= 2 })
        let start = monotonicSeconds()
        for task in tasks { task.cancel() }
        for task in tasks { await #expect(throws: CancellationError.self) { try await task.value } }
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
        let transport = ScriptedTransport { _, _ in HTTPResponse(200, [("content-length", "1")]) }
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
