import ArgumentParser
import BackupBase
import BackupEngine
import BackupRepository
import FoundationEssentials
import QdrantStorage
import VolumeIO

struct ImportCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "import", abstract: "Make a snapshot of a tar archive of a volume, or of Qdrant's snapshot file.",
        discussion: """
            FILE is tar (ustar, pax or GNU), plain or compressed (gzip, bzip2, xz, lzma, lzip, lz4, zstd, compress); - is \
            standard input. Its top, or the one directory there, is the volume's root and holds 'collections'. It is read \
            once and not unpacked; of its blocks those that the repository has are not stored again, and the snapshot can \
            be restored like any other.

            Snapshot files of Qdrant are taken too: of a collection (--collection, or the name in the file's) and of a full \
            storage. They have no cluster state; --single-node makes this node the only owner of their shards.

            An archive does not say how it was made, so that the snapshot is labelled 'fuzzy', captured by 'import', unless \
            --consistency atomic vouches for it. The SHA-256 of --checksum, or of FILE.checksum where there is one, is \
            verified. An archive that is damaged, cut off or made to do harm ends with status 17, and nothing is committed.
            """)

    enum Consistency: String, ExpressibleByArgument, CaseIterable { case fuzzy, atomic }

    @OptionGroup var global: GlobalOptions
    @Argument(help: "Archive to read, or - for standard input.") var file: String
    @Option(help: "Name of the node that the volume is of.") var node: String
    @Option(help: ArgumentHelp("What to call the volume (default: the archive's path).", valueName: "name")) var volume: String?
    @Option(name: .customLong("tag"), help: ArgumentHelp("Label for the snapshot; may be given again.", valueName: "tag"))
    var tags: [String] = []
    @Option(help: "Name of the backup set that the snapshot belongs to.") var set: String?
    @Option(help: ArgumentHelp("The collection that a snapshot file is of (default: the file's name tells).", valueName: "name"))
    var collection: String?
    @Flag(help: "Make every replica of other nodes go: the volume is for one node alone.") var singleNode = false
    @Option(help: "Whether the archive is of one moment.") var consistency = Consistency.fuzzy
    @Option(help: ArgumentHelp("SHA-256 that the archive must have.", valueName: "hex")) var checksum: String?
    @Option(help: ArgumentHelp("Writer key file, instead of a password (or BGBACKUP_WRITER_KEY_FILE).", valueName: "file"))
    var writerKey: String?

    struct Summary: Encodable {
        let message_type = "summary"
        let schema = 1
        let snapshot_id: String
        let capture = "import"
        let consistency: String
        let files: Int
        let directories: Int
        let files_excluded: Int
        let bytes_total: Int64
        let bytes_new: Int64
        let bytes_stored: Int64
        let duration_seconds: Double
    }

    mutating func run() async throws {
        let session = Session(options: global)
        let path = file == "-" ? nil : absolute(file)
        var options = ImportOptions(
            path: path, node: node, volume: volume ?? path ?? "standard input", agent: BGBackup.agent)
        options.tags = tags
        options.set = set
        options.collection =
            collection
            ?? path.flatMap {
                SnapshotArchive.collection(ofFile: String($0.split(separator: "/").last ?? ""))
            }
        options.isSingleNode = singleNode
        options.consistency = consistency == .atomic ? .atomic : .fuzzy
        options.checksum = try wantedChecksum(path)
        options.cacheDirectory = session.cacheDirectory
        let repository = try await session.openForBackup(writerKeyFile: writerKey)
        let board = ProgressBoard()
        let line = ProgressLine(board, global)
        defer { line.stop() }
        let report = try await ImportRun(repository: repository, options: options, board: board).run()
        line.stop()
        try show(report)
    }

    /// What --checksum says, or the file that Qdrant puts beside a snapshot file.
    private func wantedChecksum(_ path: String?) throws -> [UInt8]? {
        let given = checksum
        let beside = path.map { "\($0).checksum" }
        guard let text = given ?? beside.flatMap({ LocalFile.readText($0) }) else { return nil }
        let digits = text.prefix { !$0.isWhitespace }.lowercased()
        guard let bytes = bytesFromHex(digits), bytes.count == 32 else {
            throw BackupError(
                .usage, given != nil ? "--checksum is no SHA-256" : "\(beside!) holds no SHA-256",
                hint: "Give 64 hexadecimal digits.")
        }
        return bytes
    }

    private func show(_ report: ImportReport) throws {
        let id = report.snapshot.map { "\($0.id)" } ?? ""
        if global.json {
            return try Output.document(
                Summary(
                    snapshot_id: id, consistency: consistency.rawValue, files: report.files,
                    directories: report.directories, files_excluded: report.excluded, bytes_total: report.bytesTotal,
                    bytes_new: report.bytesNew, bytes_stored: report.bytesStored, duration_seconds: rounded(report.duration)),
                lines: true)
        }
        guard !global.quiet else { return }
        Output.line(
            "snapshot \(id.prefix(8))  \(consistency.rawValue), \(report.files) files, \(report.directories) directories, \(formatBytes(report.bytesTotal))"
        )
        Output.line(
            "\(formatBytes(report.bytesNew)) new, \(formatBytes(report.bytesStored)) stored in \(formatDuration(report.duration))"
        )
    }
}
