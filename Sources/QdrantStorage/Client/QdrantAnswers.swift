/// Names a point: an unsigned 64-bit number or a UUID.
public enum PointID: Sendable, Hashable, CustomStringConvertible {
    case number(UInt64)
    case uuid(String)

    init?(_ json: JSONValue) {
        switch json {
        case .unsigned(let number): self = .number(number)
        case .string(let text) where text.utf8.count <= 45: self = .uuid(text.lowercased())
        default: return nil
        }
    }

    public var json: JSONValue {
        switch self {
        case .number(let number): .unsigned(number)
        case .uuid(let text): .string(text)
        }
    }

    public var description: String {
        switch self {
        case .number(let number): "\(number)"
        case .uuid(let text): text
        }
    }
}

/// A point as it is stored.
public struct StoredPoint: Sendable {
    public let id: PointID
    /// An object; null where there is none.
    public let payload: JSONValue
    /// As the server writes it: an array, or an object of named ones.
    public let vector: JSONValue

    init?(_ json: JSONValue) {
        guard let id = PointID(json["id"]) else { return nil }
        self.id = id
        payload = json["payload"]
        vector = json["vector"]
    }
}

/// A point as a search finds it.
public struct FoundPoint: Sendable {
    public let id: PointID
    public let score: Double

    init?(_ json: JSONValue) {
        guard let id = PointID(json["id"]), let score = json["score"].double else { return nil }
        self.id = id
        self.score = score
    }
}

/// `GET /collections/{c}`
public struct CollectionInfo: Sendable {
    /// green, yellow, grey or red.
    public let status: String
    /// Nil where all is well.
    public let optimizerError: String?
    /// Approximate.
    public let indexedVectors: UInt64
    /// Without the collection's UUID, which servers do not tell.
    public let config: JSONValue
    public let schema: [String: JSONValue]
    /// Updates that wait; nil of servers before 1.17.
    public let queueLength: UInt64?
    public let warnings: Int

    init?(_ json: JSONValue) {
        guard let status = json["status"].string, json["config"].object != nil else { return nil }
        self.status = status
        switch json["optimizer_status"] {
        case .string("ok"): optimizerError = nil
        case let other:
            optimizerError = other["error"].string ?? "\((try? String(decoding: other.encoded, as: UTF8.self)) ?? "?")"
        }
        indexedVectors = json["indexed_vectors_count"].unsigned ?? 0
        config = json["config"]
        schema = json["payload_schema"].object ?? [:]
        queueLength = json["update_queue"]["length"].unsigned
        warnings = json["warnings"].array?.count ?? 0
    }
}

/// `GET /cluster`
public struct ClusterInfo: Sendable {
    public let isEnabled: Bool
    /// Nil without clustering.
    public let peer: UInt64?
    /// URIs by peer id.
    public let peers: [UInt64: String]
    public let pendingOperations: UInt64
    /// What is wrong with the consensus thread; nil where it works.
    public let consensusError: String?
    /// Addresses to which messages could not be sent.
    public let unreachable: [String]

    init?(_ json: JSONValue) {
        guard let status = json["status"].string else { return nil }
        isEnabled = status == "enabled"
        peer = json["peer_id"].unsigned
        var peers: [UInt64: String] = [:]
        for (id, value) in json["peers"].object ?? [:] {
            guard let id = UInt64(id), let uri = value["uri"].string else { return nil }
            peers[id] = uri
        }
        self.peers = peers
        pendingOperations = json["raft_info"]["pending_operations"].unsigned ?? 0
        let thread = json["consensus_thread_status"]
        let state = thread["consensus_thread_status"].string ?? "working"
        consensusError = state == "working" ? nil : [state, thread["err"].string].compactMap { $0 }.joined(separator: ": ")
        unreachable = (json["message_send_failures"].object ?? [:]).keys.sorted()
    }
}

/// `GET /collections/{c}/cluster`
public struct CollectionCluster: Sendable {
    public struct Replica: Sendable {
        public let shard: UInt64
        public let peer: UInt64
        /// "Active", "Dead", "Partial", …
        public let state: String
        /// Nil of replicas on other nodes.
        public let points: UInt64?
    }

    public let peer: UInt64
    public let shards: UInt64
    public let replicas: [Replica]
    public let transfers: Int
    public let isResharding: Bool

    init?(_ json: JSONValue) {
        guard let peer = json["peer_id"].unsigned, let shards = json["shard_count"].unsigned else { return nil }
        self.peer = peer
        self.shards = shards
        var replicas: [Replica] = []
        for (list, isLocal) in [(json["local_shards"], true), (json["remote_shards"], false)] {
            for item in list.array ?? [] {
                guard let shard = item["shard_id"].unsigned, let state = item["state"].string,
                    let owner = isLocal ? peer : item["peer_id"].unsigned
                else { return nil }
                replicas.append(
                    Replica(shard: shard, peer: owner, state: state, points: isLocal ? item["points_count"].unsigned : nil))
            }
        }
        self.replicas = replicas
        transfers = json["shard_transfers"].array?.count ?? 0
        isResharding = !json["resharding_operations"].isEmpty
    }

    /// Counts of the replicas on this node, by shard: a real server estimates them (`exact: false` in its cluster_info).
    public var localPoints: [UInt64: UInt64] {
        Dictionary(replicas.compactMap { replica in replica.points.map { (replica.shard, $0) } }) { first, _ in first }
    }
}
