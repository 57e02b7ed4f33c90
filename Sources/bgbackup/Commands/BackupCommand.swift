import ArgumentParser
import BackupBase
import BackupEngine
import BackupRepository
import Operations
import VolumeIO

struct BackupCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "backup", abstract: "Make one snapshot of one volume.",
        discussion: """
            PATH is a Qdrant storage directory, a block device or a raw image. Files whose stat did not change since \
            the node's last backup are not read; of the others only blocks the repository does not hold are stored.

            The volume is captured at one moment, in the best way that works here: a btrfs snapshot, clones of its files \
            (reflink), or a copy whose last part is made while the database is paused. The database is found by the files \
            it has open. If none of that can be done the backup fails with status 14; --capture none copies the volume as \
            it is, and such a snapshot is labelled 'fuzzy'. Exit status 3 says that some file could not be read; the \
            snapshot names it.

            With --watch one backup follows the other, so that seconds of writes can be lost instead of a schedule's \
            interval. Each is a full snapshot, tagged 'watch', that costs what changed; where nothing did, none is made. \
            The first run's failure ends it; later ones are tried again, more and more rarely, six times.

            With --policy everything that is not given here comes from a policy file (see 'bgbackup policy'), and the \
            snapshot stores what it said. A paused policy makes no backup, with status 0.
            """)

    enum Capture: String, ExpressibleByArgument, CaseIterable { case auto, btrfs, reflink, freeze, lvm, zfs, pause, none }

    enum Priority: String, ExpressibleByArgument, CaseIterable { case background, normal }

    @OptionGroup var global: GlobalOptions
    @OptionGroup var dry: DryRunOption

    @Argument(help: "Storage directory, block device or raw image; of a policy, its source.")
    var path: String?

    @Option(help: ArgumentHelp("Policy that says what is left out here: its name, or its file.", valueName: "policy"))
    var policy: String?

    @Option(
        help: ArgumentHelp("With --policy: the schedule that asks for it, which says how long it is kept.", valueName: "name"))
    var schedule: String?

    @Option(help: "Name of this node (default: the host's).")
    var node: String?

    @Option(help: "How to have the volume at one moment; none copies it as it is (default: auto).")
    var capture: Capture?

    @Option(
        help: ArgumentHelp(
            "Program that makes a block snapshot for --capture freeze; called with create, open and release, and the path.",
            valueName: "program"))
    var captureHook: String?

    @Option(help: ArgumentHelp("Seconds for which writes may be held at the most (default: 10).", valueName: "seconds"))
    var maxFreeze: Double?

    @Flag(
        inversion: .prefixedNo,
        help: "Keep the capture until the next backup, which then reads only the blocks that changed (btrfs, reflink, thin lvm).")
    var keepCapture: Bool?

    @Option(name: .customLong("tag"), help: ArgumentHelp("Label for the snapshot; may be given again.", valueName: "tag"))
    var tags: [String] = []

    @Option(help: "Name of the backup set that the snapshot belongs to.")
    var set: String?

    @Option(help: "Name of the cluster that the node belongs to.")
    var cluster: String?

    @Option(
        help: ArgumentHelp(
            "Period of the cluster's schedule, for example 1h: the set is named by cluster and scheduled moment.",
            valueName: "duration"))
    var setEvery: String?

    @Option(
        help: ArgumentHelp(
            "REST address of the Qdrant that writes to the volume: what it answers is kept in the snapshot.", valueName: "url"))
    var qdrantUrl: String?

    @Option(
        help: ArgumentHelp("File that holds its API key (or the credential bgbackup.qdrant-api-key).", valueName: "file"))
    var qdrantApiKeyFile: String?

    @Option(help: "Whether the backup gets only the processor time that the database leaves over.")
    var priority = Priority.background

    @Option(help: ArgumentHelp("Read at most so much a second, for example 100MiB.", valueName: "rate"))
    var limitRead: String?

    @Flag(help: "Read every file, whatever its stat says.")
    var rescan = false

    @Flag(help: "Go on making snapshots, each as soon as the interval is over, until a signal ends it.")
    var watch = false

    @Option(help: ArgumentHelp("From one start of --watch to the next (default: 10s).", valueName: "duration"))
    var every: String?

    @Option(help: ArgumentHelp("Writer key file, instead of a password (or BGBACKUP_WRITER_KEY_FILE).", valueName: "file"))
    var writerKey: String?

    struct Summary: Encodable {
        let message_type = "summary"
        let schema = 1
        let snapshot_id: Nullable<String>
        let parent: Nullable<String>
        let capture: String
        let capture_reason: String
        let consistency: String
        let files_new: Int
        let files_changed: Int
        let files_unmodified: Int
        let files_excluded: Int
        let bytes_total: Int64
        let bytes_read: Int64
        let bytes_audited: Int64
        let bytes_pinned: Int64
        let bytes_resumed: Int64
        let bytes_new: Int64
        let bytes_stored: Int64
        let duration_seconds: Double
        let capture_seconds: Double
        let dry_run: Bool
        let problems: [String]
        let warnings: [String]
        /// Whether Qdrant would start on it; null where it is none of its volumes.
        let starts: Nullable<Bool>
        let points: Nullable<UInt64>
        /// From the capture to the server's fingerprint; null where there is none.
        let fingerprint_seconds: Nullable<Double>
        /// That it changed unlike those before it; null where it is as usual.
        let anomaly: Nullable<AnomalyDocument>

        init(_ report: BackupReport, dryRun: Bool) {
            snapshot_id = Nullable(report.snapshot.map { "\($0.id)" })
            parent = Nullable(report.parent.map { "\($0)" })
            capture = report.capture
            capture_reason = report.captureReason
            consistency = report.consistency.rawValue
            files_new = report.filesNew
            files_changed = report.filesChanged
            files_unmodified = report.filesUnmodified
            files_excluded = report.excluded
            bytes_total = report.bytesTotal
            bytes_read = report.bytesRead
            bytes_audited = report.bytesAudited
            bytes_pinned = report.bytesPinned
            bytes_resumed = report.bytesResumed
            bytes_new = report.bytesNew
            bytes_stored = report.bytesStored
            duration_seconds = rounded(report.duration)
            capture_seconds = rounded(report.captureDuration)
            dry_run = dryRun
            problems = report.problems
            warnings = report.warnings
            starts = Nullable(report.inspection?.starts)
            points = Nullable(report.inspection?.points)
            fingerprint_seconds = Nullable(report.fingerprint.map { rounded($0.seconds) })
            anomaly = Nullable(report.anomaly.map { AnomalyDocument($0) })
        }
    }

    func validate() throws {
        if captureHook != nil, capture != .freeze {
            throw ValidationError("--capture-hook belongs to --capture freeze.")
        }
        if path == nil, policy == nil { throw ValidationError("Give PATH, or --policy.") }
        if schedule != nil, policy == nil { throw ValidationError("--schedule belongs to --policy.") }
        guard maxFreeze ?? 10 > 0, maxFreeze ?? 10 <= 3600 else {
            throw ValidationError("--max-freeze is between 0 and 3600 seconds.")
        }
        if qdrantApiKeyFile != nil, qdrantUrl == nil { throw ValidationError("--qdrant-api-key-file belongs to --qdrant-url.") }
        if every != nil, !watch { throw ValidationError("--every belongs to --watch.") }
        if watch, dry.dryRun { throw ValidationError("--watch and --dry-run do not go together.") }
        if watch, rescan { throw ValidationError("--watch and --rescan do not go together: it would read everything each time.") }
        _ = try interval()
        if setEvery != nil, cluster == nil && policy == nil || set != nil {
            throw ValidationError("--set-every names the set by --cluster: give that, and no --set.")
        }
        _ = try setName()
    }

    /// The scheduled moment nearest to now: nodes that begin a little apart,
    /// before or after it, name the same one.
    private func setName() throws -> String? {
        guard let setEvery, let cluster else { return nil }
        guard let period = parseDuration(setEvery), (60...31 * 86_400).contains(period) else {
            throw ValidationError("'\(setEvery)' is no period for --set-every: give 1m to 31d, for example 1h.")
        }
        let now = Double(Ambient.system.now()) / 1e9
        return "\(cluster)@\(formatTime(Int64((now / period).rounded() * period) * 1_000_000_000))"
    }

    /// Seconds between two starts of --watch.
    private func interval() throws -> Double {
        guard let every else { return 10 }
        guard let seconds = parseDuration(every), (1...86_400).contains(seconds) else {
            throw ValidationError("'\(every)' is no interval for --every: give 1s to 24h, for example 10s or 5m.")
        }
        return seconds
    }

    mutating func run() async throws {
        let job = JobRun(watch ? .watch : .backup, policy: policy, schedule: schedule, dryRun: dry.dryRun, global)
        try await job.carried { try await run(job) }
    }

    private mutating func run(_ job: JobRun) async throws {
        let plan = try policy.map { try BackupPolicy($0, schedule: schedule) }
        if let plan {
            if plan.policy.paused {
                job.pause(plan)
                return try tellPaused(plan.policy)
            }
            try take(plan)
        }
        job.begin(plan, global, node: node)
        let session = Session(options: global)
        let repository = try await session.openForBackup(writerKeyFile: writerKey)
        var options = try backupOptions(session)
        options.keepFor = plan?.schedule?.keepFor
        options.policy = plan?.record
        if watch { return try await keepWatch(repository, options, job) }
        let board = ProgressBoard()
        let line = ProgressLine(board, global)
        defer { line.stop() }
        let report = try await BackupRun(repository: repository, options: options, board: board).run()
        line.stop()
        job.note(report)
        try show(report)
        if !report.problems.isEmpty { throw ExitCode(BackupError.Code.incomplete.exitStatus) }
    }

    private func backupOptions(_ session: Session) throws -> BackupOptions {
        var options = BackupOptions(path: absolute(path ?? "."), node: node ?? Session.hostName, agent: BGBackup.agent)
        options.tags = watch && !tags.contains("watch") ? tags + ["watch"] : tags
        options.set = try set ?? setName()
        options.cluster = cluster
        options.rescan = rescan
        options.capture = CaptureMethod(rawValue: (capture ?? .auto).rawValue)
        options.maxFreeze = maxFreeze ?? options.maxFreeze
        options.captureHook = captureHook.map(absolute)
        options.keepsCapture = keepCapture ?? true
        options.readLimit = try limitRead.map { try Session.rate($0, "--limit-read") }
        options.server = try qdrantUrl.map {
            try session.qdrant(at: $0, keyFile: qdrantApiKeyFile, credential: "bgbackup.qdrant-api-key", timeout: 10)
        }
        options.dryRun = dry.dryRun
        options.stateDirectory = session.stateDirectory
        options.cacheDirectory = session.cacheDirectory
        return options
    }

    private func keepWatch(_ repository: Repository, _ options: BackupOptions, _ job: JobRun) async throws {
        let watch = BackupWatch(
            repository: repository, options: options, interval: try interval(), explain: { ErrorMapping.backupError($0) })
        try await watch.run { event in
            await job.note(event)
            switch event {
            case .made(let report): try showRun(report)
            case .busy(let error): Terminal.note("bgbackup: \(error): this run is left out")
            case .failed(let error, let wait):
                Output.report(error)
                Terminal.note("bgbackup: trying again in \(formatDuration(wait))")
            }
        }
    }

    /// One line for each snapshot of --watch; nothing where nothing changed, but for -v and --json.
    private func showRun(_ report: BackupReport) throws {
        tellTroubles(report)
        tellService(report)
        if global.json { return try Output.document(Summary(report, dryRun: false), lines: true) }
        guard !global.quiet, report.snapshot != nil || global.verbose else { return }
        let moment = formatTime(Ambient.system.now())
        guard let snapshot = report.snapshot else {
            return Output.line("\(moment)  unchanged since \(report.parent.map { "\($0)".prefix(8) } ?? "-")")
        }
        let held = Int((report.captureDuration * 1000).rounded(.up))
        Output.line(
            "\(moment)  snapshot \("\(snapshot.id)".prefix(8))  \(report.consistency.rawValue), \(report.filesNew + report.filesChanged) files changed, \(formatBytes(report.bytesStored)) stored in \(formatDuration(report.duration)), writes held for \(held) ms"
        )
    }

    private func tellService(_ report: BackupReport) {
        guard let snapshot = report.snapshot else { return }
        Main.service?.status("snapshot \("\(snapshot.id)".prefix(8)) of \(formatTime(Ambient.system.now()))")
    }

    private func tellTroubles(_ report: BackupReport) {
        for warning in report.warnings { Terminal.note("bgbackup: warning: \(warning)", .warning) }
        for problem in report.problems.prefix(global.verbose ? .max : 20) { Terminal.note("bgbackup: \(problem)", .warning) }
        if report.problems.count > 20, !global.verbose {
            Terminal.note("bgbackup: and \(report.problems.count - 20) more; -v lists them, so does 'bgbackup show'")
        }
    }

    private func show(_ report: BackupReport) throws {
        tellTroubles(report)
        if global.json { return try Output.document(Summary(report, dryRun: dry.dryRun), lines: true) }
        guard !global.quiet else { return }
        let files = "\(report.filesNew) new, \(report.filesChanged) changed, \(report.filesUnmodified) unmodified"
        if dry.dryRun {
            Output.line("would read \(formatBytes(report.bytesRead)) of \(formatBytes(report.bytesTotal)) (files: \(files))")
            return
        }
        Output.line("snapshot \(report.snapshot.map { "\($0.id)".prefix(8) } ?? "-")  \(report.consistency.rawValue), \(files)")
        Output.line(how(report))
        if let fingerprint = report.fingerprint { Output.line("the server answered: \(fingerprint.summary)") }
        if report.bytesResumed > 0 {
            Output.line("taken from an interrupted run: \(formatBytes(report.bytesResumed)), not read again")
        }
        Output.line(
            "read \(formatBytes(report.bytesRead)) of \(formatBytes(report.bytesTotal)), \(formatBytes(report.bytesNew)) new, \(formatBytes(report.bytesStored)) stored in \(formatDuration(report.duration))"
        )
    }

    /// How the volume was had, for a person.
    private func how(_ report: BackupReport) -> String {
        let why = global.verbose && !report.captureReason.isEmpty ? " (\(report.captureReason))" : ""
        let held = "writes held for \(Int((report.captureDuration * 1000).rounded(.up))) ms"
        switch report.capture {
        case "none" where report.consistency == .fuzzy: return "copied as it was: it may mix several moments\(why)"
        case "quiet", "none": return "captured at one moment: nothing changed while it was read\(why)"
        case "pause": return "captured at one moment: copied, then what changed once more, \(held)\(why)"
        default: return "captured at one moment: \(report.capture), \(held)\(why)"
        }
    }
}
