import BackupBase
import FoundationEssentials

/// What a webhook is told: one JSON object. `text` is for people and chat programs.
///
/// Its figures and codes come from the run's record; the words of an error only where the policy says `sendLogs`: they
/// hold paths and names of hosts.
public struct Announcement: Sendable, Encodable {
    /// As `spec.notifications.webhooks[].on` names them.
    public enum Event: String, Sendable, Encodable, CaseIterable {
        case success, warning, failure, recovered, drillFailed, damage
    }

    public let schema = 1
    public let event: Event
    public let text: String
    public let policy: String?
    public let job: String
    public let schedule: String?
    public let node: String?
    public let repository: String?
    public let run: String
    public let started: String
    public let ended: String?
    public let durationSeconds: Double?
    public let exitStatus: Int32?
    public let outcome: String
    public let errorCode: String?
    public let errorMessage: String?
    public let figures: RunRecord.Figures
    /// Codes of everything that is wrong with the policy now.
    public let problems: [Problem]

    /// What a run that ended is worth telling, the most telling first.
    /// - Parameter previous: the run of the same job before it that came to something
    public static func events(_ record: RunRecord, after previous: RunRecord?) -> [Event] {
        let wasIll = previous.map { $0.outcome == .failure || $0.outcome == .killed } ?? false
        // Well itself, but what an earlier check found in data nobody saw mended.
        if record.isDone, record.standingDamages ?? 0 > 0 { return [.damage, .failure] }
        switch record.outcome {
        case .success: return wasIll ? [.recovered, .success] : [.success]
        case .warning: return wasIll ? [.recovered, .warning] : [.warning]
        case .failure:
            switch record.errorCode {
            case BackupError.Code.drillFailed.rawValue: return [.drillFailed, .failure]
            case BackupError.Code.damaged.rawValue: return [.damage, .failure]
            default: return [.failure]
            }
        // Nothing came of it, and nothing is wrong.
        case .busy, .interrupted, .running: return []
        case .killed: return [.failure]
        }
    }

    /// - Parameters:
    ///   - problems: what is wrong with the policy
    ///   - sendLogs: whether words of errors may go out
    public init(_ event: Event, _ record: RunRecord, problems: [Problem], sendLogs: Bool) {
        self.event = event
        policy = record.policy
        job = record.kind.rawValue
        schedule = record.schedule
        node = record.node
        repository = record.repository
        run = record.id
        started = record.started
        ended = record.ended
        durationSeconds = record.durationSeconds
        exitStatus = record.exitStatus
        outcome = record.outcome.rawValue
        errorCode = record.errorCode
        errorMessage = sendLogs ? record.errorMessage : nil
        var figures = record.figures
        if !sendLogs {
            figures.anomaly = figures.anomaly.map { _ in "the volume changed unlike before" }
            figures.anomalyStanding = figures.anomalyStanding.map { _ in "the volume changed unlike before" }
            // A place names hosts and buckets of others.
            figures.copyLocation = nil
        }
        self.figures = figures
        self.problems = problems.map {
            Problem(
                $0.code, job: $0.job, schedule: $0.schedule,
                sendLogs ? $0.text : "\([$0.job, $0.schedule].compactMap { $0 }.joined(separator: " ")): \($0.code)")
        }
        text = Self.text(event, record, self.problems)
    }

    /// "bgbackup: backup hourly of qdrant-prod on node-1: failed, store-unreachable (exit status 1)"
    static func text(_ event: Event, _ record: RunRecord, _ problems: [Problem]) -> String {
        let title = [record.kind.rawValue, record.schedule].compactMap { $0 }.joined(separator: " ")
        let whose = (record.policy.map { " of \($0)" } ?? "") + (record.node.map { " on \($0)" } ?? "")
        let how: String
        switch event {
        case .success: how = "done"
        case .warning: how = "done with warnings"
        case .recovered: how = "works again"
        case .failure, .drillFailed, .damage:
            if record.outcome == .failure || record.outcome == .killed {
                how = "failed, \(record.errorCode ?? "failed") (exit status \(record.exitStatus ?? 137))"
            } else if record.standingDamages ?? 0 > 0, event == .damage {
                how = "done, but damage that was found before stands"
            } else {
                let codes = problems.map { ([$0.job, $0.schedule].compactMap { $0 } + [$0.code]).joined(separator: " ") }
                how = "something else is wrong: \(codes.joined(separator: ", "))"
            }
        }
        return "bgbackup: \(title)\(whose): \(how)"
    }

    /// As it goes out.
    public var json: [UInt8] {
        let encoder = JSONEncoder()
        encoder.keyEncodingStrategy = .convertToSnakeCase
        encoder.outputFormatting = [.sortedKeys, .withoutEscapingSlashes]
        return (try? encoder.encode(self)).map(Array.init) ?? []
    }
}
