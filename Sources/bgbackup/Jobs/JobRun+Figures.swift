import BackupBase
import BackupEngine
import BackupRepository
import Operations
import QdrantStorage

/// What each kind of run leaves in its record.
extension JobRun {
    func note(_ report: BackupReport) {
        note { figures in
            figures.take(report)
            figures.bytesRead = report.bytesRead
            figures.bytesNew = report.bytesNew
            figures.bytesStored = report.bytesStored
        }
        if let first = report.problems.first {
            let more = report.problems.count > 1 ? ", and \(report.problems.count - 1) more" : ""
            explain(.incomplete, "some source could not be read: \(first)\(more)")
        }
    }

    /// A watch has one record a day, with sums; it is written down once a minute, and when something goes wrong.
    func note(_ event: BackupWatch.Event) async {
        turnDay()
        var (isUrgent, isWell) = (false, false)
        note { figures in
            switch event {
            case .made(let report):
                figures.take(report)
                let moment = formatTime(Ambient.system.now())
                figures.noteAnomaly(at: moment)
                func add(_ sum: inout Int64?, _ bytes: Int64) { sum = (sum ?? 0) + bytes }
                add(&figures.bytesRead, report.bytesRead)
                add(&figures.bytesNew, report.bytesNew)
                add(&figures.bytesStored, report.bytesStored)
                figures.snapshotsMade = (figures.snapshotsMade ?? 0) + (report.snapshot == nil ? 0 : 1)
                // What is incomplete is no good backup, and nobody else would say so.
                isWell = report.problems.isEmpty
                if isWell { figures.lastDone = moment }
                isUrgent = figures.snapshotsMade == 1 || !isWell || report.anomaly != nil
            case .busy: break
            case .failed:
                figures.failures = (figures.failures ?? 0) + 1
                isUrgent = true
            }
        }
        if case .failed(let error, _) = event { explain(error.code, "\(error)") }
        if isWell { trouble = nil }
        await goOn(isUrgent: isUrgent, isWell: isWell)
    }

    /// - Parameter isFull: whether the snapshots of all nodes were judged by rules
    func note(_ outcome: ForgetOutcome, isFull: Bool) {
        let begun = started
        note { figures in
            let total = outcome.plan.verdicts.count + outcome.plan.unreadable.count
            figures.snapshots = total - outcome.forgotten.count
            figures.snapshotsForgotten = outcome.forgotten.count
            figures.snapshotsLocked = outcome.locked.count
            figures.lockedUntil = outcome.locked.compactMap(\.until).max().map { formatTime($0) }
            figures.anomaly = outcome.plan.anomalies.first.map {
                "in snapshot \($0.snapshot.shortID) \($0.change.description)"
            }
            if isFull { figures.judged = begun }
        }
    }

    func note(_ report: LockExtension.Report) {
        note { figures in
            figures.lockHorizon = LockReport(report, dryRun: false).horizon
            figures.locksExtended = report.extended
        }
    }

    func note(_ plan: PrunePlan) {
        note { figures in
            figures.snapshots = plan.snapshots
            figures.repositoryBytes = plan.stored.bytes - plan.free.bytes
            figures.repositoryBytesNeeded = plan.needed.bytes
            figures.repositoryBytesUnused = plan.later.bytes + plan.held.bytes + plan.young.bytes
            figures.repositoryBytesLocked = plan.locked.bytes
            figures.bytesFreed = plan.free.bytes
            if let until = plan.lockedUntil { figures.lockedUntil = formatTime(until) }
        }
    }

    /// - Parameter share: of the data that was to be read, 0…1
    func note(_ report: CheckReport, _ share: Double) {
        let damages = report.findings.filter { $0.severity == .damage }
        note { figures in
            figures.snapshots = report.snapshots
            figures.packs = report.packs
            figures.repositoryBytes = report.bytesStored
            figures.framesRead = report.framesRead
            figures.bytesRead = report.bytesRead
            figures.dataShare = share
            figures.damages = damages.count
        }
        if let first = damages.first {
            let more = damages.count > 1 ? ", and \(damages.count - 1) more" : ""
            explain(.damaged, "\(first.object): \(first.message)\(more)")
        }
    }

    func note(_ report: DrillReport) {
        note { figures in
            figures.snapshot = report.nodes.count == 1 ? report.nodes.first?.snapshot_id : nil
            figures.verdict = report.verdict.rawValue
            figures.bytesTotal = report.bytes
            figures.recoverySeconds = report.recovery_seconds
            figures.recoveryObjectiveSeconds = report.recovery_objective_seconds
            figures.recoveryPointSeconds = report.recovery_point_seconds
            figures.recoveryPointObjectiveSeconds = report.recovery_point_objective_seconds
        }
        if report.verdict == .fail { explain(.drillFailed, report.reason ?? "the drill failed") }
    }

    /// Of several copies the figures are sums.
    func note(_ report: Replication.Report, _ location: String) {
        note { figures in
            figures.snapshotsCopied = (figures.snapshotsCopied ?? 0) + report.snapshots
            figures.bytesCopied = (figures.bytesCopied ?? 0) + report.bytes
            figures.copyLocation = figures.copyLocation.map { "\($0), \(location)" } ?? location
        }
        if let first = report.damaged.first { explain(.damaged, "not copied: \(first)") }
    }
}

extension RunRecord.Figures {
    /// What is of the last snapshot, and no sum.
    fileprivate mutating func take(_ report: BackupReport) {
        if let made = report.snapshot { snapshot = "\(made.id)" }
        parent = report.parent.map { "\($0)" }
        capture = report.capture
        consistency = report.consistency.rawValue
        filesNew = report.filesNew
        filesChanged = report.filesChanged
        filesUnmodified = report.filesUnmodified
        bytesTotal = report.bytesTotal
        captureSeconds = rounded(report.captureDuration)
        problems = report.problems.count
        warnings = report.warnings.count
        points = report.inspection?.points
        anomaly = report.anomaly?.description
    }
}
