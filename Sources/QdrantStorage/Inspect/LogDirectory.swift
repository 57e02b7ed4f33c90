/// What a directory of a write-ahead log holds, a shard's or the raft log's:
/// `closed-START` and `open-ID` segments, read as Qdrant does at start
/// (lib/wal/src/lib.rs, `Wal::with_options`).
public struct LogDirectory: Sendable, Codable {
    /// Number of the first operation that is there.
    public private(set) var first: UInt64 = 0
    /// Number that the next operation gets: one more than the last.
    public private(set) var next: UInt64 = 0
    public private(set) var records: UInt64 = 0
    public private(set) var segments = 0
    /// Bytes of records.
    public private(set) var bytes: Int64 = 0
    /// Segments that end in the midst of a record, as after a power cut.
    public private(set) var torn: [String] = []
    /// What a start would stumble over, or lose.
    public private(set) var problems: [Problem] = []

    public struct Problem: Sendable, Codable {
        public enum Kind: String, Sendable, Codable { case badHeader, gap, brokenInTheMiddle, missing }
        public let kind: Kind
        public let path: String
        public let detail: String
    }

    /// - Parameter collect: gets the data of each record, in order; records of more than a MiB are left out
    /// - Returns: nil where there is no such directory
    static func read(_ folder: String, of tree: StorageTree, collect: (([UInt8]) -> Void)? = nil) async throws -> LogDirectory? {
        guard tree.hasDirectory(folder) else { return nil }
        var log = LogDirectory()
        let files = tree.list(folder).filter { !$0.isDirectory }
        let closed = numbered("closed-", files)
        log.first = closed.first?.number ?? 0
        log.next = log.first
        for (start, file) in closed {
            if start != log.next {
                log.problems.append(
                    Problem(
                        kind: .gap, path: "\(folder)/\(file.name)",
                        detail: "operations \(min(log.next, start)) to \(max(log.next, start)) are missing or there twice"))
                log.next = start
            }
            try await log.take(file, folder, tree, collect)
        }
        for (_, file) in numbered("open-", files) { try await log.take(file, folder, tree, collect) }
        if log.segments == 0 {
            log.problems.append(Problem(kind: .missing, path: folder, detail: "it has no segments"))
        }
        return log
    }

    private mutating func take(
        _ file: StorageTree.File, _ folder: String, _ tree: StorageTree, _ collect: (([UInt8]) -> Void)?
    ) async throws {
        let path = "\(folder)/\(file.name)"
        var segment = LogSegment(size: file.size, collect: collect)
        try await tree.stream(path) { segment.feed($0) }
        segment.close()
        segments += 1
        records += UInt64(segment.records)
        // The number is a file's name: whatever it says, there is none beyond the last.
        let (sum, isBeyond) = next.addingReportingOverflow(UInt64(segment.records))
        next = isBeyond ? .max : sum
        bytes += segment.end
        switch segment.ending {
        case .clean: break
        case .torn: torn.append(path)
        case .noHeader:
            problems.append(Problem(kind: .badHeader, path: path, detail: "it does not begin as a log segment does"))
        case .brokenBefore(let behind):
            problems.append(
                Problem(
                    kind: .brokenInTheMiddle, path: path,
                    detail: "its record \(segment.records) is broken and \(behind) good ones follow it"))
        }
    }

    /// Files by the number in their name, in its order.
    private static func numbered(
        _ prefix: String, _ files: [StorageTree.File]
    ) -> [(number: UInt64, file: StorageTree.File)] {
        files.compactMap { file in
            guard file.name.hasPrefix(prefix), let number = UInt64(file.name.dropFirst(prefix.count)) else { return nil }
            return (number, file)
        }.sorted { $0.number < $1.number }
    }

    /// Number of the last operation; nil where there was never one.
    public var last: UInt64? { next == 0 ? nil : next - 1 }
}
