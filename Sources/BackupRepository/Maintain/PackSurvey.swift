import BackupBase
import ObjectStorage

/// Which packs are damaged or missing, and where else their blocks are.
struct PackSurvey {
    /// Where a block of a damaged pack can be had.
    enum Source {
        /// From its own frame, which is whole.
        case frame
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
    }

    private(set) var bad: [ObjectID: BadPack] = [:]
    private var healthy: [ObjectID] = []
    private let repository: Repository
    private let copy: Repository?

    /// - Parameters:
    ///   - copy: the same repository at a second place
    ///   - reading: read all frames, not only headers and trailers
    init(_ repository: Repository, copy: Repository?, reading: Bool, progress: (_ done: Int, _ total: Int) -> Void) async throws {
        (self.repository, self.copy) = (repository, copy)
        let stored = try await repository.storedPacks()
        for (done, id) in stored.keys.sorted().enumerated() {
            try Task.checkCancellation()
            WorkPulse.beat()
            try await look(at: id, reading: reading)
            progress(done + 1, stored.count)
        }
        try await nameContents(stored)
        for id in bad.keys.sorted() { try await findSources(id) }
        try await findElsewhere()
    }

    private mutating func look(at id: ObjectID, reading: Bool) async throws {
        let reader = repository.reader
        do {
            let pack = try await reader.pack(id)
            try await reader.readHeader(of: pack)
            healthy.append(id)
            // Without manifests nothing is known: those are read in any case.
            guard reading || pack.trailer.cohort == .metadata else { return }
            for number in pack.trailer.frames.indices {
                guard try await Self.open(number, of: pack, reader) == nil else { continue }
                bad[id] = BadPack(problem: "frame \(number) is damaged", opens: true, pack: pack)
                healthy.removeLast()
                return
            }
        } catch let error as BackupError where error.code == .damaged {
            bad[id] = BadPack(problem: error.cause ?? error.message, pack: try? await reader.pack(id))
        } catch let error as StoreError where error.kind == .failed {
            bad[id] = BadPack(problem: "it cannot be read: \(error.detail)")
        }
    }

    /// The frame's blocks, each that is what its id names; nil where the frame cannot be opened.
    private static func open(_ number: Int, of pack: PackReader.OpenPack, _ reader: PackReader) async throws -> [Int: [UInt8]]? {
        do {
            let frame = try reader.open(number, in: try await reader.read(number..<number + 1, of: pack))
            defer { reader.release(frame) }
            var blocks: [Int: [UInt8]] = [:]
            for (ordinal, range) in frame.held {
                try reader.verify(ordinal, range, of: frame)
                blocks[ordinal] = Array(frame.buffer.bytes[range])
            }
            return blocks
        } catch let error as BackupError where error.code == .damaged {
            return nil
        } catch let error as StoreError where error.kind == .failed || error.kind == .notFound {
            return nil
        }
    }

    /// Packs without a trailer, and packs that are gone, by the word of an index object.
    private mutating func nameContents(_ stored: [ObjectID: ObjectInfo]) async throws {
        for info in try await repository.store.list(IndexObject.prefix) {
            guard let id = IndexObject.id(name: info.name),
                let bytes = try? await repository.store.get(info.name, .all, limit: IndexObject.sizeLimit).array,
                let index = try? IndexObject(opening: bytes, repository.keys, id: id)
            else { continue }
            for pack in index.packs {
                if stored[pack.id] == nil, bad[pack.id] == nil {
                    bad[pack.id] = BadPack(problem: "it is missing", isMissing: true)
                }
                guard let known = bad[pack.id], known.pack == nil else { continue }
                bad[pack.id]?.pack = repository.reader.openPack(pack.id, size: pack.size, trailer: pack.trailer)
            }
        }
    }

    /// A pack that a snapshot names and no object tells of.
    mutating func note(missing id: ObjectID) async throws {
        guard bad[id] == nil, !healthy.contains(id) else { return }
        bad[id] = BadPack(problem: "it is missing", isMissing: true)
        try await findSources(id)
    }

    private mutating func findSources(_ id: ObjectID) async throws {
        let there = try? await copy?.reader.pack(id)
        if bad[id]?.pack == nil, let there {
            bad[id]?.pack = repository.reader.openPack(id, size: there.size, trailer: there.trailer)
        }
        guard let pack = bad[id]?.pack else { return }
        var sources = [Source?](repeating: nil, count: pack.trailer.ids.count)
        let isThere = try await repository.store.info(FinishedPack.name(id)) != nil
        for number in pack.trailer.frames.indices {
            var found: [Int: [UInt8]]?
            if isThere { found = try await Self.open(number, of: pack, repository.reader) }
            for ordinal in found?.keys.sorted() ?? [] { sources[ordinal] = .frame }
            guard found == nil, let there, let copy, there.trailer.ids == pack.trailer.ids else { continue }
            for ordinal in try await Self.open(number, of: there, copy.reader)?.keys.sorted() ?? [] { sources[ordinal] = .copy }
        }
        bad[id]?.sources = sources
        bad[id]?.canBePutBack = !isThere && there != nil && !sources.contains { $0 == nil }
    }

    /// Blocks that another pack has as well: what was lost is stored again when it is met.
    private mutating func findElsewhere() async throws {
        var wanted: [BlockID: [Location]] = [:]
        for (id, pack) in bad {
            for (ordinal, source) in pack.sources.enumerated() where source == nil {
                guard let block = pack.pack?.id(ordinal) else { continue }
                wanted[block, default: []].append(Location(pack: id, ordinal: ordinal))
            }
        }
        guard !wanted.isEmpty else { return }
        for id in healthy {
            guard let pack = try? await repository.reader.pack(id) else { continue }
            for (ordinal, block) in pack.trailer.ids.enumerated() {
                for place in wanted[block] ?? [] {
                    guard bad[place.pack]?.sources[place.ordinal] == nil else { continue }
                    bad[place.pack]?.sources[place.ordinal] = .elsewhere(Location(pack: id, ordinal: ordinal))
                }
            }
        }
    }

    // MARK: - What it found

    func isBad(_ pack: ObjectID) -> Bool { bad[pack] != nil }

    /// Whether the block is, or will be, to be had.
    func isLost(_ location: Location) -> Bool {
        guard let pack = bad[location.pack] else { return false }
        return !pack.sources.indices.contains(location.ordinal) || pack.sources[location.ordinal] == nil
    }

    /// Whether a snapshot that needs the block cannot stay as it is.
    func mustMove(_ location: Location) -> Bool {
        guard let pack = bad[location.pack], !pack.canBePutBack else { return false }
        guard pack.opens, pack.sources.indices.contains(location.ordinal), case .frame? = pack.sources[location.ordinal] else {
            return true
        }
        return false
    }

    /// The block's bytes, verified. Throws `.damaged` for what is lost.
    func bytes(_ location: Location) async throws -> [UInt8] {
        guard let bad = bad[location.pack] else { return try await repository.reader.anyBlock(location) }
        let source = bad.sources.indices.contains(location.ordinal) ? bad.sources[location.ordinal] : nil
        switch source {
        case .elsewhere(let other)?: return try await repository.reader.anyBlock(other)
        case .copy?: if let copy { return try await copy.reader.anyBlock(location) }
        case .frame?:
            if let pack = bad.pack, let number = pack.trailer.frame(holding: location.ordinal),
                let block = try await Self.open(number, of: pack, repository.reader)?[location.ordinal]
            {
                return block
            }
        case nil: break
        }
        throw BackupError(.damaged, "block \(location.ordinal) of pack \(FinishedPack.name(location.pack)) is lost")
    }

    /// Blocks of one frame of a bad pack, with their ordinals: those that have to be stored anew.
    func blocksToSave(_ id: ObjectID, frame number: Int) async throws -> [(ordinal: Int, bytes: [UInt8])] {
        guard let bad = bad[id], let pack = bad.pack else { return [] }
        let ordinals = pack.trailer.frames[number].blocks.filter { ordinal in
            switch bad.sources[ordinal] {
            case .frame?, .copy?: true
            case .elsewhere?, nil: false
            }
        }
        guard let first = ordinals.first else { return [] }
        var found: [Int: [UInt8]]?
        if case .copy? = bad.sources[first], let copy {
            found = try await Self.open(number, of: try await copy.reader.pack(id), copy.reader)
        } else {
            found = try await Self.open(number, of: pack, repository.reader)
        }
        return ordinals.compactMap { ordinal in found?[ordinal].map { (ordinal, $0) } }
    }
}

extension PackReader {
    /// One block of a pack of any cohort.
    func anyBlock(_ location: Location) async throws -> [UInt8] {
        let pack = try await pack(location.pack)
        guard let number = pack.trailer.frame(holding: location.ordinal) else {
            throw BackupError(.damaged, "pack \(FinishedPack.name(pack.id)) has no block \(location.ordinal)")
        }
        let frame = try open(number, in: try await read(number..<number + 1, of: pack))
        defer { release(frame) }
        let range = frame.ranges[location.ordinal - frame.blocks.lowerBound]
        try verify(location.ordinal, range, of: frame)
        return Array(frame.buffer.bytes[range])
    }
}
