import BackupBase
import ObjectStorage

/// A note of packs that no snapshot needed when it was written. Whoever begins
/// later treats them as gone; a prune deletes them once nobody who began
/// earlier is left, and the grace is over (docs/prune.md).
struct Tombstone: Codable, Sendable {
    var packs: [String]

    static let topic = NoteTopic("tombstone")
    /// Packs of one note.
    static let most = 100_000
}

/// A note of packs that a tombstone names and a snapshot needs all the same:
/// no prune takes them away on the word of that tombstone.
struct Revival: Codable, Sendable {
    var tombstone: String
    var packs: [String]

    static let topic = NoteTopic("revival")
}

/// What is known of the packs that are to go.
struct Tombstones: Sendable {
    struct Stone: Sendable {
        let id: ObjectID
        /// When it was written, by the store's clock.
        let modified: Int64
        let packs: Set<ObjectID>
        /// Those of its packs that a snapshot needs after all.
        var revived: Set<ObjectID> = []
        /// Packs that may go on its word.
        var dead: Set<ObjectID> { packs.subtracting(revived) }
    }

    var stones: [Stone]
    /// Notes of revivals, each with the tombstone it is about.
    var revivals: [(id: ObjectID, tombstone: ObjectID)] = []

    /// Throws `.damaged` for a note that cannot be read.
    init(_ repository: Repository) async throws {
        // Revivals before tombstones: a run that takes a tombstone back puts the revival first, looks whether it is
        // alone, and takes the revival back last. So who misses the revival misses the tombstone too, or was seen.
        let revived: [Note<Revival>] = try await repository.notes(Revival.topic)
        let notes: [Note<Tombstone>] = try await repository.notes(Tombstone.topic)
        stones = notes.map { Stone(id: $0.id, modified: $0.modified, packs: Set($0.body.packs.compactMap { ObjectID(hex: $0) })) }
        for note in revived {
            guard let tombstone = ObjectID(hex: note.body.tombstone) else { continue }
            revivals.append((note.id, tombstone))
            guard let index = stones.firstIndex(where: { $0.id == tombstone }) else { continue }
            stones[index].revived.formUnion(note.body.packs.compactMap { ObjectID(hex: $0) })
        }
    }
}

/// Which packs a new snapshot may refer to: what is there, and not about to go.
public struct UsablePacks: Sendable {
    private var present: Set<ObjectID>
    private let doomed: Set<ObjectID>

    init(present: Set<ObjectID> = [], doomed: Set<ObjectID> = []) { (self.present, self.doomed) = (present, doomed) }

    public func contains(_ pack: ObjectID) -> Bool { present.contains(pack) && !doomed.contains(pack) }

    func isDoomed(_ pack: ObjectID) -> Bool { doomed.contains(pack) }

    /// A pack that this run stored, or has seen.
    mutating func insert(_ pack: ObjectID) { present.insert(pack) }
}

extension Repository {
    /// Packs that are in the store, with their sizes and times.
    func storedPacks() async throws -> [ObjectID: ObjectInfo] {
        var packs: [ObjectID: ObjectInfo] = [:]
        for info in try await store.list("v1/packs/") {
            guard let id = ObjectID(hex: info.name.suffix(32)), FinishedPack.name(id) == info.name else { continue }
            packs[id] = info
        }
        return packs
    }

    /// Looks at tombstones first and packs second: what a tombstone named that
    /// is taken back by now is not there any more.
    func usablePacks(_ intent: Intent) async throws -> UsablePacks {
        let notes: [Note<Tombstone>] = try await self.notes(Tombstone.topic)
        let doomed = notes.reduce(into: Set<ObjectID>()) { $0.formUnion($1.body.packs.compactMap { ObjectID(hex: $0) }) }
        async let present = storedPacks()
        try await intent.respect(notes.map(\.id))
        return UsablePacks(present: Set(try await present.keys), doomed: doomed)
    }
}
