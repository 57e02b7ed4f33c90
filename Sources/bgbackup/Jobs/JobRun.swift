import ArgumentParser
import BackupBase
import Glibc
import ObjectStorage
import Operations

/// One run of a job and what is told of it: the record in the node's history, the metrics, the
/// journal, whom the policy names. Whatever becomes of telling, the run itself goes on.
final class JobRun {
    private let kind: RunRecord.Kind
    /// As the command line names it.
    private let name: String?
    private let schedule: String?
    /// False of what only says what it would do.
    private let isTold: Bool
    private let options: GlobalOptions
    private let session: Session
    private var run: ActiveRun?
    private var policy: Policy?
    private var notifier: Notifier?
    /// Whether it was said that the history cannot be written.
    private var isSilent = false
    var trouble: (code: BackupError.Code, message: String)?
    /// A policy that is paused.
    private var paused: Policy?
    /// Monotonic seconds.
    private var nextSave = 0.0

    init(
        _ kind: RunRecord.Kind, policy: String? = nil, schedule: String? = nil, dryRun: Bool = false, _ options: GlobalOptions
    ) {
        self.kind = kind
        name = policy
        self.schedule = schedule
        isTold = !dryRun
        self.options = options
        session = Session(options: options)
    }

    /// Runs the job. It calls `begin` when it knows what it is about; without that nothing is told but a failure.
    func carried(_ body: () async throws -> Void) async throws {
        do {
            try await body()
            await end(nil)
        } catch {
            await end(error)
            throw error
        }
    }

    private var history: RunHistory? { session.stateDirectory.map { RunHistory(stateDirectory: $0) } }

    // MARK: - Beginning

    /// The run begins.
    /// - Parameter options: with what the policy filled in
    func begin(_ plan: BackupPolicy?, _ options: GlobalOptions, node: String? = nil) {
        begin(
            plan?.policy, file: plan?.path, repository: options.repository ?? Session.environment("BGBACKUP_REPOSITORY"),
            node: node ?? plan?.policy.node ?? Session.hostName)
    }

    private func begin(_ policy: Policy?, file: String?, repository: String?, node: String?) {
        guard isTold, run == nil else { return }
        self.policy = policy
        let record = RunRecord(
            kind, policy: policy?.name ?? name.map(Self.name), schedule: schedule, node: node,
            repository: repository ?? policy?.repository.url,
            textfile: policy.map(\.textfile) ?? textfileBefore ?? Session.environment("BGBACKUP_METRICS_FILE"), policyFile: file)
        let started = ActiveRun(record, in: history)
        run = started
        attempt { try started.save() }
        RunEvent.began(record, isVerbose: options.verbose)
        guard let policy else { return }
        let targets = NotificationTargets.of(policy, session)
        if !targets.isEmpty {
            notifier = Notifier(targets, agent: BGBackup.agent, isEndless: kind == .watch) {
                Terminal.note("bgbackup: warning: \($0)", .warning)
            }
        }
    }

    /// The policy is paused: nothing is done, and nothing told but that, in the metrics.
    func pause(_ plan: BackupPolicy) { paused = plan.policy }

    // MARK: - Going on

    /// RFC 3339; nil of what is not told.
    var started: String? { run?.record.started }

    /// Notes what the run counted.
    func note(_ body: (inout RunRecord.Figures) -> Void) { run?.note(body) }

    /// With a new day (UTC) a new record begins.
    func turnDay() {
        guard let next = run?.nextDay(trouble?.code, trouble?.message, attempt: attempt) else { return }
        run = next
        nextSave = 0
    }

    /// Writes down what was noted, of a run that goes on: at once where that is urgent, and else once a minute.
    /// - Parameter isWell: whether the last thing it did was done
    func goOn(isUrgent: Bool, isWell: Bool) async {
        guard let active = run, isUrgent || monotonicSeconds() >= nextSave else { return }
        attempt { try active.save() }
        nextSave = monotonicSeconds() + 60
        if isWell { notifier?.beat(active.record) }
        if let path = active.record.textfile {
            let metrics = SharedMetrics(path, policy, history, session)
            metrics.write(active.record, timers: await TimerStates.ask(metrics.policies))
        }
    }

    /// Why it ends with an exit status that no error of its own explains.
    func explain(_ code: BackupError.Code, _ message: String) { trouble = (code, message) }

    // MARK: - The end

    private func end(_ error: (any Error)?) async {
        let ending = Ending(error)
        // A policy that is paused ends without a beginning; one that cannot be read, with an error. Of a command line
        // that is wrong nothing was run.
        if error != nil, ending.code != .usage {
            begin(
                policyAtHand, file: name.flatMap { try? PolicyCommand.library.path(of: $0) }.map(absolute), repository: nil,
                node: nil)
        }
        guard let run else {
            if isTold, let paused { await writeMetrics(paused, nil, paused.textfile) }
            return
        }
        let code = ending.code ?? (ending.status == 0 ? nil : trouble?.code)
        let message = ending.message ?? (code == nil ? nil : trouble?.message)
        let known = history?.latest(without: run.record.id)
        let earlier = known?.records ?? []
        run.settle(after: earlier.first { $0.isSameJob(as: run.record) && $0.ended != nil })
        attempt { try run.end(ending.status, code: code?.rawValue, message: message) }
        self.run = nil
        RunEvent.ended(run.record, isVerbose: options.verbose)
        for name in known?.damaged ?? [] {
            Terminal.note("bgbackup: warning: the record \(printable(name.utf8)) of an earlier run cannot be read", .warning)
        }
        let timers = await writeMetrics(policy, run.record, run.record.textfile)
        if let policy { await tell(policy, run, earlier, timers) }
    }

    /// The policy of a run that failed before it began, as far as it can be read.
    private var policyAtHand: Policy? { name.flatMap { try? PolicyCommand.library.load($0) { _ in } }?.policy }

    /// The metrics file of a policy that cannot be read: as it said last.
    private var textfileBefore: String? {
        guard let name else { return nil }
        return history?.latest().records.first { $0.policy == Self.name(name) && $0.textfile != nil }?.textfile
    }

    /// Tells whom the policy names, and notes in the record what they were told.
    private func tell(
        _ policy: Policy, _ run: ActiveRun, _ earlier: [RunRecord], _ timers: [String: [String: TimerState]]
    ) async {
        var health = PolicyHealth.all(
            [policy], [run.record] + earlier.filter { $0.policy == policy.name }, names: history?.names ?? [], timers: timers,
            plans: PlanLook.times([policy]), looks: earlier, now: Double(Ambient.system.now()) / 1e9,
            offset: Session.zoneOffset, isSourceHere: Session.isHere
        ).first
        health?.seen = PlaceLook.disks(session)
        let problems = health?.problems ?? []
        let before = earlier.filter { $0.policy == policy.name }.compactMap(\.figures.attention).first ?? []
        let attention = Attention(problems, before: Set(before), isAsked: !timers.isEmpty)
        let previous = earlier.first {
            $0.isSameJob(as: run.record) && ($0.isDone || $0.outcome == .failure || $0.outcome == .killed)
        }
        let isTold =
            await notifier?.end(
                run.record, events: Announcement.events(run.record, after: previous), changes: attention.changes,
                problems: problems) ?? true
        // What nobody heard is told once more at the next run.
        run.note { $0.attention = isTold ? attention.now.sorted() : before }
        attempt { try run.save() }
    }

    /// Writes the metrics of all policies that share a file.
    /// - Returns: what systemd says of their timers
    @discardableResult
    private func writeMetrics(_ policy: Policy?, _ record: RunRecord?, _ path: String?) async -> [String: [String: TimerState]] {
        let metrics = path.map { SharedMetrics($0, policy, history, session) }
        let policies = metrics?.policies ?? (policy.map { [$0] } ?? [])
        // Not the run's task: that may have been cancelled. A run that a signal ends has little time to ask.
        let patience = Main.signal == nil ? TimerStates.patience : 1
        let timers = await Task { await TimerStates.ask(policies, within: patience) }.value
        metrics?.write(record, timers: timers)
        return timers
    }

    private func attempt(_ body: () throws -> Void) {
        do { try body() } catch {
            guard !isSilent else { return }
            isSilent = true
            Terminal.note("bgbackup: warning: \(ErrorMapping.backupError(error).map { "\($0)" } ?? "\(error)")", .warning)
        }
    }

    /// "/etc/bgbackup/policies/demo.yaml" → "demo"
    private static func name(_ given: String) -> String {
        String((given.split(separator: "/").last ?? "").prefix { $0 != "." })
    }
}

/// What became wrong or right with a policy's timers and times since somebody was told last.
private struct Attention {
    /// "timer-missing backup hourly"
    let now: Set<String>
    let changes: [(Announcement.Event, [Problem])]

    /// - Parameters:
    ///   - before: what they were told is wrong
    ///   - isAsked: whether systemd was
    init(_ problems: [Problem], before: Set<String>, isAsked: Bool) {
        let codes = [Problem.Code.timerMissing, .overdue, .neverRan, .killed].map(\.rawValue)
        func key(_ problem: Problem) -> String {
            [problem.code, problem.job, problem.schedule].compactMap { $0 }.joined(separator: " ")
        }
        let own = problems.filter { codes.contains($0.code) }
        // Where systemd was not asked its timers are as they were.
        let kept = isAsked ? [] : before.filter { $0.hasPrefix(Problem.Code.timerMissing.rawValue) }
        now = Set(own.map(key) + kept)
        let fresh = own.filter { !before.contains(key($0)) }
        let isDamaged = problems.contains { $0.code == BackupError.Code.damaged.rawValue }
        let isOver = !before.isEmpty && now.isEmpty && !isDamaged
        changes = fresh.isEmpty ? isOver ? [(.recovered, [])] : [] : [(.failure, fresh)]
    }
}

extension RunRecord {
    fileprivate func isSameJob(as other: RunRecord) -> Bool {
        // By hand, what was seen in one repository says nothing of another.
        policy == other.policy && kind == other.kind && schedule == other.schedule
            && (policy != nil || repository == other.repository)
    }
}

/// How a command ends, as its exit status and its error.
struct Ending {
    let status: Int32
    var code: BackupError.Code?
    var message: String?

    /// - Parameter error: what the command threw; nil where it came to its end
    init(_ error: (any Error)?) {
        guard let error else {
            status = 0
            return
        }
        if let number = Main.signal {
            (status, code, message) = (128 + number, .interrupted, "ended by signal \(number)")
        } else if let exit = error as? ExitCode {
            status = exit.rawValue
            if let told = Output.lastReported { (code, message) = (told.code, told.description) }
        } else if let known = ErrorMapping.backupError(error) {
            (status, code, message) = (known.code.exitStatus, known.code, known.description)
        } else {
            (status, code, message) = (BackupError.Code.usage.exitStatus, .usage, "\(error)")
        }
    }
}

/// Whom a policy wants told, with the addresses that its secrets hold.
enum NotificationTargets {
    static func of(_ policy: Policy, _ session: Session) -> Notifier.Targets {
        var targets = Notifier.Targets()
        targets.check = policy.healthchecks.flatMap { address($0, "healthchecks", session) }
        targets.checkGetsLogs = policy.healthchecksGetLogs
        for (index, hook) in policy.webhooks.enumerated() {
            guard let url = address(hook.url, "webhook \(index + 1)", session) else { continue }
            targets.webhooks.append(
                .init(
                    url: url, events: Set(hook.events.compactMap { Announcement.Event(rawValue: $0) }), sendsLogs: hook.sendLogs))
        }
        return targets
    }

    private static func address(_ reference: Policy.SecretReference, _ name: String, _ session: Session) -> SecretText? {
        do {
            let bytes = try session.secret(in: try BackupPolicy.path(of: reference, session))
            let text = String(decoding: bytes, as: UTF8.self)
            return SecretText(String(text.drop { $0.isWhitespace }.prefix { !$0.isWhitespace }))
        } catch {
            Terminal.note("bgbackup: warning: \(name) is not told: \(error)", .warning)
            return nil
        }
    }
}
