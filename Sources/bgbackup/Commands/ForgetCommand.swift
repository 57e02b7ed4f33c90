import ArgumentParser
import BackupBase
import BackupEngine
import BackupRepository
import Operations

/// A retention policy on the command line.
struct RetentionOptions: ParsableArguments {
    @Option(help: ArgumentHelp("Keep the newest N of each volume.", valueName: "n")) var keepLast: Int?
    @Option(help: ArgumentHelp("Keep the newest of each of the last N hours that have a snapshot (UTC).", valueName: "n"))
    var keepHourly: Int?
    @Option(help: ArgumentHelp("The same by days.", valueName: "n")) var keepDaily: Int?
    @Option(help: ArgumentHelp("The same by weeks, from Monday.", valueName: "n")) var keepWeekly: Int?
    @Option(help: ArgumentHelp("The same by months.", valueName: "n")) var keepMonthly: Int?
    @Option(help: ArgumentHelp("The same by years.", valueName: "n")) var keepYearly: Int?
    @Option(help: ArgumentHelp("Keep all that are younger, for example 14d.", valueName: "duration")) var keepWithin: String?
    @Option(help: ArgumentHelp("Snapshots of each volume that always stay, the newest (1).", valueName: "n")) var minSnapshots:
        Int?
    @Option(
        help: ArgumentHelp(
            "Forget nothing where more than this share of a volume's snapshots would go at once (0.5).", valueName: "share"))
    var maxDeleteRatio: Double?

    func validate() throws {
        for (name, count) in [
            ("--keep-last", keepLast), ("--keep-hourly", keepHourly), ("--keep-daily", keepDaily), ("--keep-weekly", keepWeekly),
            ("--keep-monthly", keepMonthly), ("--keep-yearly", keepYearly), ("--min-snapshots", minSnapshots),
        ] {
            guard let count, !(1...1_000_000).contains(count) else { continue }
            throw ValidationError("\(name) is a number from 1 to 1000000; leave it out where it should keep none.")
        }
        if let maxDeleteRatio, !(maxDeleteRatio > 0 && maxDeleteRatio <= 1) {
            throw ValidationError("--max-delete-ratio is a share above 0 and up to 1, for example 0.5.")
        }
        if let keepWithin, within == nil {
            throw ValidationError("'\(keepWithin)' is no duration for --keep-within: give one with its unit, like 36h or 14d.")
        }
    }

    /// Seconds; a bare number could be days as well.
    private var within: Double? {
        keepWithin.flatMap { $0.last?.isLetter == true ? $0 : nil }.flatMap { parseDuration($0) }.flatMap {
            $0 > 0 && $0 < 1e10 ? $0 : nil
        }
    }

    var policy: RetentionPolicy {
        var policy = RetentionPolicy()
        (policy.keepLast, policy.keepHourly, policy.keepDaily) = (keepLast, keepHourly, keepDaily)
        (policy.keepWeekly, policy.keepMonthly, policy.keepYearly) = (keepWeekly, keepMonthly, keepYearly)
        policy.keepWithin = within
        bound(&policy)
        return policy
    }

    /// What stands on the command line counts more than what a policy says.
    func bound(_ policy: inout RetentionPolicy) {
        policy.minSnapshots = minSnapshots ?? policy.minSnapshots
        policy.maxDeleteRatio = maxDeleteRatio ?? policy.maxDeleteRatio
    }
}

struct ForgetCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "forget", abstract: "Forget snapshots that no rule keeps, or that are named.",
        discussion: """
            A snapshot stays while any rule keeps it. Rules count for each volume by itself, in the order in which snapshots \
            were made, by the store's clock and not this machine's. --dry-run says for each snapshot what keeps it.

              bgbackup forget --keep-last 3 --keep-daily 14 --keep-monthly 12 --dry-run

            Whatever the rules say, these stay: what is held, the newest that a drill proved, the newest that is complete and of \
            one moment, sets of which a member stays, and what cannot be read. Of a volume that changed unlike before, as if \
            somebody had encrypted it, nothing is forgotten until --accept-anomaly says that it is right.

            Named snapshots go without any rule, unless they are held. Space comes back when the repository is pruned.
            """)

    @OptionGroup var global: GlobalOptions
    @OptionGroup var dry: DryRunOption
    @Argument(help: "Snapshots: ids, prefixes, latest or latest@NODE; none: by the rules.") var snapshots: [String] = []
    @OptionGroup(title: "Rules") var rules: RetentionOptions
    @OptionGroup var policy: PolicyOption
    @Option(help: "Only forget snapshots of this node.") var node: String?
    @Flag(help: "Also where more than --max-delete-ratio would go.") var force = false
    @Option(
        help: ArgumentHelp(
            "Say that what this snapshot changed is right; may be given again.", valueName: "snapshot"))
    var acceptAnomaly: [String] = []

    func validate() throws {
        let hasRules = !rules.policy.isEmpty
        if !snapshots.isEmpty, hasRules || node != nil {
            throw ValidationError("Give snapshots, or rules, not both.")
        }
        if policy.policy != nil, hasRules || node != nil { throw ValidationError("Rules are those of --policy, or given here.") }
        if snapshots.isEmpty, !hasRules, acceptAnomaly.isEmpty, policy.policy == nil {
            throw ValidationError(
                "Nothing says what to keep: give rules such as --keep-daily 14, or --policy, or name snapshots.")
        }
    }

    mutating func run() async throws {
        let job = JobRun(.forget, policy: policy.policy, dryRun: dry.dryRun, global)
        try await job.carried { try await run(job) }
    }

    private mutating func run(_ job: JobRun) async throws {
        let plan = try policy.plan()
        if let plan {
            if try global.isPaused(plan, job) { return }
            try global.take(plan)
        }
        job.begin(plan, global, node: node)
        let repository = try await Session(options: global).open()
        for text in acceptAnomaly { try await accept(text, repository) }
        if snapshots.isEmpty, rules.policy.isEmpty, plan == nil { return }
        var request = plan.map { ForgetRequest($0.policy) } ?? ForgetRequest()
        if plan == nil { request.policy = rules.policy } else { rules.bound(&request.policy) }
        request.named = snapshots
        request.node = node
        request.force = force
        let run = ForgetRun(repository: repository, request: request)
        if dry.dryRun {
            let plan = try await run.plan()
            let report = ForgetReport(plan, outcome: nil)
            try report.show(global)
            try plan.requireAllowed(force: force)
            return try report.end()
        }
        let outcome = try await run.run()
        let report = ForgetReport(outcome.plan, outcome: outcome)
        job.note(outcome, isFull: snapshots.isEmpty && node == nil)
        try report.show(global)
        try report.end()
    }

    private struct Accepted: Encodable {
        let message_type = "accepted"
        let schema = 1
        let snapshot_id: String
        let dry_run: Bool
    }

    private func accept(_ text: String, _ repository: Repository) async throws {
        let name = try await repository.selectOwned(text)
        if !dry.dryRun { try await repository.accept(name.id, by: HoldCommand.operator) }
        if global.json { return try Output.document(Accepted(snapshot_id: "\(name.id)", dry_run: dry.dryRun), lines: true) }
        if !global.quiet { Output.line("the change of snapshot \("\(name.id)".prefix(8)) is accepted") }
    }
}

extension ForgetRequest {
    /// What a policy file lets go: of what was made under it.
    init(_ policy: Policy) {
        self.init()
        self.policy = policy.retention
        policyName = policy.name
    }
}
