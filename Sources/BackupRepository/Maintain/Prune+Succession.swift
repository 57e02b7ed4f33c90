import BackupBase
import ObjectStorage

/// Packs whose places others took (`Succession`), and packs that are to be repacked.
extension Prune {
    /// Whether the pack itself has to stay.
    func needs(_ pack: ObjectID) -> Bool { references.needs(pack) && !isSucceeded(pack) }

    /// Whether all that is needed of a pack can be had from whatever readers may take for its successor: each that is
    /// there has it all, and no prune may be about to take it away.
    func isSucceeded(_ pack: ObjectID, _ seen: Set<ObjectID> = []) -> Bool {
        guard let needed = references.used[pack], !seen.contains(pack) else { return false }
        let successors = (successions.of[pack] ?? []).filter { packs[$0.pack] != nil || successions.of[$0.pack] != nil }
        return !successors.isEmpty
            && successors.allSatisfy { successor in
                guard needed.isSubset(of: successor.kept) else { return false }
                guard packs[successor.pack] == nil else { return !named.contains(successor.pack) }
                return isSucceeded(successor.pack, seen.union([pack]))
            }
    }

    func index(_ going: Set<ObjectID>) -> PruneIndex {
        PruneIndex(repository, going: going, now: now, progress: progress) { pack in
            self.needs(pack) ? self.references.used[pack] : nil
        }
    }

    /// Bytes that may lie unused in any repository.
    static let little: Int64 = 16 << 20

    /// What is to be repacked, once the packs were weighed.
    var repack: Repack {
        // Under locks a pack stays for as long as a snapshot needs a part of it: there is nothing to gain.
        guard repository.store.lockDuration == nil, options.maxUnused < 1 else { return Repack(repository, []) }
        let weighed = plan.partly.filter { pack in
            successions.of[pack.id] == nil && !named.contains(pack.id)
                && Double(pack.unused) >= options.leastUnused * Double(pack.size)
        }
        // Little is not worth the requests, where anything at all is allowed.
        let allowed = options.maxUnused > 0 ? max(Int64(options.maxUnused * Double(plan.needed.bytes)), Self.little) : 0
        return Repack(repository, Repack.chosen(weighed, unused: plan.wasted, allowed: allowed), references.used)
    }

    /// Whether it does not matter any more what took a pack's place: no snapshot needs the pack, or it is there and what
    /// took its place is not, or has too little.
    func isOver(_ step: Succession.Step) -> Bool {
        guard let pack = ObjectID(hex: step.pack), let successor = try? Successor(step, note: pack) else { return false }
        guard let needed = references.used[pack] else { return true }
        guard packs[pack] != nil else { return false }
        let isThere = packs[successor.pack] != nil || successions.of[successor.pack] != nil
        return !isThere || !needed.isSubset(of: successor.kept)
    }
}
