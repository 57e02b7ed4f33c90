import BackupBase
import Glibc

/// Numbers for the textfile collector of Prometheus' node exporter, written at the end of each run.
///
/// A function of what the node remembers, so that a run of one kind does not take away the numbers of another. No
/// timestamps: the collector refuses them, and says itself when the file was written.
public struct MetricsFile {
    public struct Family: Sendable {
        public let name: String
        public let help: String
        /// Beside `policy` and `repository`, which all have: no two files may have the same sample.
        public let labels: [String]

        init(_ name: String, _ help: String, _ labels: [String] = []) {
            (self.name, self.help, self.labels) = ("bgbackup_\(name)", help, labels)
        }
    }

    private static let job = ["job_name", "schedule"]

    /// All there are, in the order of the file.
    public static let families = [
        Family("build_info", "The version that wrote these numbers.", ["version"]),
        Family("last_run_timestamp_seconds", "When the last run of a job began.", job),
        Family("last_run_status", "How the last run ended: 0 failed, 1 done with warnings, 2 done.", job),
        Family("last_run_exit_code", "Its exit status; 137 of one that was killed.", job),
        Family("last_success_timestamp_seconds", "When the last run began that was done.", job),
        Family("last_failure_timestamp_seconds", "When the last run began that failed or was killed.", job),
        Family("duration_seconds", "How long the last run took that was done.", job),
        Family("schedule_interval_seconds", "The longest time between two moments of a job's calendar.", job),
        Family("next_run_timestamp_seconds", "The next moment of a job's calendar.", job),
        Family("timer_active", "Whether systemd has the job's timer active; only where systemd can be asked.", job),
        Family("problem", "1 for each thing that is wrong, by its code; none: nothing is.", ["job_name", "schedule", "code"]),
        Family("paused", "Whether the policy is paused."),
        Family("objective_seconds", "How old the last good backup may be: the policy's objective, or one moment missed."),
        Family("newest_snapshot_timestamp_seconds", "The moment that the newest good snapshot is of, made by this node."),
        Family("freeze_seconds", "For how long the last backup held writes."),
        Family("source_bytes", "Size of the volume, at the last backup."),
        Family("read_bytes", "Bytes that the last backup read."),
        Family("changed_bytes", "Bytes that the repository did not hold before the last backup."),
        Family("uploaded_bytes", "Bytes that the last backup stored, compressed and sealed."),
        Family("dedup_ratio", "Share of what the last backup read that the repository held already."),
        Family("files", "Files of the last backup.", ["state"]),
        Family("points", "Points in the last backup, where Qdrant's volume tells."),
        Family("anomaly_hold", "Whether retention is held because the volume changed unlike before."),
        Family("snapshots", "Snapshots in the repository, at the last forget, prune or check."),
        Family("repository_bytes", "Bytes of packs, at the last prune.", ["class"]),
        Family("freed_bytes", "Bytes that the last prune freed."),
        Family(
            "lock_horizon_timestamp_seconds",
            "Until then everything is locked that is needed then (`immutability`); else when the last object lock ends that a run met."
        ),
        Family("check_last_success_timestamp_seconds", "When the last check began that found no damage."),
        Family("check_data_coverage_ratio", "Share of the data that the last check read."),
        Family("check_errors", "Damages that a check found and no later one saw mended."),
        Family("drill_last_success_timestamp_seconds", "When the last drill began that passed."),
        Family("drill_rto_seconds", "Recovery time that the last drill measured."),
        Family("drill_rpo_seconds", "Recovery point that the last drill measured."),
        Family("drill_rto_objective_seconds", "The recovery time that is allowed."),
        Family("drill_rpo_objective_seconds", "The recovery point that is allowed."),
        Family("copy_bytes", "Bytes that the last copy sent.", ["schedule"]),
    ]

    private var samples: [String: [String]] = [:]

    /// - Parameter version: of the program
    public init(_ all: [PolicyHealth], version: String) {
        for health in all {
            add("build_info", health, ["version": version], count: 1)
            add(policy: health)
            for job in health.jobs where !job.isElsewhere && !job.isPast { add(job, of: health) }
        }
    }

    public var text: String {
        var lines: [String] = []
        for family in Self.families {
            guard let own = samples[family.name] else { continue }
            lines.append("# HELP \(family.name) \(family.help)")
            lines.append("# TYPE \(family.name) gauge")
            lines += own
        }
        return lines.joined(separator: "\n") + "\n"
    }

    /// Writes aside and renames: a collector sees the old file or the new. Readable by all.
    /// - Throws: `BackupError`
    public func write(to path: String, ambient: Ambient = .system) throws {
        // Two runs that end together write two files aside; its name must not end in .prom.
        let aside = "\(path).\(ambient.random(4).hex)"
        let file = open(aside, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0o644)
        var isWhole = file >= 0
        if isWhole {
            // Whatever the umask: the collector is another user.
            isWhole = fchmod(file, 0o644) == 0 && LocalFile.write(Array(text.utf8), to: file)
            close(file)
        }
        guard isWhole, rename(aside, path) == 0 else {
            let reason = String(cString: strerror(errno))
            if file >= 0 { unlink(aside) }
            throw BackupError(
                .failed, "the metrics cannot be written to \(printable(path.utf8)): \(reason)",
                hint: "The directory must be there and writable for this user; a unit needs ReadWritePaths= for it.")
        }
    }

    // MARK: - Samples

    private typealias Labels = KeyValuePairs<String, String?>

    private mutating func add(_ name: String, _ health: PolicyHealth, _ labels: Labels = [:], value: Double?) {
        guard let value else { return }
        let own: Labels = ["policy": health.policy, "repository": health.repository]
        let text = (Array(own) + Array(labels)).compactMap { label in
            label.value.map { "\(label.key)=\"\(Self.escaped($0))\"" }
        }.joined(separator: ",")
        samples["bgbackup_\(name)", default: []].append("bgbackup_\(name){\(text)} \(Self.number(value))")
    }

    private mutating func add(_ name: String, _ health: PolicyHealth, _ labels: Labels = [:], count: Int?) {
        add(name, health, labels, value: count.map { Double($0) })
    }

    private mutating func add(_ name: String, _ health: PolicyHealth, _ labels: Labels = [:], bytes: Int64?) {
        add(name, health, labels, value: bytes.map { Double($0) })
    }

    private mutating func add(_ job: JobHealth, of health: PolicyHealth) {
        let labels: Labels = ["job_name": job.kind.rawValue, "schedule": job.schedule]
        add("last_run_timestamp_seconds", health, labels, value: job.last?.start)
        add("last_run_status", health, labels, count: job.last.map { $0.outcome == .success ? 2 : $0.isDone ? 1 : 0 })
        add("last_run_exit_code", health, labels, count: job.last.map { Int($0.exitStatus ?? 137) })
        add("last_success_timestamp_seconds", health, labels, value: job.done)
        add("last_failure_timestamp_seconds", health, labels, value: job.lastFailed?.start)
        add("duration_seconds", health, labels, value: job.lastDone?.durationSeconds)
        add("schedule_interval_seconds", health, labels, value: job.interval)
        add("next_run_timestamp_seconds", health, labels, value: job.next)
        if job.timer != .unknown { add("timer_active", health, labels, count: job.timer == .active ? 1 : 0) }
        if job.kind == .copy { add("copy_bytes", health, ["schedule": job.schedule], bytes: job.lastDone?.figures.bytesCopied) }
    }

    private mutating func add(policy health: PolicyHealth) {
        for problem in health.problems {
            add("problem", health, ["job_name": problem.job, "schedule": problem.schedule, "code": problem.code], count: 1)
        }
        add("paused", health, count: health.isPaused ? 1 : 0)
        add("objective_seconds", health, value: health.limit)
        add("newest_snapshot_timestamp_seconds", health, value: health.newest)
        add("anomaly_hold", health, count: health.anomaly == nil ? 0 : 1)
        addBackup(health)
        addRetention(health)
        addProofs(health)
    }

    private mutating func addBackup(_ health: PolicyHealth) {
        let records = health.jobs.filter { $0.kind == .backup || $0.kind == .watch }.compactMap(\.lastDone)
        guard let last = records.max(by: { $0.start < $1.start })?.figures else { return }
        add("freeze_seconds", health, value: last.captureSeconds)
        add("source_bytes", health, bytes: last.bytesTotal)
        add("read_bytes", health, bytes: last.bytesRead)
        add("changed_bytes", health, bytes: last.bytesNew)
        add("uploaded_bytes", health, bytes: last.bytesStored)
        if let read = last.bytesRead, let new = last.bytesNew, read > 0 {
            add("dedup_ratio", health, value: max(0, 1 - Double(new) / Double(read)))
        }
        for (state, count) in [("new", last.filesNew), ("changed", last.filesChanged), ("unmodified", last.filesUnmodified)] {
            add("files", health, ["state": state], count: count)
        }
        add("points", health, value: last.points.map { Double($0) })
    }

    private mutating func addRetention(_ health: PolicyHealth) {
        let runs = health.jobs.filter { [.forget, .prune, .check].contains($0.kind) }.compactMap(\.lastDone)
        add("snapshots", health, count: runs.max { $0.start < $1.start }?.figures.snapshots)
        if let figures = health.job(.prune)?.lastDone?.figures {
            for (name, bytes) in [
                ("live", figures.repositoryBytesNeeded), ("unused", figures.repositoryBytesUnused),
                ("locked", figures.repositoryBytesLocked),
            ] { add("repository_bytes", health, ["class": name], bytes: bytes) }
            add("freed_bytes", health, bytes: figures.bytesFreed)
        }
        add("lock_horizon_timestamp_seconds", health, value: health.lockHorizon)
    }

    private mutating func addProofs(_ health: PolicyHealth) {
        if let check = health.job(.check) {
            add("check_last_success_timestamp_seconds", health, value: check.done)
            add("check_data_coverage_ratio", health, value: check.last?.figures.dataShare)
            add("check_errors", health, count: check.last?.standingDamages)
        }
        if let drill = health.job(.drill) {
            add("drill_last_success_timestamp_seconds", health, value: drill.done)
            let figures = drill.last?.figures
            add("drill_rto_seconds", health, value: figures?.recoverySeconds)
            add("drill_rpo_seconds", health, value: figures?.recoveryPointSeconds)
            add("drill_rto_objective_seconds", health, value: figures?.recoveryObjectiveSeconds)
            add("drill_rpo_objective_seconds", health, value: figures?.recoveryPointObjectiveSeconds)
        }
    }

    /// Whole numbers without a point; all of 15 digits.
    private static func number(_ value: Double) -> String {
        value == value.rounded() && abs(value) < 1e15 ? "\(Int64(value))" : fixed(value, 3)
    }

    /// As the exposition format wants label values.
    static func escaped(_ text: String) -> String {
        text.replacing("\\", with: "\\\\").replacing("\"", with: "\\\"").replacing("\n", with: "\\n")
    }
}

extension PolicyHealth {
    /// Seconds since 1970: until then everything is locked that is needed then, as the last prune left it; without
    /// immutability when the last lock ends that a forget or prune met; nil where none did.
    public var lockHorizon: Double? {
        // A prune that extends locks and finds some that are not there knows no horizon, and nothing else does.
        let prunes = jobs.filter { $0.kind == .prune }.compactMap(\.lastDone)
        if let last = prunes.max(by: { $0.start < $1.start }), last.figures.locksExtended != nil {
            return last.figures.lockHorizon.flatMap(parseTime)
        }
        return jobs.filter { $0.kind == .forget || $0.kind == .prune }.compactMap {
            $0.lastDone?.figures.lockedUntil.flatMap(parseTime)
        }
        .max()
    }
}
