import BackupBase

/// A file beneath a directory of units.
struct UnitFile: Equatable {
    /// Relative to `/etc/systemd/system`.
    let path: String
    let text: String
}

/// One job that a policy has done at its times.
struct ScheduledJob {
    /// The templates of the package.
    enum Template: String, CaseIterable { case backup, copy, prune, check, drill }

    var template: Template
    /// Name of the schedule; nil where the policy has one for this job.
    var schedule: String?
    /// Words after the program's name: `backup --policy qdrant-prod --schedule hourly`.
    var arguments: [String]
    /// Calendars as systemd.time(7) has them; any of them starts the job.
    var onCalendar: [String]
    /// Seconds within which the start is delayed, the same for each node every time; nil: as the template has it.
    var randomizedDelay: Int?
    /// Seconds without progress after which the job is killed; nil: as the template has it.
    var watchdog: Int?
}

/// What systemd has to know of one policy, as drop-ins to the package's templates.
///
/// A pure function of its fields: the same policy gives the same files. Whatever the template
/// says already is not said again, so that a plain policy has a drop-in for its calendar and
/// nothing else.
struct PolicyUnits {
    /// Name of the policy, as `--policy` takes it.
    var policy: String
    var jobs: [ScheduledJob]
    /// Where the program is.
    var program = "/usr/bin/bgbackup"
    /// Directories that jobs write to: the volumes with their parents, a local repository, a
    /// drill's scratch, the metrics' directory.
    var writablePaths: [String] = []
    /// Block devices that the backup reads.
    var devices: [String] = []
    /// Credentials that the policy names, beside those that the templates load.
    var credentials: [String] = []

    static let dropInName = "50-policy.conf"
    /// How a file begins that may be replaced and removed.
    static let mark = "# Made by bgbackup"

    /// Loaded by every template that could want them (systemd/*.service).
    private static let known: Set<String> = [
        "bgbackup.writer-key", "bgbackup.password", "bgbackup.s3", "bgbackup.qdrant-api-key",
    ]
    private static let writable = ["/var/lib/qdrant", "/srv/bgbackup", "/var/lib/bgbackup", "/var/cache/bgbackup"]
    private static let homes = ["/home", "/root", "/run/user"]

    /// Timers to enable, by name.
    var timers: [String] {
        get throws { try jobs.map { try name($0, "timer") } }
    }

    /// The drop-ins, by path.
    /// - Throws: `.usage` where a name can be no unit's, a path is not absolute, or two jobs are one unit
    func files() throws -> [UnitFile] {
        let names = try timers
        if let twice = Dictionary(grouping: names, by: \.self).first(where: { $0.value.count > 1 })?.key {
            throw BackupError(
                .usage, "policy '\(printable(policy.utf8))' has two schedules for \(twice)",
                hint: "Give each schedule a name of its own.")
        }
        var files: [UnitFile] = []
        for job in jobs {
            files.append(UnitFile(path: "\(try name(job, "timer")).d/\(Self.dropInName)", text: try timer(job)))
            if let text = try service(job) {
                files.append(UnitFile(path: "\(try name(job, "service")).d/\(Self.dropInName)", text: text))
            }
        }
        return files.sorted { $0.path < $1.path }
    }

    // MARK: - Parts

    private func name(_ job: ScheduledJob, _ type: String) throws -> String {
        try UnitName.unit("bgbackup-\(job.template.rawValue)", UnitName.instance(policy, job.schedule), type)
    }

    private var head: String {
        "\(Self.mark) policy install from policy '\(printable(policy.utf8))'. Changes here are lost."
    }

    private func timer(_ job: ScheduledJob) throws -> String {
        guard !job.onCalendar.isEmpty else {
            throw BackupError(.usage, "a schedule of policy '\(printable(policy.utf8))' has no calendar")
        }
        for calendar in job.onCalendar where calendar.isEmpty || calendar.utf8.contains(where: { $0 < 0x20 || $0 > 0x7e }) {
            throw BackupError(.usage, "'\(printable(calendar.utf8))' is no calendar", hint: "See systemd.time(7).")
        }
        // An empty value takes away the template's.
        var lines = ["[Timer]", "OnCalendar="] + job.onCalendar.map { "OnCalendar=\(UnitText.line($0))" }
        if let delay = job.randomizedDelay { lines.append("RandomizedDelaySec=\(max(delay, 0))") }
        return text(lines)
    }

    private func service(_ job: ScheduledJob) throws -> String? {
        var lines: [String] = []
        let usual = [job.template.rawValue, "--policy", policy]
        let isPlain = try UnitName.instance(policy, job.schedule) == policy
        if !isPlain || job.arguments != usual || program != "/usr/bin/bgbackup" {
            lines += ["ExecStart=", "ExecStart=\(UnitText.command(program, job.arguments))"]
        }
        if let watchdog = job.watchdog { lines.append("WatchdogSec=\(max(watchdog, 1))") }
        for name in credentials.sorted() where !Self.known.contains(name) {
            guard Self.isCredential(name) else {
                throw BackupError(.usage, "'\(printable(name.utf8))' can name no credential", hint: "See systemd.exec(5).")
            }
            lines.append("LoadCredentialEncrypted=\(name)")
        }
        lines += try access(job)
        return lines.isEmpty ? nil : text(["[Service]"] + lines)
    }

    /// What the templates do not let a job reach.
    private func access(_ job: ScheduledJob) throws -> [String] {
        var lines: [String] = []
        for path in writablePaths + devices {
            guard path.hasPrefix("/"), !path.split(separator: "/").contains(".."), !path.utf8.contains(where: { $0 < 0x20 })
            else {
                throw BackupError(.usage, "'\(printable(path.utf8))' is no absolute path")
            }
        }
        // Of a device systemd takes the word as it is, quotes or not.
        if let odd = devices.first(where: { !UnitText.isPlain($0) }) {
            throw BackupError(
                .usage, "'\(printable(odd.utf8))' is no device that a unit can name", hint: "Name it by a plain link in /dev.")
        }
        let others = Set(writablePaths.filter { path in !Self.writable.contains { Self.holds($0, path) } }).sorted()
        if !others.isEmpty { lines.append("ReadWritePaths=\(UnitText.paths(others.map { "-\($0)" }))") }
        if others.contains(where: { path in Self.homes.contains { Self.holds($0, path) } }) {
            lines.append("ProtectHome=no")
        }
        if job.template == .backup, !devices.isEmpty {
            lines.append("PrivateDevices=no")
            lines += devices.sorted().map { "DeviceAllow=\($0) r" }
        }
        return lines
    }

    private func text(_ lines: [String]) -> String { ([head] + lines).joined(separator: "\n") + "\n" }

    private static func holds(_ folder: String, _ path: String) -> Bool { path == folder || path.hasPrefix(folder + "/") }

    /// A file name of at most 255 printable characters without `/` and `:`.
    private static func isCredential(_ name: String) -> Bool {
        (1...255).contains(name.utf8.count) && name != "." && name != ".."
            && name.utf8.allSatisfy { (0x21...0x7e).contains($0) && $0 != UInt8(ascii: "/") && $0 != UInt8(ascii: ":") }
            && !name.contains("%")
    }
}
