import BackupBase
import ObjectStorage

/// Packs that are gone at the source because others took their places: these are copied, with the notes that say so.
extension Replication {
    /// What a snapshot needs, as it is to be had at the source.
    struct StandIns {
        var packs: Set<ObjectID>
        /// Packs whose notes a reader will need.
        var notes: [ObjectID] = []
    }

    /// Throws `.damaged` where the place has another pack in the place of one, which has not all that the snapshot needs.
    func standIns(for snapshot: Snapshot) async throws -> StandIns {
        var found = StandIns(packs: try await source.packs(of: snapshot))
        let known = try await knownSuccessions()
        let (here, atPlace) = (known.source, known.place)
        let special = found.packs.filter { pack in
            atPlace.of[pack] != nil && (there[pack] == nil || usable.isDoomed(pack)) || sizes[pack] == nil && there[pack] == nil
        }
        guard !special.isEmpty else { return found }
        let mark = ReferenceMark(source)
        try await mark.add(snapshot)
        for pack in special.sorted() {
            if let place = successorAtPlace(of: pack, mark.used[pack] ?? BlockSet(), atPlace) {
                // As any pack that is there already: not where a prune is about to take it away.
                found.packs.remove(pack)
                found.packs.insert(place)
            } else if sizes[pack] == nil, let place = here.chain(pack).first(where: { sizes[$0] != nil }) {
                let steps = [pack] + here.chain(pack).prefix { $0 != place }
                guard steps.allSatisfy({ atPlace.of[$0] == nil || atPlace.of[$0]?.pack == here.of[$0]?.pack }) else {
                    throw BackupError(
                        .damaged,
                        "\(self.place.location) repacked pack \(pack) by itself, and has no longer all that this snapshot needs of it",
                        hint: "Copy the snapshot to another place.")
                }
                found.packs.remove(pack)
                found.packs.insert(place)
                found.notes += steps
            }
        }
        return found
    }

    /// Of both places, read once: what this run relies on stays while its intent is there.
    private func knownSuccessions() async throws -> (source: Successions, place: Successions) {
        if let successions { return successions }
        var atPlace = Successions()
        if let target { atPlace = try await Successions(target) }
        let known = (try await Successions(source), atPlace)
        successions = known
        return known
    }

    /// Both places may have repacked one pack, each for its own snapshots: a reader there finds what that place kept.
    private func successorAtPlace(of pack: ObjectID, _ needed: BlockSet, _ successions: Successions) -> ObjectID? {
        for last in [pack] + successions.chain(pack) {
            guard let successor = successions.of[last], needed.isSubset(of: successor.kept) else { break }
            if there[successor.pack] != nil { return successor.pack }
        }
        return nil
    }

    /// Before the snapshot that needs them; as they are, because they bear the owner's seal.
    func copy(notes: [ObjectID]) async throws {
        guard !dryRun, !notes.isEmpty else { return }
        // A prune of the place may be taking back notes of the same packs: it looks for writers, and this one for prunes.
        if let target {
            let now = try await target.storeTime()
            if let other = try await target.intents().first(where: { try $0.mayPrune && !target.isDead($0, now: now) }) {
                throw BackupError(
                    .busy, "a prune is at work at \(place.location): \(other.holder)", hint: "Copy again once it has ended.")
            }
        }
        for pack in notes { try await copy(note: pack) }
    }

    private func copy(note pack: ObjectID) async throws {
        let name = Succession.topic.object(pack)
        do {
            let bytes = try await source.store.get(name, .all, limit: Succession.sizeLimit).array
            do { try await place.put(name, AlignedBuffer(copying: bytes), ifAbsent: true) } catch let error as StoreError
                where error.kind == .exists
            {
                let other = try await place.get(name, .all, limit: Succession.sizeLimit).array
                // The same word of the owner's, sealed at another time, is as good.
                guard other == bytes || successions?.place.of[pack] != nil else {
                    throw BackupError(
                        .damaged, "\(place.location)/\(name) is another note than the source's",
                        hint: "Run 'bgbackup prune' there, which takes back what no longer counts, and copy with the password.")
                }
            }
        } catch let error as StoreError where error.kind == .notFound {
            throw BackupError(
                .damaged, "what took the place of pack \(pack) was taken away at the source meanwhile", hint: "Copy again.",
                cause: error)
        }
    }
}
