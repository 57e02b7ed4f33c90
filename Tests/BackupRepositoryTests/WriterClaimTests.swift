import BackupBase
import Foundation
import ObjectStorage
import TestSupport
import Testing

@testable import BackupRepository

/// One node to one prefix, where the store's conditions do not hold.
@Suite(.timeLimit(.minutes(20))) struct WriterClaimTests {
    private static let unconditional = ["conditionalCreate": "no", "conditionalReplace": "no"]
    private let store = MemoryStore(MemoryStore.Rules(ignoresConditions: true))
    private let keys = KeyRing.generate(repository: .random(.system))

    private func identity(_ node: String, lock: String? = nil) -> WriterIdentity {
        WriterIdentity(id: String(repeating: String(node.first!), count: 32), node: node, lockPath: lock)
    }

    /// The repository as this node opens it; nil has no identity.
    private func node(
        _ name: String?, probe: [String: String] = unconditional, on other: MemoryStore? = nil, lock: String? = nil
    ) -> Repository {
        let store = other ?? store
        return Repository.unwritten(
            on: store, keys: keys, probe: probe, ambient: store.ambient(), identity: name.map { identity($0, lock: lock) })
    }

    private var claims: [String] { store.names("v1/writers/").map { String($0.suffix(32).prefix(1)) } }

    @Test func `the first node claims, and another is refused and leaves nothing`() async throws {
        try await node("alpha").requireClaim()
        try await node("alpha").requireClaim()
        #expect(claims == ["a"])
        let error = try #require(await failure { try await node("beta").requireClaim() } as? BackupError)
        #expect(error.code == .busy && error.message.contains("alpha"))
        #expect(claims == ["a"])
        #expect(try await node("beta").claims().count == 1)
        try await node("alpha").requireClaim()
    }

    @Test(arguments: [
        ["conditionalCreate": "no"], ["conditionalReplace": "no"], ["conditionalCreate": "yes", "conditionalReplace": "no"],
    ]) func `one condition that does not hold is enough`(_ probe: [String: String]) async throws {
        #expect(!node("alpha", probe: probe).isShared)
        try await node("alpha", probe: probe).requireClaim()
        #expect(await code { try await node("beta", probe: probe).requireClaim() } == .busy)
    }

    @Test func `a store that can be shared needs no claim`() async throws {
        for probe in [[:], ["conditionalCreate": "yes", "conditionalReplace": "yes"]] {
            try await node("alpha", probe: probe).requireClaim()
            try await node(nil, probe: probe).requireClaim()
        }
        #expect(store.calls.isEmpty)
    }

    @Test func `a node that cannot keep its identity is busy, and told what to do`() async throws {
        let error = try #require(await failure { try await node(nil).requireClaim() } as? BackupError)
        #expect(error.code == .busy && error.hint?.contains("BGBACKUP_STATE_DIR") == true)
        #expect(await code { _ = try await node(nil).takeOverClaim() } == .failed)
        #expect(claims.isEmpty)
    }

    @Test func `of two at once at most one stays, in every order of their calls`() async throws {
        var kept: Set<[String]> = []
        for seed in 0..<120 {
            for name in store.names { store.remove(name) }
            let through = try await Turns.alone { await race(seed) }
            #expect(through.count <= 1 && Set(claims) == through, "seed \(seed): \(through) passed, \(claims) stay")
            kept.insert(claims)
        }
        #expect(kept == [[], ["a"], ["b"]])
    }

    /// Two nodes claim, their calls in an order of the seed's. Returns who passed.
    private func race(_ seed: Int) async -> Set<String> {
        let turns = Turns(actors: 2)
        var random = Seeded(seed)
        let passed = Locked(Set<String>())
        await withTaskGroup(of: Void.self) { group in
            for (actor, name) in ["alpha", "beta"].enumerated() {
                let repository = node(name, on: store.another(turns: turns, actor: actor))
                group.addTask {
                    if await failure({ try await repository.requireClaim() }) == nil {
                        passed.withLock { _ = $0.insert(String(name.prefix(1))) }
                    }
                    turns.finish(actor)
                }
            }
            while let actor = await turns.waiting().keys.sorted().randomElement(using: &random) { turns.step(actor) }
        }
        return passed.withLock { $0 }
    }

    @Test func `a claim that fails half-way is withdrawn`() async throws {
        for moment in MemoryStore.Moment.allCases {
            for number in 1...3 {
                let view = store.another()
                view.fail(at: number, moment)
                #expect(await failure { try await node("alpha", on: view).requireClaim() } is MemoryStore.Stopped)
                #expect(claims.isEmpty, "call \(number), \(moment)")
            }
        }
        // Not so a claim that was there before.
        try await node("alpha").requireClaim()
        let view = store.another()
        view.fail(at: 2, .before)
        #expect(await failure { try await node("alpha", on: view).requireClaim() } is MemoryStore.Stopped)
        #expect(claims == ["a"])
    }

    @Test func `a claim can be taken over, and then the other node is refused`() async throws {
        try await node("alpha").requireClaim()
        let removed = try await node("beta").takeOverClaim()
        #expect(removed.count == 1 && removed[0].contains("alpha") && claims == ["b"])
        try await node("beta").requireClaim()
        #expect(await code { try await node("alpha").requireClaim() } == .busy)
        // What is no claim counts as one, and can be named and taken over too.
        store.set("v1/writers/" + String(repeating: "c", count: 32), Array("no claim \u{1b}".utf8))
        #expect(await code { try await node("beta").requireClaim() } == .busy)
        #expect(try await node("beta").takeOverClaim() == [String(repeating: "c", count: 8)])
        #expect(try await node("beta").takeOverClaim().isEmpty)
        try await node("beta").requireClaim()
    }

    // MARK: - Who honours it

    @Test func `backups, leases, new repositories and copies honour a claim`() async throws {
        let repository = try await Repository.written(
            on: store, probe: Self.unconditional, ambient: store.ambient(), identity: identity("alpha"))
        try await repository.snapshot(1, [[1, 2, 3]])
        #expect(claims == ["a"])
        let other = repository.seen(identity: identity("beta"))
        let before = store.names
        #expect(await code { try await other.withWriter(cache: nil, width: 1) { _ in _ = Issue.record("it runs") } } == .busy)
        #expect(await code { try await other.withLease("x") { _ in _ = Issue.record("it runs") } } == .busy)
        #expect(store.names == before)

        // A place where another node writes takes no copy; one of its own does.
        let place = MemoryStore(MemoryStore.Rules(ignoresConditions: true))
        _ = try await Replication(from: repository, to: place, dryRun: false) { _ in }.run(nil)
        #expect(place.names("v1/writers/").count == 1)
        let there = place.names
        try await repository.snapshot(2, [[4, 5, 6]])
        let error = await code { _ = try await Replication(from: other, to: place, dryRun: false) { _ in }.run(nil) }
        #expect(error == .busy && place.names == there)
    }

    @Test func `an init that is refused takes nothing of the other node's away`() async throws {
        try await node("alpha").requireClaim()
        store.set("v1/keys/0011223344556677.a", [1])
        let error = await code {
            _ = try await Repository.create(
                store: store, password: [1], label: "", probe: Self.unconditional, executor: TestRepository.executor,
                identity: identity("beta"))
        }
        #expect(error == .busy && claims == ["a"] && store.bytes("v1/keys/0011223344556677.a") == [1])
    }

    // MARK: - Processes of one node

    @Test func `two processes of one node do not both hold a lease`() async throws {
        let directory = try TemporaryDirectory("lock")
        let lock = directory("writer.lock")
        let first = node("alpha", lock: lock)
        let second = node("alpha", lock: lock)
        try await first.withLease("x") { _ in
            // The store would let it through once the lease were read late.
            store.remove(Lease.objectName("x"))
            let error = try #require(await failure { try await second.withLease("x") { _ in } } as? BackupError)
            #expect(error.code == .busy && error.message.contains(lock))
            #expect(await code { try await second.withLease("y") { _ in } } == .busy)
            #expect(store.names("tmp/").isEmpty)
            // Another process, as the system's own tool sees it.
            if Program.hasTool("flock") { #expect(try Program.tool("flock", ["-n", lock, "true"]).status == 1) }
        }
        struct Bad: Error {}
        #expect(await failure { try await second.withLease("y") { _ in throw Bad() } } is Bad)
        try await first.withLease("y") { _ in }
        if Program.hasTool("flock") { #expect(try Program.tool("flock", ["-n", lock, "true"]).status == 0) }
        #expect(
            await code {
                let lock = try WriterLock(identity("alpha", lock: lock))
                defer { lock?.release() }
                _ = try await Repository.create(
                    store: MemoryStore(), password: [1], label: "", probe: Self.unconditional,
                    executor: TestRepository.executor, identity: identity("alpha", lock: directory("writer.lock")))
            } == .busy)
    }

    @Test func `a lock that cannot be had is no lease`() async throws {
        let directory = try TemporaryDirectory("lock")
        let repository = node("alpha", lock: directory("missing/writer.lock"))
        #expect(await code { try await repository.withLease("x") { _ in _ = Issue.record("it runs") } } == .busy)
        // Where the store has conditions, its lease is enough.
        let shared = node("alpha", probe: [:], on: MemoryStore(), lock: directory("missing/writer.lock"))
        try await shared.withLease("x") { _ in }
    }
}
