import BackupBase
import Operations

extension PolicyUnits {
    /// What systemd has to know of a policy.
    /// - Parameters:
    ///   - reference: how `--policy` names it: its name, or the path of its file
    ///   - program: path of bgbackup
    init(_ policy: Policy, reference: String, program: String) {
        self.init(policy: policy.name, jobs: policy.jobs.map { ScheduledJob($0, reference) }, program: program)
        writablePaths = Self.writablePaths(policy)
        devices = policy.source.isDevice ? [policy.source.path] : []
        credentials = Self.credentials(policy)
    }

    private static func writablePaths(_ policy: Policy) -> [String] {
        var paths: [String] = []
        if !policy.source.isDevice {
            // Captures stand beside the volume.
            paths += [policy.source.path, parent(policy.source.path)]
        }
        paths += [policy.repository.localPath, policy.drill?.target].compactMap { $0 }
        paths += policy.copies.compactMap(\.place.localPath)
        if let textfile = policy.textfile { paths.append(parent(textfile)) }
        return Set(paths).sorted()
    }

    private static func credentials(_ policy: Policy) -> [String] {
        var references = [
            policy.password, policy.writerKey, policy.source.qdrant?.apiKey, policy.repository.credentials,
            policy.repository.customerKey, policy.healthchecks,
        ]
        references += policy.copies.flatMap { [$0.place.credentials, $0.place.customerKey] } + policy.webhooks.map(\.url)
        let names = references.compactMap { reference -> String? in
            if case .credential(let name) = reference { return name }
            return nil
        }
        return Set(names).sorted()
    }

    /// The directory that holds a path; of a path beneath `/` the path itself: nobody may write all of `/`.
    private static func parent(_ path: String) -> String {
        let parts = path.split(separator: "/")
        return parts.count < 2 ? path : "/" + parts.dropLast().joined(separator: "/")
    }
}

extension ScheduledJob {
    init(_ job: Policy.Job, _ reference: String) {
        let template = Template(rawValue: job.kind.rawValue)!
        let schedule = job.name.map { ["--schedule", $0] } ?? []
        self.init(
            template: template, schedule: job.name, arguments: [template.rawValue, "--policy", reference] + schedule,
            onCalendar: [job.onCalendar])
    }
}
