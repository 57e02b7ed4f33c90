import BackupBase
import Crypto
import Foundation
import TestSupport
import Testing

@testable import ObjectStorage

/// What becomes of a call when the store is overloaded, slow, or drops connections.
@Suite(.serialized, .enabled(if: S3Bench.hasStrict, "the strict server is not built")) struct S3FaultTests {
    private let bytes = S3Bench.bytes

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
        let bench = try await S3Bench(configuration: S3Bench.faults("\"\(fault)\": 0.4", seed: 3))
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
        try await bench.configure(S3Bench.faults("\"\(fault)\": 1"))
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
            configuration: S3Bench.faults("\"error503\": 0.5", seed: 2, more: ", \"personality\": {\"htmlErrors\": true}"))
        let store = try bench.store()
        for number in 0..<10 { try await store.put("tmp/\(number)", [1]) }
        #expect(try await bench.statistics().faults["error503"] ?? 0 > 0)
    }

    @Test func `a server that hangs is left after the time allowed`() async throws {
        let bench = try await S3Bench(configuration: S3Bench.faults("\"hang\": 0.4", seed: 4, more: ", \"hangSeconds\": 300"))
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
        try await bench.configure(S3Bench.faults("\"stallBody\": 0.5", "GetObject", seed: 15, more: ", \"hangSeconds\": 20"))
        #expect(try await store.bytes("v1/a") == bytes)
        #expect(try await bench.statistics().faults["stallBody"] ?? 0 > 0)
    }

    @Test func `a mixture of all faults damages nothing`() async throws {
        let rates =
            "\"error503\": 0.05, \"error500\": 0.02, \"resetBefore\": 0.02, \"resetAfter\": 0.02, \"shortBody\": 0.02, \"conflict409\": 0.02, \"slowDownIn200\": 0.01"
        let bench = try await S3Bench(configuration: S3Bench.faults(rates, seed: 7, more: ", \"minimumPartSize\": 1024"))
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

    @Test func `a 500 after the write is settled by looking too`() async throws {
        let transport = ScriptedTransport { request, _ in
            if request.method == "PUT" { return .error(500, "InternalError") }
            return HTTPResponse(200, [("content-length", "1"), dated, (S3Headers.digest, RequestSigner.hash([7]))])
        }
        let store = try S3Store.scripted("s3://bucket?endpoint=https://h", transport)
        try await store.put("tmp/x", [7])
        #expect(transport.requests.map(\.method) == ["PUT", "HEAD"])
        #expect(await storeError { try await store.put("tmp/x", [8]) }?.kind == .exists)
    }

    @Test(arguments: [false, true])
    func `another writer's object is not taken for ours`(_ forgets: Bool) async throws {
        let bench = try await S3Bench(configuration: S3Bench.personality("\"forgetsMetadata\": \(forgets)"))
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

    @Test(arguments: ["before", "after"])
    func `a connection may be lost at each request`(_ when: String) async throws {
        let bench = try await S3Bench()
        try await S3Bench.sequence(bench.store())
        let count = try await bench.statistics().count
        #expect(count > 10)
        for number in 1...count {
            _ = try await bench.control("POST", "reset?objects=1")
            try await bench.configure("{\"drop\": {\"request\": \(number), \"when\": \"\(when)\"}}")
            let error = await storeError { try await S3Bench.sequence(bench.store()) }
            #expect(error == nil, "request \(number): \(error?.whole ?? "")")
            #expect(try await bench.keys().keys.map(\.key) == [bench.key("tmp/l")], "request \(number)")
        }
    }

    @Test(arguments: ["before", "after"])
    func `a run that ends at any request is made good by the next one`(_ when: String) async throws {
        let bench = try await S3Bench()
        let hasty = "retry-for=0.000001s"
        try await S3Bench.sequence(bench.store(hasty))
        let count = try await bench.statistics().count
        for number in 1...count {
            _ = try await bench.control("POST", "reset?objects=1")
            try await bench.configure("{\"drop\": {\"request\": \(number), \"when\": \"\(when)\"}}")
            let error = await storeError { try await S3Bench.sequence(bench.store(hasty)) }
            #expect(
                error.map { !$0.detail.isEmpty && $0.kind != .credentials } ?? true, "request \(number): \(error?.whole ?? "")")
            // The next run: what is there is its own or nobody's, and all can be finished.
            let store = try bench.store()
            for info in try await store.list("v1/") {
                #expect(try await store.bytes(info.name) == bytes, "request \(number): whole or not at all")
                try await store.delete(info.name)
            }
            for name in ["tmp/b", "tmp/l"] { try await store.delete(name) }
            try await S3Bench.sequence(store)
        }
    }
}
