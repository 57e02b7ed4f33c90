import BackupBase
import ObjectStorage

/// The index's part of a prune: what it says of packs that go is taken back
/// before the first of them goes, one index object in memory at a time.
struct PruneIndex {
    private let repository: Repository
    private let going: Set<ObjectID>
    /// The blocks that are needed of a pack that has to stay; nil for one that has not.
    private let needed: (ObjectID) -> BlockSet?
    private let now: Int64
    private let progress: (Prune.Phase, Int, Int) -> Void

    /// - Parameter now: the store's clock
    init(
        _ repository: Repository, going: Set<ObjectID>, now: Int64, progress: @escaping (Prune.Phase, Int, Int) -> Void,
        needed: @escaping (ObjectID) -> BlockSet?
    ) {
        (self.repository, self.going, self.now, self.progress) = (repository, going, now, progress)
        self.needed = needed
    }

    /// What `rewrite` would do.
    func count(_ stored: some Sequence<ObjectID>, into plan: inout PrunePlan) async throws {
        var unlisted = Set(stored)
        try await forEach { _, object in
            weigh(object, &unlisted, &plan)
            let live = object.packs.count { !going.contains($0.id) }
            guard live < object.packs.count else { return }
            if live == 0 { plan.indexesRemoved += 1 } else { plan.indexesRewritten += 1 }
        }
        plan.unindexed = unlisted.count
    }

    /// Writes anew what lists packs that go or are gone, without them, and takes the old object away.
    func rewrite(
        _ stored: [ObjectID: ObjectInfo], into plan: inout PrunePlan, _ confirm: () async throws -> Void
    ) async throws {
        var unlisted = Set(stored.keys)
        var changed = plan
        try await forEach { name, object in
            weigh(object, &unlisted, &changed)
            // Not "what is not stored": a pack that was put after the list of packs is not in it.
            let live = object.packs.filter { !going.contains($0.id) }
            guard live.count < object.packs.count else { return }
            // What cannot go need not be written twice. It says a little too much: backups look whether a pack is there.
            if let until = try await repository.store.info(name)?.lockedUntil, until > now {
                changed.indexesLocked += 1
                return
            }
            if !live.isEmpty {
                var smaller = IndexObject()
                smaller.packs = live
                let id = ObjectID.random(repository.ambient)
                let sealed = try smaller.sealed(repository.keys, id: id, salt: repository.ambient.random(32))
                try await repository.store.put(IndexObject.name(id), sealed, ifAbsent: true)
            }
            try await confirm()
            do {
                try await repository.store.delete(name)
                if live.isEmpty { changed.indexesRemoved += 1 } else { changed.indexesRewritten += 1 }
            } catch let error as StoreError where error.kind == .locked {
                changed.indexesLocked += 1
            }
        }
        plan = changed
        plan.unindexed = unlisted.count
    }

    /// Counts what of the packs that stay no snapshot needs, each pack once.
    private func weigh(_ object: IndexObject, _ unlisted: inout Set<ObjectID>, _ plan: inout PrunePlan) {
        for pack in object.packs where unlisted.remove(pack.id) != nil {
            guard let needed = needed(pack.id) else { continue }
            let unused = needed.unusedBytes(of: pack.trailer)
            guard unused > 0 else { continue }
            plan.partly.append(PrunePlan.PartlyUsed(id: pack.id, size: pack.size, unused: unused))
            plan.wasted += unused
        }
    }

    private func forEach(_ body: (String, IndexObject) async throws -> Void) async throws {
        let listed = try await repository.store.list(IndexObject.prefix)
        for (done, info) in listed.enumerated() {
            guard let id = IndexObject.id(name: info.name) else { continue }
            do {
                let bytes = try await repository.store.get(info.name, .all, limit: IndexObject.sizeLimit).array
                try await body(info.name, try IndexObject(opening: bytes, repository.keys, id: id))
            } catch let error as StoreError where error.kind == .notFound || error.kind == .tooLarge {
                // Replaced meanwhile by another prune; or no index at all, which 'check' names.
            } catch is FormatError {
                // Damaged: it says nothing to anybody. 'repair' replaces it.
            }
            progress(.index, done + 1, listed.count)
        }
    }
}
