import BackupBase
import CLinux
import Glibc

/// One regular file, block device or raw image open for writing.
/// Many threads may write to different places of it at once.
public final class TargetFile: Sendable {
    /// Relative to the tree's root; absolute where it was opened as a device.
    public let path: [UInt8]
    /// Bytes; nothing is ever written beyond.
    public let size: Int64
    private let isDevice: Bool
    /// Through the page cache, for what direct I/O cannot do.
    private let buffered: Descriptor
    private let direct: Locked<Direct>
    private let reader = Locked<BlockReader?>(nil)

    private enum Direct {
        case unopened
        case open(Descriptor)
        case refused
    }

    /// Memory for bytes that do not lie where direct I/O wants them: copying
    /// costs a tenth of what writing through the page cache does.
    private static let bounces = BufferPool(size: 1 << 20, keep: 4)

    init(path: [UInt8], file: Descriptor, size: Int64, isDevice: Bool, direct: Bool = true) {
        self.path = path
        self.size = size
        self.isDevice = isDevice
        buffered = file
        // Small files stay in the page cache until `synchronize`: writing each
        // through is a wait for the disk per file.
        let isSmall = !isDevice && size <= BlockReader.smallFile
        self.direct = Locked(direct && !isSmall ? .unopened : .refused)
        waits = !isSmall
    }

    /// Whether what goes through the page cache is written out and dropped at once.
    private let waits: Bool

    /// Opens an existing block device or image file; links in the path are
    /// followed. A device that is mounted or otherwise in use is refused.
    /// - Throws: `TargetError`; EINVAL where it is neither, EBUSY where it is in use
    public static func device(path: String) throws(TargetError) -> TargetFile {
        let bytes = Array(path.utf8)
        do throws(SystemError) {
            // O_EXCL without O_CREAT: the kernel's own claim on a block device.
            let file = try Descriptor(
                system("open") { open(path, O_RDWR | O_EXCL | O_NONBLOCK | O_NOCTTY | O_CLOEXEC) })
            let stat = try file.stat()
            let isDevice = stat.mode & S_IFMT == S_IFBLK
            guard isDevice || stat.kind == .file else { throw SystemError(operation: "open", errno: EINVAL) }
            return TargetFile(path: bytes, file: file, size: stat.size, isDevice: isDevice)
        } catch {
            throw TargetError(bytes, error)
        }
    }

    /// Writes all bytes. Whole pages go to the disk directly, a head or tail
    /// that is less than a page through the cache; neither is durable before
    /// `synchronize`. Fast where offset and memory are aligned to pages.
    ///
    /// - Throws: `TargetError`; EFBIG where the bytes would go beyond `size`
    public func write(_ bytes: UnsafeRawBufferPointer, at offset: Int64) throws(TargetError) {
        try attributed { () throws(SystemError) in
            guard offset >= 0, Int64(bytes.count) <= size - offset else {
                throw SystemError(operation: "write", errno: EFBIG)
            }
            let page = Int64(AlignedBuffer.alignment)
            let head = min(bytes.count, Int((page - offset % page) % page))
            var done = 0
            if let file = directFile() {
                try writeBuffered(bytes[..<head], at: offset)
                done = head + (try writePages(bytes[head...], at: offset + Int64(head), file))
            }
            try writeBuffered(bytes[done...], at: offset + Int64(done))
        }
    }

    /// Reads what is there, as `SourceFile.read` does.
    public func read(at offset: Int64, count: Int, into buffer: AlignedBuffer) throws(TargetError) -> Int {
        try attributed { () throws(SystemError) in
            try openReader().read(at: offset, count: count, into: buffer)
        }
    }

    /// Made with the first read; two that begin at once make two, and one is kept.
    private func openReader() throws(SystemError) -> BlockReader {
        if let reader = reader.withLock({ $0 }) { return reader }
        let fresh = BlockReader(try buffered.reopened(O_RDONLY), size: size)
        return reader.withLock { kept in
            if kept == nil { kept = fresh }
            return kept!
        }
    }

    /// Where there is data already, as `SourceFile.dataRanges`.
    public func dataRanges() throws(TargetError) -> [Range<Int64>] {
        try attributed { () throws(SystemError) in try buffered.dataRanges(size: size) }
    }

    /// Reserves blocks for a range that is going to be written, as far as the
    /// file system can; the range still reads as a hole until then. On ext4 it
    /// makes direct writes faster, and lets several go on at once.
    public func preallocate(_ range: Range<Int64>) {
        guard waits, !isDevice, !range.isEmpty else { return }
        _ = try? buffered.call("reserve") { bgb_preallocate($0, off_t(range.lowerBound), off_t(range.count)) }
    }

    /// - Returns: false where the file system cannot
    func punchHole(_ range: Range<Int64>) throws(TargetError) -> Bool {
        try attributed { () throws(SystemError) in
            do throws(SystemError) {
                try buffered.call("make a hole in") { bgb_punch_hole($0, off_t(range.lowerBound), off_t(range.count)) }
                return true
            } catch {
                guard error.errno == EOPNOTSUPP || error.errno == ENOSYS else { throw error }
                return false
            }
        }
    }

    /// Makes everything from there to the end a hole.
    func cutTail(from start: Int64) throws(TargetError) {
        try attributed { () throws(SystemError) in
            for end in [start, size] { try buffered.call("set the size of") { ftruncate($0, off_t(end)) } }
        }
    }

    /// Puts what was written on stable storage. An EIO is final.
    public func synchronize() throws(TargetError) {
        try attributed { () throws(SystemError) in _ = try buffered.call("sync") { fsync($0) } }
    }

    // MARK: - Direct

    private func directFile() -> Descriptor? {
        direct.withLock { direct in
            if case .unopened = direct {
                direct = (try? buffered.reopened(O_RDWR | BGB_O_DIRECT)).map { .open($0) } ?? .refused
            }
            if case .open(let file) = direct { return file }
            return nil
        }
    }

    /// Writes the whole pages of the bytes.
    /// - Returns: bytes written; fewer where direct I/O was refused or gave up
    private func writePages(
        _ part: Slice<UnsafeRawBufferPointer>, at offset: Int64, _ file: Descriptor
    ) throws(SystemError) -> Int {
        let alignment = AlignedBuffer.alignment
        let bytes = UnsafeRawBufferPointer(rebasing: part)
        let whole = bytes.count / alignment * alignment
        guard whole > 0, let base = bytes.baseAddress else { return 0 }
        let isAligned = UInt(bitPattern: base) % UInt(alignment) == 0
        let bounce = isAligned ? nil : Self.bounces.take()
        defer { if let bounce { Self.bounces.give(bounce) } }
        var done = 0
        while done < whole {
            var memory = base + done
            var count = whole - done
            if let bounce {
                count = min(count, bounce.capacity)
                bounce.pointer.copyMemory(from: memory, byteCount: count)
                memory = UnsafeRawPointer(bounce.pointer)
            }
            do throws(SystemError) {
                done += try file.call("write") { pwrite($0, memory, count, off_t(offset) + off_t(done)) }
            } catch {
                guard error.errno == EINVAL else { throw error }
                direct.withLock { $0 = .refused }
                return done
            }
            // A part of a page: the cache can go on from there.
            if done % alignment != 0 { return done }
        }
        return done
    }

    private func writeBuffered(_ part: Slice<UnsafeRawBufferPointer>, at offset: Int64) throws(SystemError) {
        let bytes = UnsafeRawBufferPointer(rebasing: part)
        if bytes.isEmpty { return }
        var done = 0
        while done < bytes.count {
            let memory = bytes.baseAddress! + done
            done += try buffered.call("write") { pwrite($0, memory, bytes.count - done, off_t(offset) + off_t(done)) }
        }
        guard waits else { return }
        // Only clean pages can be dropped.
        try buffered.call("write") { number in
            bgb_sync_range(number, off_t(offset), off_t(bytes.count), UInt32(BGB_SYNC_WAIT_WRITE_WAIT))
        }
        _ = try? buffered.call("write") { number in
            posix_fadvise(number, off_t(offset), off_t(bytes.count), POSIX_FADV_DONTNEED)
        }
    }

    private func attributed<Value>(_ body: () throws(SystemError) -> Value) throws(TargetError) -> Value {
        do throws(SystemError) { return try body() } catch { throw TargetError(path, error) }
    }
}
