import BackupBase

/// Where the time of a restore went: seconds of the run, so that they add up to
/// its duration. What several threads did side by side counts by its share.
public struct RestoreStages: Sendable {
    public enum Stage: String, CaseIterable, Sendable {
        /// Manifests and trailers.
        case plan
        /// Looking whether a target is as it was left.
        case check
        /// Bytes from the object store.
        case fetch
        /// Open, inflate, compare with the blocks' ids.
        case verify
        /// Names, and bytes of files.
        case write
        /// Until everything is on stable storage.
        case sync
        case metadata
        /// Into the page cache, where that is asked for.
        case warm
    }

    public private(set) var seconds: [Stage: Double] = [:]

    /// The stage that took longest.
    public var slowest: Stage? { Stage.allCases.max { seconds[$0] ?? 0 < seconds[$1] ?? 0 } }

    mutating func add(_ stage: Stage, _ more: Double) { seconds[stage, default: 0] += more }

    /// Divides the time in which data came in by what its threads did meanwhile.
    mutating func add(_ wall: Double, dividedAs busy: BusyTimes) {
        let sum = busy.fetch + busy.verify + busy.write
        guard sum > 0 else { return add(.write, wall) }
        add(.fetch, wall * busy.fetch / sum)
        add(.verify, wall * busy.verify / sum)
        add(.write, wall * busy.write / sum)
    }
}

/// Seconds that threads spent on reads of a plan.
struct BusyTimes: Sendable {
    var fetch = 0.0
    var verify = 0.0
    var write = 0.0

    static func += (left: inout Self, right: Self) {
        left.fetch += right.fetch
        left.verify += right.verify
        left.write += right.write
    }
}

extension RestoreRun {
    func timed<Value>(_ stage: RestoreStages.Stage, _ body: () throws -> Value) rethrows -> Value {
        let start = monotonicSeconds()
        defer { report.stages.add(stage, monotonicSeconds() - start) }
        return try body()
    }

    func timed<Value>(_ stage: RestoreStages.Stage, _ body: () async throws -> Value) async rethrows -> Value {
        let start = monotonicSeconds()
        defer { report.stages.add(stage, monotonicSeconds() - start) }
        return try await body()
    }
}
