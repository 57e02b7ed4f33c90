import BackupBase
import CLinux
import Glibc

/// Reads one open file and leaves the page cache as it found it.
///
/// Large files are read with O_DIRECT. Where that is refused, or nobody knows
/// whether it is honoured (btrfs reads compressed extents through the cache),
/// the pages that a read brought in are dropped again, and only those: what a
/// database had cached stays cached. Small files are first looked for in the
/// cache, where reading costs 2 µs and not 25.
final class BlockReader: Sendable {
    let file: Descriptor
    private let access: Locked<Access>

    private enum Access {
        /// Not decided yet: only the cache has been asked.
        case undecided
        case direct
        /// Pages that a read brings in are dropped after it.
        case watched
    }

    /// Bytes up to which a file counts as small.
    static let smallFile: Int64 = 128 << 10

    /// - Parameters:
    ///   - file: opened without O_DIRECT, and nobody else's
    ///   - size: bytes, as it was opened
    ///   - direct: false as if the file system had refused it
    init(_ file: Descriptor, size: Int64, direct: Bool = true) {
        self.file = file
        isSmall = size <= Self.smallFile
        access = Locked(direct ? .undecided : .watched)
        if !direct { withoutReadahead() }
    }

    private let isSmall: Bool

    /// Reads up to `count` bytes at `offset`, fewer only at the end of the file.
    func read(at offset: Int64, count: Int, into buffer: AlignedBuffer) throws(SystemError) -> Int {
        // No file system has smaller blocks, and so none asks more of direct I/O.
        precondition(offset >= 0 && offset % 512 == 0, "reads begin at whole sectors")
        precondition(count >= 0 && count <= buffer.capacity, "the buffer is too small")
        let whole = (count + AlignedBuffer.alignment - 1) / AlignedBuffer.alignment * AlignedBuffer.alignment
        var filled = 0
        var stalls = 0
        while filled < count {
            let memory = UnsafeMutableRawBufferPointer(start: buffer.pointer + filled, count: whole - filled)
            let got = try readPages(at: offset + Int64(filled), into: memory)
            filled += got
            if got == 0 { break }
            if filled >= count || filled % AlignedBuffer.alignment == 0 { continue }
            // A part of a page is the end of the file, or the file grew meanwhile,
            // or the device gave up halfway: then once more from the page's start.
            if try offset + Int64(filled) >= file.stat().size { break }
            stalls += 1
            guard stalls < 4 else { throw SystemError(operation: "read", errno: EIO) }
            filled -= filled % AlignedBuffer.alignment
        }
        buffer.count = min(filled, count)
        WorkPulse.beat()
        return buffer.count
    }

    /// One system call's worth of bytes, in whichever way works for this file.
    private func readPages(
        at offset: Int64, into memory: UnsafeMutableRawBufferPointer
    ) throws(SystemError) -> Int {
        if isSmall, let count = readCached(at: offset, into: memory) { return count }
        switch decideAccess() {
        case .direct, .undecided:
            do throws(SystemError) {
                return try readPlainly(at: offset, into: memory)
            } catch {
                if error.errno == EIO { return try readAnew(at: offset, into: memory) }
                guard error.errno == EINVAL else { throw error }
                refuseDirect()
                return try readWatched(at: offset, into: memory)
            }
        case .watched:
            return try readWatched(at: offset, into: memory)
        }
    }

    private func readPlainly(
        at offset: Int64, into memory: UnsafeMutableRawBufferPointer
    ) throws(SystemError) -> Int {
        try file.call("read") { pread($0, memory.baseAddress, memory.count, off_t(offset)) }
    }

    /// What the page cache holds, or nil where it does not hold all of it.
    /// Not with RWF_NOWAIT, which starts reading ahead into the cache when it
    /// finds nothing there.
    private func readCached(at offset: Int64, into memory: UnsafeMutableRawBufferPointer) -> Int? {
        guard access.withLock({ $0 }) == .undecided, let stat = try? file.stat(), offset < stat.size,
            // Of other people's files the kernel says that all is cached.
            geteuid() == 0 || geteuid() == stat.owner,
            absentPages(in: offset..<min(offset + Int64(memory.count), stat.size)) == []
        else { return nil }
        return try? readPlainly(at: offset, into: memory)
    }

    // MARK: - Direct or watched

    private func decideAccess() -> Access {
        access.withLock { access in
            if access == .undecided { access = enableDirect() }
            return access
        }
    }

    private func enableDirect() -> Access {
        guard setDirect(true) else {
            withoutReadahead()
            return .watched
        }
        var alignment: Int64 = -1
        _ = try? file.call("stat") { number in
            alignment = bgb_direct_alignment(number)
            return 0
        }
        if alignment > 0, alignment <= Int64(AlignedBuffer.alignment) { return .direct }
        withoutReadahead()
        return .watched
    }

    private func refuseDirect() {
        access.withLock { access in
            _ = setDirect(false)
            withoutReadahead()
            access = .watched
        }
    }

    private func setDirect(_ on: Bool) -> Bool {
        guard let flags = try? file.call("open", { fcntl($0, F_GETFL) }) else { return false }
        let wanted = on ? flags | BGB_O_DIRECT : flags & ~BGB_O_DIRECT
        return (try? file.call("open") { fcntl($0, F_SETFL, wanted) }) != nil
    }

    /// Pages read ahead would look like the database's own at the next read.
    private func withoutReadahead() {
        _ = try? file.call("open") { posix_fadvise($0, 0, 0, POSIX_FADV_RANDOM) }
    }

    /// Through the cache, on a descriptor of its own: where somebody stores into
    /// a hole through a mapping while it is read, ext4 answers a direct read
    /// with EIO ("Direct I/O collision with buffered writes"). A disk that
    /// really fails does so here too.
    private func readAnew(
        at offset: Int64, into memory: UnsafeMutableRawBufferPointer
    ) throws(SystemError) -> Int {
        let reader = BlockReader(try file.reopened(O_RDONLY), size: .max, direct: false)
        return try reader.readWatched(at: offset, into: memory)
    }

    private func readWatched(
        at offset: Int64, into memory: UnsafeMutableRawBufferPointer
    ) throws(SystemError) -> Int {
        let absent = absentPages(in: offset..<offset + Int64(memory.count)) ?? []
        defer {
            for range in absent {
                _ = try? file.call("read") {
                    posix_fadvise($0, off_t(range.lowerBound), off_t(range.count), POSIX_FADV_DONTNEED)
                }
            }
        }
        do throws(SystemError) {
            return try readPlainly(at: offset, into: memory)
        } catch {
            // O_DIRECT was accepted when it was set and is refused now.
            guard error.errno == EINVAL, setDirect(false) else { throw error }
            return try readPlainly(at: offset, into: memory)
        }
    }

    /// The parts of the range that are not in the page cache; nil where nobody
    /// knows. None at all for files of others, which this user could not write.
    private func absentPages(in range: Range<Int64>) -> [Range<Int64>]? {
        let page = Int64(sysconf(Int32(_SC_PAGESIZE)))
        let start = range.lowerBound / page * page
        let length = Int(range.upperBound - start)
        var map: UnsafeMutableRawPointer?
        _ = try? file.call("read") { number in
            map = mmap(nil, length, PROT_READ, MAP_SHARED, number, off_t(start))
            return 0
        }
        guard let address = map, address != MAP_FAILED else { return nil }
        defer { munmap(address, length) }

        let pages = (length + Int(page) - 1) / Int(page)
        return withUnsafeTemporaryAllocation(of: UInt8.self, capacity: pages) { resident in
            guard mincore(address, length, resident.baseAddress) == 0 else { return nil }
            var absent: [Range<Int64>] = []
            for index in 0..<pages where resident[index] & 1 == 0 {
                let lower = start + Int64(index) * page
                if let last = absent.last, last.upperBound == lower {
                    absent[absent.count - 1] = last.lowerBound..<lower + page
                } else {
                    absent.append(lower..<lower + page)
                }
            }
            return absent
        }
    }
}
