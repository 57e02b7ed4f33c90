import ArgumentParser
import BackupBase
import BackupEngine

struct WarmCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "warm", abstract: "Bring a restored volume into memory, beside a database that starts on it.",
        discussion: """
            A database maps its vectors, and waits for the disk at every piece that it touches for the first time. This \
            brings the files into the page cache in the order in which a start wants them: vectors, everything else, the \
            log. Start it with the database, not before: 'bgbackup warm DIR & systemctl start qdrant'. It writes nothing, \
            needs no repository, and leaves the volume alone where four fifths of the available memory do not hold it \
            (exit status 1).
            """)

    @OptionGroup var global: GlobalOptions
    @Argument(help: "Storage directory.") var path: String

    struct Document: Encodable {
        let path: String
        let bytes_warmed: Int64
        let duration_seconds: Double
    }

    mutating func run() async throws {
        let clock = monotonicSeconds()
        let outcome = try await VolumeWarmth(on: Session.executor).run(absolute(path))
        if let warning = outcome.warning {
            throw BackupError(.failed, warning, hint: "The database starts without it, and later.")
        }
        let seconds = monotonicSeconds() - clock
        if global.json {
            try Output.document(Document(path: path, bytes_warmed: outcome.bytes, duration_seconds: seconds))
        } else if !global.quiet {
            Output.line("\(formatBytes(outcome.bytes)) of \(path) are in memory, after \(formatDuration(seconds))")
        }
    }
}
