import BackupBase
import ObjectStorage
import Testing

@testable import BackupRepository

/// Four runs that want one lease, let go on call by call in every order that a
/// seed gives, while the store's clock jumps and machines' clocks are days off.
///
/// What holds, by the store's order of events:
/// 1. Fencing numbers of those who take it only grow: no two ever have the same.
/// 2. Who confirms with a number finds that nobody confirmed with a greater one before.
/// 3. A destructive step at most `Lease.margin` after the last call of the
///    `confirm` before it is done while its number is the newest there is.
///
/// What does not hold, and is counted to be sure that it is met here: a run that
/// stands still for longer between `confirm` and the step (the store cannot know).
@Suite(.timeLimit(.minutes(20))) struct LeaseSimulationTests {
    /// What all runs of one seed did, in order.
    private struct Book {
        var acquired: [UInt64] = []
        var highestConfirmed: UInt64 = 0
        var steps = 0
        /// Steps after standing still for too long, and those of them that came too late.
        var late = 0
        var superseded = 0
        var lost = 0
        var wrong: [String] = []
    }

    private static let actors = 4
    private static let name = Lease.objectName("x")

    @Test func `no two runs take away at once, but for the window that is documented`() async throws {
        var total = Book()
        for seed in 1...240 {
            let book = try await Turns.alone { await simulate(seed) }
            for problem in book.wrong { Issue.record("seed \(seed): \(problem)") }
            total.acquired += book.acquired
            total.steps += book.steps
            total.late += book.late
            total.superseded += book.superseded
            total.lost += book.lost
            guard book.wrong.isEmpty else { break }
        }
        // The simulation meets what it is about.
        #expect(total.acquired.count > 1500 && total.steps > 3000 && total.lost > 100)
        #expect(total.late > 50 && total.superseded > 5)
    }

    private func simulate(_ seed: Int) async -> Book {
        let store = MemoryStore()
        let turns = Turns(actors: Self.actors)
        let book = Locked(Book())
        var random = Seeded(seed)
        let offsets = (0..<Self.actors).map { _ in Double(random.number(-86_400...86_400)) }
        return await withTaskGroup(of: Void.self) { group in
            for actor in 0..<Self.actors {
                let run = Run(
                    actor: actor, store: store.another(turns: turns, actor: actor), truth: store, turns: turns,
                    ambient: store.ambient(offset: offsets[actor], seed: seed * 10 + actor + 1), book: book)
                group.addTask {
                    await run.live(seed * 100 + actor)
                    turns.finish(actor)
                }
            }
            // An actor that stands still is passed over until its time has come.
            var until = [Int64](repeating: 0, count: Self.actors)
            while true {
                let waiting = await turns.waiting().keys.sorted()
                guard !waiting.isEmpty else { break }
                let awake = waiting.filter { until[$0] <= store.now }
                guard let actor = awake.randomElement(using: &random) else {
                    store.advance(10)
                    continue
                }
                if random.number(0...19) == 0 {
                    until[actor] = store.now + Int64(random.number(60...400)) * 1_000_000_000
                    continue
                }
                store.advance(Double(random.number(0...80)) / 10)
                turns.step(actor)
            }
            await group.waitForAll()
            return book.withLock { $0 }
        }
    }

    /// One machine, with one process after the other.
    private struct Run: Sendable {
        let actor: Int
        let store: MemoryStore
        let truth: MemoryStore
        let turns: Turns
        let ambient: Ambient
        let book: Locked<Book>

        func live(_ seed: Int) async {
            var random = Seeded(seed)
            for _ in 0..<12 {
                guard let lease = try? await Lease.acquire(store, "x", holder: "\(actor)", ambient: ambient) else {
                    await turns.arrive(actor, MemoryStore.Call(operation: "think", name: ""))
                    continue
                }
                book.withLock { book in
                    if let last = book.acquired.max(), lease.fence <= last {
                        book.wrong.append("number \(lease.fence) after \(last)")
                    }
                    book.acquired.append(lease.fence)
                }
                do {
                    for _ in 0..<random.number(1...6) {
                        if random.number(0...3) == 0 { try await lease.renew() }
                        try await lease.confirm()
                        // The clock as it was at the store's last answer: nobody else ran since.
                        let confirmed = truth.now
                        noteConfirmation(lease.fence)
                        await turns.arrive(actor, MemoryStore.Call(operation: "step", name: ""))
                        noteStep(lease.fence, confirmed)
                    }
                } catch {
                    book.withLock { $0.lost += 1 }
                }
                // Some end well, also after they lost it; some are killed.
                if random.number(0...2) > 0 { await lease.release() }
            }
        }

        private func noteConfirmation(_ fence: UInt64) {
            book.withLock { book in
                if fence < book.highestConfirmed {
                    book.wrong.append("run \(actor) confirms \(fence) after somebody confirmed \(book.highestConfirmed)")
                }
                book.highestConfirmed = max(book.highestConfirmed, fence)
            }
        }

        private func noteStep(_ fence: UInt64, _ confirmed: Int64) {
            let waited = Double(truth.now - confirmed) / 1e9
            let newest = truth.bytes(LeaseSimulationTests.name).flatMap { Lease.State.read($0) }?.fence
            book.withLock { book in
                book.steps += 1
                if waited <= Lease.margin {
                    if newest != fence {
                        book.wrong.append(
                            "run \(actor) takes away with \(fence), \(waited) s after confirming; the newest is \(newest ?? 0)"
                        )
                    }
                } else {
                    book.late += 1
                    if newest != fence { book.superseded += 1 }
                }
            }
        }
    }
}
