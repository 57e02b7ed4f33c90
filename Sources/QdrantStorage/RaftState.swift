/// A node's `raft_state.json`: who it is, and what it knows of its cluster
/// (qdrant lib/storage/src/content_manager/consensus/persistent.rs, `Persistent`).
///
/// A view on the document, so that what later versions add comes through.
public struct RaftState: Sendable, Hashable {
    public static let path = "raft_state.json"
    /// What it was before 1.0, in CBOR; read only where the other one is missing.
    public static let legacyPath = "raft_state"

    public private(set) var document: JSONValue

    /// Nil where it is no raft state: Qdrant would not start on it.
    public init?(_ document: JSONValue) {
        let hard = document["state"]["hard_state"]
        guard document["this_peer_id"].unsigned != nil, hard["term"].unsigned != nil, hard["commit"].unsigned != nil,
            document["peer_address_by_id"].object != nil
        else { return nil }
        self.document = document
    }

    public var peer: UInt64 { document["this_peer_id"].unsigned ?? 0 }
    public var term: UInt64 { document["state"]["hard_state"]["term"].unsigned ?? 0 }
    public var commit: UInt64 { document["state"]["hard_state"]["commit"].unsigned ?? 0 }
    public var snapshotIndex: UInt64 { document["latest_snapshot_meta"]["index"].unsigned ?? 0 }
    public var voters: [UInt64] { configuration("voters") }
    public var learners: [UInt64] { configuration("learners") }

    /// Whether a change of the membership was under way (raft's joint consensus).
    public var isJoint: Bool { !configuration("voters_outgoing").isEmpty || !configuration("learners_next").isEmpty }

    private func configuration(_ name: String) -> [UInt64] { document["state"]["conf_state"][name].numbers ?? [] }

    /// Committed entries that the node had not applied: [next, last], all applied where next is beyond last.
    public var pending: ClosedRange<UInt64>? {
        guard let queue = document["apply_progress_queue"].numbers, queue.count == 2, queue[0] <= queue[1] else { return nil }
        return queue[0]...queue[1]
    }

    /// Addresses of the peers, the node's own among them, by id.
    public var addresses: [UInt64: String] { byPeer("peer_address_by_id").compactMapValues(\.string) }

    /// Versions of Qdrant that the peers told: the only place in a volume that has them.
    public var versions: [UInt64: String] { byPeer("peer_metadata_by_id").compactMapValues { $0["version"].string } }

    private func byPeer(_ name: String) -> [UInt64: JSONValue] {
        (document[name].object ?? [:]).reduce(into: [:]) { found, member in
            if let id = UInt64(member.key) { found[id] = member.value }
        }
    }

    // MARK: - Seeding

    /// The same node without anybody it could call: its id stays, since shards
    /// belong to it, all addresses go, and its own becomes `uri`.
    ///
    /// A start that finds an own address other than its `--uri` reports to
    /// every other address that is stored, and with none stored gives up
    /// (src/consensus.rs, `recover`); one that finds no own address does
    /// neither. So no address is the safe state where the new one is not known.
    ///
    /// - Parameters:
    ///   - uri: of the node in its new cluster, exactly as `--uri` will have it; nil: not known yet
    ///   - isFirst: whether the new cluster begins with it: it is the first voter then, whatever it was before (#9785)
    public func seeded(uri: String?, isFirst: Bool) -> RaftState {
        var copy = self
        copy.document["peer_address_by_id"] = .object(uri.map { ["\(peer)": .string($0)] } ?? [:])
        let own = document["peer_metadata_by_id"]["\(peer)"]
        copy.document["peer_metadata_by_id"] = .object(uri == nil || own.isNull ? [:] : ["\(peer)": own])
        if isFirst { copy.document["first_voter"] = .unsigned(peer) }
        return copy
    }

    /// Addresses in it of peers other than the node itself.
    public var foreignAddresses: [String] { addresses.filter { $0.key != peer }.values.sorted() }
}
