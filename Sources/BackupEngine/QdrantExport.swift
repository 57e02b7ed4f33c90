import BackupBase
import BackupRepository
import QdrantStorage
import VolumeIO

/// Writes one collection of a snapshot, or one of its shards, as the snapshot
/// file that Qdrant would make of it (`SnapshotArchive`): segments as archives
/// in the archive, in the old GNU form, zeros where holes were.
public final class QdrantExport {
    private struct File {
        /// Below the collection, or the shard.
        let path: [UInt8]
        let metadata: Entry.Metadata
        let content: Content
    }

    private let repository: Repository
    private let collection: String
    private let shard: UInt32?
    private let board: ProgressBoard
    private var report: ExportReport

    /// - Parameter shard: nil for the whole collection
    public init(repository: Repository, collection: String, shard: UInt32?, board: ProgressBoard) {
        self.repository = repository
        self.collection = collection
        self.shard = shard
        self.board = board
        report = ExportReport(snapshot: repository.id)
    }

    /// Writes all members, and not the archive's end.
    public func run(_ snapshot: Snapshot, into archive: ArchiveWriter) async throws -> ExportReport {
        let clock = monotonicSeconds()
        report.snapshot = snapshot.id
        let files = try await files(snapshot)
        board.update {
            $0.phase = .write
            $0.bytesTotal = files.reduce(0) { $0 + $1.content.size }
        }
        for file in files where Self.segment(of: file.path) == nil { try await write(file, as: file.path, archive) }
        var segments: [[UInt8]: [File]] = [:]
        for file in files {
            if let segment = Self.segment(of: file.path) { segments[segment, default: []].append(file) }
        }
        for (segment, files) in segments.sorted(by: { comparePaths($0.key, $1.key) < 0 }) {
            try await writeSegment(segment, files, archive)
        }
        report.duration = monotonicSeconds() - clock
        return report
    }

    /// What a snapshot file has of the collection's files, in order.
    private func files(_ snapshot: Snapshot) async throws -> [File] {
        let root = Array("collections/\(collection)/".utf8) + (shard.map { Array("\($0)/".utf8) } ?? [])
        var files: [File] = []
        var others: [[UInt8]: (Entry.Metadata, Content)] = [:]
        try await repository.forEachEntry(of: snapshot) { entry in
            var found: (Entry.Metadata, Content)?
            switch entry.kind {
            case .file(let metadata, let content):
                found = (metadata, content)
                others[entry.path] = found
            case .hardLink(let target): found = others[target]
            case .directory, .symlink: break
            }
            guard let (metadata, content) = found, entry.path.starts(with: root) else { return }
            let path = Array(entry.path.dropFirst(root.count))
            if self.shard != nil || Self.belongs(path) { files.append(File(path: path, metadata: metadata, content: content)) }
        }
        let key = shard == nil ? "config.json" : "shard_config.json"
        guard files.contains(where: { $0.path.elementsEqual(key.utf8) }) else {
            let what = shard.map { "shard \($0) of collection" } ?? "collection"
            throw BackupError(
                .noSuchPath, "snapshot \(snapshot.id) holds no \(what) '\(printable(collection.utf8))'",
                hint: "See 'bgbackup ls SNAPSHOT collections'.")
        }
        return files
    }

    private static func belongs(_ path: [UInt8]) -> Bool {
        guard let slash = path.firstIndex(of: UInt8(ascii: "/")) else {
            return SnapshotArchive.collectionFiles.contains { path.elementsEqual($0.utf8) }
        }
        return SnapshotArchive.isShard(String(decoding: path[..<slash], as: UTF8.self))
    }

    /// The directory of the segment that a file belongs to.
    private static func segment(of path: [UInt8]) -> [UInt8]? {
        let parts = path.split(separator: UInt8(ascii: "/"))
        guard let index = parts.firstIndex(where: { $0.elementsEqual("segments".utf8) }), index <= 1, parts.count > index + 2
        else { return nil }
        return Array(parts[...(index + 1)].joined(separator: [UInt8(ascii: "/")]))
    }

    // MARK: - Writing

    private func member(_ path: [UInt8], _ size: Int64, _ metadata: Entry.Metadata) -> ArchiveMember {
        ArchiveMember(
            path: path, kind: .file(size: size, dataRanges: [0..<size]), mode: metadata.mode, owner: metadata.owner,
            group: metadata.group, modified: metadata.modified)
    }

    private func write(_ file: File, as path: [UInt8], _ archive: ArchiveWriter) async throws {
        _ = try archive.begin(member(path, file.content.size, file.metadata))
        do {
            try await repository.read(file.content) { bytes in
                try archive.write(bytes)
                self.board.update { $0.bytesDone += Int64(bytes.count) }
            }
        } catch var error as BackupError where error.code == .damaged {
            error.message +=
                ", which concerns \(printable(file.path)) of collection \(collection) of snapshot \(report.snapshot)"
            throw error
        }
        report.files += 1
        report.bytesTotal += file.content.size
    }

    /// A segment's archive stands behind a header that tells its size: it is
    /// written twice, the first time with zeros and to nowhere.
    private func writeSegment(_ segment: [UInt8], _ files: [File], _ archive: ArchiveWriter) async throws {
        let inside = files.map { SnapshotArchive.segmentFolder + $0.path.dropFirst(segment.count + 1) }
        let zeros = AlignedBuffer(capacity: 1 << 20)
        zeros.memory.initializeMemory(as: UInt8.self, repeating: 0)
        let size = try ArchiveWriter.measure(.gnu) { writer in
            for (file, path) in zip(files, inside) {
                _ = try writer.begin(member(path, file.content.size, file.metadata))
                var left = file.content.size
                while left > 0 {
                    let count = Int(min(left, Int64(zeros.capacity)))
                    try writer.write(UnsafeRawBufferPointer(start: zeros.pointer, count: count))
                    left -= Int64(count)
                }
            }
        }
        let newest = files.max { $0.metadata.modified < $1.metadata.modified }!.metadata
        _ = try archive.begin(member(segment + Array(".tar".utf8), size, newest))
        let writer = try ArchiveWriter(.gnu, .none) { try archive.write($0) }
        for (file, path) in zip(files, inside) { try await write(file, as: path, writer) }
        try writer.finish()
    }
}
