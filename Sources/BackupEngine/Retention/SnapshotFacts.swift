import BackupBase
import BackupRepository

/// What retention goes by: all that it knows of a snapshot.
public struct SnapshotFacts: Sendable, Identifiable {
    /// Whose snapshots follow one another.
    public struct Volume: Hashable, Comparable, Sendable, CustomStringConvertible {
        public let node: String
        public let path: String
        let lineage: String

        public init(node: String, path: String, lineage: String = "") {
            (self.node, self.path, self.lineage) = (node, path, lineage)
        }

        public var description: String { "\(printable(node.utf8)) \(printable(path.utf8))" }
        public static func < (left: Self, right: Self) -> Bool {
            (left.node, left.path, left.lineage) < (right.node, right.path, right.lineage)
        }
    }

    public let sequence: UInt64
    public let id: ObjectID
    public let volume: Volume
    /// Seconds since 1970 by the store's clock: when it was committed.
    public let committed: Double
    /// Seconds since 1970 by the clock of its node: when it was finished, never
    /// later than `committed`, because no store gets what is not there yet.
    public let claimed: Double
    public var set: String?
    /// Seconds for which its schedule keeps it.
    public var keepFor: Double?
    /// Name of the policy that it was made under.
    public var policy: String?
    /// All of the source could be read.
    public var isComplete = true
    /// Complete, of one moment, and nothing seen that would stop a start: what one would restore.
    public var isGood = true
    /// Nil of agents that did not say.
    public var change: VolumeChange?

    /// - Parameter claimed: as the node says; nil where it says nothing that is a time
    public init(sequence: UInt64, id: ObjectID, volume: Volume, committed: Double, claimed: Double?) {
        self.sequence = sequence
        self.id = id
        self.volume = volume
        self.committed = committed
        self.claimed = min(claimed ?? committed, committed)
    }

    /// - Parameter committed: nanoseconds since 1970 by the store's clock
    public init(_ snapshot: Snapshot, committed: Int64) {
        let record = snapshot.record
        self.init(
            sequence: record.sequence, id: snapshot.id,
            volume: Volume(node: record.node, path: record.volume, lineage: record.lineage),
            committed: Double(committed) / 1e9, claimed: parseTime(record.finished))
        set = record.set
        keepFor = record.keepFor
        policy = record.policy?.name
        isComplete = record.complete
        isGood = record.complete && record.consistency == .atomic && record.inspection?.starts != false
        change = VolumeChange(record.statistics)
    }

    public var shortID: String { String("\(id)".prefix(8)) }

    /// The order in which snapshots were made, whatever clocks said.
    static func isOlder(_ left: Self, _ right: Self) -> Bool { (left.sequence, left.id) < (right.sequence, right.id) }
}

/// A snapshot that is listed and cannot be read: nobody knows what goes with it.
public struct UnreadableSnapshot: Sendable {
    public let name: SnapshotName
    /// Seconds since 1970 by the store's clock.
    public let committed: Double
    /// What is wrong with it.
    public let problem: String
}
