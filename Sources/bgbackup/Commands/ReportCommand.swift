import ArgumentParser
import BackupBase
import BackupRepository
import Glibc
import Operations

struct ReportCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "report", abstract: "One HTML page: what is kept, what it costs, what changed, what was proven.",
        discussion: """
            Reads the snapshots' records and notes, and what prunes on this node counted; no data. The page needs no other \
            file and no script. With --json the same as a document on stdout.
            """)

    @OptionGroup var global: GlobalOptions
    @Option(
        name: .shortAndLong,
        help: ArgumentHelp(
            "Where the page is written; - is stdout (default: report.html in the state directory).", valueName: "file"))
    var output: String?

    mutating func run() async throws {
        let session = Session(options: global)
        let repository = try await session.open()
        let history = session.stateDirectory.map { RunHistory(stateDirectory: $0) }
        let url = global.repository ?? Session.environment("BGBACKUP_REPOSITORY") ?? ""
        let report = try await RepositoryReport.make(repository, place: RunRecord.publicPlace(url), history: history)
        if global.json {
            try Output.document(report)
        } else if output == "-" {
            Output.line(report.page)
        } else {
            guard let path = output.map(absolute) ?? session.stateDirectory.map({ "\($0)/report.html" }) else {
                throw BackupError(.usage, "there is no place for the page", hint: "Give --output.")
            }
            guard LocalFile.replace(path, with: Array(report.page.utf8)) else {
                throw BackupError(.failed, "cannot write \(path): \(String(cString: strerror(errno)))")
            }
            if !global.quiet { Output.line("the report is \(path)") }
        }
        guard let first = report.problems.first else { return }
        // The document has them.
        guard !global.json else { throw ExitCode(BackupError.Code.damaged.exitStatus) }
        throw BackupError(.damaged, first, hint: "See 'bgbackup check'.")
    }
}
