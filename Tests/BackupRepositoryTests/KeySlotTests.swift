import BackupBase
import ObjectStorage
import Testing

@testable import BackupRepository

/// Passwords come and go; at each moment one opens.
@Suite(CheapPasswords()) struct KeySlotTests {
    private let store = MemoryStore()
    private let repository: Repository
    private static let old = Array("old".utf8)
    private static let new = Array("new".utf8)

    init() async throws {
        _ = try await Repository.create(
            store: store, password: Self.old, label: "first", by: "me@here", probe: [:], executor: TestRepository.executor,
            ambient: store.ambient())
        repository = try await Self.open(store, Self.old)
        try await repository.snapshot(1, [[UInt8](repeating: 1, count: 4096)])
    }

    private static func open(_ store: MemoryStore, _ password: [UInt8]) async throws -> Repository {
        try await Repository.open(store: store, password: password, executor: TestRepository.executor, ambient: store.ambient())
    }

    private func opens(_ store: MemoryStore, _ password: [UInt8]) async -> Bool {
        guard let found = try? await Self.open(store, password) else { return false }
        return found.keys.secrets == repository.keys.secrets
    }

    @Test func `a slot says who made it, what opened the repository and how long it is locked`() async throws {
        let id = try await repository.addKeySlot(password: Self.new, label: "second", by: "you@there")
        let slots = try await repository.keySlots()
        let first = try #require(slots.first { $0.label == "first" })
        let second = try #require(slots.first { $0.id == id })
        #expect(first.isInUse && first.by == "me@here" && first.kind == "password" && first.generation == 1)
        #expect(!second.isInUse && second.by == "you@there" && second.label == "second" && second.lockedUntil == nil)
        #expect(try await Self.open(store, Self.new).keySlots().first { $0.isInUse }?.id == id)
        let locked = MemoryStore(MemoryStore.Rules(lockDuration: 86_400_000_000_000))
        _ = try await Repository.create(
            store: locked, password: Self.old, label: "", probe: [:], executor: TestRepository.executor, ambient: locked.ambient()
        )
        let until = try #require(try await Self.open(locked, Self.old).keySlots().first?.lockedUntil)
        #expect(until > locked.now + 86_000_000_000_000)
    }

    @Test func `the last slot stays, and the one in use goes with force only`() async throws {
        let own = try #require(repository.slot)
        #expect(await code { try await repository.removeKeySlot(own, force: true) } == .usage)
        let id = try await repository.addKeySlot(password: Self.new, label: "")
        #expect(await code { try await repository.removeKeySlot(own) } == .usage)
        #expect(await code { try await repository.removeKeySlot("") } == .usage)
        #expect(await opens(store, Self.old))
        try await repository.removeKeySlot(own, force: true)
        #expect(await !opens(store, Self.old))
        #expect(await opens(store, Self.new))
        #expect(try await Self.open(store, Self.new).keySlots().map(\.id) == [id])
    }

    @Test func `a locked slot stays and says until when`() async throws {
        let id = try await repository.addKeySlot(password: Self.new, label: "")
        for name in KeySlot.names(id) { store.setLock(name, store.now + 1_000_000_000_000) }
        let error = await failure { try await repository.removeKeySlot(id) } as? BackupError
        #expect(error?.code == .immutable && error?.message.contains(formatTime(store.now + 1_000_000_000_000)) == true)
        #expect(await opens(store, Self.new))
        // Changing a password whose slot is locked adds the new one and says that the old one opens on.
        for name in KeySlot.names(repository.slot!) { store.setLock(name, store.now + 1_000_000_000_000) }
        let third = Array("third".utf8)
        #expect(
            await code { _ = try await repository.changePassword(from: Self.old, to: third, label: nil, by: nil) } == .immutable)
        #expect(await opens(store, third))
        #expect(await opens(store, Self.old))
    }

    @Test func `a slot that the store gives back otherwise is not said to be there`() async throws {
        let store = store
        for suffix in [".a", ".b"] {
            let view = store.another()
            view.onCall { call in
                guard call.operation == "get", call.name.hasSuffix(suffix) else { return }
                store.damage(call.name) { $0[40] ^= 1 }
            }
            let error = await failure { _ = try await repository.seen(on: view).addKeySlot(password: Self.new, label: "") }
            #expect((error as? BackupError)?.code == .storeFailed)
        }
    }

    @Test(arguments: MemoryStore.Moment.allCases)
    func `a change of the password that is killed at any store call leaves one that opens`(_ moment: MemoryStore.Moment)
        async throws
    {
        let full = store.copy()
        let whole = try await Self.open(full, Self.old)
        full.restart()
        _ = try await whole.changePassword(from: Self.old, to: Self.new, label: nil, by: nil)
        #expect(await opens(full, Self.new))
        #expect(await !opens(full, Self.old))
        #expect(try await Self.open(full, Self.new).keySlots().map(\.label) == ["first"])
        let calls = full.calls.count
        #expect(calls > 10)
        for number in 1...calls {
            for dies in [true, false] {
                let store = store.copy()
                let repository = try await Self.open(store, Self.old)
                store.fail(at: number, moment, dies: dies, with: StoreError(.full, "write", "x"))
                _ = try? await repository.changePassword(from: Self.old, to: Self.new, label: nil, by: nil)
                store.restart()
                let (old, new) = (await opens(store, Self.old), await opens(store, Self.new))
                #expect(old || new, "call \(number)")
                let owner = try await Self.open(store, new ? Self.new : Self.old)
                #expect(try await owner.snapshotNames().count == 1)
                // Whoever was killed may have held the lease.
                store.advance(200)
                _ = try await owner.repairCopies(dryRun: false)
                // Run again as it was, where the old one opens, it leaves one slot, which nothing else opens.
                let last = Array("last".utf8)
                if old {
                    _ = try await Self.open(store, Self.old).changePassword(from: Self.old, to: Self.new, label: nil, by: nil)
                }
                #expect(try await Self.open(store, Self.new).keySlots().count == 1, "call \(number)")
                _ = try await Self.open(store, Self.new).changePassword(from: Self.new, to: last, label: nil, by: nil)
                #expect(await opens(store, last))
                for gone in [Self.old, Self.new] { #expect(await !opens(store, gone), "call \(number)") }
                #expect(try await !Self.open(store, last).check().isDamaged)
            }
        }
    }
}
