import BackupBase
import ObjectStorage

/// Takes packs away that no snapshot needs: mark → tombstone → grace, and no
/// run left that began before → re-mark → index → delete (docs/prune.md).
///
/// May run beside backups, restores and other prunes. Killed anywhere it wastes
/// space only: the next run goes on from the tombstones that it finds.
public final class Prune {
    public struct Options: Sendable {
        /// Seconds by the store's clock between a tombstone and the first delete: readers
        /// that began before have so long to end.
        public var grace = 86_400.0
        public var dryRun = false
        /// Share of what is stored for snapshots that may be unused, in packs of which they need a part. Where it is
        /// more, packs are repacked. 1 and more: none.
        public var maxUnused = 0.1
        /// Share of a pack that has to be unused for it to be repacked: the rest is read and written for it.
        var leastUnused = 0.3
        /// Leave packs that a backup under way, or to be resumed, may need. Not for safety.
        var sparesYoung = true

        public init() {}
    }

    public enum Phase: String, Sendable { case mark, index, delete, repack }

    let repository: Repository
    let options: Options
    let progress: (_ phase: Phase, _ done: Int, _ total: Int) -> Void
    var plan = PrunePlan()
    private(set) var packs: [ObjectID: ObjectInfo] = [:]
    let references: ReferenceMark
    private var marked: Set<SnapshotName> = []
    private(set) var tombstones: Tombstones
    /// Packs whose places others took, and the packs that any tombstone named when that was looked at.
    private(set) var successions = Successions()
    private(set) var doomed: Set<ObjectID> = []
    /// The store's clock when the run began.
    private(set) var now: Int64 = 0
    /// Packs deleted between two looks at whether this run may go on.
    static let batch = 100
    /// Seconds that two of a store's clocks may be apart.
    private static let slack = 60.0

    private init(
        _ repository: Repository, _ options: Options, _ progress: @escaping (Phase, Int, Int) -> Void
    ) async throws {
        self.repository = repository
        self.options = options
        self.progress = progress
        references = ReferenceMark(repository)
        tombstones = try await Tombstones(repository)
    }

    /// Prunes. Throws `.damaged` where a snapshot or a note cannot be read, and takes nothing away then; `.busy`
    /// where another prune holds the lease; `.immutable` where locks keep all that could have gone.
    public static func run(
        _ repository: Repository, _ options: Options, progress: @escaping (Phase, Int, Int) -> Void
    ) async throws -> PrunePlan {
        guard repository.keys.canRead else { throw KeyRing.writeOnly }
        guard !options.dryRun else {
            return try await Prune(repository, options, progress).planOnly()
        }
        let plan = try await repository.withLease("prune") { lease in
            try await run(repository, options, progress: progress) { try await lease.confirm() }
        }
        guard plan.free.packs > 0 || plan.locked.packs == 0 else {
            let until = plan.lockedUntil.map { " until \(formatTime($0))" } ?? ""
            throw BackupError(
                .immutable, "nothing could be freed: locks keep \(plan.locked.packs) packs\(until)",
                hint: "They stay marked; a prune after the locks' end takes them away.")
        }
        return plan
    }

    /// Without the lease, which only saves two runs from doing the same work.
    /// - Parameter confirm: whether this run may go on; before each destructive step
    static func run(
        _ repository: Repository, _ options: Options, renewing pause: Double? = Intent.renewal,
        progress: @escaping (Phase, Int, Int) -> Void, confirm: () async throws -> Void
    ) async throws -> PrunePlan {
        try await repository.withIntent(.prune, pause: pause) { intent in
            func confirmBoth() async throws {
                try await confirm()
                try await intent.confirm()
            }
            let first = try await Prune(repository, options, progress)
            let plan = try await first.execute(intent, confirmBoth)
            // Whole packs first: they come free at no cost, and repacking needs room.
            let repack = first.repack
            guard !repack.candidates.isEmpty else { return plan }
            let done = try await repack.run(for: intent, renewing: pause, confirmBoth) { progress(.repack, $0, $1) }
            guard done.packs > 0 else { return plan.with(done) }
            // What was repacked can be marked now.
            let second = try await Prune(repository, options, progress)
            return plan.followed(by: try await second.execute(intent, confirmBoth)).with(done)
        }
    }

    // MARK: - The run

    private func planOnly() async throws -> PrunePlan {
        now =
            try await repository.store.fetch(Configuration.names[0], limit: Configuration.sizeLimit)?.now
            ?? repository.ambient.now()
        let living = try await repository.intents().filter { try !repository.isDead($0, now: now) }
        try await mark()
        let fresh = freshlyDead(living)
        let (ripe, held) = split(unmarked: fresh, living)
        try await count(held)
        plan.free = amount(try await unlocked(ripe))
        try await index(Set(ripe)).count(packs.keys, into: &plan)
        return plan.with(planned: repack)
    }

    private func execute(_ intent: Intent, _ confirm: () async throws -> Void) async throws -> PrunePlan {
        now = try await repository.storeTime()
        let before = try await livingIntents(beside: intent)
        try await mark()
        try await requirePacks()
        try await noteRevivals()
        let fresh = freshlyDead(before)
        try await bury(fresh)
        // A run that began after this look knows the tombstones.
        let living = try await livingIntents(beside: intent)
        // What those that ended meanwhile have committed.
        try await mark()
        try await requirePacks()
        // Of this run's tombstones too: what a snapshot needs now may be forgotten before the next prune, and readers
        // that began meanwhile have the grace of a tombstone that was put after that.
        try await noteRevivals()
        let (ripe, held) = split(unmarked: [], living)
        try await count(held)
        let going = try await proven(try await unlocked(ripe))
        try await confirm()
        try await index(Set(going)).rewrite(packs, into: &plan, confirm)
        try await delete(going, confirm)
        try await tidy(intent, confirm)
        try await tidySuccessions(intent, confirm)
        await repository.sweepIntentLocks(now: now)
        return plan
    }

    private func livingIntents(beside own: Intent) async throws -> [ListedIntent] {
        let runs = try await repository.livingRuns(beside: own)
        plan.givenUp += runs.givenUp
        return runs.intents
    }

    // MARK: - Marking

    /// Lists packs, once, and the packs that snapshots need, of those not looked at before. A snapshot that cannot be
    /// read ends the run.
    private func mark() async throws {
        // What took a pack's place before the tombstones that may name it, and these before the list that shows that it is
        // there: a tombstone that comes later belongs to a prune that will see the note (docs/prune.md, "Repacking").
        successions = try await Successions(repository)
        doomed = try await DoomedPacks(repository).packs
        // Before the snapshots: a pack that is put later is not looked at.
        if packs.isEmpty { packs = try await repository.storedPacks() }
        try await refuseHidden()
        var unread = try await repository.snapshotNames().filter { !marked.contains($0) }
        plan.snapshots += unread.count
        do {
            // What comes back as a copy while it is looked at is looked at again.
            for _ in 0..<3 where !unread.isEmpty { unread = try await listed(try await mark(unread)) }
            if let name = unread.first {
                throw BackupError(.damaged, "snapshot \(name.object) is listed, and the store says that it is not there")
            }
            references.follow(successions)
        } catch let error as BackupError where error.code == .damaged {
            throw BackupError(
                .damaged, "nothing is taken away while what a snapshot needs is not known: \(error)",
                hint: "Run 'bgbackup check'. Once the snapshot is mended or forgotten, prune again.")
        }
    }

    /// Reads snapshots.
    /// - Returns: those that the store says it has not
    private func mark(_ unread: [SnapshotName]) async throws -> Set<SnapshotName> {
        var names = unread[...]
        var (done, absent) = (0, Set<SnapshotName>())
        let repository = repository
        var reading = OrderedMap<SnapshotName, (SnapshotName, Snapshot?)>(
            width: 8, on: repository.executor, from: { names.popFirst() },
            transform: { name in
                do { return (name, try await repository.snapshot(name)) } catch let error as BackupError
                    where error.code == .noSnapshot
                {
                    // Forgotten meanwhile.
                    return (name, nil)
                }
            })
        do {
            while let (name, snapshot) = try await reading.next() {
                if let snapshot {
                    try await references.add(snapshot)
                    marked.insert(name)
                } else {
                    absent.insert(name)
                }
                done += 1
                progress(.mark, done, unread.count)
            }
            return absent
        } catch {
            await reading.abandon()
            throw error
        }
    }

    /// Under Object Lock whoever may not destroy a snapshot can still hide it from lists, by a delete marker.
    private func refuseHidden() async throws {
        let hidden = try await repository.store.hiddenNames(SnapshotName.prefix)
        guard let first = hidden.first else { return }
        throw BackupError(
            .damaged, "\(hidden.count) snapshots were hidden by delete markers and not forgotten, the first is \(first)",
            hint: "Nothing is taken away. Find out who did it, and delete the markers: the snapshots are there again.")
    }

    /// That a store has no such object is believed where it is not listed any more either: something on the way may
    /// answer 404 for it.
    /// - Returns: those that are listed all the same
    private func listed(_ absent: Set<SnapshotName>) async throws -> [SnapshotName] {
        // Stores without conditions list for a while what is gone; one node writes to them.
        guard !absent.isEmpty, repository.isShared else { return [] }
        return try await repository.snapshotNames().filter(absent.contains)
    }

    /// Packs that no snapshot needs and no tombstone names, old enough to be marked.
    private func freshlyDead(_ living: [ListedIntent]) -> [ObjectID] {
        let known = tombstones.stones.reduce(into: Set<ObjectID>()) { $0.formUnion($1.dead) }
        let oldest = (living.filter(\.mayWrite).map(\.started).min() ?? .max) - Int64(Self.slack * 1e9)
        var fresh: [ObjectID] = []
        plan.young = .init()
        for (id, info) in packs where !needs(id) && !known.contains(id) {
            // Not for safety: a run that began before the tombstone holds it up anyway. But what is marked is stored
            // again by others, and a run that is under way, or resumed tomorrow, will need its packs.
            let age = Double(now - info.modified) / 1e9
            let isYoung = age < options.grace || info.modified >= oldest
            if options.sparesYoung, isYoung { plan.young.add(info.size) } else { fresh.append(id) }
        }
        return fresh.sorted()
    }

    /// From here on whoever begins treats these packs as gone.
    private func bury(_ fresh: [ObjectID]) async throws {
        for start in stride(from: 0, to: fresh.count, by: Tombstone.most) {
            let part = fresh[start..<min(start + Tombstone.most, fresh.count)]
            let id = try await repository.put(note: Tombstone(packs: part.map { "\($0)" }), Tombstone.topic)
            tombstones.stones.append(Tombstones.Stone(id: id, modified: now, packs: Set(part)))
        }
    }

    /// Marked packs that a snapshot needs after all, of those that are noted nowhere.
    private func revivedPacks(_ stone: Tombstones.Stone) -> Set<ObjectID> {
        stone.dead.filter { needs($0) && packs[$0] != nil }
    }

    private func noteRevivals() async throws {
        for (index, stone) in tombstones.stones.enumerated() {
            let revived = revivedPacks(stone)
            guard !revived.isEmpty else { continue }
            let note = Revival(tombstone: "\(stone.id)", packs: revived.sorted().map { "\($0)" })
            tombstones.revivals.append((try await repository.put(note: note, Revival.topic), stone.id))
            tombstones.stones[index].revived.formUnion(revived)
        }
    }

    // MARK: - What can go

    private struct Held {
        var packs: Set<ObjectID> = []
        var runs: [String] = []
        var later: Set<ObjectID> = []
        var laterFrom: Int64?
    }

    /// The packs whose grace is over and that no run holds up, oldest tombstone first, and the others.
    /// - Parameter fresh: packs that a run would mark now; for a plan
    private func split(unmarked fresh: [ObjectID], _ living: [ListedIntent]) -> ([ObjectID], Held) {
        var held = Held()
        var ripe: [ObjectID] = []
        var taken: Set<ObjectID> = []
        var runs: Set<String> = []
        func judge(_ dead: Set<ObjectID>, since: Int64, _ knows: (ListedIntent) -> Bool) {
            let dead = dead.filter { packs[$0] != nil && !needs($0) && !taken.contains($0) }
            let end = since + Int64(options.grace * 1e9)
            let obstacles = living.filter { $0.mayWrite && !knows($0) }
            if end > now {
                held.later.formUnion(dead)
                if !dead.isEmpty { held.laterFrom = min(held.laterFrom ?? .max, end) }
            } else if !obstacles.isEmpty {
                held.packs.formUnion(dead)
                if !dead.isEmpty { runs.formUnion(obstacles.map(\.holder)) }
            } else {
                ripe += dead.sorted()
                taken.formUnion(dead)
            }
        }
        for stone in tombstones.stones { judge(stone.dead, since: stone.modified) { $0.knows(stone.id) } }
        judge(Set(fresh), since: now) { _ in false }
        held.packs.subtract(taken)
        held.later.subtract(taken)
        held.later.subtract(held.packs)
        held.runs = runs.sorted()
        return (ripe, held)
    }

    private func count(_ held: Held) async throws {
        for (id, info) in packs {
            plan.stored.add(info.size)
            if needs(id) { plan.needed.add(info.size) }
        }
        plan.missing = try await missingPacks().count
        plan.later = amount(held.later)
        plan.laterFrom = held.laterFrom
        plan.held = amount(held.packs)
        plan.waitingFor = held.runs
        plan.revived = amount(
            tombstones.stones.reduce(into: Set<ObjectID>()) { $0.formUnion($1.revived.union(revivedPacks($1))) }
                .filter { needs($0) })
    }

    private func amount(_ ids: some Sequence<ObjectID>) -> PrunePlan.Amount {
        ids.reduce(into: PrunePlan.Amount()) { if let info = packs[$1] { $0.add(info.size) } }
    }

    /// Those that no lock keeps, as far as the store tells without being asked to delete.
    private func unlocked(_ ripe: [ObjectID]) async throws -> [ObjectID] {
        guard repository.store.lockDuration != nil else { return ripe }
        let store = repository.store
        var rest = ripe[...]
        var looks = OrderedMap<ObjectID, (ObjectID, Int64?)>(
            width: 8, on: repository.executor, from: { rest.popFirst() },
            transform: { ($0, try await store.info(FinishedPack.name($0))?.lockedUntil) })
        var free: [ObjectID] = []
        while let (id, until) = try await looks.next() {
            if let until, until > now { noteLock(id, until) } else { free.append(id) }
        }
        return free
    }

    func noteLock(_ id: ObjectID, _ until: Int64?) {
        if let info = packs[id] { plan.locked.add(info.size) }
        if let until { plan.lockedUntil = max(plan.lockedUntil ?? 0, until) }
    }
}
