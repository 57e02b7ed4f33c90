import ArgumentParser
import BackupBase
import QdrantStorage

struct ValidateCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "validate", abstract: "Compare two running clusters before traffic moves from one to the other.",
        discussion: """
            Reads both through one node of each and changes nothing. Compares collections, aliases, configuration, payload \
            schema, exact counts by collection and by shard, payload and vectors of sampled points, and searches: the \
            user's own (--queries), or for sampled vectors. Looks whether green is done with indexing, all its replicas \
            are active, and neither cluster knows an address of the other. Stop writes to blue before: what changes \
            meanwhile differs.

            A queries file has one JSON object per line: "collection", "vector" (of any kind) or "id", and, if wanted, \
            "using", "filter" and "limit".

            Exit status 16 says that green must not take over, with the first reason; 1 that a server did not answer, or \
            not as Qdrant does, so that nothing was proved.
            """)

    @OptionGroup var global: GlobalOptions

    @Option(help: ArgumentHelp("REST address of a node of the cluster that serves now.", valueName: "url"))
    var blue: String

    @Option(help: ArgumentHelp("REST address of a node of the cluster that is to take over.", valueName: "url"))
    var green: String

    @Option(
        help: ArgumentHelp("File that holds blue's API key (or the credential bgbackup.blue-api-key).", valueName: "file"))
    var blueApiKeyFile: String?

    @Option(
        help: ArgumentHelp("File that holds green's API key (or the credential bgbackup.green-api-key).", valueName: "file"))
    var greenApiKeyFile: String?

    @Option(help: ArgumentHelp("Searches of your own, as JSON Lines.", valueName: "file"))
    var queries: String?

    @Option(help: ArgumentHelp("Points of each collection to compare.", valueName: "count"))
    var samples = 100

    @Option(help: ArgumentHelp("Results of each search to compare.", valueName: "count"))
    var top = 10

    @Option(help: ArgumentHelp("Share of blue's results that an exact search on green has to find.", valueName: "share"))
    var minOverlap = 1.0

    @Option(help: ArgumentHelp("By how much scores and vectors may differ, relative to their size.", valueName: "share"))
    var tolerance = 1e-5

    @Option(help: ArgumentHelp("Certificates to trust instead of the system's, as PEM.", valueName: "file"))
    var caFile: String?

    @Option(help: ArgumentHelp("Write a report for a browser, in one file.", valueName: "file"))
    var html: String?

    func validate() throws {
        guard (0...100_000).contains(samples) else { throw ValidationError("--samples is between 0 and 100000.") }
        guard (1...10_000).contains(top) else { throw ValidationError("--top is between 1 and 10000.") }
        guard (0...1).contains(minOverlap) else { throw ValidationError("--min-overlap is between 0 and 1.") }
        guard tolerance >= 0, tolerance < 1 else { throw ValidationError("--tolerance is at least 0 and below 1.") }
    }

    mutating func run() async throws {
        let session = Session(options: global)
        var options = ValidationOptions()
        (options.samples, options.top, options.minOverlap, options.tolerance) = (samples, top, minOverlap, tolerance)
        if let queries { options.queries = try Self.queries(in: absolute(queries)) }
        let blue = try session.qdrant(at: blue, keyFile: blueApiKeyFile, credential: "bgbackup.blue-api-key", caFile: caFile)
        let green = try session.qdrant(at: green, keyFile: greenApiKeyFile, credential: "bgbackup.green-api-key", caFile: caFile)
        let started = Ambient.system.now()
        let clock = monotonicSeconds()
        let validation = try ClusterComparison.run(blue: blue, green: green, options)
        let report = ValidationReport(validation, started: formatTime(started), seconds: monotonicSeconds() - clock)
        if let html {
            guard LocalFile.replace(absolute(html), with: Array(report.page.utf8)) else {
                throw BackupError(
                    .failed, "cannot write \(printable(html.utf8))", hint: "Its directory must exist and be writable.")
            }
        }
        if global.json { try Output.document(report) } else { report.print(quiet: global.quiet, verbose: global.verbose) }
        guard let failure = validation.firstFailure else { return }
        Terminal.note("bgbackup: validation failed: \(printable(failure.reason.utf8))")
        throw ExitCode(BackupError.Code.drillFailed.exitStatus)
    }

    private static let queriesLimit = 64 << 20

    private static func queries(in path: String) throws -> [UserQuery] {
        guard let bytes = LocalFile.read(path, limit: queriesLimit) else {
            throw BackupError(
                .usage, "cannot read the queries in \(printable(path.utf8))",
                hint: "Give a file of up to 64 MiB, one JSON object per line.")
        }
        let queries = try UserQuery.parse(bytes)
        guard !queries.isEmpty else { throw BackupError(.usage, "there is no query in \(printable(path.utf8))") }
        return queries
    }
}

extension Session {
    /// A client of a Qdrant server; nothing is asked of it yet.
    /// - Parameters:
    ///   - keyFile: holds the API key; nil: the credential, where there is one
    ///   - caFile: certificates to trust instead of the system's
    ///   - timeout: seconds for one call
    func qdrant(
        at url: String, keyFile: String?, credential name: String, caFile: String? = nil, timeout: Double = 60
    ) throws -> QdrantClient {
        let address = try QdrantAddress(url)
        var key: SecretText?
        if let path = keyFile.map(absolute) ?? credential(name) {
            let bytes = try secret(in: path)
            let text = String(decoding: bytes, as: UTF8.self)
            key = SecretText(String(text.trimmingPrefix { $0.isWhitespace }.reversed().drop { $0.isWhitespace }.reversed()))
        }
        let certificates = caFile.map(absolute)
        if let certificates, LocalFile.read(certificates, limit: 16 << 20) == nil {
            throw BackupError(.usage, "cannot read the certificates in \(printable(certificates.utf8))")
        }
        return try QdrantClient(address, key: key, certificates: certificates, timeout: timeout)
    }
}
