import BackupBase
import ObjectStorage

/// Makes the pack that takes another one's place: the same frames and
/// ordinals, without the blocks that no snapshot needs.
struct SuccessorBuilder: Sendable {
    struct Built: Sendable {
        /// Whose place it takes.
        let pack: ObjectID
        let note: Succession
        let listing: IndexObject.Pack
        /// Bytes of the pack whose place it takes.
        let before: Int
    }

    private let repository: Repository
    /// Of one frame and what compression may add.
    private let buffers = BufferPool(size: PackLimits.frame + (PackLimits.frame >> 7) + 4096, keep: 6)
    /// Frames that one request brings.
    private static let together = 16

    init(_ repository: Repository) { self.repository = repository }

    /// Stores the pack that takes the place of one. Nil where that is gone meanwhile, or nothing would be gained.
    /// Throws `.damaged` where a needed block cannot be read: then nothing takes its place.
    func build(_ id: ObjectID, _ needed: BlockSet) async throws -> Built? {
        let old = try await repository.reader.pack(id)
        guard old.id == id, let listing = try await put(old, needed) else { return nil }
        // What the store says that it has is read back: the old pack will go on its word.
        try await prove(listing.id, of: id, needed)
        var note = Succession(successor: "\(listing.id)", kept: listing.trailer.held.hex)
        note.seal = try repository.keys.ownerSeal(of: note.sealed(id))
        return Built(pack: id, note: note, listing: listing, before: old.size)
    }

    /// Reads all that is needed of a pack in the one that is to take its place. Throws `.damaged` where it is not there.
    func prove(_ place: ObjectID, of pack: ObjectID, _ needed: BlockSet) async throws {
        let reader = repository.reader
        let (old, new) = (try await reader.pack(pack), try await reader.pack(place))
        let name = FinishedPack.name(place)
        guard old.id == pack, new.id == place, new.trailer.isAligned(old.trailer), needed.isSubset(of: new.trailer.held) else {
            throw BackupError(.damaged, "pack \(name) has not all that is needed of \(FinishedPack.name(pack))")
        }
        var number = 0
        while number < new.trailer.frames.count {
            let end = new.neededFrames(from: number, needed, atMost: Self.together)
            guard end > number else {
                number += 1
                continue
            }
            let sealed = try await reader.read(number..<end, of: new)
            for number in number..<end {
                let frame = try reader.open(number, in: sealed)
                defer { reader.release(frame) }
                for (ordinal, range) in frame.held where needed.contains(ordinal) {
                    try reader.verify(ordinal, range, of: frame)
                    guard frame.pack.id == place, new.trailer.ids[ordinal] == old.trailer.ids[ordinal] else {
                        throw BackupError(.damaged, "block \(ordinal) of pack \(name) is not that of \(FinishedPack.name(pack))")
                    }
                }
            }
            number = end
        }
    }

    private func put(_ old: PackReader.OpenPack, _ needed: BlockSet) async throws -> IndexObject.Pack? {
        guard needed.isSubset(of: old.trailer.held) else {
            throw BackupError(.damaged, "pack \(FinishedPack.name(old.id)) has not all that snapshots need of it")
        }
        let id = ObjectID.random(repository.ambient)
        var builder = try PackBuilder(
            keys: repository.keys, cohort: old.trailer.cohort, id: id,
            buffer: AlignedBuffer(capacity: max(old.size + old.size / 8, PackBuilder.bufferSize)))
        var number = 0
        while number < old.trailer.frames.count {
            let end = old.neededFrames(from: number, needed, atMost: Self.together)
            guard end > number else {
                try builder.add(.empty(old.trailer.frames[number].blocks.count))
                number += 1
                continue
            }
            let sealed = try await repository.reader.read(number..<end, of: old)
            for number in number..<end {
                let coded = try code(try repository.reader.open(number, in: sealed), needed)
                defer { buffers.give(coded.payload) }
                guard builder.hasRoom(for: coded) else { return nil }
                try builder.add(coded)
            }
            number = end
        }
        let finished = try builder.finish()
        guard finished.size < old.size else { return nil }
        try await repository.store.put(FinishedPack.name(id), finished.buffer, ifAbsent: true)
        return finished.listing
    }

    /// A frame's needed blocks, each held to its id.
    private func code(_ frame: PackReader.Frame, _ needed: BlockSet) throws -> CodedFrame {
        let plain = buffers.take()
        defer {
            repository.reader.release(frame)
            buffers.give(plain)
        }
        let trailer = frame.pack.trailer
        var blocks = [(id: BlockID, length: Int)](repeating: PackTrailer.absent, count: frame.blocks.count)
        for (ordinal, range) in frame.held where needed.contains(ordinal) {
            try repository.reader.verify(ordinal, range, of: frame)
            (plain.pointer + plain.count).copyMemory(from: frame.buffer.pointer + range.lowerBound, byteCount: range.count)
            plain.count += range.count
            blocks[ordinal - frame.blocks.lowerBound] = (trailer.ids[ordinal], range.count)
        }
        let (coding, payload) = FrameCoding.encode(plain.bytes, cohort: trailer.cohort, buffers: buffers)
        return CodedFrame(coding: coding, payload: payload, blocks: blocks)
    }
}

extension CodedFrame {
    /// A frame of which nothing is needed.
    fileprivate static func empty(_ blocks: Int) -> CodedFrame {
        CodedFrame(
            coding: Coding(codec: .stored, filter: .none), payload: AlignedBuffer(capacity: 1),
            blocks: [(id: BlockID, length: Int)](repeating: PackTrailer.absent, count: blocks))
    }
}

extension PackReader.OpenPack {
    /// The end of the consecutive frames from this one on of which a block is needed.
    fileprivate func neededFrames(from first: Int, _ needed: BlockSet, atMost most: Int) -> Int {
        var end = first
        while end < trailer.frames.count, end - first < most,
            trailer.frames[end].blocks.contains(where: { trailer.holds($0) && needed.contains($0) })
        {
            end += 1
        }
        return end
    }
}
