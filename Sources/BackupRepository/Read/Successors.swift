import BackupBase
import ObjectStorage

/// A note of packs whose places others took: what a snapshot needs of the one
/// stands in the other, in the same frames and under the same ordinals
/// (`Repack`, docs/prune.md). On its word packs are taken away that snapshots
/// name, so it bears the owner's seal: no writer can make one that counts.
struct Succession: Codable, Sendable {
    struct Step: Codable, Sendable {
        var pack: String
        var successor: String
        /// Blocks that the successor has: first ordinal, count, first ordinal, count …
        var kept: [Int]
    }

    var steps: [Step]
    /// By the owner's key, of `sealed`.
    var seal = ""

    static let topic = NoteTopic("succession")
    /// Packs of one note, and numbers in their lists of blocks, at which a repack ends it.
    static let most = (packs: 16, numbers: 500_000)
    static let sizeLimit = 32 << 20

    var sealed: String {
        "succession"
            + steps.map { " \($0.pack) \($0.successor) \($0.kept.map { "\($0)" }.joined(separator: ","))" }.joined()
    }
}

/// A pack that took another one's place.
struct Successor: Sendable {
    let pack: ObjectID
    /// Of the blocks of the pack whose place it took.
    let kept: BlockSet
    /// The note that says so.
    let note: ObjectID

    /// Throws `FormatError` for what no repack writes.
    init(_ step: Succession.Step, note: ObjectID) throws {
        guard let pack = ObjectID(hex: step.successor), step.kept.count.isMultiple(of: 2) else {
            throw FormatError("a step of it is none")
        }
        var kept = BlockSet()
        for index in stride(from: 0, to: step.kept.count, by: 2) {
            let (first, count) = (step.kept[index], step.kept[index + 1])
            guard first >= 0, count > 0, first < PackLimits.mostBlocks, count <= PackLimits.mostBlocks - first else {
                throw FormatError("it names blocks that no pack has")
            }
            _ = kept.insert(first, count, room: .max)
        }
        (self.pack, self.kept, self.note) = (pack, kept, note)
    }
}

/// Where readers look for packs that are gone. Nothing is read before one is.
final class Successors: Sendable {
    private let store: any ObjectStore
    private let keys: KeyRing
    private struct State {
        var known: Set<String> = []
        var steps: [ObjectID: [Successor]] = [:]
    }
    private let state = Locked(State())

    /// Repacks of repacks that a reader follows.
    static let mostSteps = 64
    /// Notes that a reader looks at. Each is for up to 64 packs of 64 MiB.
    private static let mostNotes = 100_000

    init(_ store: any ObjectStore, _ keys: KeyRing) { (self.store, self.keys) = (store, keys) }

    /// Packs that may have what a pack had that is gone, the most complete one first; of these those that are gone as
    /// well stand behind their own successors' place.
    func of(_ pack: ObjectID) async throws -> [ObjectID] {
        guard keys.canRead else { return [] }
        try await load()
        return state.withLock { state in
            var found: [ObjectID] = []
            var (next, seen) = ([pack], Set([pack]))
            while !next.isEmpty, found.count < Self.mostSteps {
                next = next.flatMap { state.steps[$0] ?? [] }.sorted { $0.kept.count > $1.kept.count }.map(\.pack)
                    .filter { seen.insert($0).inserted }
                found += next
            }
            return found
        }
    }

    /// Reads the notes that are new. One that the owner did not make, or that cannot be read, tells nothing: what it is
    /// about is missing then. `check` reports it, and a prune takes nothing away while it is there.
    private func load() async throws {
        let listed = try await store.list(Succession.topic.prefix)
        let known = state.withLock { $0.known }
        for info in listed.prefix(Self.mostNotes) where !known.contains(info.name) {
            var steps: [(ObjectID, Successor)] = []
            do {
                let bytes = try await store.get(info.name, .all, limit: Succession.sizeLimit).array
                let note = try Note<Succession>.open(bytes, info, Succession.topic, keys)
                if keys.isOwnerSeal(note.body.seal, of: note.body.sealed) {
                    for step in note.body.steps {
                        if let pack = ObjectID(hex: step.pack) { steps.append((pack, try Successor(step, note: note.id))) }
                    }
                }
            } catch let error as StoreError where error.kind == .notFound {
                continue
            } catch  where error is FormatError || (error as? StoreError)?.kind == .tooLarge {}
            let found = steps
            state.withLock { state in
                guard state.known.insert(info.name).inserted else { return }
                for (pack, successor) in found { state.steps[pack, default: []].append(successor) }
            }
        }
    }
}

/// What a prune knows of them.
struct Successions: Sendable {
    private(set) var of: [ObjectID: [Successor]] = [:]
    private(set) var notes: [ObjectID: Succession] = [:]
    /// Notes that the owner did not make.
    private(set) var forged: [ObjectID] = []

    private static let most = 1_000_000

    init() {}

    /// The objects that bring a pack's blocks: the pack's own; where that is gone, those that took its place and the
    /// notes that say so.
    func objects(of pack: ObjectID, _ stored: [ObjectID: ObjectInfo]) -> [String] {
        guard stored[pack] == nil, of[pack] != nil else { return [FinishedPack.name(pack)] }
        var objects: [String] = []
        var (next, seen) = ([pack], Set([pack]))
        while let gone = next.popLast() {
            for successor in of[gone] ?? [] {
                objects.append(Succession.topic.object(successor.note))
                // Two prunes may have said the same.
                guard seen.insert(successor.pack).inserted else { continue }
                if stored[successor.pack] == nil, of[successor.pack] != nil {
                    next.append(successor.pack)
                } else {
                    objects.append(FinishedPack.name(successor.pack))
                }
            }
        }
        return objects
    }

    /// Throws `.damaged` for a note that cannot be read: packs that only it names would be taken away.
    init(_ repository: Repository) async throws {
        var room = Self.most
        try await repository.forEachNote(Succession.topic, of: Succession.self, limit: Succession.sizeLimit) { note in
            guard repository.keys.isOwnerSeal(note.body.seal, of: note.body.sealed) else { return forged.append(note.id) }
            notes[note.id] = note.body
            for step in note.body.steps {
                room -= 1
                guard room >= 0, let pack = ObjectID(hex: step.pack), let successor = try? Successor(step, note: note.id) else {
                    throw BackupError(.damaged, "the note \(Succession.topic.object(note.id)) is damaged")
                }
                of[pack, default: []].append(successor)
            }
        }
    }
}
