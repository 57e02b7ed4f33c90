/// Something about a volume that matters for a start on it.
public struct Finding: Sendable, Codable, Hashable {
    public enum Severity: String, Sendable, Codable, Comparable {
        /// Worth knowing.
        case note
        /// A start works, and something may be less than expected.
        case warning
        /// A start fails, or falsifies what is there.
        case forbids

        public static func < (one: Severity, other: Severity) -> Bool { one.rank < other.rank }
        private var rank: Int { [.note, .warning, .forbids].firstIndex(of: self)! }
    }

    public enum Code: String, Sendable, Codable, CaseIterable {
        case fuzzyCapture, noQdrantVolume
        case raftStateMissing, raftStateUnreadable, raftStateLegacy, raftLogMissing, raftLogBroken, commitBeyondLog
        case jointConsensus, pendingEntries, foreignPeers, versionsDiffer
        case collectionUnreadable, shardMissing, shardInitializing, resharding, openTransfer
        case shardUnreadable, replicaUnreadable, replicaOfAnother, replicaNotActive, replicaPeerDead
        case logMissing, logBroken, logBrokenInTheMiddle, logTorn, ackUnreadable, segmentsNewerThanLog
        case segmentWithoutVersion, segmentUnreadable, segmentIncomplete, segmentTorn, segmentRemovedAtStart, rocksDB
        case noSegments
    }

    public let code: Code
    public let severity: Severity
    /// Relative to the volume's root; empty for the volume as a whole.
    public let path: String
    /// What is so, and what a start would make of it.
    public let message: String
    /// What to do about it.
    public let remedy: String

    public init(_ code: Code, _ severity: Severity, _ path: String, _ message: String, remedy: String) {
        self.code = code
        self.severity = severity
        self.path = path
        self.message = message
        self.remedy = remedy
    }
}
