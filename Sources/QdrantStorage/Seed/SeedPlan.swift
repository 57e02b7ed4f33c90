/// How N restored volumes become one green cluster: who goes where, who is
/// first, what is started how, and what does not come along.
///
/// The procedure is the one that Qdrant tests itself
/// (tests/consensus_tests/test_reinit_consensus.py): the first peer starts with
/// `--reinit` as the only voter, the others join it with `--bootstrap` and
/// `--reinit`, which clears their raft log and keeps their ids. Never twice.
public struct SeedPlan: Sendable, Codable {
    public struct Node: Sendable, Codable {
        /// The blue node and its snapshot; nil for a node that begins empty.
        public let blue: String?
        public let snapshot: String?
        public let peer: UInt64?
        /// Of the green node, as `--uri` has it.
        public let uri: String
        public let isFirst: Bool
        /// The first start, which must not be repeated.
        public let firstStart: String
        /// Every later start.
        public let laterStart: String
    }

    /// Two replicas of a shard that are not the same.
    public struct Skew: Sendable, Codable {
        public let collection: String
        public let shard: UInt64
        public let replicas: [Replica]

        public struct Replica: Sendable, Codable {
            public let node: String
            public let points: UInt64?
            public let lastOperation: UInt64?
            /// Sum of the write clocks: the higher has seen more.
            public let ticks: UInt64
            public let isNewest: Bool
        }
    }

    public private(set) var schema = 1
    /// In the order in which they are started.
    public private(set) var nodes: [Node] = []
    public private(set) var objections: [TopologyGate.Objection] = []
    public private(set) var skews: [Skew] = []
    /// What the operator has to know or do, in order.
    public private(set) var notes: [String] = []
    /// Seconds between the first and the last capture.
    public private(set) var spread: Double = 0

    public var isRefused: Bool { objections.contains { $0.severity == .refuses } }

    private enum CodingKeys: String, CodingKey { case schema, nodes, objections, skews, notes, spread }

    public struct Request: Sendable {
        /// Addresses of the green nodes, in the order in which blue's nodes are given.
        public var uris: [String]
        /// The blue node to begin with; nil: the one that knows most.
        public var first: String?
        /// The version that green runs; nil: blue's.
        public var target: ServerVersion?
        /// Of green's machines, as uname(2) names it; nil: not known.
        public var architecture: String?

        public init(uris: [String], first: String? = nil, target: ServerVersion? = nil, architecture: String? = nil) {
            self.uris = uris
            self.first = first
            self.target = target
            self.architecture = architecture
        }
    }

    public init(_ volumes: [ClusterVolume], _ request: Request) {
        objections = TopologyGate(volumes).objections
        let moments = volumes.map(\.moment)
        spread = (moments.max() ?? 0) - (moments.min() ?? 0)
        checkRequest(volumes, request)
        let first = chooseFirst(volumes, request)
        place(volumes, request, first)
        findSkews(volumes)
        checkTarget(volumes, request)
        if let first { explainLog(first) }
        explainCount(volumes, request)
    }

    private mutating func refuse(_ nodes: [String], _ message: String, _ remedy: String) {
        objections.append(TopologyGate.Objection(severity: .refuses, nodes: nodes, message: message, remedy: remedy))
    }

    private mutating func warn(_ nodes: [String], _ message: String, _ remedy: String) {
        objections.append(TopologyGate.Objection(severity: .warns, nodes: nodes, message: message, remedy: remedy))
    }

    // MARK: - Request

    private mutating func checkRequest(_ volumes: [ClusterVolume], _ request: Request) {
        if Set(request.uris).count < request.uris.count {
            refuse([], "two green nodes have the same address", "Give each its own.")
        }
        let blue = Set(volumes.flatMap { $0.inspection.raft.map { Array($0.addresses.values) } ?? [] }.map(Self.normal))
        for uri in request.uris where blue.contains(Self.normal(uri)) {
            refuse([], "\(uri) is an address of blue", "Give green addresses of its own: blue would be talked to.")
        }
        for uri in request.uris where !Self.isAddress(uri) {
            refuse([], "'\(uri)' is no address of a node", "Give http://HOST:6335, as qdrant --uri takes it.")
        }
    }

    /// Whether two spellings are one address.
    public static func same(_ one: String, _ other: String) -> Bool { normal(one) == normal(other) }

    static func normal(_ uri: String) -> String {
        let text = uri.lowercased()
        return text.hasSuffix("/") ? String(text.dropLast()) : text
    }

    /// A shell and a unit get it: nothing but a plain URL.
    public static func isAddress(_ uri: String) -> Bool {
        guard let scheme = ["http://", "https://"].first(where: { uri.hasPrefix($0) }) else { return false }
        let rest = normal(String(uri.dropFirst(scheme.count)))
        let allowed = rest.utf8.allSatisfy { byte in
            (0x30...0x39).contains(byte) || (0x61...0x7a).contains(byte) || [0x2d, 0x2e, 0x3a, 0x5b, 0x5d, 0x5f].contains(byte)
        }
        guard allowed, !rest.isEmpty, rest.utf8.count < 300, let colon = rest.lastIndex(of: ":") else { return false }
        guard let port = Int(rest[rest.index(after: colon)...]), (1...65_535).contains(port) else { return false }
        return colon > rest.startIndex
    }

    // MARK: - The first peer

    /// What speaks against beginning with a volume; nil: nothing.
    private static func obstacle(_ volume: ClusterVolume) -> String? {
        guard let raft = volume.inspection.raft else { return "it has no raft state" }
        if raft.isJoint { return "its cluster's membership was being changed" }
        if raft.hasPending { return "it has committed entries that it did not apply" }
        if raft.learners.contains(raft.peer) { return "it was a learner" }
        // As the only voter it would commit them, with the addresses in them.
        if let last = raft.lastIndex, last > raft.commit { return "its raft log goes beyond what was committed" }
        return nil
    }

    private mutating func chooseFirst(_ volumes: [ClusterVolume], _ request: Request) -> ClusterVolume? {
        if let name = request.first {
            guard let chosen = volumes.first(where: { $0.node == name }) else {
                refuse([name], "there is no snapshot of \(name), which is to be first", "Give one of the nodes.")
                return nil
            }
            if let obstacle = Self.obstacle(chosen), volumes.count > 1 {
                refuse([name], "\(name) cannot be first: \(obstacle)", "Choose another node, or another set.")
            }
            return chosen
        }
        let able = volumes.filter { Self.obstacle($0) == nil }
        // The highest commit knows every collection; of equals, the first given.
        let best = able.max { one, other in
            (one.inspection.raft!.commit, one.inspection.raft!.term) < (
                other.inspection.raft!.commit, other.inspection.raft!.term
            )
        }
        let highest = volumes.compactMap { $0.inspection.raft?.commit }.max()
        if let best, let highest, best.inspection.raft!.commit < highest {
            warn(
                [best.node],
                "the node that knows most cannot be first; \(best.node) is "
                    + "\(highest - best.inspection.raft!.commit) raft entries behind it",
                "Changes of collections in them are lost; use another set if there were any.")
        }
        if best == nil, volumes.count > 1 || volumes.first?.inspection.raft != nil {
            let why = volumes.map { "\($0.node): \(Self.obstacle($0) ?? "")" }.joined(separator: "; ")
            refuse(volumes.map(\.node), "no node can be first (\(why))", "Use another set.")
        }
        return best ?? volumes.first
    }

    // MARK: - Places and commands

    private mutating func place(_ volumes: [ClusterVolume], _ request: Request, _ first: ClusterVolume?) {
        guard let first, let position = volumes.firstIndex(where: { $0.snapshot == first.snapshot }) else { return }
        guard volumes.count <= request.uris.count else {
            refuse(
                [], "\(volumes.count) volumes and \(request.uris.count) green addresses",
                "Give an address for each volume. Fewer nodes: restore all, then move shards and remove peers.")
            return
        }
        let firstURI = request.uris[position]
        let order = [position] + volumes.indices.filter { $0 != position }
        for index in order {
            let (volume, uri) = (volumes[index], request.uris[index])
            let join = index == position ? "" : "--bootstrap \(firstURI) "
            nodes.append(
                Node(
                    blue: volume.node, snapshot: volume.snapshot, peer: volume.peer, uri: uri, isFirst: index == position,
                    firstStart: "qdrant \(join)--uri \(uri) --reinit", laterStart: "qdrant --uri \(uri)"))
        }
        for uri in request.uris.dropFirst(volumes.count) {
            nodes.append(
                Node(
                    blue: nil, snapshot: nil, peer: nil, uri: uri, isFirst: false,
                    firstStart: "qdrant --bootstrap \(firstURI) --uri \(uri)", laterStart: "qdrant --uri \(uri)"))
        }
    }

    // MARK: - What differs

    private mutating func findSkews(_ volumes: [ClusterVolume]) {
        for name in Set(volumes.flatMap { $0.inspection.collections.map(\.name) }).sorted() {
            let shards = Set(volumes.flatMap { $0.collection(name)?.shards.map(\.id) ?? [] }).sorted()
            for id in shards {
                let held = volumes.compactMap { volume in volume.replica(name, id).map { (volume.node, $0) } }
                guard held.count > 1 else { continue }
                let ticks = held.map { $0.1.clocks.values.reduce(0, &+) }
                let differs =
                    Set(ticks).count > 1 || Set(held.map(\.1.points)).count > 1 || Set(held.map(\.1.lastOperation)).count > 1
                guard differs else { continue }
                let newest = zip(ticks, held).map { ($0, $1.1.lastOperation ?? 0, $1.1.points ?? 0) }.max { $0 < $1 }!
                skews.append(
                    Skew(
                        collection: name, shard: id,
                        replicas: zip(ticks, held).map { tick, replica in
                            Skew.Replica(
                                node: replica.0, points: replica.1.points, lastOperation: replica.1.lastOperation, ticks: tick,
                                isNewest: (tick, replica.1.lastOperation ?? 0, replica.1.points ?? 0) == newest)
                        }))
            }
        }
        for skew in skews {
            let newest = skew.replicas.first(where: \.isNewest)?.node ?? "?"
            let older = skew.replicas.filter { !$0.isNewest }.map(\.node).joined(separator: ", ")
            notes.append(
                "Shard \(skew.shard) of \(skew.collection) differs: \(newest) has seen most. Once green runs, drop the replica on "
                    + "\(older) and replicate it anew (POST /collections/\(skew.collection)/cluster, drop_replica, replicate_shard)."
            )
        }
    }

    private mutating func checkTarget(_ volumes: [ClusterVolume], _ request: Request) {
        checkArchitecture(volumes, request)
        guard let target = request.target else { return }
        let source = volumes.compactMap(\.version).max()
        // Files tell only what it was at least: enough to see that green is older.
        let least = volumes.compactMap(\.inspection.version.atLeast).max()
        var gate = VersionGate(from: source, to: target, hasRocksDB: volumes.contains { $0.inspection.hasRocksDB })
        if gate == .unknown, let least, ServerVersion(target.major, target.minor) < least { gate = .downgrade }
        let found = source.map { "\($0)" } ?? least.map { "\($0) or later" } ?? "an unknown version"
        let text = "blue ran \(found), green is to run \(target)"
        if gate.isRefused {
            refuse([], text, "\(gate.advice.prefix(1).uppercased())\(gate.advice.dropFirst()).")
        } else if gate == .unknown {
            warn([], text, "Make sure that it is at most one minor version newer.")
        }
    }

    private mutating func checkArchitecture(_ volumes: [ClusterVolume], _ request: Request) {
        let others = volumes.filter { $0.architecture != nil && $0.architecture != request.architecture }
        guard let own = request.architecture, let there = others.first?.architecture else { return }
        warn(
            others.map(\.node), "\(others.map(\.node).joined(separator: ", ")) ran on \(there), this machine is \(own)",
            "If green's machines are \(own) as well: \(CPUArchitecture.caution)")
    }

    /// Addresses in log entries are applied by nobody: the first peer has
    /// applied all of its log, the others' logs are cleared as they join.
    private mutating func explainLog(_ first: ClusterVolume) {
        guard let raft = first.inspection.raft, !raft.logAddresses.isEmpty else { return }
        let indexes = raft.logAddresses.map(\.index)
        notes.append(
            "The raft log of \(first.node) has \(raft.logAddresses.count) addresses of blue, in entries up to "
                + "\(indexes.max() ?? 0); all up to \(raft.commit) are applied and none is again. The other nodes' logs "
                + "are cleared by --reinit.")
    }

    private mutating func explainCount(_ volumes: [ClusterVolume], _ request: Request) {
        let extra = request.uris.count - volumes.count
        if extra > 0 {
            notes.append(
                "\(extra) green node\(extra == 1 ? " begins" : "s begin") empty: move or replicate shards to "
                    + "\(extra == 1 ? "it" : "them") once all are ready.")
        }
        let held = Set(volumes.compactMap(\.peer))
        let known = Set(volumes.flatMap { volume in volume.inspection.raft.map { $0.voters + $0.learners } ?? [] })
        for peer in known.subtracting(held).sorted() where !held.isEmpty {
            notes.append(
                "Peer \(peer) does not come along: once green runs, DELETE /cluster/peer/\(peer)?force=true, and replicate "
                    + "the shards that it had.")
        }
        if spread > 1, volumes.count > 1 {
            notes.append("The captures are \(Int(spread.rounded())) s apart: writes in between are on some replicas only.")
        }
        notes.append("Start one node at a time and wait until its /readyz answers 200. Never give --reinit a second time.")
    }
}
