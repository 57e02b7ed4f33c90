import BackupBase
import BackupRepository
import Glibc
import QdrantStorage
import VolumeIO

/// What to back up, and how.
public struct BackupOptions: Sendable {
    /// A directory, a block device or a raw image.
    public var path: String
    public var node: String
    public var tags: [String] = []
    public var set: String?
    /// What the operator calls the node's cluster.
    public var cluster: String?
    /// Read every file, whatever its stat says.
    public var rescan = false
    public var dryRun = false
    /// Where the node keeps its state; nil keeps none.
    public var stateDirectory: String?
    public var cacheDirectory: String?
    /// Text that names the program and its version.
    public var agent: String
    /// How to have the volume at one moment; nil: the best way that works.
    public var capture: CaptureMethod?
    /// Bytes read a second at the most.
    public var readLimit: Int?
    /// The program that makes the snapshot for `freeze`.
    public var captureHook: String?
    /// Seconds for which writes may be held.
    public var maxFreeze = 10.0
    /// Whether the capture stays for the next backup to compare with.
    public var keepsCapture = true
    /// The server that writes to the volume, to be asked what it holds; nil asks none.
    public var server: QdrantClient?
    /// Seconds for which its schedule keeps the snapshot; nil where none says.
    public var keepFor: Double?
    /// The policy that asks for it.
    public var policy: PolicyRecord?
    /// Make no snapshot of a volume that is as this manifest, of the parent, has it.
    public var unlessSame: BackupReport.Manifest?

    public init(path: String, node: String, agent: String) {
        self.path = path
        self.node = node
        self.agent = agent
    }
}

/// What a backup did: the summary of CLI.md.
public struct BackupReport: Sendable {
    /// Where the blocks are that list a snapshot's files: blocks are found by
    /// content, so that two of the same places list the same.
    public struct Manifest: Sendable, Equatable {
        public let snapshot: ObjectID
        public let extents: Extents
    }

    /// Nil of a dry run, and where nothing changed since the parent (`BackupOptions.unlessSame`).
    public var snapshot: SnapshotName?
    public var manifest: Manifest?
    public var parent: ObjectID?
    public var capture = "none"
    /// Why it was captured in this way.
    public var captureReason = ""
    public var consistency = SnapshotRecord.Consistency.fuzzy
    public var filesNew = 0
    public var filesChanged = 0
    public var filesUnmodified = 0
    /// Files left out because Qdrant throws them away at start.
    public var excluded = 0
    /// Apparent bytes of all files.
    public var bytesTotal: Int64 = 0
    public var bytesRead: Int64 = 0
    /// Bytes read to see whether what should not have changed did not; not in `bytesRead`.
    public var bytesAudited: Int64 = 0
    /// Bytes of files that an interrupted run had read and stored: not read again.
    public var bytesResumed: Int64 = 0
    /// Bytes that only the capture kept by the run before held any more when this one began, as far as extents tell.
    public var bytesPinned: Int64 = 0
    /// Bytes of plaintext no pack held before.
    public var bytesNew: Int64 = 0
    /// The same by what the files hold, in whole blocks; without metadata.
    public var bytesNewByRole: [FileRole: Int64] = [:]
    public var bytesStored: Int64 = 0
    public var duration = 0.0
    public var captureDuration = 0.0
    /// Nil where the volume is none of Qdrant's.
    public var inspection: InspectionSummary?
    /// What the running server said of itself.
    public var fingerprint: FingerprintRecord?
    /// That it changed unlike those before it, as far as this node remembers.
    public var anomaly: ChangeAnomaly?
    /// What is worth knowing and takes nothing from the snapshot.
    public var warnings: [String] = []
    /// What could not be read, or changed while it was read. Not empty: exit 3.
    public var problems: [String] = []

    public init() {}
}

/// One backup of one volume: capture → scan → read → block → known? → compress
/// → seal → pack → put → index → snapshot.
///
/// `SourceError` makes a problem and the run goes on; every other error ends it.
public final class BackupRun {
    /// By position in the scan: encoded, which is a fifth of what the parts
    /// take as values, and volumes have millions of files.
    typealias Contents = [Int: [UInt8]]

    let repository: Repository
    let options: BackupOptions
    let board: ProgressBoard
    let ambient: Ambient
    var report = BackupReport()
    var state: LocalState?
    /// What runs before this one read without making a snapshot, and what this
    /// one reads; nil where the node keeps no state.
    var journal: ReadJournal?
    /// Block lists, where a capture is kept to compare with.
    var lists: BlockListStore?
    /// Read everything: tracking was caught in a lie, or the operator says so.
    var readsAll: Bool
    let pace: ReadPace
    private let session: WriterSession?
    /// Whether a new snapshot may refer to a pack.
    var mayUse: (ObjectID) -> Bool = { _ in true }
    /// Contents whose block lists stand apart, as they are encoded, with the packs of blocks and lists: without the
    /// private key nobody can tell them from the content.
    var packsOfIndirect: [[UInt8]: Set<ObjectID>] = [:]
    /// What the server answered before the capture, and from when to when it was asked.
    var fingerprintBefore: (begin: Int64, end: Int64, ServerFingerprint)?
    private var nextState: LocalState.Builder
    let contentHasher: BlockHasher
    let digestHasher: BlockHasher

    /// Stretches read at once: what keeps a disk busy while two cores hash and
    /// compress; memory grows with it (docs/architecture.md, "Memory").
    static let width = 8

    /// - Parameter session: of the runs before this one, where they follow each other closely
    public init(
        repository: Repository, options: BackupOptions, board: ProgressBoard, ambient: Ambient = .system,
        session: WriterSession? = nil
    ) {
        self.session = session
        self.repository = repository
        self.options = options
        self.board = board
        self.ambient = ambient
        readsAll = options.rescan
        pace = ReadPace(limit: options.readLimit)
        nextState = LocalState.Builder(hasher: repository.keys.stateHasher)
        contentHasher = repository.keys.blockHasher
        digestHasher = repository.keys.digestHasher
    }

    public func run() async throws -> BackupReport {
        let started = ambient.now()
        let clock = monotonicSeconds()
        let lineage = self.lineage
        let place = try statePlace(lineage)
        let lock = try place.map { try VolumeLock(path: "\($0).lock") }
        defer { withExtendedLifetime(lock) {} }
        if options.dryRun {
            state = openState(place, listed: try await repository.snapshotNames())
            report.parent = state?.snapshot
            try dryRun()
            report.duration = monotonicSeconds() - clock
            return report
        }
        lists = place.flatMap { BlockListStore(directory: "\($0).blocks", hasher: repository.keys.stateHasher) }
        var captured: Captured?
        defer { captured?.capture?.release() }
        try await repository.withWriter(
            cache: options.cacheDirectory, journal: place.map { "\($0).packs" }, width: Self.width, session: session
        ) { writer in
            // Not before the writer is there: what is listed or remembered may be about to be pruned.
            let names = try await self.recall(place, writer)
            let taken = try await self.captureAndRead(writer)
            captured = taken
            let manifest = try await self.storeManifest(taken, writer)
            self.board.update { $0.phase = .finish }
            if let parent = self.report.parent, self.report.problems.isEmpty,
                self.options.unlessSame == BackupReport.Manifest(snapshot: parent, extents: manifest)
            {
                self.report.manifest = self.options.unlessSame
                // What was too young to be believed then is not any more.
                if self.keepState(place, taken.volume, taken.contents, parent) { self.journal?.remove() }
                return
            }
            self.report.inspection = await self.inspect(taken.volume)
            self.warnOfFindings()
            let record = self.record(taken.volume, lineage, names, started)
            let (name, stored) = try await writer.commit(record, manifest: manifest)
            self.report.snapshot = name
            self.report.manifest = BackupReport.Manifest(snapshot: name.id, extents: manifest)
            self.noteChange(place, record)
            self.report.bytesStored += Int64(stored)
            self.keep(taken, name)
            if self.keepState(place, taken.volume, taken.contents, name.id) { self.journal?.remove() }
        }
        report.duration = monotonicSeconds() - clock
        return report
    }

    /// What the node remembers, as far as it may be relied on.
    /// - Returns: the snapshots that are listed
    private func recall(_ place: String?, _ writer: RepositoryWriter) async throws -> [SnapshotName] {
        mayUse = { writer.mayUse(pack: $0) }
        let names = try await repository.snapshotNames()
        state = openState(place, listed: names)
        report.parent = state?.snapshot
        journal = place.map {
            ReadJournal(directory: "\($0).read", repository: repository.id, hasher: repository.keys.stateHasher)
        }
        journal?.load { writer.knew(pack: $0) }
        return names
    }

    private func storeManifest(_ taken: Captured, _ writer: RepositoryWriter) async throws -> Extents {
        let tickets = try await writeManifest(taken.volume, taken.contents, writer)
        try await writer.finish()
        report.bytesNew = writer.bytesNew
        report.bytesStored = writer.bytesStored
        var extents = Extents()
        for place in tickets { extents.append(Self.location(place, writer)) }
        return extents
    }

    /// What would be read, without a capture: a dry run changes nothing.
    private func dryRun() throws {
        let volume = try openVolume { self.note($0) }
        let contents = takeUnchanged(volume)
        let files = volume.filesToRead { contents[$0] != nil }
        report.bytesRead = files.reduce(0) { $0 + $1.size }
        summarize(volume, contents)
    }

    // MARK: - State

    /// Names a volume of a node without telling either.
    private var lineage: String {
        let name = Array("\(options.node)\0\(options.path)".utf8)
        return name.withUnsafeBytes { repository.keys.stateHasher.id(of: $0).bytes.prefix(8).hex }
    }

    private func statePlace(_ lineage: String) throws -> String? {
        guard let directory = options.stateDirectory else { return nil }
        let folder = "\(directory)/\(repository.id)"
        guard LocalFile.makeDirectory(folder) else {
            report.warnings.append("the state directory \(folder) cannot be made: the next backup reads everything again")
            return nil
        }
        return "\(folder)/\(lineage)"
    }

    /// The state counts only while its snapshot is listed: packs of a snapshot
    /// that is gone may be gone too.
    private func openState(_ place: String?, listed names: [SnapshotName]) -> LocalState? {
        guard let place,
            let state = LocalState(
                path: "\(place).state", repository: repository.id, hasher: repository.keys.stateHasher),
            names.contains(where: { $0.id == state.snapshot })
        else { return nil }
        return state
    }

    private func keepState(_ place: String?, _ volume: VolumeScan, _ contents: Contents, _ snapshot: ObjectID) -> Bool {
        guard let place else { return false }
        for (index, node) in volume.nodes.enumerated() {
            guard let content = contents[index] else { continue }
            nextState.add(
                node.path, LocalState.Stamp(node.stat), racy: volume.isRacy(node.stat), content: content,
                packs: packsOfIndirect[content] ?? [])
        }
        let isKept = nextState.write(to: "\(place).state", repository: repository.id, snapshot: snapshot)
        if !isKept {
            report.warnings.append("the state \(place).state could not be written: the next backup reads everything again")
        }
        return isKept
    }

    // MARK: - Manifest

    private func writeManifest(
        _ volume: VolumeScan, _ contents: Contents, _ writer: RepositoryWriter
    ) async throws -> [RepositoryWriter.Place] {
        board.update { $0.phase = .write }
        var places: [RepositoryWriter.Place] = []
        var chunker = ManifestChunker()
        for (index, node) in volume.nodes.enumerated() {
            guard let entry = try volume.entry(index, node, contents) else { continue }
            if let chunk = try chunker.add(entry) { places.append(try await storeMetadata(chunk, writer)) }
        }
        if let chunk = chunker.finish() { places.append(try await storeMetadata(chunk, writer)) }
        return places
    }

    func storeMetadata(_ bytes: [UInt8], _ writer: RepositoryWriter) async throws -> RepositoryWriter.Place {
        try await writer.addMetadata(bytes, contentHasher)
    }

    static func location(_ place: RepositoryWriter.Place, _ writer: RepositoryWriter) -> Location {
        switch place {
        case .stored(let location): location
        case .new(let ticket): writer.location(ofTicket: ticket)
        case .zero: preconditionFailure("metadata is never all zero")
        }
    }

    private func record(
        _ volume: VolumeScan, _ lineage: String, _ names: [SnapshotName], _ started: Int64
    ) -> SnapshotRecord {
        var record = SnapshotRecord(
            sequence: (names.last?.sequence ?? 0) + 1, node: options.node, volume: options.path, kind: volume.kind,
            lineage: lineage, parent: report.parent.map { "\($0)" }, started: formatTimeExact(started),
            finished: formatTimeExact(ambient.now()), capture: report.capture, consistency: report.consistency,
            tags: options.tags, set: options.set, agent: options.agent, complete: report.problems.isEmpty,
            problems: Self.bounded(report.problems),
            statistics: [
                "files_new": Int64(report.filesNew), "files_changed": Int64(report.filesChanged),
                "files_unmodified": Int64(report.filesUnmodified), "files_excluded": Int64(report.excluded),
                "bytes_total": report.bytesTotal, "bytes_read": report.bytesRead, "bytes_new": report.bytesNew,
                "bytes_stored": report.bytesStored,
                "bytes_audited": report.bytesAudited, "bytes_pinned": report.bytesPinned, "bytes_resumed": report.bytesResumed,
                "capture_milliseconds": Int64(report.captureDuration * 1000),
            ])
        for (role, bytes) in report.bytesNewByRole where bytes > 0 {
            record.statistics["bytes_new_\(role.rawValue)"] = bytes
        }
        record.inspection = report.inspection
        record.cluster = options.cluster
        record.keepFor = options.keepFor
        record.policy = options.policy
        record.fingerprint = report.fingerprint
        record.architecture = CPUArchitecture.own
        return record
    }

    /// What fits into a snapshot's record: a thousand problems, a MiB of text.
    private static func bounded(_ problems: [String]) -> [String] {
        var room = 1 << 20
        return Array(
            problems.prefix(1000).prefix { problem in
                room -= problem.utf8.count
                return room > 0
            })
    }

    // MARK: - Problems

    func note(_ error: SourceError) { report.problems.append("\(error)") }
    func note(_ path: [UInt8], _ text: String) { report.problems.append("\(printable(path)) \(text)") }
}

extension RepositoryWriter {
    /// Adds bytes as one metadata block.
    func addMetadata(_ bytes: [UInt8], _ hasher: BlockHasher) async throws -> Place {
        let buffer = buffers.take()
        buffer.memory.copyBytes(from: bytes)
        buffer.count = bytes.count
        let block = HashedRegion.Block(range: 0..<bytes.count, id: hasher.id(of: buffer.bytes))
        return try await add(HashedRegion(buffer: buffer, blocks: [block]), cohort: .metadata)[0]
    }
}
