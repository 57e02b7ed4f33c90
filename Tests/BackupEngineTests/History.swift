import BackupBase
import BackupRepository

@testable import BackupEngine

/// Numbers that look like chance and repeat with their seed (splitmix64).
struct Seeded: RandomNumberGenerator {
    private var state: UInt64
    init(_ seed: Int) { state = UInt64(truncatingIfNeeded: seed) }

    mutating func next() -> UInt64 {
        state &+= 0x9e37_79b9_7f4a_7c15
        var value = state
        value = (value ^ (value >> 30)) &* 0xbf58_476d_1ce4_e5b9
        value = (value ^ (value >> 27)) &* 0x94d0_49bb_1331_11eb
        return value ^ (value >> 31)
    }

    mutating func number(_ range: ClosedRange<Int>) -> Int { Int.random(in: range, using: &self) }
    mutating func share(_ percent: Int) -> Bool { number(1...100) <= percent }
}

/// An id that a number gives.
func id(_ number: Int) -> ObjectID {
    ObjectID(bytes: (0..<16).map { $0 < 8 ? 0 : UInt8(truncatingIfNeeded: number >> (8 * (15 - $0))) })
}

/// "2026-11-21 13:00" as seconds since 1970.
func at(_ text: String) -> Double {
    let parts = text.split(separator: " ")
    return parseTime("\(parts[0])T\(parts.count > 1 ? parts[1] : "00:00"):00Z")!
}

let day = 86_400.0

/// One snapshot: by default of one volume, good, and with clocks that agree.
func snapshot(
    _ number: Int, _ committed: Double, claimed: Double? = nil, node: String = "n", set: String? = nil, keepFor: Double? = nil,
    isComplete: Bool = true, isGood: Bool = true, change: VolumeChange? = nil
) -> SnapshotFacts {
    var facts = SnapshotFacts(
        sequence: UInt64(number), id: id(number), volume: .init(node: node, path: "/v"), committed: committed,
        claimed: claimed ?? committed)
    (facts.set, facts.keepFor, facts.change) = (set, keepFor, change)
    (facts.isComplete, facts.isGood) = (isComplete, isGood && isComplete)
    return facts
}

func policy(_ change: (inout RetentionPolicy) -> Void) -> RetentionPolicy {
    var policy = RetentionPolicy()
    change(&policy)
    return policy
}

extension RetentionEvidence {
    static func holding(_ numbers: Int..., until: String? = nil) -> RetentionEvidence {
        var evidence = RetentionEvidence()
        for number in numbers { evidence.hold(number, until: until) }
        return evidence
    }

    mutating func hold(_ number: Int, until: String? = nil) {
        holds[id(number), default: []].append(
            HoldNote(snapshot: id(number), reason: "audit", until: until, by: "me", held: "2026-01-01T00:00:00Z"))
    }

    mutating func drill(_ number: Int, passed: Bool, answered: Bool) {
        drills[id(number), default: []].append(
            DrillNote(snapshot: "\(id(number))", passed: passed, answered: answered, drilled: "2026-01-01T00:00:00Z"))
    }
}

extension RetentionPlan {
    /// By number: why it stays, or nil where it goes.
    var kept: [Int: [String]] {
        verdicts.reduce(into: [:]) { if $1.isKept { $0[Int($1.snapshot.sequence)] = $1.reasons } }
    }
    var keptNumbers: [Int] { kept.keys.sorted() }
    var gone: Set<ObjectID> { Set(forgotten.map(\.snapshot.id)) }

    func why(_ number: Int) -> [String] { kept[number] ?? [] }
}
