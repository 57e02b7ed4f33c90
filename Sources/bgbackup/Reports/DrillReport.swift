import BackupBase
import BackupEngine
import BackupRepository
import QdrantStorage

/// A drill as JSON, as text, and as a page (`page`).
struct DrillReport: Codable {
    struct Stage: Codable {
        let name: String
        let start_seconds: Double
        let seconds: Double
        let verdict: ServerCheck.Verdict
        let detail: String
    }

    struct Point: Codable {
        let seconds: Double
        let bytes: Int64
    }

    struct Node: Codable {
        let node: String
        let snapshot_id: String
        let captured: String
        let consistency: String
        let has_fingerprint: Bool
        let verdict: ServerCheck.Verdict
        let engine: String?
        let recovery_seconds: Double?
        let files: Int
        let bytes_total: Int64
        let bytes_fetched: Int64
        let bytes_per_second: Int64
        let stages: [Stage]
        let restore_stages: [String: Double]
        let checks: [ServerCheck]
        let findings: [QdrantStorage.Finding]
        let throughput: [Point]
    }

    private(set) var message_type = "summary"
    private(set) var schema = 1
    let id: String
    let verdict: ServerCheck.Verdict
    let reason: String?
    let repository_id: String
    let set: String?
    /// How the snapshots were chosen.
    let pick: String
    let started: String
    let duration_seconds: Double
    /// Nil where no right answer came, or the database was not started.
    let recovery_seconds: Double?
    let recovery_objective_seconds: Double?
    let recovery_point_seconds: Double?
    let recovery_point_objective_seconds: Double?
    /// The program that was started; nil where none was.
    let engine: String?
    let isolated: Bool
    let nodes: [Node]
    let checks: [ServerCheck]

    init(_ outcome: DrillOutcome, _ options: DrillOptions, repository: String, set: String?, pick: String) {
        let moment = formatTime(outcome.started)
        id = "\(moment.filter { $0 != "-" && $0 != ":" })-\(outcome.nodes.first.map { "\($0.snapshot.id)".prefix(8) } ?? "none")"
        verdict = outcome.verdict
        reason = outcome.reason
        repository_id = repository
        self.set = set
        self.pick = pick
        started = moment
        duration_seconds = rounded(outcome.duration)
        recovery_seconds = outcome.recovery.map(rounded)
        recovery_objective_seconds = options.recoveryObjective
        recovery_point_seconds = outcome.recoveryPoint.map(rounded)
        recovery_point_objective_seconds = options.recoveryPointObjective
        engine = options.engine?.arguments.first
        isolated = options.engine != nil && !options.isNetworkShared
        nodes = outcome.nodes.map(Node.init)
        checks = outcome.checks
    }

    /// All that was compared, of all nodes.
    var allChecks: [ServerCheck] { checks + nodes.flatMap(\.checks) }
    var bytes: Int64 { nodes.reduce(0) { $0 + $1.bytes_total } }

    /// Stages that are no sum of checks.
    var ownStages: [Stage] { nodes.flatMap(\.stages).filter { $0.name != "compare" } }

    /// Stages and checks.
    func count(_ verdict: ServerCheck.Verdict) -> Int {
        allChecks.filter { $0.verdict == verdict }.count + ownStages.filter { $0.verdict == verdict }.count
    }

    /// Whether the database was started and ready.
    var wasStarted: Bool { nodes.contains { $0.engine != nil } }
}

extension DrillReport.Node {
    fileprivate init(_ drill: NodeDrill) {
        let record = drill.snapshot.record
        node = record.node
        snapshot_id = "\(drill.snapshot.id)"
        captured = record.started
        consistency = record.consistency.rawValue
        has_fingerprint = record.fingerprint != nil
        verdict = drill.verdict
        engine = drill.engine.map { "\($0)" }
        recovery_seconds = drill.recovery.map(rounded)
        files = drill.restore?.files ?? 0
        bytes_total = drill.restore?.bytesTotal ?? 0
        bytes_fetched = drill.restore?.bytesFetched ?? 0
        bytes_per_second = drill.restore?.bytesPerSecond ?? 0
        stages = drill.stages.map {
            .init(
                name: $0.name.rawValue, start_seconds: rounded($0.start), seconds: rounded($0.seconds), verdict: $0.verdict,
                detail: $0.detail)
        }
        restore_stages = Dictionary(
            uniqueKeysWithValues: (drill.restore?.stages.seconds ?? [:]).map { ($0.rawValue, rounded($1)) })
        checks = drill.checks
        findings = drill.findings
        throughput = drill.curve.map { .init(seconds: rounded($0.seconds), bytes: $0.bytes) }
    }
}

// MARK: - Text

extension DrillReport {
    private static let signs: [ServerCheck.Verdict: String] = [.pass: "✓", .warn: "!", .fail: "✗"]

    /// "✓ restore   1.2s  …"
    static func line(_ name: String, _ seconds: Double, _ verdict: ServerCheck.Verdict, _ detail: String) -> String {
        func padded(_ text: String, _ width: Int) -> String { text + String(repeating: " ", count: max(0, width - text.count)) }
        return "  \(signs[verdict]!) \(padded(name, 8))  \(padded(formatDuration(seconds), 7))  \(printable(detail.utf8))"
    }

    /// What was wrong or is worth a look, and the verdict.
    func print(quiet: Bool, verbose: Bool, place: String?) {
        for stage in ownStages where quiet && stage.verdict != .pass {
            Output.line(Self.line(stage.name, stage.seconds, stage.verdict, stage.detail))
        }
        for check in allChecks where check.verdict != .pass || verbose {
            Output.line("  \(Self.signs[check.verdict]!) \(printable(check.reason.utf8))")
        }
        guard !quiet || verdict == .fail else { return }
        Output.line("recovery time   \(Self.measured(recovery_seconds, recovery_objective_seconds))")
        Output.line("recovery point  \(Self.measured(recovery_point_seconds, recovery_point_objective_seconds))")
        let what = verdict == .fail ? "The drill failed" : "The drill passed"
        Output.line("\(what)\(verdict == .warn ? ", with something worth a look" : "")\(place.map { ": \($0)" } ?? ".")")
    }

    static func measured(_ value: Double?, _ objective: Double?) -> String {
        let text = value.map(formatDuration) ?? "unknown"
        guard let objective else { return "\(text) (no objective)" }
        let isMet = value.map { $0 <= objective } ?? false
        return "\(text) (objective \(formatDuration(objective)), \(isMet ? "met" : "missed"))"
    }
}
