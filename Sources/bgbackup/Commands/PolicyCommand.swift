import ArgumentParser
import BackupBase
import Operations

struct PolicyCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "policy", abstract: "Read policy files, which say what is backed up, when, and how long it is kept.",
        discussion: """
            Policies are YAML files in $BGBACKUP_CONFIG/policies, or /etc/bgbackup/policies; one is named by its name or by \
            the path of its file. 'bgbackup backup --policy NAME --schedule S' makes the backup that a schedule asks for.
            """,
        subcommands: [
            PolicyValidateCommand.self, PolicyShowCommand.self, PolicySchemaCommand.self, PolicyNextCommand.self,
            PolicyInstallCommand.self, PolicyUninstallCommand.self,
        ])

    static var library: PolicyLibrary { PolicyLibrary(configuration: Session.environment("BGBACKUP_CONFIG")) }

    /// Tells an issue on stderr, as compilers do.
    static func tell(_ issue: PolicyIssue) { Terminal.note("\(issue)") }
}

/// -q and --json of commands that need no repository.
struct PolicyOutput: ParsableArguments {
    @Flag(help: "Print JSON.") var json = false
    @Flag(name: [.customShort("q"), .customLong("quiet")], help: "Print results and errors only.") var quiet = false

    mutating func validate() throws { Output.useJSON(json) }
}

struct PolicyValidateCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "validate", abstract: "Say all that is wrong with policy files.",
        discussion: """
            Without a name: all there are. Each error is FILE:LINE:COLUMN, what is wrong, and what to write instead; so are \
            warnings, which do not count. Where systemd-analyze is installed it is asked whether it takes each calendar \
            expression. Exit status 64: something is wrong.
            """)

    @OptionGroup var output: PolicyOutput
    @Argument(help: "Names or paths of policies.") var policies: [String] = []

    struct Document: Encodable {
        struct Issue: Encodable {
            let severity: PolicyIssue.Severity
            let line: Int?
            let column: Int?
            let message: String
            let suggestion: String?

            init(_ issue: PolicyIssue) {
                severity = issue.severity
                if case .file(let line, let column) = issue.origin {
                    (self.line, self.column) = (line, column)
                } else {
                    (line, column) = (nil, nil)
                }
                message = issue.message
                suggestion = issue.suggestion
            }
        }
        struct File: Encodable {
            let file: String
            let name: Nullable<String>
            let valid: Bool
            let issues: [Issue]
        }
        let schema = 1
        let valid: Bool
        let files: [File]
    }

    mutating func run() async throws {
        let library = PolicyCommand.library
        let paths = try policies.isEmpty ? library.files : policies.map { try library.path(of: $0) }
        guard !paths.isEmpty else {
            throw BackupError(.usage, "there is no policy in \(library.directory)", hint: "Give the path of a policy file.")
        }
        var files: [Document.File] = []
        var names: [String: String] = [:]
        var failure: BackupError?
        for path in paths {
            let file = try PolicyFile(path: path)
            var issues = file.errors + file.warnings
            if let policy = file.policy {
                issues += await calendarIssues(file, policy)
                if let other = names[policy.name], other != path {
                    issues.append(
                        PolicyIssue(
                            file: path, severity: .error,
                            origin: file.settings.first { $0.path == "metadata.name" }?.origin ?? .byDefault,
                            message: "\(printable(other.utf8)) has the name '\(policy.name)' too",
                            suggestion: "give each policy a name of its own"))
                }
                names[policy.name] = names[policy.name] ?? path
            }
            let errors = issues.filter { $0.severity == .error }
            if !errors.isEmpty, failure == nil {
                failure = BackupError(
                    .wrongPolicy,
                    "the policy \(printable(path.utf8)) has \(errors.count == 1 ? "1 error" : "\(errors.count) errors")")
            }
            files.append(
                Document.File(
                    file: path, name: Nullable(file.policy?.name), valid: errors.isEmpty,
                    issues: issues.map { Document.Issue($0) }))
            if !output.json { show(path, file.policy, errors, issues.filter { $0.severity == .warning }) }
        }
        if output.json {
            try Output.document(Document(valid: failure == nil, files: files))
            if let failure { throw ExitCode(failure.code.exitStatus) }
        }
        if let failure { throw failure }
    }

    private func show(_ path: String, _ policy: Policy?, _ errors: [PolicyIssue], _ warnings: [PolicyIssue]) {
        for issue in errors.prefix(PolicyIssue.most) + warnings { PolicyCommand.tell(issue) }
        if errors.count > PolicyIssue.most { Terminal.note("\(path): and \(errors.count - PolicyIssue.most) more errors") }
        guard errors.isEmpty, let policy, !output.quiet else { return }
        let count = policy.schedules.count == 1 ? "1 schedule" : "\(policy.schedules.count) schedules"
        Output.line("\(printable(path.utf8)): valid, policy \(policy.name), \(count)\(policy.paused ? ", paused" : "")")
    }

    /// What systemd itself says of each expression; nothing where there is none.
    private func calendarIssues(_ file: PolicyFile, _ policy: Policy) async -> [PolicyIssue] {
        var issues: [PolicyIssue] = []
        let settings = file.settings.filter { $0.path.hasSuffix(".onCalendar") }
        for setting in settings {
            do {
                let forecast = try await CalendarForecast(setting.text, count: 1)
                guard forecast.moments.isEmpty else { continue }
                issues.append(
                    PolicyIssue(
                        file: file.path, severity: .warning, origin: setting.origin,
                        message: "\(setting.path): '\(setting.text)' is never again", suggestion: nil))
            } catch let error as BackupError where error.code == .wrongPolicy {
                issues.append(
                    PolicyIssue(
                        file: file.path, severity: .error, origin: setting.origin, message: "\(setting.path): \(error)",
                        suggestion: nil))
            } catch { return [] }
        }
        return issues
    }
}

struct PolicyShowCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "show", abstract: "Print a policy's effective values, and where each comes from.",
        discussion: "With --json: the effective policy, as each snapshot stores it, and the origins by key.")

    @OptionGroup var output: PolicyOutput
    @Argument(help: "Name or path of a policy.") var policy: String

    mutating func run() throws {
        let (policy, file) = try PolicyCommand.library.load(self.policy, report: PolicyCommand.tell)
        if output.json {
            let origins = file.settings.map { ($0.path, JSONText.text("\($0.origin)")) }
            let document: JSONText = .object([
                ("schema", .literal("1")), ("file", .text(file.path)), ("policy", .literal(file.document)),
                ("origins", .object(origins)),
            ])
            return Output.line(document.compact)
        }
        if !output.quiet { Output.line("policy \(policy.name) of \(printable(file.path.utf8))") }
        Output.table(["KEY", "VALUE", "FROM"], file.settings.map { [printable($0.path.utf8), $0.text, "\($0.origin)"] })
    }
}

struct PolicySchemaCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "schema", abstract: "Print the JSON Schema of policy files (draft 2020-12).",
        discussion: """
            Editors complete and check with it: put '# yaml-language-server: $schema=policy.schema.json' into the first line \
            of a policy. It knows keys, kinds and units; what several keys together mean only 'policy validate' tells.
            """)

    mutating func run() throws { Output.line(PolicySchema.json.pretty) }
}

struct PolicyNextCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "next", abstract: "Print when the jobs of a policy run next, as systemd computes it.",
        discussion: """
            Without a name: those of all policies. Local time; with --json UTC. TIMER says whether systemd will: a job that is \
            not installed runs at none of these times.
            """)

    @OptionGroup var output: PolicyOutput
    @Argument(help: "Name or path of a policy.") var policy: String?
    @Option(name: .customShort("n"), help: ArgumentHelp("Runs of each job.", valueName: "count")) var count = 1

    struct Row: Encodable {
        let policy: String
        let paused: Bool
        let job: Policy.Job.Kind
        let name: Nullable<String>
        let on_calendar: String
        let timer: TimerState
        let next: [String]

        /// For people.
        var state: String {
            if paused { return "paused" }
            switch timer {
            case .active: return "active"
            case .disabled, .missing: return "not installed"
            case .unknown: return "?"
            }
        }
    }

    func validate() throws {
        guard (1...1000).contains(count) else { throw ValidationError("-n is between 1 and 1000.") }
    }

    mutating func run() async throws {
        let library = PolicyCommand.library
        let names = policy.map { [$0] } ?? library.files
        guard !names.isEmpty else {
            throw BackupError(.usage, "there is no policy in \(library.directory)", hint: "Give the path of a policy file.")
        }
        var rows: [(row: Row, local: [String])] = []
        for name in names {
            let (policy, _) = try library.load(name, report: PolicyCommand.tell)
            let timers = await TimerStates.ask([policy])[policy.name] ?? [:]
            for job in policy.jobs {
                let forecast = try await CalendarForecast(job.onCalendar, count: count)
                let row = Row(
                    policy: policy.name, paused: policy.paused, job: job.kind, name: Nullable(job.name),
                    on_calendar: job.onCalendar, timer: timers[TimerStates.title(job)] ?? .unknown, next: forecast.moments)
                rows.append((row, forecast.local))
            }
        }
        if output.json { return try Output.document(rows.map(\.row)) }
        // One line for each run, the soonest first.
        var lines: [(moment: String, cells: [String])] = []
        for (row, local) in rows {
            let cells = [row.policy, row.job.rawValue, row.name.value ?? "-", row.state, row.on_calendar]
            if local.isEmpty { lines.append(("~", ["never"] + cells)) }
            for (moment, text) in zip(row.next, local) { lines.append((moment, [text] + cells)) }
        }
        let sorted = lines.enumerated().sorted { ($0.element.moment, $0.offset) < ($1.element.moment, $1.offset) }.map(
            \.element.cells)
        Output.table(["NEXT", "POLICY", "JOB", "NAME", "TIMER", "CALENDAR"], sorted)
    }
}
