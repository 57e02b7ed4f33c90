import BackupBase

/// How far a run is, for a terminal line or a JSON status.
public struct Progress: Sendable {
    public enum Phase: String, Sendable { case scan, read, write, verify, finish }
    public var phase: Phase = .scan
    public var bytesDone: Int64 = 0
    public var bytesTotal: Int64 = 0
    public var filesDone = 0
    public var filesTotal = 0

    public init() {}
}

/// Where tasks report what they have done; somebody else looks at it now and then.
public final class ProgressBoard: Sendable {
    private let state = Locked(Progress())

    public init() {}

    public var current: Progress { state.withLock { $0 } }
    public func update(_ change: (inout Progress) -> Void) {
        state.withLock { change(&$0) }
        WorkPulse.beat()
    }
}
