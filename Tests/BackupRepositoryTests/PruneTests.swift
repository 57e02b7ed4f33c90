import BackupBase
import ObjectStorage
import Testing

@testable import BackupRepository

/// What a prune does call by call; what happens in other orders is for the simulator.
@Suite struct PruneTests {
    private let store = MemoryStore()
    private let repository: Repository
    private static let old = (0..<3).map { [UInt8](repeating: UInt8($0 + 1), count: 4096) }
    private static let kept = (0..<3).map { [UInt8](repeating: UInt8($0 + 101), count: 4096) }

    /// Two snapshots, of which one is forgotten. They share a chunk of their manifests: of four packs one can go.
    init() async throws {
        repository = try await Repository.written(on: store, ambient: store.ambient())
        let first = try await repository.snapshot(1, Self.old)
        try await repository.snapshot(2, Self.kept)
        try await store.delete(first.object)
        store.advance(100)
    }

    private func options(grace: Double = 0, dryRun: Bool = false) -> Prune.Options {
        var options = Prune.Options()
        options.grace = grace
        options.dryRun = dryRun
        return options
    }

    @discardableResult
    private func prune(_ repository: Repository? = nil, grace: Double = 0, dryRun: Bool = false) async throws -> PrunePlan {
        try await Prune.run(repository ?? self.repository, options(grace: grace, dryRun: dryRun)) { _, _, _ in }
    }

    private var packs: Int { store.names("v1/packs/").count }

    // MARK: - What it does

    @Test func `the plan says what the run then does`() async throws {
        let before = store.names
        let plan = try await prune(dryRun: true)
        #expect(store.names == before)
        let done = try await prune()
        #expect(plan.free == done.free && done.free.packs == 1 && done.free.bytes > 3 * 50)
        #expect(plan.indexesRewritten + plan.indexesRemoved == done.indexesRewritten + done.indexesRemoved)
        #expect(done.stored.packs == 4 && done.needed.packs == 3 && packs == 3 && done.snapshots == 1)
        #expect(store.names("v1/notes/").count == 1 && store.names("tmp/intent-").isEmpty && store.names("tmp/clock-").isEmpty)
        try await prune()
        #expect(store.names("v1/notes/").isEmpty)
        let report = try await repository.seen(on: store).check()
        #expect(!report.isDamaged && report.findings.isEmpty, "\(report.findings)")
    }

    @Test func `packs in no index go as well, and parts of packs are counted`() async throws {
        for name in store.names("v1/index/") { store.remove(name) }
        let plan = try await prune(dryRun: true)
        #expect(plan.unindexed == 4 && plan.free.packs == 1)
        #expect(try await prune().free.packs == 1)
        // Two blocks in one pack, of which only one is needed.
        let both = [[UInt8](repeating: 7, count: 4096), [UInt8](repeating: 8, count: 4096)]
        let first = try await repository.snapshot(3, both)
        try await repository.snapshot(4, [both[0]])
        try await store.delete(first.object)
        let waste = try await prune(dryRun: true)
        #expect(waste.partlyUsed == 2 && waste.wasted > 10)
    }

    @Test func `the grace counts from the tombstone, by the store's clock`() async throws {
        store.advance(200)
        let ahead = repository.seen(ambient: store.ambient(offset: 86_400 * 30))
        #expect(try await prune(ahead, grace: 1000).young.packs == 1)
        store.advance(1000)
        let marked = try await prune(ahead, grace: 1000)
        #expect(marked.later.packs == 1 && marked.free.packs == 0 && marked.laterFrom.map { $0 > store.now } == true)
        store.advance(990)
        #expect(try await prune(ahead, grace: 1000).free.packs == 0)
        store.advance(20)
        #expect(try await prune(grace: 1000).free.packs == 1)
    }

    // MARK: - Runs beside it

    @Test func `a writer that began before holds it up; one that began after does not use the packs`() async throws {
        try await repository.withWriter(cache: nil, journal: nil, width: 1, renewing: nil) { _ in
            store.advance(100)
            let plan = try await prune()
            #expect(plan.free.packs == 0 && plan.held.packs == 1 && plan.waitingFor.count == 1)
            #expect(try await prune(dryRun: true).held.packs == 1)
        }
        let doomed = Set(try await repository.storedPacks().keys)
        try await repository.withWriter(cache: nil, journal: nil, width: 1, renewing: nil) { writer in
            #expect(doomed.count { writer.mayUse(pack: $0) } == 3)
            let plan = try await prune()
            #expect(plan.free.packs == 1)
        }
        let again = try await repository.snapshot(3, Self.old)
        for _ in 0..<2 { try await prune() }
        let needed = try await repository.packs(of: repository.snapshot(again))
        #expect(needed.isSubset(of: try await repository.storedPacks().keys) && packs == 5)
    }

    @Test func `a writer that is silent for an hour is given up, and commits nothing`() async throws {
        let error = await failure {
            try await repository.withWriter(cache: nil, journal: nil, width: 1, renewing: nil) { writer in
                store.advance(Intent.life - 10)
                #expect(try await prune().givenUp.isEmpty)
                store.advance(20)
                #expect(try await prune().givenUp.count == 1)
                #expect((await failure { try await writer.intent.renew() } as? BackupError)?.code == .busy)
                _ = try await writer.commit(repository.record(3), manifest: Extents())
            }
        }
        #expect((error as? BackupError)?.code == .busy)
        #expect(store.names("v1/snapshots/").count == 1 && store.names("tmp/intent-").isEmpty)
    }

    @Test func `renewed intents live on`() async throws {
        try await repository.withWriter(cache: nil, journal: nil, width: 1, renewing: nil) { writer in
            for _ in 0..<5 {
                store.advance(Intent.life * 0.9)
                try await writer.intent.renew()
                // The first one, and the last.
                #expect(store.names("tmp/intent-").count == 2)
                let plan = try await prune()
                #expect(plan.givenUp.isEmpty && plan.free.packs == 0)
            }
        }
    }

    @Test(arguments: [true, false])
    func `a writer that stands still while it commits takes its snapshot back`(_ mayDelete: Bool) async throws {
        let view = store.another()
        let node = repository.seen(on: view)
        let store = store
        let error = await failure {
            try await node.withWriter(cache: nil, journal: nil, width: 1, renewing: nil) { writer in
                view.onCall { call in
                    guard call.operation == "put", call.name.hasPrefix("v1/snapshots/") else { return }
                    // What a prune does with a run that is silent for so long.
                    store.advance(Intent.life + 1)
                    for name in store.names("tmp/intent-") { store.remove(name) }
                    guard !mayDelete else { return }
                    view.fail(at: 2, .before, with: StoreError(.denied, "delete", "snapshot"))
                }
                _ = try await writer.commit(node.record(3), manifest: Extents())
            }
        }
        let failure = try #require(error as? BackupError)
        #expect(failure.code == .busy && failure.message.contains(mayDelete ? "given up" : "may not take it back"))
        #expect(store.names("v1/snapshots/").count == (mayDelete ? 1 : 2))
    }

    @Test func `a run that renewed while a prune was marking for hours is not given up`() async throws {
        let node = repository.seen()
        try await node.withIntent(.writer, pause: nil) { intent in
            let view = store.another()
            let (store, done) = (store, Locked(false))
            view.onCall { call in
                guard call.operation == "get", call.name.hasPrefix("v1/snapshots/"), !done.withLock({ $0 }) else { return }
                done.withLock { $0 = true }
                store.advance(3 * Intent.life)
                // Everybody renews.
                for name in store.names(Intent.prefix) { store.set(name, store.bytes(name)!) }
            }
            let plan = try await prune(repository.seen(on: view, ambient: store.ambient()))
            view.onCall(nil)
            #expect(done.withLock { $0 } && plan.givenUp.isEmpty)
            try await intent.confirm()
        }
    }

    // MARK: - Stops

    @Test(arguments: MemoryStore.Moment.allCases)
    func `killed at any call it wastes space only, and the next run goes on`(_ moment: MemoryStore.Moment) async throws {
        let whole = store.copy()
        try await prune(repository.seen(on: whole, ambient: whole.ambient()))
        let count = whole.calls.count
        #expect(count > 20)
        for number in 1...count {
            let memory = store.copy()
            let view = memory.another()
            view.fail(at: number, moment, dies: true)
            _ = await failure { try await prune(repository.seen(on: view, ambient: memory.ambient())) }
            memory.advance(Intent.life + 1)
            let next = repository.seen(on: memory, ambient: memory.ambient())
            #expect(try await !next.check().isDamaged, "call \(number)")
            for _ in 0..<2 { try await prune(next) }
            #expect(memory.names("v1/packs/").count == 3 && memory.names("v1/notes/").isEmpty, "call \(number)")
            #expect(try await !repository.seen(on: memory).check().isDamaged, "call \(number)")
        }
    }

    @Test func `what cannot be read ends the run, and nothing goes`() async throws {
        let snapshot = store.names("v1/snapshots/")[0]
        let good = store.bytes(snapshot)!
        store.damage(snapshot) { $0[80] ^= 1 }
        #expect(await code { try await prune() } == .damaged && packs == 4)
        store.set(snapshot, good)
        store.set("v1/notes/revival/\(String(repeating: "0", count: 32))", [1])
        #expect(await code { try await prune() } == .damaged && packs == 4)
        #expect(await code { try await prune(repository.seen(keys: repository.keys.writer)) } == .writeOnlyKey)
    }

    @Test func `a pack that was lost is stored again by the next backup that meets its blocks`() async throws {
        for name in store.names("v1/packs/") { store.remove(name) }
        let again = try await repository.snapshot(3, Self.kept)
        let needed = try await repository.packs(of: repository.snapshot(again))
        #expect(needed.isSubset(of: try await repository.storedPacks().keys))
    }

    // MARK: - Locks

    @Test func `what is locked stays marked and is told`() async throws {
        let locked = MemoryStore(MemoryStore.Rules(lockDuration: 86_400_000_000_000))
        let repository = try await Repository.written(on: locked, ambient: locked.ambient())
        let first = try await repository.snapshot(1, Self.old)
        try await repository.snapshot(2, Self.kept)
        locked.remove(first.object)
        locked.advance(100)
        #expect(await code { try await prune(repository) } == .immutable)
        #expect(locked.names("v1/packs/").count == 4 && locked.names("v1/notes/").count == 1)
        let plan = try await prune(repository, dryRun: true)
        #expect(plan.locked.packs == 1 && plan.free.packs == 0 && plan.lockedUntil.map { $0 > locked.now } == true)
        locked.advance(86_400)
        #expect(try await prune(repository).free.packs == 1)
        #expect(try await !repository.seen(on: locked).check().isDamaged)
    }
}
