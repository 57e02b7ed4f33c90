import BackupBase
import ObjectStorage

/// Packs that are gone at the source because others took their places: these are copied, with the notes that say so.
extension Replication {
    /// The packs to copy for those that a snapshot names, and the notes that a reader will need.
    func standIns(for named: Set<ObjectID>) async throws -> (packs: Set<ObjectID>, notes: Set<ObjectID>) {
        var (packs, notes) = (named, Set<ObjectID>())
        for pack in named where sizes[pack] == nil && there[pack] == nil {
            if successions == nil { successions = try await Successions(source) }
            var (next, seen) = ([pack], Set([pack]))
            while let gone = next.popLast() {
                for successor in successions?.of[gone] ?? [] where seen.insert(successor.pack).inserted {
                    notes.insert(successor.note)
                    // What is found missing where nothing takes its place is reported by its name.
                    packs.remove(pack)
                    if sizes[successor.pack] != nil || successions?.of[successor.pack] == nil {
                        packs.insert(successor.pack)
                    } else {
                        next.append(successor.pack)
                    }
                }
            }
        }
        return (packs, notes)
    }

    /// Before the snapshot that needs them; as they are, because they bear the owner's seal.
    func copy(successions notes: Set<ObjectID>) async throws {
        guard !dryRun else { return }
        for note in notes.sorted() {
            let name = Succession.topic.object(note)
            do {
                let bytes = try await source.store.get(name, .all, limit: Succession.sizeLimit).array
                try await put(name, AlignedBuffer(copying: bytes))
            } catch let error as StoreError where error.kind == .notFound {
                // Nobody needs it any more.
                continue
            }
        }
    }
}
