import BackupBase
import Foundation
import TestSupport
import Testing

@testable import ObjectStorage

/// The contract of `ObjectStore`, held against each implementation and server.
@Suite struct StoreContractTests {
    enum Kind: String, Sendable, CaseIterable, CustomTestStringConvertible {
        case local, strict, moto, rclone
        var testDescription: String { rawValue }
        var server: S3Server.Kind? { S3Server.Kind(rawValue: rawValue) }
    }

    static let kinds: [Kind] = [.local] + S3Server.available.compactMap { Kind(rawValue: $0.rawValue) }
    /// Those whose conditions hold.
    static let conditional = kinds.filter { $0 != .rclone }

    /// A store and what keeps it alive.
    private struct Subject {
        let store: any ObjectStore
        let keep: AnyObject

        init(_ kind: Kind, _ options: String = "") async throws {
            if let server = kind.server {
                let bench = try await S3Bench(server, own: false)
                (store, keep) = (try bench.store(options), bench.server)
            } else {
                let directory = try TemporaryDirectory("contract")
                (store, keep) = (LocalStore(path: directory.path), directory)
            }
        }
    }

    private func content(_ size: Int) -> [UInt8] {
        var random = Seeded(size + 7)
        return random.bytes(size)
    }

    @Test(arguments: kinds, [0, 1, 100_000])
    func `an object comes back as it was put, whole and in ranges`(_ kind: Kind, _ size: Int) async throws {
        let subject = try await Subject(kind)
        let (store, bytes) = (subject.store, content(size))
        try await store.put("v1/packs/ab/x", bytes)
        let whole = try await store.get("v1/packs/ab/x", .all, limit: size)
        #expect(whole.array == bytes && whole.objectSize == size && whole.count == size)
        for (from, count) in [
            (0, 1), (0, size), (size / 2, size), (size, 5), (size + 100, 5), (1, 4096), (size - 1, 1), (0, 0), (size, 0),
        ]
        where from >= 0 {
            let part = try await store.get("v1/packs/ab/x", .from(from, count: count), limit: count)
            #expect(part.array == Array(bytes.dropFirst(from).prefix(count)), "\(from), \(count)")
            #expect(part.objectSize == size, "\(from), \(count)")
        }
        for last in [0, 1, 16, 4096, size, size + 1, size + 300_000] {
            let part = try await store.get("v1/packs/ab/x", .last(last), limit: last)
            #expect(part.array == Array(bytes.suffix(last)) && part.objectSize == size, "last \(last)")
        }
        let info = try #require(try await store.info("v1/packs/ab/x"))
        #expect(info.name == "v1/packs/ab/x" && info.size == size && info.lockedUntil == nil)
        #expect(abs(info.modified - Ambient.system.now()) < 600_000_000_000)
        try await store.delete("v1/packs/ab/x")
    }

    @Test(arguments: kinds) func `20 MiB go there and back`(_ kind: Kind) async throws {
        let subject = try await Subject(kind)
        let bytes = content(20 << 20)
        try await subject.store.put("v1/packs/large", bytes)
        #expect(try await subject.store.get("v1/packs/large", .all, limit: 20 << 20).array == bytes)
        #expect(try await subject.store.bytes("v1/packs/large", .from(19 << 20, count: 1 << 20)) == Array(bytes[(19 << 20)...]))
        try await subject.store.delete("v1/packs/large")
    }

    @Test(arguments: kinds) func `more than the limit is refused`(_ kind: Kind) async throws {
        let subject = try await Subject(kind)
        let store = subject.store
        try await store.put("v1/a", content(1000))
        #expect(await storeError { _ = try await store.get("v1/a", .all, limit: 999) }?.kind == .tooLarge)
        #expect(await storeError { _ = try await store.get("v1/a", .from(0, count: 500), limit: 499) }?.kind == .tooLarge)
        #expect(await storeError { _ = try await store.get("v1/a", .last(500), limit: 499) }?.kind == .tooLarge)
        #expect(await storeError { _ = try await store.fetch("v1/a", limit: 999) }?.kind == .tooLarge)
        #expect(try await store.get("v1/a", .from(0, count: 1000), limit: 1000).count == 1000)
        // What comes back counts, not what is asked for.
        #expect(try await store.get("v1/a", .from(900, count: 1000), limit: 100).count == 100)
        #expect(try await store.get("v1/a", .last(1000), limit: 1000).count == 1000)
    }

    @Test(arguments: kinds) func `what is not there is not found, and may be deleted`(_ kind: Kind) async throws {
        let subject = try await Subject(kind)
        let store = subject.store
        for range in [ByteRange.all, .from(0, count: 5), .from(0, count: 0), .last(5), .last(0)] {
            #expect(await storeError { _ = try await store.get("v1/none", range, limit: 10) }?.kind == .notFound, "\(range)")
        }
        #expect(try await store.info("v1/none") == nil)
        #expect(try await store.fetch("v1/none", limit: 10) == nil)
        try await store.delete("v1/none")
        try await store.delete(all: ["v1/none", "v1/nothing"])
        #expect(try await store.list("v1/").isEmpty)
    }

    @Test(arguments: kinds) func `an object can be replaced, and deleted more than once`(_ kind: Kind) async throws {
        let subject = try await Subject(kind)
        let store = subject.store
        try await store.put("v1/x", [1], ifAbsent: false)
        try await store.put("v1/x", [2, 3], ifAbsent: false)
        #expect(try await store.bytes("v1/x") == [2, 3])
        for _ in 0..<3 { try await store.delete("v1/x") }
        #expect(try await store.info("v1/x") == nil)
        try await store.put("v1/x", [4])
        #expect(try await store.bytes("v1/x") == [4])
    }

    @Test(arguments: kinds) func `many are deleted at once, those that are not there too`(_ kind: Kind) async throws {
        let subject = try await Subject(kind)
        let store = subject.store
        let names = (0..<25).map { "v1/many/\($0)" }
        try await concurrently(names) { try await store.put($0, [1]) }
        try await store.delete(all: Array(names[5...]) + ["v1/many/none"])
        #expect(try await store.list("v1/many/").map(\.name).sorted() == names[..<5].sorted())
        try await store.delete(all: [])
    }

    @Test(arguments: conditional) func `an object may be put first and confirmed later`(_ kind: Kind) async throws {
        let subject = try await Subject(kind)
        let store = subject.store
        try await store.putUnconfirmed("v1/packs/x", AlignedBuffer(copying: [1, 2]))
        try await store.confirm("v1/packs/x", size: 2)
        try await store.confirm("v1/packs/x", size: 2)
        let again = await storeError { try await store.putUnconfirmed("v1/packs/x", AlignedBuffer(copying: [3, 4])) }
        #expect(again?.kind == .exists)
        #expect(try await store.bytes("v1/packs/x") == [1, 2])
    }

    // MARK: - Lists

    @Test(arguments: kinds) func `a list is sorted, complete and below its prefix`(_ kind: Kind) async throws {
        let subject = try await Subject(kind)
        let store = subject.store
        let names = [
            "v1/packs/ab/2", "v1/packs/ab/1", "v1/packs/00/3", "v1/packsx/4", "v1/index/5", "v2/packs/6", "v1/packs/AB/7",
        ]
        for name in names { try await store.put(name, [1, 2]) }
        let listed = try await store.list("v1/packs/")
        #expect(listed.map(\.name) == ["v1/packs/00/3", "v1/packs/AB/7", "v1/packs/ab/1", "v1/packs/ab/2"])
        #expect(listed.allSatisfy { $0.size == 2 && abs($0.modified - Ambient.system.now()) < 600_000_000_000 })
        #expect(try await store.list("v1/nothing/").isEmpty)
        #expect(try await store.list("v1/").count == 6)
        try await store.delete("v1/packs/ab/1")
        try await store.put("v1/packs/ab/0", [])
        #expect(try await store.list("v1/packs/ab/").map { "\($0.name) \($0.size)" } == ["v1/packs/ab/0 0", "v1/packs/ab/2 2"])
    }

    @Test(arguments: kinds)
    func `names of all kinds are kept and listed`(_ kind: Kind) async throws {
        let subject = try await Subject(kind)
        let store = subject.store
        var names = [
            "a b", "a+b", "a%2Bb", "a&b=c", "a?b", "a#b", "ä日本", "a'\"b", "(a)!*", "a;b,c:d@e$", "~._-", "%", "a..b", "<&>",
            "[x]",
        ]
        if kind == .rclone { names.removeAll { $0 == "%" } }
        for name in names { try await store.put("v1/odd/\(name)", Array(name.utf8)) }
        let listed = try await store.list("v1/odd/").map(\.name)
        #expect(Set(listed) == Set(names.map { "v1/odd/\($0)" }))
        for name in names {
            #expect(try await store.bytes("v1/odd/\(name)") == Array(name.utf8), "\(name)")
            #expect(try await store.info("v1/odd/\(name)")?.size == name.utf8.count, "\(name)")
        }
        try await store.delete(all: names.map { "v1/odd/\($0)" })
        #expect(try await store.list("v1/odd/").isEmpty)
    }

    @Test(arguments: kinds.filter { $0 == .strict || $0 == .moto })
    func `a list goes over pages`(_ kind: Kind) async throws {
        let subject = try await Subject(kind, "connections=32")
        let store = subject.store
        let names = (0..<1005).map { "v1/page/\($0)" }
        try await concurrently(names) { try await store.put($0.replacing("v1/", with: "tmp/"), [], ifAbsent: false) }
        let listed = try await store.list("tmp/page/").map(\.name)
        #expect(listed == names.map { $0.replacing("v1/", with: "tmp/") }.sorted())
        try await store.delete(all: listed)
        #expect(try await store.list("tmp/page/").isEmpty)
    }

    private func concurrently(_ names: [String], _ body: @escaping @Sendable (String) async throws -> Void) async throws {
        try await withThrowingTaskGroup(of: Void.self) { group in
            for (index, name) in names.enumerated() {
                if index >= 16 { try await group.next() }
                group.addTask { try await body(name) }
            }
            try await group.waitForAll()
        }
    }

    // MARK: - Conditions

    @Test(arguments: conditional) func `a taken name is refused`(_ kind: Kind) async throws {
        let subject = try await Subject(kind)
        let store = subject.store
        try await store.put("v1/x", [1])
        #expect(await storeError { try await store.put("v1/x", [2]) }?.kind == .exists)
        // Not even with the same content: the caller decides what that means.
        #expect(await storeError { try await store.put("v1/x", [1]) }?.kind == .exists)
        #expect(try await store.bytes("v1/x") == [1])
    }

    @Test(arguments: conditional) func `of many that put one name at once exactly one succeeds`(_ kind: Kind) async throws {
        let subject = try await Subject(kind)
        let store = subject.store
        func contest() async throws {
            for round in 0..<3 {
                let winners = try await race { number in
                    try await store.put("v1/one-\(round)", [UInt8(number)])
                }
                #expect(winners.count == 1)
                #expect(try await store.bytes("v1/one-\(round)") == winners.map { UInt8($0) })
            }
        }
        guard kind == .moto else { return try await contest() }
        // moto looks and stores in two steps: now and then two are told that they won. The one that lost sees it.
        await withKnownIssue(isIntermittent: true) { try await contest() }
    }

    @Test(arguments: conditional) func `only who saw the last state replaces it`(_ kind: Kind) async throws {
        let subject = try await Subject(kind)
        let store = subject.store
        let one = try await store.replace("tmp/lease", [1], expecting: nil)
        #expect(await storeError { try await store.replace("tmp/lease", [9], expecting: nil) }?.kind == .exists)
        let fetched = try #require(try await store.fetch("tmp/lease", limit: 100))
        #expect(fetched.bytes == [1] && fetched.version == one)
        #expect(abs(fetched.modified - fetched.now) < 60_000_000_000)
        #expect(abs(fetched.now - Ambient.system.now()) < 60_000_000_000)
        let two = try await store.replace("tmp/lease", [2], expecting: one)
        #expect(two != one)
        #expect(await storeError { try await store.replace("tmp/lease", [9], expecting: one) }?.kind == .exists)
        #expect(try await store.fetch("tmp/lease", limit: 100)?.version == two)
        try await store.delete("tmp/lease")
        #expect(await storeError { try await store.replace("tmp/lease", [9], expecting: two) }?.kind == .exists)
        #expect(try await store.fetch("tmp/lease", limit: 100) == nil)
    }

    @Test(arguments: conditional) func `of twenty that swap at once exactly one wins each round`(_ kind: Kind) async throws {
        let subject = try await Subject(kind)
        let store = subject.store
        var version = try await store.replace("tmp/swap", [255], expecting: nil)
        for round in 0..<5 {
            let seen = version
            let winners = try await race { number in
                try await store.replace("tmp/swap", [UInt8(round), UInt8(number)], expecting: seen)
            }
            #expect(winners.count == 1, "round \(round)")
            let now = try #require(try await store.fetch("tmp/swap", limit: 100))
            #expect(now.bytes == [UInt8(round)] + winners.map { UInt8($0) })
            version = now.version
        }
    }

    /// The numbers of those of twenty whose `body` was not refused.
    private func race(_ body: @escaping @Sendable (Int) async throws -> Void) async throws -> [Int] {
        try await withThrowingTaskGroup(of: Int?.self) { group in
            for number in 0..<20 {
                group.addTask {
                    do {
                        try await body(number)
                        return number
                    } catch let error as StoreError where error.kind == .exists {
                        return nil
                    }
                }
            }
            return try await group.reduce(into: []) { if let number = $1 { $0.append(number) } }
        }
    }

    // MARK: - Where nothing is

    @Test(arguments: kinds.filter { $0 != .local })
    func `a bucket that is not there is told apart from an object`(_ kind: Kind) async throws {
        let bench = try await S3Bench(kind.server!, own: false)
        let store = try bench.store("retry-for=2s", bucket: "no-such-bucket")
        #expect(await storeError { _ = try await store.list("v1/") }?.kind == .noStore)
        #expect(await storeError { try await store.put("v1/a", [1]) }?.kind == .noStore)
        #expect(await storeError { _ = try await store.get("v1/a", .all, limit: 10) }?.kind == .noStore)
        #expect(await storeError { _ = try await store.fetch("v1/a", limit: 10) }?.kind == .noStore)
        #expect(await storeError { try await store.replace("tmp/a", [1], expecting: nil) }?.kind == .noStore)
    }

    @Test func `a directory that is not there is an error for who writes`() async throws {
        let directory = try TemporaryDirectory("contract")
        let store = LocalStore(path: directory("none"))
        #expect(await storeError { try await store.put("v1/a", [1]) } != nil)
        #expect(await storeError { _ = try await store.get("v1/a", .all, limit: 1) }?.kind == .notFound)
        #expect(try await store.list("v1/").isEmpty)
    }

    @Test(arguments: kinds) func `the probe finds what a store can do`(_ kind: Kind) async throws {
        let subject = try await Subject(kind)
        let probe = try await StoreProbe.run(subject.store, ambient: .prompt)
        #expect(probe.isUsable)
        try probe.requireUsable()
        var expected = [
            "readBack", "clock", "absence", "ranges", "listing", "conditionalCreate", "conditionalReplace", "removal",
        ]
        .reduce(into: [:]) { $0[$1] = "yes" }
        // It accepts the headers and writes all the same.
        if kind == .rclone { (expected["conditionalCreate"], expected["conditionalReplace"]) = ("no", "no") }
        #expect(probe.record.filter { $0.key != "probed" } == expected, "\(probe.results)")
        // Under load something was left on rclone once; why is not known.
        guard kind != .rclone else { return }
        let left = try await subject.store.list("tmp/").map(\.name).filter { $0.hasPrefix("tmp/probe-") }
        #expect(left.isEmpty, "it leaves nothing behind")
    }
}
