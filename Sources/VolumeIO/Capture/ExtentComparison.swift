import BackupBase
import CLinux
import Glibc

/// Where two files on one file system certainly have the same bytes, because
/// they share the same extents on the disk: learned without reading either.
///
/// What is shared is written by nobody: file systems with shared extents copy
/// before they write, for as long as both files hold on to it.
public enum ExtentComparison {
    /// The parts of `file` that may differ from `earlier`: ascending, disjoint,
    /// over all of the file's size. Nil where the file system does not tell.
    ///
    /// A part counts as the same where both have it in the same place on the
    /// disk, plainly, or both have a hole.
    ///
    /// - Parameter written: where the device beneath was written to since, where
    ///   the two are on snapshots of one device: what is in the same place then
    ///   is the same outside of that, shared or not
    public static func changedRanges(
        of file: SourceFile, since earlier: SourceFile, written: [Range<Int64>]? = nil
    ) -> [Range<Int64>]? {
        guard let one = file.descriptor, let other = earlier.descriptor,
            let stat = try? one.stat(), let earlierStat = try? other.stat(),
            let new = try? one.extents(), let old = try? other.extents()
        else { return nil }
        return changed(
            new, old, size: stat.size, earlierSize: earlierStat.size, needsShared: written == nil, written: written
        )
        .ranges
    }

    /// The same for files in two read-only snapshots on btrfs, without asking who
    /// shares what: both are there and hold on to their extents, and what two
    /// hold is copied before it is written, also in files without copy-on-write
    /// (can_nocow_extent in fs/btrfs/inode.c looks for other references).
    /// Nil also without the right to search the file system's trees (CAP_SYS_ADMIN).
    /// - Returns: also the bytes that `earlier` has on the disk and `file` has no more in the same place
    static func changes(
        ofSnapshot file: SourceFile, since earlier: SourceFile
    ) -> (ranges: [Range<Int64>], onlyEarlier: Int64)? {
        guard let one = file.descriptor, let other = earlier.descriptor,
            let stat = try? one.stat(), let earlierStat = try? other.stat(),
            let new = try? one.btrfsExtents(), let old = try? other.btrfsExtents()
        else { return nil }
        return changed(new, old, size: stat.size, earlierSize: earlierStat.size, needsShared: false)
    }

    static func changed(
        _ new: [FileExtent], _ old: [FileExtent], size: Int64, earlierSize: Int64, needsShared: Bool = true,
        written: [Range<Int64>]? = nil
    ) -> (ranges: [Range<Int64>], onlyEarlier: Int64) {
        // Behind the shorter one's end nothing is compared.
        let common = min(size, earlierSize)
        var changed: [Range<Int64>] = []
        var onlyEarlier: Int64 = 0
        func add(_ range: Range<Int64>) {
            let range = range.clamped(to: 0..<size)
            guard !range.isEmpty else { return }
            if let last = changed.last, last.upperBound >= range.lowerBound {
                changed[changed.count - 1] = last.lowerBound..<max(last.upperBound, range.upperBound)
            } else {
                changed.append(range)
            }
        }
        var (left, right) = (Cursor(new, end: size), Cursor(old, end: earlierSize))
        var position: Int64 = 0
        while position < common {
            let (one, other) = (left.piece(at: position), right.piece(at: position))
            let end = min(one.end, other.end, common)
            if !one.isSame(as: other, at: position, needsShared: needsShared) {
                add(position..<end)
                if other.takesRoom { onlyEarlier += end - position }
            } else if let written, let extent = one.extent {
                let shift = extent.logical - extent.physical
                for range in written.overlapping(position - shift..<end - shift) {
                    add(range.lowerBound + shift..<range.upperBound + shift)
                }
            }
            position = end
        }
        if size > common { add(common..<size) }
        while position < earlierSize {
            let other = right.piece(at: position)
            if other.takesRoom { onlyEarlier += other.end - position }
            position = other.end
        }
        return (changed, onlyEarlier)
    }

    /// What is at one position: an extent, or the hole until the next.
    private struct Piece {
        let extent: FileExtent?
        let end: Int64

        var takesRoom: Bool { extent.map { $0.flags & FileExtent.withoutRoom == 0 } ?? false }

        func isSame(as other: Piece, at position: Int64, needsShared: Bool) -> Bool {
            switch (extent, other.extent) {
            case (nil, nil): true
            case (let one?, let other?):
                one.isPlain && other.isPlain && (!needsShared || one.isShared && other.isShared)
                    && one.physical + (position - one.logical) == other.physical + (position - other.logical)
            default: false
            }
        }
    }

    private struct Cursor {
        let extents: [FileExtent]
        let end: Int64
        var next = 0

        init(_ extents: [FileExtent], end: Int64) {
            self.extents = extents
            self.end = end
        }

        mutating func piece(at position: Int64) -> Piece {
            while next < extents.count, extents[next].logical + extents[next].length <= position { next += 1 }
            guard next < extents.count else { return Piece(extent: nil, end: end) }
            let extent = extents[next]
            if extent.logical > position { return Piece(extent: nil, end: min(extent.logical, end)) }
            return Piece(extent: extent, end: min(extent.logical + extent.length, end))
        }
    }
}

/// One extent as FIEMAP tells it: bytes.
struct FileExtent: Equatable {
    var logical: Int64
    var physical: Int64
    var length: Int64
    var flags: UInt32

    /// FIEMAP_EXTENT_: LAST 1, UNKNOWN 2, DELALLOC 4, ENCODED 8, DATA_ENCRYPTED
    /// 0x80, NOT_ALIGNED 0x100, DATA_INLINE 0x200, DATA_TAIL 0x400, UNWRITTEN
    /// 0x800, MERGED 0x1000, SHARED 0x2000 (linux/fiemap.h). Only what is known
    /// to mean nothing else may be compared by its place: a compressed extent's
    /// place is that of the whole, an unwritten one becomes data where it is,
    /// and a flag of tomorrow may mean anything.
    var isPlain: Bool { flags & ~0x2001 == 0 }
    /// What is not shared is in one of two files of a file system only.
    var isShared: Bool { flags & 0x2000 != 0 }

    /// Whether it takes up room of its own: neither shared, nor without a place
    /// yet, nor among the file system's own records.
    var isAlone: Bool { !isShared && flags & Self.withoutRoom == 0 }
    /// DELALLOC and DATA_INLINE.
    static let withoutRoom: UInt32 = 0x4 | 0x200
}

extension [Range<Int64>] {
    /// The parts of ascending, disjoint ranges that are in this one.
    fileprivate func overlapping(_ range: Range<Int64>) -> [Range<Int64>] {
        self[partitioningIndex { $0.upperBound > range.lowerBound }...].prefix { $0.lowerBound < range.upperBound }
            .map { $0.clamped(to: range) }
    }
}

extension Descriptor {
    /// All extents, in order.
    /// - Throws: EOPNOTSUPP where the file system has no FIEMAP, EFBIG where there are too many to be worth it
    func extents() throws(SystemError) -> [FileExtent] {
        try extents { number, start, raw, next in
            let count = bgb_fiemap(number, start, raw.baseAddress, UInt32(raw.count))
            guard count > 0, raw[Int(count) - 1].fe_flags & 1 == 0 else { return count }
            next = raw[Int(count) - 1].fe_logical + raw[Int(count) - 1].fe_length
            return count
        }
    }

    /// All extents of a file of a read-only snapshot on btrfs, in order, without
    /// the flags LAST and SHARED.
    /// - Throws: ENOTTY on other file systems, EPERM without CAP_SYS_ADMIN, EFBIG
    func btrfsExtents() throws(SystemError) -> [FileExtent] {
        try extents { bgb_btrfs_extents($0, $1, $2.baseAddress, UInt32($2.count), &$3) }
    }

    /// - Parameter list: puts extents from a position on into the buffer and returns how many;
    ///   sets the position where more may follow
    private func extents(
        _ list: (Int32, UInt64, UnsafeMutableBufferPointer<fiemap_extent>, inout UInt64) -> Int32
    ) throws(SystemError) -> [FileExtent] {
        var found: [FileExtent] = []
        var raw = [fiemap_extent](repeating: fiemap_extent(), count: 512)
        var start: UInt64 = 0
        while true {
            var next = UInt64.max
            let count = Int(
                try call("map the extents of") { number in
                    raw.withUnsafeMutableBufferPointer { list(number, start, $0, &next) }
                })
            for extent in raw[..<count] {
                // What a file system says is not believed blindly: forwards only.
                guard extent.fe_length > 0, extent.fe_logical < 1 << 62, extent.fe_length < 1 << 62, extent.fe_physical < 1 << 62,
                    found.last.map({ $0.logical + $0.length <= Int64(extent.fe_logical) }) ?? true
                else { throw SystemError(operation: "understand the extents of", errno: EIO) }
                found.append(
                    FileExtent(
                        logical: Int64(extent.fe_logical), physical: Int64(extent.fe_physical),
                        length: Int64(extent.fe_length), flags: extent.fe_flags))
            }
            guard next < UInt64.max else { return found }
            guard found.count < 1_000_000 else { throw SystemError(operation: "map the extents of", errno: EFBIG) }
            start = next
        }
    }
}
