import BackupBase
import Operations
import Subprocess

/// What systemd says of policies' timers.
enum TimerStates {
    /// Seconds for systemd's answer.
    static let patience = 3.0

    /// By policy and by a job's title; nothing where there is no systemd that answers.
    static func ask(_ policies: [Policy], within patience: Double = patience) async -> [String: [String: TimerState]] {
        var asked: [(policy: String, job: String, unit: String)] = []
        for policy in policies where !policy.paused {
            for job in policy.jobs {
                guard let instance = try? UnitName.instance(policy.name, job.name),
                    let unit = try? UnitName.unit("bgbackup-\(job.kind.rawValue)", instance, "timer")
                else { continue }
                asked.append((policy.name, title(job), unit))
            }
        }
        guard !asked.isEmpty, let text = await output(asked.map(\.unit), patience) else { return [:] }
        let states = parse(text)
        var result: [String: [String: TimerState]] = [:]
        for (policy, job, unit) in asked { result[policy, default: [:]][job] = states[unit] ?? .unknown }
        return result
    }

    /// "backup hourly"
    static func title(_ job: Policy.Job) -> String { [job.kind.rawValue, job.name].compactMap { $0 }.joined(separator: " ") }

    private static func output(_ units: [String], _ patience: Double) async -> String? {
        await withTaskGroup(of: String?.self) { group in
            group.addTask {
                let run = try? await Subprocess.run(
                    .name("systemctl"), arguments: Arguments(["show", "--property=Id,LoadState,ActiveState"] + units),
                    output: .string(limit: 1 << 20), error: .discarded)
                guard let run, run.terminationStatus.isSuccess else { return nil }
                return run.standardOutput
            }
            group.addTask {
                try? await Task.sleep(for: .seconds(patience))
                return nil
            }
            defer { group.cancelAll() }
            return await group.next() ?? nil
        }
    }

    /// Paragraphs of `NAME=value`, one for each unit.
    static func parse(_ text: String) -> [String: TimerState] {
        var states: [String: TimerState] = [:]
        for paragraph in text.split(separator: "\n\n") {
            var fields: [Substring: Substring] = [:]
            for line in paragraph.split(separator: "\n") {
                guard let equals = line.firstIndex(of: "=") else { continue }
                fields[line[..<equals]] = line[line.index(after: equals)...]
            }
            guard let id = fields["Id"] else { continue }
            let isThere = fields["LoadState"] == "loaded"
            let isActive = ["active", "activating", "reloading"].contains(fields["ActiveState"] ?? "")
            states[String(id)] = !isThere ? .missing : isActive ? .active : .disabled
        }
        return states
    }
}
