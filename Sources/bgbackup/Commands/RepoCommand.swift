import ArgumentParser
import BackupBase
import BackupRepository
import ObjectStorage

struct RepoCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "repo", abstract: "Look after the repository's store.",
        subcommands: [Probe.self, Stats.self, Policy.self, ExtendLocks.self, Claim.self])

    struct Probe: AsyncParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "Find out what the store really does.",
            discussion: """
                Writes, reads back, lists, overwrites and removes small objects below tmp/ and compares what comes back \
                with what was written, whatever the store answers. With the password the result is recorded in the \
                repository, where 'init' recorded the first one. Exit status 1: no repository can be kept there.
                """)
        @OptionGroup var global: GlobalOptions
        @OptionGroup var dry: DryRunOption

        struct Line: Encodable {
            let name: String
            let holds: Bool
            let needed: Bool
            let detail: String
        }

        struct Document: Encodable {
            let message_type = "summary"
            let schema = 1
            let location: String
            let usable: Bool
            let shared: Bool
            let recorded: Bool
            let clock_offset_seconds: Double
            let results: [Line]
        }

        mutating func run() async throws {
            let session = Session(options: global)
            let store = try session.store()
            let probe = try await StoreProbe.run(store)
            let recorded = try await record(probe, session)
            let shared = probe.record["conditionalCreate"] == "yes" && probe.record["conditionalReplace"] == "yes"
            if global.json {
                let lines = probe.results.map { Line(name: $0.name, holds: $0.holds, needed: $0.isNeeded, detail: $0.detail) }
                try Output.document(
                    Document(
                        location: store.location, usable: probe.isUsable, shared: shared, recorded: recorded,
                        clock_offset_seconds: rounded(Double(probe.clockOffset) / 1e9), results: lines), lines: true)
            } else if !global.quiet {
                for result in probe.results {
                    Output.line("\(result.holds ? "yes" : result.isNeeded ? "NO " : "no ")  \(result.name): \(result.detail)")
                }
                Output.line(
                    !probe.isUsable
                        ? "No repository can be kept at \(store.location)."
                        : shared
                            ? "\(store.location) can hold a repository that several nodes write to."
                            : "\(store.location) can hold a repository that one node writes to: use a prefix for each node.")
                if recorded { Output.line("The result is recorded in the repository.") }
            }
            if !probe.isUsable { throw ExitCode(BackupError.Code.storeFailed.exitStatus) }
        }

        /// Records the result, where there is a repository and its password is at hand.
        private func record(_ probe: StoreProbe, _ session: Session) async throws -> Bool {
            guard !dry.dryRun, probe.isUsable, options(session) else { return false }
            do {
                return try await session.open().record(probe: probe.record)
            } catch let error as BackupError where error.code == .noRepository {
                return false
            }
        }

        private func options(_ session: Session) -> Bool { global.passwordFile != nil || session.hasPassword }
    }

    struct Policy: AsyncParsableCommand {
        static let configuration = CommandConfiguration(
            commandName: "iam-policy", abstract: "Print the AWS IAM policy of a role, for the bucket and prefix of the URL.",
            discussion: """
                writer: a node; it creates objects and can neither delete nor overwrite them nor shorten a lock. \
                keeper: another host; init, repair, locks. restorer: reads. Asks nothing of the store. With lock and \
                lock-for in the URL the writer may set locks while it creates.
                """)
        @OptionGroup var global: GlobalOptions
        @Option(help: "writer, keeper or restorer.") var role: AccessPolicy.Role

        mutating func run() async throws {
            guard let store = try Session(options: global).store() as? S3Store else {
                throw BackupError(.usage, "only a store at AWS has IAM policies", hint: "Give s3://BUCKET/PREFIX.")
            }
            Output.line(try AccessPolicy(store.place, role: role).json())
        }
    }

    struct ExtendLocks: AsyncParsableCommand {
        static let configuration = CommandConfiguration(
            commandName: "extend-locks", abstract: "Keep what snapshots need locked for the URL's lock-for from now on.",
            discussion: "Locks end while snapshots go on referring to old packs: run this daily, with the keeper's keys.")
        @OptionGroup var global: GlobalOptions
        @OptionGroup var dry: DryRunOption

        struct Summary: Encodable {
            let message_type = "summary"
            let schema = 1
            let objects_needed: Int
            let locks_extended: Int
            let horizon: Nullable<String>
            let dry_run: Bool
        }

        mutating func run() async throws {
            let repository = try await Session(options: global).open()
            let interactive = Terminal.isInteractive && !global.noProgress && !global.quiet && !global.json
            let report = try await LockExtension(repository).run(dryRun: dry.dryRun) { done, total in
                if interactive { Terminal.raw("\r\u{1b}[Kextending locks: \(done) of \(total)") }
            }
            if interactive { Terminal.raw("\r\u{1b}[K") }
            let words = LockReport(report, dryRun: dry.dryRun)
            if global.json {
                return try Output.document(
                    Summary(
                        objects_needed: report.needed, locks_extended: report.extended, horizon: Nullable(words.horizon),
                        dry_run: dry.dryRun), lines: true)
            }
            guard !global.quiet else { return }
            Output.line(words.text)
        }
    }

    struct Claim: AsyncParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "Show which node writes to a store without conditional writes, or become that node.",
            discussion: """
                Where conditional writes do not hold ('bgbackup repo probe'), one node writes to one prefix. \
                --take-over makes this node the one: the other must have stopped for good.
                """)
        @OptionGroup var global: GlobalOptions
        @OptionGroup var dry: DryRunOption
        @Flag(help: "Take other nodes' claims away.") var takeOver = false

        struct Document: Encodable {
            let shared: Bool
            let claims: [String]
            let removed: [String]
        }

        mutating func run() async throws {
            let repository = try await Session(options: global).open()
            let before = try await repository.claims()
            let removed = takeOver && !dry.dryRun && !repository.isShared ? try await repository.takeOverClaim() : []
            let claims = try await repository.claims()
            if global.json {
                return try Output.document(Document(shared: repository.isShared, claims: claims, removed: removed))
            }
            if repository.isShared { return Output.line("several nodes may write here: no claim is needed") }
            if takeOver, dry.dryRun { return Output.line("would take away: \(before.joined(separator: "; "))") }
            for node in removed { Output.line("taken away: \(node)") }
            Output.line(claims.isEmpty ? "no node has written here yet" : "writer: \(claims.joined(separator: "; "))")
        }
    }
}

extension AccessPolicy.Role: ExpressibleByArgument {}
