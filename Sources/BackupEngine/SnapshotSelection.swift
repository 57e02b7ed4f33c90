import BackupBase
import BackupRepository

extension Repository {
    /// The snapshot that SNAPSHOT of CLI.md names: an id, a unique prefix of at
    /// least four digits, `latest`, or `latest@NODE`. Throws `.noSnapshot`.
    /// - Parameters:
    ///   - cache: of this node; for commands that only show. Nil reads from the store
    ///   - listing: of just now; nil lists
    public func select(_ text: String, cache: String? = nil, listing: SnapshotListing? = nil) async throws -> Snapshot {
        guard keys.canRead else {
            throw BackupError(
                .writeOnlyKey, "a writer key makes backups and cannot read them",
                hint: "Use the repository's password (--password-file) to restore, list or dump.")
        }
        let list = try await SnapshotList(self, cache: cache, listing: listing)
        let names = list.names
        if text == "latest" || text.hasPrefix("latest@") {
            let node = text == "latest" ? nil : String(text.dropFirst("latest@".count))
            let found = try await list.newest { node == nil || $0.record.node == node }
            if let found { return found }
            throw BackupError(
                .noSnapshot, node.map { "there is no snapshot of node \($0)" } ?? "the repository holds no snapshot",
                hint: "See 'bgbackup snapshots'.")
        }
        return try await list.snapshot(Self.select(text, of: names))
    }

    /// As `select`, but an id is not read: also the name of a snapshot that cannot be.
    public func selectName(_ text: String) async throws -> SnapshotName {
        if text == "latest" || text.hasPrefix("latest@") { return try await select(text).name }
        return try await Self.select(text, of: snapshotNames())
    }

    private static func select(_ text: String, of names: [SnapshotName]) throws -> SnapshotName {
        guard text.utf8.count >= 4 else {
            throw BackupError(.noSnapshot, "'\(text)' is too short for a snapshot id", hint: "Give at least four digits.")
        }
        let matching = names.filter { "\($0.id)".hasPrefix(text.lowercased()) }
        guard let name = matching.first, matching.count == 1 else {
            throw BackupError(
                .noSnapshot,
                matching.isEmpty
                    ? "no snapshot's id begins with '\(text)'" : "\(matching.count) snapshots' ids begin with '\(text)'",
                hint: "See 'bgbackup snapshots'.")
        }
        return name
    }

    /// One entry of a snapshot. Throws `.noSuchPath`.
    public func entry(_ path: [UInt8], of snapshot: Snapshot) async throws -> Entry {
        var found: [[UInt8]: Entry] = [:]
        var wanted = path
        // A hard link's file stands before it.
        var files: [[UInt8]: Entry] = [:]
        try await forEachEntry(of: snapshot) { entry in
            if case .file = entry.kind { files[entry.path] = entry }
            if entry.path == path { found[path] = entry }
        }
        if case .hardLink(let target)? = found[path]?.kind { wanted = target }
        if let entry = files[wanted] ?? found[path] { return entry }
        throw BackupError(
            .noSuchPath, "snapshot \(snapshot.id) holds no \(printable(path))",
            hint: "Paths are relative to the volume's root; see 'bgbackup ls'.")
    }
}

/// What differs between two snapshots.
public struct SnapshotDifference: Sendable {
    public enum Change: String, Sendable { case added, removed, changed, metadata }
    public let change: Change
    public let path: [UInt8]
    /// Bytes in the first and second snapshot.
    public let sizes: (Int64, Int64)
}

extension Repository {
    /// The paths in which two snapshots differ, in order.
    public func difference(_ first: Snapshot, _ second: Snapshot) async throws -> [SnapshotDifference] {
        var before: [[UInt8]: Entry] = [:]
        try await forEachEntry(of: first) { before[$0.path] = $0 }
        var result: [SnapshotDifference] = []
        try await forEachEntry(of: second) { entry in
            guard let old = before.removeValue(forKey: entry.path) else {
                result.append(SnapshotDifference(change: .added, path: entry.path, sizes: (0, entry.size)))
                return
            }
            guard let change = Self.change(old.kind, entry.kind) else { return }
            result.append(SnapshotDifference(change: change, path: entry.path, sizes: (old.size, entry.size)))
        }
        for (path, entry) in before {
            result.append(SnapshotDifference(change: .removed, path: path, sizes: (entry.size, 0)))
        }
        return result.sorted { comparePaths($0.path, $1.path) < 0 }
    }

    private static func change(_ old: Entry.Kind, _ new: Entry.Kind) -> SnapshotDifference.Change? {
        switch (old, new) {
        case (.file(let before, let a), .file(let after, let b)):
            if a.size != b.size || a.blockSize != b.blockSize || a.digest != b.digest { return .changed }
            return before == after ? nil : .metadata
        case (.directory(let before), .directory(let after)): return before == after ? nil : .metadata
        case (.symlink(let before, let a), .symlink(let after, let b)):
            return a != b ? .changed : before == after ? nil : .metadata
        case (.hardLink(let a), .hardLink(let b)): return a == b ? nil : .changed
        default: return .changed
        }
    }
}

extension Entry {
    /// Bytes of a file, 0 of anything else.
    public var size: Int64 { if case .file(_, let content) = kind { content.size } else { 0 } }
}
