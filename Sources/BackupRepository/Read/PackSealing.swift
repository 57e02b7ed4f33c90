import BackupBase

/// The key that opens a pack's frames. It comes from the pack's header, which the
/// first read of the pack's start brings along: others that run beside it wait,
/// so that no request is made for 64 bytes (docs/benchmarks.md counts them).
final class PackSealing: Sendable {
    private enum State {
        case unknown
        case coming([CheckedContinuation<Sealing?, Never>])
        case known(Sealing)
    }
    private let state = Locked(State.unknown)

    init(_ known: Sealing? = nil) {
        if let known { state.withLock { $0 = .known(known) } }
    }

    var known: Sealing? { state.withLock { if case .known(let sealing) = $0 { sealing } else { nil } } }

    /// Whether the caller is the one to bring it: it then calls `deliver`, come what may.
    func begin() -> Bool {
        state.withLock { state in
            guard case .unknown = state else { return false }
            state = .coming([])
            return true
        }
    }

    /// Ends what `begin` began; nil where it failed.
    func deliver(_ sealing: Sealing?) {
        let waiting: [CheckedContinuation<Sealing?, Never>] = state.withLock { state in
            let before = state
            // Another one may have brought it meanwhile.
            if case .known = before { return [] }
            state = sealing.map { .known($0) } ?? .unknown
            if case .coming(let waiting) = before { return waiting }
            return []
        }
        for continuation in waiting { continuation.resume(returning: sealing) }
    }

    /// The key, once it has come; nil where nobody is bringing it or that failed.
    func arrived() async -> Sealing? {
        await withCheckedContinuation { continuation in
            let now: Sealing?? = state.withLock { state in
                switch state {
                case .unknown: return .some(nil)
                case .known(let sealing): return .some(sealing)
                case .coming(let waiting):
                    state = .coming(waiting + [continuation])
                    return nil
                }
            }
            if let now { continuation.resume(returning: now) }
        }
    }
}
