import BackupBase
import Foundation
import ObjectStorage
import TestSupport
import Testing

@testable import BackupRepository

/// Opening and listing, in as few round trips as there can be.
@Suite(CheapPasswords()) struct RoundTripTests {
    private struct Held: Codable, Sendable { var snapshot: String }

    private let store = MemoryStore()
    private let cache: TemporaryDirectory
    private static let password = Array("password".utf8)
    private static let other = Array("other".utf8)
    private static let topics = [NoteTopic("hold"), NoteTopic("drill")]

    init() async throws {
        cache = try TemporaryDirectory("rounds")
        _ = try await Repository.create(
            store: store, password: Self.password, label: "", probe: [:], executor: TestRepository.executor,
            ambient: store.ambient())
        let repository = try await open()
        _ = try await repository.addKeySlot(password: Self.other, label: "")
        for number in 1...3 {
            let name = try await repository.snapshot(UInt64(number), [[UInt8](repeating: UInt8(number), count: 4096)])
            try await repository.put(note: Held(snapshot: "\(name.id)"), Self.topics[number % 2])
        }
    }

    private func open(_ store: (any ObjectStore)? = nil, _ password: [UInt8] = password) async throws -> Repository {
        try await Repository.open(
            store: store ?? self.store, password: password, executor: TestRepository.executor, ambient: self.store.ambient(),
            cache: cache.path)
    }

    /// How many snapshots and notes a list shows.
    private func list(_ store: any ObjectStore) async throws -> (snapshots: Int, notes: Int) {
        let (repository, listing) = try await Repository.openWithListing(
            store: store, password: Self.password, executor: TestRepository.executor, ambient: self.store.ambient(),
            cache: cache.path)
        async let first = repository.notes(Self.topics[0], of: Held.self, listing: listing, cache: cache.path)
        async let second = repository.notes(Self.topics[1], of: Held.self, listing: listing, cache: cache.path)
        var snapshots = 0
        try await SnapshotList(repository, cache: cache.path, listing: listing).forEach { _, result in
            _ = try result.get()
            snapshots += 1
        }
        return (snapshots, try await first.count + second.count)
    }

    private func gets(_ prefix: String) -> Set<String> { Set(store.names(prefix).map { "get \($0)" }) }

    private var beginning: Set<String> {
        ["get v1/config.a", "get v1/config.b", "list v1/keys/", "list v1/snapshots/", "list v1/notes/"]
    }

    @Test func `a list takes two round trips where the cache is warm, and three where it is cold`() async throws {
        let cold = RoundStore(store, rounds: [beginning, gets("v1/keys/"), gets("v1/snapshots/").union(gets("v1/notes/"))])
        #expect(try await list(cold) == (3, 3) && cold.left.isEmpty)
        let warm = RoundStore(store, rounds: [beginning, gets("v1/keys/")])
        #expect(try await list(warm) == (3, 3) && warm.left.isEmpty)
    }

    @Test func `after a rotation the closing is one more, whatever there is to list`() async throws {
        for _ in 0..<2 {
            let owner = try await open()
            _ = try await KeyRotation.run(
                owner, [KeyRotation.Password(Self.password), KeyRotation.Password(Self.other)], by: "me@here", force: false,
                dryRun: false)
            try await open().snapshot(UInt64(9 + store.names("v1/pairs/").count), [[UInt8](repeating: 9, count: 4096)])
        }
        #expect(store.names("v1/pairs/").count == 4)
        #expect(try await list(store) == (5, 3))
        let rounds = RoundStore(store, rounds: [beginning, gets("v1/keys/"), gets("v1/pairs/")])
        #expect(try await list(rounds) == (5, 3) && rounds.left.isEmpty)
        // Without the first copies the second ones do.
        for generation in 1...2 { store.remove(PairClosing.names(generation)[0]) }
        #expect(try await list(store) == (5, 3))
    }

    @Test func `opening takes two, and with a writer key one`() async throws {
        let opening: Set<String> = ["get v1/config.a", "get v1/config.b", "list v1/keys/"]
        let rounds = RoundStore(store, rounds: [opening, gets("v1/keys/")])
        let owner = try await open(rounds)
        let writer = RoundStore(store, rounds: [["get v1/config.a", "get v1/config.b"]])
        _ = try await Repository.open(store: writer, writer: owner.keys.writer, executor: TestRepository.executor)
        #expect(rounds.left.isEmpty && writer.left.isEmpty)
    }

    @Test func `the slot that opened last is tried first, and a wrong memory of it does nothing`() async throws {
        let id = try await open().id
        // Two slots open with this password.
        let slots = [try #require(try await open().slot), try await open().addKeySlot(password: Self.password, label: "")]
        let memory = cache("\(id)/slot")
        for slot in slots + [slots[0]] {
            try Data(slot.utf8).write(to: URL(filePath: memory))
            #expect(try await open().slot == slot)
        }
        for wrong in ["", "0000000000000000", "x", String(repeating: "a", count: 1000)] {
            try Data(wrong.utf8).write(to: URL(filePath: memory))
            let slot = try await open().slot
            #expect(slots.contains(slot ?? ""))
            #expect(try String(contentsOfFile: memory, encoding: .utf8) == slot)
        }
        #expect(try await open(store, Self.other).id == id)
        #expect(await code { _ = try await open(store, [1]) } == .wrongPassword)
    }

    @Test func `slots that were listed just before a rotation are listed again`() async throws {
        let before = store.names("v1/keys/").map { ($0, store.bytes($0)!) }
        let owner = try await open()
        _ = try await KeyRotation.run(
            owner, [KeyRotation.Password(Self.password), KeyRotation.Password(Self.other)], by: "me@here", force: false,
            dryRun: false)
        let new = store.names("v1/keys/").map { ($0, store.bytes($0)!) }
        // As it is before the old slots go; the new ones come once the configuration was read.
        for (name, bytes) in before { store.set(name, bytes) }
        for (name, _) in new { store.remove(name) }
        store.onCall { [store] call in
            guard call.operation == "get", call.name.hasPrefix("v1/keys/") else { return }
            for (name, bytes) in new where store.bytes(name) == nil { store.set(name, bytes) }
        }
        let opened = try await open()
        #expect(opened.keys.generation == 2 && !opened.isOutdated)
    }
}
