import BackupBase
import FoundationEssentials

/// What a running server answered at a moment, small enough to lie beside a
/// snapshot, for comparing with a server that was started on the restored data.
public struct ServerFingerprint: Sendable, Codable {
    /// Names bytes; the same everywhere a fingerprint is made or compared.
    public typealias Digest = @Sendable ([UInt8]) -> [UInt8]

    public struct Shard: Sendable, Codable, Hashable {
        public let id: UInt64
        /// Of the node's own replica, as `/collections/{c}/cluster` has it: a real server estimates it (docs/drill.md).
        public let points: UInt64

        /// Share by which two estimates of the same points may differ: those that lie
        /// in two segments while the optimizer works are counted twice.
        static let tolerance = 0.1
        static let note = "counts by shard are the server's estimates"
    }

    public struct Sample: Sendable, Codable, Hashable {
        public let id: JSONValue
        /// Digests as hexadecimal.
        public let payload: String
        public let vectors: String

        init(_ point: StoredPoint, _ digest: Digest) throws {
            id = point.id.json
            payload = try payloadDigest(point.payload, digest)
            vectors = try vectorDigest(point.vector, digest)
        }
    }

    /// An exact search.
    public struct Search: Sendable, Codable {
        public let using: String
        /// The vector that was searched for, or a point's id where that would be long.
        public let query: JSONValue
        public let ids: [JSONValue]
        public let scores: [Double]
    }

    public struct Collection: Sendable, Codable {
        public let name: String
        /// Exact, of the whole cluster.
        public let points: UInt64
        public let shards: [Shard]
        /// Shards of the whole cluster.
        public let shardCount: UInt64
        public let status: String
        public let optimizer: String
        /// Approximate.
        public let indexedVectors: UInt64
        /// Digest of the configuration.
        public let configuration: String
        /// Whether anything seen of it changed while the fingerprint was made.
        public var wasWritten = false
        /// After `confirm`, those that stayed the same.
        public var samples: [Sample] = []
        public var searches: [Search] = []

        /// Points of the replicas on the node itself.
        var localPoints: UInt64 { shards.reduce(0) { $0 + $1.points } }
        /// Whether the node has a replica of each shard.
        var isWhole: Bool { UInt64(shards.count) >= shardCount }
    }

    public let format: Int
    public let version: ServerVersion
    public internal(set) var collections: [Collection] = []
    /// Collections of which there was no time or room for all.
    public internal(set) var omitted: [String] = []

    init(version: ServerVersion) {
        format = 1
        self.version = version
    }

    /// Bytes of the text at the most: a listing of snapshots reads all of them.
    public static let sizeLimit = 256 << 10

    /// JSON.
    public var text: String {
        get throws {
            let encoder = JSONEncoder()
            encoder.outputFormatting = [.sortedKeys, .withoutEscapingSlashes]
            return String(decoding: try encoder.encode(self), as: UTF8.self)
        }
    }

    /// - Throws: `.damaged` where it is none, or of a later format
    public init(text: String) throws {
        guard let found = try? JSONDecoder().decode(ServerFingerprint.self, from: Data(text.utf8)), found.format == 1 else {
            throw BackupError(.damaged, "the snapshot's fingerprint of the server cannot be read")
        }
        self = found
    }

    // MARK: - Digests

    static func payloadDigest(_ payload: JSONValue, _ digest: Digest) throws -> String {
        digest(try (payload.isEmpty ? JSONValue.object([:]) : payload).encoded).hex
    }

    static func vectorDigest(_ vector: JSONValue, _ digest: Digest) throws -> String {
        var bytes: [UInt8] = []
        for (name, value) in StoredVector.named(vector).sorted(by: { $0.key < $1.key }) {
            bytes += Array(name.utf8) + [0]
            bytes += try StoredVector(value)?.canonicalBytes ?? value.encoded
        }
        return digest(bytes).hex
    }

    static func configurationDigest(_ config: JSONValue, _ digest: Digest) throws -> String { digest(try config.encoded).hex }
}
