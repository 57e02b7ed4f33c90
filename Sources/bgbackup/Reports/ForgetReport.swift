import ArgumentParser
import BackupBase
import BackupEngine
import BackupRepository

/// A retention plan, and what came of it: as JSON, as a table, as a calendar.
struct ForgetReport {
    private let plan: RetentionPlan
    /// Nil of a dry run.
    private let outcome: ForgetOutcome?

    init(_ plan: RetentionPlan, outcome: ForgetOutcome?) { (self.plan, self.outcome) = (plan, outcome) }

    private var goneCount: Int {
        outcome?.forgotten.count ?? plan.forgotten.count + plan.unreadable.filter { !$0.isKept }.count
    }
    private var total: Int { plan.verdicts.count + plan.unreadable.count }

    // MARK: - Output

    func show(_ global: GlobalOptions) throws {
        for warning in plan.warnings { Terminal.note("bgbackup: warning: \(warning)") }
        for (snapshot, isKept) in plan.unreadable where isKept {
            Terminal.note("bgbackup: warning: \(snapshot.problem); it stays until it is named")
        }
        if global.json { return try Output.document(document, lines: true) }
        if outcome == nil || global.verbose { showPlan(global) }
        guard !global.quiet else { return }
        if outcome == nil { return Output.line("would forget \(goneCount) of \(total) snapshots") }
        let rest = goneCount > 0 ? "; their space comes back when the repository is pruned" : ""
        Output.line("forgot \(goneCount) of \(total) snapshots\(rest)")
    }

    private func showPlan(_ global: GlobalOptions) {
        func row(_ id: ObjectID, _ committed: Double, _ node: String, _ isKept: Bool, _ reasons: [String]) -> [String] {
            [
                String("\(id)".prefix(8)), formatTime(committed, "%Y-%m-%d %H:%M:%S"), printable(node.utf8),
                isKept ? "keep" : "forget", reasons.joined(separator: "; "),
            ]
        }
        var rows = plan.verdicts.map { verdict in
            let snapshot = verdict.snapshot
            return row(snapshot.id, snapshot.committed, snapshot.volume.node, verdict.isKept, verdict.reasons)
        }
        for (snapshot, isKept) in plan.unreadable {
            rows.append(row(snapshot.name.id, snapshot.committed, "?", isKept, [Self.why(isKept)]))
        }
        Output.table(["ID", "TIME (UTC)", "NODE", "FATE", "WHY"], rows)
        guard !global.quiet else { return }
        for calendar in SnapshotCalendar.ofVolumes(plan.verdicts) {
            Output.line("")
            for line in calendar.lines { Output.line(line) }
        }
        if !plan.verdicts.isEmpty { Output.line("\n\(SnapshotCalendar.legend)\n") }
    }

    /// Of one that cannot be read.
    private static func why(_ isKept: Bool) -> String { isKept ? "cannot be read" : "named" }

    // MARK: - The end

    /// Says what stood in the way, and throws the exit status it makes.
    func end() throws {
        var errors: [BackupError] = []
        for anomaly in plan.anomalies {
            let snapshot = anomaly.snapshot
            errors.append(
                BackupError(
                    .retentionRefused,
                    "nothing of \(snapshot.volume) is forgotten: in snapshot \(snapshot.shortID) \(anomaly.change.description)",
                    hint:
                        "Look at the volume. If it was attacked, hold the last good snapshot: 'bgbackup hold ID'. If the change is right: 'bgbackup forget --accept-anomaly \(snapshot.shortID)'."
                ))
        }
        if let outcome {
            for id in outcome.held {
                errors.append(BackupError(.held, "snapshot \("\(id)".prefix(8)) was held while this ran, and stays"))
            }
            if let error = locked(outcome) { errors.append(error) }
        }
        for error in errors { Output.report(error) }
        guard let worst = errors.last else { return }
        throw ExitCode(worst.code.exitStatus)
    }

    private func locked(_ outcome: ForgetOutcome) -> BackupError? {
        guard !outcome.locked.isEmpty else { return nil }
        let names = outcome.locked.map { id, until -> String in
            let end = until.map { " until " + formatTime($0) } ?? ""
            return "\(id)".prefix(8) + end
        }
        let stayed = outcome.stayed.isEmpty ? "" : "; with them stay \(outcome.stayed.count) of the same sets"
        return BackupError(
            .immutable,
            "the store keeps \(names.count) snapshot\(names.count == 1 ? "" : "s"): \(names.joined(separator: ", "))\(stayed)",
            hint: "An object lock cannot be lifted: run this again after its end. All else was forgotten.")
    }

    // MARK: - JSON

    struct Document: Encodable {
        struct Snapshot: Encodable {
            let id: String
            let committed: String
            let node: Nullable<String>
            let volume: Nullable<String>
            let set: Nullable<String>
            let keep: Bool
            let reasons: [String]
            /// Whether its object is gone; false of a dry run.
            let forgotten: Bool
            let locked_until: Nullable<String>
        }
        struct Anomaly: Encodable {
            let snapshot_id: String
            let node: String
            let volume: String
            let change: AnomalyDocument
        }

        let message_type = "summary"
        let schema = 1
        let dry_run: Bool
        let snapshots_total: Int
        let snapshots_kept: Int
        let snapshots_forgotten: Int
        let snapshots_locked: Int
        let snapshots: [Snapshot]
        let anomalies: [Anomaly]
        let warnings: [String]
    }

    private var document: Document {
        let gone = outcome?.forgotten ?? []
        var locks: [ObjectID: Int64?] = [:]
        for (id, until) in outcome?.locked ?? [] { locks.updateValue(until, forKey: id) }
        func snapshot(
            _ id: ObjectID, _ committed: Double, _ facts: SnapshotFacts?, _ isKept: Bool, _ reasons: [String]
        ) -> Document.Snapshot {
            Document.Snapshot(
                id: "\(id)", committed: formatTime(committed, "%Y-%m-%dT%H:%M:%SZ"), node: Nullable(facts?.volume.node),
                volume: Nullable(facts?.volume.path), set: Nullable(facts?.set), keep: isKept, reasons: reasons,
                forgotten: gone.contains(id), locked_until: Nullable((locks[id] ?? nil).map { formatTime($0) }))
        }
        let readable = plan.verdicts.map {
            snapshot($0.snapshot.id, $0.snapshot.committed, $0.snapshot, $0.isKept, $0.reasons)
        }
        let unreadable = plan.unreadable.map {
            snapshot($0.snapshot.name.id, $0.snapshot.committed, nil, $0.isKept, [Self.why($0.isKept)])
        }
        return Document(
            dry_run: outcome == nil, snapshots_total: total, snapshots_kept: total - goneCount, snapshots_forgotten: goneCount,
            snapshots_locked: locks.count,
            snapshots: readable + unreadable,
            anomalies: plan.anomalies.map {
                Document.Anomaly(
                    snapshot_id: "\($0.snapshot.id)", node: $0.snapshot.volume.node, volume: $0.snapshot.volume.path,
                    change: AnomalyDocument($0.change))
            },
            warnings: plan.warnings)
    }
}
