import Glibc

/// Memory aligned to `alignment`, as direct I/O wants it.
///
/// Owned by one pipeline stage at a time and handed on whole, never shared
/// while somebody writes: that is why it may cross tasks unchecked.
public final class AlignedBuffer: @unchecked Sendable {
    /// Bytes: what O_DIRECT needs on every file system and device met so far.
    public static let alignment = 4096

    public let capacity: Int
    /// Bytes in use from the start.
    public var count: Int = 0
    public let pointer: UnsafeMutableRawPointer
    /// Whose memory this is; nil is the allocator's.
    private let pages: HugePages?

    /// Memory of 8 MiB and more has pages of its own, which go when it goes: the
    /// allocator keeps what is smaller than 32 MiB (`bgb_tame_malloc`), and
    /// would keep several reads of an object store.
    public init(capacity: Int) {
        self.capacity = (capacity + Self.alignment - 1) / Self.alignment * Self.alignment
        pages = self.capacity >= 8 << 20 ? HugePages(self.capacity) : nil
        pointer =
            pages?.start ?? .allocate(byteCount: max(self.capacity, Self.alignment), alignment: Self.alignment)
    }

    /// A part of `pages`, which live as long as it does.
    init(_ pages: HugePages, at offset: Int, capacity: Int) {
        (self.pages, self.capacity) = (pages, capacity)
        pointer = pages.start + offset
    }

    deinit { if pages == nil { pointer.deallocate() } }

    /// The bytes in use.
    public var bytes: UnsafeRawBufferPointer { UnsafeRawBufferPointer(start: pointer, count: count) }
    /// The whole memory.
    public var memory: UnsafeMutableRawBufferPointer {
        UnsafeMutableRawBufferPointer(start: pointer, count: capacity)
    }
}

/// Buffers of one size, used again instead of freed: page faults of fresh
/// memory cost as much as reading it.
public final class BufferPool: Sendable {
    public let size: Int
    private let idle = Locked<[AlignedBuffer]>([])
    private let keep: Int
    /// Buffers that come out of huge pages together; 0 where too much of them would lie idle.
    private let together: Int

    /// - Parameters:
    ///   - size: bytes of each buffer
    ///   - keep: idle buffers held at the most
    public init(size: Int, keep: Int) {
        self.size = (size + AlignedBuffer.alignment - 1) / AlignedBuffer.alignment * AlignedBuffer.alignment
        self.keep = keep
        together = HugePages.buffersTogether(self.size)
    }

    public func take() -> AlignedBuffer { idle.withLock { $0.popLast() } ?? fresh() }

    public func give(_ buffer: AlignedBuffer) {
        buffer.count = 0
        idle.withLock { if $0.count < keep { $0.append(buffer) } }
    }

    private func fresh() -> AlignedBuffer {
        guard together > 0 else { return AlignedBuffer(capacity: size) }
        let pages = HugePages(together * size)
        for index in 1..<together { give(AlignedBuffer(pages, at: index * size, capacity: size)) }
        return AlignedBuffer(pages, at: 0, capacity: size)
    }
}

extension AlignedBuffer {
    /// A buffer that holds a copy of `bytes`.
    public convenience init(copying bytes: some Collection<UInt8>) {
        self.init(capacity: bytes.count)
        count = bytes.count
        memory.copyBytes(from: bytes)
    }
}

extension UnsafeRawBufferPointer {
    /// Whether every byte is zero, or there is none.
    public var isZero: Bool {
        guard let base = baseAddress, count > 0 else { return true }
        // Each equal to its neighbour, and the first one zero.
        return base.load(as: UInt8.self) == 0 && (count == 1 || memcmp(base, base + 1, count - 1) == 0)
    }
}
