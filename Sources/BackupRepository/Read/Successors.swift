import BackupBase
import ObjectStorage

/// The note that another pack took a pack's place, under the pack's own id:
/// what snapshots need of the one stands in the other, in the same frames and
/// under the same ordinals (`Repack`, docs/prune.md). On its word a pack goes
/// that snapshots name, so it bears the owner's seal: no writer can make one
/// that counts.
struct Succession: Codable, Sendable {
    var successor: String
    /// A bit for each block of the pack, whether the successor has it; hex, the lowest bit of a byte first.
    var kept: String
    var seal = ""

    static let topic = NoteTopic("succession")
    /// Bytes of the note's object at the most: two digits for eight of 2^20 blocks, and some.
    static let sizeLimit = 512 << 10

    /// What `seal` is of, by the owner's key.
    func sealed(_ pack: ObjectID) -> String { "succession \(pack) \(successor) \(kept)" }
}

/// A pack that took another one's place.
struct Successor: Sendable {
    let pack: ObjectID
    /// The blocks it has.
    let kept: BlockSet

    /// Throws `FormatError` for what the owner did not say.
    init(_ note: Succession, of pack: ObjectID, _ keys: KeyRing) throws {
        guard keys.isOwnerSeal(note.seal, of: note.sealed(pack)) else { throw Self.forged }
        guard let successor = ObjectID(hex: note.successor), successor != pack, let kept = BlockSet(hex: note.kept) else {
            throw FormatError("it names no pack")
        }
        (self.pack, self.kept) = (successor, kept)
    }

    static let forged = FormatError("the owner did not make it")
}

/// Where readers look for a pack that is gone. Nothing is read before one is.
struct Successors: Sendable {
    private let store: any ObjectStore
    private let keys: KeyRing

    /// Repacks of repacks that a reader follows.
    static let mostSteps = 64

    init(_ store: any ObjectStore, _ keys: KeyRing) { (self.store, self.keys) = (store, keys) }

    /// The pack that took its place; it may be gone as well, and have a successor of its own. Nil where none did, by the
    /// owner's word: a note that somebody else made, or that cannot be read, says nothing.
    func of(_ pack: ObjectID) async throws -> ObjectID? {
        guard keys.canRead else { return nil }
        let name = Succession.topic.object(pack)
        do {
            let bytes = try await store.get(name, .all, limit: Succession.sizeLimit).array
            let info = ObjectInfo(name: name, size: bytes.count, modified: 0)
            return try Successor(try Note<Succession>.open(bytes, info, Succession.topic, keys).body, of: pack, keys).pack
        } catch let error as StoreError where error.kind == .notFound || error.kind == .tooLarge {
            return nil
        } catch is FormatError {
            return nil
        }
    }
}

/// What a prune knows of them.
struct Successions: Sendable {
    private(set) var of: [ObjectID: Successor] = [:]
    /// Notes that the owner did not make: they do not count.
    private(set) var forged: [ObjectID] = []

    private static let most = 1_000_000

    init() {}

    /// Throws `.damaged` for a note that cannot be read: a pack that only it names would be taken away.
    init(_ repository: Repository) async throws {
        guard repository.keys.canRead else { throw KeyRing.writeOnly }
        try await repository.forEachNote(Succession.topic, of: Succession.self, limit: Succession.sizeLimit) { note in
            do { of[note.id] = try Successor(note.body, of: note.id, repository.keys) } catch { forged.append(note.id) }
            guard of.count + forged.count <= Self.most else {
                throw BackupError(.damaged, "there are more than \(Self.most) notes below \(Succession.topic.prefix)")
            }
        }
    }

    /// The packs that took a pack's place, one after the other.
    func chain(_ pack: ObjectID) -> [ObjectID] {
        var chain: [ObjectID] = []
        var last = pack
        while let next = of[last]?.pack, next != pack, !chain.contains(next), chain.count < Successors.mostSteps {
            chain.append(next)
            last = next
        }
        return chain
    }

    /// The objects that bring a pack's blocks: the pack's own; where that is gone, the one that took its place, and the
    /// notes on the way there.
    func objects(of pack: ObjectID, isStored: (ObjectID) -> Bool) -> [String] {
        var notes: [String] = []
        var last = pack
        for next in isStored(pack) ? [] : chain(pack) {
            notes.append(Succession.topic.object(last))
            last = next
            if isStored(next) { break }
        }
        return notes + [FinishedPack.name(last)]
    }
}
