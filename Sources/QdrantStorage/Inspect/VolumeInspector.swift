import BackupBase

/// Reads a Qdrant volume offline and finds what would stop a start, or falsify
/// what it shows. Nothing is written, everything that is read is bounded.
///
/// What Qdrant makes of each finding: docs/inspect.md.
public struct VolumeInspector {
    public struct Options: Sendable {
        /// Bytes of log segments that are read at the most; nil reads all.
        public var logLimit: Int64? = 256 << 20
        /// Bytes of a segment's id changes that are read; points of what has more are estimated.
        public var mappingLimit = 64 << 20
        /// Whether the snapshot is labelled fuzzy; nil where it is not a snapshot.
        public var isFuzzy = false

        public init() {}
    }

    let tree: StorageTree
    let options: Options
    private var found = VolumeInspection()
    private var logRoom: Int64

    public init(_ tree: StorageTree, options: Options = Options()) {
        self.tree = tree
        self.options = options
        logRoom = options.logLimit ?? .max
    }

    public mutating func inspect() async throws -> VolumeInspection {
        if options.isFuzzy {
            note(
                .fuzzyCapture, .warning, "",
                "the snapshot is fuzzy: its files may be of different moments, and points may be missing",
                "Use an atomic snapshot; --capture tells how they are made.")
        }
        guard tree.hasDirectory("collections") else {
            note(
                .noQdrantVolume, .forbids, "", "it has no collections/: this is no Qdrant storage directory",
                "Give the directory that storage.storage_path names.")
            return found
        }
        try await inspectAliases()
        for file in tree.list("collections").sorted(by: { $0.name < $1.name }) where file.isDirectory && !file.name.hasPrefix(".")
        {
            try await inspectCollection(file.name)
        }
        try await inspectRaft()
        sniffVersion()
        found.findings.sort { ($0.severity, $1.path, $1.code.rawValue) > ($1.severity, $0.path, $0.code.rawValue) }
        return found
    }

    private mutating func note(
        _ code: Finding.Code, _ severity: Finding.Severity, _ path: String, _ message: String, _ remedy: String
    ) {
        found.note(Finding(code, severity, path, message, remedy: remedy))
    }

    private func json(_ path: String) async throws -> JSONValue? {
        try await tree.read(path).flatMap { try? JSONValue(parsing: $0) }
    }

    private mutating func inspectAliases() async throws {
        for (name, target) in try await json("aliases/data.json")?.object ?? [:] { found.aliases[name] = target.string }
    }

    // MARK: - Collections

    private mutating func inspectCollection(_ name: String) async throws {
        let path = "collections/\(name)"
        guard var config = try await json("\(path)/config.json"), config.object != nil else {
            return note(
                .collectionUnreadable, .forbids, "\(path)/config.json", "it is missing or no JSON: Qdrant does not start",
                "Use an earlier snapshot, or remove the collection's directory and lose it.")
        }
        var collection = VolumeInspection.Collection(name: name)
        collection.uuid = config["uuid"].string
        config["uuid"] = .null
        collection.configuration = String(decoding: try config.encoded, as: UTF8.self)
        collection.vectors = Self.vectors(config["params"])
        if let keys = try await json("\(path)/shard_key_mapping.json"), !keys.isEmpty {
            collection.shardKeys = String(decoding: try keys.encoded, as: UTF8.self)
        }
        try await inspectTransfers(path, &collection)
        for file in tree.list(path).sorted(by: { (UInt64($0.name) ?? 0) < (UInt64($1.name) ?? 0) }) where file.isDirectory {
            guard let id = UInt64(file.name) else { continue }
            collection.shards.append(try await inspectShard(id, path))
        }
        findMissingShards(path, config["params"], collection)
        found.collections.append(collection)
    }

    /// Every node has a directory for every shard, of those elsewhere too. With
    /// shard keys of the user's the ids are in `shard_key_mapping.json`.
    private mutating func findMissingShards(
        _ path: String, _ params: JSONValue, _ collection: VolumeInspection.Collection
    ) {
        guard params["sharding_method"].string != "custom", let count = params["shard_number"].unsigned, count < 10_000 else {
            return
        }
        let there = Set(collection.shards.map(\.id))
        for id in 0..<count where !there.contains(id) {
            note(
                .shardMissing, .forbids, "\(path)/\(id)", "the shard's directory is missing: its points are not served",
                "Use an earlier snapshot.")
        }
    }

    private static func vectors(_ params: JSONValue) -> [String: VolumeInspection.Vector] {
        let all = params["vectors"]
        let named = all["size"].unsigned != nil ? ["": all] : all.object ?? [:]
        var vectors = named.mapValues { vector in
            VolumeInspection.Vector(
                size: vector["size"].unsigned, distance: vector["distance"].string,
                quantization: vector["quantization_config"].object?.keys.sorted().first)
        }
        for name in (params["sparse_vectors"].object ?? [:]).keys {
            vectors[name] = VolumeInspection.Vector(size: nil, distance: "sparse", quantization: nil)
        }
        return vectors
    }

    private mutating func inspectTransfers(_ path: String, _ collection: inout VolumeInspection.Collection) async throws {
        if let transfers = try await json("\(path)/shard_transfers"), !transfers.isEmpty {
            collection.openTransfers = transfers.array?.count ?? 1
            note(
                .openTransfer, .warning, "\(path)/shard_transfers",
                "\(collection.openTransfers) shard transfer was under way: its target's replica is partial",
                "Start from this node only if its replicas are Active, and replicate the others anew.")
        }
        if let state = try await json("\(path)/resharding_state.json"), !state.isEmpty {
            collection.isResharding = true
            note(
                .resharding, .forbids, "\(path)/resharding_state.json",
                "the collection was being resharded: points may stand in two shards, and the new cluster cannot go on with it",
                "Use a snapshot from before or after the resharding.")
        }
        for file in tree.list(path) where file.name.hasSuffix(".initializing") {
            note(
                .shardInitializing, .forbids, "\(path)/\(file.name)",
                "the shard was being made: Qdrant loads it as an empty stand-in",
                "Use a snapshot of another replica of this shard, or an earlier one.")
        }
    }

    // MARK: - Shards

    private mutating func inspectShard(_ id: UInt64, _ collection: String) async throws -> VolumeInspection.Shard {
        let path = "\(collection)/\(id)"
        var shard = VolumeInspection.Shard(id: id)
        shard.isInitializing = tree.file("\(collection)/shard_\(id).initializing") != nil
        if tree.file("\(path)/shard_config.json") == nil {
            note(
                .shardUnreadable, .forbids, "\(path)/shard_config.json",
                "it is missing: it is the last file of a new shard, which Qdrant does not load without it",
                "Use an earlier snapshot.")
        }
        try await inspectReplicas(path, &shard)
        guard shard.isLocal else { return shard }
        try await inspectSegments(path, &shard)
        try await inspectLog(path, &shard)
        try await inspectClocks(path, &shard)
        return shard
    }

    private mutating func inspectReplicas(_ path: String, _ shard: inout VolumeInspection.Shard) async throws {
        guard let state = try await json("\(path)/replica_state.json"), let own = state["this_peer_id"].unsigned else {
            return note(
                .replicaUnreadable, .forbids, "\(path)/replica_state.json",
                "it is missing or no replica state: the shard does not load",
                "Use an earlier snapshot.")
        }
        shard.isLocal = state["is_local"].bool ?? false
        shard.replicas = (state["peers"].object ?? [:]).compactMapValues(\.string)
        shard.state = shard.replicas["\(own)"]
        guard shard.isLocal else { return }
        if let known = shard.state, known != "Active" {
            note(
                .replicaNotActive, .warning, "\(path)/replica_state.json",
                "this node's replica is \(known): it lacks writes that others have, and --reinit would call it Active all the same",
                "Seed this shard from a node whose replica is Active.")
        } else if shard.state == nil {
            note(
                .replicaOfAnother, .warning, "\(path)/replica_state.json", "the replica belongs to no peer that it knows",
                "Seed this shard from another node.")
        }
        let dead = shard.replicas.filter { $0.value == "Dead" && $0.key != "\(own)" }.keys.sorted()
        if !dead.isEmpty {
            note(
                .replicaPeerDead, .note, "\(path)/replica_state.json",
                "the replica on peer \(dead.joined(separator: ", ")) is Dead",
                "Do not seed this shard from that peer.")
        }
    }

    private mutating func inspectSegments(_ path: String, _ shard: inout VolumeInspection.Shard) async throws {
        let folders = tree.list("\(path)/segments").filter(\.isDirectory).sorted { $0.name < $1.name }
        for folder in folders {
            let place = "\(path)/segments/\(folder.name)"
            if folder.name.hasSuffix(".deleted") {
                note(
                    .segmentRemovedAtStart, .note, place, "the segment was being deleted: Qdrant removes the rest at start",
                    "Nothing: its points are in other segments.")
                continue
            }
            var inspector = SegmentInspector(place, of: tree, mappingLimit: options.mappingLimit)
            let (segment, findings) = try await inspector.inspect()
            shard.segments.append(segment)
            WorkPulse.beat()
            for finding in findings { found.note(finding) }
        }
        shard.points = shard.segments.compactMap(\.points).reduce(0, &+)
        if shard.segments.isEmpty {
            note(
                .noSegments, .warning, "\(path)/segments", "the shard has no segments: all that it shows comes from its log",
                "Compare the number of points with another replica's.")
        }
    }

    private mutating func inspectLog(_ path: String, _ shard: inout VolumeInspection.Shard) async throws {
        let folder = "\(path)/wal"
        if let bytes = try await tree.read("\(folder)/first-index", limit: 4096) {
            shard.acknowledged = (try? JSONValue(parsing: bytes))?["ack_index"].unsigned
            if shard.acknowledged == nil {
                note(
                    .ackUnreadable, .forbids, "\(folder)/first-index",
                    "it is empty or no JSON: the shard does not load (qdrant#7956)",
                    "Remove this file from the restored volume: the whole log is then applied once more, which changes nothing.")
            }
        }
        let size = tree.list(folder).reduce(0) { $0 + $1.size }
        guard size <= logRoom else {
            found.unreadLogs += 1
            return
        }
        logRoom -= size
        guard let log = try await LogDirectory.read(folder, of: tree), log.segments > 0 else {
            return note(
                .logMissing, .forbids, folder,
                "the shard has no write-ahead log: new writes would get numbers that segments have seen, and be dropped silently",
                "Use a snapshot that has it; never delete it.")
        }
        shard.log = log
        for finding in Self.findings(log, folder) { found.note(finding) }
        compare(shard, log, path)
    }

    static func findings(_ log: LogDirectory, _ folder: String) -> [Finding] {
        var findings = log.problems.map { problem in
            problem.kind == .brokenInTheMiddle
                ? Finding(
                    .logBrokenInTheMiddle, .forbids, problem.path, "\(problem.detail): Qdrant drops them without a word",
                    remedy: "Use an earlier snapshot, or another replica.")
                : Finding(
                    .logBroken, .forbids, problem.path, "\(problem.detail): the log does not open",
                    remedy: "Use an earlier snapshot, or another replica.")
        }
        for path in log.torn {
            findings.append(
                Finding(
                    .logTorn, .note, path,
                    "its last record is not whole, as after a power cut: it was never acknowledged as durable",
                    remedy: "Nothing: the log ends before it."))
        }
        return findings
    }

    /// Operations get the numbers of the log: where segments have seen higher
    /// ones, what is written after the start is taken for old.
    private mutating func compare(_ shard: VolumeInspection.Shard, _ log: LogDirectory, _ path: String) {
        guard let seen = shard.lastOperation, seen > 0, log.last.map({ seen > $0 }) ?? true else { return }
        note(
            .segmentsNewerThanLog, .forbids, "\(path)/wal",
            "segments have seen operation \(seen), the log ends with \(log.last.map { "\($0)" } ?? "none"): "
                + "the next \(seen - (log.last ?? 0)) writes would be accepted and silently lost",
            "Use an atomic snapshot: the log and the segments in this one are of different moments.")
    }

    private func inspectClocks(_ path: String, _ shard: inout VolumeInspection.Shard) async throws {
        for clock in try await json("\(path)/newest_clocks.json")?["clocks"].array ?? [] {
            guard let peer = clock["peer_id"].unsigned, let id = clock["clock_id"].unsigned,
                let tick = clock["current_tick"].unsigned
            else { continue }
            shard.clocks["\(peer)/\(id)"] = tick
        }
    }
}

// MARK: - Raft and version

extension VolumeInspector {
    private mutating func inspectRaft() async throws {
        guard tree.file(RaftState.path) != nil else {
            if tree.file(RaftState.legacyPath) != nil {
                note(
                    .raftStateLegacy, .warning, RaftState.legacyPath,
                    "the raft state is in CBOR, as before Qdrant 1.0: it is not read here, and not made harmless",
                    "Start it once, isolated from its cluster, with a version that rewrites it.")
            } else {
                note(
                    .raftStateMissing, .warning, RaftState.path,
                    "it is missing: the node would get a new id, and own none of the shards in a cluster",
                    "Use a snapshot that has it.")
            }
            return
        }
        guard let document = try await json(RaftState.path), let state = RaftState(document) else {
            return note(
                .raftStateUnreadable, .forbids, RaftState.path, "it is no raft state: Qdrant does not start",
                "Use an earlier snapshot.")
        }
        let log = try await RaftLog.read(tree)
        var raft = VolumeInspection.Raft(
            peer: state.peer, term: state.term, commit: state.commit, voters: state.voters, learners: state.learners,
            isJoint: state.isJoint, snapshotIndex: state.snapshotIndex, hasPending: state.pending != nil,
            addresses: Self.byText(state.addresses), versions: Self.byText(state.versions))
        raft.lastIndex = max(log?.lastIndex ?? 0, state.snapshotIndex)
        raft.logAddresses = log?.addresses ?? []
        found.raft = raft
        findRaft(state, raft, log)
    }

    private static func byText(_ byPeer: [UInt64: String]) -> [String: String] {
        byPeer.reduce(into: [:]) { $0["\($1.key)"] = $1.value }
    }

    private mutating func findRaft(_ state: RaftState, _ raft: VolumeInspection.Raft, _ log: RaftLog?) {
        if let log {
            for problem in log.log.problems where problem.kind != .missing {
                note(
                    .raftLogBroken, .forbids, problem.path, "\(problem.detail): the raft log does not open or ends early",
                    "Use an earlier snapshot.")
            }
        } else if state.commit > 0 {
            note(
                .raftLogMissing, .forbids, RaftLog.folder, "it is missing, and the raft state refers to it",
                "Use a snapshot that has it.")
        }
        if log != nil, state.commit > raft.lastIndex ?? 0 {
            note(
                .commitBeyondLog, .forbids, RaftState.path,
                "it says that entry \(state.commit) is committed, and the raft log ends with \(raft.lastIndex ?? 0): "
                    + "Qdrant panics at start (qdrant#4683)",
                "Use an atomic snapshot: state and log in this one are of different moments.")
        }
        if state.isJoint {
            note(
                .jointConsensus, .warning, RaftState.path,
                "the cluster's membership was being changed: before Qdrant 1.19 a node does not leave that state (#10059)",
                "Use another snapshot as the first peer, or Qdrant 1.19 and later.")
        }
        if let pending = state.pending {
            note(
                .pendingEntries, .warning, RaftState.path,
                "entries \(pending.lowerBound) to \(pending.upperBound) were committed and not applied: "
                    + "a first peer applies them at start, with any addresses that they have (#9654)",
                "Begin the new cluster with another node, or with Qdrant 1.19 and later.")
        }
        if !state.foreignAddresses.isEmpty {
            note(
                .foreignPeers, .note, RaftState.path,
                "it knows \(state.foreignAddresses.count) other peer(s), which a start with another address would call: "
                    + state.foreignAddresses.prefix(5).joined(separator: ", "),
                "Nothing: 'bgbackup restore' takes them out, unless --keep-identity is given.")
        }
        if Set(state.versions.values).count > 1 {
            note(
                .versionsDiffer, .warning, RaftState.path,
                "the peers had different versions: \(Set(state.versions.values).sorted().joined(separator: ", "))",
                "Bring blue to one version before its snapshots seed a cluster.")
        }
    }

    /// Traces of versions: `applied_seq.json` came with 1.17, `quota.json` with
    /// 1.19; RocksDB went with 1.18 (#8529).
    private mutating func sniffVersion() {
        var version = VolumeInspection.Version()
        if let raft = found.raft { version.told = raft.versions["\(raft.peer)"].flatMap { ServerVersion($0) } }
        func atLeast(_ minimum: ServerVersion, _ feature: String) {
            version.features.append(feature)
            version.atLeast = max(version.atLeast ?? minimum, minimum)
        }
        let shards = found.collections.flatMap { collection in collection.shards.map { "collections/\(collection.name)/\($0.id)" }
        }
        if shards.contains(where: { tree.file("\($0)/applied_seq.json") != nil }) { atLeast(ServerVersion(1, 17), "applied_seq") }
        if tree.file("quota.json") != nil { atLeast(ServerVersion(1, 19), "quota") }
        if shards.contains(where: { tree.file("\($0)/segments_manifest.json") != nil }) {
            atLeast(ServerVersion(1, 19), "segments_manifest")
        }
        if found.hasRocksDB {
            version.features.append("rocksdb")
            version.atMost = ServerVersion(1, 17)
        }
        found.version = version
    }
}
