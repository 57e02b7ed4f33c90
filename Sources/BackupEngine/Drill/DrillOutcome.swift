import BackupBase
import BackupRepository
import QdrantStorage

/// One step of a drill.
public struct DrillStage: Sendable {
    public enum Name: String, Sendable, CaseIterable { case restore, verify, inspect, boot, compare, cleanup }

    public let name: Name
    /// Seconds from the start of the node's drill.
    public let start: Double
    public let seconds: Double
    public let verdict: ServerCheck.Verdict
    /// What came of it, for people.
    public let detail: String
}

/// What a drill found out about one node's snapshot.
public struct NodeDrill: Sendable {
    public let snapshot: Snapshot
    public internal(set) var stages: [DrillStage] = []
    public internal(set) var checks: [ServerCheck] = []
    public internal(set) var findings: [QdrantStorage.Finding] = []
    /// Bytes in place by seconds from the start.
    public internal(set) var curve: [(seconds: Double, bytes: Int64)] = []
    public internal(set) var restore: RestoreReport?
    public internal(set) var engine: ServerVersion?
    /// Bytes brought into memory while it started.
    public internal(set) var bytesWarmed: Int64 = 0
    /// Seconds of restore, boot and first right answer; nil where none came.
    public internal(set) var recovery: Double?
    /// Seconds from the database's readiness to that answer.
    public internal(set) var firstAnswer: Double?

    init(_ snapshot: Snapshot) { self.snapshot = snapshot }

    public var verdict: ServerCheck.Verdict {
        let all = stages.map(\.verdict) + checks.map(\.verdict)
        return all.contains(.fail) ? .fail : all.contains(.warn) ? .warn : .pass
    }

    /// What is wrong, first things first; nil where nothing is.
    public var reason: String? {
        if let check = checks.first(where: { $0.verdict == .fail }) { return check.reason }
        return stages.first { $0.verdict == .fail }.map { "\($0.name.rawValue): \($0.detail)" }
    }

    mutating func add(_ check: ServerCheck) { checks.append(check) }
}

/// What a drill found out.
public struct DrillOutcome: Sendable {
    /// Nanoseconds since 1970.
    public let started: Int64
    public internal(set) var nodes: [NodeDrill] = []
    /// Of the set as a whole, and of the objectives.
    public internal(set) var checks: [ServerCheck] = []
    public internal(set) var duration = 0.0
    /// Seconds until the slowest node answered right: nodes are restored side by side; nil where one did not.
    public internal(set) var recovery: Double?
    /// Age of the newest snapshot, of the node for which it is oldest; nil where nobody knows.
    public internal(set) var recoveryPoint: Double?

    public var verdict: ServerCheck.Verdict {
        let all = nodes.map(\.verdict) + checks.map(\.verdict)
        return all.contains(.fail) ? .fail : all.contains(.warn) ? .warn : .pass
    }

    /// The first thing that is wrong; nil where nothing is.
    public var reason: String? {
        for node in nodes {
            guard let reason = node.reason else { continue }
            return nodes.count > 1 ? "node \(node.snapshot.record.node): \(reason)" : reason
        }
        return checks.first { $0.verdict == .fail }?.reason
    }
}
