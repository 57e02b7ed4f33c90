import ArgumentParser
import BackupBase
import BackupRepository

/// Objects of one kind in the store.
struct StoredKind: Encodable {
    let kind: String
    let objects: Int
    let bytes: Int64

    /// By name.
    static func all(of statistics: Repository.Statistics) -> [StoredKind] {
        statistics.kinds.sorted { $0.key < $1.key }
            .map { StoredKind(kind: $0.key, objects: $0.value.objects, bytes: $0.value.bytes) }
    }
}

extension RepoCommand {
    struct Stats: AsyncParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "Count the store's objects and bytes, by kind; with --detail what snapshots and nodes cost.",
            discussion: """
                Without --detail the store is listed and nothing is read. With it every snapshot and manifest is: which \
                packs are needed, how much deduplication and compression save, by node, and the largest snapshots. \
                Deduplication: bytes of all snapshots by bytes that were new when they were made; compression: new bytes \
                by bytes stored for them.
                """)
        @OptionGroup var global: GlobalOptions
        @Flag(help: "Read the snapshots too.") var detail = false

        struct Packs: Encodable {
            let live: Int64
            let unused: Int64
            /// In packs of which snapshots need a part.
            let wasted: Int64
        }

        struct Node: Encodable {
            var node: String
            var snapshots = 0
            var bytes_total: Int64 = 0
            var bytes_new: Int64 = 0
            var bytes_stored: Int64 = 0
            var newest = ""

            mutating func add(_ record: SnapshotRecord) {
                snapshots += 1
                bytes_total += record.statistics["bytes_total"] ?? 0
                bytes_new += record.statistics["bytes_new"] ?? 0
                bytes_stored += record.statistics["bytes_stored"] ?? 0
                newest = max(newest, record.finished)
            }
            var deduplication: Double { bytes_new > 0 ? rounded(Double(bytes_total) / Double(bytes_new)) : 0 }
            var compression: Double { bytes_stored > 0 ? rounded(Double(bytes_new) / Double(bytes_stored)) : 0 }
        }

        struct Largest: Encodable {
            let snapshot_id: String
            let node: String
            let bytes_total: Int64
            let bytes_stored: Int64
        }

        struct Document: Encodable {
            let message_type = "summary"
            let schema = 1
            let kinds: [StoredKind]
            let packs: Packs
            let snapshots: Int
            let unreadable: Int
            let deduplication: Double
            let compression: Double
            let nodes: [Node]
            let largest: [Largest]
        }

        mutating func run() async throws {
            let repository = try await Session(options: global).open()
            let statistics = try await repository.statistics()
            let kinds = StoredKind.all(of: statistics)
            guard detail else { return global.json ? try Output.document(kinds) : Self.print(kinds) }
            let document = try await document(repository, kinds)
            if global.json { return try Output.document(document, lines: true) }
            Self.print(kinds)
            Self.print(document)
        }

        private func document(_ repository: Repository, _ kinds: [StoredKind]) async throws -> Document {
            var options = Prune.Options()
            options.dryRun = true
            let plan = try await Prune.run(repository, options) { _, _, _ in }
            var total = Node(node: "")
            var nodes: [String: Node] = [:]
            var largest: [Largest] = []
            var unreadable = 0
            for name in try await repository.snapshotNames() {
                do {
                    let snapshot = try await repository.snapshot(name)
                    total.add(snapshot.record)
                    nodes[snapshot.record.node, default: Node(node: snapshot.record.node)].add(snapshot.record)
                    largest.append(
                        Largest(
                            snapshot_id: "\(name.id)", node: snapshot.record.node,
                            bytes_total: snapshot.record.statistics["bytes_total"] ?? 0,
                            bytes_stored: snapshot.record.statistics["bytes_stored"] ?? 0))
                } catch let error as BackupError where error.code == .damaged {
                    unreadable += 1
                }
            }
            largest.sort { ($0.bytes_stored, $0.bytes_total) > ($1.bytes_stored, $1.bytes_total) }
            return Document(
                kinds: kinds,
                packs: Packs(
                    live: plan.needed.bytes, unused: plan.stored.bytes - plan.needed.bytes, wasted: plan.wasted),
                snapshots: total.snapshots, unreadable: unreadable, deduplication: total.deduplication,
                compression: total.compression, nodes: nodes.values.sorted { $0.node < $1.node },
                largest: Array(largest.prefix(5)))
        }

        private static func print(_ kinds: [StoredKind]) {
            let total = (kinds.reduce(0) { $0 + $1.objects }, kinds.reduce(0) { $0 + $1.bytes })
            Output.table(
                ["KIND", "OBJECTS", "SIZE"],
                kinds.map { [$0.kind, "\($0.objects)", formatBytes($0.bytes)] }
                    + [["total", "\(total.0)", formatBytes(total.1)]], right: [1, 2])
        }

        private static func print(_ document: Document) {
            Output.line("")
            Output.line(
                "packs: \(formatBytes(document.packs.live)) needed, \(formatBytes(document.packs.unused)) unused,"
                    + " \(formatBytes(document.packs.wasted)) wasted in packs that are needed in part")
            Output.line("deduplication \(document.deduplication), compression \(document.compression)")
            if document.unreadable > 0 { Output.line("\(document.unreadable) snapshots cannot be read: 'bgbackup check'") }
            Output.line("")
            Output.table(
                ["NODE", "SNAPSHOTS", "TOTAL", "NEW", "STORED", "DEDUP", "COMPRESSION", "NEWEST"],
                document.nodes.map {
                    [
                        printable($0.node.utf8), "\($0.snapshots)", formatBytes($0.bytes_total), formatBytes($0.bytes_new),
                        formatBytes($0.bytes_stored), "\($0.deduplication)", "\($0.compression)", String($0.newest.prefix(19)),
                    ]
                }, right: [1, 2, 3, 4, 5, 6])
            Output.line("")
            Output.table(
                ["LARGEST", "NODE", "TOTAL", "STORED"],
                document.largest.map {
                    [
                        String($0.snapshot_id.prefix(8)), printable($0.node.utf8), formatBytes($0.bytes_total),
                        formatBytes($0.bytes_stored),
                    ]
                }, right: [2, 3])
        }
    }
}
