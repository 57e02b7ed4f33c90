import BackupBase
import Crypto
import Foundation
import ObjectStorage
import Testing

@testable import BackupRepository

/// A pack's header is read once, whoever needs it first and however that ends.
@Suite(.timeLimit(.minutes(20))) struct PackSealingTests {
    private let sealing = Sealing(
        key: SymmetricKey(size: .bits256), repository: .random(.system), kind: .pack, object: .random(.system))

    @Test func `one begins, the others wait for what it delivers`() async {
        let state = PackSealing()
        #expect(await state.arrived() == nil && state.known == nil)
        #expect(state.begin() && !state.begin())
        let waiting = (0..<8).map { _ in Task { await state.arrived() != nil } }
        for _ in 0..<20 { await Task.yield() }
        state.deliver(sealing)
        for task in waiting { #expect(await task.value) }
        #expect(state.known != nil && !state.begin())
        #expect(await state.arrived() != nil)
    }

    @Test func `where it fails the others hear of it, and the next one begins anew`() async {
        let state = PackSealing()
        #expect(state.begin())
        let waiting = (0..<8).map { _ in Task { await state.arrived() == nil } }
        for _ in 0..<20 { await Task.yield() }
        state.deliver(nil)
        for task in waiting { #expect(await task.value) }
        #expect(state.known == nil && state.begin())
        state.deliver(sealing)
        #expect(PackSealing(sealing).known != nil)
    }

    // MARK: - Through the reader

    private static let blocks: [[UInt8]] = {
        var random = Seeded(3)
        return (0..<4).map { _ in random.bytes(600 << 10) }
    }()

    /// A pack of several frames that is too large to come whole with its trailer.
    private func pack(on store: MemoryStore) async throws -> (Repository, ObjectID) {
        let repository = try await Repository.written(on: store)
        let places = try await repository.store(Self.blocks, cohort: .writtenOnce)
        #expect(Set(places.map(\.pack)).count == 1)
        return (repository.seen(), places[0].pack)
    }

    private func readAll(_ repository: Repository, _ pack: PackReader.OpenPack, _ number: Int) async throws {
        let bytes = try await repository.reader.read(number..<number + 1, of: pack)
        let frame = try repository.reader.open(number, in: bytes)
        defer { repository.reader.release(frame) }
        for (ordinal, range) in zip(frame.blocks, frame.ranges) { try repository.reader.verify(ordinal, range, of: frame) }
    }

    /// Lets calls go on in an order of the seed's until the actors end.
    private func drive(_ turns: Turns, _ seed: Int) async {
        var random = Seeded(seed)
        while let actor = await turns.waiting().keys.sorted().randomElement(using: &random) { turns.step(actor) }
    }

    @Test func `reads that begin with the first frame make no request for the header`() async throws {
        let store = MemoryStore()
        let (repository, id) = try await pack(on: store)
        let pack = try await repository.reader.pack(id)
        #expect(pack.trailer.frames.count == 4)
        store.restart()
        for number in 0..<4 { try await readAll(repository, pack, number) }
        #expect(store.calls.count == 4)
    }

    @Test func `concurrent readers of a pack read its header at most once`() async throws {
        let store = MemoryStore()
        let (repository, id) = try await pack(on: store)
        for _ in 0..<8 {
            let fresh = repository.seen()
            let pack = try await fresh.reader.pack(id)
            store.restart()
            try await withThrowingTaskGroup(of: Void.self) { group in
                group.addTask { try await self.readAll(fresh, pack, 0) }
                // These wait for the first, or, where they come before it, look for themselves.
                for number in 1..<4 { group.addTask { try await self.readAll(fresh, pack, number) } }
                try await group.waitForAll()
            }
            #expect(store.calls.count >= 4 && store.calls.count <= 7)
        }
        // The first one under way: nobody else asks.
        let fresh = repository.seen(on: Slow(store))
        let pack = try await fresh.reader.pack(id)
        let slow = try #require(fresh.store as? Slow)
        slow.hold()
        store.restart()
        let first = Task { try await readAll(fresh, pack, 0) }
        #expect(await eventually { slow.held == 1 })
        let others = (1..<4).map { number in Task { try await readAll(fresh, pack, number) } }
        #expect(await eventually { slow.held == 4 })
        slow.letGo()
        try await first.value
        for task in others { try await task.value }
        #expect(store.calls.count == 4)
    }

    @Test(arguments: ["fails", "is cancelled", "finds damage"])
    func `a first read that ends badly leaves the others going`(_ how: String) async throws {
        let store = MemoryStore()
        let (repository, id) = try await pack(on: store)
        let slow = Slow(store)
        let fresh = repository.seen(on: slow)
        let pack = try await fresh.reader.pack(id)
        slow.hold()
        let first = Task { try await readAll(fresh, pack, 0) }
        #expect(await eventually { slow.held == 1 })
        let others = (1..<4).map { number in Task { try await readAll(fresh, pack, number) } }
        #expect(await eventually { slow.held == 4 })
        switch how {
        case "fails": slow.letGo(failing: true)
        case "is cancelled":
            first.cancel()
            slow.letGo()
        default:
            store.damage(FinishedPack.name(id)) { $0[40] ^= 1 }
            slow.letGo()
        }
        let result = await first.result
        #expect(throws: (any Error).self) { try result.get() }
        for task in others {
            let result = await task.result
            if how == "finds damage" {
                #expect { try result.get() } throws: { ($0 as? BackupError)?.code == .damaged }
            } else {
                #expect(throws: Never.self) { try result.get() }
            }
        }
        if how != "finds damage" { try await readAll(fresh, pack, 0) }
    }

    // MARK: - Prefetch

    @Test func `prefetching passes over what fails, and stops where it is cancelled`() async throws {
        let store = MemoryStore()
        let repository = try await Repository.written(on: store)
        var packs: [ObjectID] = []
        for number in 0..<3 as Range<UInt8> { packs.append(try await repository.store([[number]])[0].pack) }
        store.damage(FinishedPack.name(packs[0])) { $0[$0.count - 1] ^= 1 }
        store.remove(FinishedPack.name(packs[1]))
        let fresh = repository.seen()
        try await fresh.reader.prefetch(packs + [.random(.system)], on: TestRepository.executor)
        store.restart()
        _ = try await fresh.reader.pack(packs[2])
        #expect(store.calls.isEmpty)
        #expect(await code { _ = try await fresh.reader.pack(packs[0]) } == .damaged)
        #expect(await code { _ = try await fresh.reader.pack(packs[1]) } == .damaged)

        let slow = Slow(store)
        let late = repository.seen(on: slow)
        slow.hold()
        let run = Task { [packs] in try await late.reader.prefetch(packs, on: TestRepository.executor) }
        #expect(await eventually { slow.held == 3 })
        run.cancel()
        slow.letGo()
        await #expect(throws: CancellationError.self) { try await run.value }
        // One pack is no reason to look ahead.
        store.restart()
        try await repository.seen().reader.prefetch([packs[2]], on: TestRepository.executor)
        #expect(store.calls.isEmpty)
    }
}

/// Keeps reads waiting until they are let go.
private final class Slow: ObjectStore {
    private struct State {
        var holds = false
        var fails = false
        var waiting: [CheckedContinuation<Void, Never>] = []
        var firstFails = false
    }
    private let base: MemoryStore
    private let state = Locked(State())

    init(_ base: MemoryStore) { self.base = base }

    var location: String { base.location }
    var parallelPuts: Int { 1 }
    var held: Int { state.withLock { $0.waiting.count } }
    func hold() { state.withLock { $0.holds = true } }

    /// - Parameter failing: the read that was held first fails
    func letGo(failing: Bool = false) {
        let waiting = state.withLock { state in
            state.holds = false
            state.firstFails = failing
            defer { state.waiting = [] }
            return state.waiting
        }
        for continuation in waiting { continuation.resume() }
    }

    func get(_ name: String, _ range: ByteRange, limit: Int) async throws -> ObjectBytes {
        let number = Locked(-1)
        await withCheckedContinuation { continuation in
            let goesOn = state.withLock { state in
                guard state.holds else { return true }
                number.withLock { $0 = state.waiting.count }
                state.waiting.append(continuation)
                return false
            }
            if goesOn { continuation.resume() }
        }
        if number.withLock({ $0 }) == 0, state.withLock({ $0.firstFails }) { throw StoreError(.unreachable, "read", name) }
        return try await base.get(name, range, limit: limit)
    }

    func put(_ name: String, _ content: AlignedBuffer, ifAbsent: Bool) async throws {
        try await base.put(name, content, ifAbsent: ifAbsent)
    }
    func info(_ name: String) async throws -> ObjectInfo? { try await base.info(name) }
    func list(_ prefix: String) async throws -> [ObjectInfo] { try await base.list(prefix) }
    func delete(_ name: String) async throws { try await base.delete(name) }
    func fetch(_ name: String, limit: Int) async throws -> VersionedObject? { try await base.fetch(name, limit: limit) }
    func replace(_ name: String, _ content: [UInt8], expecting version: String?) async throws -> String {
        try await base.replace(name, content, expecting: version)
    }
}
