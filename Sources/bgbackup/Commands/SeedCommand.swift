import ArgumentParser
import BackupBase
import BackupEngine
import BackupRepository
import FoundationEssentials
import Glibc
import QdrantStorage

struct SeedCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "seed", abstract: "Make one green cluster of the restored volumes of blue's nodes.",
        discussion: """
            --plan compares the snapshots of all nodes, says whether they fit together, who begins the new cluster, what \
            differs between replicas, and how each node is started, in order. Nothing is changed. --apply, on each green \
            node, restores that node's snapshot with the identity that the plan gives it: its own id, its own new address, \
            and no address of blue.

              bgbackup seed --plan --set prod@2026-11-27T02:00:00Z --green http://green-0:6335 --green http://green-1:6335 -o plan.json
              bgbackup seed --apply plan.json --as http://green-0:6335 --target /var/lib/qdrant/storage

            A plan that is refused is printed all the same, with exit status 17.
            """)

    @OptionGroup var global: GlobalOptions
    @OptionGroup var dry: DryRunOption
    @Flag(help: "Make the plan.") var plan = false
    @Option(help: "Backup set to seed from, as 'bgbackup snapshots --sets' names it.") var set: String?
    @Option(
        name: .customLong("snapshot"),
        help: ArgumentHelp(
            "Snapshot of one node, instead of a set; once for each, in the order of --green.", valueName: "snapshot"))
    var snapshots: [String] = []
    @Option(
        name: .customLong("green"),
        help: ArgumentHelp("Address of a green node as qdrant --uri takes it; once for each, in order.", valueName: "uri"))
    var greens: [String] = []
    @Option(help: "Blue node to begin with (default: the one whose raft log is furthest).") var first: String?
    @Option(help: ArgumentHelp("Version of Qdrant that green runs.", valueName: "version")) var targetVersion: String?
    @Option(name: .shortAndLong, help: ArgumentHelp("Write the plan here too.", valueName: "file")) var output: String?

    @Option(help: ArgumentHelp("Carry out one node's part of this plan.", valueName: "plan")) var apply: String?
    @Option(name: .customLong("as"), help: ArgumentHelp("The green node that this one is.", valueName: "uri")) var node: String?
    @Option(help: ArgumentHelp("Where the volume is restored to.", valueName: "path")) var target: String?
    @Option(help: ArgumentHelp("Owner of everything, instead of the stored numbers.", valueName: "user:group")) var owner: String?
    @Option(help: ArgumentHelp("Write a unit for the first start, which starts once and never again.", valueName: "file"))
    var unit: String?
    @Flag(help: "Go on with a restore that was cut off.") var resume = false

    func validate() throws {
        guard plan != (apply != nil) else { throw ValidationError("Give either --plan or --apply PLAN.") }
        if plan {
            guard (set != nil) != !snapshots.isEmpty else {
                throw ValidationError("Give --set NAME, or --snapshot for each node.")
            }
            guard !greens.isEmpty else { throw ValidationError("Give --green for each green node.") }
            if let targetVersion, ServerVersion(targetVersion) == nil {
                throw ValidationError("'\(targetVersion)' is no version: give one like 1.19.2.")
            }
        } else if node == nil || target == nil {
            throw ValidationError("--apply needs --as URI and --target PATH.")
        }
    }

    mutating func run() async throws {
        let repository = try await Session(options: global).open()
        if let apply { try await carryOut(try Self.read(apply), repository) } else { try await makePlan(repository) }
    }

    // MARK: - Plan

    private func makePlan(_ repository: Repository) async throws {
        var volumes: [ClusterVolume] = []
        for snapshot in try await chosen(repository) {
            let inspection = try await VolumeInspection.ofSnapshot(snapshot, in: repository, deep: true)
            volumes.append(ClusterVolume(snapshot, inspection))
        }
        let request = SeedPlan.Request(
            uris: greens, first: first, target: targetVersion.flatMap { ServerVersion($0) },
            architecture: CPUArchitecture.own)
        let plan = SeedPlan(volumes, request)
        if let output { try Self.write(plan, to: absolute(output)) }
        if global.json { try Output.document(plan) } else { SeedText(plan).print() }
        if plan.isRefused { throw ExitCode(BackupError.Code.damaged.exitStatus) }
    }

    /// The snapshots, one for each node, in the order of the green addresses: of a set, by the nodes' names.
    private func chosen(_ repository: Repository) async throws -> [Snapshot] {
        guard let set else {
            var chosen: [Snapshot] = []
            for text in snapshots { chosen.append(try await repository.select(text)) }
            return chosen
        }
        var found: [Snapshot] = []
        for name in try await repository.snapshotNames() {
            let snapshot = try await repository.snapshot(name)
            if snapshot.record.set == set { found.append(snapshot) }
        }
        guard let group = BackupSet.group(found).first else {
            throw BackupError(.noSnapshot, "there is no backup set \(set)", hint: "See 'bgbackup snapshots --sets'.")
        }
        return group.snapshots
    }

    private static func write(_ plan: SeedPlan, to path: String) throws {
        let encoder = JSONEncoder()
        encoder.outputFormatting = [.sortedKeys, .withoutEscapingSlashes, .prettyPrinted]
        let bytes = Array(try encoder.encode(plan)) + [UInt8(ascii: "\n")]
        guard LocalFile.replace(path, with: bytes) else {
            throw BackupError(.failed, "the plan cannot be written to \(path): \(String(cString: strerror(errno)))")
        }
    }

    // MARK: - Apply

    private static func read(_ path: String) throws -> SeedPlan {
        guard let bytes = LocalFile.read(absolute(path), limit: JSONValue.sizeLimit) else {
            throw BackupError(.failed, "cannot read the plan \(path)", hint: "Make it with 'bgbackup seed --plan … -o FILE'.")
        }
        do { return try JSONDecoder().decode(SeedPlan.self, from: Data(bytes)) } catch {
            throw BackupError(.usage, "\(path) is no plan of bgbackup", hint: "Make it with 'bgbackup seed --plan … -o FILE'.")
        }
    }

    private func carryOut(_ plan: SeedPlan, _ repository: Repository) async throws {
        guard !plan.isRefused else {
            let first = plan.objections.first { $0.severity == .refuses }
            throw BackupError(
                .damaged, "the plan was refused: \(first?.message ?? "")", hint: first?.remedy ?? "Make another plan.")
        }
        guard let mine = plan.nodes.first(where: { SeedPlan.same($0.uri, node ?? "") }) else {
            throw BackupError(
                .usage, "the plan has no node \(node ?? "")", hint: "It has \(plan.nodes.map(\.uri).joined(separator: ", ")).")
        }
        // The plan is a file that anybody may have edited: a shell and a unit get what is in it.
        guard SeedPlan.isAddress(mine.uri) else {
            throw BackupError(.usage, "'\(printable(mine.uri.utf8))' is no address of a node")
        }
        guard let id = mine.snapshot else {
            return try tell(mine, "this node begins empty: nothing is restored", warnings: [])
        }
        var options = RestoreOptions(target: absolute(target!))
        options.resume = resume
        options.dryRun = dry.dryRun
        options.owner = try owner.map { try RestoreCommand.parseOwner($0) }
        options.identity = .seeded(uri: mine.uri, isFirst: mine.isFirst)
        let board = ProgressBoard()
        let line = ProgressLine(board, global)
        defer { line.stop() }
        let report = try await RestoreRun(repository: repository, options: options, board: board)
            .run(try await repository.select(id))
        line.stop()
        for problem in report.problems { Terminal.note("bgbackup: \(problem)", .warning) }
        for warning in report.warnings { Terminal.note("bgbackup: warning: \(warning)", .warning) }
        if !dry.dryRun, let unit { try writeUnit(mine, to: absolute(unit)) }
        try tell(
            mine, "\(dry.dryRun ? "would restore" : "restored") snapshot \(id.prefix(8)) of \(mine.blue ?? "-") onto \(target!)",
            warnings: report.warnings)
        if !report.problems.isEmpty { throw ExitCode(BackupError.Code.incomplete.exitStatus) }
    }

    private struct Applied: Encodable {
        let message_type = "summary"
        let schema = 1
        let uri: String
        let snapshot_id: Nullable<String>
        let is_first: Bool
        let first_start: String
        let later_start: String
        let dry_run: Bool
        let warnings: [String]
    }

    private func tell(_ mine: SeedPlan.Node, _ what: String, warnings: [String]) throws {
        if global.json {
            try Output.document(
                Applied(
                    uri: mine.uri, snapshot_id: Nullable(mine.snapshot), is_first: mine.isFirst, first_start: mine.firstStart,
                    later_start: mine.laterStart, dry_run: dry.dryRun, warnings: warnings), lines: true)
            return
        }
        Output.line(what)
        Output.line("first start, once\(mine.isFirst ? ", before all others" : ", when those before it are ready"):")
        Output.line("  \(mine.firstStart)")
        Output.line("every later one:")
        Output.line("  \(mine.laterStart)")
    }

    /// A unit that starts Qdrant as the plan says, and refuses to do it again:
    /// the mark is made before the start, so that not even a crash repeats it.
    private func writeUnit(_ mine: SeedPlan.Node, to path: String) throws {
        let mark = "/var/lib/bgbackup/seeded-\(mine.peer.map { "\($0)" } ?? "empty")"
        let text = """
            # First start of \(mine.uri) in its new cluster, written by bgbackup. It works once:
            # afterwards start the node as it will always be started: \(mine.laterStart)

            [Unit]
            Description=Qdrant: first start as part of a new cluster
            ConditionPathExists=!\(mark)
            After=network-online.target
            Wants=network-online.target

            [Service]
            Type=exec
            ExecStartPre=/bin/mkdir -p /var/lib/bgbackup
            ExecStartPre=/usr/bin/touch \(mark)
            ExecStart=/usr/bin/\(mine.firstStart)
            Restart=no

            """
        guard LocalFile.replace(path, with: Array(text.utf8)) else {
            throw BackupError(.failed, "the unit cannot be written to \(path): \(String(cString: strerror(errno)))")
        }
    }
}

/// A plan as tables for people.
private struct SeedText {
    let plan: SeedPlan

    init(_ plan: SeedPlan) { self.plan = plan }

    func print() {
        if !plan.nodes.isEmpty {
            Output.table(
                ["ORDER", "BLUE", "SNAPSHOT", "PEER", "GREEN"],
                plan.nodes.enumerated().map { index, node in
                    [
                        "\(index + 1)", node.blue ?? "(empty)", node.snapshot.map { String($0.prefix(8)) } ?? "-",
                        node.peer.map { "\($0)" } ?? "-", node.uri,
                    ]
                }, right: [0])
            Output.line("")
            for (index, node) in plan.nodes.enumerated() { Output.line("\(index + 1). \(node.firstStart)") }
            Output.line("")
        }
        for skew in plan.skews {
            let replicas = skew.replicas.map {
                "\($0.node) ≈\($0.points.map { "\($0)" } ?? "?") points, \($0.ticks) ticks\($0.isNewest ? " (newest)" : "")"
            }
            Output.line("shard \(skew.shard) of \(skew.collection): \(replicas.joined(separator: "; "))")
        }
        for note in plan.notes { Output.line("· \(note)") }
        for objection in plan.objections {
            Output.line("\(objection.severity == .refuses ? "✗" : "!") \(printable(objection.message.utf8))")
            Output.line("  \(printable(objection.remedy.utf8))")
        }
        Output.line(plan.isRefused ? "The volumes do not make one cluster." : "The volumes fit together.")
    }
}
