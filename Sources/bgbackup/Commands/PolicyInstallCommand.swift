import ArgumentParser
import BackupBase
import Glibc
import Operations
import Subprocess

/// Where units go, and whether systemd is told.
struct UnitOptions: ParsableArguments {
    @Option(help: ArgumentHelp("Where drop-ins go.", valueName: "path")) var directory = "/etc/systemd/system"
    @Flag(help: "Write and remove files only: neither reload systemd nor enable or disable timers.") var filesOnly = false
}

struct PolicyInstallCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "install", abstract: "Have systemd run the jobs of policies at their times.",
        discussion: """
            Writes drop-ins to the templates that the package brings (bgbackup-backup@.timer and others), one for each \
            schedule, takes away those of schedules that are gone, and enables the timers. Run it again after each change of \
            the policy. Without a name: all policies. With --only, jobs of other kinds stay as they are: a node that has a \
            writer key runs --only backup, the host that has the password the rest.
            """)

    @OptionGroup var output: PolicyOutput
    @OptionGroup var dry: DryRunOption
    @OptionGroup var units: UnitOptions
    @Option(
        help: ArgumentHelp("Only jobs of this kind; may be given again.", valueName: "backup|copy|prune|check|drill"))
    var only: [ScheduledJob.Template] = []
    @Argument(help: "Names or paths of policies.") var policies: [String] = []

    mutating func run() async throws {
        let library = PolicyCommand.library
        let names = policies.isEmpty ? library.files : policies
        guard !names.isEmpty else {
            throw BackupError(.usage, "there is no policy in \(library.directory)", hint: "Give the path of a policy file.")
        }
        // All are read before anything is written.
        var found: [PolicyUnits] = []
        for name in names {
            let (policy, file) = try library.load(name, report: PolicyCommand.tell)
            for job in policy.jobs { _ = try await CalendarForecast(job.onCalendar, count: 1) }
            // The unit has no BGBACKUP_CONFIG of a shell.
            let isKnown = (try? PolicyLibrary(configuration: nil).path(of: policy.name)) == file.path
            var units = PolicyUnits(
                policy, reference: isKnown ? policy.name : absolute(file.path), program: UnitInstallation.program)
            if !only.isEmpty { units.jobs = units.jobs.filter { only.contains($0.template) } }
            found.append(units)
        }
        try await UnitInstallation(
            options: units, isDry: dry.dryRun, output: output, templates: only.isEmpty ? nil : Set(only)
        ).install(found)
    }
}

struct PolicyUninstallCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "uninstall", abstract: "Have systemd run nothing of a policy any more.",
        discussion: "Takes away what 'policy install' wrote and disables its timers; neither policies nor backups are touched.")

    @OptionGroup var output: PolicyOutput
    @OptionGroup var dry: DryRunOption
    @OptionGroup var units: UnitOptions
    @Argument(help: "Names of policies, whose files may be gone.") var policies: [String]

    mutating func run() async throws {
        let directory = UnitDirectory(path: absolute(units.directory))
        let known = PolicyCommand.library.files.compactMap { (try? PolicyFile(path: $0))?.policy?.name }
        for name in policies where !known.contains(name) {
            guard try directory.plan(PolicyUnits(policy: name, jobs: [])).removed.isEmpty else { continue }
            let near = nearest(name, among: known).map { "Did you mean '\($0)'?" }
            throw BackupError(
                .usage, "nothing is installed of a policy '\(printable(name.utf8))', and there is none of that name",
                hint: near ?? "Give the policy's name, not its file: systemctl list-timers --all 'bgbackup-*'.")
        }
        try await UnitInstallation(options: units, isDry: dry.dryRun, output: output).install(
            policies.map { PolicyUnits(policy: $0, jobs: []) })
    }
}

extension ScheduledJob.Template: ExpressibleByArgument {}

/// Brings the directory of units to what policies say, and tells systemd.
struct UnitInstallation {
    let options: UnitOptions
    let isDry: Bool
    let output: PolicyOutput
    /// Jobs of other kinds stay as they are; nil: all kinds.
    var templates: Set<ScheduledJob.Template>?

    /// This program, as units name it.
    static var program: String {
        var bytes = [CChar](repeating: 0, count: 4096)
        let count = readlink("/proc/self/exe", &bytes, bytes.count)
        return count > 0 ? String(decoding: bytes[..<count].map { UInt8(bitPattern: $0) }, as: UTF8.self) : "/usr/bin/bgbackup"
    }

    struct Summary: Encodable {
        let message_type = "summary"
        let schema = 1
        let written: [String]
        let removed: [String]
        let enabled: [String]
        let disabled: [String]
        let dry_run: Bool
    }

    func install(_ policies: [PolicyUnits]) async throws {
        let directory = UnitDirectory(path: absolute(options.directory))
        var plans = try policies.map { try directory.plan($0) }
        if let templates {
            for index in plans.indices {
                plans[index].removed.removeAll { path in
                    !templates.contains { path.hasPrefix("bgbackup-\($0.rawValue)@") }
                }
            }
        }
        if let foreign = plans.flatMap(\.foreign).first {
            throw BackupError(
                .failed, "\(directory.path)/\(foreign) was not written by bgbackup",
                hint: "Nothing was changed. Move the file away, or rename it: any name but \(PolicyUnits.dropInName) will do.")
        }
        let timers = try policies.flatMap { try $0.timers }
        let gone = plans.flatMap(\.removed).compactMap { path -> String? in
            path.hasSuffix(".timer.d/\(PolicyUnits.dropInName)") ? String(path.prefix { $0 != "/" }.dropLast(2)) : nil
        }
        if !isDry {
            // Before what they stand on goes.
            if !gone.isEmpty { try await systemctl(["disable", "--now"] + gone) }
            for plan in plans { try directory.apply(plan) }
            try await systemctl(["daemon-reload"])
            if !timers.isEmpty { try await systemctl(["enable", "--now"] + timers) }
        }
        try show(plans, timers, gone)
    }

    private func show(_ plans: [UnitDirectory.Plan], _ timers: [String], _ gone: [String]) throws {
        let (written, removed) = (plans.flatMap(\.written), plans.flatMap(\.removed))
        if output.json {
            return try Output.document(
                Summary(
                    written: written.map(\.path), removed: removed, enabled: timers, disabled: gone, dry_run: isDry),
                lines: true)
        }
        guard !output.quiet else { return }
        let would = isDry ? "would " : ""
        for file in written {
            Output.line("\(would)write   \(options.directory)/\(file.path)")
            if isDry { for line in file.text.split(separator: "\n") { Output.line("    \(line)") } }
        }
        for path in removed { Output.line("\(would)remove  \(options.directory)/\(path)") }
        for timer in gone { Output.line("\(would)disable \(timer)") }
        for timer in timers { Output.line("\(would)enable  \(timer)") }
        if written.isEmpty, removed.isEmpty {
            Output.line(timers.isEmpty ? "there are no units of it" : "the units are as the policies say")
        }
        if !timers.isEmpty, !isDry { Output.line("\nsystemctl list-timers 'bgbackup-*'") }
    }

    private func systemctl(_ arguments: [String]) async throws {
        guard !options.filesOnly else { return }
        let result: (isSuccess: Bool, errors: String)
        do {
            let run = try await Subprocess.run(
                .name("systemctl"), arguments: Arguments(arguments), output: .discarded, error: .string(limit: 64 << 10))
            result = (run.terminationStatus.isSuccess, run.standardError)
        } catch let error as SubprocessError {
            throw BackupError(
                .failed, "systemctl cannot be run", hint: "--files-only writes the files without telling systemd.", cause: error)
        }
        guard result.isSuccess else {
            throw BackupError(
                .failed,
                "systemctl \(arguments[0]) failed: \(result.errors.split(separator: "\n").last.map { printable($0.utf8) } ?? "")",
                hint: "The files are written. --files-only leaves systemd alone.")
        }
    }
}
