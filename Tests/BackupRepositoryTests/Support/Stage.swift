import BackupBase
import Foundation

/// Plays several processes against one store, call by call, in the order that a
/// seed gives. Everything runs on the calling thread, so that a seed gives the
/// same schedule again; a process may have several calls under way.
final class Stage: Pace {
    private struct Parked {
        let actor: Int
        let call: MemoryStore.Call
        /// By the store's clock.
        let since: Int64
        let continuation: CheckedContinuation<Void, Never>
    }
    private struct State {
        var parked: [Parked] = []
        var finished = 0
        var steps = 0
        /// By actor: the step before which it is passed over, while others go on.
        var asleep: [Int: Int] = [:]
        /// An actor that takes its time before every second call.
        var slow: Int?
    }

    let executor = BlockingExecutor.stepped()
    let store: MemoryStore
    private let state = Locked(State())
    /// Seconds for which a process may stand still before a call: what the protocol assumes is a little more.
    private static let stall = 2700.0

    init(_ store: MemoryStore) { self.store = store }

    /// Lets an actor take its time: others go through whole runs between two of its calls.
    func slow(_ actor: Int) { state.withLock { $0.slow = actor } }

    /// Calls made so far.
    var steps: Int { state.withLock { $0.steps } }

    /// Adds a process, or several one after the other.
    func add(_ body: @escaping @Sendable () async -> Void) {
        Task(executorPreference: executor) {
            await body()
            self.state.withLock { $0.finished += 1 }
        }
    }

    func arrive(_ actor: Int, _ call: MemoryStore.Call) async {
        await withCheckedContinuation { continuation in
            state.withLock { state in
                state.parked.append(Parked(actor: actor, call: call, since: store.now, continuation: continuation))
            }
        }
    }

    /// A pause between two processes of an actor, of any length.
    func rest(_ actor: Int) async { await arrive(actor, MemoryStore.Call(operation: "rest", name: "")) }

    /// Plays until nobody has anything to do.
    /// - Returns: how many of those that were added ended
    func play(_ random: inout Seeded, trace: Bool = false) -> Int {
        while true {
            executor.runUntilIdle()
            let next: Parked? = state.withLock { state in
                guard !state.parked.isEmpty else { return nil }
                let working = state.parked.filter { $0.call.operation != "rest" }
                let oldest = working.map(\.since).min() ?? store.now
                let room = Self.stall - Double(store.now - oldest) / 1e9
                advance(&random, room: working.isEmpty ? 100_000 : room)
                var index = pick(&state, &random)
                if room < 60, let late = state.parked.firstIndex(where: { $0.since == oldest }) { index = late }
                state.steps += 1
                return state.parked.remove(at: index)
            }
            guard let next else { break }
            if trace { print("\(store.now / 1_000_000_000 - 1_800_000_000)s actor \(next.actor): \(next.call)") }
            next.continuation.resume()
        }
        return state.withLock { $0.finished }
    }

    /// One of those that wait. At times its actor falls asleep instead, just there, for as long as others take for a run.
    private func pick(_ state: inout State, _ random: inout Seeded) -> Int {
        for _ in 0..<4 {
            let awake = state.parked.indices.filter { state.asleep[state.parked[$0].actor, default: 0] <= state.steps }
            guard let index = awake.randomElement(using: &random) else { break }
            let next = state.parked[index]
            let odds = next.actor == state.slow ? 1 : Self.isDelicate(next.call) ? 3 : 19
            guard random.number(0...odds) == 0 else { return index }
            state.asleep[next.actor] = state.steps + random.number(20...120)
        }
        return Int.random(in: 0..<state.parked.count, using: &random)
    }

    /// Calls before which much may have changed since the caller looked: between a look at packs or intents and what
    /// is done on its word.
    private static func isDelicate(_ call: MemoryStore.Call) -> Bool {
        switch call.operation {
        case "put": call.name.hasPrefix("v1/snapshots/") || call.name.hasPrefix("v1/notes/")
        case "delete": call.name.hasPrefix("v1/packs/") || call.name.hasPrefix("v1/index/")
        default: false
        }
    }

    /// Mostly seconds; at times as long as nobody stands still for too long.
    private func advance(_ random: inout Seeded, room: Double) {
        let seconds = random.number(0...24) == 0 ? Double(random.number(60...3000)) : Double(random.number(0...60)) / 10
        store.advance(max(0, min(seconds, room - 60)))
    }

    /// A thread of its own: none of the cooperative pool's is to be blocked.
    static func alone<Result: Sendable>(_ body: @escaping @Sendable () -> Result) async -> Result {
        await withCheckedContinuation { continuation in
            Thread.detachNewThread { continuation.resume(returning: body()) }
        }
    }
}
