/// One node's part of a cluster that is to be seeded from: a snapshot, and what was seen in it.
public struct ClusterVolume: Sendable {
    /// The blue node's name.
    public let node: String
    public let snapshot: String
    /// When it was captured: seconds since 1970.
    public let moment: Double
    public let isAtomic: Bool
    public let inspection: VolumeInspection
    /// The version that the running server told when it was backed up; nil where none was asked.
    public let answered: ServerVersion?
    /// Of the machine that wrote it, as uname(2) names it; nil where it is not known.
    public let architecture: String?

    public init(
        node: String, snapshot: String, moment: Double, isAtomic: Bool, inspection: VolumeInspection,
        answered: ServerVersion? = nil, architecture: String? = nil
    ) {
        self.node = node
        self.snapshot = snapshot
        self.moment = moment
        self.isAtomic = isAtomic
        self.inspection = inspection
        self.answered = answered
        self.architecture = architecture
    }

    var peer: UInt64? { inspection.raft?.peer }
    /// What the server itself said is exact; what peers told each other may be
    /// of before an upgrade.
    var version: ServerVersion? { answered ?? inspection.version.told }

    func collection(_ name: String) -> VolumeInspection.Collection? {
        inspection.collections.first { $0.name == name }
    }

    /// The node's own replica of a shard; nil where it has no data of it.
    func replica(_ collection: String, _ shard: UInt64) -> VolumeInspection.Shard? {
        self.collection(collection)?.shards.first { $0.id == shard && $0.isLocal }
    }
}
