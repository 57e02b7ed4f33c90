import BackupBase
import FoundationEssentials

/// A pack while frames are added to it, in memory until it is put whole.
struct PackBuilder {
    let id: ObjectID
    private let keys: KeyRing
    private let sealing: Sealing
    private let buffer: AlignedBuffer
    private(set) var trailer: PackTrailer

    /// Bytes a buffer needs: the target, one more frame, and the largest trailer of `PackLimits.blocks`.
    static let bufferSize = PackLimits.target + PackLimits.frame + 4096 + PackLimits.blocks * 36 + (64 << 10)

    init(keys: KeyRing, cohort: Cohort, id: ObjectID, buffer: AlignedBuffer) throws {
        self.id = id
        self.keys = keys
        let (header, sealing) = try keys.newObject(.pack, id)
        self.sealing = sealing
        self.buffer = buffer
        buffer.memory.copyBytes(from: header.bytes)
        buffer.count = ObjectHeader.size
        trailer = PackTrailer(cohort: cohort)
    }

    var isFull: Bool { buffer.count >= PackLimits.target || trailer.ids.count >= PackLimits.blocks }

    /// Whether the buffer holds one more frame and what follows the last one.
    func hasRoom(for frame: CodedFrame) -> Bool {
        let tail = (trailer.ids.count + frame.blocks.count) * 36 + (trailer.frames.count + 1) * 8 + (64 << 10)
        return buffer.count + FrameHeader.size + frame.payload.count + Sealing.tagSize + tail <= buffer.capacity
    }

    /// Seals one frame at the end of the pack.
    mutating func add(_ frame: CodedFrame) throws {
        let length = frame.payload.count + Sealing.tagSize
        precondition(buffer.count + FrameHeader.size + length <= buffer.capacity, "a pack overflows its buffer")
        let header = FrameHeader(ordinal: trailer.frames.count, sealedLength: length, coding: frame.coding).bytes
        buffer.memory[buffer.count...].copyBytes(from: header)
        let plain = Data(bytesNoCopy: frame.payload.pointer, count: frame.payload.count, deallocator: .none)
        let written = try sealing.seal(
            plain, position: UInt64(trailer.frames.count), extra: header,
            into: buffer.pointer + buffer.count + FrameHeader.size)
        precondition(written == length)
        buffer.count += FrameHeader.size + length
        trailer.add(sealedLength: length, blocks: frame.blocks)
    }

    /// Adds trailer and footer. The buffer is then the whole object.
    consuming func finish() throws -> FinishedPack {
        let sealed = try keys.trailerSealing(of: id).seal(trailer.bytes, position: Sealing.trailer)
        let tail = sealed + PackFooter(trailerLength: sealed.count).bytes
        precondition(buffer.count + tail.count <= buffer.capacity, "a trailer overflows its buffer")
        buffer.memory[buffer.count...].copyBytes(from: tail)
        buffer.count += tail.count
        return FinishedPack(id: id, trailer: trailer, buffer: buffer)
    }
}

/// A frame's payload before it is sealed.
struct CodedFrame: Sendable {
    let coding: Coding
    let payload: AlignedBuffer
    let blocks: [(id: BlockID, length: Int)]
}

struct FinishedPack: Sendable {
    let id: ObjectID
    let trailer: PackTrailer
    let buffer: AlignedBuffer

    static func name(_ id: ObjectID) -> String { "v1/packs/\("\(id)".prefix(2))/\(id)" }
    var size: Int { buffer.count }
    /// As an index object lists it.
    var listing: IndexObject.Pack { IndexObject.Pack(id: id, size: size, trailer: trailer) }
}
