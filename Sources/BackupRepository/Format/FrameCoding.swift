import BackupBase
import FoundationEssentials

/// From a frame's blocks to its payload and back.
enum FrameCoding {
    /// Bytes looked at to choose a coding.
    private static let sample = 32 << 10
    /// What does not shrink below this share of itself is stored as it is.
    private static let worthwhile = 0.96

    /// Filters and compresses `plain`. `planes` and `output` come from pools of
    /// buffers that hold a frame and a bit more.
    static func encode(
        _ plain: UnsafeRawBufferPointer, cohort: Cohort, buffers: BufferPool
    ) -> (coding: Coding, payload: AlignedBuffer) {
        let output = buffers.take()
        let coded = Compressor.with { compressor in
            switch choose(plain, cohort, compressor, scratch: output) {
            case .direct(let level): return (Coding.Filter.none, compressor.compress(plain, into: output.memory, level))
            case .planes:
                let planes = buffers.take()
                defer { buffers.give(planes) }
                Planes.split(plain, into: planes.pointer)
                let split = UnsafeRawBufferPointer(start: planes.pointer, count: plain.count)
                return (.planes4, compressor.compressPlanes(split, into: output.memory))
            case .stored: return (.none, nil)
            }
        }
        if let count = coded.1, count < plain.count {
            output.count = count
            return (Coding(codec: .zstd, filter: coded.0), output)
        }
        output.memory.copyMemory(from: plain)
        output.count = plain.count
        return (Coding(codec: .stored, filter: .none), output)
    }

    private enum Choice {
        case stored
        case direct(Compressor.Level)
        case planes
    }

    /// Compresses a sample both ways.
    private static func choose(
        _ plain: UnsafeRawBufferPointer, _ cohort: Cohort, _ compressor: Compressor, scratch: AlignedBuffer
    ) -> Choice {
        if cohort == .metadata { return .direct(.small) }
        guard plain.count > 4096 else { return .direct(.fast) }
        let count = min(sample, plain.count)
        let start = (plain.count - count) / 2 / 4096 * 4096
        let part = UnsafeRawBufferPointer(rebasing: plain[start..<start + count])
        let direct = compressor.compress(part, into: scratch.memory, .fast) ?? count
        let split = [UInt8](unsafeUninitializedCapacity: count) { buffer, written in
            Planes.split(part, into: UnsafeMutableRawPointer(buffer.baseAddress!))
            written = count
        }
        let planes = split.withUnsafeBytes { compressor.compressPlanes($0, into: scratch.memory) } ?? count
        guard Double(min(direct, planes)) < worthwhile * Double(count) else { return .stored }
        return planes < direct ? .planes : .direct(.fast)
    }

    /// Undoes `encode` into `output`, which must hold `length` bytes.
    static func decode(_ payload: Data, _ coding: Coding, length: Int, into output: AlignedBuffer, buffers: BufferPool) throws {
        guard length <= output.capacity else { throw FormatError("a frame is too large") }
        output.count = length
        let target = UnsafeMutableRawBufferPointer(start: output.pointer, count: length)
        switch coding.filter {
        case .none: try inflate(payload, coding.codec, into: target)
        case .planes4:
            let planes = buffers.take()
            defer { buffers.give(planes) }
            let split = UnsafeMutableRawBufferPointer(start: planes.pointer, count: length)
            try inflate(payload, coding.codec, into: split)
            Planes.join(UnsafeRawBufferPointer(split), into: output.pointer)
        }
    }

    private static func inflate(_ payload: Data, _ codec: Coding.Codec, into target: UnsafeMutableRawBufferPointer) throws {
        let written: Int
        switch codec {
        case .zstd: written = try Decompression.inflate(payload, into: target)
        case .stored:
            guard payload.count == target.count else { throw FormatError("a frame is not as long as the trailer says") }
            written = payload.count
            payload.withUnsafeBytes { target.copyMemory(from: $0) }
        }
        guard written == target.count else { throw FormatError("a frame is not as long as the trailer says") }
    }
}
