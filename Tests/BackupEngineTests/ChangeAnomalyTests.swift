import BackupBase
import BackupRepository
import Glibc
import Testing

@testable import BackupEngine

/// What encryption by somebody else looks like, and what does not.
@Suite struct ChangeAnomalyTests {
    private static let gib: Int64 = 1 << 30
    private func change(_ changed: Double, _ compressed: Double, total: Int64 = gib) -> VolumeChange {
        let new = Int64(Double(total) * changed)
        return VolumeChange(total: total, new: new, stored: Int64(Double(new) * compressed))
    }
    /// A first backup of vectors and payload, then some days of writing.
    private var usual: [VolumeChange] {
        [change(1, 0.6)] + [0.01, 0.03, 0.02, 0.05, 0.02, 0.01, 0.04].map { change($0, 0.55 + $0 * 2) }
    }

    @Test func `most of it new, and nothing compresses`() throws {
        let anomaly = try #require(ChangeAnomaly(change(0.9, 1.0003), after: usual))
        #expect(anomaly.changedLimit < 0.3 && anomaly.compressedLimit == 0.95)
        #expect(anomaly.description.hasPrefix("90 % of the volume is new (usually 2 %, at most 22 %)"))
    }

    @Test func `what operators do is none`() {
        for (changed, compressed) in [(0.9, 0.5), (0.9, 0.84), (0.6, 0.93), (0.15, 1.0), (0.0, 1.0)] {
            #expect(ChangeAnomaly(change(changed, compressed), after: usual) == nil, "\(changed) \(compressed)")
        }
    }

    @Test func `small volumes, short histories and data that never compresses cry no wolf`() {
        let odd = change(0.9, 1.0)
        #expect(
            ChangeAnomaly(odd, after: Array(usual.prefix(4))) == nil && ChangeAnomaly(odd, after: Array(usual.prefix(5))) != nil)
        #expect(ChangeAnomaly(odd, after: []) == nil)
        let small = usual.map { VolumeChange(total: 4 << 20, new: $0.new >> 8, stored: $0.stored >> 8) }
        #expect(ChangeAnomaly(VolumeChange(total: 4 << 20, new: 4 << 20 - 1, stored: 4 << 20), after: small) == nil)
        #expect(ChangeAnomaly(odd, after: usual.map { VolumeChange(total: $0.total, new: $0.new, stored: $0.new) }) == nil)
        #expect(ChangeAnomaly(odd, after: Array(repeating: VolumeChange(total: 0, new: 0, stored: 0), count: 9)) == nil)
    }

    @Test func `a volume that always changes as a whole has a wide band`() {
        let restless = (0..<10).map { change($0 % 2 == 0 ? 0.8 : 0.2, 0.5) }
        #expect(ChangeAnomaly(change(0.9, 1), after: restless) == nil)
    }

    @Test func `one that is not accepted stays out, and those after it are judged without it`() {
        let changes: [VolumeChange?] = usual + [change(0.9, 1), nil, change(0.02, 1), change(0.8, 1)]
        #expect(ChangeAnomaly.find(changes) { _ in false }.map(\.index) == [8, 11])
        #expect(ChangeAnomaly.find(changes) { $0 == 8 }.map(\.index) == [11])
        #expect(ChangeAnomaly.find(changes) { $0 == 8 || $0 == 11 }.isEmpty)
    }

    @Test func `nothing of its volume goes, and others go as always`() throws {
        let now = at("2026-11-27")
        let attacked = (usual + [change(0.95, 1)]).enumerated().map { snapshot($0.offset + 1, now - 60, change: $0.element) }
        let calm = usual.enumerated().map { snapshot($0.offset + 20, now - 60, node: "calm", change: $0.element) }
        let rules = policy { ($0.keepLast, $0.maxDeleteRatio) = (2, 1) }
        var evidence = RetentionEvidence()
        var plan = RetentionPlan(attacked + calm, policy: rules, evidence: evidence, now: now)
        #expect(plan.anomalies.map(\.snapshot.id) == [id(9)])
        #expect(plan.keptNumbers == Array(1...9) + [26, 27])
        #expect(plan.why(1) == ["its volume is on hold: snapshot \(attacked[8].shortID) changed unlike those before"])
        try plan.requireAllowed(force: false)
        evidence.accepted = [id(9)]
        plan = RetentionPlan(attacked + calm, policy: rules, evidence: evidence, now: now)
        #expect(plan.anomalies.isEmpty && plan.keptNumbers == [8, 9, 26, 27])
        // By name it goes without being accepted.
        #expect(RetentionPlan(naming: [id(9)], of: attacked, evidence: .init(), now: now).gone == [id(9)])
    }

    @Test func `a node remembers what is usual, and a broken memory is none`() throws {
        let path = "/tmp/bgbackup-changes-\(ObjectID.random(.system))"
        defer { unlink(path) }
        for usual in usual {
            var history = ChangeHistory(path: path)
            #expect(history.add(usual) == nil)
        }
        var history = ChangeHistory(path: path)
        #expect(history.add(change(0.9, 1)) != nil)
        #expect(LocalFile.replace(path, with: Array("[{\"total\":".utf8)))
        history = ChangeHistory(path: path)
        #expect(history.add(change(0.9, 1)) == nil)
    }
}
