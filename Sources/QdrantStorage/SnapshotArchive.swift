import BackupBase

/// Where Qdrant's own snapshot files keep what, after Qdrant 1.19
/// (`lib/collection/src/collection/snapshots.rs`, `lib/segment/src/segment/snapshot.rs`).
///
/// A shard: `wal/…`, `segments/<uuid>.tar` (inside: `snapshot/files/…`) or, streamed,
/// `segments/<uuid>/files/…`, and the shard's own files. A collection: its own
/// files, and shards below their numbers. A full storage: `config.json` with the
/// mapping, and collections' snapshot files.
public enum SnapshotArchive {
    /// Files of a collection's directory that its snapshot has.
    public static let collectionFiles = ["version.info", "config.json", "shard_key_mapping.json", "payload_index.json"]

    /// Where the files of a segment stand in its own archive.
    public static let segmentFolder = Array("snapshot/files/".utf8)

    public enum Place: Equatable, Sendable {
        case keep([UInt8])
        /// A directory that only the archive has.
        case drop
        case refuse(String)
    }

    /// Whether a file of an archive is an archive that belongs to it.
    public static func isArchive(_ path: [UInt8]) -> Bool {
        let parts = components(path)
        if parts.count == 1 { return parts[0].hasSuffix(".snapshot") }
        guard let (_, rest) = segment(parts) else { return false }
        return rest.isEmpty && parts.last!.hasSuffix(".tar")
    }

    /// Whether a file is one that says what a snapshot file is, or whose shard it was.
    public static func isNote(_ path: [UInt8]) -> Bool {
        var parts = components(path)[...]
        if parts == ["config.json"] { return true }
        if parts.first?.hasSuffix(".snapshot") == true { parts = parts.dropFirst() }
        return parts.count == 2 && isShard(parts.first!) && parts.last == "replica_state.json"
    }

    /// The directory that stands for an archive in an archive.
    public static func folder(_ path: [UInt8]) -> [UInt8] {
        path.suffix(4).elementsEqual(".tar".utf8) ? path.dropLast(4) : path
    }

    /// Where a path of an archive belongs, those of archives in it below `folder`.
    public static func place(_ path: [UInt8]) -> Place {
        let raw = path.split(separator: UInt8(ascii: "/"))
        let parts = raw.map { String(decoding: $0, as: UTF8.self) }
        guard let (count, rest) = segment(parts) else { return .keep(path) }
        func below(_ skipped: Int) -> Place {
            let kept = parts[..<count] + rest.dropFirst(skipped)
            if kept.last == "segment_manifest.json" { return .refuse("is of a partial snapshot, which is no whole one") }
            // The same bytes, which need not be text, without the components in between.
            return .keep(Array((raw[..<count] + raw[(count + skipped)...]).joined(separator: [UInt8(ascii: "/")])))
        }
        switch rest.first {
        case "snapshot":
            if rest.count == 1 || rest.count == 2 && rest.last == "files" { return .drop }
            guard rest[rest.startIndex + 1] == "files" else {
                return .refuse("is a RocksDB backup of a segment, which Qdrant 1.18 and later cannot read")
            }
            return below(2)
        case "files": return rest.count == 1 ? .drop : below(1)
        default: return .keep(path)
        }
    }

    /// Splits behind `[X.snapshot/][SHARD/]segments/UUID`: how many components that
    /// is, and the rest. Nil for what is not below a segment.
    private static func segment(_ parts: [String]) -> (count: Int, rest: ArraySlice<String>)? {
        var rest = parts[...]
        if rest.first?.hasSuffix(".snapshot") == true { rest = rest.dropFirst() }
        if let shard = rest.first, isShard(shard) { rest = rest.dropFirst() }
        guard rest.first == "segments", rest.count >= 2 else { return nil }
        return (parts.count - rest.count + 2, rest.dropFirst(2))
    }

    /// A shard's directory is its number.
    public static func isShard(_ name: String) -> Bool {
        !name.isEmpty && name.utf8.count <= 10 && name.utf8.allSatisfy { (0x30...0x39).contains($0) }
    }

    /// The collection that Qdrant's name for a snapshot file tells:
    /// `<collection>-<peer>-<YYYY-MM-DD-hh-mm-ss>.snapshot`.
    public static func collection(ofFile name: String) -> String? {
        guard name.hasSuffix(".snapshot") else { return nil }
        let parts = name.dropLast(".snapshot".count).split(separator: "-", omittingEmptySubsequences: false)
        guard parts.count >= 8, parts.suffix(7).allSatisfy({ !$0.isEmpty && $0.utf8.allSatisfy { (0x30...0x39).contains($0) } })
        else { return nil }
        let collection = parts.dropLast(7).joined(separator: "-")
        return collection.isEmpty ? nil : collection
    }
}

private func components(_ path: [UInt8]) -> [String] {
    path.split(separator: UInt8(ascii: "/")).map { String(decoding: $0, as: UTF8.self) }
}
