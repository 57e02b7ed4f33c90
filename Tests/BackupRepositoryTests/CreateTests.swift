import BackupBase
import Foundation
import ObjectStorage
import Testing

@testable import BackupRepository

/// Making a repository: two at once, stopped at any call, on stores that keep less than they say.
@Suite(.timeLimit(.minutes(20)), CheapPasswords()) struct CreateTests {
    private static let conditional = ["conditionalCreate": "yes", "conditionalReplace": "yes"]

    @discardableResult
    private func create(
        _ store: MemoryStore, _ password: String = "p", probe: [String: String] = conditional, identity: WriterIdentity? = nil
    ) async throws -> Repository {
        try await Repository.create(
            store: store, password: Array(password.utf8), label: "l", probe: probe, executor: TestRepository.executor,
            ambient: store.ambient(), identity: identity)
    }

    /// As `create` does it, but that nothing renews the lease meanwhile: that goes by this machine's clock.
    private func createByTurns(_ store: MemoryStore, _ password: String) async throws -> Repository {
        try await Repository.withLease("init", on: store, holder: password, ambient: store.ambient(), pause: 1e6) { lease in
            try await Repository.createAlone(
                store, Array(password.utf8), "l", nil, Self.conditional, TestRepository.executor, store.ambient(), nil
            ) { try await lease.confirm() }
        }
    }

    private func open(_ store: MemoryStore, _ password: String = "p") async throws -> Repository {
        try await Repository.open(store: store, password: Array(password.utf8), executor: TestRepository.executor)
    }

    /// Kept small: each init and each opening stretches a password.
    @Test(arguments: ["", "info", "list", "put"])
    func `of two at once one makes it, and its password opens it`(_ operation: String) async throws {
        let store = MemoryStore()
        let results = try await Turns.alone { await race(store, standingStillAt: operation) }
        let winners = results.filter { (try? $0.value.get()) != nil }
        #expect(winners.count == 1, "\(results)")
        for (actor, result) in results where winners[actor] == nil {
            let error = #expect(throws: BackupError.self) { try result.get() }
            #expect(error?.code == .busy || error?.code == .repositoryExists, "\(result)")
        }
        let winner = try #require(winners.keys.first)
        #expect(try await open(store, "p\(winner)").id == results[winner]!.get().id)
    }

    /// Two inits in turns. The first one stands still at such a call until the other one has begun
    /// and ended, for so long that its lease runs out: anywhere but between a confirmation and the
    /// step that it is for. Without such a call the two go on by chance.
    private func race(
        _ store: MemoryStore, standingStillAt operation: String
    ) async -> [Int: Result<Repository, any Error>] {
        let turns = Turns(actors: 2)
        var random = Seeded(1)
        let made = Locked([Int: Result<Repository, any Error>]())
        await withTaskGroup(of: Void.self) { group in
            for actor in 0..<2 {
                let view = store.another(turns: turns, actor: actor)
                group.addTask {
                    let result: Result<Repository, any Error>
                    do { result = .success(try await createByTurns(view, "p\(actor)")) } catch { result = .failure(error) }
                    made.withLock { $0[actor] = result }
                    turns.finish(actor)
                }
            }
            var isAsleep = false
            while true {
                let waiting = await turns.waiting()
                guard let any = waiting.keys.sorted().randomElement(using: &random) else { break }
                if !isAsleep, let call = waiting[0], call.operation == operation,
                    operation != "put" || call.name.hasPrefix("v1/keys/")
                {
                    isAsleep = true
                    store.advance(Lease.duration + 1)
                }
                let first = isAsleep ? 1 : 0
                turns.step(operation.isEmpty ? any : waiting[first] != nil ? first : 1 - first)
            }
        }
        return made.withLock { $0 }
    }

    @Test func `killed at any call and repeated, it opens`() async throws {
        // Between two calls that change something nothing changes: each state in which
        // it can be left is the one before the first of them, or after one.
        let whole = MemoryStore()
        try await create(whole)
        // Each step that another init could suffer from is asked for first.
        for (before, step) in zip(whole.calls, whole.calls.dropFirst()) where step.changes && step.name.hasPrefix("v1/config") {
            #expect(before == MemoryStore.Call(operation: "fetch", name: Lease.objectName("init")))
        }
        let changes = whole.calls.indices.filter { whole.calls[$0].changes }
        #expect(changes.count >= 6)
        for number in changes {
            let store = MemoryStore()
            let view = store.another()
            view.fail(at: number + 1, .after, dies: true)
            let stopped = await failure { try await create(view) }
            // A lease that could not be given back is no reason to say that it failed.
            #expect(stopped is MemoryStore.Stopped || store.bytes("v1/config.b") != nil, "call \(number)")
            store.advance(Lease.duration + 1)
            let repository: Repository
            do {
                repository = try await create(store)
            } catch let error as BackupError where error.code == .repositoryExists {
                repository = try await open(store)
            }
            // Only the one whose configuration it is left keys.
            #expect(store.names("v1/keys/").count == 2, "call \(number)")
            try await repository.withWriter(cache: nil, width: 1) { _ in }
            #expect(Configuration.names.allSatisfy { store.bytes($0) != nil })
        }
        // Any other error of the store leaves the way free at once.
        for number in 1...whole.calls.count {
            let store = MemoryStore()
            let view = store.another()
            view.fail(at: number, .before, with: StoreError(.unreachable, "ask", "memory"))
            guard await failure({ try await create(view) }) != nil else { continue }
            let lease = store.bytes(Lease.objectName("init")).flatMap { Lease.State.read($0) }
            let isLast = number == whole.calls.count
            #expect(isLast || lease?.released != false, "call \(number)")
        }
    }

    @Test func `keys that an init left behind go, and locked ones do not stop the next`() async throws {
        let store = MemoryStore()
        store.set("v1/keys/0011223344556677.a", [1])
        store.set("v1/keys/0011223344556677.b", [1], lockedUntil: .max)
        try await create(store)
        #expect(store.bytes("v1/keys/0011223344556677.a") == nil && store.bytes("v1/keys/0011223344556677.b") != nil)
        _ = try await open(store)
    }

    @Test func `a store that accepts locks and keeps none is refused`() async throws {
        let day: Int64 = 86_400_000_000_000
        #expect(
            await code { try await create(MemoryStore(MemoryStore.Rules(lockDuration: 30 * day, dropsLocks: true))) }
                == .storeFailed)
        try await create(MemoryStore(MemoryStore.Rules(lockDuration: 30 * day)))
    }

    @Test func `an existing repository is left alone`() async throws {
        let store = MemoryStore()
        let repository = try await Repository.written(on: store)
        for missing in Configuration.names {
            let bytes = try #require(store.bytes(missing))
            store.remove(missing)
            let before = store.copy()
            #expect(await code { try await create(store) } == .repositoryExists)
            #expect(store.names("v1/") == before.names("v1/"))
            store.set(missing, bytes)
        }
        #expect(repository.isShared)
    }

    // MARK: - What is known about the store

    @Test func `recording another probe keeps one whole configuration at each moment`() async throws {
        let probe = ["conditionalCreate": "no", "probed": "now"]
        for moment in MemoryStore.Moment.allCases {
            for number in 1...40 {
                let store = MemoryStore()
                let repository = try await Repository.written(on: store)
                let view = store.another()
                view.fail(at: number, moment, dies: true)
                let stopped = await failure { _ = try await repository.seen(on: view).record(probe: probe) }
                #expect(number < 40 || stopped == nil)
                #expect(number > 8 || stopped != nil)
                for name in Configuration.names {
                    let found = try UnverifiedConfiguration(parsing: try #require(store.bytes(name)))
                    #expect(found.isGenuine(repository.keys))
                }
                let opened = try await Repository.open(
                    store: store, writer: repository.keys.writer, executor: TestRepository.executor)
                if stopped == nil { #expect(opened.configuration.probe == probe && !opened.isShared) }
            }
        }
    }

    @Test func `only a probe that says something else is recorded, and only with the owner's keys`() async throws {
        let store = MemoryStore()
        let repository = try await Repository.written(on: store, probe: ["ranges": "yes", "probed": "then"])
        store.restart()
        #expect(try await !repository.record(probe: ["ranges": "yes", "probed": "now"]))
        #expect(try await !repository.seen(keys: repository.keys.writer).record(probe: ["ranges": "no"]))
        #expect(store.calls.isEmpty)
        #expect(try await repository.record(probe: ["ranges": "no", "probed": "now"]))
        #expect(store.bytes("v1/config.a") == store.bytes("v1/config.b"))
    }
}
