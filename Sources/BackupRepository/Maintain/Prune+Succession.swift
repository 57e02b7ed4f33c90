import BackupBase
import ObjectStorage

/// Packs whose places others took (`Succession`), and packs that are to be repacked.
extension Prune {
    /// Whether the pack itself has to stay.
    func needs(_ pack: ObjectID) -> Bool {
        // One that a lock keeps would be extended again and again, and doomed for good.
        if repository.store.lockDuration != nil, packs[pack] != nil { return references.needs(pack) }
        return references.needs(pack) && !isSucceeded(pack)
    }

    /// Whether all that is needed of a pack can be had from its successor, or from that one's.
    /// - Parameter surely: not where a prune may be about to take that away
    func isSucceeded(_ pack: ObjectID, surely: Bool = true, _ seen: Set<ObjectID> = []) -> Bool {
        guard let needed = references.used[pack], let successor = successions.of[pack], !seen.contains(pack),
            needed.isSubset(of: successor.kept)
        else { return false }
        guard packs[successor.pack] == nil else { return !surely || !doomed.contains(successor.pack) }
        return isSucceeded(successor.pack, surely: surely, seen.union([pack]))
    }

    func index(_ going: Set<ObjectID>) -> PruneIndex {
        PruneIndex(repository, going: going, now: now, progress: progress) { pack in
            self.needs(pack) ? self.references.used[pack] : nil
        }
    }

    /// Packs that snapshots need, and that are neither there nor replaced. Of those that backups and copies put after the
    /// list of packs another one tells.
    func missingPacks() async throws -> [ObjectID] {
        let absent = references.byName.filter { packs[$0] == nil && !isSucceeded($0, surely: false) }
        guard !absent.isEmpty else { return [] }
        let notes = try await Successions(repository)
        let there = try await repository.storedPacks()
        return absent.filter { pack in
            there[pack] == nil
                && !notes.chain(pack).contains {
                    there[$0] != nil && references.used[pack]?.isSubset(of: notes.of[pack]!.kept) == true
                }
        }.sorted()
    }

    /// Where a needed pack is missing, another one may be all that is left of it, and nothing says so any more.
    func requirePacks() async throws {
        let missing = try await missingPacks()
        guard let first = missing.first else { return }
        throw BackupError(
            .damaged, "nothing is taken away: \(missing.count) packs that snapshots need are missing, the first is \(first)",
            hint: "Run 'bgbackup check' to see which snapshots need them, then 'bgbackup repair --salvage'. Once those that "
                + "are lost are forgotten, prune again.")
    }

    // MARK: - Repacking

    /// Bytes that may lie unused in any repository.
    static let little: Int64 = 16 << 20

    /// What is to be repacked, once the packs were weighed.
    var repack: Repack {
        // Under locks a pack stays for as long as a snapshot needs a part of it: there is nothing to gain.
        guard repository.store.lockDuration == nil, options.maxUnused < 1 else { return Repack(repository, []) }
        let weighed = plan.partly.filter { pack in
            successions.of[pack.id] == nil && !successions.forged.contains(pack.id) && !doomed.contains(pack.id)
                && Double(pack.unused) >= options.leastUnused * Double(pack.size)
        }
        // Little is not worth the requests, where anything at all is allowed.
        let allowed = options.maxUnused > 0 ? max(Int64(options.maxUnused * Double(plan.needed.bytes)), Self.little) : 0
        return Repack(repository, Repack.chosen(weighed, unused: plan.wasted, allowed: allowed), references.used)
    }

    /// Those of the packs that may go: of one whose place another took only after all that is needed was read there. What
    /// the store listed is no proof, nor is a note that somebody may have put back.
    func proven(_ going: [ObjectID]) async throws -> [ObjectID] {
        var proven: [ObjectID] = []
        for pack in going {
            guard let needed = references.used[pack] else {
                proven.append(pack)
                continue
            }
            do {
                WorkPulse.beat()
                guard let place = successions.chain(pack).first(where: { packs[$0] != nil }) else { continue }
                try await SuccessorBuilder(repository).prove(place, of: pack, needed)
                proven.append(pack)
            } catch let error as BackupError where error.code == .damaged {
                plan.unreadable.append("\(error)")
            }
        }
        return proven
    }

    /// Takes notes of successors back that are gone. Only where nobody else is at work, neither a prune, which may act on
    /// a note, nor a copy, which may bring such a pack again: each looks for the other after it said that it is there.
    /// Those that the owner did not make go as well: they are in the way of his.
    func tidySuccessions(_ intent: Intent, _ confirm: () async throws -> Void) async throws {
        let held = successions.of.filter { packs[$0.value.pack] == nil }
        guard !held.isEmpty || !successions.forged.isEmpty, try await repository.intents().allSatisfy({ $0.run == intent.run })
        else { return }
        // A list of now: what was put since the first one was put by others, who are gone.
        let there = try await repository.storedPacks()
        for (pack, successor) in held.sorted(by: { $0.key < $1.key })
        where there[successor.pack] == nil && successions.of[successor.pack] == nil
            && (!references.needs(pack) || there[pack] != nil)
        {
            try await confirm()
            try await takeBack(pack)
        }
        for pack in successions.forged {
            try await confirm()
            try await takeBack(pack)
        }
    }

    private func takeBack(_ pack: ObjectID) async throws {
        do { try await repository.remove(note: pack, Succession.topic) } catch let error as StoreError where error.kind == .locked
        {}
    }
}
