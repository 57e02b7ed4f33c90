/// Whether the volumes of several nodes fit together as one cluster.
///
/// A peer that joins applies the first one's list of collections: what is not
/// in it, or has another UUID or configuration, is deleted on the joiner
/// (qdrant lib/storage toc/collection_container.rs,
/// `apply_collections_snapshot`), and every replica that a joiner holds is
/// called Active, whatever it was (src/migrations/single_to_cluster.rs). So all
/// of it is compared before anything is started.
public struct TopologyGate: Sendable {
    public struct Objection: Sendable, Codable, Hashable {
        public enum Severity: String, Sendable, Codable { case refuses, warns }
        public let severity: Severity
        /// The blue nodes concerned.
        public let nodes: [String]
        public let message: String
        public let remedy: String
    }

    public private(set) var objections: [Objection] = []
    private let volumes: [ClusterVolume]

    public init(_ volumes: [ClusterVolume]) {
        self.volumes = volumes
        checkEach()
        checkPeers()
        checkVersions()
        checkCollections()
        checkAliases()
    }

    private mutating func refuse(_ nodes: [String], _ message: String, _ remedy: String) {
        objections.append(Objection(severity: .refuses, nodes: nodes, message: message, remedy: remedy))
    }

    private mutating func warn(_ nodes: [String], _ message: String, _ remedy: String) {
        objections.append(Objection(severity: .warns, nodes: nodes, message: message, remedy: remedy))
    }

    // MARK: - Each volume

    private mutating func checkEach() {
        for volume in volumes {
            if !volume.isAtomic {
                refuse(
                    [volume.node], "the snapshot \(volume.snapshot) of \(volume.node) is fuzzy: it may mix several moments",
                    "Seed from an atomic snapshot.")
            }
            for finding in volume.inspection.findings where finding.severity == .forbids {
                refuse([volume.node], "\(volume.node): \(finding.path): \(finding.message)", finding.remedy)
            }
            for collection in volume.inspection.collections { checkReplicas(volume, collection) }
        }
    }

    private mutating func checkReplicas(_ volume: ClusterVolume, _ collection: VolumeInspection.Collection) {
        if collection.openTransfers > 0 {
            refuse(
                [volume.node], "a shard of \(collection.name) was being transferred when \(volume.node) was backed up",
                "Use the backup set before or after it.")
        }
        for shard in collection.shards where shard.isLocal && shard.state != "Active" {
            refuse(
                [volume.node],
                "the replica of shard \(shard.id) of \(collection.name) on \(volume.node) is \(shard.state ?? "unknown"): "
                    + "--reinit would call it Active",
                "Leave \(volume.node) out, or use a set in which the replica is Active.")
        }
    }

    // MARK: - Peers

    private mutating func checkPeers() {
        let without = volumes.filter { $0.peer == nil }.map(\.node)
        if !without.isEmpty, volumes.count > 1 {
            refuse(without, "no raft state in the volume of \(without.joined(separator: ", "))", "Use another snapshot.")
        }
        let byPeer = Dictionary(grouping: volumes.filter { $0.peer != nil }, by: { $0.peer! })
        for (peer, same) in byPeer.sorted(by: { $0.key < $1.key }) where same.count > 1 {
            refuse(
                same.map(\.node), "\(same.map(\.node).joined(separator: " and ")) are the same peer \(peer)",
                "Take one snapshot of each node.")
        }
        let known = Set(volumes.flatMap { volume in volume.inspection.raft.map { $0.voters + $0.learners } ?? [] })
        for peer in known.subtracting(byPeer.keys).sorted() {
            let address = volumes.compactMap { $0.inspection.raft?.addresses["\(peer)"] }.first
            warn(
                [], "peer \(peer)\(address.map { " (\($0))" } ?? "") belongs to the cluster, and no snapshot of it is here",
                "Its replicas are lost; see whether each shard has another one.")
        }
        for volume in volumes where volume.inspection.raft?.learners.contains(volume.peer ?? 0) ?? false {
            warn([volume.node], "\(volume.node) was a learner: it had not caught up with the cluster", "Compare its points.")
        }
    }

    private mutating func checkVersions() {
        let versions = volumes.compactMap { volume in volume.version.map { (volume.node, $0) } }
        guard let lowest = versions.min(by: { $0.1 < $1.1 }), let highest = versions.max(by: { $0.1 < $1.1 }),
            lowest.1 != highest.1
        else { return }
        let text = "\(lowest.0) ran \(lowest.1), \(highest.0) \(highest.1)"
        if lowest.1.minor == highest.1.minor, lowest.1.major == highest.1.major {
            warn([lowest.0, highest.0], text, "Start all of green with one version.")
        } else {
            refuse([lowest.0, highest.0], text, "Bring blue to one minor version, back it up, and seed from that.")
        }
    }

    // MARK: - Collections

    private mutating func checkCollections() {
        let names = Set(volumes.flatMap { $0.inspection.collections.map(\.name) }).sorted()
        for name in names {
            let having = volumes.filter { $0.collection(name) != nil }
            let lacking = volumes.filter { $0.collection(name) == nil }.map(\.node)
            if !lacking.isEmpty {
                refuse(
                    lacking, "the collection \(name) is not on \(lacking.joined(separator: ", "))",
                    "It was made or deleted between the captures: use a set from before or after that.")
            }
            compare(name, having, "UUID") { $0.uuid ?? "none" }
            compare(name, having, "configuration") { $0.configuration }
            compare(name, having, "shard keys") { $0.shardKeys }
            compare(name, having, "shards") { $0.shards.map { "\($0.id)" }.joined(separator: ", ") }
            compareStates(name, having)
        }
    }

    private mutating func compare(
        _ name: String, _ volumes: [ClusterVolume], _ what: String, _ value: (VolumeInspection.Collection) -> String
    ) {
        let values = Dictionary(grouping: volumes, by: { value($0.collection(name)!) })
        guard values.count > 1 else { return }
        let groups = values.map { $0.value.map(\.node).joined(separator: "+") }.sorted().joined(separator: " against ")
        refuse(
            volumes.map(\.node), "the \(what) of the collection \(name) differ\(what.hasSuffix("s") ? "" : "s"): \(groups)",
            "What differs from the first peer is deleted on the others: use a set in which they agree.")
    }

    /// Nodes may have heard of a replica's state at different moments.
    private mutating func compareStates(_ name: String, _ volumes: [ClusterVolume]) {
        let shards = Set(volumes.flatMap { $0.collection(name)!.shards.map(\.id) }).sorted()
        for shard in shards {
            let maps = volumes.compactMap { volume -> [String: String]? in
                volume.collection(name)!.shards.first { $0.id == shard }?.replicas
            }
            if Set(maps).count > 1 {
                warn(
                    volumes.map(\.node), "the nodes do not agree on the replicas of shard \(shard) of \(name)",
                    "The first peer's view wins; look at the replicas once green runs.")
            }
            if !volumes.contains(where: { $0.replica(name, shard)?.state == "Active" }) {
                refuse(
                    volumes.map(\.node), "no volume here has an Active replica of shard \(shard) of \(name)",
                    "Add the snapshot of a node that has one.")
            }
        }
    }

    private mutating func checkAliases() {
        guard Set(volumes.map(\.inspection.aliases)).count > 1 else { return }
        warn(volumes.map(\.node), "the nodes do not agree on the aliases", "Those of the first peer win; set them anew on green.")
    }
}
