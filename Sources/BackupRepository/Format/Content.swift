/// A file's content: size, digest, and where its blocks and holes are.
public struct Content: Sendable, Equatable {
    /// Blocks and data ranges of a file, or of a stretch of a large one.
    public struct Part: Sendable, Equatable {
        /// Data ranges in bytes from the part's start, ascending; the rest is holes.
        public var dataRanges: [Range<Int64>]
        public var extents: Extents

        public init(dataRanges: [Range<Int64>], extents: Extents) {
            self.dataRanges = dataRanges
            self.extents = extents
        }
    }

    public enum Layout: Sendable, Equatable {
        case inline(Part)
        /// Parts of `blocksPerPart` blocks each, stored as metadata blocks.
        case indirect(blocksPerPart: Int, parts: Extents)
    }

    /// Bytes.
    public var size: Int64
    public var blockSize: Int
    public var digest: [UInt8]
    public var layout: Layout

    public init(size: Int64, blockSize: Int, digest: [UInt8], layout: Layout) {
        self.size = size
        self.blockSize = blockSize
        self.digest = digest
        self.layout = layout
    }

    /// Blocks of the whole file.
    public var blockCount: Int { Int((size + Int64(blockSize) - 1) / Int64(blockSize)) }

    /// Bytes of block `index`: the last one is shorter.
    public func length(ofBlock index: Int) -> Int {
        Int(min(Int64(blockSize), size - Int64(index) * Int64(blockSize)))
    }

    public var encoded: [UInt8] {
        var writer = ByteWriter()
        writer.varint(Int(size))
        writer.varint(blockSize)
        writer.raw(digest)
        switch layout {
        case .inline(let part):
            writer.u8(0)
            part.encode(to: &writer)
        case .indirect(let count, let parts):
            writer.u8(1)
            writer.varint(count)
            parts.encode(to: &writer)
        }
        return writer.bytes
    }

    public init(decoding bytes: ArraySlice<UInt8>) throws {
        var reader = ByteReader(bytes)
        size = Int64(try reader.varint(limit: 1 << 60))
        blockSize = try reader.varint(limit: PackLimits.frame)
        guard blockSize >= 4096, blockSize & (blockSize - 1) == 0 else { throw FormatError("a block size is no power of two") }
        digest = Array(try reader.take(32))
        layout = .inline(Part(dataRanges: [], extents: Extents()))
        let blocks = Int((size + Int64(blockSize) - 1) / Int64(blockSize))
        switch try reader.u8() {
        case 0:
            layout = .inline(try Part(from: &reader, size: size, blocks: blocks))
        case 1:
            let perPart = try reader.varint(limit: 1 << 40)
            guard perPart > 0 else { throw FormatError("a part has no blocks") }
            let parts = try Extents(from: &reader, expected: (blocks + perPart - 1) / perPart)
            guard !parts.runs.contains(where: { if case .zero = $0 { true } else { false } }) else {
                throw FormatError("a part is stored nowhere")
            }
            layout = .indirect(blocksPerPart: perPart, parts: parts)
        default: throw FormatError("a content has an unknown layout")
        }
        try reader.expectEnd()
    }
}

extension Content.Part {
    func encode(to writer: inout ByteWriter) {
        writer.varint(dataRanges.count)
        var end: Int64 = 0
        for range in dataRanges {
            writer.varint(Int(range.lowerBound - end))
            writer.varint(Int(range.upperBound - range.lowerBound))
            end = range.upperBound
        }
        extents.encode(to: &writer)
    }

    public var encoded: [UInt8] {
        var writer = ByteWriter()
        encode(to: &writer)
        return writer.bytes
    }

    /// - Parameters: size in bytes and number of blocks that the part must describe.
    init(from reader: inout ByteReader, size: Int64, blocks: Int) throws {
        dataRanges = []
        var end: Int64 = 0
        for _ in 0..<(try reader.elementCount(of: 2)) {
            let start = end + Int64(try reader.varint(limit: Int(size - end)))
            end = start + Int64(try reader.varint(limit: Int(size - start)))
            guard start < end else { throw FormatError("a data range is empty") }
            dataRanges.append(start..<end)
        }
        extents = try Extents(from: &reader, expected: blocks)
    }

    public init(decoding bytes: [UInt8], size: Int64, blocks: Int) throws {
        var reader = ByteReader(bytes)
        try self.init(from: &reader, size: size, blocks: blocks)
        try reader.expectEnd()
    }
}
