import BackupBase
import ObjectStorage

/// A note of packs that no snapshot needed when it was written. Whoever begins
/// later treats them as gone; a prune deletes them once nobody who began
/// earlier is left, and the grace is over (docs/prune.md).
struct Tombstone: Codable, Sendable {
    var packs: [String]
    /// A repair found them damaged, whoever needs them: whoever begins later treats these as gone too, and no prune
    /// takes anything away on the word of this note. Nil: not.
    var damaged: Bool?

    static let topic = NoteTopic("tombstone")
    /// Packs of one note.
    static let most = 100_000
    /// Bytes of a tombstone's or revival's object at the most: so many packs, and some.
    static let sizeLimit = 4 << 20
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

    var stones: [Stone] = []
    /// Marks of damaged packs: nothing goes on their word, and they go when their packs have gone.
    var damaged: [(id: ObjectID, packs: Set<ObjectID>)] = []
    /// Notes of revivals, each with the tombstone it is about.
    var revivals: [(id: ObjectID, tombstone: ObjectID)] = []

    /// Throws `.damaged` for a note that cannot be read.
    init(_ repository: Repository) async throws {
        // Revivals before tombstones: a run that takes a tombstone back puts the revival first, looks whether it is
        // alone, and takes the revival back last. So who misses the revival misses the tombstone too, or was seen.
        var room = DoomedPacks.most
        func packs(_ names: [String]) throws -> Set<ObjectID> {
            let packs = Set(names.compactMap { ObjectID(hex: $0) })
            room -= packs.count
            guard room >= 0 else { throw DoomedPacks.tooMany }
            return packs
        }
        var revived: [ObjectID: Set<ObjectID>] = [:]
        try await repository.forEachNote(Revival.topic, of: Revival.self, limit: Tombstone.sizeLimit) { note in
            guard let tombstone = ObjectID(hex: note.body.tombstone) else { return }
            revivals.append((note.id, tombstone))
            revived[tombstone, default: []].formUnion(try packs(note.body.packs))
        }
        try await repository.forEachNote(Tombstone.topic, of: Tombstone.self, limit: Tombstone.sizeLimit) { note in
            let named = try packs(note.body.packs)
            if note.body.damaged == true { return damaged.append((note.id, named)) }
            stones.append(
                Stone(id: note.id, modified: note.modified, packs: named, revived: revived.removeValue(forKey: note.id) ?? []))
        }
        stones.sort { ($0.modified, $0.id) < ($1.modified, $1.id) }
    }
}

/// Packs that tombstones name: what a writer's key can put is bounded before it fills the memory.
struct DoomedPacks {
    /// 250 TB of packs, 200 MB of ids.
    static let most = 4_000_000
    static let tooMany = BackupError(
        .damaged, "notes of prunes name more than \(most) packs",
        hint: "No prune writes so many: look at what is below \(Tombstone.topic.prefix) and \(Revival.topic.prefix).")

    /// All of them, damaged ones too.
    private(set) var packs: Set<ObjectID> = []
    private(set) var damaged: Set<ObjectID> = []
    private(set) var tombstones: [ObjectID] = []

    init(_ repository: Repository) async throws {
        try await repository.forEachNote(Tombstone.topic, of: Tombstone.self, limit: Tombstone.sizeLimit) { note in
            tombstones.append(note.id)
            let named = note.body.packs.compactMap { ObjectID(hex: $0) }
            packs.formUnion(named)
            if note.body.damaged == true { damaged.formUnion(named) }
            guard packs.count <= Self.most else { throw Self.tooMany }
        }
    }
}

/// Which packs a new snapshot may refer to: what is there, and not about to go.
public struct UsablePacks: Sendable {
    private var present: Set<ObjectID>
    private let doomed: Set<ObjectID>
    private let damaged: Set<ObjectID>

    init(present: Set<ObjectID> = [], doomed: Set<ObjectID> = [], damaged: Set<ObjectID> = []) {
        (self.present, self.doomed, self.damaged) = (present, doomed, damaged)
    }

    public func contains(_ pack: ObjectID) -> Bool { present.contains(pack) && !doomed.contains(pack) }

    func isDoomed(_ pack: ObjectID) -> Bool { doomed.contains(pack) }

    /// Doomed because a repair found it damaged.
    func isDamaged(_ pack: ObjectID) -> Bool { damaged.contains(pack) }

    /// A pack that this run stored, or has seen.
    mutating func insert(_ pack: ObjectID) { present.insert(pack) }

    /// A pack that this run has found to be no good.
    mutating func remove(_ pack: ObjectID) { present.remove(pack) }
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
    /// - Returns: also the tombstones that there are
    func usablePacks(_ intent: Intent) async throws -> (packs: UsablePacks, tombstones: [ObjectID]) {
        let doomed = try await DoomedPacks(self)
        async let present = storedPacks()
        try await intent.respect(doomed.tombstones)
        return (
            UsablePacks(present: Set(try await present.keys), doomed: doomed.packs, damaged: doomed.damaged), doomed.tombstones
        )
    }
}
