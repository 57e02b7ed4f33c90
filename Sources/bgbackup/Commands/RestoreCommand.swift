import ArgumentParser
import BackupBase
import BackupEngine
import BackupRepository
import Glibc
import QdrantStorage

struct RestoreCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "restore", abstract: "Restore a snapshot onto an empty volume.",
        discussion: """
            The root's content goes into the target itself, which is made where it is missing and refused where it \
            holds anything (exit status 15). Everything is verified on the way. Until all is on the disk the target \
            holds the file .bgbackup-incomplete; a restore that was cut off goes on with --resume.

            With --refresh the target is one that a restore on this node left whole, of another snapshot, and that nobody \
            has written to since: it is brought to SNAPSHOT by writing only the blocks that differ, and is then what a \
            restore onto an empty volume would have made. Every file's stat must be as it was noted, and a sample of \
            blocks is read; anything else is refused (exit status 15), so that a volume on which the database was started \
            is not touched. One that was cut off goes on with --refresh or --resume. --dry-run lists what would be written.

            A snapshot of a device or image goes onto a device or image file of at least its size.

            The node's raft state is made harmless: its id stays, all addresses of the cluster it came from are taken \
            out, so that a start calls none of them. --seed gives it the address it will have; --keep-identity leaves \
            everything as it was, for a machine that takes the very place of the one that is gone. The original stays in \
            the snapshot ('bgbackup dump SNAPSHOT raft_state.json').
            """)

    @OptionGroup var global: GlobalOptions
    @OptionGroup var dry: DryRunOption
    @Argument(help: "Snapshot: id, prefix, latest or latest@NODE.") var snapshot: String
    @Option(help: ArgumentHelp("Directory, block device or image file to restore onto.", valueName: "path")) var target: String
    @Option(
        name: .customLong("include"),
        help: ArgumentHelp("Only this path and what is below it; may be given again.", valueName: "path"))
    var include: [String] = []
    @Flag(help: "Go on with a restore that was cut off.") var resume = false
    @Flag(help: "Bring a target that holds another snapshot to this one, writing only what differs.") var refresh = false
    @Flag(help: "Overwrite a device or image that holds data.") var force = false
    @Flag(help: "Bring the volume into memory at the end; sooner still: 'bgbackup warm' beside the start.") var warm = false
    @Option(help: ArgumentHelp("Owner of everything, instead of the stored numbers.", valueName: "user:group")) var owner: String?

    @Option(help: ArgumentHelp("Address of the node in its new cluster, as qdrant --uri takes it.", valueName: "uri")) var seed:
        String?
    @Flag(help: "With --seed: the new cluster begins with this node.") var firstPeer = false
    @Flag(help: "Leave the raft state as it was: the node takes the place of the one that is gone.") var keepIdentity = false

    func validate() throws {
        if let seed, !SeedPlan.isAddress(seed) {
            throw ValidationError(
                "'\(printable(seed.utf8))' is no address of a node: give http://HOST:6335, as qdrant --uri takes it.")
        }
        if seed != nil, keepIdentity { throw ValidationError("--seed and --keep-identity do not go together.") }
        if firstPeer, seed == nil { throw ValidationError("--first-peer belongs to --seed.") }
    }

    struct Summary: Encodable {
        let message_type = "summary"
        let schema = 1
        let snapshot_id: String
        let peer: Nullable<UInt64>
        let addresses_removed: Int
        let files: Int
        let directories: Int
        let bytes_total: Int64
        let bytes_written: Int64
        let bytes_kept: Int64
        let bytes_fetched: Int64
        let bytes_unchanged: Int64
        let bytes_warmed: Int64
        let bytes_per_second: Int64
        let refreshed_from: Nullable<String>
        let files_changed: Int
        let names_removed: Int
        let stages: [String: Double]
        let slowest_stage: Nullable<String>
        let duration_seconds: Double
        let dry_run: Bool
        let problems: [String]
        let warnings: [String]
    }

    mutating func run() async throws {
        let repository = try await Session(options: global).open()
        let found = try await repository.select(snapshot)
        var options = RestoreOptions(target: absolute(target))
        options.include = include.map { snapshotPath($0) }
        options.resume = resume
        options.refresh = refresh
        options.stateDirectory = Session(options: global).stateDirectory
        options.force = force
        options.warm = warm
        options.dryRun = dry.dryRun
        options.owner = try owner.map { try Self.parseOwner($0) }
        options.identity = keepIdentity ? .kept : seed.map { .seeded(uri: $0, isFirst: firstPeer) } ?? .alone
        let board = ProgressBoard()
        let line = ProgressLine(board, global)
        defer { line.stop() }
        let report = try await RestoreRun(repository: repository, options: options, board: board).run(found)
        line.stop()
        if !found.record.complete, !global.quiet {
            Terminal.note(
                "bgbackup: this snapshot is incomplete: some files could not be read when it was made; see 'bgbackup show'")
        }
        try show(report)
        if !report.problems.isEmpty { throw ExitCode(BackupError.Code.incomplete.exitStatus) }
    }

    private func show(_ report: RestoreReport) throws {
        for problem in report.problems.prefix(global.verbose ? .max : 20) { Terminal.note("bgbackup: \(problem)", .warning) }
        if report.problems.count > 20, !global.verbose {
            Terminal.note("bgbackup: and \(report.problems.count - 20) more; -v lists them")
        }
        for warning in report.warnings { Terminal.note("bgbackup: warning: \(warning)", .warning) }
        if global.json {
            return try Output.document(
                Summary(
                    snapshot_id: "\(report.snapshot)", peer: Nullable(report.identity?.peer),
                    addresses_removed: report.identity?.removed ?? 0, files: report.files, directories: report.directories,
                    bytes_total: report.bytesTotal, bytes_written: report.bytesWritten, bytes_kept: report.bytesKept,
                    bytes_fetched: report.bytesFetched, bytes_unchanged: report.bytesUnchanged, bytes_warmed: report.bytesWarmed,
                    bytes_per_second: report.bytesPerSecond, refreshed_from: Nullable(report.refreshedFrom.map { "\($0)" }),
                    files_changed: report.changedFiles.count, names_removed: report.removed.count, stages: stages(report),
                    slowest_stage: Nullable(report.stages.slowest?.rawValue), duration_seconds: rounded(report.duration),
                    dry_run: dry.dryRun, problems: report.problems, warnings: report.warnings), lines: true)
        }
        guard !global.quiet else { return }
        if dry.dryRun, report.refreshedFrom != nil { return showChanges(report) }
        let what = "\(report.files) files, \(report.directories) directories, \(formatBytes(report.bytesTotal))"
        if dry.dryRun { return Output.line("would restore \(what) of snapshot \("\(report.snapshot)".prefix(8)) onto \(target)") }
        let kept = report.bytesKept > 0 ? ", \(formatBytes(report.bytesKept)) were there already" : ""
        let unchanged = report.refreshedFrom.map {
            "; \(formatBytes(report.bytesUnchanged)) are as snapshot \("\($0)".prefix(8)) has them and were kept"
        }
        Output.line("restored snapshot \("\(report.snapshot)".prefix(8)) onto \(target): \(what)")
        let written = "\(formatBytes(report.bytesWritten)) written\(kept) in \(formatDuration(report.duration))"
        Output.line(
            (unchanged == nil ? "every block verified; " : "every block that was fetched is verified; ") + written
                + (unchanged ?? ""))
        if report.bytesWarmed > 0 { Output.line("\(formatBytes(report.bytesWarmed)) of it are in memory") }
        if let identity = report.identity, identity.removed > 0 {
            Output.line(
                "peer \(identity.peer) no longer knows the \(identity.removed) addresses of its old cluster\(seed.map { "; its own is \($0)" } ?? "")"
            )
        }
        if let slowest = report.stages.slowest {
            let seconds = report.stages.seconds[slowest] ?? 0
            Output.line(
                "\(formatBytes(report.bytesPerSecond))/s; most of it to \(slowest.rawValue): \(formatDuration(seconds))")
        }
    }

    private func stages(_ report: RestoreReport) -> [String: Double] {
        Dictionary(uniqueKeysWithValues: report.stages.seconds.map { ($0.rawValue, rounded($1)) })
    }

    /// What a refresh would do.
    private func showChanges(_ report: RestoreReport) {
        let limit = global.verbose ? Int.max : 20
        for (word, paths) in [("remove", report.removed), ("write ", report.changedFiles)] {
            for path in paths.prefix(limit) { Output.line("\(word)  \(printable(path))") }
            if paths.count > limit { Output.line("\(word)  … and \(paths.count - limit) more; -v lists them") }
        }
        let differing = formatBytes(report.bytesTotal - report.bytesUnchanged)
        Output.line(
            "would bring \(target) to snapshot \("\(report.snapshot)".prefix(8)): \(report.changedFiles.count) files to write, "
                + "\(report.removed.count) names to remove, \(differing) of \(formatBytes(report.bytesTotal)) differ")
    }

    static func parseOwner(_ text: String) throws -> (user: UInt32, group: UInt32) {
        let parts = text.split(separator: ":", omittingEmptySubsequences: false).map(String.init)
        guard parts.count == 2,
            let user = UInt32(parts[0]) ?? getpwnam(parts[0])?.pointee.pw_uid,
            let group = UInt32(parts[1]) ?? getgrnam(parts[1])?.pointee.gr_gid
        else {
            throw BackupError(
                .usage, "'\(text)' names no user and group of this machine", hint: "Give USER:GROUP, by name or number.")
        }
        return (user, group)
    }
}

struct DumpCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "dump", abstract: "Write one file of a snapshot to standard output.")

    @OptionGroup var global: GlobalOptions
    @Argument(help: "Snapshot: id, prefix, latest or latest@NODE.") var snapshot: String
    @Argument(help: "Path of the file, relative to the volume's root.") var path: String

    mutating func run() async throws {
        let repository = try await Session(options: global).open()
        let found = try await repository.select(snapshot)
        let entry = try await repository.entry(snapshotPath(path), of: found)
        guard case .file(_, let content) = entry.kind else {
            throw BackupError(.noSuchPath, "\(path) is no file in snapshot \(found.id)", hint: "See 'bgbackup ls'.")
        }
        try await repository.read(content) { try Output.bytes($0) }
    }
}
