import BackupBase

/// What kind of file a path of a Qdrant storage directory is: whether it is
/// worth keeping, how finely it changes and how long its blocks will live.
///
/// The table follows Qdrant 1.19's layout (`lib/segment`, `lib/blobstore`,
/// `lib/wal`); names it does not know get the mutable class, which is always
/// right and sometimes slower.
public struct FileClass: Sendable, Hashable {
    /// Blocks are put together by how long they are expected to be needed.
    public enum Lifetime: UInt8, Sendable { case writtenOnce = 2, mutable = 3, log = 4 }

    public let lifetime: Lifetime
    /// Bytes: the unit of change and identity.
    public let blockSize: Int

    /// Files the optimizer writes once and then only reads: matrix, graph, quantized data.
    public static let writtenOnce = FileClass(lifetime: .writtenOnce, blockSize: 1 << 20)
    /// Files changed in place page by page: half and a quarter of what 32 and
    /// 64 KiB would store of scattered pages (docs/benchmarks.md).
    public static let mutable = FileClass(lifetime: .mutable, blockSize: 16 << 10)
    /// Vectors of an appendable segment: appended to, and overwritten a vector at a time.
    public static let vectorChunk = FileClass(lifetime: .mutable, blockSize: 64 << 10)
    /// The write-ahead log: appended to, then deleted.
    public static let log = FileClass(lifetime: .log, blockSize: 64 << 10)

    /// The class of a file by its path relative to the storage root.
    public static func of(_ path: [UInt8]) -> FileClass {
        let parts = components(path)
        guard let name = parts.last else { return .mutable }
        if parts.dropLast().contains(where: { $0 == "wal" || $0 == "collections_meta_wal" }) { return .log }
        if name.hasPrefix("chunk_") && name.hasSuffix(".mmap") { return .vectorChunk }
        if writtenOnceNames.contains(name) { return .writtenOnce }
        if name.hasPrefix("links") && name.hasSuffix(".bin") { return .writtenOnce }
        return .mutable
    }

    /// The class of a block device or raw image, which holds files of every kind.
    public static let device = FileClass(lifetime: .mutable, blockSize: 64 << 10)

    private static let writtenOnceNames: Set<String> = [
        "matrix.dat", "graph.bin", "links.bin", "links_compressed.bin",
        "quantized.data", "quantized_offsets.data", "inverted_index.dat", "inverted_index.data",
        "id_tracker.mappings", "id_tracker.i2e", "id_tracker.e2i", "id_tracker.is_uuid",
        "data.bin", "values_to_points.bin", "point_to_values.bin",
    ]
}

/// Paths that Qdrant itself throws away at start, so that no backup needs them.
public enum ScratchPath {
    private static let topLevel: Set<String> = [
        "tmp", ".deleted", "snapshots_temp", "snapshots_recovery_tmp", ".qdrant_fs_check",
        ".zfs",  // how ZFS shows its snapshots
    ]

    /// - Parameter path: relative to the storage root.
    public static func matches(_ path: [UInt8]) -> Bool {
        let parts = components(path)
        guard let name = parts.last else { return false }
        if name.hasPrefix(".atomicwrite") { return true }
        // Captures of our own, where the volume or a part of it fills a file system.
        if name == ".bgbackup" { return parts.count != 2 || parts[0] != "collections" }
        if parts.count == 1 { return topLevel.contains(name) }
        // collections/<collection>/<shard>/temp_segments; a collection itself
        // may well be called "tmp".
        return parts.count == 4 && parts[0] == "collections" && name == "temp_segments"
    }
}

private func components(_ path: [UInt8]) -> [String] {
    path.split(separator: UInt8(ascii: "/")).map { String(decoding: $0, as: UTF8.self) }
}
