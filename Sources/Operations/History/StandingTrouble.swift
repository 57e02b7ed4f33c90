import BackupBase

/// What a run found and a later one does not undo by being well itself: it goes from each record of a job to the next.
extension RunRecord.Figures {
    /// Notes that the volume changed unlike before, from this moment on.
    /// - Parameter moment: RFC 3339
    public mutating func noteAnomaly(at moment: String) {
        guard let anomaly else { return }
        (anomalyStanding, anomalySince) = (anomaly, moment)
    }

    /// Takes over what still stands of the run of the same job before it.
    mutating func carry(from before: Self) {
        // Who judged all snapshots says what stands, also that nothing does.
        if judged == nil, anomalyStanding == nil {
            (anomalyStanding, anomalySince, judged) = (before.anomalyStanding, before.anomalySince, before.judged)
        }
        carryDamages(from: before)
    }

    private mutating func carryDamages(from before: Self) {
        if damages ?? 0 > 0 {
            // A share of the data that finds something says nothing of what was found in the rest.
            guard dataShare ?? 0 < 1, before.damagesShare ?? 0 > 0 else { return }
            damagesStanding = max(damagesStanding ?? 0, before.damagesStanding ?? 0)
            damagesShare = max(damagesShare ?? 0, before.damagesShare ?? 0)
            return
        }
        // What was seen in metadata every check sees again. What was seen in data, only one that reads all of it: a share
        // is another share each time.
        let isMended = damages == 0 && (before.damagesShare ?? 0 == 0 || dataShare ?? 0 >= 1)
        if !isMended { (damagesStanding, damagesShare) = (before.damagesStanding, before.damagesShare) }
    }

    /// Puts down what this run found itself.
    mutating func settle(from started: String) {
        if anomalyStanding == nil { noteAnomaly(at: started) }
        if let damages { (damagesStanding, damagesShare) = (damages, damages > 0 ? dataShare : nil) }
    }
}

extension RunRecord {
    /// Seconds since 1970 of the change that no retention has looked at since, as far as this job knows, and its words.
    var standingAnomaly: (text: String, since: Double)? {
        guard let text = figures.anomalyStanding ?? figures.anomaly else { return nil }
        return (text, figures.anomalySince.flatMap(parseTime) ?? start)
    }

    /// Damages that are known and not known to be mended.
    var standingDamages: Int? { figures.damagesStanding ?? figures.damages }
}

extension ActiveRun {
    /// Before the end: what this run found stands, and what the one before it found and this one did not undo.
    /// - Parameter before: the newest run of the same job that ended
    public func settle(after before: RunRecord?) {
        let started = record.started
        note { figures in
            figures.settle(from: started)
            guard var earlier = before?.figures else { return }
            // Of a version that did not note what stands.
            if earlier.anomalyStanding == nil, earlier.damagesStanding == nil { earlier.settle(from: before?.started ?? started) }
            figures.carry(from: earlier)
        }
    }
}
