import BackupBase
import FoundationEssentials
import ObjectStorage

/// Opens packs: trailers, frames, blocks. Nothing it hands out is unverified.
public final class PackReader: Sendable {
    private let store: any ObjectStore
    private let keys: KeyRing
    private let hasher: BlockHasher
    let successors: Successors
    let buffers: BufferPool
    private let cache = Locked(Cache())

    /// A pack whose trailer was read and authenticated.
    public final class OpenPack: Sendable {
        public let id: ObjectID
        /// Bytes of the whole object.
        let size: Int
        let trailer: PackTrailer
        fileprivate let sealing: PackSealing

        fileprivate init(id: ObjectID, size: Int, trailer: PackTrailer, sealing: Sealing?) {
            self.id = id
            self.size = size
            self.trailer = trailer
            self.sealing = PackSealing(sealing)
        }

        var cost: Int { trailer.ids.count * 40 + trailer.frames.count * 48 + 1024 }
    }

    /// Trailers in memory: the most recently used ones, by bytes.
    private struct Cache {
        var packs: [ObjectID: (pack: OpenPack, used: Int)] = [:]
        var frames: [(pack: ObjectID, frame: Int, bytes: AlignedBuffer)] = []
        var clock = 0
        var bytes = 0
        static let limit = 48 << 20
    }

    init(store: any ObjectStore, keys: KeyRing) {
        self.store = store
        self.keys = keys
        hasher = keys.blockHasher
        successors = Successors(store, keys)
        buffers = BufferPool(size: PackLimits.frame, keep: 16)
    }

    // MARK: - Trailers

    /// The pack's trailer, or that of the pack that took its place: frames and ordinals are the same.
    /// Throws `.damaged` and names the pack.
    public func pack(_ id: ObjectID) async throws -> OpenPack {
        if let pack = cached(id) { return pack }
        let pack = try await find(id)
        remember(pack, as: id)
        return pack
    }

    private func find(_ id: ObjectID) async throws -> OpenPack {
        let name = FinishedPack.name(id)
        var place = id
        for _ in 0..<Successors.mostSteps {
            do {
                return try await load(place, FinishedPack.name(place))
            } catch let error as FormatError {
                throw damaged(FinishedPack.name(place), error)
            } catch let error as StoreError where error.kind == .notFound {
                guard let successor = try await successors.of(place) else { break }
                place = successor
            }
        }
        throw Self.missing(name)
    }

    private func load(_ id: ObjectID, _ name: String) async throws -> OpenPack {
        var tail = try await store.get(name, .last(64 << 10), limit: 64 << 10)
        let size = tail.objectSize
        guard size >= ObjectHeader.size + PackFooter.size, size <= PackLimits.pack else {
            throw FormatError("\(size) bytes is no size of a pack")
        }
        let footer = try PackFooter(parsing: Array(tail.array.suffix(PackFooter.size)))
        let needed = footer.trailerLength + PackFooter.size
        guard needed + ObjectHeader.size <= size else { throw FormatError("its trailer is longer than the pack") }
        if needed > tail.count { tail = try await store.get(name, .last(needed), limit: needed) }
        guard tail.count >= needed else { throw FormatError("it is truncated") }
        let sealed = Array(tail.array.suffix(needed).dropLast(PackFooter.size))
        let plain = try sealed.withUnsafeBytes { try keys.trailerSealing(of: id).open($0, position: Sealing.trailer) }
        let trailer = try PackTrailer(parsing: Array(plain)[...])
        guard trailer.end + needed == size else { throw FormatError("its frames do not fill it") }
        // A small pack came whole; of others the first read brings the header.
        let head = tail.count == size ? try sealing(of: id, Array(tail.array.prefix(ObjectHeader.size))) : nil
        return OpenPack(id: id, size: size, trailer: trailer, sealing: head)
    }

    /// The key behind a pack's header; nil for a writer, who has none.
    private func sealing(of id: ObjectID, _ header: [UInt8]) throws -> Sealing? {
        let header = try ObjectHeader(parsing: header, expecting: .pack, id)
        return keys.canRead ? try keys.openObject(header) : nil
    }

    /// Reads trailers that will be needed, several at once: one behind the other
    /// each would cost a round trip. What fails here fails again where it counts.
    public func prefetch(_ packs: some Sequence<ObjectID>, on executor: BlockingExecutor) async throws {
        var wanted = Set(packs).filter { cached($0) == nil }.sorted()[...]
        guard wanted.count > 1 else { return }
        var loads = OrderedMap<ObjectID, Void>(
            width: 16, on: executor, from: { wanted.popFirst() },
            transform: { id in
                do { _ = try await self.pack(id) } catch is CancellationError { throw CancellationError() } catch {}
            })
        while try await loads.next() != nil {}
    }

    private func cached(_ id: ObjectID) -> OpenPack? {
        cache.withLock { cache in
            guard let entry = cache.packs[id] else { return nil }
            cache.clock += 1
            cache.packs[id]?.used = cache.clock
            return entry.pack
        }
    }

    private func remember(_ pack: OpenPack, as id: ObjectID) {
        cache.withLock { cache in
            cache.clock += 1
            if let old = cache.packs.updateValue((pack, cache.clock), forKey: id) { cache.bytes -= old.pack.cost }
            cache.bytes += pack.cost
            while cache.bytes > Cache.limit, cache.packs.count > 1,
                let oldest = cache.packs.min(by: { $0.value.used < $1.value.used })
            {
                cache.packs[oldest.key] = nil
                cache.bytes -= oldest.value.pack.cost
            }
        }
    }

    /// A pack whose own trailer is lost, by the word of another object: each frame has its seal, and each block its id.
    func openPack(_ id: ObjectID, size: Int, trailer: PackTrailer) -> OpenPack {
        OpenPack(id: id, size: size, trailer: trailer, sealing: nil)
    }

    // MARK: - Frames

    /// One frame's blocks, opened and inflated; each block is verified when it is taken.
    public struct Frame: Sendable {
        public let pack: OpenPack
        public let number: Int
        public let buffer: AlignedBuffer
        /// Ordinals of its blocks.
        public var blocks: Range<Int> { pack.trailer.frames[number].blocks }

        /// The blocks that it has, each with its bytes within the buffer.
        var held: [(ordinal: Int, range: Range<Int>)] { zip(blocks, ranges).filter { !$1.isEmpty }.map { ($0, $1) } }

        /// Bytes of each block within the buffer, in order of `blocks`; none of one that was left out.
        public var ranges: [Range<Int>] {
            var end = 0
            return blocks.map { ordinal in
                defer { end += Int(pack.trailer.lengths[ordinal]) }
                return end..<end + Int(pack.trailer.lengths[ordinal])
            }
        }
    }

    /// Consecutive frames as they are stored.
    public struct SealedFrames: Sendable {
        /// What they are of: where the pack that was asked for is gone, the one that took its place.
        let pack: OpenPack
        let first: Int
        let bytes: ObjectBytes
        public var count: Int { bytes.count }
    }

    /// Reads consecutive frames of a pack with one request, and sees to it that
    /// the pack can be opened.
    public func read(_ frames: Range<Int>, of pack: OpenPack) async throws -> SealedFrames {
        guard keys.canRead else { throw KeyRing.writeOnly }
        var pack = pack
        for _ in 0..<Successors.mostSteps {
            do {
                return SealedFrames(pack: pack, first: frames.lowerBound, bytes: try await fetch(frames, of: pack))
            } catch let error as FormatError {
                throw damaged(FinishedPack.name(pack.id), error)
            } catch let error as StoreError where error.kind == .notFound {
                // It was there when it was opened: a prune has put another one in its place.
                let successor = try await find(pack.id)
                guard successor.id != pack.id, successor.trailer.isAligned(pack.trailer) else {
                    throw Self.missing(FinishedPack.name(pack.id))
                }
                remember(successor, as: pack.id)
                pack = successor
            }
        }
        throw Self.missing(FinishedPack.name(pack.id))
    }

    private func fetch(_ frames: Range<Int>, of pack: OpenPack) async throws -> ObjectBytes {
        let name = FinishedPack.name(pack.id)
        if frames.lowerBound == 0, pack.sealing.known == nil, pack.sealing.begin() {
            return try await readWithHeader(frames, of: pack, name)
        }
        let bytes = try await read(frames, of: pack, name, from: pack.trailer.frames[frames.lowerBound].offset)
        if await pack.sealing.arrived() == nil { try await readHeader(of: pack, name) }
        return bytes
    }

    private func read(_ frames: Range<Int>, of pack: OpenPack, _ name: String, from start: Int) async throws -> ObjectBytes {
        let count = pack.trailer.frames[frames.upperBound - 1].extent.upperBound - start
        let bytes = try await store.get(name, .from(start, count: count), limit: count)
        guard bytes.count == count else { throw FormatError("it is truncated") }
        return bytes
    }

    private func readWithHeader(_ frames: Range<Int>, of pack: OpenPack, _ name: String) async throws -> ObjectBytes {
        var found: Sealing?
        defer { pack.sealing.deliver(found) }
        let bytes = try await read(frames, of: pack, name, from: 0)
        found = try sealing(of: pack.id, bytes.withBytes { Array($0.prefix(ObjectHeader.size)) })
        return bytes.dropping(pack.trailer.frames[0].offset)
    }

    /// Sees to it that the pack's header was read and is what it should be.
    public func readHeader(of pack: OpenPack) async throws {
        guard keys.canRead, pack.sealing.known == nil else { return }
        let name = FinishedPack.name(pack.id)
        try await named(name) { try await readHeader(of: pack, name) }
    }

    private func readHeader(of pack: OpenPack, _ name: String) async throws {
        let head = try await store.get(name, .from(0, count: ObjectHeader.size), limit: ObjectHeader.size)
        guard head.count == ObjectHeader.size else { throw FormatError("it is truncated") }
        pack.sealing.deliver(try sealing(of: pack.id, head.array))
    }

    /// Opens one of the frames that `read` returned.
    public func open(_ number: Int, in frames: SealedFrames) throws -> Frame {
        let buffer = buffers.take()
        let pack = frames.pack
        do {
            try open(number, of: pack, in: frames.bytes, first: frames.first, into: buffer)
        } catch let error as FormatError {
            buffers.give(buffer)
            throw damaged(FinishedPack.name(pack.id), FormatError("frame \(number): \(error)"))
        }
        return Frame(pack: pack, number: number, buffer: buffer)
    }

    private func open(
        _ number: Int, of pack: OpenPack, in bytes: ObjectBytes, first: Int, into buffer: AlignedBuffer
    ) throws {
        guard let sealing = pack.sealing.known else { throw FormatError("its header was not read") }
        let frame = pack.trailer.frames[number]
        let start = frame.offset - pack.trailer.frames[first].offset
        try bytes.withBytes { raw in
            let head = Array(raw[start..<start + FrameHeader.size])
            let header = try FrameHeader(parsing: head)
            guard header.ordinal == number, header.sealedLength == frame.sealedLength else {
                throw FormatError("its header is not the trailer's")
            }
            let body = UnsafeRawBufferPointer(
                rebasing: raw[start + FrameHeader.size..<start + FrameHeader.size + frame.sealedLength])
            let payload = try sealing.open(body, position: UInt64(number), extra: head)
            try FrameCoding.decode(payload, header.coding, length: frame.length, into: buffer, buffers: buffers)
        }
    }

    /// Throws `.damaged` unless the block's bytes are those its id names.
    public func verify(_ ordinal: Int, _ range: Range<Int>, of frame: Frame) throws {
        let bytes = UnsafeRawBufferPointer(rebasing: frame.buffer.bytes[range])
        guard hasher.id(of: bytes) == frame.pack.trailer.ids[ordinal] else {
            throw damaged(
                FinishedPack.name(frame.pack.id), FormatError("block \(ordinal) is not what its id names"))
        }
    }

    public func release(_ frame: Frame) { buffers.give(frame.buffer) }

    // MARK: - Single blocks

    /// One block's bytes: for metadata, whose frames are used block after block.
    func block(_ location: Location) async throws -> [UInt8] {
        let pack = try await pack(location.pack)
        guard pack.trailer.cohort == .metadata else {
            throw damaged(FinishedPack.name(pack.id), FormatError("a manifest points at it, and it holds no metadata"))
        }
        guard let number = pack.trailer.frame(holding: location.ordinal) else {
            throw damaged(FinishedPack.name(pack.id), FormatError("it has no block \(location.ordinal)"))
        }
        let frame: Frame
        if let recent = recent(pack.id, number) {
            frame = Frame(pack: pack, number: number, buffer: recent)
        } else {
            frame = try open(number, in: try await read(number..<number + 1, of: pack))
            remember(frame)
        }
        let range = frame.ranges[location.ordinal - frame.blocks.lowerBound]
        try verify(location.ordinal, range, of: frame)
        return Array(frame.buffer.bytes[range])
    }

    private func recent(_ pack: ObjectID, _ number: Int) -> AlignedBuffer? {
        cache.withLock { $0.frames.first { $0.pack == pack && $0.frame == number }?.bytes }
    }

    private func remember(_ frame: Frame) {
        cache.withLock { cache in
            cache.frames.append((frame.pack.id, frame.number, frame.buffer))
            if cache.frames.count > 8 { cache.frames.removeFirst() }
        }
    }

    // MARK: - Errors

    /// Turns what is wrong with an object's bytes into an error that names it.
    private func named<Result>(_ name: String, _ body: () async throws -> Result) async throws -> Result {
        do {
            return try await body()
        } catch let error as FormatError {
            throw damaged(name, error)
        } catch let error as StoreError where error.kind == .notFound {
            throw Self.missing(name)
        }
    }

    static func missing(_ name: String) -> BackupError { BackupError(.damaged, "pack \(name) is missing", hint: hint) }

    /// Whether an error says that a read found no such pack, and nothing of bytes that are wrong.
    static func isMissing(_ error: BackupError, _ pack: ObjectID) -> Bool {
        error.code == .damaged && error.cause == nil && error.message == missing(FinishedPack.name(pack)).message
    }

    private func damaged(_ name: String, _ error: FormatError) -> BackupError {
        BackupError(.damaged, "pack \(name) is damaged", hint: Self.hint, cause: error)
    }

    static let hint = "Run 'bgbackup check --read-data' to see which snapshots and paths it concerns."
}
