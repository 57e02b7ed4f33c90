import ArgumentParser
import BackupBase
import BackupRepository

struct RepairCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "repair", abstract: "Mend what can be mended, and say what is lost.",
        discussion: """
            Rebuilds the index from the packs' trailers, and second copies of configuration and keys. What is readable of \
            damaged packs is stored anew, and each damaged snapshot gets a new one beside it, tagged 'repaired', without \
            the files that lost something: zeros never stand in for lost data. Packs and snapshots are never changed; the \
            damaged ones go when they are forgotten and pruned. --dry-run says first what would be done. Exit status 0: \
            everything is mended; 17: something is lost for good. See docs/repair.md.
            """)

    @OptionGroup var global: GlobalOptions
    @OptionGroup var dry: DryRunOption
    @Flag(help: "Read all data, as 'check --read-data' does: else only damage of trailers, manifests and whole packs is seen.")
    var readData = false
    @Option(help: ArgumentHelp("Second copy of the repository, from which what is lost here is fetched.", valueName: "url"))
    var from: String?

    mutating func run() async throws {
        let session = Session(options: global)
        let repository = try await session.open()
        var copy: Repository?
        if let from { copy = try await repository.secondCopy(at: try session.store(at: from)) }
        var options = Repair.Options()
        options.dryRun = dry.dryRun
        options.readData = readData
        let interactive = Terminal.isInteractive && !global.noProgress && !global.quiet && !global.json
        let report = try await Repair.run(repository, from: copy, options) { done, total in
            if interactive { Terminal.raw("\r\u{1b}[Krepair: pack \(done) of \(total)") }
        }
        if interactive { Terminal.raw("\r\u{1b}[K") }
        if global.json { try Output.document(RepairDocument(report, dryRun: dry.dryRun), lines: true) } else { print(report) }
        if report.isLossy { throw ExitCode(BackupError.Code.damaged.exitStatus) }
    }

    private func print(_ report: RepairReport) {
        let verb = dry.dryRun ? "would be" : "were"
        if !global.quiet {
            let index = report.index
            Output.line("\(index.packs) packs \(verb) indexed, \(index.damagedIndexes.count) damaged indexes \(verb) replaced")
            if !report.copies.isEmpty { Output.line("second copies \(verb) written: \(report.copies.joined(separator: ", "))") }
            for pack in report.packs {
                let done = pack.isRestored ? "it \(verb) put back whole" : "\(pack.blocksSaved) blocks \(verb) saved"
                let lost = pack.blocksLost > 0 ? ", \(pack.blocksLost) blocks are lost" : ""
                Output.line("DAMAGE  \(pack.name): \(pack.problem); \(done)\(lost)")
            }
        }
        for snapshot in report.snapshots { print(snapshot) }
        for (name, problem) in report.unreadable { Output.line("LOST    snapshot \(name.id) cannot be read: \(problem)") }
        guard !global.quiet else { return }
        if !dry.dryRun, !report.toForget.isEmpty {
            Output.line("The damaged snapshots stay until you forget them; then prune frees the damaged packs:")
            Output.line("  bgbackup forget \(report.toForget.map { "\("\($0)".prefix(8))" }.joined(separator: " "))")
            Output.line("  bgbackup prune")
        }
        let isClean = report.packs.isEmpty && report.snapshots.isEmpty && report.unreadable.isEmpty
        Output.line(
            report.isLossy
                ? "Something is lost."
                : isClean ? "Nothing is lost." : "Nothing is lost: all of it \(dry.dryRun ? "would be" : "was") mended.")
    }

    private func print(_ snapshot: RepairReport.Snapshot) {
        let id = "\(snapshot.damaged.id)".prefix(8)
        let result =
            snapshot.repaired.map { "snapshot \("\($0.id)".prefix(8)) has" }
            ?? snapshot.existing.map { "snapshot \("\($0.id)".prefix(8)) of an earlier repair has" }
            ?? "a new snapshot would have"
        Output.line(
            "DAMAGE  snapshot \(id) of \(printable(snapshot.node.utf8)): \(result)"
                + (snapshot.isLossy
                    ? " \(snapshot.filesKept) files of it, \(snapshot.filesLost.count) are lost" : " all of it"))
        for file in snapshot.filesLost {
            let ranges = file.ranges.prefix(8).map { "\($0.lowerBound)-\($0.upperBound)" }.joined(separator: ", ")
            let lost = file.ranges.reduce(0) { $0 + $1.upperBound - $1.lowerBound }
            Output.line(
                "LOST    \(printable(file.path))"
                    + (file.ranges.isEmpty
                        ? ": the file that it is another name of" : ": \(lost) of \(file.size) bytes, at \(ranges)")
                    + (file.ranges.count > 8 ? " and \(file.ranges.count - 8) more places" : ""))
        }
        for loss in snapshot.otherLosses { Output.line("LOST    \(loss)") }
    }
}

/// The report as JSON.
struct RepairDocument: Encodable {
    struct Pack: Encodable {
        let object: String
        let problem: String
        let blocks_saved: Int
        let blocks_lost: Int
        let put_back: Bool
    }
    struct File: Encodable {
        let path: String
        let size: Int64
        /// Pairs of first byte and the one after the last.
        let ranges: [[Int64]]
    }
    struct Snapshot: Encodable {
        let snapshot_id: String
        let node: String
        let repaired: Nullable<String>
        let files_kept: Int
        let files_lost: [File]
        let other_losses: [String]
    }
    struct Unreadable: Encodable {
        let snapshot_id: String
        let problem: String
    }

    let message_type = "summary"
    let schema = 1
    let packs_indexed: Int
    let indexes_replaced: [String]
    let indexes_written: Int
    let copies_repaired: [String]
    let packs_damaged: [String]
    let packs: [Pack]
    let snapshots: [Snapshot]
    let unreadable: [Unreadable]
    let to_forget: [String]
    let lost: Bool
    let dry_run: Bool

    init(_ report: RepairReport, dryRun: Bool) {
        packs_indexed = report.index.packs
        indexes_replaced = report.index.damagedIndexes
        indexes_written = report.index.written
        copies_repaired = report.copies
        packs_damaged = report.packs.map(\.name)
        packs = report.packs.map {
            Pack(
                object: $0.name, problem: $0.problem, blocks_saved: $0.blocksSaved, blocks_lost: $0.blocksLost,
                put_back: $0.isRestored)
        }
        snapshots = report.snapshots.map { snapshot in
            Snapshot(
                snapshot_id: "\(snapshot.damaged.id)", node: snapshot.node,
                repaired: Nullable((snapshot.repaired ?? snapshot.existing).map { "\($0.id)" }),
                files_kept: snapshot.filesKept,
                files_lost: snapshot.filesLost.map {
                    File(path: printable($0.path), size: $0.size, ranges: $0.ranges.map { [$0.lowerBound, $0.upperBound] })
                }, other_losses: snapshot.otherLosses)
        }
        unreadable = report.unreadable.map { Unreadable(snapshot_id: "\($0.name.id)", problem: $0.problem) }
        to_forget = report.toForget.map { "\($0)" }
        lost = report.isLossy
        dry_run = dryRun
    }
}
