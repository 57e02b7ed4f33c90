import BackupBase
import BackupRepository

/// What keeps the snapshots of one volume.
struct VolumeJudgement {
    /// Oldest first.
    private let snapshots: [SnapshotFacts]
    private let evidence: RetentionEvidence
    private let now: Double
    private(set) var reasons: [ObjectID: [String]] = [:]

    init(_ snapshots: [SnapshotFacts], evidence: RetentionEvidence, now: Double) {
        (self.snapshots, self.evidence, self.now) = (snapshots, evidence, now)
    }

    private mutating func keep(_ snapshot: SnapshotFacts, _ reason: String) { reasons[snapshot.id, default: []].append(reason) }

    mutating func keepAll(_ reason: String) { for snapshot in snapshots { keep(snapshot, reason) } }

    // MARK: - Whatever the policy

    static func words(_ hold: HoldNote) -> String { hold.words.isEmpty ? "held" : "held: \(hold.words)" }

    mutating func keepHeld() {
        for snapshot in snapshots {
            for hold in evidence.holds(of: snapshot.id, now: now) { keep(snapshot, Self.words(hold)) }
        }
    }

    /// Keeps what one would restore from.
    mutating func keepBest() {
        // Read back, and started: a rehearsal without a start must not take the place of one with.
        if let answered = snapshots.last(where: { evidence.hasAnswered($0.id) }) { keep(answered, "last proven by a drill") }
        if let proven = snapshots.last(where: { evidence.isProven($0.id) }), !evidence.hasAnswered(proven.id) {
            keep(proven, "last that a drill read back")
        }
        // A later drill may have failed for want of room: what was proved once is better than what never was.
        if !snapshots.contains(where: { evidence.isProven($0.id) }),
            let once = snapshots.last(where: { evidence.wasProven($0.id) })
        {
            keep(once, "proven by an earlier drill, and no other is")
        }
        if let good = snapshots.last(where: \.isGood) { keep(good, "newest that is complete and of one moment") }
    }

    // MARK: - By the policy

    /// - Parameter name: of the policy file that this is of: what was made under another, or by hand, stays. Nil: rules of
    ///   a command line, which are for all
    mutating func apply(_ policy: RetentionPolicy, of name: String?) {
        for snapshot in snapshots {
            guard let name else { break }
            if snapshot.policy != name { keep(snapshot, "not made under policy \(printable(name.utf8))") }
            if policy.isEmpty, snapshot.keepFor == nil { keep(snapshot, "neither the policy nor its schedule lets it go") }
        }
        guard !policy.isEmpty || name != nil else { return keepAll("the policy has no rule that lets anything go") }
        // Those of others neither fill this policy's counts nor its days.
        let own = snapshots.filter { name == nil || $0.policy == name }
        for (index, snapshot) in own.reversed().enumerated() {
            if let last = policy.keepLast, index < last { keep(snapshot, "last \(index + 1) of \(last)") }
            if index < policy.minSnapshots { keep(snapshot, "newest \(index + 1) of \(policy.minSnapshots) that always stay") }
        }
        for bucket in CalendarBucket.allCases { apply(bucket, count: bucket.count(policy), to: own) }
        applyAges(policy)
    }

    /// Keeps the newest of each of the last `count` stretches of the calendar
    /// that have a snapshot, by the store's clock and by the nodes'.
    private mutating func apply(_ bucket: CalendarBucket, count: Int, to snapshots: [SnapshotFacts]) {
        let byStore = Self.newest(snapshots, bucket, count) { $0.committed }
        let byNode = Self.newest(snapshots, bucket, count) { $0.claimed }
        for snapshot in snapshots {
            let (first, second) = (byStore[snapshot.id], byNode[snapshot.id])
            if let first { keep(snapshot, "\(bucket) \(first)") }
            if let second, second != first { keep(snapshot, "\(bucket) \(second) by its node's clock") }
        }
    }

    private static func newest(
        _ snapshots: [SnapshotFacts], _ bucket: CalendarBucket, _ count: Int, _ time: (SnapshotFacts) -> Double
    ) -> [ObjectID: String] {
        var seen: Set<String> = []
        var found: [ObjectID: String] = [:]
        for snapshot in snapshots.reversed() {
            guard seen.count < count else { break }
            let name = bucket.name(time(snapshot))
            if seen.insert(name).inserted { found[snapshot.id] = name }
        }
        return found
    }

    private mutating func applyAges(_ policy: RetentionPolicy) {
        var latest = -Double.infinity
        for snapshot in snapshots {
            // Made after all before it, whatever the clock said then.
            latest = max(latest, snapshot.committed)
            let age = now - latest
            if let within = policy.keepWithin, age < within { keep(snapshot, "younger than \(Self.words(within))") }
            if let own = snapshot.keepFor, age < own { keep(snapshot, "younger than \(Self.words(own)), as its schedule says") }
        }
    }

    /// Whole days where they are some, otherwise as durations are written.
    private static func words(_ seconds: Double) -> String {
        for (unit, name) in [(86_400.0, "d"), (3600.0, "h")] where seconds >= 2 * unit && seconds < 1e12 {
            if (seconds / unit).rounded() * unit == seconds { return "\(Int64(seconds / unit))\(name)" }
        }
        return formatDuration(seconds)
    }

    // MARK: - Anomalies

    func anomalies(_ accepted: Set<ObjectID>) -> [RetentionPlan.Anomaly] {
        ChangeAnomaly.find(snapshots.map(\.change)) { accepted.contains(snapshots[$0].id) }.map {
            RetentionPlan.Anomaly(snapshot: snapshots[$0.index], change: $0.anomaly)
        }
    }
}

/// The backup sets that snapshots belong to.
struct BackupSets {
    /// By name: of each volume the newest, and the newest that is complete
    /// where that is another. An older one of the same volume and name was
    /// made to take the place of none: a set that is called the same every
    /// night is that of the last night.
    private var members: [String: [SnapshotFacts]] = [:]

    /// - Parameter sorted: oldest first
    init(_ sorted: [SnapshotFacts]) {
        for (name, all) in Dictionary(grouping: sorted.filter { $0.set != nil }, by: { $0.set! }) {
            members[name] = Dictionary(grouping: all, by: \.volume).values.flatMap { snapshots -> [SnapshotFacts] in
                let (last, complete) = (snapshots.last!, snapshots.last(where: \.isComplete))
                return complete.map { $0.id == last.id ? [last] : [$0, last] } ?? [last]
            }.sorted(by: SnapshotFacts.isOlder)
        }
    }

    /// Sets stay or go as a whole: where one member stays so do the others.
    func keepWhole(_ reasons: inout [ObjectID: [String]]) {
        for (name, members) in members {
            let kept = members.filter { reasons[$0.id]?.isEmpty == false }
            guard let first = kept.first else { continue }
            for member in members {
                guard reasons[member.id]?.isEmpty ?? true else { continue }
                reasons[member.id] = [why(member, name, "of which \(first.shortID) stays")]
            }
        }
    }

    /// Named members of sets of which others stay.
    func torn(by named: Set<ObjectID>) -> [ObjectID: String] {
        var found: [ObjectID: String] = [:]
        for (name, members) in members where members.contains(where: { !named.contains($0.id) }) {
            for member in members where named.contains(member.id) {
                found[member.id] = why(member, name, "of which others stay")
            }
        }
        return found
    }

    private func why(_ member: SnapshotFacts, _ name: String, _ stays: String) -> String {
        let what = member.isComplete ? "only complete one" : "only one"
        return "\(what) of \(printable(member.volume.node.utf8)) in set \(printable(name.utf8)), \(stays)"
    }

    /// Those that are to go, oldest first, members of a set together.
    func units(_ forgotten: [SnapshotFacts]) -> [[SnapshotFacts]] {
        let sets = members.reduce(into: [ObjectID: String]()) { found, set in
            for member in set.value { found[member.id] = set.key }
        }
        var units: [[SnapshotFacts]] = []
        var places: [String: Int] = [:]
        for snapshot in forgotten.sorted(by: SnapshotFacts.isOlder) {
            if let set = sets[snapshot.id], let place = places[set] {
                units[place].append(snapshot)
            } else {
                if let set = sets[snapshot.id] { places[set] = units.count }
                units.append([snapshot])
            }
        }
        return units
    }
}
