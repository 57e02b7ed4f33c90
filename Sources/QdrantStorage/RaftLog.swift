/// What the raft log (`collections_meta_wal/`) holds: entries as protobuf
/// `eraftpb.Entry`, in a log as the shards have (qdrant
/// lib/storage/src/content_manager/consensus/consensus_wal.rs).
public struct RaftLog: Sendable, Codable {
    public static let folder = "collections_meta_wal"

    public let log: LogDirectory
    /// Raft index and term of the first and of the last entry; nil where there is none.
    public private(set) var firstIndex: UInt64?
    public private(set) var lastIndex: UInt64?
    public private(set) var lastTerm: UInt64?
    /// Addresses that entries carry, with the index of each: those of peers that joined.
    public private(set) var addresses: [Address] = []
    /// Records that are no entries.
    public private(set) var unreadable = 0

    public struct Address: Sendable, Codable, Hashable {
        public let index: UInt64
        public let uri: String
    }

    /// Addresses that are remembered; a cluster has a few.
    private static let mostAddresses = 10_000

    /// Nil where the volume has no raft log.
    static func read(_ tree: StorageTree) async throws -> RaftLog? {
        var entries: [(index: UInt64, term: UInt64)?] = []
        var addresses: [Address] = []
        guard
            let log = try await LogDirectory.read(
                folder, of: tree,
                collect: { data in
                    let entry = RaftEntry(data)
                    entries.append(entry.map { ($0.index, $0.term) })
                    guard let entry, let uri = entry.uri, addresses.count < mostAddresses else { return }
                    addresses.append(Address(index: entry.index, uri: uri))
                })
        else { return nil }
        var found = RaftLog(log: log)
        let good = entries.compactMap { $0 }
        found.firstIndex = good.first?.index
        found.lastIndex = good.last?.index
        found.lastTerm = good.last?.term
        found.addresses = addresses
        found.unreadable = entries.count - good.count
        return found
    }

    private init(log: LogDirectory) { self.log = log }
}

/// One entry: 1 type, 2 term, 3 index, 4 data, 6 context.
struct RaftEntry {
    private(set) var term: UInt64 = 0
    private(set) var index: UInt64 = 0
    /// The address in its context: a peer that joins says where it is.
    private(set) var uri: String?

    /// Nil for what is no protobuf message.
    init?(_ bytes: [UInt8]) {
        var rest = bytes[...]
        while !rest.isEmpty {
            guard let key = Self.varint(&rest) else { return nil }
            switch key & 7 {
            case 0:
                guard let value = Self.varint(&rest) else { return nil }
                if key >> 3 == 2 { term = value }
                if key >> 3 == 3 { index = value }
            case 1:
                guard rest.count >= 8 else { return nil }
                rest = rest.dropFirst(8)
            case 2:
                guard let length = Self.varint(&rest), length <= rest.count else { return nil }
                let value = rest.prefix(Int(length))
                if key >> 3 == 6 { takeContext(value) }
                rest = rest.dropFirst(Int(length))
            case 5:
                guard rest.count >= 4 else { return nil }
                rest = rest.dropFirst(4)
            default: return nil
            }
        }
    }

    private mutating func takeContext(_ value: ArraySlice<UInt8>) {
        guard let text = String(validating: value, as: UTF8.self), text.contains("://"), text.utf8.count < 1000 else { return }
        uri = text
    }

    private static func varint(_ rest: inout ArraySlice<UInt8>) -> UInt64? {
        var value: UInt64 = 0
        for shift in stride(from: UInt64(0), to: 64, by: 7) {
            guard let byte = rest.popFirst() else { return nil }
            value |= UInt64(byte & 0x7f) << shift
            if byte < 0x80 { return value }
        }
        return nil
    }
}
