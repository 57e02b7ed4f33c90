import BackupBase
import BackupRepository

/// The snapshots of a cluster's nodes that belong to one scheduled moment.
struct BackupSet {
    let name: String
    let snapshots: [Snapshot]

    /// In the order of their first snapshots. A node that was backed up twice counts once, with the later one.
    static func group(_ snapshots: [Snapshot]) -> [BackupSet] {
        let named = snapshots.filter { $0.record.set != nil }
        let groups = Dictionary(grouping: named, by: { $0.record.set! })
        return groups.map { name, members in
            let byNode = Dictionary(members.map { ($0.record.node, $0) }, uniquingKeysWith: { $1 })
            return BackupSet(name: name, snapshots: byNode.values.sorted { $0.record.node < $1.record.node })
        }.sorted { $0.first < $1.first }
    }

    private var first: String { snapshots.map(\.record.started).min() ?? "" }

    /// Peers of the cluster, as its own raft states tell them.
    private var peers: Set<UInt64> { Set(snapshots.flatMap { $0.record.inspection?.peers ?? [] }) }

    /// Peers of which there is no snapshot.
    var missing: [UInt64] { peers.subtracting(snapshots.compactMap { $0.record.inspection?.peer }).sorted() }

    /// Nil where no snapshot tells who belongs to the cluster.
    var isComplete: Bool? { peers.isEmpty ? nil : missing.isEmpty }

    /// Seconds between the first and the last capture.
    var spread: Double {
        let moments = snapshots.compactMap { parseTime($0.record.started) }
        return (moments.max() ?? 0) - (moments.min() ?? 0)
    }

    /// Whether Qdrant would start on each; nil where one does not tell.
    var starts: Bool? {
        let all = snapshots.map { $0.record.inspection?.starts }
        return all.contains(nil) ? nil : all.allSatisfy { $0 == true }
    }

    var isAtomic: Bool { snapshots.allSatisfy { $0.record.consistency == .atomic && $0.record.complete } }

    private struct Document: Encodable {
        let set: String
        let complete: Nullable<Bool>
        let missing_peers: [UInt64]
        let spread_seconds: Double
        let atomic: Bool
        let starts: Nullable<Bool>
        let nodes: [String: String]
    }

    static func show(_ sets: [BackupSet], _ global: GlobalOptions) throws {
        if global.json {
            return try Output.document(
                sets.map { set in
                    Document(
                        set: set.name, complete: Nullable(set.isComplete), missing_peers: set.missing,
                        spread_seconds: rounded(set.spread), atomic: set.isAtomic, starts: Nullable(set.starts),
                        nodes: set.snapshots.reduce(into: [:]) { $0[$1.record.node] = "\($1.id)" })
                })
        }
        guard !sets.isEmpty else { return global.quiet ? () : Output.line("no backup sets; 'bgbackup backup --set' makes them") }
        Output.table(
            ["SET", "TIME (UTC)", "COMPLETE", "APART", "CONSISTENCY", "STARTS", "NODES"],
            sets.map { set in
                [
                    set.name, shortTime(set.first), set.completeness, formatDuration(set.spread),
                    set.isAtomic ? "atomic" : "fuzzy or incomplete", set.starts.map { $0 ? "yes" : "no" } ?? "-",
                    set.snapshots.map { "\($0.record.node) \("\($0.id)".prefix(8))" }.joined(separator: ", "),
                ]
            }, right: [3])
    }

    private var completeness: String {
        guard let isComplete else { return "unknown" }
        return isComplete ? "yes" : "\(peers.count - missing.count) of \(peers.count)"
    }
}
