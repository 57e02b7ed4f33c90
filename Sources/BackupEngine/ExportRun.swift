import BackupBase
import BackupRepository
import VolumeIO

/// What an export did.
public struct ExportReport: Sendable {
    public var snapshot: ObjectID
    public var files = 0
    public var directories = 0
    /// Apparent bytes of the files.
    public var bytesTotal: Int64 = 0
    public var duration = 0.0
    /// Metadata that the archive's form cannot hold. Not empty: exit 3.
    public var problems: [String] = []
}

/// Writes a snapshot, or parts of it, as a tar archive: manifest → read →
/// verify → member, in path order. Memory is what reading a file takes.
public final class ExportRun {
    private let repository: Repository
    private let paths: [[UInt8]]
    private let board: ProgressBoard
    private var report: ExportReport
    /// Directories on the way to the entry that comes, not yet written: they
    /// are, as soon as something in them is.
    private var pending: [(path: [UInt8], metadata: Entry.Metadata)] = []
    /// Of files that are not asked for, because another name of theirs may be.
    private var others: [[UInt8]: (Entry.Metadata, Content)] = [:]
    /// Where the file behind a name stands in the archive.
    private var places: [[UInt8]: [UInt8]] = [:]

    /// - Parameter paths: relative to the volume's root; none is everything
    public init(repository: Repository, paths: [[UInt8]], board: ProgressBoard) {
        self.repository = repository
        self.paths = paths
        self.board = board
        report = ExportReport(snapshot: repository.id)
    }

    /// Writes all members, and not the archive's end.
    public func run(_ snapshot: Snapshot, into archive: ArchiveWriter) async throws -> ExportReport {
        let clock = monotonicSeconds()
        report.snapshot = snapshot.id
        board.update {
            $0.phase = .write
            $0.bytesTotal = paths.isEmpty ? snapshot.record.statistics["bytes_total"] ?? 0 : 0
        }
        var found: Set<[UInt8]> = []
        try await repository.forEachEntry(of: snapshot) { entry in
            found.formUnion(self.paths.filter { Self.contains($0, entry.path) })
            try await self.export(entry, into: archive)
        }
        if let missing = paths.first(where: { !found.contains($0) }) {
            throw BackupError(
                .noSuchPath, "snapshot \(snapshot.id) holds no \(printable(missing))",
                hint: "Paths are relative to the volume's root; see 'bgbackup ls'.")
        }
        report.duration = monotonicSeconds() - clock
        return report
    }

    private static func contains(_ wanted: [UInt8], _ path: [UInt8]) -> Bool {
        wanted.isEmpty || path == wanted || path.starts(with: wanted + [UInt8(ascii: "/")])
    }

    private func export(_ entry: Entry, into archive: ArchiveWriter) async throws {
        let isWanted = paths.isEmpty || paths.contains { Self.contains($0, entry.path) }
        switch entry.kind {
        case .directory(let metadata):
            pending.removeAll { !Self.contains($0.path, entry.path) }
            pending.append((entry.path, metadata))
            if isWanted { try writePending(above: nil, archive) }
        case .symlink(let metadata, let target):
            if isWanted { try write(entry.path, .symlink(target: target), metadata, archive) }
        case .file(let metadata, let content):
            guard isWanted else {
                others[entry.path] = (metadata, content)
                return
            }
            try await writeFile(entry.path, metadata, content, as: entry.path, archive)
        case .hardLink(let target):
            guard isWanted else { return }
            if let place = places[target] {
                let metadata = Entry.Metadata(mode: 0o600, owner: 0, group: 0, modified: 0, attributes: [])
                try write(entry.path, .hardLink(to: place), metadata, archive)
            } else if let (metadata, content) = others[target] {
                // The file it is a name of is not wanted itself: this becomes the file.
                try await writeFile(target, metadata, content, as: entry.path, archive)
            }
        }
    }

    /// - Parameter path: nil for all of them
    private func writePending(above path: [UInt8]?, _ archive: ArchiveWriter) throws {
        let needed = pending.filter { directory in path.map { Self.contains(directory.path, $0) } ?? true }
        pending = []
        for (path, metadata) in needed {
            report.directories += 1
            try begin(path.isEmpty ? Array("./".utf8) : path, .directory, metadata, archive)
        }
    }

    private func write(
        _ path: [UInt8], _ kind: ArchiveMember.Kind, _ metadata: Entry.Metadata, _ archive: ArchiveWriter
    ) throws {
        try writePending(above: path, archive)
        report.files += 1
        try begin(path, kind, metadata, archive)
    }

    private func begin(
        _ path: [UInt8], _ kind: ArchiveMember.Kind, _ metadata: Entry.Metadata, _ archive: ArchiveWriter
    ) throws {
        let member = ArchiveMember(
            path: path, kind: kind, mode: metadata.mode, owner: metadata.owner, group: metadata.group,
            modified: metadata.modified,
            attributes: metadata.attributes.map { ExtendedAttribute(name: $0.name, value: $0.value) })
        report.problems += try archive.begin(member).map { "\(path.isEmpty ? "." : printable(path)): \($0)" }
    }

    private func writeFile(
        _ file: [UInt8], _ metadata: Entry.Metadata, _ content: Content, as path: [UInt8], _ archive: ArchiveWriter
    ) async throws {
        places[file] = path
        do {
            let ranges = try await repository.dataRanges(of: content)
            try write(path, .file(size: content.size, dataRanges: ranges), metadata, archive)
            try await repository.read(content) { bytes in
                try archive.write(bytes)
                self.board.update { $0.bytesDone += Int64(bytes.count) }
            }
        } catch var error as BackupError where error.code == .damaged {
            error.message += ", which concerns \(printable(path)) of snapshot \(report.snapshot)"
            throw error
        }
        report.bytesTotal += content.size
        board.update { $0.filesDone += 1 }
    }
}

extension Repository {
    /// Where a file's data is, in bytes from its start, ascending and apart.
    func dataRanges(of content: Content) async throws -> [Range<Int64>] {
        var ranges: [Range<Int64>] = []
        try await forEachPart(of: content) { part, firstBlock in
            let start = Int64(firstBlock) * Int64(content.blockSize)
            for range in part.dataRanges {
                if let last = ranges.last, last.upperBound == range.lowerBound + start {
                    ranges[ranges.count - 1] = last.lowerBound..<range.upperBound + start
                } else {
                    ranges.append(range.lowerBound + start..<range.upperBound + start)
                }
            }
        }
        return ranges
    }
}
