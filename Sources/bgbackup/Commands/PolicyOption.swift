import ArgumentParser
import BackupBase
import Operations

/// `--policy` of the commands that look after a repository.
struct PolicyOption: ParsableArguments {
    @Option(
        help: ArgumentHelp(
            "Do what this policy says: repository, password, limits and the command's own settings. Options count more.",
            valueName: "name|path"))
    var policy: String?

    /// - Returns: nil where none is named
    func plan() throws -> BackupPolicy? { try policy.map { try BackupPolicy($0, schedule: nil) } }
}

extension GlobalOptions {
    /// Fills in the place, the limits of now and the password's file, where the command line leaves them out.
    mutating func take(_ plan: BackupPolicy) throws {
        try takePlace(plan)
        let session = Session(options: self)
        if passwordFile == nil { passwordFile = try plan.policy.password.map { try BackupPolicy.path(of: $0, session) } }
    }

    mutating func takePlace(_ plan: BackupPolicy) throws {
        let (policy, limits, session) = (plan.policy, plan.limits, Session(options: self))
        limitUpload = limitUpload ?? limits.upload.map { "\($0)" }
        limitDownload = limitDownload ?? limits.download.map { "\($0)" }
        if repository == nil {
            repository = try policy.repositoryURL(keepFor: plan.schedule?.keepFor) { try BackupPolicy.path(of: $0, session) }
        }
    }

    private struct Paused: Encodable {
        let message_type = "summary"
        let schema = 1
        let paused = true
        let policy: String
    }

    /// Says that nothing is done, where the policy is paused.
    /// - Returns: whether it is
    func isPaused(_ plan: BackupPolicy, _ job: JobRun) throws -> Bool {
        guard plan.policy.paused else { return false }
        job.pause(plan)
        if json {
            try Output.document(Paused(policy: plan.policy.name), lines: true)
        } else if !quiet {
            Output.line("policy \(plan.policy.name) is paused: nothing is done")
        }
        return true
    }
}
