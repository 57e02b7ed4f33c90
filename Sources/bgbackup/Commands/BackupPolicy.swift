import BackupBase
import BackupRepository
import Glibc
import Operations

/// What a policy says for one backup: it stands where a flag does not.
struct BackupPolicy {
    let policy: Policy
    let schedule: Policy.Schedule?
    let document: String
    /// Of its file.
    let path: String

    /// - Throws: `BackupError` of code `wrong-policy`, or `usage` where there is no such policy or schedule
    init(_ name: String, schedule: String?) throws {
        let (policy, file) = try PolicyCommand.library.load(name, report: PolicyCommand.tell)
        self.policy = policy
        document = file.document
        path = absolute(file.path)
        self.schedule = try schedule.map { wanted in
            guard let found = policy.schedules.first(where: { $0.name == wanted }) else {
                throw BackupError(
                    .usage, "the policy \(policy.name) has no schedule '\(printable(wanted.utf8))'",
                    hint: "There are: \(policy.schedules.map(\.name).joined(separator: ", ")).")
            }
            return found
        }
    }

    var record: PolicyRecord { PolicyRecord(name: policy.name, schedule: schedule?.name, document: document) }

    /// The limits of now: a run keeps those that it began with.
    var limits: Policy.Limits {
        let (_, parts) = Self.localTime
        return policy.limits.at(Int(parts.tm_hour) * 60 + Int(parts.tm_min))
    }

    /// The backup set that a scheduled run of a cluster's node belongs to: nodes that begin a little apart name the same one.
    func set(of cluster: String) -> String? {
        let (now, parts) = Self.localTime
        return schedule?.moment(near: Double(now), offset: Double(parts.tm_gmtoff)).map {
            "\(cluster)@\(formatTime(Int64($0) * 1_000_000_000))"
        }
    }

    private static var localTime: (seconds: time_t, parts: tm) {
        var seconds = time(nil)
        var parts = tm()
        localtime_r(&seconds, &parts)
        return (seconds, parts)
    }

    /// The file that holds a secret.
    static func path(of secret: Policy.SecretReference, _ session: Session) throws -> String {
        switch secret {
        case .file(let path): return path
        case .credential(let name):
            guard let path = session.credential(name) else {
                throw BackupError(
                    .noPassword, "the credential '\(printable(name.utf8))' that the policy names is not there",
                    hint:
                        "The unit gives it with LoadCredential=; elsewhere put it into a directory that CREDENTIALS_DIRECTORY names."
                )
            }
            return path
        }
    }
}

extension BackupCommand {
    /// Fills in what the command line leaves out.
    mutating func take(_ plan: BackupPolicy) throws {
        let (policy, limits) = (plan.policy, plan.limits)
        let session = Session(options: global)
        func file(_ secret: Policy.SecretReference?) throws -> String? {
            try secret.map { try BackupPolicy.path(of: $0, session) }
        }

        path = path ?? policy.source.path
        node = node ?? policy.node
        cluster = cluster ?? policy.cluster
        if setEvery != nil, cluster == nil {
            throw BackupError(.usage, "--set-every names the set by a cluster, and there is none")
        }
        if set == nil, setEvery == nil, !watch, let cluster { set = plan.set(of: cluster) }
        tags = policy.tags + (plan.schedule?.tags ?? []) + tags
        tags = tags.enumerated().filter { tags.firstIndex(of: $1) == $0 }.map(\.element)
        if capture == nil {
            capture = Capture(rawValue: policy.capture.method)
            captureHook = captureHook ?? policy.capture.hook
        }
        maxFreeze = maxFreeze ?? policy.capture.maxFreeze
        keepCapture = keepCapture ?? policy.capture.keep
        // A key goes to its own server only.
        if qdrantUrl == nil, let server = policy.source.qdrant {
            qdrantUrl = server.url
            qdrantApiKeyFile = try qdrantApiKeyFile ?? file(server.apiKey)
        }
        limitRead = limitRead ?? limits.read.map { "\($0)" }

        try global.takePlace(plan)
        if writerKey == nil, global.passwordFile == nil {
            writerKey = try file(policy.writerKey)
            global.passwordFile = try file(policy.password)
        }
        try validate()
    }

    struct PausedSummary: Encodable {
        let message_type = "summary"
        let schema = 1
        let snapshot_id = Nullable<String>(nil)
        let paused = true
        let policy: String
    }

    func tellPaused(_ policy: Policy) throws {
        if global.json { return try Output.document(PausedSummary(policy: policy.name), lines: true) }
        if !global.quiet { Output.line("policy \(policy.name) is paused: no backup is made") }
    }
}
