import BackupBase

/// What a pack is made of besides its header: frames, trailer, footer.

public enum PackLimits {
    /// Bytes of plaintext in a frame, and so of a block.
    public static let frame = 1 << 20
    /// Bytes at which a writer ends a pack.
    public static let target = 64 << 20
    /// Bytes a reader accepts.
    static let pack = 128 << 20
    static let trailer = 32 << 20
    /// Blocks at which a writer ends a pack, to keep trailers small.
    static let blocks = 1 << 17
    /// Blocks a reader accepts.
    static let mostBlocks = 1 << 20
    /// Bytes a sealed payload may have: what does not compress is stored.
    static let sealedFrame = frame + Sealing.tagSize
}

/// Blocks are put together by how long they are expected to be needed.
public enum Cohort: UInt8, Sendable, CaseIterable {
    case metadata = 1
    case writtenOnce = 2
    case mutable = 3
    case log = 4
}

struct FrameHeader {
    static let size = 16
    private static let magic = Array("BGBF".utf8)

    let ordinal: Int
    /// Bytes of the sealed payload, tag included.
    let sealedLength: Int
    let coding: Coding

    var bytes: [UInt8] {
        var writer = ByteWriter()
        writer.raw(Self.magic)
        writer.u32(UInt32(ordinal))
        writer.u32(UInt32(sealedLength))
        writer.raw([coding.codec.rawValue, coding.filter.rawValue, 0, 0])
        return writer.bytes
    }

    init(ordinal: Int, sealedLength: Int, coding: Coding) {
        self.ordinal = ordinal
        self.sealedLength = sealedLength
        self.coding = coding
    }

    init(parsing bytes: [UInt8]) throws {
        var reader = ByteReader(bytes)
        guard Array(try reader.take(4)) == Self.magic else { throw FormatError("no frame begins there") }
        ordinal = Int(try reader.u32())
        sealedLength = Int(try reader.u32())
        guard let codec = Coding.Codec(rawValue: try reader.u8()), let filter = Coding.Filter(rawValue: try reader.u8())
        else { throw FormatError("a frame has an unknown codec or filter") }
        guard try reader.take(2).allSatisfy({ $0 == 0 }) else { throw FormatError("a frame header has unknown fields") }
        coding = Coding(codec: codec, filter: filter)
    }
}

/// How a frame's payload was made from its blocks.
struct Coding: Sendable, Hashable {
    enum Codec: UInt8 { case stored = 0, zstd = 1 }
    enum Filter: UInt8 { case none = 0, planes4 = 1 }
    var codec: Codec
    var filter: Filter
}

/// A pack's table of contents.
///
/// A pack that took another one's place (`Repack`) has the same frames and the same ordinals. What it leaves out is
/// *absent*: no bytes, and no id.
struct PackTrailer: Sendable {
    /// Stands for the id of an absent block; no keyed hash is it.
    static let absent = (id: BlockID.zero, length: 0)

    struct Frame: Sendable {
        /// Bytes from the pack's start to the frame's header.
        let offset: Int
        let sealedLength: Int
        /// Ordinals of its blocks.
        let blocks: Range<Int>
        /// Bytes of plaintext.
        let length: Int

        /// The frame with its header, as a range of the pack.
        var extent: Range<Int> { offset..<offset + FrameHeader.size + sealedLength }
    }

    let cohort: Cohort
    private(set) var frames: [Frame] = []
    private(set) var ids: [BlockID] = []
    private(set) var lengths: [UInt32] = []
    /// Bytes from the pack's start to the end of its last frame.
    private(set) var end = ObjectHeader.size

    init(cohort: Cohort) { self.cohort = cohort }

    mutating func add(sealedLength: Int, blocks: some Sequence<(id: BlockID, length: Int)>) {
        let first = ids.count
        var total = 0
        for block in blocks {
            ids.append(block.id)
            lengths.append(UInt32(block.length))
            total += block.length
        }
        frames.append(
            Frame(offset: end, sealedLength: sealedLength, blocks: first..<ids.count, length: total))
        end += FrameHeader.size + sealedLength
    }

    var bytes: [UInt8] {
        var writer = ByteWriter()
        writer.u8(cohort.rawValue)
        writer.varint(frames.count)
        for frame in frames {
            writer.varint(frame.sealedLength)
            writer.varint(frame.blocks.count)
            for ordinal in frame.blocks {
                writer.varint(Int(lengths[ordinal]))
                if holds(ordinal) { writer.raw(ids[ordinal].bytes) }
            }
        }
        return writer.bytes
    }

    init(parsing bytes: ArraySlice<UInt8>) throws {
        var reader = ByteReader(bytes)
        guard let cohort = Cohort(rawValue: try reader.u8()) else { throw FormatError("its trailer has no known cohort") }
        self.cohort = cohort
        for _ in 0..<(try reader.elementCount(of: 3)) {
            let sealed = try reader.varint(limit: PackLimits.sealedFrame)
            let count = try reader.elementCount(of: 1)
            guard sealed >= Sealing.tagSize, count > 0 else { throw FormatError("its trailer has an empty frame") }
            guard count <= PackLimits.mostBlocks - ids.count else { throw FormatError("its trailer has too many blocks") }
            var blocks: [(id: BlockID, length: Int)] = []
            blocks.reserveCapacity(count)
            var total = 0
            for _ in 0..<count {
                let length = try reader.varint(limit: PackLimits.frame)
                blocks.append(length == 0 ? Self.absent : (BlockID(bytes: try reader.take(32)), length))
                total += length
            }
            guard total <= PackLimits.frame else { throw FormatError("its trailer has a frame that is too large") }
            guard total == 0 || sealed > Sealing.tagSize else { throw FormatError("its trailer has blocks of no bytes") }
            add(sealedLength: sealed, blocks: blocks)
            guard end <= PackLimits.pack else { throw FormatError("its trailer describes a pack that is too large") }
        }
        try reader.expectEnd()
    }

    /// Whether the block is there, and not left out.
    func holds(_ ordinal: Int) -> Bool { lengths.indices.contains(ordinal) && lengths[ordinal] > 0 }

    /// The blocks that are there.
    var held: BlockSet {
        var held = BlockSet()
        for ordinal in ids.indices where holds(ordinal) { _ = held.insert(ordinal, 1, room: .max) }
        return held
    }

    /// Whether the other has the same frames and ordinals.
    func isAligned(_ other: PackTrailer) -> Bool { frames.map(\.blocks) == other.frames.map(\.blocks) }

    /// The frame that holds a block, or nil when there is no such block.
    func frame(holding ordinal: Int) -> Int? {
        guard ids.indices.contains(ordinal) else { return nil }
        return frames.partitioningIndex { $0.blocks.upperBound > ordinal }
    }
}

/// The last 16 bytes of a pack.
struct PackFooter {
    static let size = 16
    private static let magic = Array("BGBTRLR1".utf8)
    let trailerLength: Int

    var bytes: [UInt8] {
        var writer = ByteWriter()
        writer.u32(UInt32(trailerLength))
        writer.u32(0)
        writer.raw(Self.magic)
        return writer.bytes
    }

    init(trailerLength: Int) { self.trailerLength = trailerLength }

    init(parsing bytes: [UInt8]) throws {
        var reader = ByteReader(bytes)
        trailerLength = Int(try reader.u32())
        guard try reader.u32() == 0 else { throw FormatError("its footer has unknown fields") }
        guard Array(try reader.take(8)) == Self.magic else { throw FormatError("it does not end like a pack") }
        guard trailerLength <= PackLimits.trailer + Sealing.tagSize else { throw FormatError("its trailer is too large") }
    }
}
