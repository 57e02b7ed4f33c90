import BackupBase
import CZstd
import FoundationEssentials

/// A zstd compressor that is used again and again by one thread at a time.
final class Compressor {
    enum Level {
        /// A hash table that fits the first-level cache: JSON payload at 1.35
        /// times the speed of level 1 for a sixth more bytes (docs/architecture.md).
        case fast
        /// Metadata, little of it.
        case small
    }

    private let context: OpaquePointer

    init() {
        // Allocation of a MiB failed: as with any other, there is no way on.
        guard let context = ZSTD_createCCtx() else { fatalError("out of memory: no zstd context") }
        self.context = context
    }

    deinit { ZSTD_freeCCtx(context) }

    static func bound(_ count: Int) -> Int { ZSTD_compressBound(count) }

    /// - Returns: bytes written to `output`, or nil when they do not fit.
    func compress(_ input: UnsafeRawBufferPointer, into output: UnsafeMutableRawBufferPointer, _ level: Level) -> Int? {
        _ = bgb_zstd_reset(context)
        switch level {
        case .fast:
            _ = bgb_zstd_set_level(context, 1)
            _ = bgb_zstd_set_fast(context, 11, 7, 4)
            _ = bgb_zstd_force_literals(context, 1)
        case .small: _ = bgb_zstd_set_level(context, 6)
        }
        let written = ZSTD_compress2(
            context, output.baseAddress, output.count, input.baseAddress, input.count)
        return ZSTD_isError(written) != 0 ? nil : written
    }

    /// Compresses the four planes of `Planes.split`, each in blocks of its own:
    /// exponents and noise have different statistics.
    func compressPlanes(_ planes: UnsafeRawBufferPointer, into output: UnsafeMutableRawBufferPointer) -> Int? {
        _ = bgb_zstd_reset(context)
        setEntropy()
        _ = bgb_zstd_pledge(context, UInt64(planes.count))
        let quarter = planes.count / 4
        var written = 0
        for plane in 0..<4 {
            let end = plane == 3 ? planes.count : (plane + 1) * quarter
            let count = bgb_zstd_append(
                context, output.baseAddress! + written, output.count - written, planes.baseAddress! + plane * quarter,
                end - plane * quarter, plane == 3 ? 1 : 0)
            guard ZSTD_isError(count) == 0 else { return nil }
            written += count
        }
        return written
    }

    /// Huffman coding and no search for matches: all that byte planes of floats
    /// have to give, at 2.4 GB/s (docs/architecture.md, "Compression").
    private func setEntropy() {
        if ZSTD_isError(bgb_zstd_force_literals(context, 1)) != 0 {
            _ = bgb_zstd_set_level(context, 1)
        } else {
            _ = bgb_zstd_set_level(context, -1000)
        }
    }

    /// Compressors in rest, so that each task in flight has one of its own.
    static func with<Result>(_ body: (Compressor) throws -> Result) rethrows -> Result {
        let compressor = pool.withLock { $0.popLast() } ?? Compressor()
        defer { pool.withLock { $0.append(compressor) } }
        return try body(compressor)
    }
    private static let pool = Locked<[Compressor]>([])
}

enum Decompression {
    /// Inflates one zstd frame of at most `limit` bytes.
    static func inflate(_ input: Data, limit: Int) throws -> [UInt8] {
        let size = input.withUnsafeBytes { ZSTD_getFrameContentSize($0.baseAddress, $0.count) }
        guard size <= UInt64(limit) else { throw FormatError("a compressed piece is too large, or does not say how large") }
        let result = try [UInt8](unsafeUninitializedCapacity: Int(size)) { buffer, count in
            count = try inflate(input, into: UnsafeMutableRawBufferPointer(buffer))
        }
        guard result.count == Int(size) else { throw FormatError("a compressed piece is not as long as it says") }
        return result
    }

    /// Inflates into `output`, which is the limit. Returns bytes written.
    static func inflate(_ input: Data, into output: UnsafeMutableRawBufferPointer) throws -> Int {
        try input.withUnsafeBytes { source in
            guard ZSTD_findFrameCompressedSize(source.baseAddress, source.count) == source.count else {
                throw FormatError("a compressed piece is not one zstd frame")
            }
            let context = try Context.take()
            defer { Context.give(context) }
            let written = ZSTD_decompressDCtx(
                context.pointer, output.baseAddress, output.count, source.baseAddress, source.count)
            guard ZSTD_isError(written) == 0 else { throw FormatError("a compressed piece cannot be inflated") }
            return written
        }
    }

    private final class Context {
        let pointer: OpaquePointer
        init(_ pointer: OpaquePointer) { self.pointer = pointer }
        deinit { ZSTD_freeDCtx(pointer) }

        static func take() throws -> Context {
            if let idle = pool.withLock({ $0.popLast() }) { return idle }
            guard let pointer = ZSTD_createDCtx() else { throw FormatError("out of memory: no zstd context") }
            // 8 MiB: no writer of ours needs more, and no reader should give more.
            _ = bgb_zstd_limit_window(pointer, 23)
            return Context(pointer)
        }
        static func give(_ context: Context) { pool.withLock { $0.append(context) } }
        private static let pool = Locked<[Context]>([])
    }
}
