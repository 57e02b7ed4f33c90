import BackupBase
import BackupRepository

/// Which snapshots stay and which are forgotten, and why: a pure function of
/// what is known (docs/retention.md).
///
/// Clocks lie, so a snapshot goes only if it may by every judgement. Order is
/// that of (sequence, id), never of time. Which hour, day or week one is of is
/// asked of the store's clock and of its node's, and what either keeps stays.
/// Ages are taken from the latest time that the store saw up to a snapshot in
/// that order, so that a clock which went back makes nothing old.
public struct RetentionPlan: Sendable {
    public struct Verdict: Sendable {
        public let snapshot: SnapshotFacts
        /// All that keeps it, or why it goes.
        public internal(set) var reasons: [String]
        public internal(set) var isKept: Bool
    }

    /// A volume in which nothing goes, because of a snapshot in it.
    public struct Anomaly: Sendable {
        public let snapshot: SnapshotFacts
        public let change: ChangeAnomaly
    }

    /// A volume of which more would go than the policy lets go at once.
    public struct Excess: Sendable {
        public let volume: SnapshotFacts.Volume
        public let forgotten: Int
        public let total: Int
    }

    /// Of all that can be read, in the order of (sequence, id).
    public private(set) var verdicts: [Verdict] = []
    /// Snapshots that cannot be read; they go only by name.
    public private(set) var unreadable: [(snapshot: UnreadableSnapshot, isKept: Bool)] = []
    public private(set) var anomalies: [Anomaly] = []
    public private(set) var excesses: [Excess] = []
    /// The policy file whose rules these are.
    private var policyName: String?
    private var isNamed = false
    /// Named, and held.
    public private(set) var refused: [(id: ObjectID, words: String)] = []
    /// What is worth a look before it is done.
    public private(set) var warnings: [String] = []

    public var forgotten: [Verdict] { verdicts.filter { !$0.isKept } }

    /// What is to go together, oldest first: members of a set, or one snapshot.
    var units: [[SnapshotFacts]] { BackupSets(verdicts.map(\.snapshot)).units(forgotten.map(\.snapshot)) }

    /// What may be done at all: throws `.held`, or `.retentionRefused` for an excess that is not forced.
    public func requireAllowed(force: Bool) throws {
        if let held = refused.first {
            throw BackupError(
                .held, "snapshot \(held.id) is \(held.words)",
                hint: "Nothing was forgotten. 'bgbackup release \("\(held.id)".prefix(8))' takes the hold back.")
        }
        guard !force, let excess = excesses.first else { return }
        let command = "bgbackup forget" + (policyName.map { " --policy \($0)" } ?? "")
        throw BackupError(
            .retentionRefused,
            "\(excess.forgotten) of \(excess.total) snapshots of \(excess.volume) would be forgotten at once",
            hint: "Nothing was forgotten. Look at '\(command) --dry-run'; if it is what you want, "
                + (isNamed ? "use --force." : "'\(command) --force' does it, or a larger --max-delete-ratio."))
    }

    // MARK: - By rules

    /// Judges all snapshots by the policy.
    /// - Parameters:
    ///   - now: seconds since 1970 by the store's clock
    ///   - node: only its snapshots may go; nil: all
    ///   - policyName: only snapshots that were made under this policy file may go; nil: all
    public init(
        _ snapshots: [SnapshotFacts], unreadable: [UnreadableSnapshot] = [], policy: RetentionPolicy,
        evidence: RetentionEvidence, now: Double, node: String? = nil, policyName: String? = nil
    ) {
        var reasons: [ObjectID: [String]] = [:]
        let sorted = snapshots.sorted(by: SnapshotFacts.isOlder)
        for (volume, members) in Dictionary(grouping: sorted, by: \.volume).sorted(by: { $0.key < $1.key }) {
            var judgement = VolumeJudgement(members, evidence: evidence, now: now)
            judgement.keepHeld()
            judgement.keepBest()
            judgement.apply(policy, of: policyName)
            if let node, volume.node != node { judgement.keepAll("not of node \(printable(node.utf8))") }
            let anomalies = judgement.anomalies(evidence.accepted)
            if !anomalies.isEmpty, node == nil || volume.node == node {
                self.anomalies += anomalies
                judgement.keepAll("its volume is on hold: snapshot \(anomalies[0].snapshot.shortID) changed unlike those before")
            }
            reasons.merge(judgement.reasons) { $1 }
        }
        BackupSets(sorted).keepWhole(&reasons)
        verdicts = sorted.map { snapshot in
            let reasons = reasons[snapshot.id] ?? []
            return Verdict(
                snapshot: snapshot, reasons: reasons.isEmpty ? ["no rule keeps it"] : reasons, isKept: !reasons.isEmpty)
        }
        self.unreadable = unreadable.map { ($0, true) }
        excesses = Self.excesses(verdicts.filter { policyName == nil || $0.snapshot.policy == policyName }, policy)
        self.policyName = policyName
        warnOfClocks(sorted, now)
    }

    private static func excesses(_ verdicts: [Verdict], _ policy: RetentionPolicy) -> [Excess] {
        Dictionary(grouping: verdicts, by: \.snapshot.volume).sorted { $0.key < $1.key }.compactMap { volume, members in
            let forgotten = members.filter { !$0.isKept }.count
            // A share like 0.3 of ten is three, whatever binary fractions say.
            guard Double(forgotten) > policy.maxDeleteRatio * Double(members.count) + 1e-9 else { return nil }
            return Excess(volume: volume, forgotten: forgotten, total: members.count)
        }
    }

    /// Seconds that clocks may be apart without a word.
    private static let tolerance = 60.0

    private mutating func warnOfClocks(_ sorted: [SnapshotFacts], _ now: Double) {
        guard let latest = sorted.max(by: { $0.committed < $1.committed }), latest.committed > now + Self.tolerance else {
            return
        }
        let distance = formatDuration(latest.committed - now)
        warnings.append(
            "the store's clock says \(formatTime(now, "%Y-%m-%d %H:%M:%S")), but snapshot \(latest.shortID) was committed \(distance) later: nothing that is as young by it goes for its age"
        )
    }

    // MARK: - By name

    /// Lets those go that are named, and nothing else. What is held is refused;
    /// what no policy would let go is warned of.
    public init(
        naming named: Set<ObjectID>, of snapshots: [SnapshotFacts], unreadable: [UnreadableSnapshot] = [],
        evidence: RetentionEvidence, now: Double
    ) {
        let sorted = snapshots.sorted(by: SnapshotFacts.isOlder)
        for (_, members) in Dictionary(grouping: sorted, by: \.volume).sorted(by: { $0.key < $1.key }) {
            var judgement = VolumeJudgement(members, evidence: evidence, now: now)
            judgement.keepBest()
            for snapshot in members where named.contains(snapshot.id) {
                for reason in judgement.reasons[snapshot.id] ?? [] {
                    warnings.append("snapshot \(snapshot.shortID) of \(snapshot.volume) is the \(reason)")
                }
            }
        }
        for (id, reason) in BackupSets(sorted).torn(by: named).sorted(by: { $0.key < $1.key }) {
            warnings.append("snapshot \("\(id)".prefix(8)) is the \(reason)")
        }
        func holds(_ id: ObjectID) -> [String] { evidence.holds(of: id, now: now).map(VolumeJudgement.words) }
        verdicts = sorted.map { snapshot in
            let (held, isNamed) = (holds(snapshot.id), named.contains(snapshot.id))
            if isNamed, held.isEmpty { return Verdict(snapshot: snapshot, reasons: ["named"], isKept: false) }
            return Verdict(snapshot: snapshot, reasons: held + (isNamed ? [] : ["not named"]), isKept: true)
        }
        self.unreadable = unreadable.map { ($0, !named.contains($0.name.id) || !holds($0.name.id).isEmpty) }
        isNamed = true
        // One is meant; of several an id may have slipped in.
        if named.count > 1 { excesses = Self.excesses(verdicts, RetentionPolicy()) }
        for id in named.sorted() {
            let words = holds(id)
            if !words.isEmpty { refused.append((id, words.joined(separator: ", "))) }
        }
    }
}
