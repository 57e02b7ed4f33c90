import ArgumentParser
import BackupBase
import BackupEngine
import BackupRepository
import Glibc
import VolumeIO

struct ExportCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "export", abstract: "Write a snapshot, or parts of it, as a tar archive.",
        discussion: """
            The archive is pax tar: holes, owners (as numbers), modes, times to the nanosecond, extended attributes, \
            access lists, hard and symbolic links and names of any bytes are kept. GNU tar unpacks all of that with \
            'tar --xattrs --xattrs-include=* --acls -xpf', bsdtar with 'bsdtar -xpf'.

            Everything is verified while it is read. FILE gets its name when it is whole and on the disk, and replaces \
            what had it before; without -o the archive goes to standard output, and a failure leaves one there that tar \
            reports as damaged. Exit status 3 says that some metadata has no place in a tar archive.

            qdrant-collection writes the collection of --collection as the .snapshot file that Qdrant itself would make, \
            qdrant-shard the shard of --shard of it: for Qdrant's own recovery, without aliases and cluster state.
            """)

    enum Format: String, ExpressibleByArgument, CaseIterable {
        case tar
        case tarGzip = "tar.gz"
        case tarZstd = "tar.zst"
        case qdrantCollection = "qdrant-collection"
        case qdrantShard = "qdrant-shard"
    }

    @OptionGroup var global: GlobalOptions
    @Argument(help: "Snapshot: id, prefix, latest or latest@NODE.") var snapshot: String
    @Argument(help: "Only these and what is below them, relative to the volume's root.") var paths: [String] = []
    @Option(name: [.customShort("o"), .long], help: ArgumentHelp("Write to this file.", valueName: "file"))
    var output: String?
    @Option(help: "What to write (default: what the file's name says, else tar).") var format: Format?

    @Option(help: "The collection of a qdrant format.") var collection: String?
    @Option(help: "The number of the shard of qdrant-shard.") var shard: UInt32?

    struct Summary: Encodable {
        let message_type = "summary"
        let schema = 1
        let snapshot_id: String
        let format: String
        let files: Int
        let directories: Int
        let bytes_total: Int64
        let bytes_written: Int64
        let duration_seconds: Double
        let problems: [String]
    }

    func validate() throws {
        if output == nil, global.json {
            throw ValidationError("--json needs -o: without it the archive itself goes to standard output.")
        }
        let isQdrant = format == .qdrantCollection || format == .qdrantShard
        guard isQdrant == (collection != nil), (format == .qdrantShard) == (shard != nil), !isQdrant || paths.isEmpty else {
            throw ValidationError(
                "--format qdrant-collection takes --collection, qdrant-shard --collection and --shard, and neither takes paths.")
        }
    }

    private var chosen: Format {
        if let format { return format }
        let name = output?.lowercased() ?? ""
        if name.hasSuffix(".gz") || name.hasSuffix(".tgz") { return .tarGzip }
        if name.hasSuffix(".zst") || name.hasSuffix(".tzst") { return .tarZstd }
        return .tar
    }

    mutating func run() async throws {
        if output == nil, isatty(STDOUT_FILENO) == 1 {
            throw BackupError(
                .usage, "an archive does not belong on a terminal", hint: "Give -o FILE, or lead the output into a program.")
        }
        let repository = try await Session(options: global).open()
        let found = try await repository.select(snapshot)
        let board = ProgressBoard()
        let line = ProgressLine(board, global)
        defer { line.stop() }
        do {
            try await export(found, repository, board, line)
        } catch let error as TargetError where error.isFull {
            throw BackupError(.targetFull, "there is no space left for the archive", cause: error)
        } catch let error as TargetError {
            throw BackupError(.targetFailed, "the archive could not be written", cause: error)
        } catch let error as ArchiveError {
            throw BackupError(.failed, "the archive could not be made", cause: error)
        }
    }

    private func export(
        _ found: Snapshot, _ repository: Repository, _ board: ProgressBoard, _ line: ProgressLine
    ) async throws {
        let file = try ArchiveFile(path: output.map(absolute))
        var written: Int64 = 0
        let report: ExportReport
        do {
            let filter: ArchiveWriter.Filter =
                switch chosen {
                case .tar, .qdrantCollection, .qdrantShard: .none
                case .tarGzip: .gzip
                case .tarZstd: .zstd
                }
            let archive = try ArchiveWriter(collection == nil ? .pax : .gnu, filter) { bytes in
                try file.write(bytes)
                written += Int64(bytes.count)
            }
            if let collection {
                report = try await QdrantExport(repository: repository, collection: collection, shard: shard, board: board)
                    .run(found, into: archive)
            } else {
                report = try await ExportRun(repository: repository, paths: paths.map { snapshotPath($0) }, board: board)
                    .run(found, into: archive)
            }
            try archive.finish()
            try file.keep()
        } catch {
            file.spoil()
            throw error
        }
        line.stop()
        try show(report, written)
    }

    private func show(_ report: ExportReport, _ written: Int64) throws {
        for problem in report.problems.prefix(global.verbose ? .max : 20) { Terminal.note("bgbackup: \(problem)", .warning) }
        if global.json {
            try Output.document(
                Summary(
                    snapshot_id: "\(report.snapshot)", format: chosen.rawValue, files: report.files,
                    directories: report.directories, bytes_total: report.bytesTotal, bytes_written: written,
                    duration_seconds: rounded(report.duration), problems: report.problems), lines: true)
        } else if !global.quiet, let output {
            Output.line(
                "exported snapshot \("\(report.snapshot)".prefix(8)) to \(output): \(report.files) files, \(report.directories) directories, \(formatBytes(report.bytesTotal)); \(formatBytes(written)) written in \(formatDuration(report.duration))"
            )
        }
        if !report.problems.isEmpty { throw ExitCode(BackupError.Code.incomplete.exitStatus) }
    }
}
