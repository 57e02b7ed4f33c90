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
    private var trouble: (code: BackupError.Code, message: String)?
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
            plan?.policy, repository: options.repository ?? Session.environment("BGBACKUP_REPOSITORY"),
            node: node ?? plan?.policy.node ?? Session.hostName)
    }

    private func begin(_ policy: Policy?, repository: String?, node: String?) {
        guard isTold, run == nil else { return }
        self.policy = policy
        let record = RunRecord(
            kind, policy: policy?.name ?? name.map(Self.name), schedule: schedule, node: node,
            repository: repository ?? policy?.repository.url,
            textfile: policy?.textfile ?? Session.environment("BGBACKUP_METRICS_FILE"))
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

    // MARK: - Going on

    /// Notes what the run counted.
    func note(_ body: (inout RunRecord.Figures) -> Void) { run?.note(body) }

    /// Writes down what was noted, of a run that goes on: at once where that is urgent, and else
    /// once a minute. With a new day (UTC) a new record begins, so that each day has its own.
    /// - Parameter isWell: whether the last thing it did was done
    func goOn(isUrgent: Bool, isWell: Bool) {
        guard let active = run else { return }
        let (now, known) = (monotonicSeconds(), active.record)
        if known.started.prefix(10) != formatTime(Ambient.system.now()).prefix(10) {
            attempt { try active.end(0) }
            let next = RunRecord(
                kind, policy: known.policy, schedule: known.schedule, node: known.node, repository: known.repository,
                textfile: known.textfile)
            let following = ActiveRun(next, in: history)
            run = following
            attempt { try following.save() }
        } else if isUrgent || now >= nextSave {
            attempt { try active.save() }
        } else {
            return
        }
        nextSave = now + 60
        if isWell { notifier?.beat(known) }
        if let policy { writeMetrics(policy, active.record, known: nil, timers: [:]) }
    }

    /// Why it ends with an exit status that no error of its own explains.
    func explain(_ code: BackupError.Code, _ message: String) { trouble = (code, message) }

    // MARK: - The end

    private func end(_ error: (any Error)?) async {
        // A paused policy ends without a beginning; a policy that cannot be read, with an error.
        if error != nil { begin(policyAtHand, repository: nil, node: nil) }
        guard let run else { return }
        let ending = Ending(error)
        let code = ending.code ?? (ending.status == 0 ? nil : trouble?.code)
        let message = ending.message ?? (code == nil ? nil : trouble?.message)
        attempt { try run.end(ending.status, code: code?.rawValue, message: message) }
        self.run = nil
        RunEvent.ended(run.record, isVerbose: options.verbose)

        let known = history?.latest(without: run.record.id)
        for name in known?.damaged ?? [] {
            Terminal.note("bgbackup: warning: the record \(printable(name.utf8)) of an earlier run cannot be read", .warning)
        }
        guard let policy else {
            writeMetrics(nil, run.record, known: known, timers: [:])
            return
        }
        // A run that a signal ends has no time to ask.
        let timers = Main.signal == nil ? await TimerStates.ask([policy]) : [:]
        let earlier = (known?.records ?? []).filter { $0.id != run.record.id }
        var health = PolicyHealth.all(
            [policy], [run.record] + earlier.filter { $0.policy == policy.name }, names: history?.names ?? [], timers: timers,
            now: Double(Ambient.system.now()) / 1e9, offset: Session.zoneOffset, isSourceHere: Session.isHere
        ).first
        health?.seen = PlaceLook.disks(session)
        let changes = noteAttention(run, health, earlier, isAsked: !timers.isEmpty)
        writeMetrics(policy, run.record, known: known, timers: timers)
        guard let notifier, let health else { return }
        let previous = earlier.first {
            $0.policy == policy.name && $0.kind == kind && $0.schedule == schedule
                && ($0.isDone || $0.outcome == .failure || $0.outcome == .killed)
        }
        await notifier.end(
            run.record, events: Announcement.events(run.record, after: previous), changes: changes, problems: health.problems)
    }

    /// The policy of a run that failed before it began, as far as it can be read.
    private var policyAtHand: Policy? {
        name.flatMap { try? PolicyCommand.library.load($0) { _ in } }?.policy
    }

    /// Notes what is wrong with the policy's timers and times, and finds what became wrong or right since a run noted it last.
    private func noteAttention(
        _ run: ActiveRun, _ health: PolicyHealth?, _ earlier: [RunRecord], isAsked: Bool
    ) -> [(Announcement.Event, [Problem])] {
        let codes = [Problem.Code.timerMissing, .overdue, .neverRan, .killed].map(\.rawValue)
        let problems = (health?.problems ?? []).filter { codes.contains($0.code) }
        func key(_ problem: Problem) -> String {
            [problem.code, problem.job, problem.schedule].compactMap { $0 }.joined(separator: " ")
        }
        let before = Set(earlier.filter { $0.policy == run.record.policy }.compactMap(\.figures.attention).first ?? [])
        // Where systemd was not asked its timers are as they were.
        let kept = isAsked ? [] : before.filter { $0.hasPrefix(Problem.Code.timerMissing.rawValue) }
        let now = Set(problems.map(key) + kept)
        run.note { $0.attention = now.sorted() }
        attempt { try run.save() }
        let fresh = problems.filter { !before.contains(key($0)) }
        let isOver = !before.isEmpty && now.isEmpty
        return fresh.isEmpty ? isOver ? [(.recovered, [])] : [] : [(.failure, fresh)]
    }

    /// Writes the metrics of all policies that share a file.
    private func writeMetrics(
        _ policy: Policy?, _ record: RunRecord, known: RunHistory.Reading?, timers: [String: [String: TimerState]]
    ) {
        guard let path = record.textfile else { return }
        let earlier = (known ?? history?.latest())?.records ?? []
        let records = [record] + earlier.filter { $0.id != record.id && $0.textfile == path }
        var policies = policy.map { [$0] } ?? []
        for file in PolicyCommand.library.files {
            if let other = (try? PolicyFile(path: file))?.policy, other.name != policy?.name, other.textfile == path {
                policies.append(other)
            }
        }
        var all = PolicyHealth.all(
            policies, records, names: history?.names ?? [], timers: timers, now: Double(Ambient.system.now()) / 1e9,
            offset: Session.zoneOffset, isSourceHere: Session.isHere)
        for index in all.indices { all[index].seen = PlaceLook.disks(session) }
        do { try MetricsFile(all, version: BGBackup.version).write(to: path) } catch {
            Terminal.note("bgbackup: warning: \(error)", .warning)
        }
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
