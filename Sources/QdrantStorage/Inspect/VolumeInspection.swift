/// What a volume holds, as far as it can be seen without starting Qdrant.
public struct VolumeInspection: Sendable, Codable {
    public internal(set) var raft: Raft?
    public internal(set) var collections: [Collection] = []
    public internal(set) var aliases: [String: String] = [:]
    public internal(set) var version = Version()
    public internal(set) var findings: [Finding] = []
    /// Logs that were not read to the end, to be quick.
    public internal(set) var unreadLogs = 0

    public struct Raft: Sendable, Codable {
        public let peer: UInt64
        public let term: UInt64
        public let commit: UInt64
        public let voters: [UInt64]
        public let learners: [UInt64]
        public let isJoint: Bool
        public let snapshotIndex: UInt64
        /// Index of the log's last entry, or of the snapshot that stands for what came before it.
        public internal(set) var lastIndex: UInt64?
        public internal(set) var hasPending: Bool
        /// By peer id.
        public let addresses: [String: String]
        public let versions: [String: String]
        /// Addresses that entries of the log carry.
        public internal(set) var logAddresses: [RaftLog.Address] = []
    }

    /// Of the server that wrote the volume, from the only traces there are.
    public struct Version: Sendable, Codable {
        /// What the peers told each other.
        public internal(set) var told: ServerVersion?
        /// Not older than this, by the files that it has.
        public internal(set) var atLeast: ServerVersion?
        public internal(set) var atMost: ServerVersion?
        public internal(set) var features: [String] = []
    }

    public struct Collection: Sendable, Codable {
        public let name: String
        public internal(set) var uuid: String?
        /// `config.json` without the UUID, with sorted keys: equal where two nodes agree.
        public internal(set) var configuration = ""
        public internal(set) var vectors: [String: Vector] = [:]
        public internal(set) var shardKeys = ""
        public internal(set) var shards: [Shard] = []
        public internal(set) var openTransfers = 0
        public internal(set) var isResharding = false
        public var points: UInt64 { shards.reduce(0) { $0 &+ ($1.points ?? 0) } }
    }

    public struct Vector: Sendable, Codable {
        public let size: UInt64?
        public let distance: String?
        public let quantization: String?
    }

    public struct Shard: Sendable, Codable {
        public let id: UInt64
        /// Whether this node holds its data.
        public internal(set) var isLocal = false
        /// The state of this node's replica, as this node saw it.
        public internal(set) var state: String?
        /// All replicas by peer id.
        public internal(set) var replicas: [String: String] = [:]
        public internal(set) var segments: [SegmentInspection] = []
        public internal(set) var log: LogDirectory?
        public internal(set) var acknowledged: UInt64?
        public internal(set) var isInitializing = false
        /// Highest ticks by "peer/clock": which of two replicas has seen more.
        public internal(set) var clocks: [String: UInt64] = [:]
        public internal(set) var points: UInt64?
        public var bytes: Int64 { segments.reduce(0) { $0 + $1.bytes } }
        /// The last operation that any segment has seen.
        public var lastOperation: UInt64? { segments.compactMap(\.lastOperation).max() }
    }

    public var points: UInt64 { collections.reduce(0) { $0 &+ $1.points } }
    public var segments: [SegmentInspection] { collections.flatMap { $0.shards.flatMap(\.segments) } }
    public var hasRocksDB: Bool { segments.contains(where: \.hasRocksDB) }
    /// Whether a start on the volume would work and show all that was written.
    public var canStart: Bool { !findings.contains { $0.severity == .forbids } }

    mutating func note(_ finding: Finding) { findings.append(finding) }
}
