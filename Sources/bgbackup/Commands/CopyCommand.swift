import ArgumentParser
import BackupBase
import BackupEngine
import BackupRepository
import ObjectStorage
import Operations

struct CopyCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "copy", abstract: "Copy snapshots to a second place.",
        discussion: """
            The second place becomes, or is, the same repository with the same keys: it opens with the same password, \
            and everything works there. Packs go over sealed, as they are; with the password each seal is checked on \
            the way, with a writer key (--all only) headers and trailers are. What is there already is not sent again: \
            a copy that was cut off goes on where it was. Exit status 17: some snapshot is damaged and was not copied.
            """)

    @OptionGroup var global: GlobalOptions
    @OptionGroup var dry: DryRunOption
    @Argument(help: "Snapshots: id, prefix, latest or latest@NODE.") var snapshots: [String] = []
    @Flag(help: "Copy every snapshot.") var all = false
    @Option(help: ArgumentHelp("Where to: a path, file:///path or s3://bucket/prefix.", valueName: "url")) var to: String?
    @OptionGroup var policy: PolicyOption
    @Option(help: ArgumentHelp("With --policy: this copy of it; none: each.", valueName: "name")) var schedule: String?

    struct Summary: Encodable {
        let message_type = "summary"
        let schema = 1
        let location: String
        let created: Bool
        let snapshots_copied: Int
        let snapshots_present: Int
        let packs_copied: Int
        let packs_present: Int
        let bytes_copied: Int64
        let duration_seconds: Double
        let dry_run: Bool
        let damaged: [String]
    }

    mutating func validate() throws {
        if schedule != nil, policy.policy == nil { throw ValidationError("--schedule belongs to --policy.") }
        guard policy.policy == nil || to == nil else { throw ValidationError("Where to says --policy, or --to.") }
        guard policy.policy != nil || to != nil else { throw ValidationError("Give --to, or --policy.") }
        if policy.policy != nil, snapshots.isEmpty { all = true }
        guard all != !snapshots.isEmpty else { throw ValidationError("Name snapshots, or give --all.") }
    }

    /// Where to; of a policy each of its copies, or the one that is named.
    private func places(_ plan: BackupPolicy) throws -> [String] {
        let copies = plan.policy.copies.filter { schedule == nil || $0.name == schedule }
        guard !copies.isEmpty else {
            let names = plan.policy.copies.map(\.name).joined(separator: ", ")
            throw BackupError(
                .usage, "the policy \(plan.policy.name) has no such copy", hint: names.isEmpty ? nil : "There are: \(names).")
        }
        let session = Session(options: global)
        return try copies.map { try plan.policy.url(of: $0) { try BackupPolicy.path(of: $0, session) } }
    }

    mutating func run() async throws {
        let job = JobRun(.copy, policy: policy.policy, schedule: schedule, dryRun: dry.dryRun, global)
        try await job.carried { try await run(job) }
    }

    private mutating func run(_ job: JobRun) async throws {
        var places = to.map { [$0] } ?? []
        let plan = try policy.plan()
        if let plan {
            if try global.isPaused(plan, job) { return }
            try global.take(plan)
            places = try self.places(plan)
        }
        job.begin(plan, global)
        let session = Session(options: global)
        let repository = try await session.open()
        for place in places { try await copy(repository, try session.store(at: place), job) }
    }

    private func copy(_ repository: Repository, _ place: any ObjectStore, _ job: JobRun) async throws {
        guard place.location != repository.store.location else {
            throw BackupError(.usage, "source and copy are the same place", hint: "Give another one by --to.")
        }
        if !dry.dryRun { try Session.makeDirectory(of: place) }
        var names: [SnapshotName]?
        if !all {
            names = []
            for text in snapshots {
                let snapshot = try await repository.select(text)
                names!.append(snapshot.name)
            }
        }
        let interactive = Terminal.isInteractive && !global.noProgress && !global.quiet && !global.json
        let clock = monotonicSeconds()
        let report = try await Replication(from: repository, to: place, dryRun: dry.dryRun) { report in
            if interactive {
                Terminal.raw(
                    "\r\u{1b}[Kcopying: \(report.packs) packs, \(formatBytes(report.bytes)), \(report.snapshots) snapshots")
            }
        }.run(names.map { Set($0).sorted() })
        if interactive { Terminal.raw("\r\u{1b}[K") }
        try show(report, place.location, monotonicSeconds() - clock)
        job.note(report, place.location)
        if !report.damaged.isEmpty { throw ExitCode(BackupError.Code.damaged.exitStatus) }
    }

    private func show(_ report: Replication.Report, _ location: String, _ seconds: Double) throws {
        for damage in report.damaged { Terminal.note("bgbackup: not copied: \(damage)") }
        if global.json {
            return try Output.document(
                Summary(
                    location: location, created: report.created, snapshots_copied: report.snapshots,
                    snapshots_present: report.present, packs_copied: report.packs, packs_present: report.packsPresent,
                    bytes_copied: report.bytes, duration_seconds: rounded(seconds), dry_run: dry.dryRun,
                    damaged: report.damaged), lines: true)
        }
        guard !global.quiet else { return }
        let verb = dry.dryRun ? "would copy" : "copied"
        if report.created {
            Output.line("\(location) \(dry.dryRun ? "would become" : "is now") a copy of this repository, with the same keys")
        }
        Output.line(
            "\(verb) \(report.snapshots) snapshots and \(report.packs) packs to \(location): \(formatBytes(report.bytes)) in \(formatDuration(seconds))"
        )
        if report.present > 0 { Output.line("\(report.present) snapshots were there already") }
    }
}
