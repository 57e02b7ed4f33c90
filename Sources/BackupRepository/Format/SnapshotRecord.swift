import BackupBase
import FoundationEssentials

/// What a snapshot says about itself (docs/format.md, "Snapshot").
public struct SnapshotRecord: Codable, Sendable {
    public enum Kind: String, Codable, Sendable { case tree, device }
    public enum Consistency: String, Codable, Sendable { case atomic, fuzzy }

    public var sequence: UInt64
    public var node: String
    public var volume: String
    public var kind: Kind
    public var lineage: String
    public var parent: String?
    public var started: String
    public var finished: String
    public var capture: String
    public var consistency: Consistency
    public var tags: [String]
    public var set: String?
    /// The cluster that the node belongs to, as the operator calls it.
    public var cluster: String?
    public var agent: String
    public var complete: Bool
    public var problems: [String]
    public var statistics: [String: Int64]
    /// Nil where it is no Qdrant volume, and of agents that did not look.
    public var inspection: InspectionSummary?
    /// Seconds for which its schedule keeps it; nil where none says.
    public var keepFor: Double?
    /// The policy that it was made under; nil where none was named.
    public var policy: PolicyRecord?
    /// Nil where no server was asked, or it did not answer.
    public var fingerprint: FingerprintRecord?
    /// Of the machine that it was made on, as uname(2) names it; nil of agents
    /// that did not say, and of what came from elsewhere.
    public var architecture: String?
    /// Of what a repair made from a damaged one, its parent.
    public var repair: RepairRecord?

    public init(
        sequence: UInt64, node: String, volume: String, kind: Kind, lineage: String, parent: String?,
        started: String, finished: String, capture: String, consistency: Consistency, tags: [String],
        set: String?, agent: String, complete: Bool, problems: [String], statistics: [String: Int64]
    ) {
        self.sequence = sequence
        self.node = node
        self.volume = volume
        self.kind = kind
        self.lineage = lineage
        self.parent = parent
        self.started = started
        self.finished = finished
        self.capture = capture
        self.consistency = consistency
        self.tags = tags
        self.set = set
        self.agent = agent
        self.complete = complete
        self.problems = problems
        self.statistics = statistics
    }
}

/// That the owner made a snapshot from a damaged one: what a writer says to be one gives nobody reason to forget that.
public struct RepairRecord: Codable, Sendable {
    /// Files, and stretches of the manifest, that are left out.
    public var lost: Int
    /// The owner's, of `sealed`.
    var seal: String

    static func sealed(_ parent: ObjectID, _ id: ObjectID, lost: Int) -> String { "repair \(parent) \(id) \(lost)" }
}

/// What was seen in the volume when it was backed up: whether Qdrant would start on it.
public struct InspectionSummary: Codable, Sendable {
    public struct Finding: Codable, Sendable {
        public var code: String
        public var severity: String
        public var path: String

        public init(code: String, severity: String, path: String) {
            self.code = code
            self.severity = severity
            self.path = path
        }
    }

    public var starts: Bool
    /// An estimate.
    public var points: UInt64
    public var collections: Int
    /// Of the server, as far as the volume tells.
    public var version: String?
    public var peer: UInt64?
    /// All peers of its cluster, as it knew them.
    public var peers: [UInt64]?
    public var findings: [Finding]

    /// Findings that are kept: the rest is found again by looking again.
    public static let mostFindings = 100

    public init(
        starts: Bool, points: UInt64, collections: Int, version: String?, peer: UInt64?, peers: [UInt64],
        findings: [Finding]
    ) {
        self.starts = starts
        self.points = points
        self.collections = collections
        self.version = version
        self.peer = peer
        self.peers = peers
        self.findings = findings
    }
}

/// The policy that a snapshot was made under.
public struct PolicyRecord: Codable, Sendable {
    public var name: String
    /// Nil where none of its schedules was named.
    public var schedule: String?
    /// The effective policy as JSON, without secrets; nil in lists.
    public var document: String?

    /// Bytes of a document at the most.
    public static let documentLimit = 64 << 10

    public init(name: String, schedule: String?, document: String?) {
        self.name = name
        self.schedule = schedule
        self.document = document
    }
}

/// What the running server answered when its volume was captured.
public struct FingerprintRecord: Codable, Sendable {
    /// RFC 3339.
    public var taken: String
    /// Seconds from the capture to the fingerprint's beginning (negative: it began before), and that it took.
    public var seconds: Double
    public var duration: Double
    /// JSON of whoever made it.
    public var document: String

    /// Bytes of a document at the most.
    public static let documentLimit = 1 << 20

    public init(taken: String, seconds: Double, duration: Double, document: String) {
        self.taken = taken
        self.seconds = seconds
        self.duration = duration
        self.document = document
    }
}

/// A snapshot as read: its id, record, and the manifest's chunks.
public struct Snapshot: Sendable, Identifiable {
    public let id: ObjectID
    public let record: SnapshotRecord
    let manifest: Extents

    public var name: SnapshotName { SnapshotName(sequence: record.sequence, id: id) }

    /// Bytes of the object, and that its body may inflate to: 10 million files
    /// need a fiftieth, and a hostile writer gets no more memory than this allows.
    static let bodyLimit = 8 << 20

    static func encode(_ record: SnapshotRecord, manifest: Extents) throws -> [UInt8] {
        let encoder = JSONEncoder()
        encoder.outputFormatting = [.sortedKeys, .withoutEscapingSlashes]
        var writer = ByteWriter()
        writer.sized(Array(try encoder.encode(record)))
        manifest.encode(to: &writer)
        return writer.bytes
    }

    init(id: ObjectID, decoding bytes: [UInt8]) throws {
        var reader = ByteReader(bytes)
        let json = try reader.sized(limit: 4 << 20)
        guard var record = try? JSONDecoder().decode(SnapshotRecord.self, from: Data(json)) else {
            throw FormatError("its record is no snapshot record")
        }
        // A writer's words, which are added up and multiplied: 2^50 is more than any volume has, and no sum of them overflows.
        record.statistics = record.statistics.mapValues { min(max(0, $0), 1 << 50) }
        manifest = try Extents(from: &reader)
        try reader.expectEnd()
        guard !manifest.runs.contains(where: { if case .zero = $0 { true } else { false } }) else {
            throw FormatError("a manifest chunk is stored nowhere")
        }
        self.id = id
        self.record = record
    }
}

/// A snapshot as listed: what its name tells without any key.
public struct SnapshotName: Sendable, Hashable, Comparable {
    public let sequence: UInt64
    public let id: ObjectID

    static let prefix = "v1/snapshots/"

    public var object: String {
        let digits = String(sequence, radix: 16)
        return Self.prefix + String(repeating: "0", count: 16 - digits.count) + digits + "-\(id)"
    }

    public init(sequence: UInt64, id: ObjectID) {
        self.sequence = sequence
        self.id = id
    }

    init?(object: String) {
        guard object.hasPrefix(Self.prefix) else { return nil }
        let parts = object.dropFirst(Self.prefix.count).split(separator: "-", omittingEmptySubsequences: false)
        guard parts.count == 2, parts[0].utf8.count == 16, let sequence = UInt64(parts[0], radix: 16),
            // Whoever may put an object must not be able to name one after which no other can come.
            sequence < 1 << 62, let id = ObjectID(hex: parts[1])
        else { return nil }
        self.init(sequence: sequence, id: id)
    }

    public static func < (left: Self, right: Self) -> Bool { (left.sequence, left.id) < (right.sequence, right.id) }
}
