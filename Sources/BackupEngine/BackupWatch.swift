import BackupBase
import BackupRepository

/// Continuous protection: one backup after the other, so that what may be lost
/// is seconds of writes.
///
/// Each run is a full capture, not a tail of the log: where a capture is kept
/// it costs what changed (docs/benchmarks.md, "Watch"), and a snapshot that is
/// of one moment needs no rule by which segments and log are put together.
/// A run that finds nothing changed makes no snapshot.
public struct BackupWatch {
    public enum Event: Sendable {
        case made(BackupReport)
        /// Another backup of the volume has the lock: the next run is its own again.
        case busy(BackupError)
        /// The run failed; the next one is made after so many seconds.
        case failed(BackupError, retryAfter: Double)
    }

    let repository: Repository
    let options: BackupOptions
    /// Seconds from the start of a run to the start of the next.
    let interval: Double
    /// Turns what a run throws into what the operator is told.
    let explain: @Sendable (any Error) -> BackupError?

    /// After so many failures in a row the watch ends, so that whoever started it notices.
    public static let mostFailures = 6
    /// Seconds between two tries at the most.
    private static let longestWait = 300.0
    /// Seconds between two runs up to which they rely on one look at the packs.
    private static let longestSession = 600.0

    public init(
        repository: Repository, options: BackupOptions, interval: Double,
        explain: @escaping @Sendable (any Error) -> BackupError?
    ) {
        self.repository = repository
        self.options = options
        self.interval = interval
        self.explain = explain
    }

    /// Goes on until the task is cancelled.
    /// - Throws: what the first run throws, since nobody wants to wait for a
    ///   mistyped path; later the error of the last of `mostFailures` runs in
    ///   a row; `CancellationError`
    public func run(_ tell: (Event) async throws -> Void) async throws {
        // Not where it would make prunes wait for long.
        let session = interval <= Self.longestSession ? WriterSession() : nil
        do { try await run(session, tell) } catch {
            await session?.end()
            throw error
        }
    }

    private func run(_ session: WriterSession?, _ tell: (Event) async throws -> Void) async throws {
        var options = options
        var failures = 0
        var isFirst = true
        while true {
            let started = monotonicSeconds()
            var wait = interval
            let event: Event
            do {
                let report = try await BackupRun(
                    repository: repository, options: options, board: ProgressBoard(), session: session
                ).run()
                failures = 0
                // Only what has no problem is what the next run may find unchanged.
                options.unlessSame = report.problems.isEmpty ? report.manifest : nil
                event = .made(report)
            } catch {
                guard !isFirst, !Task.isCancelled, let failure = explain(error) else { throw error }
                if failure.code == .busy {
                    event = .busy(failure)
                } else {
                    failures += 1
                    guard failures < Self.mostFailures else { throw error }
                    wait = min(interval * Double(1 << failures), max(interval, Self.longestWait))
                    event = .failed(failure, retryAfter: wait)
                }
            }
            try await tell(event)
            isFirst = false
            let left = started + wait - monotonicSeconds()
            if left > 0 { try await WorkPulse.sleep(seconds: left) }
        }
    }
}
