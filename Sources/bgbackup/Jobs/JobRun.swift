import ArgumentParser
import BackupBase
import Glibc
import Operations

/// One run of a job and what is told of it: the record in the node's history. Whatever becomes
/// of telling, the run itself goes on.
final class JobRun {
    private let kind: RunRecord.Kind
    /// As the command line names it.
    private let policy: String?
    private let schedule: String?
    /// False of what only says what it would do.
    private let isTold: Bool
    private let session: Session
    private var run: ActiveRun?
    /// Whether it was said that the history cannot be written.
    private var isSilent = false
    private var trouble: (code: BackupError.Code, message: String)?
    private var record: RunRecord?
    /// Monotonic seconds.
    private var nextSave = 0.0

    init(
        _ kind: RunRecord.Kind, policy: String? = nil, schedule: String? = nil, dryRun: Bool = false, _ options: GlobalOptions
    ) {
        self.kind = kind
        self.policy = policy
        self.schedule = schedule
        isTold = !dryRun
        session = Session(options: options)
    }

    /// Runs the job. It calls `begin` when it knows what it is about; without that nothing is told but a failure.
    func carried(_ body: () async throws -> Void) async throws {
        do {
            try await body()
            end(nil)
        } catch {
            end(error)
            throw error
        }
    }

    /// The run begins.
    /// - Parameter options: with what the policy filled in
    func begin(_ plan: BackupPolicy?, _ options: GlobalOptions, node: String? = nil) {
        begin(
            plan?.policy, repository: options.repository ?? Session.environment("BGBACKUP_REPOSITORY"),
            node: node ?? plan?.policy.node ?? Session.hostName)
    }

    private func begin(_ policy: Policy?, repository: String?, node: String?) {
        guard isTold, record == nil else { return }
        let record = RunRecord(
            kind, policy: policy?.name ?? self.policy.map(Self.name), schedule: schedule, node: node,
            repository: repository, textfile: policy?.textfile)
        self.record = record
        guard let directory = session.stateDirectory else { return }
        attempt { run = try RunHistory(stateDirectory: directory).begin(record) }
    }

    /// Notes what the run counted.
    func note(_ body: (inout RunRecord.Figures) -> Void) { run?.note(body) }

    /// Writes down what was noted, of a run that goes on: at once where that is urgent, and else
    /// once a minute. With a new day (UTC) a new record begins, so that each day has its own.
    func goOn(isUrgent: Bool) {
        guard let active = run, let known = record else { return }
        let now = monotonicSeconds()
        if known.started.prefix(10) != formatTime(Ambient.system.now()).prefix(10) {
            attempt { _ = try active.end(0) }
            let next = RunRecord(
                kind, policy: known.policy, schedule: known.schedule, node: known.node, repository: known.repository,
                textfile: known.textfile)
            record = next
            attempt { run = try session.stateDirectory.map { try RunHistory(stateDirectory: $0).begin(next) } }
        } else if isUrgent || now >= nextSave {
            attempt { try active.save() }
        } else {
            return
        }
        nextSave = now + 60
    }

    /// Why it ends with an exit status that no error of its own explains.
    func explain(_ code: BackupError.Code, _ message: String) { trouble = (code, message) }

    private func end(_ error: (any Error)?) {
        // A paused policy ends without a beginning; a policy that cannot be read, with an error.
        if error != nil { begin(nil, repository: nil, node: nil) }
        guard let run else { return }
        let ending = Ending(error)
        let code = ending.code ?? (ending.status == 0 ? nil : trouble?.code)
        attempt {
            record = try run.end(
                ending.status, code: code?.rawValue, message: ending.message ?? (code == nil ? nil : trouble?.message))
        }
        self.run = nil
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
