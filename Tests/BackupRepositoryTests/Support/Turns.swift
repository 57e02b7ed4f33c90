import BackupBase

/// Decides when a process may make its call.
protocol Pace: Sendable {
    func arrive(_ actor: Int, _ call: MemoryStore.Call) async
}

/// Lets concurrent actors go on one call at a time, in the order that a test
/// chooses: between two calls of `step` exactly one of them runs.
final class Turns: Pace {
    private struct State {
        var parked: [Int: (call: MemoryStore.Call, continuation: CheckedContinuation<Void, Never>)] = [:]
        var running: Int
        var waiter: CheckedContinuation<Void, Never>?
    }
    private let state: Locked<State>

    /// A thread for simulations alone: each call is a hop from task to task, and
    /// would wait for its place behind whatever other tests compute.
    private static let executor = BlockingExecutor(threads: 1)

    static func alone<Result: Sendable>(_ body: @escaping @Sendable () async throws -> Result) async throws -> Result {
        try await Task(executorPreference: executor, operation: body).value
    }

    init(actors: Int) { state = Locked(State(running: actors)) }

    /// Waits for this actor's turn to make `call`.
    func arrive(_ actor: Int, _ call: MemoryStore.Call) async {
        await withCheckedContinuation { continuation in
            let waiter = state.withLock { state in
                precondition(state.parked[actor] == nil, "an actor makes one call at a time")
                state.parked[actor] = (call, continuation)
                return stopped(&state)
            }
            waiter?.resume()
        }
    }

    /// The actor makes no more calls.
    func finish(_ actor: Int) { state.withLock { stopped(&$0) }?.resume() }

    private func stopped(_ state: inout State) -> CheckedContinuation<Void, Never>? {
        state.running -= 1
        guard state.running == 0 else { return nil }
        defer { state.waiter = nil }
        return state.waiter
    }

    /// The calls that actors wait to make, once none of them runs; empty at the end.
    func waiting() async -> [Int: MemoryStore.Call] {
        await withCheckedContinuation { continuation in
            let isQuiet = state.withLock { state in
                if state.running > 0 { state.waiter = continuation }
                return state.running == 0
            }
            if isQuiet { continuation.resume() }
        }
        return state.withLock { $0.parked.mapValues(\.call) }
    }

    /// Lets this actor make its call and go on to its next one.
    func step(_ actor: Int) {
        let continuation = state.withLock { state in
            state.running += 1
            return state.parked.removeValue(forKey: actor)!.continuation
        }
        continuation.resume()
    }
}
