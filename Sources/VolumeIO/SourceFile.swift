import BackupBase
import CLinux
import Glibc

/// One regular file, block device or raw image open for reading.
/// Many threads may read it at once.
public final class SourceFile: Sendable {
    /// Relative to the tree's root; absolute where it was opened as a device.
    public let path: [UInt8]
    private let bytes: Bytes

    private enum Bytes {
        case file(BlockReader)
        case spooled(SpooledReader)
    }

    init(path: [UInt8], reader: BlockReader) {
        self.path = path
        bytes = .file(reader)
    }

    init(path: [UInt8], spooled: SpooledReader) {
        self.path = path
        bytes = .spooled(spooled)
    }

    /// The open file, where it is one of its own.
    var descriptor: Descriptor? {
        if case .file(let reader) = bytes { reader.file } else { nil }
    }

    /// Opens a block device or an image file; links in the path are followed.
    /// - Throws: `SourceError`; EINVAL where it is neither
    public static func device(path: String) throws(SourceError) -> SourceFile {
        let bytes = Array(path.utf8)
        do throws(SystemError) {
            let file = try Descriptor.withoutAccessTime { noatime throws(SystemError) in
                try Descriptor(
                    system("open") { open(path, O_RDONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC | noatime) })
            }
            let stat = try file.stat()
            guard stat.kind == .file || stat.mode & S_IFMT == S_IFBLK else {
                throw SystemError(operation: "open", errno: EINVAL)
            }
            return SourceFile(path: bytes, reader: BlockReader(file, size: stat.size))
        } catch {
            throw SourceError(bytes, error)
        }
    }

    /// Writes the file's dirty pages out, so that the next store through a
    /// mapping moves its modification time. Not a durability barrier.
    public func settle() throws(SourceError) {
        try attributed { () throws(SystemError) in try descriptor?.clean() }
    }

    /// Of a block device, the size is its capacity.
    public func stat() throws(SourceError) -> FileStat {
        try attributed { () throws(SystemError) in
            switch bytes {
            case .file(let reader): try reader.file.stat()
            case .spooled(let reader): reader.stat
            }
        }
    }

    /// Where there is data, up to `size` bytes: ascending, disjoint, not
    /// touching. What lies between is a hole and reads as zeros. The bounds are
    /// whole blocks of the file system, which may be smaller than a page (ext4
    /// with 1 KiB blocks), and never anything but multiples of 512 and `size`.
    /// A file system that does not know its holes gives one range.
    public func dataRanges(size: Int64) throws(SourceError) -> [Range<Int64>] {
        try attributed { () throws(SystemError) in
            switch bytes {
            case .file(let reader): try reader.file.dataRanges(size: size)
            case .spooled(let reader): reader.dataRanges
            }
        }
    }

    /// Reads up to `count` bytes at `offset` into the buffer and sets its count.
    /// The page cache is left as it was.
    ///
    /// - Parameters:
    ///   - offset: bytes, a multiple of `AlignedBuffer.alignment` or a bound of a data range
    ///   - count: bytes, at the most the buffer's capacity
    /// - Returns: bytes read, fewer than `count` only at the end of the file
    public func read(at offset: Int64, count: Int, into buffer: AlignedBuffer) throws(SourceError) -> Int {
        try attributed { () throws(SystemError) in
            switch bytes {
            case .file(let reader): try reader.read(at: offset, count: count, into: buffer)
            case .spooled(let reader): try reader.read(at: offset, count: count, into: buffer)
            }
        }
    }

    func attributed<Value>(_ body: () throws(SystemError) -> Value) throws(SourceError) -> Value {
        do throws(SystemError) { return try body() } catch { throw SourceError(path, error) }
    }
}

/// The smallest block of any file system or device: bytes.
private let sectorSize: Int64 = 512

extension Descriptor {
    func dataRanges(size: Int64) throws(SystemError) -> [Range<Int64>] {
        var ranges: [Range<Int64>] = []
        var position: Int64 = 0
        while position < size {
            var start: Int64
            do throws(SystemError) {
                start = try seek(position, BGB_SEEK_DATA)
            } catch {
                switch error.errno {
                case ENXIO: return ranges  // only hole until the end
                case EINVAL, EOPNOTSUPP: return [0..<size]  // knows no holes, or a device
                default: throw error
                }
            }
            guard start < size else { return ranges }
            let end = try endOfData(from: start, size: size)
            start -= start % sectorSize
            if let last = ranges.last, last.upperBound >= start {
                ranges[ranges.count - 1] = last.lowerBound..<end
            } else {
                ranges.append(start..<end)
            }
            position = end
        }
        return ranges
    }

    private func endOfData(from start: Int64, size: Int64) throws(SystemError) -> Int64 {
        do throws(SystemError) {
            let end = try seek(start, BGB_SEEK_HOLE)
            // A file that changes meanwhile may answer anything: take the rest
            // as data then, which is never wrong.
            guard end > start else { return size }
            return min((end + sectorSize - 1) / sectorSize * sectorSize, size)
        } catch {
            guard error.errno == ENXIO else { throw error }
            return size
        }
    }

    /// The position these two give does not depend on the descriptor's own, so
    /// many threads may ask at once.
    private func seek(_ offset: Int64, _ what: Int32) throws(SystemError) -> Int64 {
        Int64(try call("find data of") { lseek($0, off_t(offset), what) })
    }
}
