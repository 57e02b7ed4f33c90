import BackupBase
import BackupRepository
import QdrantStorage
import VolumeIO

/// What brings a tree that holds one snapshot to another: names that go, names
/// and blocks that differ. Made of the two manifests alone, so that a refresh
/// that was cut off is planned again in the same way; each step can be taken
/// twice.
struct RefreshPlan {
    struct Removal {
        let path: [UInt8]
        /// A directory is made of it: once that is done it stays.
        let becomesDirectory: Bool
    }

    /// Files that a restore rewrites (`takeIdentity`): in the target they are not
    /// what the snapshot has, and always made anew.
    static let rewritten = Set([RaftState.path, RaftState.legacyPath].map { Array($0.utf8) })

    /// Names to make, files that change, and all that needs its metadata set.
    private(set) var restore: RestorePlan
    /// What is in a directory before the directory.
    private(set) var removals: [Removal] = []
    /// Directories in which names come or go.
    private(set) var opened: Set<[UInt8]> = []
    /// By number of the file in `restore`: holes where data was.
    private(set) var holes: [Int: [Range<Int64>]] = [:]
    /// Attributes that are to go.
    private(set) var attributes: [(path: [UInt8], kind: NodeKind, names: [[UInt8]])] = []
    /// Blocks that stay in files of which others change, by number of the file.
    private(set) var staying: [Int: [(block: Int, location: Location)]] = [:]
    /// All names of which more than metadata may differ before the refresh has ended.
    private(set) var disturbed: Set<[UInt8]> = [[]]
    /// All names in the end.
    private(set) var names: Set<[UInt8]> = []
    private(set) var fileCount = 0
    private(set) var directoryCount = 0
    private(set) var bytesTotal: Int64 = 0
    private(set) var bytesUnchanged: Int64 = 0
    /// Files of which content is written.
    private(set) var changed: [[UInt8]] = []

    private let old: SnapshotNames
    private let new: SnapshotNames
    /// By the first name of a file in the new snapshot, the one it has in the old.
    private var inPlace: [[UInt8]: [UInt8]] = [:]

    /// - Parameter everything: whether all metadata is set again
    static func make(
        _ repository: Repository, from old: SnapshotNames, to snapshot: Snapshot, everything: Bool
    ) async throws -> RefreshPlan {
        var plan = RefreshPlan(
            restore: RestorePlan(snapshot: snapshot), old: old, new: try await SnapshotNames.read(snapshot, repository))
        plan.pairFiles()
        plan.findRemovals()
        plan.findMade()
        var runs = RestorePlan.Runs()
        for entry in plan.new.entries { try await plan.add(entry, everything, repository, &runs) }
        try await plan.restore.planReads(runs, repository)
        plan.disturb()
        return plan
    }

    private init(restore: RestorePlan, old: SnapshotNames, new: SnapshotNames) {
        self.restore = restore
        self.old = old
        self.new = new
    }

    // MARK: - Names

    /// Finds for each file the one that it comes from: what has its name now,
    /// unless another file is made of that.
    private mutating func pairFiles() {
        var taken: Set<[UInt8]> = []
        for entry in new.entries {
            guard case .file = entry.kind, !Self.rewritten.contains(entry.path), let file = old.file(entry.path),
                taken.insert(file).inserted
            else { continue }
            inPlace[entry.path] = file
        }
    }

    /// Whether what has this name now is what has it in the end.
    private func stays(_ path: [UInt8]) -> Bool {
        if Self.rewritten.contains(path) { return false }
        if let before = old.file(path), let after = new.file(path) { return inPlace[after] == before }
        switch (old[path]?.kind, new[path]?.kind) {
        case (.directory?, .directory?): return true
        case (.symlink(_, let before)?, .symlink(_, let after)?): return before == after
        default: return false
        }
    }

    private mutating func findRemovals() {
        for entry in old.entries.reversed() where !entry.path.isEmpty && !stays(entry.path) {
            let becomesDirectory = if case .directory? = new[entry.path]?.kind { true } else { false }
            removals.append(Removal(path: entry.path, becomesDirectory: becomesDirectory))
            opened.insert(parent(entry.path))
        }
    }

    private mutating func findMade() {
        for entry in new.entries {
            names.insert(entry.path)
            if !stays(entry.path), !entry.path.isEmpty { opened.insert(parent(entry.path)) }
        }
    }

    /// The modification time that a name has in the end.
    func modified(_ path: [UInt8]) -> Int64? { new[new.file(path) ?? path]?.metadata?.modified }

    /// Names of a file share a stat: if one is disturbed, all are.
    private mutating func disturb() {
        disturbed.formUnion(removals.map(\.path))
        disturbed.formUnion(opened)
        disturbed.formUnion(changed)
        disturbed.formUnion(new.entries.map(\.path).filter { !stays($0) })
        let before = Set(disturbed.compactMap { old.file($0) })
        let after = Set(disturbed.compactMap { new.file($0) })
        for (names, files) in [(old, before), (new, after)] {
            for entry in names.entries where names.file(entry.path).map(files.contains) ?? false { disturbed.insert(entry.path) }
        }
    }

    // MARK: - Content and metadata

    private mutating func add(
        _ entry: Entry, _ everything: Bool, _ repository: Repository, _ runs: inout RestorePlan.Runs
    ) async throws {
        let stays = stays(entry.path)
        switch entry.kind {
        case .directory(let metadata):
            directoryCount += 1
            let before = stays ? old[entry.path]?.metadata : nil
            noteAttributes(entry.path, .directory, before, metadata)
            // The root's time moves with the marker.
            if everything || before != metadata || opened.contains(entry.path) || entry.path.isEmpty {
                restore.directories.append((entry.path, metadata))
            }
        case .symlink(let metadata, let target):
            fileCount += 1
            if everything || !stays || old[entry.path]?.metadata != metadata {
                restore.symlinks.append((entry.path, metadata, target))
            }
        case .hardLink(let target):
            fileCount += 1
            restore.hardLinks.append((entry.path, target))
        case .file(let metadata, let content):
            fileCount += 1
            bytesTotal += content.size
            try await add(entry.path, metadata, content, everything, repository, &runs)
        }
    }

    private mutating func add(
        _ path: [UInt8], _ metadata: Entry.Metadata, _ content: Content, _ everything: Bool, _ repository: Repository,
        _ runs: inout RestorePlan.Runs
    ) async throws {
        guard let from = inPlace[path], case .file(let before, let present)? = old[from]?.kind else {
            changed.append(path)
            try await restore.add(path, metadata, content, repository, &runs)
            return
        }
        noteAttributes(path, .file, before, metadata)
        if present == content {
            bytesUnchanged += content.size
            if everything || before != metadata { restore.addKept(path, metadata, content) }
            return
        }
        changed.append(path)
        let layout = try await FileLayout.read(present, repository, verified: false)
        let number = restore.files.count
        let change = try await restore.add(path, metadata, content, repository, &runs, replacing: layout)
        holes[number] = change.holes
        staying[number] = change.same
        bytesUnchanged += change.bytesSame
    }

    private mutating func noteAttributes(
        _ path: [UInt8], _ kind: NodeKind, _ before: Entry.Metadata?, _ after: Entry.Metadata
    ) {
        let kept = Set(after.attributes.map(\.name))
        let gone = (before?.attributes ?? []).map(\.name).filter { !kept.contains($0) }
        if !gone.isEmpty { attributes.append((path, kind, gone)) }
    }
}

/// The names of a snapshot in memory.
struct SnapshotNames {
    let entries: [Entry]
    private let index: [[UInt8]: Int]

    static func read(_ snapshot: Snapshot, _ repository: Repository) async throws -> SnapshotNames {
        var entries: [Entry] = []
        try await repository.forEachEntry(of: snapshot, trailers: false) { entries.append($0) }
        return SnapshotNames(entries)
    }

    private init(_ entries: [Entry]) {
        self.entries = entries
        index = Dictionary(uniqueKeysWithValues: entries.enumerated().map { ($1.path, $0) })
    }

    subscript(_ path: [UInt8]) -> Entry? { index[path].map { entries[$0] } }

    /// The first name of the file that a name stands for; nil where it is none.
    func file(_ path: [UInt8]) -> [UInt8]? {
        switch self[path]?.kind {
        case .file: path
        case .hardLink(let target): target
        default: nil
        }
    }
}

extension Entry {
    fileprivate var metadata: Metadata? {
        switch kind {
        case .file(let metadata, _), .directory(let metadata), .symlink(let metadata, _): metadata
        case .hardLink: nil
        }
    }
}

private func parent(_ path: [UInt8]) -> [UInt8] {
    path.lastIndex(of: UInt8(ascii: "/")).map { Array(path[..<$0]) } ?? []
}
