import BackupBase
import CLinux
import Glibc

/// An unnamed file that takes copies of what changed, so that writes are held
/// for a copy and not for an upload. Gone with the process, however it ends.
final class SpoolFile: @unchecked Sendable {
    // Unchecked: `end` and `places` are touched with `lock` held only.
    private let file: Descriptor
    private let lock = Locked(())
    private var end: Int64 = 0

    /// - Parameter directory: with room for what changes during a backup
    init(directory: String) throws(CaptureError) {
        do throws(SystemError) {
            file = try Descriptor(
                system("open") { open(directory, O_RDWR | BGB_O_TMPFILE | O_CLOEXEC, 0o600) })
        } catch {
            throw CaptureError("there is no room for changes in \(directory)", error, hint: "Set BGBACKUP_CACHE_DIR.")
        }
    }

    private func reserve(_ count: Int64) -> Int64 {
        lock.withLock { _ in
            defer { end += (count + 4095) / 4096 * 4096 }
            return end
        }
    }

    /// Copies a file's data, which nobody may change meanwhile.
    func take(_ source: SourceFile, buffers: BufferPool) throws -> SourceFile {
        let stat = try source.stat()
        let ranges = try source.dataRanges(size: stat.size)
        var spans: [SpooledReader.Span] = []
        for range in ranges {
            // Whole pages: reads begin at block bounds, and blocks may begin in a hole.
            let start = range.lowerBound / 4096 * 4096
            let count = range.upperBound - start
            let place = reserve(count)
            try copy(source, start..<range.upperBound, to: place, buffers)
            spans.append(SpooledReader.Span(range: start..<range.upperBound, place: place))
        }
        return SourceFile(
            path: source.path, spooled: SpooledReader(file: file, stat: stat, dataRanges: ranges, spans: spans))
    }

    /// Copies those blocks of a file that are not what is known of them.
    /// - Returns: the copy, which reads as zeros elsewhere, and where those blocks are
    func takeChanges(
        _ source: SourceFile, _ known: KnownBlocks, buffers: BufferPool
    ) throws -> (file: SourceFile, changed: [Range<Int64>]) {
        let stat = try source.stat()
        let ranges = try source.dataRanges(size: stat.size)
        let buffer = buffers.take()
        defer { buffers.give(buffer) }
        var changed: [Range<Int64>] = []
        var spans: [SpooledReader.Span] = []
        var data = ranges[...]
        for start in stride(from: 0, to: stat.size, by: buffer.capacity) {
            let window = start..<min(start + Int64(buffer.capacity), stat.size)
            while let first = data.first, first.upperBound <= window.lowerBound { data.removeFirst() }
            guard let first = data.first, first.lowerBound < window.upperBound else {
                changed += known.blocks(of: window).filter { !known.isZero($0.index) }.map(\.range)
                continue
            }
            let got = try source.read(at: window.lowerBound, count: window.count, into: buffer)
            guard got == window.count else { throw SourceError(path: source.path, operation: "read", errno: ESTALE) }
            for (index, range) in known.blocks(of: window) {
                let bytes = UnsafeRawBufferPointer(
                    start: buffer.pointer + Int(range.lowerBound - window.lowerBound), count: range.count)
                if known.isSame(index, bytes) { continue }
                let place = reserve(Int64(bytes.count))
                try write(bytes, at: place)
                spans.append(SpooledReader.Span(range: range, place: place))
                changed.append(range)
            }
        }
        let reader = SpooledReader(file: file, stat: stat, dataRanges: ranges, spans: spans)
        return (SourceFile(path: source.path, spooled: reader), changed)
    }

    private func copy(_ source: SourceFile, _ range: Range<Int64>, to place: Int64, _ buffers: BufferPool) throws {
        var position = range.lowerBound
        while position < range.upperBound {
            let buffer = buffers.take()
            defer { buffers.give(buffer) }
            let wanted = Int(min(Int64(buffer.capacity), range.upperBound - position))
            let got = try source.read(at: position, count: wanted, into: buffer)
            guard got == wanted else { throw SourceError(path: source.path, operation: "read", errno: ESTALE) }
            try write(UnsafeRawBufferPointer(buffer.bytes), at: place + position - range.lowerBound)
            position += Int64(got)
        }
    }

    private func write(_ bytes: UnsafeRawBufferPointer, at offset: Int64) throws(CaptureError) {
        var done = 0
        while done < bytes.count {
            do throws(SystemError) {
                done += try file.call("write") {
                    pwrite($0, bytes.baseAddress! + done, bytes.count - done, off_t(offset) + off_t(done))
                }
            } catch {
                throw CaptureError(
                    "what changed during the backup cannot be put aside", error,
                    hint: "Make room where BGBACKUP_CACHE_DIR is, or set it to a directory with more.")
            }
        }
    }
}

/// What an earlier pass read of a file, block by block.
public struct KnownBlocks: Sendable {
    /// Bytes.
    let blockSize: Int
    /// Whether a block, by its number, still is what was read.
    let isSame: @Sendable (_ index: Int, UnsafeRawBufferPointer) -> Bool
    /// Whether a block was all zero.
    let isZero: @Sendable (_ index: Int) -> Bool

    /// - Parameters: both answer false for blocks that the file did not have
    public init(
        blockSize: Int, isSame: @escaping @Sendable (_ index: Int, UnsafeRawBufferPointer) -> Bool,
        isZero: @escaping @Sendable (_ index: Int) -> Bool
    ) {
        (self.blockSize, self.isSame, self.isZero) = (blockSize, isSame, isZero)
    }

    /// Blocks in a stretch that begins with one.
    func blocks(of window: Range<Int64>) -> [(index: Int, range: Range<Int64>)] {
        stride(from: window.lowerBound, to: window.upperBound, by: blockSize).map {
            (Int($0) / blockSize, $0..<min($0 + Int64(blockSize), window.upperBound))
        }
    }
}

/// Reads a file's copy out of a spool.
struct SpooledReader: Sendable {
    struct Span: Sendable {
        let range: Range<Int64>
        let place: Int64
    }

    let file: Descriptor
    let stat: FileStat
    let dataRanges: [Range<Int64>]
    let spans: [Span]

    func read(at offset: Int64, count: Int, into buffer: AlignedBuffer) throws(SystemError) -> Int {
        let window = offset..<min(offset + Int64(count), max(offset, stat.size))
        memset(buffer.pointer, 0, window.count)
        for span in spans where span.range.overlaps(window) {
            let part = span.range.clamped(to: window)
            var done: Int64 = 0
            while done < Int64(part.count) {
                let target = buffer.pointer + Int(part.lowerBound - offset + done)
                let place = span.place + part.lowerBound - span.range.lowerBound + done
                let got = try file.call("read") { pread($0, target, part.count - Int(done), off_t(place)) }
                guard got > 0 else { throw SystemError(operation: "read", errno: EIO) }
                done += Int64(got)
            }
        }
        buffer.count = window.count
        return window.count
    }
}
