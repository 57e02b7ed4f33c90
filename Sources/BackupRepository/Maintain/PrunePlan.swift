import BackupBase

/// What a prune would do, or did: packs by what becomes of them.
public struct PrunePlan: Sendable {
    public struct Amount: Sendable, Equatable {
        public var packs = 0
        public var bytes: Int64 = 0

        mutating func add(_ size: Int) {
            packs += 1
            bytes += Int64(size)
        }
    }

    /// All packs that are there.
    public var stored = Amount()
    /// Those that a snapshot needs.
    public var needed = Amount()
    /// Those that can go now; after a run: that went.
    public var free = Amount()
    /// Those that no snapshot needs, and that wait for the end of the grace.
    public var later = Amount()
    /// Nanoseconds since 1970 by the store's clock: when the first of those that wait for the grace can go.
    public var laterFrom: Int64?
    /// Those whose grace is over, and that wait for runs which began before they were marked.
    public var held = Amount()
    /// The runs they wait for.
    public var waitingFor: [String] = []
    /// Those too young to be marked: they may belong to a backup that is under way, or that will be resumed.
    public var young = Amount()
    /// Those that an object lock keeps.
    public var locked = Amount()
    /// Nanoseconds since 1970: when the last of these locks ends.
    public var lockedUntil: Int64?
    /// Those that were marked, and that a snapshot needs after all.
    public var revived = Amount()
    /// Packs that no readable index lists, of all.
    public var unindexed = 0
    /// Packs of which snapshots need a part.
    public var partlyUsed: Int { partly.count }
    struct PartlyUsed: Sendable {
        let id: ObjectID
        /// Bytes of the pack.
        let size: Int
        /// Bytes of it that no snapshot needs.
        let unused: Int64
    }
    var partly: [PartlyUsed] = []
    /// Those of them that were repacked, or would be: their bytes, and the bytes that take their place.
    public var repacked = Amount()
    public var repackedInto: Int64 = 0
    /// Packs that were to be repacked and cannot be read: damage.
    public var unreadable: [String] = []
    /// Bytes in them that no snapshot needs, and that only rewriting them would free.
    public var wasted: Int64 = 0
    /// Packs that snapshots need and that are not there: damage that a prune does not touch.
    public var missing = 0
    /// Index objects written anew without the packs that go.
    public var indexesRewritten = 0
    /// Index objects taken away because all they list goes.
    public var indexesRemoved = 0
    /// Index objects that a lock keeps, with what they say of packs that are gone.
    public var indexesLocked = 0
    /// Runs that were given up: killed, or silent for longer than an hour.
    public var givenUp: [String] = []

    public var snapshots = 0

    /// This run's plan, and that of the one after it, which begins where this one ended.
    func followed(by next: PrunePlan) -> PrunePlan {
        var plan = next
        plan.free.packs += free.packs
        plan.free.bytes += free.bytes
        plan.givenUp = givenUp + next.givenUp
        plan.unreadable = unreadable + next.unreadable.filter { !unreadable.contains($0) }
        plan.indexesRewritten += indexesRewritten
        plan.indexesRemoved += indexesRemoved
        plan.indexesLocked = max(indexesLocked, next.indexesLocked)
        return plan
    }

    func with(_ done: Repack.Done) -> PrunePlan {
        var plan = self
        plan.repacked = Amount(packs: done.packs, bytes: done.bytes)
        plan.repackedInto = done.into
        plan.unreadable += done.unreadable
        return plan
    }

    func with(planned repack: Repack) -> PrunePlan {
        var plan = self
        for pack in repack.candidates {
            plan.repacked.add(pack.size)
            plan.repackedInto += Int64(pack.size) - pack.unused
        }
        return plan
    }
}
