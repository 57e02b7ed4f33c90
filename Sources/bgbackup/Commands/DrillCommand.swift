import ArgumentParser
import BackupBase
import BackupEngine
import BackupRepository
import Operations
import QdrantStorage
import VolumeIO

extension LoopVolume.Kind: ExpressibleByArgument {}

struct DrillCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "drill", abstract: "Rehearse a restore: restore to scratch, verify, start the database, compare, report.",
        discussion: """
            Restores a snapshot, or all of a backup set one after the other, into a scratch directory; reads every block back \
            from the disk; inspects the volume; starts the database on it in a network of its own, so that it reaches no \
            node of its old cluster; compares exact counts, payload, vectors and exact searches with the fingerprint that \
            'backup --qdrant-url' recorded; measures how long it took to the first right answer (recovery time) and how old \
            the newest snapshot is (recovery point); and removes the scratch. Of the repository nothing is changed; a note of \
            what was proved is added, by which 'forget' keeps the last snapshot that a drill proved.

            The database is 'qdrant' where that is installed, and otherwise 'boot-edge', which serves the data with Qdrant's \
            own engine. --boot names another command, as words that no shell sees, with {storage}, {port} and {grpc_port} for \
            what the drill chooses:

              bgbackup drill --rto 30m --rpo 24h
              bgbackup drill --set latest --boot 'qdrant --config-path /etc/qdrant/drill.yaml'

            drill-TIME.json and drill-TIME.html, and the latest as drill.json and drill.html, are kept in --output. Exit \
            status 16 says that the drill failed, with the first reason.
            """)

    enum Pick: String, ExpressibleByArgument, CaseIterable { case latest, random, oldest }

    @OptionGroup var global: GlobalOptions
    @Argument(help: "Snapshot: id, prefix, latest or latest@NODE.") var snapshot: String?
    @Option(help: ArgumentHelp("Instead of a snapshot, one of those there are.", valueName: "latest|random|oldest"))
    var pick: Pick?
    @Option(help: "With --pick: only snapshots of this node.") var node: String?
    @Option(help: ArgumentHelp("Instead of a snapshot, a whole backup set.", valueName: "name|latest|random|oldest"))
    var set: String?

    @Option(
        help: ArgumentHelp(
            "Where volumes are restored to and removed again (default: scratch in the state directory).", valueName: "path"))
    var scratch: String?
    @Option(
        help: ArgumentHelp(
            "Restore onto a fresh file system in an image file instead of a directory.", valueName: "ext4|xfs|btrfs"))
    var image: LoopVolume.Kind?
    @Option(help: ArgumentHelp("How the database is started.", valueName: "command")) var boot: String?
    @Flag(help: "Restore, verify and inspect only.") var noBoot = false
    @Option(help: ArgumentHelp("How long the database may take to be ready.", valueName: "duration")) var bootTimeout: String?
    @Flag(help: "Start the database on this machine's network instead of one of its own.") var sharedNetwork = false
    @Flag(help: "Bring the volume into memory before the start, as restore --warm does.") var warm = false
    @Option(help: ArgumentHelp("Fail if recovery takes longer, for example 30m.", valueName: "duration")) var rto: String?
    @Option(help: ArgumentHelp("Fail if the newest snapshot is older, for example 24h.", valueName: "duration")) var rpo: String?
    @Option(
        name: .shortAndLong,
        help: ArgumentHelp("Where reports are kept (default: drills in the state directory).", valueName: "path"))
    var output: String?
    @OptionGroup var policy: PolicyOption
    /// Of a policy: the program that boots, and its arguments.
    private var bootWords: [String]?

    private enum CodingKeys: CodingKey {
        case global, snapshot, pick, node, set, scratch, image, boot, noBoot, bootTimeout, sharedNetwork, warm, rto, rpo, output
        case policy
    }

    /// Fills in what the command line leaves out.
    private mutating func take(_ plan: BackupPolicy) throws {
        try global.take(plan)
        guard let drill = plan.policy.drill else { return }
        if snapshot == nil, pick == nil, set == nil {
            pick = Pick(rawValue: drill.snapshot)
            node = plan.policy.node
        }
        scratch = scratch ?? drill.target
        image = image ?? drill.image.flatMap { LoopVolume.Kind(rawValue: $0) }
        if boot == nil, !noBoot, !drill.boot.isEmpty { bootWords = drill.boot }
        bootTimeout = bootTimeout ?? "\(drill.bootTimeout)s"
        if !noBoot { rto = rto ?? drill.recoveryTime.map { "\($0)s" } }
        rpo = rpo ?? drill.recoveryPoint.map { "\($0)s" }
        try validate()
    }

    func validate() throws {
        guard [snapshot != nil, pick != nil, set != nil].filter({ $0 }).count <= 1 else {
            throw ValidationError("Give one of SNAPSHOT, --pick and --set.")
        }
        if node != nil, pick == nil { throw ValidationError("--node belongs to --pick.") }
        if noBoot, boot != nil || sharedNetwork || rto != nil {
            throw ValidationError("--no-boot does not go with --boot, --shared-network and --rto.")
        }
        for (name, text) in [("--boot-timeout", bootTimeout), ("--rto", rto), ("--rpo", rpo)] {
            guard let text else { continue }
            guard let seconds = parseDuration(text), seconds > 0, seconds < 1e9 else {
                throw ValidationError("'\(text)' is no duration for \(name): give one like 90s, 15m, 6h or 2d.")
            }
        }
    }

    mutating func run() async throws {
        let job = JobRun(.drill, policy: policy.policy, global)
        try await job.carried { try await run(job) }
    }

    private mutating func run(_ job: JobRun) async throws {
        let plan = try policy.plan()
        if let plan {
            if try global.isPaused(plan, job) { return }
            try take(plan)
        }
        job.begin(plan, global, node: node)
        let session = Session(options: global)
        let options = try options(session)
        guard let place = output.map(absolute) ?? session.stateDirectory.map({ "\($0)/drills" }) else {
            throw BackupError(.usage, "there is no place for the report", hint: "Give --output.")
        }
        let archive = DrillArchive(directory: place)
        try archive.prepare()
        let repository = try await session.open()
        let choice = try await DrillChoice.make(repository, snapshot: snapshot, pick: pick, node: node, set: set)

        let board = ProgressBoard()
        let line = ProgressLine(board, global)
        defer { line.stop() }
        let isQuiet = global.quiet || global.json
        let run = DrillRun(repository: repository, options: options, board: board) { snapshot, stage in
            guard !isQuiet else { return }
            ProgressLine.clear()
            if stage.name == .restore { Self.announce(snapshot) }
            Output.line(DrillReport.line(stage.name.rawValue, stage.seconds, stage.verdict, stage.detail))
        }
        let outcome = try await run.run(choice.snapshots, newest: choice.newest, missing: choice.missing)
        line.stop()
        let report = DrillReport(
            outcome, options, repository: "\(repository.id)", set: choice.set, pick: choice.words)
        job.note(report)
        let page = try archive.keep(report)
        await note(outcome, in: repository)
        if global.json {
            try Output.document(report, lines: true)
        } else {
            report.print(quiet: global.quiet, verbose: global.verbose, place: page)
        }
        guard report.verdict == .fail else { return }
        Terminal.note("bgbackup: the drill failed: \(printable((report.reason ?? "").utf8))", .error)
        throw ExitCode(BackupError.Code.drillFailed.exitStatus)
    }

    /// Leaves in the repository what was proved. Keys that may only read are no fault of the drill.
    private func note(_ outcome: DrillOutcome, in repository: Repository) async {
        do {
            for drill in outcome.nodes { try await repository.record(drill) }
        } catch {
            let reason = ErrorMapping.backupError(error).map { "\($0)" } ?? "\(error)"
            Terminal.note(
                "bgbackup: warning: the repository takes no note of this drill, so 'forget' knows nothing of it: \(reason)")
        }
    }

    private static func announce(_ snapshot: Snapshot) {
        let (id, record) = ("\(snapshot.id)".prefix(8), snapshot.record)
        Output.line("drill of snapshot \(id) of \(printable(record.node.utf8)), captured \(shortTime(record.started)) UTC")
    }

    private func options(_ session: Session) throws -> DrillOptions {
        guard let scratch = scratch.map(absolute) ?? session.stateDirectory.map({ "\($0)/scratch" }) else {
            throw BackupError(.usage, "there is no place to restore to", hint: "Give --scratch.")
        }
        var options = DrillOptions(scratch: scratch)
        options.image = image
        if !noBoot { options.engine = try engine() }
        options.isNetworkShared = sharedNetwork
        options.warm = warm
        options.bootPatience = bootTimeout.flatMap { parseDuration($0) } ?? options.bootPatience
        options.recoveryObjective = rto.flatMap { parseDuration($0) }
        options.recoveryPointObjective = rpo.flatMap { parseDuration($0) }
        return options
    }

    private static func words(_ boot: String) throws -> [String] {
        guard let words = commandWords(boot), !words.isEmpty else {
            throw BackupError(.usage, "--boot is empty, or a quote in it is not closed")
        }
        return words
    }

    private func engine() throws -> EngineCommand {
        if let words = try bootWords ?? boot.map({ try Self.words($0) }), let first = words.first {
            // The engine runs elsewhere: a path is taken from here.
            let program = first.contains("/") ? absolute(first) : first
            guard EngineCommand.find(program) != nil else {
                throw BackupError(
                    .usage, "there is no program \(printable(first.utf8))", hint: "Give --boot a program that is installed.")
            }
            guard words.contains(where: { $0.contains("{port}") }) || words.contains(where: { $0.contains("{storage}") }) else {
                return EngineCommand.qdrant(program).with(arguments: [program] + words.dropFirst())
            }
            return EngineCommand([program] + words.dropFirst())
        }
        if let qdrant = EngineCommand.find("qdrant") { return .qdrant(qdrant) }
        for helper in ["boot-edge", "/usr/local/lib/bgbackup/boot-edge", "/usr/lib/bgbackup/boot-edge"] {
            if let found = EngineCommand.find(helper) { return EngineCommand([found, "{storage}", "{port}"]) }
        }
        throw BackupError(
            .usage, "there is no database to start: neither qdrant nor boot-edge is installed",
            hint: "Give --boot COMMAND, for example 'scripts/boot-edge {storage} {port}', or --no-boot.")
    }
}

/// What is drilled.
private struct DrillChoice {
    let snapshots: [Snapshot]
    /// Moment of each node's newest snapshot, seconds since 1970.
    let newest: [String: Double]
    /// Peers of the set's cluster without a snapshot.
    let missing: [UInt64]
    let set: String?
    /// How it was chosen, for people.
    let words: String

    static func make(
        _ repository: Repository, snapshot: String?, pick: DrillCommand.Pick?, node: String?, set: String?
    ) async throws -> DrillChoice {
        if let set { return try await ofSet(set, repository) }
        if let pick { return try await picked(pick, node, repository) }
        let text = snapshot ?? "latest"
        return try await ofSnapshot(try await repository.select(text), "chosen as \(text)", repository)
    }

    private static func ofSnapshot(_ snapshot: Snapshot, _ words: String, _ repository: Repository) async throws -> DrillChoice {
        let latest = try await repository.select("latest@\(snapshot.record.node)")
        return DrillChoice(
            snapshots: [snapshot], newest: moments([latest]), missing: [], set: nil, words: words)
    }

    private static func picked(
        _ pick: DrillCommand.Pick, _ node: String?, _ repository: Repository
    ) async throws -> DrillChoice {
        var names = try await repository.snapshotNames()
        switch pick {
        case .latest: names.reverse()
        case .random: names.shuffle()
        case .oldest: break
        }
        for name in names {
            let snapshot = try await repository.snapshot(name)
            // No database can be started on a device as it is.
            guard snapshot.record.kind == .tree, node == nil || snapshot.record.node == node else { continue }
            let whole = node.map { "those of \($0)" } ?? "\(names.count)"
            return try await ofSnapshot(snapshot, "\(pick.rawValue) of \(whole)", repository)
        }
        throw BackupError(
            .noSnapshot, node.map { "there is no snapshot of node \(printable($0.utf8))" } ?? "the repository holds no snapshot",
            hint: "See 'bgbackup snapshots'.")
    }

    private static func ofSet(_ name: String, _ repository: Repository) async throws -> DrillChoice {
        var all: [Snapshot] = []
        for name in try await repository.snapshotNames() { all.append(try await repository.snapshot(name)) }
        let sets = BackupSet.group(all)
        let pick = DrillCommand.Pick(rawValue: name)
        let found =
            switch pick {
            case .latest?: sets.last
            case .oldest?: sets.first
            case .random?: sets.randomElement()
            case nil: sets.first { $0.name == name }
            }
        guard let found else {
            throw BackupError(
                .noSnapshot, pick == nil ? "there is no backup set \(printable(name.utf8))" : "there are no backup sets",
                hint: "See 'bgbackup snapshots --sets'.")
        }
        return DrillChoice(
            snapshots: found.snapshots, newest: moments(all), missing: found.missing, set: found.name,
            words: pick.map { "\($0.rawValue) of \(sets.count) set\(sets.count == 1 ? "" : "s")" } ?? "chosen by name")
    }

    private static func moments(_ snapshots: [Snapshot]) -> [String: Double] {
        snapshots.reduce(into: [:]) { known, snapshot in
            guard let moment = parseTime(snapshot.record.started) else { return }
            known[snapshot.record.node] = max(known[snapshot.record.node] ?? moment, moment)
        }
    }
}

/// A command line as words, quotes and backslashes as a shell takes them, and
/// nothing else of a shell; nil where a quote is not closed.
func commandWords(_ text: String) -> [String]? {
    var (words, word): ([String], String?) = ([], nil)
    var quote: Character?
    var rest = text[...]
    while let next = rest.popFirst() {
        switch next {
        case quote: quote = nil
        case "\\" where quote != "'": word = (word ?? "") + (rest.popFirst().map { "\($0)" } ?? "")
        case "'" where quote == nil, "\"" where quote == nil: (quote, word) = (next, word ?? "")
        case _ where quote == nil && next.isWhitespace:
            if let word { words.append(word) }
            word = nil
        default: word = (word ?? "") + "\(next)"
        }
    }
    return quote == nil ? words + (word.map { [$0] } ?? []) : nil
}
