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

    public init(capacity: Int) {
        self.capacity = (capacity + Self.alignment - 1) / Self.alignment * Self.alignment
        pointer =
            self.capacity >= Self.mappedFrom
            ? Self.mapped(self.capacity)
            : .allocate(byteCount: max(self.capacity, Self.alignment), alignment: Self.alignment)
    }

    deinit {
        if capacity >= Self.mappedFrom { munmap(pointer, capacity) } else { pointer.deallocate() }
    }

    /// Bytes from which on a buffer has pages of its own, which go when it goes:
    /// the allocator keeps what is smaller than 32 MiB (`bgb_tame_malloc`), and
    /// would keep several reads of an object store.
    private static let mappedFrom = 8 << 20

    private static func mapped(_ count: Int) -> UnsafeMutableRawPointer {
        let memory = mmap(nil, count, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0)
        guard let memory, memory != MAP_FAILED else { preconditionFailure("no memory for \(count) bytes") }
        return memory
    }

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

    /// - Parameters:
    ///   - size: bytes of each buffer
    ///   - keep: idle buffers held at the most
    public init(size: Int, keep: Int) {
        self.size = size
        self.keep = keep
    }

    public func take() -> AlignedBuffer {
        idle.withLock { $0.popLast() } ?? AlignedBuffer(capacity: size)
    }

    public func give(_ buffer: AlignedBuffer) {
        buffer.count = 0
        idle.withLock { if $0.count < keep { $0.append(buffer) } }
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
