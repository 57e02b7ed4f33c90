import BackupBase

/// Stores blocks anew whose packs a new snapshot must not refer to: damaged
/// ones, missing ones, and those that a prune is about to take away.
///
/// Used by one task, within the writer's scope.
final class BlockMover {
    let writer: RepositoryWriter
    private let survey: PackSurvey
    private let hasher: BlockHasher
    /// By ordinal; nil for what is lost.
    private var moved: [ObjectID: [Location?]] = [:]
    /// Missing packs that were put back whole.
    private(set) var restored: Set<ObjectID> = []

    init(_ writer: RepositoryWriter, _ survey: PackSurvey) {
        (self.writer, self.survey, hasher) = (writer, survey, writer.repository.keys.blockHasher)
        for pack in survey.bad.keys { writer.avoid(pack: pack) }
    }

    /// Packs that are gone here and whole at the second copy: the same object again mends all that needs it.
    func putBack(_ packs: Set<ObjectID>, from copy: Repository?) async throws {
        guard let copy else { return }
        for id in packs.sorted() where survey.bad[id]?.canBePutBack == true && !restored.contains(id) {
            let pack = try await PackCopy.read(id, from: copy)
            try await Replication.put(FinishedPack.name(id), pack.buffer, writer.repository.store)
            writer.found(pack: id)
            restored.insert(id)
        }
    }

    /// Moves what can be had of those that a snapshot must not refer to.
    func move(_ packs: Set<ObjectID>) async throws {
        for id in packs.sorted() where moved[id] == nil {
            if survey.isBad(id) {
                // Found since the writer began.
                if !restored.contains(id) { writer.avoid(pack: id) }
            }
            guard !writer.mayUse(pack: id) else { continue }
            try await move(id)
        }
    }

    private func move(_ id: ObjectID) async throws {
        guard let pack = try await survey.pack(id) else { return }
        var places: [RepositoryWriter.Place?] = []
        for ordinal in pack.trailer.ids.indices {
            WorkPulse.beat()
            let bytes = try await survey.bytes(Location(pack: id, ordinal: ordinal))
            guard let bytes else {
                places.append(nil)
                continue
            }
            places.append(try await store(bytes, pack.trailer.cohort))
        }
        try await writer.settleTickets()
        moved[id] = places.map { $0.map(location) }
    }

    /// Stores a block, unless it is found in a pack that may be used, and read there: the index repeats trailers, and
    /// nobody may have read that frame.
    func store(_ bytes: [UInt8], _ cohort: Cohort) async throws -> RepositoryWriter.Place {
        while true {
            let place = try await writer.add(block: bytes, hasher, cohort: cohort)
            guard case .stored(let found) = place else { return place }
            if try await holds(found, bytes, cohort) { return place }
            writer.avoid(pack: found.pack)
        }
    }

    private func holds(_ location: Location, _ bytes: [UInt8], _ cohort: Cohort) async throws -> Bool {
        guard let there = try await survey.pack(location.pack)?.trailer.cohort else { return false }
        // Manifests are read from packs of metadata only.
        guard (cohort == .metadata) == (there == .metadata) else { return false }
        return try await survey.bytes(location) == bytes
    }

    /// Where the place is. Valid once the writer's tickets are settled.
    func location(of place: RepositoryWriter.Place) -> Location {
        switch place {
        case .stored(let location): location
        case .new(let ticket): writer.location(ofTicket: ticket)
        case .zero: preconditionFailure("blocks of packs have ids")
        }
    }

    /// The same blocks where a new snapshot may refer to them. Of packs that `move` was asked about.
    func moved(_ extents: Extents) throws -> Extents {
        var result = Extents()
        for run in extents.runs {
            switch run {
            case .zero(let count): result.appendZero(count)
            case .stored(let pack, let first, let count):
                guard let places = moved[pack] else {
                    guard writer.mayUse(pack: pack) else { throw Self.unsaved(pack, first) }
                    result.append(Location(pack: pack, ordinal: first), count: count)
                    continue
                }
                for ordinal in first..<first + count {
                    guard places.indices.contains(ordinal), let place = places[ordinal] else { throw Self.unsaved(pack, ordinal) }
                    result.append(place)
                }
            }
        }
        return result
    }

    /// It was there when the survey looked.
    private static func unsaved(_ pack: ObjectID, _ ordinal: Int) -> BackupError {
        BackupError(
            .damaged, "block \(ordinal) of pack \(FinishedPack.name(pack)) could not be stored anew",
            hint: "Run it again, with --read-data.")
    }
}

extension RepositoryWriter {
    /// Finds or stores one block.
    func add(block bytes: [UInt8], _ hasher: BlockHasher, cohort: Cohort) async throws -> Place {
        let buffer = buffers.take()
        buffer.memory.copyBytes(from: bytes)
        buffer.count = bytes.count
        let block = HashedRegion.Block(range: 0..<bytes.count, id: hasher.id(of: buffer.bytes))
        return try await add(HashedRegion(buffer: buffer, blocks: [block]), cohort: cohort)[0]
    }
}
