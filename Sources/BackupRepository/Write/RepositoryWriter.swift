import BackupBase
import FoundationEssentials
import ObjectStorage

/// Bytes of one stretch of a file, cut into blocks that have their ids.
public struct HashedRegion: Sendable {
    public struct Block: Sendable {
        /// Bytes within the buffer.
        public let range: Range<Int>
        /// Nil when the block is all zero.
        public let id: BlockID?

        public init(range: Range<Int>, id: BlockID?) {
            self.range = range
            self.id = id
        }
    }

    public let buffer: AlignedBuffer
    public let blocks: [Block]

    public init(buffer: AlignedBuffer, blocks: [Block]) {
        self.buffer = buffer
        self.blocks = blocks
    }
}

/// Stores unknown blocks: region → frame → compress → seal → pack → put → index.
///
/// Lives only inside `Repository.withWriter`. Used by one task; compression and
/// uploads run beside it, in order. A block's place is a *ticket* until its
/// pack is known: blocks are packed in the order in which they are added, so
/// the n-th new block is the (n − start)-th of the pack that starts before it.
public final class RepositoryWriter {
    /// Where a block is, or will be.
    public enum Place: Sendable, Equatable {
        case zero
        case stored(Location)
        case new(ticket: Int)
    }

    public private(set) var blocksNew = 0
    /// Bytes of plaintext that no pack held before.
    public private(set) var bytesNew: Int64 = 0
    /// Bytes put into the store.
    public private(set) var bytesStored: Int64 = 0

    let repository: Repository
    let index: BlockIndex
    /// Buffers for regions and frames, of one frame and what compression may add.
    public let buffers: BufferPool
    private let packBuffers: BufferPool
    private var frame: OpenFrame?
    private var coding: OrderedTasks<CodedFrame>
    private var pack: PackBuilder?
    private var puts: OrderedTasks<FinishedPack>
    /// Looks at packs that the store says it has: before an index lists them.
    private var confirming: OrderedTasks<Void>
    private var cohort: Cohort?
    private var starts: [(ticket: Int, pack: ObjectID)] = []
    private var nextTicket = 0
    private var packedTickets = 0
    private var tickets: [BlockID: Int] = [:]
    private var unindexed: [IndexObject.Pack] = []
    private var unindexedBlocks = 0

    private let pending: PendingPacks?
    /// What a snapshot may refer to.
    private(set) var usable: UsablePacks
    let intent: Intent
    private lazy var listedPacks = index.packs

    /// Index objects are written at the latest after so many packs or blocks:
    /// what an interrupted backup stored is found also where its node is lost.
    private static let indexEvery = (packs: 16, blocks: 200_000)

    /// Frames compressed at once: as many as fill two cores, and one that waits.
    private static let codingWidth = 3

    private struct OpenFrame {
        var buffer: AlignedBuffer
        var blocks: [(id: BlockID, length: Int)] = []
    }

    /// - Parameters:
    ///   - pending: where packs under way are noted; nil notes none
    ///   - width: regions that the caller has under way
    init(
        repository: Repository, index: BlockIndex, usable: UsablePacks, intent: Intent, pending: PendingPacks?, width: Int
    ) {
        self.repository = repository
        self.index = index
        self.usable = usable
        self.intent = intent
        self.pending = pending
        let executor = repository.executor
        buffers = BufferPool(size: PackLimits.frame + (PackLimits.frame >> 7) + 4096, keep: width + 2 * Self.codingWidth)
        packBuffers = BufferPool(size: PackBuilder.bufferSize, keep: 1 + repository.store.parallelPuts)
        coding = OrderedTasks(width: Self.codingWidth, on: executor)
        puts = OrderedTasks(width: repository.store.parallelPuts, on: executor)
        confirming = OrderedTasks(width: 4, on: executor)
    }

    /// Finds or stores each block of the region; takes the buffer over.
    public func add(_ region: HashedRegion, cohort: Cohort) async throws -> [Place] {
        if cohort != self.cohort {
            try await endPack()
            self.cohort = cohort
        }
        var places: [Place] = []
        places.reserveCapacity(region.blocks.count)
        var new: [HashedRegion.Block] = []
        for block in region.blocks {
            guard let id = block.id else {
                places.append(.zero)
                continue
            }
            if let ticket = tickets[id] {
                places.append(.new(ticket: ticket))
            } else if let location = try await index.find(id, repository.store, repository.keys, where: usable.contains) {
                places.append(.stored(location))
            } else {
                tickets[id] = nextTicket
                places.append(.new(ticket: nextTicket))
                nextTicket += 1
                new.append(block)
            }
        }
        try await store(new, from: region.buffer)
        return places
    }

    /// The location behind a ticket. Valid once `settleTickets` or `finish` has returned.
    public func location(ofTicket ticket: Int) -> Location {
        let start = starts[starts.partitioningIndex { $0.ticket > ticket } - 1]
        return Location(pack: start.pack, ordinal: ticket - start.ticket)
    }

    /// Whether the location behind a ticket can be told already. Its pack may be under way still.
    public func isPlaced(ticket: Int) -> Bool { ticket < packedTickets }

    /// Whether an index object listed the pack when the writer began, and it may be used.
    public func knew(pack: ObjectID) -> Bool { listedPacks.contains(pack) && usable.contains(pack) }

    /// Whether a snapshot may refer to the pack: it is there, and no prune is about to take it away.
    public func mayUse(pack: ObjectID) -> Bool { usable.contains(pack) }

    /// From here on nothing that is added is looked for in this pack.
    func avoid(pack: ObjectID) { usable.remove(pack) }

    /// A pack that this run has put by itself.
    func found(pack: ObjectID) { usable.insert(pack) }

    /// Packs what was added so far: every ticket then has a location.
    public func settleTickets() async throws { try await endPack() }

    /// Brings everything that was added into the store, and the index after it.
    public func finish() async throws {
        try await endPack()
        while try await completePut() {}
        try await writeIndex()
    }

    /// Commits a snapshot: the last write of a backup, which makes it exist.
    ///
    /// The intent is confirmed before, so that no prune has given the run up, and
    /// looked at once more after: a run that stood still in between for most of an
    /// hour takes its snapshot back.
    /// - Returns: its name, and the bytes stored.
    public func commit(_ record: SnapshotRecord, manifest: Extents) async throws -> (name: SnapshotName, stored: Int) {
        try await commit(record, manifest: manifest, id: .random(repository.ambient))
    }

    func commit(
        _ record: SnapshotRecord, manifest: Extents, id: ObjectID
    ) async throws -> (name: SnapshotName, stored: Int) {
        try await finish()
        try await intent.confirm()
        let committed: (name: SnapshotName, stored: Int)
        do { committed = try await repository.commit(record, manifest: manifest, id: id) } catch {
            await intent.stay()
            throw error
        }
        do {
            try await intent.confirm()
        } catch let error as BackupError where error.code == .busy {
            try await withdraw(committed.name)
            throw error
        } catch let error as StoreError {
            throw BackupError(
                .failed, "snapshot \("\(committed.name.id)".prefix(8)) was stored, but the store did not answer afterwards",
                hint: "Run 'bgbackup check' before you rely on it.", cause: error)
        }
        return committed
    }

    /// A prune may not have seen the snapshot, and have taken away what it needs.
    private func withdraw(_ name: SnapshotName) async throws {
        do {
            try await repository.store.delete(name.object)
        } catch let error as StoreError {
            throw BackupError(
                .busy, "this run stood still while it committed snapshot \("\(name.id)".prefix(8)), and may not take it back",
                hint: "A prune may have taken away what the snapshot needs: run 'bgbackup check', and make another backup.",
                cause: error)
        }
    }

    func abandon() async {
        await coding.abandon()
        await puts.abandon()
        await confirming.abandon()
    }

    // MARK: - Frames

    private func store(_ blocks: [HashedRegion.Block], from buffer: AlignedBuffer) async throws {
        guard let first = blocks.first, let last = blocks.last else { return buffers.give(buffer) }
        let total = blocks.reduce(0) { $0 + $1.range.count }
        blocksNew += blocks.count
        bytesNew += Int64(total)
        // A region that is all new becomes the frame itself, without a copy.
        let contiguous = first.range.lowerBound == 0 && last.range.upperBound == total
        if contiguous, total > PackLimits.frame / 2 || frame == nil && total == PackLimits.frame {
            try await endFrame()
            buffer.count = total
            frame = OpenFrame(buffer: buffer, blocks: blocks.map { ($0.id!, $0.range.count) })
            return
        }
        for block in blocks { try await append(block, from: buffer) }
        buffers.give(buffer)
    }

    private func append(_ block: HashedRegion.Block, from buffer: AlignedBuffer) async throws {
        if let open = frame, open.buffer.count + block.range.count > PackLimits.frame { try await endFrame() }
        var open = frame ?? OpenFrame(buffer: buffers.take())
        frame = nil
        (open.buffer.pointer + open.buffer.count)
            .copyMemory(from: buffer.pointer + block.range.lowerBound, byteCount: block.range.count)
        open.buffer.count += block.range.count
        open.blocks.append((block.id!, block.range.count))
        frame = open
    }

    private func endFrame() async throws {
        guard let frame, let cohort else { return }
        self.frame = nil
        if coding.isFull { try await takeCoded() }
        let buffers = buffers
        coding.add {
            defer { buffers.give(frame.buffer) }
            let (coding, payload) = FrameCoding.encode(frame.buffer.bytes, cohort: cohort, buffers: buffers)
            return CodedFrame(coding: coding, payload: payload, blocks: frame.blocks)
        }
    }

    @discardableResult
    private func takeCoded() async throws -> Bool {
        guard let coded = try await coding.next() else { return false }
        if pack == nil {
            let id = ObjectID.random(repository.ambient)
            pack = try PackBuilder(keys: repository.keys, cohort: cohort!, id: id, buffer: packBuffers.take())
            starts.append((packedTickets, id))
        }
        try pack!.add(coded)
        packedTickets += coded.blocks.count
        buffers.give(coded.payload)
        if pack!.isFull { try await putPack() }
        return true
    }

    // MARK: - Packs

    private func endPack() async throws {
        try await endFrame()
        while try await takeCoded() {}
        if pack != nil { try await putPack() }
    }

    private func putPack() async throws {
        guard let finished = try pack?.finish() else { return }
        pack = nil
        if puts.isFull { try await completePut() }
        let (store, pending) = (repository.store, pending)
        puts.add {
            pending?.note(finished.listing)
            try await store.putUnconfirmed(FinishedPack.name(finished.id), finished.buffer)
            return finished
        }
    }

    @discardableResult
    private func completePut() async throws -> Bool {
        guard let done = try await puts.next() else { return false }
        let pack = done.listing
        bytesStored += Int64(pack.size)
        if confirming.isFull { _ = try await confirming.next() }
        usable.insert(pack.id)
        confirm(pack)
        packBuffers.give(done.buffer)
        try await list(pack)
        return true
    }

    private func confirm(_ pack: IndexObject.Pack) {
        let (store, pending) = (repository.store, pending)
        confirming.add {
            do {
                try await store.confirm(FinishedPack.name(pack.id), size: pack.size)
            } catch let error as StoreError where error.kind == .failed {
                // Perhaps other bytes of the same size: no run may take them over.
                pending?.forget(pack.id)
                throw error
            }
        }
    }

    private func list(_ pack: IndexObject.Pack) async throws {
        unindexed.append(pack)
        unindexedBlocks += pack.trailer.ids.count
        if unindexed.count >= Self.indexEvery.packs || unindexedBlocks >= Self.indexEvery.blocks {
            try await writeIndex()
        }
    }

    private func writeIndex() async throws {
        guard !unindexed.isEmpty else { return }
        while try await confirming.next() != nil {}
        var object = IndexObject()
        object.packs = unindexed
        let id = ObjectID.random(repository.ambient)
        let sealed = try object.sealed(repository.keys, id: id, salt: repository.ambient.random(32))
        try await repository.store.put(IndexObject.name(id), sealed, ifAbsent: true)
        bytesStored += Int64(sealed.count)
        index.add(object, id: id)
        // The index answers for these now; tickets stay only for what is under way.
        for pack in unindexed {
            for block in pack.trailer.ids { tickets[block] = nil }
            pending?.forget(pack.id)
        }
        unindexed = []
        unindexedBlocks = 0
    }

    // MARK: - Taking over

    /// Lists the packs that runs before this one stored and did not come to
    /// list. Killed in the midst, the next one does it again.
    func takeOver() async throws {
        guard let pending else { return }
        for pack in try await stored(pending) {
            if usable.isDoomed(pack.id) {
                // About to be pruned: what it holds is stored again where it is met.
                pending.forget(pack.id)
            } else if try await index.find(pack.trailer.ids[0], repository.store, repository.keys)?.pack == pack.id {
                pending.forget(pack.id)
            } else {
                usable.insert(pack.id)
                try await list(pack)
            }
        }
        try await writeIndex()
    }

    /// Noted packs that the store has, whole. There are few: each run takes over
    /// what was noted before it notes more.
    private func stored(_ pending: PendingPacks) async throws -> [IndexObject.Pack] {
        var names = pending.names
        let store = repository.store
        var looks = OrderedMap<String, IndexObject.Pack?>(
            width: 4, on: repository.executor, from: { names.popLast() },
            transform: { name in
                guard let pack = pending.open(name) else { return nil }
                if try await store.info(FinishedPack.name(pack.id))?.size == pack.size { return pack }
                pending.forget(pack.id)
                return nil
            })
        var found: [IndexObject.Pack] = []
        while let look = try await looks.next() { if let look { found.append(look) } }
        return found
    }
}
