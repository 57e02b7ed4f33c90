/// A sequence of blocks as runs: all zero, or found one behind the other in a pack.
public struct Extents: Sendable, Equatable {
    public enum Run: Sendable, Equatable {
        case zero(count: Int)
        case stored(pack: ObjectID, first: Int, count: Int)

        public var count: Int {
            switch self {
            case .zero(let count): count
            case .stored(_, _, let count): count
            }
        }
    }

    public private(set) var runs: [Run] = []
    /// Blocks described.
    public private(set) var count = 0

    public init() {}

    public mutating func appendZero(_ more: Int = 1) {
        count += more
        if case .zero(let before)? = runs.last {
            runs[runs.count - 1] = .zero(count: before + more)
        } else {
            runs.append(.zero(count: more))
        }
    }

    public mutating func append(_ location: Location, count more: Int = 1) {
        count += more
        if case .stored(let pack, let first, let before)? = runs.last, pack == location.pack,
            first + before == location.ordinal
        {
            runs[runs.count - 1] = .stored(pack: pack, first: first, count: before + more)
        } else {
            runs.append(.stored(pack: location.pack, first: location.ordinal, count: more))
        }
    }

    mutating func append(_ run: Run) {
        switch run {
        case .zero(let count): appendZero(count)
        case .stored(let pack, let first, let count): append(Location(pack: pack, ordinal: first), count: count)
        }
    }

    func encode(to writer: inout ByteWriter) {
        var indexes: [ObjectID: Int] = [:]
        var packs: [ObjectID] = []
        for case .stored(let pack, _, _) in runs where indexes[pack] == nil {
            indexes[pack] = packs.count
            packs.append(pack)
        }
        writer.varint(packs.count)
        for pack in packs { writer.id(pack) }
        writer.varint(runs.count)
        for run in runs {
            switch run {
            case .zero(let count): writer.varint(count << 1)
            case .stored(let pack, let first, let count):
                writer.varint(count << 1 | 1)
                writer.varint(indexes[pack]!)
                writer.varint(first)
            }
        }
    }

    init(from reader: inout ByteReader, expected: Int? = nil) throws {
        let packs = try (0..<(try reader.elementCount(of: 16))).map { _ in try reader.id() }
        var unused = Set(packs.indices)
        for _ in 0..<(try reader.elementCount(of: 1)) {
            let tag = try reader.varint()
            let more = tag >> 1
            guard more > 0, count <= Int.max / 2 - more else { throw FormatError("a run of blocks has no sensible length") }
            if tag & 1 == 0 {
                appendZero(more)
                continue
            }
            let index = try reader.varint()
            guard index < packs.count else { throw FormatError("a run of blocks is in no listed pack") }
            unused.remove(index)
            let first = try reader.varint(limit: PackLimits.pack)
            guard more <= PackLimits.pack else { throw FormatError("a run of blocks is longer than a pack") }
            append(Location(pack: packs[index], ordinal: first), count: more)
        }
        guard unused.isEmpty else { throw FormatError("a listed pack holds no block") }
        if let expected, count != expected {
            throw FormatError("\(count) blocks are described where \(expected) belong")
        }
    }

    /// The locations one by one; nil for an all-zero block.
    public func forEachBlock(_ body: (Location?) throws -> Void) rethrows {
        for run in runs {
            switch run {
            case .zero(let count): for _ in 0..<count { try body(nil) }
            case .stored(let pack, let first, let count):
                for ordinal in first..<first + count { try body(Location(pack: pack, ordinal: ordinal)) }
            }
        }
    }
}

extension Extents {
    /// The packs that hold the blocks.
    public var packs: Set<ObjectID> {
        runs.reduce(into: []) { if case .stored(let pack, _, _) = $1 { $0.insert(pack) } }
    }
}
