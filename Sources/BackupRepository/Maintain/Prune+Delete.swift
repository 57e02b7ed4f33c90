import BackupBase
import ObjectStorage

/// Taking away: packs that can go, and notes that say nothing any more.
extension Prune {
    func delete(_ going: [ObjectID], _ confirm: () async throws -> Void) async throws {
        let store = repository.store
        for start in stride(from: 0, to: going.count, by: Self.batch) {
            try await confirm()
            let batch = going[start..<min(start + Self.batch, going.count)]
            do {
                guard try await store.deletesTogether else {
                    try await deleteEach(batch, confirm)
                    progress(.delete, start + batch.count, going.count)
                    continue
                }
                try await store.delete(all: batch.map { FinishedPack.name($0) })
                for id in batch { plan.free.add(packs[id]?.size ?? 0) }
            } catch let error as StoreError where error.kind == .locked {
                try await deleteEach(batch, confirm)
            }
            progress(.delete, start + batch.count, going.count)
        }
    }

    /// One at a time: where that takes minutes, the run's right to go on is looked at in between.
    private func deleteEach(_ batch: ArraySlice<ObjectID>, _ confirm: () async throws -> Void) async throws {
        let (store, ambient) = (repository.store, repository.ambient)
        var confirmed = ambient.now()
        for id in batch {
            if abs(Double(ambient.now() - confirmed)) / 1e9 > Intent.renewal {
                try await confirm()
                confirmed = ambient.now()
            }
            do {
                try await store.delete(FinishedPack.name(id))
                plan.free.add(packs[id]?.size ?? 0)
            } catch let error as StoreError where error.kind == .locked {
                noteLock(id, try await store.info(FinishedPack.name(id))?.lockedUntil)
            }
        }
    }

    /// Takes notes back that say nothing any more: tombstones whose packs were all gone, or revived, before this run
    /// took anything away. Only a run that is alone may: another one may act on them.
    func tidy(_ intent: Intent, _ confirm: () async throws -> Void) async throws {
        func areGone(_ ids: Set<ObjectID>) -> Bool { ids.allSatisfy { packs[$0] == nil } }
        // A mark of damaged packs is taken back with the last of them, whoever needed them.
        let done =
            tombstones.stones.filter { areGone($0.dead) }.map(\.id)
            + tombstones.damaged.filter { areGone($0.packs) }.map(\.id)
        let gone = Set(done)
        let left = tombstones.stones.map(\.id).filter { !gone.contains($0) }
        let spent = tombstones.revivals.filter { !left.contains($0.tombstone) }
        guard !done.isEmpty || !spent.isEmpty else { return }
        let others = try await repository.intents().filter { $0.run != intent.run && $0.mayPrune }
        guard others.isEmpty else { return }
        for id in done {
            try await confirm()
            try await repository.remove(note: id, Tombstone.topic)
        }
        for revival in spent {
            try await confirm()
            try await repository.remove(note: revival.id, Revival.topic)
        }
    }
}
