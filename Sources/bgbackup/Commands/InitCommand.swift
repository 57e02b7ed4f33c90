import ArgumentParser
import BackupBase
import BackupRepository
import ObjectStorage

struct InitCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "init", abstract: "Create a repository and its keys.",
        discussion: """
            Without the password, or a writer key, nobody can use the repository: keep it in two places. An object \
            store is tried first, and what it really does is recorded (see 'bgbackup help repo probe'); its bucket \
            must exist. Options of an s3:// URL follow a question mark, joined by &, as in \
            's3://BUCKET/PREFIX?endpoint=https://HOST&class=STANDARD_IA':

            \(S3Place.options.map { "  \($0.name): \($0.meaning)" }.joined(separator: "\n"))
            """)

    @OptionGroup var global: GlobalOptions

    struct Summary: Encodable {
        let message_type = "summary"
        let schema = 1
        let repository: String
        let location: String
    }

    mutating func run() async throws {
        let session = Session(options: global)
        let repository = try await session.create(password: try await session.password(new: true), label: "first")
        if global.json {
            try Output.document(Summary(repository: "\(repository.id)", location: repository.store.location), lines: true)
        } else if !global.quiet {
            Output.line("repository \(repository.id) created at \(repository.store.location)")
            Output.line("Keep the password safe: without it nothing can be restored.")
        }
    }
}
