import BackupBase
import BackupRepository
import ObjectStorage

/// What to forget: what no rule keeps, or what is named.
public struct ForgetRequest: Sendable {
    public var policy = RetentionPolicy()
    /// SNAPSHOT of CLI.md; not empty: these, and no rules.
    public var named: [String] = []
    /// The policy file that `policy` is of: only snapshots that were made under it go.
    public var policyName: String?
    /// Only snapshots of this node go.
    public var node: String?
    /// Also more than `maxDeleteRatio` at once.
    public var force = false

    public init() {}
}

/// What came of it.
public struct ForgetOutcome: Sendable {
    public let plan: RetentionPlan
    /// Whose objects are gone.
    public internal(set) var forgotten: Set<ObjectID> = []
    /// What the store keeps, until when (nanoseconds since 1970), and those that stay with it because they are of one set.
    public internal(set) var locked: [(id: ObjectID, until: Int64?)] = []
    public internal(set) var stayed: [ObjectID] = []
    /// Held while this ran.
    public internal(set) var held: [ObjectID] = []
}

/// Takes away the objects of snapshots, and nothing else: the space comes back by pruning.
///
/// Whatever ends it, each snapshot is there whole or is gone, and a repeat
/// goes on: the plan is made anew of what is there.
public struct ForgetRun: Sendable {
    private let repository: Repository
    private let request: ForgetRequest

    public init(repository: Repository, request: ForgetRequest) {
        self.repository = repository
        self.request = request
    }

    /// - Parameter seconds: what would be forgotten so much later, if nothing came meanwhile
    /// - Throws: `.writeOnlyKey` for a writer, `.noSnapshot` for a name that is none
    public func plan(in seconds: Double = 0) async throws -> RetentionPlan {
        guard repository.keys.canRead else {
            throw BackupError(
                .writeOnlyKey, "a writer key makes backups and can neither read nor forget them",
                hint: "Use the repository's password (--password-file), from a place that the nodes cannot reach.")
        }
        async let evidence = repository.retentionEvidence()
        async let now = repository.storeNow()
        let (facts, unreadable) = try await facts()
        let moment = Double(try await now) / 1e9 + seconds
        guard request.named.isEmpty else {
            var named: Set<ObjectID> = []
            for text in request.named { named.insert(try await repository.selectName(text).id) }
            return RetentionPlan(
                naming: named, of: facts, unreadable: unreadable, evidence: try await evidence, now: moment)
        }
        return RetentionPlan(
            facts, unreadable: unreadable, policy: request.policy, evidence: try await evidence, now: moment,
            node: request.node, policyName: request.policyName)
    }

    /// Plans with the lease in hand, so that two runs never go by what each is about to change, and carries it out.
    /// - Throws: `.busy`; `.held` and `.retentionRefused`, and then nothing is gone
    public func run() async throws -> ForgetOutcome {
        // Before a lease is asked for that the keys may not have.
        guard repository.keys.canRead else { return ForgetOutcome(plan: try await plan()) }
        return try await repository.withLease("maintenance") { lease in
            // Before the plan: what comes while it is made is new.
            var holds = HoldWatch(repository, known: try await repository.noteIDs(.hold))
            let plan = try await plan()
            try plan.requireAllowed(force: request.force)
            var outcome = ForgetOutcome(plan: plan)
            let units = plan.units.map { $0.map { SnapshotName(sequence: $0.sequence, id: $0.id) } }
            for unit in plan.unreadable.filter({ !$0.isKept }).map({ [$0.snapshot.name] }) + units {
                try Task.checkCancellation()
                guard try await isFree(unit, &outcome, &holds) else { continue }
                for name in unit {
                    guard try await holds.held([name.id]).isEmpty else {
                        outcome.held.append(name.id)
                        continue
                    }
                    try await lease.confirm()
                    do {
                        try await repository.remove(snapshot: name)
                        outcome.forgotten.insert(name.id)
                    } catch let error as StoreError where error.kind == .locked {
                        outcome.locked.append((name.id, try await repository.lock(of: name)))
                    }
                }
            }
            try await tidy(lease)
            return outcome
        }
    }

    /// Whether all members of a set may go, so that none is torn. One by itself is asked when it goes.
    private func isFree(
        _ unit: [SnapshotName], _ outcome: inout ForgetOutcome, _ holds: inout HoldWatch
    ) async throws -> Bool {
        guard unit.count > 1 else { return true }
        let held = try await holds.held(unit.map(\.id))
        let now = try await repository.storeNow()
        var locked: [(id: ObjectID, until: Int64?)] = []
        for name in unit {
            guard let until = try await repository.lock(of: name), until > now else { continue }
            locked.append((name.id, until))
        }
        outcome.held += held
        outcome.locked += locked
        guard held.isEmpty, locked.isEmpty else {
            let blocked = Set(held + locked.map(\.id))
            outcome.stayed += unit.map(\.id).filter { !blocked.contains($0) }
            return false
        }
        return true
    }

    /// Notes of snapshots that are gone; also a hold that is over stays as long as its snapshot, because a clock may have jumped. Drills of a year stay: they are the evidence that somebody drilled.
    private func tidy(_ lease: Lease) async throws {
        let now = try await repository.storeNow()
        // Notes first: one of a snapshot that is committed in between is not of one that is gone.
        let holds = try await repository.notes(.hold, of: HoldNote.self)
        let acceptances = try await repository.notes(.acceptance, of: AcceptanceNote.self)
        let drills = try await repository.notes(.drill, of: DrillNote.self)
        let listed = Set(try await repository.snapshotNames().map { "\($0.id)" })
        for note in holds where !listed.contains(note.body.snapshot) {
            try await lease.confirm()
            try await repository.remove(note: note.id, .hold)
        }
        for note in acceptances where !listed.contains(note.body.snapshot) {
            try await lease.confirm()
            try await repository.remove(note: note.id, .acceptance)
        }
        let old = now - 400 * 86_400_000_000_000
        for note in drills
        where !listed.contains(note.body.snapshot) && note.modified < old {
            try await lease.confirm()
            try await repository.remove(note: note.id, .drill)
        }
    }

    // MARK: - What there is

    private func facts() async throws -> (facts: [SnapshotFacts], unreadable: [UnreadableSnapshot]) {
        let repository = repository
        var rest = try await repository.listedSnapshots()[...]
        var reading = OrderedMap<ListedSnapshot, Found>(
            width: repository.store.parallelGets, on: repository.executor, from: { rest.popFirst() },
            transform: { try await Self.read($0, repository) })
        var (facts, unreadable): ([SnapshotFacts], [UnreadableSnapshot]) = ([], [])
        while let found = try await reading.next() {
            switch found {
            case .readable(let one): facts.append(one)
            case .unreadable(let one): unreadable.append(one)
            case .gone: break
            }
        }
        return (facts, unreadable)
    }

    private enum Found: Sendable { case readable(SnapshotFacts), unreadable(UnreadableSnapshot), gone }

    private static func read(_ listed: ListedSnapshot, _ repository: Repository) async throws -> Found {
        do {
            return .readable(SnapshotFacts(try await repository.snapshot(listed.name), committed: listed.committed))
        } catch let error as BackupError where error.code == .damaged {
            return .unreadable(
                UnreadableSnapshot(name: listed.name, committed: Double(listed.committed) / 1e9, problem: "\(error)"))
        } catch let error as BackupError where error.code == .noSnapshot {
            return .gone
        }
    }
}

/// Notices holds that come while a run goes on.
private struct HoldWatch {
    private let repository: Repository
    private var known: Set<ObjectID>
    private var held: Set<String> = []

    init(_ repository: Repository, known: Set<ObjectID>) {
        (self.repository, self.known) = (repository, known)
    }

    /// Those of `ids` that were held since it began to watch.
    mutating func held(_ ids: [ObjectID]) async throws -> [ObjectID] {
        let listed = try await repository.noteIDs(.hold)
        if !listed.isSubset(of: known) {
            let added = try await repository.notes(.hold, of: HoldNote.self).filter { !known.contains($0.id) }
            held.formUnion(added.map(\.body.snapshot))
            known.formUnion(listed)
        }
        return ids.filter { held.contains("\($0)") }
    }
}
