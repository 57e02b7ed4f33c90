import BackupBase

/// Finds keys, keeps them and renews them before they end. One flight at a time:
/// whoever asks while keys are being loaded waits for the same load.
final class CredentialProvider: Sendable {
    private static let second: Int64 = 1_000_000_000
    /// Keys must be valid for this long yet, so that a request signed now arrives in time.
    private static let margin = 60 * second
    /// So long before their end new ones are asked for; services have them ready by then.
    private static let renewal = 300 * second
    /// Between two attempts to renew keys that are still valid.
    private static let pause = 30 * second

    private struct Flight {
        let id: Int
        let task: Task<Credentials, any Error>
        var waiting = 1
    }

    private struct State {
        var kept: Credentials?
        var flight: Flight?
        var flights = 0
        /// No attempt to renew before this time.
        var rest = Int64.min
    }

    private let chain: CredentialChain
    private let now: @Sendable () -> Int64
    private let state = Locked(State())

    init(settings: CredentialSettings, transport: any HTTPTransport) {
        chain = CredentialChain(settings: settings, transport: transport)
        now = settings.now
    }

    /// Keys that are valid for at least another minute. Throws `CredentialError`,
    /// or `CancellationError` when the task was cancelled.
    func credentials() async throws -> Credentials {
        try Task.checkCancellation()
        let time = now()
        let flight: Flight
        switch state.withLock({ decide(&$0, time) }) {
        case .use(let kept): return kept
        case .wait(let boarded): flight = boarded
        }
        let credentials = try await withTaskCancellationHandler {
            try await flight.task.value
        } onCancel: {
            leave(flight.id)
        }
        try Task.checkCancellation()
        return credentials
    }

    /// The store refused `stale`: the next call loads anew, unless other keys are kept by now.
    func invalidate(_ stale: Credentials) {
        state.withLock { if $0.kept == stale { $0.kept = nil } }
    }

    // MARK: - Flights

    private enum Decision {
        case use(Credentials)
        case wait(Flight)
    }

    /// In the last minutes of keys one caller waits for new ones; the others go on with the old.
    private func decide(_ state: inout State, _ time: Int64) -> Decision {
        if let kept = state.kept {
            if Self.isFresh(kept, time) { return .use(kept) }
            if Self.isValid(kept, time), state.flight != nil || time < state.rest { return .use(kept) }
        }
        return .wait(board(&state))
    }

    private func board(_ state: inout State) -> Flight {
        if var flight = state.flight {
            flight.waiting += 1
            state.flight = flight
            return flight
        }
        state.flights += 1
        let id = state.flights
        let flight = Flight(id: id, task: Task { try await self.fly(id) })
        state.flight = flight
        return flight
    }

    private func fly(_ id: Int) async throws -> Credentials {
        do {
            let loaded = try await chain.load()
            return try land(id, loaded)
        } catch {
            return try crash(id, error)
        }
    }

    private func land(_ id: Int, _ loaded: Credentials) throws -> Credentials {
        let time = now()
        guard Self.isValid(loaded, time) else { throw Self.tooOld(loaded, time) }
        state.withLock { state in
            guard state.flight?.id == id else { return }
            state.flight = nil
            state.kept = loaded
            // A service that has no newer keys yet is not asked with each request.
            state.rest = Self.isFresh(loaded, time) ? .min : time + Self.pause
        }
        return loaded
    }

    /// Keys that are still valid are used on when they cannot be renewed.
    private func crash(_ id: Int, _ error: any Error) throws -> Credentials {
        let time = now()
        let kept = state.withLock { state -> Credentials? in
            guard state.flight?.id == id else { return nil }
            state.flight = nil
            guard let kept = state.kept, Self.isValid(kept, time) else { return nil }
            state.rest = time + Self.pause
            return kept
        }
        guard let kept else { throw error }
        return kept
    }

    /// A flight that nobody waits for any more is called back.
    private func leave(_ id: Int) {
        let abandoned = state.withLock { state -> Flight? in
            guard state.flight?.id == id else { return nil }
            state.flight!.waiting -= 1
            guard let flight = state.flight, flight.waiting == 0 else { return nil }
            state.flight = nil
            return flight
        }
        abandoned?.task.cancel()
    }

    // MARK: - Ends

    private static func isFresh(_ credentials: Credentials, _ time: Int64) -> Bool {
        credentials.expires.map { $0 - time > renewal } ?? true
    }

    private static func isValid(_ credentials: Credentials, _ time: Int64) -> Bool {
        credentials.expires.map { $0 - time >= margin } ?? true
    }

    private static func tooOld(_ credentials: Credentials, _ time: Int64) -> CredentialError {
        let end = credentials.expires ?? 0
        return CredentialError(
            "the keys from \(credentials.source) "
                + (end <= time ? "ended at \(formatTime(end))" : "end at \(formatTime(end)), in less than a minute"),
            hint: "Check this host's clock, and what renews these keys.")
    }
}
