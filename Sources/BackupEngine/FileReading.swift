import BackupBase
import BackupRepository
import Glibc
import QdrantStorage
import VolumeIO

/// A file that has to be read, and what becomes of it.
struct FileToRead: Sendable {
    /// Position in the scan.
    let node: Int
    let path: [UInt8]
    let size: Int64
    let kind: FileClass
    /// The file's blocks as the parent snapshot has them, and which of them may
    /// have changed: the others are not read.
    let parent: TrackedParent?

    var cohort: Cohort {
        switch kind.lifetime {
        case .writtenOnce: .writtenOnce
        case .mutable: .mutable
        case .log: .log
        }
    }
}

/// One stretch of a file as it came from the disk, cut and named.
struct FilePiece: Sendable {
    let file: FileToRead
    let source: SourceFile
    /// Set on a file's first piece: where its data is.
    let dataRanges: [Range<Int64>]
    /// The file's stat when it was opened, before anything was read.
    let stat: FileStat
    /// Bytes of it that are backed up: its size then.
    let size: Int64
    /// Bytes from the file's start.
    let offset: Int64
    let region: HashedRegion
    let bytesRead: Int
    /// Bytes that were to be there.
    let expected: Int
    let isLast: Bool
    /// Read to see whether what should not have changed did not.
    var isAudit = false
}

/// A file whose reading failed: the source's error, never the repository's.
enum ReadOutcome: Sendable {
    case piece(FilePiece)
    case failed(FileToRead, SourceError)
}

/// Hands out the reads of a list of files, stretch by stretch, in order.
///
/// Small files are opened by the task that reads them, large ones here, once.
final class ReadQueue {
    struct Work: Sendable {
        let file: FileToRead
        /// Nil: open the file and read it whole.
        let open: OpenFile?
        let range: Range<Int64>
        let isFirst: Bool
        let isLast: Bool
        let failure: SourceError?
        var isAudit = false

        /// Bytes that will be read.
        var byteCount: Int { open == nil ? Int(min(file.size, ReadQueue.stretch)) : range.count }
    }

    struct OpenFile: Sendable {
        let source: SourceFile
        let stat: FileStat
        let dataRanges: [Range<Int64>]
    }

    private let files: [FileToRead]
    private let openSource: @Sendable (FileToRead) throws(SourceError) -> SourceFile
    private var next = 0
    private var current: (file: FileToRead, open: OpenFile, offset: Int64)?

    /// Bytes read at once, and the size of a frame.
    static let stretch = Int64(PackLimits.frame)

    init(_ files: [FileToRead], open: @escaping @Sendable (FileToRead) throws(SourceError) -> SourceFile) {
        self.files = files
        openSource = open
    }

    func take() -> Work? {
        if let work = continueCurrent() { return work }
        guard next < files.count else { return nil }
        let file = files[next]
        next += 1
        if file.size <= Self.stretch {
            return Work(file: file, open: nil, range: 0..<0, isFirst: true, isLast: true, failure: nil)
        }
        do {
            let open = try Self.open(file, openSource)
            current = (file, open, 0)
            return continueCurrent()
        } catch {
            return Work(file: file, open: nil, range: 0..<0, isFirst: true, isLast: true, failure: error)
        }
    }

    static func open(
        _ file: FileToRead, _ openSource: (FileToRead) throws(SourceError) -> SourceFile
    ) throws(SourceError) -> OpenFile {
        let source = try openSource(file)
        let stat = try source.stat()
        return OpenFile(source: source, stat: stat, dataRanges: try source.dataRanges(size: stat.size))
    }

    /// The next stretch with data in it; stretches without any are passed over,
    /// but a file has at least one piece, its last.
    private func continueCurrent() -> Work? {
        guard let (file, open, offset) = current else { return nil }
        if let parent = file.parent { return continueTracked(parent, file, open, offset) }
        let start = Self.firstStretch(from: offset, open.dataRanges) ?? open.stat.size
        let end = min(start + Self.stretch, open.stat.size)
        let following = Self.firstStretch(from: end, open.dataRanges)
        current = following.map { (file, open, $0) }
        return Work(
            file: file, open: open, range: start..<max(start, end), isFirst: offset == 0, isLast: following == nil,
            failure: nil)
    }

    /// The next read of a file of which most is known. `offset` counts its reads.
    private func continueTracked(_ parent: TrackedParent, _ file: FileToRead, _ open: OpenFile, _ offset: Int64) -> Work {
        let index = Int(offset)
        let read = index < parent.reads.count ? parent.reads[index] : nil
        let isLast = index + 1 >= parent.reads.count
        current = isLast ? nil : (file, open, offset + 1)
        return Work(
            file: file, open: open, range: read?.range.clamped(to: 0..<open.stat.size) ?? open.stat.size..<open.stat.size,
            isFirst: index == 0, isLast: isLast, failure: nil, isAudit: read?.isAudit ?? false)
    }

    /// Start of the first stretch at or behind `offset` that holds data.
    private static func firstStretch(from offset: Int64, _ ranges: [Range<Int64>]) -> Int64? {
        let low = ranges.partitioningIndex { $0.upperBound > offset }
        guard low < ranges.count else { return nil }
        return max(offset, ranges[low].lowerBound / stretch * stretch)
    }

    /// Does one piece of work: opens if needed, reads, cuts and names. Runs beside others.
    static func perform(
        _ work: Work, _ openSource: (FileToRead) throws(SourceError) -> SourceFile, _ buffers: BufferPool,
        _ hasher: BlockHasher
    ) -> ReadOutcome {
        if let failure = work.failure { return .failed(work.file, failure) }
        let buffer = buffers.take()
        do throws(SourceError) {
            let open: OpenFile
            if let known = work.open { open = known } else { open = try Self.open(work.file, openSource) }
            // A small file may have grown since the scan: its first stretch is
            // what it had then, and the stat at the end tells that it changed.
            let range = work.open == nil ? 0..<min(open.stat.size, stretch) : work.range
            let wanted = range.count
            let got = wanted == 0 ? 0 : try open.source.read(at: range.lowerBound, count: wanted, into: buffer)
            buffer.count = got
            clearHoles(buffer, range.lowerBound, open.dataRanges)
            let region = HashedRegion(
                buffer: buffer, blocks: cut(buffer, count: got, blockSize: work.file.kind.blockSize, hasher))
            return .piece(
                FilePiece(
                    file: work.file, source: open.source, dataRanges: work.isFirst ? clipped(open, work) : [],
                    stat: open.stat, size: work.open == nil ? min(open.stat.size, stretch) : open.stat.size,
                    offset: range.lowerBound, region: region, bytesRead: got, expected: wanted, isLast: work.isLast,
                    isAudit: work.isAudit))
        } catch {
            buffers.give(buffer)
            return .failed(work.file, error)
        }
    }

    /// What was a hole when the file was opened stays one, though somebody may
    /// have written there since: bytes and hole map belong to one state.
    private static func clearHoles(_ buffer: AlignedBuffer, _ offset: Int64, _ dataRanges: [Range<Int64>]) {
        let window = offset..<offset + Int64(buffer.count)
        var low = dataRanges.partitioningIndex { $0.upperBound > window.lowerBound }
        var end = window.lowerBound
        while low < dataRanges.count, dataRanges[low].lowerBound < window.upperBound {
            let range = dataRanges[low].clamped(to: window)
            if end < range.lowerBound { memset(buffer.pointer + Int(end - offset), 0, Int(range.lowerBound - end)) }
            end = range.upperBound
            low += 1
        }
        if end < window.upperBound { memset(buffer.pointer + Int(end - offset), 0, Int(window.upperBound - end)) }
    }

    /// A small file that grew since the scan keeps the ranges of its first stretch.
    private static func clipped(_ open: OpenFile, _ work: Work) -> [Range<Int64>] {
        guard work.open == nil, open.stat.size > stretch else { return open.dataRanges }
        return open.dataRanges.map { $0.clamped(to: 0..<stretch) }.filter { !$0.isEmpty }
    }

    static func cut(
        _ buffer: AlignedBuffer, count: Int, blockSize: Int, _ hasher: BlockHasher
    ) -> [HashedRegion.Block] {
        stride(from: 0, to: count, by: blockSize).map { start in
            let range = start..<min(start + blockSize, count)
            let bytes = UnsafeRawBufferPointer(rebasing: buffer.bytes[range])
            return HashedRegion.Block(range: range, id: bytes.isZero ? nil : hasher.id(of: bytes))
        }
    }
}
