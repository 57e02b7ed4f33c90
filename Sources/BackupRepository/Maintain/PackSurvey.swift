import BackupBase
import ObjectStorage

/// Which packs are damaged or missing, and where else their blocks are.
///
/// Only what is definite counts as damage: bytes that fail their seal or are
/// not what their id names, and objects that are neither there nor listed. A
/// store that does not answer, or says one thing and the other, ends the run.
/// Used by one task.
final class PackSurvey {
    /// Where a block of a damaged pack can be had.
    enum Source {
        /// From its own frame, which is whole.
        case frame
        /// From another pack; it was read there.
        case elsewhere(Location)
        /// From the second copy's pack of the same name.
        case copy
    }

    struct BadPack {
        var problem: String
        /// Whether its own header and trailer are whole, so that what its frames still hold can be read in place.
        var opens = false
        var isMissing = false
        /// What is known of its content; nil where neither it nor an index nor the second copy tells.
        var pack: PackReader.OpenPack?
        /// By ordinal; nil for what is lost.
        var sources: [Source?] = []
        /// The second copy has it whole, and here it is not there at all.
        var canBePutBack = false
        /// Whether the second copy and other packs were asked for what its own frames do not give.
        fileprivate var isSettled = false
    }

    private typealias Blocks = [Int: [UInt8]]

    private(set) var bad: [ObjectID: BadPack] = [:]
    /// Packs of which every block was read.
    private(set) var whole: Set<ObjectID> = []
    private var healthy: Set<ObjectID> = []
    /// Where other packs list blocks of bad ones; not read yet.
    private var candidates: [Location: [Location]] = [:]
    /// Packs that took the places of others, by these.
    private var homes: [ObjectID: ObjectID] = [:]
    private let repository: Repository
    private let copy: Repository?
    private let isReading: Bool
    /// The frame that was opened last: blocks are asked for one behind the other.
    private var recent: (pack: ObjectID, number: Int, isCopy: Bool, blocks: Blocks)?

    /// - Parameters:
    ///   - copy: the same repository at a second place
    ///   - reading: read all frames, not only headers, trailers and metadata
    init(_ repository: Repository, copy: Repository?, reading: Bool, progress: (_ done: Int, _ total: Int) -> Void) async throws {
        (self.repository, self.copy, isReading) = (repository, copy, reading)
        let stored = try await repository.storedPacks()
        for (done, id) in stored.keys.sorted().enumerated() {
            try Task.checkCancellation()
            WorkPulse.beat()
            try await look(at: id)
            progress(done + 1, stored.count)
        }
        try await nameContents(stored)
        for id in bad.keys { try await readFrames(of: id) }
        try await findCandidates(for: Set(bad.keys))
        // Missing ones wait until a snapshot needs them: an index may list what was pruned.
        for id in bad.keys.sorted() where bad[id]?.isMissing == false { try await settle(id) }
    }

    // MARK: - Looking

    private func look(at id: ObjectID) async throws {
        var pack: PackReader.OpenPack?
        do {
            let open = try await repository.reader.pack(id)
            pack = open
            // Pruned meanwhile, and another one took its place: that one is looked at as well.
            guard open.id == id else { return try await repository.requireGone(pack: id) }
            try await repository.reader.readHeader(of: open)
            // Without manifests nothing is known: those are read in any case.
            if isReading || open.trailer.cohort == .metadata {
                for number in open.trailer.frames.indices where try await Self.open(number, of: open, repository) == nil {
                    bad[id] = BadPack(problem: "frame \(number) is damaged", opens: true, pack: open)
                    return
                }
                whole.insert(id)
            }
            healthy.insert(id)
        } catch let error as BackupError where error.code == .damaged {
            guard !PackReader.isMissing(error, id) else {
                // Pruned meanwhile: who needs it will miss it.
                return try await repository.requireGone(pack: id)
            }
            bad[id] = BadPack(problem: error.cause ?? error.message, pack: pack)
        }
    }

    /// Nil for what is damaged, and for a pack that is not there.
    private static func reading<Result>(
        _ pack: ObjectID, _ repository: Repository, _ body: () async throws -> Result
    ) async throws -> Result? {
        do {
            return try await body()
        } catch let error as BackupError where error.code == .damaged {
            if PackReader.isMissing(error, pack) { try await repository.requireGone(pack: pack) }
            return nil
        }
    }

    /// The frame's blocks, each of them what its id names; nil where it is damaged.
    private static func open(_ number: Int, of pack: PackReader.OpenPack, _ repository: Repository) async throws -> Blocks? {
        let reader = repository.reader
        return try await reading(pack.id, repository) {
            let frame = try reader.open(number, in: try await reader.read(number..<number + 1, of: pack))
            defer { reader.release(frame) }
            var blocks: Blocks = [:]
            for (ordinal, range) in frame.held {
                try reader.verify(ordinal, range, of: frame)
                blocks[ordinal] = Array(frame.buffer.bytes[range])
            }
            return blocks
        }
    }

    /// Packs without a trailer, and packs that are gone, by the word of an index object.
    private func nameContents(_ stored: [ObjectID: ObjectInfo]) async throws {
        for info in try await repository.store.list(IndexObject.prefix) {
            guard let id = IndexObject.id(name: info.name) else { continue }
            let index: IndexObject
            do {
                let bytes = try await repository.store.get(info.name, .all, limit: IndexObject.sizeLimit).array
                index = try IndexObject(opening: bytes, repository.keys, id: id)
            } catch let error as StoreError where error.kind == .notFound || error.kind == .tooLarge {
                // Replaced by a prune, or none at all; what it would have told only helps.
                continue
            } catch is FormatError {
                continue
            }
            for pack in index.packs {
                if stored[pack.id] == nil, bad[pack.id] == nil { bad[pack.id] = Self.missing }
                guard let known = bad[pack.id], known.pack == nil else { continue }
                bad[pack.id]?.pack = repository.reader.openPack(pack.id, size: pack.size, trailer: pack.trailer)
            }
        }
    }

    private static let missing = BadPack(problem: "it is missing", isMissing: true)

    /// Finds out about a pack that a snapshot needs.
    func know(_ id: ObjectID) async throws {
        if healthy.contains(id) || homes[id] != nil || bad[id]?.isSettled == true { return }
        let isThere = try await repository.store.info(FinishedPack.name(id)) != nil
        if isThere {
            // Stored, or put back, since packs were listed.
            bad[id] = nil
            try await look(at: id)
            if healthy.contains(id) { return }
        } else {
            try await repository.requireGone(pack: id)
        }
        if !isThere || bad[id] == nil, let home = try await successor(of: id) {
            homes[id] = home
            return try await know(home)
        }
        if bad[id] == nil { bad[id] = Self.missing }
        try await readFrames(of: id)
        try await settle(id)
    }

    /// The pack that took another one's place and is there. A note that is listed and not to be read ends the run: the
    /// pack that it tells of is not lost.
    private func successor(of id: ObjectID) async throws -> ObjectID? {
        var last = id
        for _ in 0..<Successors.mostSteps {
            guard let home = try await repository.reader.successors.of(last) else {
                let name = Succession.topic.object(last)
                let listed = try await repository.store.list(Succession.topic.prefix).contains { $0.name == name }
                guard listed, repository.isShared else { return nil }
                throw BackupError(
                    .damaged, "the note \(name) tells what took the place of a pack, and cannot be read",
                    hint:
                        "Nothing is taken for lost on such a word. Run it again; if it goes on, bring the note back from a copy, "
                        + "or delete it if you know that it is not yours.")
            }
            if isStored(home) { return home }
            last = home
        }
        return nil
    }

    private func isStored(_ id: ObjectID) -> Bool { healthy.contains(id) || bad[id]?.isMissing == false }

    // MARK: - Where blocks are

    /// What the pack's own frames give.
    private func readFrames(of id: ObjectID) async throws {
        guard let known = bad[id], let pack = known.pack else { return }
        var sources = [Source?](repeating: nil, count: pack.trailer.ids.count)
        if !known.isMissing {
            for number in pack.trailer.frames.indices {
                WorkPulse.beat()
                guard try await Self.open(number, of: pack, repository) != nil else { continue }
                for ordinal in pack.trailer.frames[number].blocks { sources[ordinal] = .frame }
            }
        }
        bad[id]?.sources = sources
    }

    /// Where healthy packs list what is lost in these: what was lost is stored again when it is met.
    private func findCandidates(for packs: Set<ObjectID>) async throws {
        var wanted: [BlockID: [Location]] = [:]
        for id in packs {
            for (ordinal, source) in (bad[id]?.sources ?? []).enumerated() where source == nil {
                guard let block = bad[id]?.pack?.id(ordinal) else { continue }
                wanted[block, default: []].append(Location(pack: id, ordinal: ordinal))
            }
        }
        guard !wanted.isEmpty else { return }
        for id in healthy {
            guard let pack = try await pack(id) else { continue }
            for (ordinal, block) in pack.trailer.ids.enumerated() {
                for place in wanted[block] ?? [] {
                    candidates[place, default: []].append(Location(pack: id, ordinal: ordinal))
                }
            }
        }
    }

    /// Asks the second copy and other packs for what the pack's own frames do not give.
    private func settle(_ id: ObjectID) async throws {
        bad[id]?.isSettled = true
        var there: PackReader.OpenPack?
        if let copy { there = try await Self.reading(id, copy) { try await copy.reader.pack(id) } }
        // One that took its place there is another pack, of other bytes.
        if there?.id != id { there = nil }
        if bad[id]?.pack == nil, let there {
            bad[id]?.pack = repository.reader.openPack(id, size: there.size, trailer: there.trailer)
            try await readFrames(of: id)
            try await findCandidates(for: [id])
        }
        guard let known = bad[id], let pack = known.pack else { return }
        var sources = known.sources
        var isInCopy = there != nil
        for number in pack.trailer.frames.indices {
            let blocks = pack.trailer.frames[number].blocks
            guard blocks.contains(where: { sources[$0] == nil }) else { continue }
            WorkPulse.beat()
            if let there, let copy, there.trailer.ids == pack.trailer.ids, try await Self.open(number, of: there, copy) != nil {
                for ordinal in blocks { sources[ordinal] = .copy }
                continue
            }
            isInCopy = false
            for ordinal in blocks { sources[ordinal] = try await elsewhere(Location(pack: id, ordinal: ordinal)) }
        }
        bad[id]?.sources = sources
        bad[id]?.canBePutBack = known.isMissing && isInCopy
    }

    /// Another pack's block of the same id, once it was read there.
    private func elsewhere(_ location: Location) async throws -> Source? {
        for other in candidates[location] ?? [] where try await bytes(other) != nil { return .elsewhere(other) }
        return nil
    }

    // MARK: - What it found

    func isBad(_ pack: ObjectID) -> Bool { bad[home(pack)] != nil }

    private func home(_ pack: ObjectID) -> ObjectID { homes[pack] ?? pack }

    /// The pack's table of contents, by whoever's word; nil where nobody knows.
    func pack(_ id: ObjectID) async throws -> PackReader.OpenPack? {
        let id = home(id)
        if let bad = bad[id] { return bad.pack }
        return try await Self.reading(id, repository) { try await repository.reader.pack(id) }
    }

    /// Blocks of a pack's stretch that are lost, in order. Of a pack that `know` was asked about.
    func lost(in id: ObjectID, _ ordinals: Range<Int>) -> [Range<Int>] {
        guard let pack = bad[home(id)] else { return [] }
        var lost: [Range<Int>] = []
        let known = ordinals.clamped(to: 0..<pack.sources.count)
        for ordinal in known where pack.sources[ordinal] == nil {
            if lost.last?.upperBound == ordinal {
                lost[lost.count - 1] = lost[lost.count - 1].lowerBound..<ordinal + 1
            } else {
                lost.append(ordinal..<ordinal + 1)
            }
        }
        let rest = max(ordinals.lowerBound, pack.sources.count)..<max(ordinals.upperBound, pack.sources.count)
        return rest.isEmpty ? lost : lost + [rest]
    }

    /// Whether a snapshot that needs these blocks cannot stay as it is.
    func mustMove(_ id: ObjectID, _ ordinals: Range<Int>) -> Bool {
        guard let pack = bad[home(id)], !pack.canBePutBack else { return false }
        guard pack.opens, ordinals.upperBound <= pack.sources.count else { return true }
        return ordinals.contains { if case .frame? = pack.sources[$0] { false } else { true } }
    }

    /// The block's bytes, verified; nil for what is lost.
    func bytes(_ location: Location) async throws -> [UInt8]? {
        guard let bad = bad[home(location.pack)] else {
            guard let pack = try await pack(location.pack) else { return nil }
            return try await block(location.ordinal, of: pack, repository, isCopy: false)
        }
        guard let pack = bad.pack, bad.sources.indices.contains(location.ordinal) else { return nil }
        switch bad.sources[location.ordinal] {
        case .elsewhere(let other)?: return try await bytes(other)
        case .frame?: return try await block(location.ordinal, of: pack, repository, isCopy: false)
        case .copy?:
            guard let copy, let there = try await Self.reading(pack.id, copy, { try await copy.reader.pack(pack.id) }),
                there.id == pack.id
            else { return nil }
            return try await block(location.ordinal, of: there, copy, isCopy: true)
        case nil: return nil
        }
    }

    private func block(
        _ ordinal: Int, of pack: PackReader.OpenPack, _ repository: Repository, isCopy: Bool
    ) async throws -> [UInt8]? {
        guard let number = pack.trailer.frame(holding: ordinal) else { return nil }
        if let recent, recent.pack == pack.id, recent.number == number, recent.isCopy == isCopy { return recent.blocks[ordinal] }
        guard let blocks = try await Self.open(number, of: pack, repository) else { return nil }
        recent = (pack.id, number, isCopy, blocks)
        return blocks[ordinal]
    }
}

extension Repository {
    /// After a read found no such pack. Throws `.storeFailed` where the store says elsewhere that it is there: something
    /// on the way may answer 404 for it, and what is there is not lost.
    func requireGone(pack id: ObjectID) async throws {
        let name = FinishedPack.name(id)
        var isThere = try await store.info(name) != nil
        // Stores without conditions list for a while what is gone.
        if !isThere, isShared { isThere = try await store.list(String(name.dropLast(32))).contains { $0.name == name } }
        guard !isThere else { throw Self.contradiction(name) }
    }

    static func contradiction(_ name: String) -> BackupError {
        BackupError(
            .storeFailed, "the store says that \(name) is not there, and that it is",
            hint:
                "Nothing is taken for lost on such a word. Run it again; if it goes on, look at what is between here and the store."
        )
    }
}
