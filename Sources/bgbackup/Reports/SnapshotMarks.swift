import BackupBase
import BackupEngine
import BackupRepository

/// What the notes say of one snapshot.
struct SnapshotMarks {
    /// Those that are not over.
    let holds: [HoldNote]
    /// Oldest first.
    let drills: [DrillNote]

    var isProven: Bool { drills.last?.passed == true }

    /// A drill as JSON.
    struct Drill: Encodable {
        let drilled: String
        let passed: Bool
        let answered: Bool
        let recovery_seconds: Double?
        let first_answer_seconds: Double?
        let points: UInt64?
        let reason: String?
    }

    var documents: [Drill] {
        drills.map {
            Drill(
                drilled: $0.drilled, passed: $0.passed, answered: $0.answered, recovery_seconds: $0.recoverySeconds.map(rounded),
                first_answer_seconds: $0.firstAnswerSeconds.map(rounded), points: $0.points, reason: $0.reason)
        }
    }

    /// For a list.
    var words: String {
        let words = [holds.isEmpty ? "" : "HELD", isProven ? "proven" : ""].filter { !$0.isEmpty }
        return words.isEmpty ? "-" : words.joined(separator: ", ")
    }

    /// For `show`.
    var rows: [[String]] {
        let held = holds.map { hold in
            let why = hold.words.isEmpty ? "" : ": \(hold.words)"
            return ["held", "since \(shortTime(hold.held)) by \(printable(hold.by.utf8))\(why)"]
        }
        guard let last = drills.last else { return held }
        let result =
            last.passed
            ? last.recoverySeconds.map { "passed, recovered in \(formatDuration($0))" } ?? "passed, without a start"
            : "failed: \(printable((last.reason ?? "").utf8))"
        let more = drills.count > 1 ? ", the last of \(drills.count)" : ""
        return held + [["drilled", "\(shortTime(last.drilled))\(more): \(result)"]]
    }
}

/// The marks of all snapshots.
struct MarkedSnapshots {
    /// Nil where the notes cannot be read.
    private let evidence: RetentionEvidence?
    /// Why not.
    let failure: String?
    private let now: Double

    /// Reads the notes; what is wrong with them is no reason to list no snapshots.
    static func read(_ repository: Repository, _ listing: SnapshotListing, cache: String?) async -> MarkedSnapshots {
        let now = Double(Ambient.system.now()) / 1e9
        do {
            let evidence = try await repository.retentionEvidence(listing: listing, cache: cache)
            return MarkedSnapshots(evidence: evidence, failure: nil, now: now)
        } catch {
            let reason = ErrorMapping.backupError(error).map { "\($0)" } ?? "\(error)"
            let failure = "what is held and proven is not known: \(reason)"
            Terminal.note("bgbackup: warning: \(failure)")
            return MarkedSnapshots(evidence: nil, failure: failure, now: now)
        }
    }

    subscript(id: ObjectID) -> SnapshotMarks? {
        evidence.map { SnapshotMarks(holds: $0.holds(of: id, now: now), drills: $0.drills[id] ?? []) }
    }
}

/// An anomaly as JSON.
struct AnomalyDocument: Encodable {
    let changed_ratio: Double
    let changed_ratio_usual: Double
    let changed_ratio_limit: Double
    let compressed_ratio: Double
    let compressed_ratio_usual: Double
    let compressed_ratio_limit: Double
    let text: String

    init(_ anomaly: ChangeAnomaly) {
        changed_ratio = rounded(anomaly.changed)
        changed_ratio_usual = rounded(anomaly.changedUsual)
        changed_ratio_limit = rounded(anomaly.changedLimit)
        compressed_ratio = rounded(anomaly.compressed)
        compressed_ratio_usual = rounded(anomaly.compressedUsual)
        compressed_ratio_limit = rounded(anomaly.compressedLimit)
        text = anomaly.description
    }
}
