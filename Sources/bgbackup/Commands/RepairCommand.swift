import ArgumentParser
import BackupBase
import BackupRepository

struct RepairCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "repair", abstract: "Rebuild the index and second copies; with --salvage, save what is readable.",
        discussion: """
            Rebuilds the index from the packs' trailers, and second copies of configuration and keys. Packs and snapshots \
            are never changed; index objects that cannot be read are replaced. --dry-run says first what would be done. \
            Exit status 17: something was not mended.

            --salvage stores anew what is readable of damaged packs, and makes for each damaged snapshot another one, \
            tagged 'repaired', without the files that lost something: zeros never stand in for lost data. Nothing of the \
            damaged ones is taken away: keep them until what you need is restored. A store that does not answer ends it: \
            only what is surely damaged counts as lost.
            """)

    @OptionGroup var global: GlobalOptions
    @OptionGroup var dry: DryRunOption
    @Flag(help: "Save what is readable of damaged packs and snapshots.") var salvage = false
    @Flag(help: "Read all data, as 'check --read-data' does: else only damage of trailers, manifests and whole packs is seen.")
    var readData = false
    @Option(help: ArgumentHelp("Second copy of the repository, from which what is lost here is fetched.", valueName: "url"))
    var from: String?

    func validate() throws {
        if !salvage, readData || from != nil { throw ValidationError("--read-data and --from belong to --salvage.") }
    }

    mutating func run() async throws {
        let session = Session(options: global)
        let repository = try await session.open()
        guard salvage else { return try await rebuild(repository) }
        var copy: Repository?
        if let from { copy = try await repository.secondCopy(at: try session.store(at: from)) }
        var options = Repair.Options()
        options.dryRun = dry.dryRun
        options.readData = readData
        options.cacheDirectory = session.cacheDirectory
        let interactive = Terminal.isInteractive && !global.noProgress && !global.quiet && !global.json
        let report = try await Repair.run(repository, from: copy, options) { done, total in
            if interactive { Terminal.raw("\r\u{1b}[Krepair: pack \(done) of \(total)") }
        }
        if interactive { Terminal.raw("\r\u{1b}[K") }
        if global.json { try Output.document(RepairDocument(report, dryRun: dry.dryRun), lines: true) } else { print(report) }
        if report.isLossy { throw ExitCode(BackupError.Code.damaged.exitStatus) }
    }

    /// Index and second copies only.
    private func rebuild(_ repository: Repository) async throws {
        var report = RepairReport()
        (report.copies, report.unmended) = try await repository.repairCopies(dryRun: dry.dryRun)
        report.index = try await repository.reindex(dryRun: dry.dryRun)
        report.packs = report.index.damagedPacks.map { RepairReport.Pack(name: $0, problem: "its trailer cannot be read") }
        if global.json {
            try Output.document(RepairDocument(report, dryRun: dry.dryRun), lines: true)
        } else {
            printIndex(report)
            for problem in report.unmended { Output.line("DAMAGE  \(problem)") }
        }
        guard report.packs.isEmpty, report.unmended.isEmpty else {
            for pack in report.packs where !global.json { Output.line("DAMAGE  \(pack.name): \(pack.problem)") }
            throw ExitCode(BackupError.Code.damaged.exitStatus)
        }
    }

    private func printIndex(_ report: RepairReport) {
        guard !global.quiet else { return }
        let verb = dry.dryRun ? "would be" : "were"
        let index = report.index
        Output.line("\(index.packs) packs \(verb) indexed, \(index.damagedIndexes.count) damaged indexes \(verb) replaced")
        if !report.copies.isEmpty { Output.line("second copies \(verb) written: \(report.copies.joined(separator: ", "))") }
    }

    private func print(_ report: RepairReport) {
        if !global.quiet {
            if report.index.packs > 0 || !report.index.damagedIndexes.isEmpty || !report.copies.isEmpty { printIndex(report) }
            if report.wholeAgain > 0 {
                Output.line("\(report.wholeAgain) packs that were marked as damaged are whole: the mark was taken back")
            }
            for pack in report.packs { Output.line("DAMAGE  \(pack.name): \(pack.problem); \(outcome(pack))") }
        }
        for problem in report.unmended { Output.line("DAMAGE  \(problem)") }
        for snapshot in report.snapshots { print(snapshot) }
        for (name, problem) in report.unreadable { Output.line("LOST    snapshot \(name.id) cannot be read: \(problem)") }
        for (name, problem) in report.refused { Output.line("REFUSED snapshot \(name.id): \(problem)") }
        guard !global.quiet else { return }
        if !dry.dryRun { printForget(report) }
        let isLost = report.snapshots.contains(where: \.isLossy) || !report.unreadable.isEmpty || !report.refused.isEmpty
        let isClean = report.packs.isEmpty && report.snapshots.isEmpty && report.unreadable.isEmpty && report.refused.isEmpty
        Output.line(
            isLost
                ? "Something is lost."
                : isClean
                    ? "Nothing lost was found\(readData ? "" : "; data was not read (--read-data)")."
                    : "Nothing is lost: all of it \(dry.dryRun ? "would be" : "was") mended\(readData ? "" : "; data was not read (--read-data)")."
        )
    }

    private func outcome(_ pack: RepairReport.Pack) -> String {
        if pack.isRestored { return "it \(dry.dryRun ? "would be" : "was") put back whole from the second copy" }
        let all = pack.blocksSaved + pack.blocksLost
        guard all > 0 else { return "nobody knows what it held" }
        if pack.blocksSaved == 0 { return "all that it held is lost" }
        return pack.blocksLost == 0 ? "nothing that it held is lost" : "lost of its blocks: \(pack.blocksLost) of \(all)"
    }

    private func printForget(_ report: RepairReport) {
        guard !report.toForget.isEmpty else { return }
        Output.line(
            "The damaged snapshots and packs stay. Restore what you need before you forget any; then these end the reports of them:"
        )
        Output.line("    bgbackup forget \(report.toForget.map { "\("\($0)".prefix(8))" }.joined(separator: " "))")
        Output.line("    bgbackup prune")
    }

    private func print(_ snapshot: RepairReport.Snapshot) {
        let name = "snapshot \("\(snapshot.damaged.id)".prefix(8)) of \(printable(snapshot.node.utf8))"
        let place =
            snapshot.repaired.map { "snapshot \("\($0.id)".prefix(8)) has" }
            ?? snapshot.existing.map { "snapshot \("\($0.id)".prefix(8)) of an earlier repair has" }
            ?? "a new snapshot would have"
        let amount =
            !snapshot.isLossy
            ? "all of it"
            : snapshot.filesLost.isEmpty ? "what is left of it" : "all of it but files: \(snapshot.filesLost.count)"
        Output.line("DAMAGE  \(name): \(snapshot.isNothingLeft ? "nothing of it is left" : "\(place) \(amount)")")
        for file in snapshot.filesLost { Output.line("LOST    \(printable(file.path)): \(loss(of: file))") }
        for loss in snapshot.otherLosses { Output.line("LOST    \(loss)") }
    }

    private func loss(of file: RepairReport.LostFile) -> String {
        if file.ranges.isEmpty { return "it is another name of a file that is lost" }
        let ranges = file.ranges.prefix(8).map { "\($0.lowerBound)-\($0.upperBound)" }.joined(separator: ", ")
        let more = file.ranges.count > 8 ? " and \(file.ranges.count - 8) more places" : ""
        return "\(file.ranges.reduce(0) { $0 + $1.upperBound - $1.lowerBound }) of \(file.size) bytes, at \(ranges)\(more)"
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
    let copies_unmended: [String]
    let packs_damaged: [String]
    let packs: [Pack]
    let snapshots: [Snapshot]
    let unreadable: [Unreadable]
    let refused: [Unreadable]
    let packs_whole_again: Int
    let to_forget: [String]
    let lost: Bool
    let dry_run: Bool

    init(_ report: RepairReport, dryRun: Bool) {
        packs_indexed = report.index.packs
        indexes_replaced = report.index.damagedIndexes
        indexes_written = report.index.written
        copies_repaired = report.copies
        copies_unmended = report.unmended
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
        refused = report.refused.map { Unreadable(snapshot_id: "\($0.name.id)", problem: $0.problem) }
        packs_whole_again = report.wholeAgain
        to_forget = report.toForget.map { "\($0)" }
        lost = report.isLossy
        dry_run = dryRun
    }
}
