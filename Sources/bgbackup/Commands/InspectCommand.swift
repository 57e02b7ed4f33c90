import ArgumentParser
import BackupBase
import BackupEngine
import BackupRepository
import Glibc
import QdrantStorage

struct InspectCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "inspect", abstract: "Look into a Qdrant volume or snapshot without starting Qdrant.",
        discussion: """
            Reads a storage directory, or a snapshot straight from the repository, and writes nothing. Shows collections, \
            shards, segments, logs and the node's part in its cluster, and finds what would stop a start or falsify what \
            it shows: files that are missing or torn, segments newer than their log, a raft state beyond its log, \
            replicas that are not active. Exit status 17 says that a start on it is forbidden by a finding.

            Of a directory that a database is writing to, the files are seen at different moments: what is found there \
            may be none of the volume's faults.
            """)

    @OptionGroup var global: GlobalOptions
    @Argument(help: "Storage directory, or snapshot: id, prefix, latest or latest@NODE.") var source: String
    @Flag(help: "Read all logs to their end, however long, and every byte of a snapshot.") var deep = false

    struct Document: Encodable {
        let source: String
        let can_start: Bool
        let points: UInt64
        let inspection: VolumeInspection
    }

    mutating func run() async throws {
        let inspection = try await look()
        if global.json {
            try Output.document(
                Document(
                    source: source, can_start: inspection.canStart, points: inspection.points, inspection: inspection))
        } else {
            InspectionText(inspection, of: source, verbose: global.verbose).print()
        }
        if !inspection.canStart { throw ExitCode(BackupError.Code.damaged.exitStatus) }
    }

    private func look() async throws -> VolumeInspection {
        var status = stat()
        if source.contains("/") || source == "." || stat(source, &status) == 0 {
            return try await VolumeInspection.ofDirectory(absolute(source), deep: deep)
        }
        let repository = try await Session(options: global).open()
        let snapshot = try await repository.select(source)
        if deep {
            try await repository.forEachEntry(of: snapshot) { entry in
                if case .file(_, let content) = entry.kind { try await repository.read(content) { _ in } }
            }
        }
        return try await VolumeInspection.ofSnapshot(snapshot, in: repository, deep: deep)
    }
}

/// An inspection as tables for people.
private struct InspectionText {
    let inspection: VolumeInspection
    let source: String
    let verbose: Bool

    init(_ inspection: VolumeInspection, of source: String, verbose: Bool) {
        self.inspection = inspection
        self.source = source
        self.verbose = verbose
    }

    func print() {
        printNode()
        if !inspection.collections.isEmpty { printShards() }
        if verbose, !inspection.segments.isEmpty { printSegments() }
        printFindings()
    }

    private func printNode() {
        if inspection.findings.contains(where: { $0.code == .noQdrantVolume }) {
            return Output.line("\(printable(source.utf8)) is no Qdrant volume\n")
        }
        let version = inspection.version
        var text = "Qdrant \(version.told.map { "\($0)" } ?? "of an unknown version")"
        if let least = version.atLeast, version.told == nil { text += ", \(least) or later" }
        if let most = version.atMost { text += ", RocksDB as up to \(most.major).\(most.minor)" }
        Output.line(text)
        if let raft = inspection.raft {
            let others = Set(raft.voters + raft.learners).subtracting([raft.peer]).count
            Output.line(
                "peer \(raft.peer), \(others == 0 ? "alone" : "with \(others) other\(others == 1 ? "" : "s")"); raft term \(raft.term), commit \(raft.commit), log ends with \(raft.lastIndex ?? 0)"
            )
        }
        for (alias, target) in inspection.aliases.sorted(by: { $0.key < $1.key }) {
            Output.line("alias \(alias) of \(target)")
        }
        Output.line("")
    }

    private func printShards() {
        var rows: [[String]] = []
        for collection in inspection.collections {
            let vectors = collection.vectors.sorted { $0.key < $1.key }.map { name, vector in
                [name, vector.size.map { "\($0)" }, vector.distance, vector.quantization].compactMap { $0 }
                    .filter { !$0.isEmpty }.joined(separator: " ")
            }.joined(separator: ", ")
            for shard in collection.shards {
                rows.append([
                    collection.name, "\(shard.id)", shard.isLocal ? shard.state ?? "-" : "elsewhere",
                    shard.points.map { "\($0)" } ?? "-", "\(shard.segments.count)", formatBytes(shard.bytes),
                    shard.log.map { $0.next > $0.first ? "\($0.first)–\($0.next - 1)" : "empty" } ?? "-", vectors,
                ])
            }
        }
        Output.table(
            ["COLLECTION", "SHARD", "REPLICA", "POINTS ≈", "SEGMENTS", "SIZE", "LOG", "VECTORS"], rows, right: [1, 3, 4, 5])
        Output.line("")
    }

    private func printSegments() {
        Output.table(
            ["SEGMENT", "POINTS ≈", "SIZE", "FILES", "LAST OPERATION", "KIND"],
            inspection.segments.map { segment in
                [
                    segment.path, segment.points.map { "\($0)" } ?? "-", formatBytes(segment.bytes), "\(segment.files)",
                    segment.lastOperation.map { "\($0)" } ?? "-", segment.isAppendable ? "appendable" : "optimized",
                ]
            }, right: [1, 2, 3, 4])
        Output.line("")
    }

    private func printFindings() {
        let signs: [QdrantStorage.Finding.Severity: String] = [.forbids: "✗", .warning: "!", .note: "·"]
        for finding in inspection.findings where verbose || finding.severity > .note {
            let place = finding.path.isEmpty ? "" : "\(printable(finding.path.utf8)): "
            Output.line("\(signs[finding.severity]!) \(place)\(printable(finding.message.utf8))")
            Output.line("  \(finding.remedy)")
        }
        if inspection.unreadLogs > 0 {
            Output.line("· \(inspection.unreadLogs) logs were not read, to be quick; --deep reads them")
        }
        let forbidding = inspection.findings.filter { $0.severity == .forbids }.count
        Output.line(
            forbidding == 0
                ? "Nothing was found that would stop a start."
                : "\(forbidding) finding\(forbidding == 1 ? "" : "s") forbid\(forbidding == 1 ? "s" : "") a start on it.")
    }
}
