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
        let gone = found.packs.filter { sizes[$0] == nil && there[$0] == nil }
        guard !gone.isEmpty else { return found }
        let here = try await Successions(source)
        var atPlace = Successions()
        if let target { atPlace = try await Successions(target) }
        var needed: [ObjectID: BlockSet]?
        for pack in gone.sorted() {
            guard let place = here.chain(pack).first(where: { sizes[$0] != nil }) else { continue }
            found.packs.remove(pack)
            let steps = [pack] + here.chain(pack).prefix { $0 != place }
            if let other = steps.first(where: { atPlace.of[$0] != nil && atPlace.of[$0]?.pack != here.of[$0]?.pack }) {
                if needed == nil { needed = try await blocks(of: snapshot, here) }
                try require(needed?[other] ?? BlockSet(), of: other, from: atPlace)
                found.notes += steps.prefix { $0 != other }
            } else {
                found.packs.insert(place)
                found.notes += steps
            }
        }
        return found
    }

    private func blocks(of snapshot: Snapshot, _ successions: Successions) async throws -> [ObjectID: BlockSet] {
        let mark = ReferenceMark(source)
        try await mark.add(snapshot)
        mark.follow(successions)
        return mark.used
    }

    /// Both places repacked one pack, each for its own snapshots: a reader there finds what that place kept.
    private func require(_ needed: BlockSet, of pack: ObjectID, from successions: Successions) throws {
        for last in [pack] + successions.chain(pack) {
            guard let successor = successions.of[last], needed.isSubset(of: successor.kept) else { break }
            guard there[successor.pack] == nil else { return }
        }
        throw BackupError(
            .damaged, "\(place.location) repacked pack \(pack) by itself, and has no longer all that this snapshot needs of it",
            hint: "Copy the snapshot to another place; or prune and copy with one set of snapshots at both.")
    }

    /// Before the snapshot that needs them; as they are, because they bear the owner's seal.
    func copy(notes: [ObjectID]) async throws {
        guard !dryRun, !notes.isEmpty else { return }
        // A prune of the place may be taking back notes of the same packs: it looks for writers, and this one for prunes.
        if let target, let other = try await target.intents().first(where: { $0.mayPrune }) {
            throw BackupError(
                .busy, "a prune is at work at \(place.location): \(other.holder)",
                hint: "Copy again once it has ended. One that was killed there is given up by the next 'bgbackup prune'.")
        }
        for pack in notes {
            let name = Succession.topic.object(pack)
            do {
                let bytes = try await source.store.get(name, .all, limit: Succession.sizeLimit).array
                try await put(name, AlignedBuffer(copying: bytes))
            } catch let error as StoreError where error.kind == .notFound {
                throw BackupError(
                    .damaged, "what took the place of pack \(pack) was taken away at the source meanwhile", hint: "Copy again.",
                    cause: error)
            }
        }
    }
}
