/// That work gets on: what a watchdog wants to know.
///
/// Whoever has done a piece of work that a run waits for says so: a block read, a frame
/// written, bytes on their way to the store, an answer waited for within its time. What goes
/// on beside the work, whether it gets on or not, does not: a lease that is renewed, a status
/// that is shown. So nobody answers for a loop that hangs.
public enum WorkPulse {
    private struct Listening {
        var listener: (@Sendable () -> Void)?
        /// Seconds between two calls, and the monotonic second of the next.
        var interval = 0.0
        var next = 0.0
    }

    private static let state = Locked(Listening())

    /// A piece of work is done. Costs a lock, and now and then the listener's time.
    public static func beat() {
        let listener = state.withLock { state -> (@Sendable () -> Void)? in
            guard let listener = state.listener else { return nil }
            let now = monotonicSeconds()
            guard now >= state.next else { return nil }
            state.next = now + state.interval
            return listener
        }
        listener?()
    }

    /// Calls `listener` at a beat, on the thread that works, at most once in `interval` seconds.
    public static func listen(every interval: Double, _ listener: @escaping @Sendable () -> Void) {
        state.withLock { $0 = Listening(listener: listener, interval: interval) }
    }

    /// Waits where waiting is the work, as between two runs of a watch, without a hang's silence.
    public static func sleep(seconds: Double) async throws {
        let end = monotonicSeconds() + seconds
        while true {
            beat()
            let left = end - monotonicSeconds()
            guard left > 0 else { return }
            try await Task.sleep(for: .seconds(min(left, 1)))
        }
    }
}
