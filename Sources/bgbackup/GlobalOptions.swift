import ArgumentParser
import BackupBase

/// Options of every command that works on a repository.
struct GlobalOptions: ParsableArguments {
    @Option(
        name: [.customShort("r"), .customLong("repository")],
        help: ArgumentHelp(
            "Where the repository is: a path, file:///path or s3://bucket/prefix (or BGBACKUP_REPOSITORY).", valueName: "url"))
    var repository: String?

    @Option(help: ArgumentHelp("File that holds the password (or BGBACKUP_PASSWORD_FILE).", valueName: "file"))
    var passwordFile: String?

    @Option(help: ArgumentHelp("Send at most so much a second to an s3:// store, for example 20MiB.", valueName: "bytes"))
    var limitUpload: String?

    @Option(help: ArgumentHelp("Fetch at most so much a second from an s3:// store.", valueName: "bytes"))
    var limitDownload: String?

    @Flag(help: "Print JSON: one document, or JSON Lines for long work.")
    var json = false

    @Flag(name: [.customShort("q"), .customLong("quiet")], help: "Print results and errors only.")
    var quiet = false

    @Flag(name: [.customShort("v"), .customLong("verbose")], help: "Print more.")
    var verbose = false

    @Flag(help: "Show no progress.")
    var noProgress = false

    mutating func validate() throws { Output.useJSON(json) }
}

/// -n of commands that change something.
struct DryRunOption: ParsableArguments {
    @Flag(name: [.customShort("n"), .customLong("dry-run")], help: "Say what would be done and change nothing.")
    var dryRun = false
}
