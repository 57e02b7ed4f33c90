import BackupBase
import Foundation
import ObjectStorage
import Testing

@testable import BackupRepository

/// One lease, step by step. What several runs do to it at once is in `LeaseSimulationTests`.
@Suite(.timeLimit(.minutes(20))) struct LeaseTests {
    private let store = MemoryStore()
    private let name = Lease.objectName("x")

    private func acquire(_ holder: String = "a", clock: Double = 0, on other: MemoryStore? = nil) async throws -> Lease {
        let store = other ?? store
        return try await Lease.acquire(store, "x", holder: holder, ambient: store.ambient(offset: clock))
    }

    private func busy(_ body: () async throws -> Void) async -> Bool { await code(body) == .busy }

    private func state() throws -> Lease.State { try #require(Lease.State.read(store.bytes(name) ?? [])) }

    // MARK: - Taking it

    @Test func `who finds it held is told by whom, and for how long at most`() async throws {
        _ = try await acquire("host seven, process 4711")
        store.advance(70)
        let error = try #require(await failure { _ = try await acquire("b") } as? BackupError)
        #expect(error.code == .busy && error.message.contains("host seven, process 4711"))
        #expect(error.hint?.contains(formatDuration(Lease.duration - 70)) == true, "\(error.hint ?? "")")
    }

    @Test func `what a holder is called cannot garble the message`() async throws {
        _ = try await acquire("evil\u{1b}[2J\n" + String(repeating: "x", count: 5000))
        let error = try #require(await failure { _ = try await acquire("b") } as? BackupError)
        #expect(!error.message.contains("\u{1b}") && !error.message.contains("\n") && error.message.count < 400)
    }

    @Test(arguments: [-86_400.0, 0, 86_400]) func `it runs out by the store's clock, whatever the clock of who looks`(
        _ offset: Double
    ) async throws {
        let first = try await acquire(clock: -offset)
        store.advance(Lease.duration)
        #expect(await busy { _ = try await acquire("b", clock: offset) })
        store.advance(1)
        let second = try await acquire("b", clock: offset)
        #expect(second.fence == first.fence + 1)
    }

    @Test func `fencing numbers grow over release, expiry and take-over`() async throws {
        var fences: [UInt64] = []
        for round in 0..<12 {
            let lease = try await acquire("run \(round)")
            fences.append(lease.fence)
            if round % 3 == 0 { await lease.release() } else { store.advance(Lease.duration + 1) }
            // One that was lost gives nothing back, and takes no number with it.
            if round % 3 == 2 { _ = await code { try await lease.renew() } }
            if round % 3 == 2 { await lease.release() }
        }
        #expect(fences == Array(1...12))
    }

    @Test func `of two that look at the same moment one gets it`() async throws {
        let turns = Turns(actors: 2)
        let results = Locked([Int: Bool]())
        async let all: Void = withTaskGroup { group in
            for actor in 0..<2 {
                let view = store.another(turns: turns, actor: actor)
                group.addTask {
                    let won =
                        await failure { _ = try await Lease.acquire(view, "x", holder: "\(actor)", ambient: .system) } == nil
                    results.withLock { $0[actor] = won }
                    turns.finish(actor)
                }
            }
        }
        // Both have looked before either writes.
        for actor in [0, 1, 1, 0] {
            #expect(await turns.waiting()[actor] != nil)
            turns.step(actor)
        }
        #expect(await turns.waiting().isEmpty)
        await all
        #expect(results.withLock { $0 } == [0: false, 1: true])
    }

    // MARK: - Keeping it

    @Test func `confirm passes while it is held, and renews what gets old`() async throws {
        let lease = try await acquire()
        for _ in 0..<20 {
            store.advance(Lease.duration - 1)
            try await lease.confirm()
            #expect(await busy { _ = try await acquire("b") })
        }
        store.advance(Lease.duration + 1)
        // Nobody took it meanwhile: it goes on being ours.
        try await lease.confirm()
        store.advance(Lease.margin)
        #expect(await busy { _ = try await acquire("b") })
    }

    @Test(arguments: ["stolen", "released", "deleted", "emptied", "garbled", "huge", "same number"])
    func `confirm, renew and release notice a lease that is not theirs any more`(_ how: String) async throws {
        for operation in ["confirm", "renew", "release"] {
            store.remove(name)
            let lease = try await acquire()
            var other = try state()
            switch how {
            case "stolen":
                store.advance(Lease.duration + 1)
                _ = try await acquire("b")
            case "released":
                other.released = true
                store.set(name, try other.bytes)
            case "deleted": store.remove(name)
            case "emptied": store.set(name, [])
            case "garbled": store.set(name, Array("{\"fence\":".utf8))
            case "huge": store.set(name, [UInt8](repeating: 0x20, count: 1 << 20))
            default:
                other.owner = "somebody else"
                store.set(name, try other.bytes)
            }
            let before = store.bytes(name)
            switch operation {
            case "confirm": #expect(await busy { try await lease.confirm() })
            case "renew": #expect(await busy { try await lease.renew() })
            default: await lease.release()
            }
            #expect(store.bytes(name) == before, "\(operation) changed what is not its own")
            // Once lost, always lost: also where the object says again what it said.
            if operation != "release" {
                store.set(name, try Lease.State(fence: lease.fence, owner: other.owner, holder: "", nonce: "").bytes)
                #expect(await busy { try await lease.confirm() })
                #expect(await busy { try await lease.renew() })
            }
        }
    }

    @Test func `the answer to a renewal may be lost`() async throws {
        let view = store.another()
        let lease = try await acquire(on: view)
        for _ in 0..<3 {
            view.fail(at: 1, .after, with: StoreError(.unreachable, "replace", name))
            #expect(await failure { try await lease.renew() } is StoreError)
            view.restart()
            // What stands there is our own write.
            try await lease.renew()
            try await lease.confirm()
        }
        view.fail(at: 1, .after, with: StoreError(.unreachable, "replace", name))
        _ = await failure { try await lease.renew() }
        view.restart()
        await lease.release()
        #expect(try state().released)
    }

    @Test func `a renewal of the same moment is not taken for a thief's`() async throws {
        let view = store.another()
        let lease = try await acquire(on: view)
        // The renewer's write arrives between what 'confirm' reads and what it writes.
        let own = Locked(try state())
        let left = Locked(2)
        view.onCall { [store, name] call in
            guard call.operation == "replace",
                left.withLock({
                    $0 -= 1; return $0 >= 0
                })
            else { return }
            own.withLock {
                $0.nonce += "x"
                store.set(name, (try? $0.bytes) ?? [])
            }
        }
        store.advance(Lease.duration - 1)
        try await lease.confirm()
        #expect(left.withLock { $0 } < 0)
        try await lease.renew()
        await lease.release()
        #expect(try state().released)
    }

    @Test func `the answer to taking it may be lost`() async throws {
        let view = store.another()
        view.fail(at: 2, .after, with: StoreError(.unreachable, "replace", name))
        let lease = try await acquire(on: view)
        try await lease.confirm()
        await lease.release()
        #expect(try state().released)
        view.fail(at: 2, .before, with: StoreError(.unreachable, "replace", name))
        #expect(await failure { _ = try await acquire(on: view) } is StoreError)
        _ = try await acquire()
    }

    // MARK: - Objects that are no lease

    @Test(arguments: [
        "", "{", "null", "[]", "{\"fence\":1}",
        "{\"fence\":-1,\"format\":1,\"holder\":\"\",\"nonce\":\"\",\"owner\":\"\",\"released\":false}",
        "{\"fence\":18446744073709551615,\"format\":1,\"holder\":\"h\",\"nonce\":\"n\",\"owner\":\"o\",\"released\":false}",
        "{\"fence\":18446744073709551615,\"format\":1,\"holder\":\"h\",\"nonce\":\"n\",\"owner\":\"o\",\"released\":true}",
    ]) func `what cannot be read runs out like a lease`(_ text: String) async throws {
        store.set(name, Array(text.utf8))
        let error = try #require(await failure { _ = try await acquire() } as? BackupError)
        #expect(error.code == .busy)
        store.advance(Lease.duration + 1)
        let lease = try await acquire()
        try await lease.confirm()
        #expect(lease.fence >= 1)
    }

    @Test func `what is too large for a lease locks nobody out`() async throws {
        store.set(name, [UInt8](repeating: 7, count: 1 << 20))
        try await acquire().confirm()
    }

    // MARK: - Scopes

    private var repository: Repository { Repository.unwritten(on: store) }

    @Test func `a scope gives the lease back, whatever it ends with`() async throws {
        struct Bad: Error {}
        let repository = repository
        let kept = try await repository.withLease("x") { lease in
            #expect(await code { try await repository.withLease("x") { _ in } } == .busy)
            try await lease.confirm()
            return lease.fence
        }
        #expect(try kept == 1 && state().released)
        #expect(await failure { try await repository.withLease("x") { _ in throw Bad() } } is Bad)
        #expect(try state().released && state().fence == 2)
        try await repository.withLease("y") { _ in try await repository.withLease("x") { _ in } }
        // What would renew it in eleven days has ended with it.
        weak var held: Lease?
        try await Repository.withLease("x", on: store, holder: "h", ambient: .system, pause: 1e6) { held = $0 }
        #expect(await eventually { held == nil })
    }

    @Test func `a cancelled scope gives the lease back too`() async throws {
        let repository = repository
        let (begun, begin) = AsyncStream.makeStream(of: Void.self)
        let run = Task {
            try await repository.withLease("x") { _ in
                begin.yield()
                try await Task.sleep(for: .seconds(3600))
            }
        }
        for await _ in begun { break }
        #expect(try !state().released)
        run.cancel()
        await #expect(throws: CancellationError.self) { try await run.value }
        #expect(try state().released)
    }

    @Test func `a scope that loses its lease gives nothing back`() async throws {
        let repository = repository
        await #expect(throws: BackupError.self) {
            try await repository.withLease("x") { lease in
                store.advance(Lease.duration + 1)
                _ = try await acquire("thief")
                try await lease.confirm()
            }
        }
        #expect(try state().holder == "thief" && !state().released)
    }

    @Test func `a scope renews its lease through failures of the store, and stops when it ends`() async throws {
        let view = store.another()
        view.onCall { [store] call in if call.operation == "replace" { store.advance(1) } }
        weak var held: Lease?
        try await Repository.withLease("x", on: view, holder: "h", ambient: .system, pause: 0.002) { lease in
            held = lease
            let before = view.calls.count
            #expect(await eventually { view.calls.count > before + 2 })
            view.fail(at: 1, .before, with: StoreError(.unreachable, "replace", name))
            #expect(await eventually { view.calls.count > 3 })
            view.fail(at: 1, .after, with: StoreError(.failed, "replace", name))
            #expect(await eventually { view.calls.count > 3 })
            try await lease.confirm()
        }
        #expect(try state().released)
        // Nobody holds it any more: what renewed it has ended.
        #expect(await eventually { held == nil })
        let calls = view.calls.count
        try await Task.sleep(for: .milliseconds(20))
        #expect(view.calls.count == calls)
    }
}
