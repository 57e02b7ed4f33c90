import BackupBase
import BackupRepository
import Crypto
import QdrantStorage
import VolumeIO

/// What to import, and what to call it.
public struct ImportOptions: Sendable {
    /// The archive; nil is standard input.
    public var path: String?
    public var node: String
    /// The volume as the snapshot names it.
    public var volume: String
    public var tags: [String] = []
    public var set: String?
    /// As the operator vouches for it: an archive does not say how it was made.
    public var consistency = SnapshotRecord.Consistency.fuzzy
    /// SHA-256 of the archive's bytes, 32 of them, where it is known.
    public var checksum: [UInt8]?
    /// The name of the collection that a collection's snapshot file is of.
    public var collection: String?
    /// Make the archive's node the only one that has a replica of its shards.
    public var isSingleNode = false
    public var cacheDirectory: String?
    public var agent: String

    public init(path: String?, node: String, volume: String, agent: String) {
        self.path = path
        self.node = node
        self.volume = volume
        self.agent = agent
    }
}

public struct ImportReport: Sendable {
    public var snapshot: SnapshotName?
    public var files = 0
    public var directories = 0
    /// Paths left out because Qdrant throws them away at start.
    public var excluded = 0
    /// Apparent bytes of all files.
    public var bytesTotal: Int64 = 0
    /// Bytes of plaintext no pack held before.
    public var bytesNew: Int64 = 0
    public var bytesStored: Int64 = 0
    public var duration = 0.0
}

/// Makes a snapshot of an archive, which is read once, from front to end, and
/// never unpacked: decompress → member → stretch → cut, name → known? → … as a
/// backup. Nothing is committed unless all of it is whole.
public final class ImportRun {
    private let repository: Repository
    private let options: ImportOptions
    private let board: ProgressBoard
    private let ambient: Ambient
    private var report = ImportReport()
    private var contents: [Int: [UInt8]] = [:]
    /// Whole files whose blocks wait for their places.
    private var finished: [FileAssembly] = []
    /// Whole files with block lists of their own.
    private var large: [FileAssembly] = []
    private var cohort = Cohort.mutable

    /// Stretches hashed at once; the archive itself is read by one.
    private static let width = 4
    /// A pack is of one cohort: smaller files go where the last large one went,
    /// or a change from file to file would end a pack each time.
    private static let ownCohortFrom: Int64 = 8 << 20
    private static let mostFiles = 10_000_000

    public init(repository: Repository, options: ImportOptions, board: ProgressBoard, ambient: Ambient = .system) {
        self.repository = repository
        self.options = options
        self.board = board
        self.ambient = ambient
    }

    public func run() async throws -> ImportReport {
        let started = ambient.now()
        let clock = monotonicSeconds()
        try await repository.withWriter(cache: options.cacheDirectory, width: Self.width) { writer in
            let names = try await self.repository.snapshotNames()
            let tree: ArchiveTree
            do {
                tree = try await self.readArchive(writer)
            } catch let error as ArchiveError {
                throw BackupError(
                    .damaged, "\(self.name) is no archive that can be read whole", hint: "Nothing was imported.", cause: error)
            }
            let manifest = try await self.writeManifest(tree, writer)
            self.report.bytesNew = writer.bytesNew
            self.report.bytesStored = writer.bytesStored
            let (name, stored) = try await writer.commit(self.record(names, started), manifest: manifest)
            self.report.snapshot = name
            self.report.bytesStored += Int64(stored)
        }
        report.duration = monotonicSeconds() - clock
        return report
    }

    private var name: String { options.path.map { printable($0.utf8) } ?? "standard input" }

    // MARK: - Reading

    private func readArchive(_ writer: RepositoryWriter) async throws -> ArchiveTree {
        let sum = Checksum(isWanted: options.checksum != nil)
        let file = try FileSource(path: options.path) { bytes in
            sum.add(bytes)
            self.board.update { $0.bytesDone += Int64(bytes.count) }
        }
        board.update { $0.phase = .read }
        let volume = ImportedVolume(name: name, collection: options.collection, isSingleNode: options.isSingleNode)
        let plain = try DecompressedSource(file)
        let queue = ArchiveQueue(try ArchiveReader(plain), writer.buffers, rewrite: volume.rewrite)
        try await read(queue, writer)
        // Behind the archive's end are the checks of what it was compressed with.
        while !(try plain.nextBytes().isEmpty) {}
        if let wanted = options.checksum {
            // Of the file's bytes, also of those behind the archive's end.
            while !(try file.nextBytes().isEmpty) {}
            guard sum.value == wanted else {
                throw BackupError(
                    .damaged, "\(name) has another SHA-256 than it should: \(sum.value.hex)",
                    hint: "Nothing was imported. Fetch the file again.")
            }
        }
        let (tree, added, excluded) = try volume.tree(queue.tree, notes: queue.notes)
        report.excluded = excluded
        for (number, path, bytes) in added { try await add(bytes, path, number, writer) }
        try await settle(writer)
        return tree
    }

    /// A small file that the archive says in other words.
    private func add(_ bytes: [UInt8], _ path: [UInt8], _ number: Int, _ writer: RepositoryWriter) async throws {
        let file = FileToRead(node: number, path: path, size: Int64(bytes.count), kind: .of(path), parent: nil)
        var assembly = FileAssembly(
            file, size: file.size, dataRanges: [0..<file.size], digest: repository.keys.digestHasher)
        let buffer = writer.buffers.take()
        buffer.memory.copyBytes(from: bytes)
        buffer.count = bytes.count
        let blocks = ReadQueue.cut(
            buffer, count: bytes.count, blockSize: file.kind.blockSize, repository.keys.blockHasher)
        assembly.add(
            blocks, at: 0, try await writer.add(HashedRegion(buffer: buffer, blocks: blocks), cohort: cohort))
        assembly.finish()
        finished.append(assembly)
    }

    private func read(_ queue: ArchiveQueue, _ writer: RepositoryWriter) async throws {
        let hasher = repository.keys.blockHasher
        var pieces = OrderedMap<ArchiveQueue.Stretch, (ArchiveQueue.Stretch, [HashedRegion.Block])>(
            width: Self.width, on: repository.executor, from: { try queue.take() },
            transform: { stretch in
                guard let buffer = stretch.buffer else { return (stretch, []) }
                return (
                    stretch, ReadQueue.cut(buffer, count: buffer.count, blockSize: stretch.file.kind.blockSize, hasher)
                )
            })
        var current: FileAssembly?
        var solid: [Range<Int64>] = []
        var unsettled: Int64 = 0
        do {
            while let (stretch, blocks) = try await pieces.next() {
                let file = stretch.file
                var assembly =
                    current ?? FileAssembly(file, size: file.size, dataRanges: [], digest: repository.keys.digestHasher)
                current = nil
                guard let buffer = stretch.buffer else {
                    assembly.finish(dataRanges: stretch.dataRanges == [0..<file.size] ? solid : stretch.dataRanges)
                    solid = []
                    finished.append(assembly)
                    guard finished.count <= 65536, unsettled < 256 << 20 else {
                        try resolve(writer)
                        unsettled = 0
                        continue
                    }
                    continue
                }
                unsettled += Int64(buffer.count)
                Self.note(blocks, at: stretch.offset, in: &solid)
                if file.size >= Self.ownCohortFrom { cohort = file.cohort }
                let region = HashedRegion(buffer: buffer, blocks: blocks)
                assembly.add(blocks, at: stretch.offset, try await writer.add(region, cohort: cohort))
                current = assembly
            }
        } catch {
            await pieces.abandon()
            throw error
        }
    }

    /// What of a file that the archive calls whole is not zero: an archive
    /// without holes says nothing of them, and Qdrant's files are mostly holes.
    private static func note(_ blocks: [HashedRegion.Block], at offset: Int64, in solid: inout [Range<Int64>]) {
        for block in blocks where block.id != nil {
            let range = offset + Int64(block.range.lowerBound)..<offset + Int64(block.range.upperBound)
            if let last = solid.last, last.upperBound == range.lowerBound {
                solid[solid.count - 1] = last.lowerBound..<range.upperBound
            } else {
                solid.append(range)
            }
        }
    }

    // MARK: - Finished files

    /// Turns finished files whose blocks all have their place into contents.
    private func resolve(_ writer: RepositoryWriter) throws {
        let placed = finished.filter { writer.isPlaced(ticket: $0.lastTicket) }
        finished.removeAll { writer.isPlaced(ticket: $0.lastTicket) }
        for assembly in placed {
            report.bytesTotal += assembly.size
            switch assembly.draft(assembly.whole(writer)) {
            case .inline(let content): contents[assembly.file.node] = content.encoded
            case .indirect: large.append(assembly)
            }
        }
        guard contents.count < Self.mostFiles else {
            throw BackupError(.failed, "the archive holds more than \(Self.mostFiles) files")
        }
    }

    private func settle(_ writer: RepositoryWriter) async throws {
        try await writer.settleTickets()
        try resolve(writer)
        var waiting: [(FileAssembly, [RepositoryWriter.Place])] = []
        for assembly in large {
            guard case .indirect(let parts) = assembly.draft(assembly.whole(writer)) else { continue }
            var places: [RepositoryWriter.Place] = []
            for part in parts { places.append(try await writer.addMetadata(part.encoded, repository.keys.blockHasher)) }
            waiting.append((assembly, places))
        }
        large = []
        if !waiting.isEmpty { try await writer.settleTickets() }
        for (assembly, places) in waiting {
            var parts = Extents()
            for place in places { parts.append(BackupRun.location(place, writer)) }
            contents[assembly.file.node] = assembly.content(parts: parts).encoded
        }
    }

    // MARK: - The snapshot

    private func writeManifest(_ tree: ArchiveTree, _ writer: RepositoryWriter) async throws -> Extents {
        board.update { $0.phase = .write }
        let hasher = repository.keys.blockHasher
        var places: [RepositoryWriter.Place] = []
        var chunker = ManifestChunker()
        var validator = ManifestValidator()
        for entry in try representable({ try tree.entries(contents) }) {
            if case .directory = entry.kind { report.directories += 1 } else { report.files += 1 }
            let chunk = try representable {
                try validator.accept(entry)
                return try chunker.add(entry)
            }
            if let chunk { places.append(try await writer.addMetadata(chunk, hasher)) }
        }
        if let chunk = chunker.finish() { places.append(try await writer.addMetadata(chunk, hasher)) }
        try await writer.finish()
        var extents = Extents()
        for place in places { extents.append(BackupRun.location(place, writer)) }
        return extents
    }

    /// What the format refuses, as the archive's fault.
    private func representable<Value>(_ body: () throws -> Value) throws -> Value {
        do {
            return try body()
        } catch let error as BackupError {
            throw error
        } catch {
            throw BackupError(.damaged, "\(name) holds what no snapshot can", cause: error)
        }
    }

    private func record(_ names: [SnapshotName], _ started: Int64) -> SnapshotRecord {
        let place = Array("\(options.node)\0\(options.volume)".utf8)
        let lineage = place.withUnsafeBytes { repository.keys.stateHasher.id(of: $0).bytes.prefix(8).hex }
        return SnapshotRecord(
            sequence: (names.last?.sequence ?? 0) + 1, node: options.node, volume: options.volume, kind: .tree,
            lineage: lineage, parent: nil, started: formatTimeExact(started), finished: formatTimeExact(ambient.now()),
            capture: "import", consistency: options.consistency, tags: options.tags, set: options.set,
            agent: options.agent, complete: true, problems: [],
            statistics: [
                "files_new": Int64(report.files), "files_changed": 0, "files_unmodified": 0,
                "files_excluded": Int64(report.excluded), "bytes_total": report.bytesTotal, "bytes_new": report.bytesNew,
                "bytes_stored": report.bytesStored,
            ])
    }
}

/// SHA-256 of what goes by, where somebody wants it.
private final class Checksum {
    private var hash: SHA256?

    init(isWanted: Bool) { hash = isWanted ? SHA256() : nil }

    func add(_ bytes: UnsafeRawBufferPointer) { hash?.update(bufferPointer: bytes) }

    var value: [UInt8] { hash.map { Array($0.finalize()) } ?? [] }
}
