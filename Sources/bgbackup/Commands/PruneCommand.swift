import ArgumentParser
import BackupBase
import BackupEngine
import BackupRepository
import ObjectStorage
import Operations

struct PruneCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "prune", abstract: "Free the space of what no snapshot needs any more.",
        discussion: """
            Runs beside backups, restores and other commands, on any host with the password. What no snapshot needs is \
            marked first, and taken away by a later run, once the grace is over and every backup that began before has \
            ended: restores that are under way have that long to end. Packs of which snapshots need a part stay whole, until \
            too much lies unused in them: then what is needed of the worst of them is put into packs that take their \
            places. Killed at any time it wastes space only; the next run goes on. With --policy, snapshots that the \
            policy keeps no longer are forgotten first. A snapshot that cannot be read ends the run, and nothing is taken \
            away. Exit status 11: another prune is at work; 13: object locks keep everything that could have gone; 17: a \
            snapshot is damaged, or a pack that was to be repacked.
            """)

    @OptionGroup var global: GlobalOptions
    @OptionGroup var dry: DryRunOption
    @Option(
        help: ArgumentHelp(
            "Time between marking and taking away: 24h, 90m, 7d, 0. No restore may take longer.", valueName: "duration"))
    var grace: String?
    @Option(
        help: ArgumentHelp(
            "Share of what is needed that may lie unused in partly used packs: 0.1, 0; 1 repacks nothing.", valueName: "share"))
    var maxUnused: Double?
    @OptionGroup var policy: PolicyOption

    func validate() throws {
        if let maxUnused, !(maxUnused >= 0 && maxUnused <= 1) {
            throw ValidationError("--max-unused is a share from 0 to 1, for example 0.1.")
        }
    }

    struct Amount: Encodable {
        let packs: Int
        let bytes: Int64

        init(_ amount: PrunePlan.Amount) { (packs, bytes) = (amount.packs, amount.bytes) }
    }

    struct Summary: Encodable {
        let message_type = "summary"
        let schema = 1
        let dry_run: Bool
        let snapshots: Int
        let stored: Amount
        let needed: Amount
        let freed: Amount
        let after_grace: Amount
        let after_grace_from: Nullable<String>
        let waiting_for_runs: Amount
        let runs: [String]
        let young: Amount
        let locked: Amount
        let locked_until: Nullable<String>
        let revived: Amount
        let packs_unindexed: Int
        let packs_missing: Int
        let packs_partly_used: Int
        let bytes_wasted: Int64
        let repacked: Amount
        let repacked_into_bytes: Int64
        let repack_unreadable: [String]
        let indexes_rewritten: Int
        let indexes_removed: Int
        let indexes_locked: Int
        let runs_given_up: [String]
        let duration_seconds: Double
    }

    mutating func run() async throws {
        let job = JobRun(.prune, policy: policy.policy, dryRun: dry.dryRun, global)
        try await job.carried { try await run(job) }
    }

    private mutating func run(_ job: JobRun) async throws {
        var options = Prune.Options()
        options.dryRun = dry.dryRun
        let plan = try policy.plan()
        options.grace = try grace.map { try Self.seconds($0) } ?? plan?.policy.prune?.grace ?? 86_400
        if let plan {
            if try global.isPaused(plan, job) { return }
            try global.take(plan)
        }
        options.maxUnused = maxUnused ?? plan?.policy.prune?.maxUnused ?? options.maxUnused
        job.begin(plan, global)
        let repository = try await Session(options: global).open()
        var locks: ExitCode?
        if let plan { locks = try await forget(plan, repository, job) }
        if let plan, plan.policy.immutability != nil { try await extendLocks(plan, repository, job) }
        let interactive = Terminal.isInteractive && !global.noProgress && !global.quiet && !global.json
        let clock = monotonicSeconds()
        let freed: PrunePlan
        do {
            freed = try await Prune.run(repository, options) { phase, done, total in
                if interactive { Terminal.raw("\r\u{1b}[K\(Self.words(phase)): \(done) of \(total)") }
            }
        } catch let error as BackupError where error.code == .immutable && !dry.dryRun {
            // What there is, and until when, is worth knowing where all of it is locked, too.
            options.dryRun = true
            if let plan = try? await Prune.run(repository, options, progress: { _, _, _ in }) { job.note(plan) }
            throw error
        }
        if interactive { Terminal.raw("\r\u{1b}[K") }
        try show(freed, monotonicSeconds() - clock)
        job.note(freed)
        if let damage = Self.damage(freed) { job.explain(.damaged, damage) }
        // What came free is free; what cannot be read is to be looked at.
        guard freed.unreadable.isEmpty, freed.missing == 0 else { throw ExitCode(BackupError.Code.damaged.exitStatus) }
        if let locks { throw locks }
    }

    /// What the policy keeps no longer goes first: its space comes back after the grace.
    /// - Returns: the exit status where object locks keep some of it, which stops nothing else
    private func forget(_ plan: BackupPolicy, _ repository: Repository, _ job: JobRun) async throws -> ExitCode? {
        let run = ForgetRun(repository: repository, request: ForgetRequest(plan.policy))
        if dry.dryRun {
            let found = try await run.plan()
            try ForgetReport(found, outcome: nil).show(global)
            try found.requireAllowed(force: false)
            return nil
        }
        let outcome = try await run.run()
        let report = ForgetReport(outcome.plan, outcome: outcome)
        job.note(outcome, isFull: true)
        try report.show(global)
        do { try report.end() } catch let status as ExitCode
            where status.rawValue == BackupError.Code.immutable.exitStatus && outcome.plan.anomalies.isEmpty
        {
            return status
        }
        return nil
    }

    /// What the policy goes on keeping stays locked, each object for as long as something kept needs it.
    private func extendLocks(_ plan: BackupPolicy, _ repository: Repository, _ job: JobRun) async throws {
        guard let duration = repository.store.lockDuration else { return }
        let later = try await ForgetRun(repository: repository, request: ForgetRequest(plan.policy))
            .plan(in: Double(duration) / 1e9)
        // Of those that rules keep beyond the lock nobody knows the end.
        let ends = later.forgotten.reduce(into: [ObjectID: Int64]()) { ends, verdict in
            guard let keepFor = verdict.snapshot.keepFor else { return }
            ends[verdict.snapshot.id] = Int64((verdict.snapshot.committed + keepFor) * 1e9)
        }
        let report = try await LockExtension(repository).run(dryRun: dry.dryRun, keptUntil: { ends[$0.id] }) { _, _ in }
        job.note(report)
        guard !global.quiet, !global.json else { return }
        Output.line(LockReport(report, dryRun: dry.dryRun).text)
    }

    /// What a prune that ends with 17 is told by.
    private static func damage(_ plan: PrunePlan) -> String? {
        if plan.missing > 0 { return "\(plan.missing) packs that snapshots need are missing" }
        guard let first = plan.unreadable.first else { return nil }
        let more = plan.unreadable.count > 1 ? ", and \(plan.unreadable.count - 1) more" : ""
        return "not repacked: \(first)\(more)"
    }

    private static func words(_ phase: Prune.Phase) -> String {
        switch phase {
        case .mark: "reading snapshots"
        case .index: "index objects"
        case .delete: "taking packs away"
        case .repack: "packs repacked"
        }
    }

    /// "24h", "90m", "7d", "30s", "0": seconds.
    static func seconds(_ text: String) throws -> Double {
        guard let seconds = parseDuration(text), seconds == 0 || text.last?.isLetter == true, seconds <= 3650 * 86_400 else {
            throw BackupError(.usage, "'\(text)' is no duration for --grace", hint: "Give 24h, 90m, 7d or 0.")
        }
        return seconds
    }

    // MARK: - What was done

    private func show(_ plan: PrunePlan, _ seconds: Double) throws {
        if global.json { return try Output.document(summary(plan, seconds), lines: true) }
        guard !global.quiet else { return }
        Output.line(
            "\(Self.text(plan.stored)) stored, \(Self.text(plan.needed)) needed by \(plan.snapshots) snapshots")
        let verb = dry.dryRun ? "can be freed now" : "freed"
        Output.line("\(Self.text(plan.free)) \(verb)")
        func line(_ amount: PrunePlan.Amount, _ text: String) {
            if amount.packs > 0 { Output.line("\(Self.text(amount)) \(text)") }
        }
        line(plan.later, "can be freed after the grace\(plan.laterFrom.map { ", the first from \(formatTime($0))" } ?? "")")
        line(plan.held, "wait for runs that began before: \(plan.waitingFor.joined(separator: "; "))")
        line(plan.young, "too young: backups under way or interrupted may need them")
        line(plan.locked, "locked\(plan.lockedUntil.map { " until \(formatTime($0))" } ?? "")")
        line(plan.revived, "were marked and are needed again")
        if plan.wasted > 0 {
            Output.line(
                "\(formatBytes(plan.wasted)) in \(plan.partlyUsed) pack\(plan.partlyUsed == 1 ? "" : "s") needed in part stay with them"
            )
        }
        if plan.repacked.packs > 0 {
            Output.line(
                "\(Self.text(plan.repacked)) \(dry.dryRun ? "would be " : "")repacked into \(formatBytes(plan.repackedInto)): "
                    + "the rest can be freed after the grace")
        }
        for pack in plan.unreadable { Output.line("DAMAGE  not repacked: \(pack); run 'bgbackup check --read-data'") }
        for run in plan.givenUp { Output.line("given up for dead: \(run)") }
        if plan.unindexed > 0, global.verbose { Output.line("\(plan.unindexed) packs are in no index") }
        if plan.missing > 0 {
            Output.line("DAMAGE  \(plan.missing) packs that snapshots need are missing: run 'bgbackup check'")
        }
    }

    private static func text(_ amount: PrunePlan.Amount) -> String {
        "\(formatBytes(amount.bytes)) in \(amount.packs) pack\(amount.packs == 1 ? "" : "s")"
    }

    private func summary(_ plan: PrunePlan, _ seconds: Double) -> Summary {
        Summary(
            dry_run: dry.dryRun, snapshots: plan.snapshots, stored: Amount(plan.stored), needed: Amount(plan.needed),
            freed: Amount(plan.free), after_grace: Amount(plan.later),
            after_grace_from: Nullable(plan.laterFrom.map { formatTime($0) }), waiting_for_runs: Amount(plan.held),
            runs: plan.waitingFor, young: Amount(plan.young), locked: Amount(plan.locked),
            locked_until: Nullable(plan.lockedUntil.map { formatTime($0) }), revived: Amount(plan.revived),
            packs_unindexed: plan.unindexed, packs_missing: plan.missing,
            packs_partly_used: plan.partlyUsed, bytes_wasted: plan.wasted, repacked: Amount(plan.repacked),
            repacked_into_bytes: plan.repackedInto, repack_unreadable: plan.unreadable, indexes_rewritten: plan.indexesRewritten,
            indexes_removed: plan.indexesRemoved, indexes_locked: plan.indexesLocked, runs_given_up: plan.givenUp,
            duration_seconds: rounded(seconds))
    }
}
