import BackupBase
import BackupRepository
import QdrantStorage
import VolumeIO

/// Ends the reading of a file of which enough was seen.
private struct EnoughRead: Error {}

extension StorageTree {
    /// A volume as a scan found it: live, or a capture.
    init(_ volume: VolumeScan) {
        var files: [String: Int] = [:]
        for (index, node) in volume.nodes.enumerated() where node.kind == .file {
            files[String(decoding: node.path, as: UTF8.self)] = index
        }
        let (known, nodes, opener) = (files, volume.nodes, volume.opener)
        self.init { path, body in
            guard let index = known[path] else { return }
            let node = nodes[index]
            let file = try opener(
                FileToRead(node: index, path: node.path, size: node.stat.size, kind: .of(node.path), parent: nil))
            try Self.read(file, size: node.stat.size, body)
        }
        for node in nodes where node.kind == .file || node.kind == .directory {
            add(String(decoding: node.path, as: UTF8.self), isDirectory: node.kind == .directory, size: node.stat.size)
        }
    }

    private static func read(
        _ file: SourceFile, size: Int64, _ body: (UnsafeRawBufferPointer) throws -> Bool
    ) throws {
        let buffer = AlignedBuffer(capacity: Int(min(size, 1 << 20)) + AlignedBuffer.alignment)
        var offset: Int64 = 0
        while offset < size {
            let wanted = Int(min(size - offset, 1 << 20))
            let got = try file.read(at: offset, count: wanted, into: buffer)
            guard got > 0, try body(UnsafeRawBufferPointer(rebasing: buffer.bytes.prefix(got))) else { return }
            offset += Int64(got)
        }
    }

    /// A snapshot in the repository: what is looked into is fetched, verified, and nothing else.
    init(_ snapshot: Snapshot, of repository: Repository) async throws {
        var contents: [[UInt8]: Content] = [:]
        var entries: [Entry] = []
        try await repository.forEachEntry(of: snapshot) { entry in
            if case .file(_, let content) = entry.kind { contents[entry.path] = content }
            entries.append(entry)
        }
        for entry in entries {
            if case .hardLink(let target) = entry.kind { contents[entry.path] = contents[target] }
        }
        let known = contents
        self.init { path, body in
            guard let content = known[Array(path.utf8)] else { return }
            do {
                try await repository.read(content) { bytes in
                    guard try body(bytes) else { throw EnoughRead() }
                }
            } catch is EnoughRead {}
        }
        for entry in entries {
            let isDirectory = if case .directory = entry.kind { true } else { false }
            guard isDirectory || contents[entry.path] != nil else { continue }
            add(String(decoding: entry.path, as: UTF8.self), isDirectory: isDirectory, size: contents[entry.path]?.size ?? 0)
        }
    }
}

extension VolumeInspection {
    /// Of a directory on this machine, as it is now.
    /// - Throws: `.sourceUnreadable`
    public static func ofDirectory(_ path: String, deep: Bool) async throws -> VolumeInspection {
        let tree: SourceTree
        do throws(SourceError) { tree = try SourceTree(path: path) } catch {
            throw BackupError(
                .sourceUnreadable, "cannot read \(path)", hint: "Give a storage directory or a snapshot.", cause: error)
        }
        var problems: [SourceError] = []
        let scan = try VolumeScan(tree) { problems.append($0) }
        if let problem = problems.first {
            throw BackupError(.sourceUnreadable, "cannot read all of \(path)", hint: "Run it as root.", cause: problem)
        }
        var inspector = VolumeInspector(StorageTree(scan), options: .looking(deep: deep))
        return try await inspector.inspect()
    }

    /// - Throws: `.usage` for the snapshot of a device; `.damaged`
    public static func ofSnapshot(_ snapshot: Snapshot, in repository: Repository, deep: Bool) async throws -> VolumeInspection {
        guard snapshot.record.kind == .tree else {
            throw BackupError(
                .usage, "snapshot \(snapshot.id) is of a device or image, whose files cannot be seen",
                hint: "Restore it, mount it read-only, and inspect the directory.")
        }
        var options = VolumeInspector.Options.looking(deep: deep)
        options.isFuzzy = snapshot.record.consistency == .fuzzy
        var inspector = VolumeInspector(try await StorageTree(snapshot, of: repository), options: options)
        return try await inspector.inspect()
    }
}

extension ClusterVolume {
    /// - Parameter inspection: of the snapshot, or of what was restored from it
    public init(_ snapshot: Snapshot, _ inspection: VolumeInspection) {
        let record = snapshot.record
        self.init(
            node: record.node, snapshot: "\(snapshot.id)", moment: parseTime(record.started) ?? 0,
            isAtomic: record.consistency == .atomic && record.complete, inspection: inspection,
            // One of a later format is as good as none: the volume tells then.
            answered: (try? record.fingerprint?.server)?.version, architecture: record.architecture)
    }
}

extension VolumeInspector.Options {
    fileprivate static func looking(deep: Bool) -> Self {
        var options = Self()
        if deep { options.logLimit = nil }
        return options
    }
}

extension BackupRun {
    /// Bytes of logs that a backup looks through at the most: it has other things to do.
    private static let logLimit: Int64 = 128 << 20
    /// Bytes of a segment's id changes: with 1.2 million points they are 16 MiB, and a small change is backed up
    /// in the time that reading them takes.
    private static let mappingLimit = 2 << 20

    /// Looks into what was captured. Whatever goes wrong here takes nothing from the backup.
    func inspect(_ volume: VolumeScan) async -> InspectionSummary? {
        guard volume.kind == .tree, volume.nodes.contains(where: { $0.path == Array("collections".utf8) }) else { return nil }
        var options = VolumeInspector.Options()
        options.logLimit = Self.logLimit
        options.mappingLimit = Self.mappingLimit
        options.isFuzzy = report.consistency == .fuzzy
        var inspector = VolumeInspector(StorageTree(volume), options: options)
        do { return InspectionSummary(try await inspector.inspect()) } catch {
            report.warnings.append("the captured volume could not be inspected: \(error)")
            return nil
        }
    }
}

extension BackupRun {
    /// A backup of what does not start is made all the same, and not in silence.
    func warnOfFindings() {
        guard let inspection = report.inspection, !inspection.starts else { return }
        let forbidding = inspection.findings.filter { $0.severity == QdrantStorage.Finding.Severity.forbids.rawValue }
        let first = forbidding.first.map {
            " (\($0.code) at \(printable($0.path.utf8))\(forbidding.count > 1 ? " and \(forbidding.count - 1) more" : ""))"
        }
        report.warnings.append("Qdrant would not start on this volume, or lose something\(first ?? ""): see 'bgbackup inspect'")
    }
}

extension InspectionSummary {
    public init(_ inspection: VolumeInspection) {
        self.init(
            starts: inspection.canStart, points: inspection.points, collections: inspection.collections.count,
            version: (inspection.version.told ?? inspection.version.atLeast).map { "\($0)" },
            peer: inspection.raft?.peer, peers: inspection.raft.map { ($0.voters + $0.learners).sorted() } ?? [],
            findings: inspection.findings.filter { $0.severity > .note }.prefix(Self.mostFindings).map {
                Finding(code: $0.code.rawValue, severity: $0.severity.rawValue, path: String($0.path.prefix(500)))
            })
    }
}
