import Glibc

/// Anonymous memory in pages of 2 MiB where the kernel has them to give
/// (`/sys/kernel/mm/transparent_hugepage/enabled`), and in plain ones where not.
///
/// A direct read of 1 MiB into plain pages is a request of 256 pieces. Those
/// are mapped and sent by a kernel thread at nice -20, which the database on
/// the same processor waits for; out of huge pages a request has one piece or
/// two (docs/benchmarks.md, "The database beside a first backup").
///
/// Unchecked: address and size never change, and what is written into the memory
/// is the affair of the `AlignedBuffer`s that are cut from it.
final class HugePages: @unchecked Sendable {
    static let page = 2 << 20
    let start: UnsafeMutableRawPointer
    private let size: Int

    /// At least `count` bytes, zero, in whole huge pages.
    init(_ count: Int) {
        size = (count + Self.page - 1) / Self.page * Self.page
        // One page more, to cut what lies before the first boundary and after the last.
        let flags = MAP_PRIVATE | MAP_ANONYMOUS
        guard let memory = mmap(nil, size + Self.page, PROT_READ | PROT_WRITE, flags, -1, 0), memory != MAP_FAILED else {
            preconditionFailure("no memory for \(count) bytes")
        }
        let before = (Self.page - Int(bitPattern: memory) % Self.page) % Self.page
        start = memory + before
        if before > 0 { munmap(memory, before) }
        munmap(start + size, Self.page - before)
        // A kernel without huge pages says EINVAL, and gives plain ones.
        madvise(start, size, Int32(MADV_HUGEPAGE))
    }

    deinit { munmap(start, size) }

    /// How many buffers of `size` bytes are cut from the same pages.
    /// - Returns: 0 where they are small, or more than an eighth would lie idle
    static func buffersTogether(_ size: Int) -> Int {
        guard size >= page / 4 else { return 0 }
        return (1...8).first { count in
            let whole = (count * size + page - 1) / page * page
            return (whole - count * size) * 8 <= whole
        } ?? 0
    }
}
