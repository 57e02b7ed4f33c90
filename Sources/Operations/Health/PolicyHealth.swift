import BackupBase

/// What is wrong, by a code that messages, metrics and notifications share: one of
/// `docs/errors.md` (of the last run, or of a look at the place just now), or one of `Problem.Code`.
public struct Problem: Sendable, Equatable, Encodable {
    /// Beside the errors of runs.
    public enum Code: String, Sendable, CaseIterable {
        case timerMissing = "timer-missing"
        case overdue
        case neverRan = "never-ran"
        case anomaly
        case killed
        case diskFull = "disk-full"
        case historyDamaged = "history-damaged"
        case wrongPolicy = "wrong-policy"
    }

    public let code: String
    /// backup, prune, …; nil of the policy as a whole
    public let job: String?
    public let schedule: String?
    /// For people; no secret.
    public let text: String

    public init(_ code: String, job: String? = nil, schedule: String? = nil, _ text: String) {
        (self.code, self.job, self.schedule, self.text) = (code, job, schedule, text)
    }
}

/// What systemd says of a job's timer.
public enum TimerState: String, Sendable, Encodable {
    /// Waits for its next moment, or is running.
    case active
    /// There is a unit, and nobody started it.
    case disabled
    /// There is no such unit.
    case missing
    /// There is no systemd that could be asked.
    case unknown
}

/// How one job of a policy is doing.
public struct JobHealth: Sendable {
    public let kind: RunRecord.Kind
    public let schedule: String?
    /// Nil of what no policy runs by calendar.
    public var onCalendar: String?
    /// Seconds between two of its moments at the most; nil where that cannot be told.
    public var interval: Double?
    /// Seconds since 1970: its next moment.
    public var next: Double?
    public var timer = TimerState.unknown
    public var isRunning = false
    /// The newest that came to something: neither busy nor stopped.
    public var last: RunRecord?
    public var lastDone: RunRecord?
    public var lastFailed: RunRecord?
    /// Whether it is another host's: it never ran here, and no timer is here for it.
    public var isElsewhere = false
    /// Whether nobody plans it any more: a schedule that the policy has no more, or what somebody tried by hand long ago.
    public var isPast = false
    /// Seconds since 1970: since when it is waited for, where nothing was done since.
    var expected: Double?
    /// The newest, whatever became of it.
    var newest: RunRecord?

    /// Seconds since 1970: the moment that what was done last is of.
    public var done: Double? { lastDone?.moment }

    /// "backup hourly"
    public var title: String { kind.rawValue + (schedule.map { " \($0)" } ?? "") }

    /// Seconds without a run that are too many: a moment was missed, random delay and the duration of a run allowed for.
    public var patience: Double? { interval.map { $0 * 1.5 + 600 + (lastDone?.durationSeconds ?? 0) } }
}

extension RunRecord {
    /// Seconds since 1970: the moment that what it made is of; nil where it made nothing.
    public var moment: Double? {
        if kind == .watch { return figures.lastDone.flatMap(parseTime) }
        return isDone ? start : nil
    }
}

/// How what a policy protects is doing, from what its runs left on this node.
public struct PolicyHealth: Sendable {
    public enum Light: String, Sendable, Encodable { case ok, paused, never, late, held, failed }

    /// Nil of runs by hand.
    public let policy: String?
    public let repository: String?
    public let jobs: [JobHealth]
    public let isPaused: Bool
    /// Seconds that the last good backup may be old: the policy's objective, or the most frequent schedule's gap.
    public let objective: Double?
    /// Whether `objective` is the policy's own word.
    public let isObjectiveStated: Bool
    /// In words: why retention stops.
    public let anomaly: String?
    /// Seconds since 1970 of this look.
    public let now: Double
    /// What a look at the place found beside the runs.
    public var seen: [Problem] = []
    /// Seconds since 1970 of the newest snapshot in the store, where somebody looked.
    public var newestStored: Double?

    /// - Parameters:
    ///   - policy: nil: of runs by hand in one repository
    ///   - records: of this policy, newest first
    ///   - timers: by a job's title
    ///   - first: seconds since 1970: since when the node remembers the policy
    ///   - plan: when what it plans was written down
    ///   - looks: runs of others that looked at all snapshots of the repository
    ///   - offset: seconds by which local time is ahead of UTC
    public init(
        _ policy: Policy?, _ records: [RunRecord], timers: [String: TimerState] = [:], first: Double?,
        plan: PlanTimes = PlanTimes(), looks: [RunRecord] = [], now: Double, offset: Double, isSourceHere: Bool = true
    ) {
        self.policy = policy?.name ?? records.first?.policy
        repository = records.first { $0.repository != nil }?.repository ?? policy.map { RunRecord.publicPlace($0.repository.url) }
        isPaused = policy?.paused ?? false
        self.now = now
        var jobs = (policy?.jobs ?? []).map { job in
            let calendar = try? CalendarExpression(job.onCalendar)
            var health = JobHealth(kind: RunRecord.Kind(rawValue: job.kind.rawValue) ?? .backup, schedule: job.name)
            health.onCalendar = job.onCalendar
            health.interval = calendar?.longestGap
            health.next = calendar?.next(after: now, offset: offset)
            health.timer = timers[health.title] ?? .unknown
            return health
        }
        for record in records where !jobs.contains(where: { $0.kind == record.kind && $0.schedule == record.schedule }) {
            jobs.append(JobHealth(kind: record.kind, schedule: record.schedule))
        }
        for index in jobs.indices {
            let (kind, schedule) = (jobs[index].kind, jobs[index].schedule)
            let own = records.filter { $0.kind == kind && $0.schedule == schedule }
            jobs[index].newest = own.first
            jobs[index].isRunning = own.first?.outcome == .running
            jobs[index].last = own.first { $0.isDecisive }
            jobs[index].lastDone = own.first { $0.moment != nil }
            jobs[index].lastFailed = own.first { $0.outcome == .failure || $0.outcome == .killed }
            // systemd knows an instance of each template of the package; only `policy install` wrote down when it runs.
            let isInstalled = jobs[index].timer == .disabled && plan.timers[jobs[index].title] != nil
            let isHere = !own.isEmpty || jobs[index].timer == .active || isInstalled || kind == .backup && isSourceHere
            jobs[index].isElsewhere = !isHere && jobs[index].onCalendar != nil
            let isOld = now - (own.first?.start ?? now) > Self.memory
            // A watch that died is all that there is to see of it, until the schedules that a policy has tell by themselves.
            let isGone = isOld || policy != nil && schedule != nil && kind != .watch
            jobs[index].isPast = jobs[index].onCalendar == nil && isGone
            jobs[index].expected = plan.expected(jobs[index], first)
        }
        self.jobs = jobs
        anomaly = Self.anomaly(records, looks, now)
        let gaps = (policy?.schedules ?? []).map(\.interval)
        isObjectiveStated = policy?.drill?.recoveryPoint != nil
        objective = policy?.drill?.recoveryPoint ?? gaps.compactMap { $0 }.min()
    }

    /// Seconds for which it matters what somebody tried by hand.
    private static let memory = 7 * 86_400.0

    /// Of a repository of which this node knows nothing yet.
    public init(repository: String, now: Double) {
        policy = nil
        self.repository = repository
        jobs = []
        isPaused = false
        objective = nil
        isObjectiveStated = false
        anomaly = nil
        self.now = now
    }

    /// Whoever judged all snapshots by rules knows: a prune without a policy, named snapshots or one node are no look. A
    /// change since stands, whatever backups came after it; where nobody on this node ever looks, for `anomalyMemory`.
    private static func anomaly(_ records: [RunRecord], _ looks: [RunRecord], _ now: Double) -> String? {
        let look = (records + looks).compactMap { record in
            record.figures.judged.flatMap(parseTime).map { (moment: $0, found: record.standingAnomaly?.text) }
        }.max { $0.moment < $1.moment }
        let standing = records.filter { $0.kind == .backup || $0.kind == .watch }.compactMap(\.standingAnomaly)
            .filter { $0.since > look?.moment ?? now - anomalyMemory }
        return standing.max { $0.since < $1.since }?.text ?? look?.found
    }

    private static let anomalyMemory = 30 * 86_400.0

    /// Seconds since 1970: what the newest good backup is of, that this node knows; where it makes none itself, the newest
    /// in the store. Where it should make some and did not, another node's says nothing.
    public var newest: Double? {
        let own = jobs.filter { $0.kind == .backup || $0.kind == .watch }
        return own.compactMap(\.done).max() ?? (own.contains { !$0.isElsewhere && !$0.isPast } ? nil : newestStored)
    }

    /// Whether `newest` is the store's word, and not this node's.
    public var isNewestOfStore: Bool {
        newest != nil && !jobs.contains { ($0.kind == .backup || $0.kind == .watch) && $0.done != nil }
    }

    /// Seconds; never negative, whatever clocks did.
    public var age: Double? { newest.map { max(0, now - $0) } }

    public func job(_ kind: RunRecord.Kind) -> JobHealth? {
        jobs.filter { $0.kind == kind }.max { ($0.last?.start ?? 0) < ($1.last?.start ?? 0) }
    }

    /// Seconds from which on the last good backup is too old: the stated objective, or one moment missed, random delay and
    /// the duration of a backup allowed for.
    public var limit: Double? {
        let duration = jobs.filter { $0.kind == .backup && $0.onCalendar != nil }.compactMap { $0.lastDone?.durationSeconds }
            .max()
        return objective.map { isObjectiveStated ? $0 : $0 * 1.5 + 600 + (duration ?? 0) }
    }

    // MARK: - Judgement

    public var light: Light {
        if isPaused { return .paused }
        let codes = Set(problems.map(\.code))
        let mild = Set([Problem.Code.overdue, .neverRan, .timerMissing, .anomaly].map(\.rawValue))
        if !codes.subtracting(mild).isEmpty { return .failed }
        if codes.contains(Problem.Code.anomaly.rawValue) { return .held }
        if codes.contains(Problem.Code.overdue.rawValue) || codes.contains(Problem.Code.timerMissing.rawValue) { return .late }
        return codes.isEmpty ? .ok : .never
    }

    /// Everything that somebody should look at; a paused policy has nothing.
    public var problems: [Problem] {
        guard !isPaused else { return [] }
        var found: [Problem] = []
        for job in jobs where !job.isElsewhere && !job.isPast {
            if let problem = failure(job) { found.append(problem) }
            if let problem = timing(job) { found.append(problem) }
        }
        if let anomaly {
            found.append(Problem(Problem.Code.anomaly.rawValue, "retention is held: \(anomaly)"))
        }
        if jobs.isEmpty, newest == nil, seen.isEmpty {
            found.append(Problem(Problem.Code.neverRan.rawValue, "no backup is known"))
        }
        let isOverdue = found.contains { $0.code == Problem.Code.overdue.rawValue && $0.job == "backup" }
        if let age, let objective, let limit, age > limit, !isOverdue {
            found.append(
                Problem(
                    Problem.Code.overdue.rawValue, job: "backup",
                    "the last good backup is \(Self.span(age)) old, the objective is \(Self.span(objective))"))
        }
        // What a look just now says of what the last run said too is said once.
        return found + seen.filter { look in !found.contains { $0.code == look.code } }
    }

    private func failure(_ job: JobHealth) -> Problem? {
        if job.kind == .watch, let newest = job.newest, newest.outcome != .killed, newest.figures.problems ?? 0 > 0 {
            return Problem(
                BackupError.Code.incomplete.rawValue, job: job.kind.rawValue,
                "the last snapshot of the watch is incomplete: \(newest.figures.problems ?? 0) problems")
        }
        guard let last = job.last else { return nil }
        if job.kind == .check, last.isDone, let count = last.standingDamages, count > 0 {
            return Problem(
                BackupError.Code.damaged.rawValue, job: job.kind.rawValue,
                "an earlier check found \(count) damages, and none that read all data was well since: check --read-data")
        }
        let isIncomplete = last.errorCode == BackupError.Code.incomplete.rawValue
        guard last.outcome == .failure || last.outcome == .killed || isIncomplete else { return nil }
        // What somebody tried by hand matters until it works by any way.
        if job.onCalendar == nil, jobs.contains(where: { $0.kind == job.kind && $0.done ?? 0 > last.start }) { return nil }
        // That retention is held is told by itself.
        if last.errorCode == BackupError.Code.retentionRefused.rawValue, last.figures.anomaly != nil { return nil }
        let why = last.errorMessage.map { ": \($0)" } ?? ""
        return Problem(
            last.errorCode ?? BackupError.Code.failed.rawValue, job: job.kind.rawValue, schedule: job.schedule,
            "\(job.title) \(isIncomplete ? "was incomplete" : "failed") \(Self.span(max(0, now - last.start))) ago\(why)")
    }

    private func timing(_ job: JobHealth) -> Problem? {
        guard job.onCalendar != nil else { return neverRan(job) }
        func problem(_ code: Problem.Code, _ text: String) -> Problem {
            Problem(code.rawValue, job: job.kind.rawValue, schedule: job.schedule, text)
        }
        switch job.timer {
        case .missing: return problem(.timerMissing, "there is no timer for \(job.title): bgbackup policy install")
        case .disabled: return problem(.timerMissing, "the timer of \(job.title) is not active: bgbackup policy install")
        case .active, .unknown: break
        }
        if let patience = job.patience, let since = job.expected, now - since > patience {
            let what = job.done.map { "ran \(Self.span(now - $0)) ago" } ?? "never ran"
            return problem(.overdue, "\(job.title) \(what), it should every \(Self.span(job.interval ?? 0))")
        }
        return neverRan(job)
    }

    /// A policy of which nothing was ever backed up.
    private func neverRan(_ job: JobHealth) -> Problem? {
        guard job.kind == .backup, job.last == nil, newest == nil else { return nil }
        return Problem(Problem.Code.neverRan.rawValue, job: job.kind.rawValue, schedule: job.schedule, "\(job.title) never ran")
    }

    /// "3m", "5h", "2d 4h"
    public static func span(_ seconds: Double) -> String {
        guard seconds.isFinite, seconds < 1e11 else { return "?" }
        let whole = Int(seconds.rounded())
        if whole < 60 { return "\(whole)s" }
        if whole < 3600 { return "\(whole / 60)m" }
        let hours = whole / 3600
        if hours < 24 { return whole % 3600 / 60 == 0 ? "\(hours)h" : "\(hours)h \(whole % 3600 / 60)m" }
        return hours % 24 == 0 || hours >= 240 ? "\(hours / 24)d" : "\(hours / 24)d \(hours % 24)h"
    }
}

extension RunRecord {
    /// Whether it says how the job is doing: neither busy, nor stopped, nor under way.
    var isDecisive: Bool { isDone || outcome == .failure || outcome == .killed }
}

extension PolicyHealth {
    /// How everything is doing that the node remembers or has a policy for.
    /// - Parameters:
    ///   - policies: whose jobs are looked for, whether they ran or not
    ///   - timers: by policy and a job's title
    ///   - names: of all records
    ///   - plans: by policy
    ///   - looks: records among which those are that were made by hand and looked at all snapshots; nil: `records`
    public static func all(
        _ policies: [Policy], _ records: [RunRecord], names: [RunHistory.Name], timers: [String: [String: TimerState]] = [:],
        plans: [String: PlanTimes] = [:], looks: [RunRecord]? = nil, now: Double, offset: Double,
        isSourceHere: (Policy) -> Bool = { _ in true }
    ) -> [PolicyHealth] {
        var first: [String: Double] = [:]
        for name in names {
            first[name.policy ?? "", default: .infinity] = min(first[name.policy ?? ""] ?? .infinity, name.seconds)
        }
        let byPolicy = Dictionary(grouping: records, by: { $0.policy ?? "" })
        let planned = policies.map { policy in
            let place = RunRecord.publicPlace(policy.repository.url)
            return PolicyHealth(
                policy, byPolicy[policy.name] ?? [], timers: timers[policy.name] ?? [:], first: first[policy.name],
                plan: plans[policy.name] ?? PlanTimes(),
                looks: (looks ?? records).filter { $0.policy == nil && $0.repository == place },
                now: now, offset: offset, isSourceHere: isSourceHere(policy))
        }
        let known = Set(policies.map(\.name))
        var others: [PolicyHealth] = []
        for (name, records) in byPolicy.sorted(by: { $0.key < $1.key }) where !known.contains(name) {
            // By hand: each repository by itself.
            let groups = name.isEmpty ? Array(Dictionary(grouping: records, by: { $0.repository ?? "" }).values) : [records]
            others += groups.sorted { ($0.first?.repository ?? "") < ($1.first?.repository ?? "") }
                .map { PolicyHealth(nil, $0, first: first[name], now: now, offset: offset) }
        }
        return planned + others
    }
}
