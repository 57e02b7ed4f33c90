import BackupBase

/// How many requests run at once: fewer when the store says that it is
/// overloaded, slowly more again when it does not; and how often requests are
/// repeated in all, so that a store in trouble does not get several times its load.
final class FlowControl: Sendable {
    private struct State {
        var limit: Double
        var active = 0
        var waiting: [CheckedContinuation<Void, Never>] = []
        var lastDecrease = -1.0
        /// Repetitions that may start now.
        var tokens: Double
        var tokensAt: Double
    }
    private let state: Locked<State>
    private let maximum: Double
    private let clock: @Sendable () -> Double

    /// Repetitions in stock at first and at the most, and new ones a second.
    static let stock = 200.0
    static let refill = 10.0

    init(maximum: Int, clock: @escaping @Sendable () -> Double = { monotonicSeconds() }) {
        self.maximum = Double(maximum)
        self.clock = clock
        state = Locked(State(limit: Double(maximum), tokens: Self.stock, tokensAt: clock()))
    }

    /// Requests that may run at once now.
    var limit: Int { state.withLock { Int($0.limit) } }

    /// Waits for a place. Each call is followed by one of `leave`.
    func enter() async {
        await withCheckedContinuation { continuation in
            let admitted = state.withLock { state in
                if state.active < Int(state.limit) {
                    state.active += 1
                    return true
                }
                state.waiting.append(continuation)
                return false
            }
            if admitted { continuation.resume() }
        }
    }

    /// - Parameter overloaded: the store asked for less (429, 503)
    func leave(overloaded: Bool) {
        let next = state.withLock { state in
            state.active -= 1
            if overloaded {
                // Answers of one moment are one complaint.
                if clock() - state.lastDecrease > 0.5 {
                    state.limit = max(1, (state.limit / 2).rounded(.down))
                    state.lastDecrease = clock()
                }
            } else {
                state.limit = min(maximum, state.limit + 1 / state.limit)
            }
            var next: [CheckedContinuation<Void, Never>] = []
            while state.active < Int(state.limit), !state.waiting.isEmpty {
                next.append(state.waiting.removeFirst())
                state.active += 1
            }
            return next
        }
        for continuation in next { continuation.resume() }
    }

    /// Takes the right to repeat a request.
    /// - Returns: seconds to wait for it
    func takeRetry() -> Double {
        state.withLock { state in
            let now = clock()
            state.tokens = min(Self.stock, state.tokens + (now - state.tokensAt) * Self.refill)
            state.tokensAt = now
            state.tokens -= 1
            return state.tokens >= 0 ? 0 : -state.tokens / Self.refill
        }
    }
}

/// Bytes a second in one direction, over all requests.
final class RateLimiter: Sendable {
    private let free = Locked(0.0)
    private let rate: Double

    /// - Parameter rate: bytes a second; 0 is no limit
    init(rate: Int) { self.rate = Double(rate) }

    /// Seconds until these bytes may go. They are accounted for: each byte is asked for once.
    func delay(_ bytes: Int, now: Double = monotonicSeconds()) -> Double {
        guard rate > 0, bytes > 0 else { return 0 }
        return free.withLock { free in
            let start = max(free, now)
            free = start + Double(bytes) / rate
            return start - now
        }
    }

    /// Accounts for bytes that have come already: whoever is next waits for them.
    func charge(_ bytes: Int) { _ = delay(bytes) }

    /// Seconds until what was charged is paid.
    func debt(now: Double = monotonicSeconds()) -> Double {
        rate > 0 ? free.withLock { max(0, $0 - now) } : 0
    }
}
