import BackupBase
import ObjectStorage

extension Repository {
    /// Hands a file's bytes to `body` in order, verified, holes as zeros.
    /// `body` may throw to stop.
    public func read(_ content: Content, _ body: (UnsafeRawBufferPointer) throws -> Void) async throws {
        var digest = FileDigest(content, self)
        let zeros = AlignedBuffer(capacity: 1 << 20)
        zeros.memory.initializeMemory(as: UInt8.self, repeating: 0)
        var left = content.size
        try await forEachPart(of: content) { part, firstBlock in
            var block = firstBlock
            for run in part.extents.runs {
                switch run {
                case .zero(let count):
                    digest.addZero(count)
                    var bytes = min(Int64(count) * Int64(content.blockSize), left)
                    left -= bytes
                    while bytes > 0 {
                        let step = min(Int(bytes), zeros.capacity)
                        try body(UnsafeRawBufferPointer(start: zeros.pointer, count: step))
                        bytes -= Int64(step)
                    }
                case .stored(let id, let first, let count):
                    let pack = try await self.reader.pack(id)
                    try digest.add(pack, first: first, count: count, at: block)
                    try await self.read(pack, first: first, count: count) { bytes in
                        left -= Int64(bytes.count)
                        try body(bytes)
                    }
                }
                block += run.count
            }
        }
        try digest.check()
    }

    /// A run of a pack's blocks, frames opened ahead and side by side.
    private func read(
        _ pack: PackReader.OpenPack, first: Int, count: Int, _ body: (UnsafeRawBufferPointer) throws -> Void
    ) async throws {
        var pieces = pack.pieces(first: first, count: count)[...]
        let reader = reader
        var frames = OrderedMap<(frame: Int, ordinals: Range<Int>), (PackReader.Frame, Range<Int>)>(
            width: 4, on: executor, from: { pieces.popFirst() },
            transform: { piece in
                let frame = try reader.open(piece.frame, in: try await reader.read(piece.frame..<piece.frame + 1, of: pack))
                let ranges = frame.ranges
                for ordinal in piece.ordinals {
                    try reader.verify(ordinal, ranges[ordinal - frame.blocks.lowerBound], of: frame)
                }
                let low = ranges[piece.ordinals.lowerBound - frame.blocks.lowerBound].lowerBound
                let high = ranges[piece.ordinals.upperBound - 1 - frame.blocks.lowerBound].upperBound
                return (frame, low..<high)
            })
        do {
            while let (frame, range) = try await frames.next() {
                defer { reader.release(frame) }
                try body(UnsafeRawBufferPointer(rebasing: frame.buffer.bytes[range]))
            }
        } catch {
            await frames.abandon()
            throw error
        }
    }
}
