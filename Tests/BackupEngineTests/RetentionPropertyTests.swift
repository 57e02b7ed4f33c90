import BackupBase
import BackupRepository
import Testing

@testable import BackupEngine

/// What holds of every history, policy and clock. BGBACKUP_RETENTION_SEEDS more; the seed is the argument of the test.
@Suite struct RetentionPropertyTests {
    static let seeds = Array(1...300)
    private static let now = at("2026-11-27 12:00")

    /// A history of some volumes over some years, with sets, broken snapshots, holds and proofs.
    private struct World {
        var snapshots: [SnapshotFacts] = []
        var evidence = RetentionEvidence()
        var policy: RetentionPolicy
        var random: Seeded

        init(_ seed: Int) {
            random = Seeded(seed)
            policy = Self.anyPolicy(&random)
            let nodes = random.number(1...3)
            let rounds = random.number(1...60)
            let step = Double(random.number(1...20) * random.number(600...90_000))
            var time = RetentionPropertyTests.now - Double(rounds + 1) * step
            for round in 0..<rounds {
                time += step * Double(random.number(1...100)) / 100
                let set = random.share(30) ? "set-\(random.share(20) ? 0 : round)" : nil
                for node in 0..<nodes where random.share(85) { add("node-\(node)", time + Double(node), set) }
            }
        }

        private mutating func add(_ node: String, _ time: Double, _ set: String?) {
            let number = snapshots.count + 1
            snapshots.append(
                BackupEngineTests.snapshot(
                    number, time, node: node, set: set,
                    keepFor: random.share(20) ? Double(random.number(1...400)) * day : nil,
                    isComplete: random.share(85), isGood: random.share(80)))
            if random.share(4) { evidence.hold(number, until: random.share(50) ? "2026-12-01T00:00:00Z" : nil) }
            if random.share(4) { evidence.hold(number, until: "2026-11-01T00:00:00Z") }
            if random.share(10) { evidence.drill(number, passed: random.share(70), answered: random.share(70)) }
        }

        /// With at least one rule.
        static func anyPolicy(_ random: inout Seeded) -> RetentionPolicy {
            var policy = RetentionPolicy()
            repeat {
                if random.share(30) { policy.keepLast = random.number(1...10) }
                if random.share(30) { policy.keepHourly = random.number(1...30) }
                if random.share(30) { policy.keepDaily = random.number(1...20) }
                if random.share(30) { policy.keepWeekly = random.number(1...10) }
                if random.share(30) { policy.keepMonthly = random.number(1...12) }
                if random.share(30) { policy.keepYearly = random.number(1...5) }
                if random.share(30) { policy.keepWithin = Double(random.number(1...90)) * day }
            } while policy.isEmpty
            policy.minSnapshots = random.number(1...4)
            return policy
        }

        func plan(_ snapshots: [SnapshotFacts]? = nil, _ policy: RetentionPolicy? = nil, now: Double = RetentionPropertyTests.now)
            -> RetentionPlan
        {
            RetentionPlan(snapshots ?? self.snapshots, policy: policy ?? self.policy, evidence: evidence, now: now)
        }

        /// The same with other times.
        func moved(
            _ times: (inout Seeded, SnapshotFacts) -> (committed: Double, claimed: Double?)
        ) -> [SnapshotFacts] {
            var random = random
            return snapshots.map { old in
                let time = times(&random, old)
                var new = SnapshotFacts(
                    sequence: old.sequence, id: old.id, volume: old.volume, committed: time.committed, claimed: time.claimed)
                (new.set, new.keepFor, new.isComplete, new.isGood) = (old.set, old.keepFor, old.isComplete, old.isGood)
                return new
            }
        }
    }

    private static func tenYears(_ random: inout Seeded) -> Double { Double(random.number(-3650...3650)) * day }

    @Test(arguments: seeds) func `what must stay stays`(_ seed: Int) {
        var world = World(seed)
        // Also with clocks gone mad.
        if seed % 3 == 0 {
            world.snapshots = world.moved { ($1.committed + Self.tenYears(&$0), $1.committed + Self.tenYears(&$0)) }
        }
        let gone = world.plan().gone
        for (_, members) in Dictionary(grouping: world.snapshots, by: \.volume) {
            let newestFirst = members.sorted { $0.sequence > $1.sequence }
            func stays(_ snapshot: SnapshotFacts?) -> Bool { snapshot.map { !gone.contains($0.id) } ?? true }
            #expect(newestFirst.prefix(world.policy.minSnapshots).allSatisfy(stays))
            #expect(stays(newestFirst.first { $0.isGood }))
            #expect(stays(newestFirst.first { world.evidence.drills[$0.id]?.last?.passed == true }))
            #expect(stays(newestFirst.first { world.evidence.drills[$0.id]?.last.map { $0.passed && $0.answered } ?? false }))
            for snapshot in members
            where world.evidence.holds[snapshot.id]?.contains(where: { $0.until?.hasPrefix("2026-11") != true }) == true {
                #expect(stays(snapshot))
            }
        }
    }

    /// Of no set does one node's only complete snapshot, or only snapshot, go while another node's stays that is the set's.
    @Test(arguments: seeds) func `no set is torn`(_ seed: Int) {
        let world = World(seed)
        let gone = world.plan().gone
        for (_, members) in Dictionary(grouping: world.snapshots.filter { $0.set != nil }, by: \.set!) {
            let byNode = Dictionary(grouping: members, by: \.volume).values.map { $0.sorted { $0.sequence < $1.sequence } }
            let newest = byNode.map { $0.last! } + byNode.compactMap { $0.last(where: \.isComplete) }
            let fates = Set(newest.map { gone.contains($0.id) })
            #expect(fates.count == 1)
        }
    }

    @Test(arguments: seeds) func `one more rule, or a larger number, never forgets more`(_ seed: Int) {
        var world = World(seed)
        let gone = world.plan().gone
        var more = world.policy
        func grown(_ number: Int?) -> Int? { world.random.share(50) ? (number ?? 0) + world.random.number(1...5) : number }
        (more.keepLast, more.keepHourly, more.keepDaily) = (grown(more.keepLast), grown(more.keepHourly), grown(more.keepDaily))
        (more.keepWeekly, more.keepMonthly) = (grown(more.keepWeekly), grown(more.keepMonthly))
        more.keepYearly = grown(more.keepYearly)
        if world.random.share(50) { more.keepWithin = (more.keepWithin ?? 0) + Double(world.random.number(1...100)) * day }
        more.minSnapshots += world.random.number(0...2)
        #expect(world.plan(nil, more).gone.isSubset(of: gone))
        world.evidence.hold(world.random.number(1...max(1, world.snapshots.count)))
        #expect(world.plan().gone.isSubset(of: gone))
    }

    /// Of a store whose clock never goes back; or without own ages, of any.
    @Test(arguments: seeds) func `a second run at the same moment forgets nothing`(_ seed: Int) {
        var world = World(seed)
        if seed % 2 == 0 {
            world.snapshots = world.moved { ($1.committed + Self.tenYears(&$0), $1.committed + Self.tenYears(&$0)) }
            for index in world.snapshots.indices { world.snapshots[index].keepFor = nil }
        } else {
            world.snapshots = world.moved { ($1.committed, $1.committed + Self.tenYears(&$0)) }
        }
        let gone = world.plan().gone
        #expect(world.plan(world.snapshots.filter { !gone.contains($0.id) }).forgotten.isEmpty)
    }

    /// Nothing goes that would not go if every node's clock were the store's.
    @Test(arguments: seeds) func `nodes' clocks ten years off never make one go`(_ seed: Int) {
        let world = World(seed)
        let gone = world.plan().gone
        #expect(world.plan(world.moved { ($1.committed, $1.committed + Self.tenYears(&$0)) }).gone.isSubset(of: gone))
        #expect(world.plan(world.moved { ($1.committed, nil) }).gone == gone)
    }

    /// Nothing goes that would not have gone where they were made, whenever each came to where they are now.
    @Test(arguments: seeds) func `copies never make one go`(_ seed: Int) {
        let world = World(seed)
        let gone = world.plan().gone
        #expect(world.plan(world.moved { (Self.now - 60, $1.committed) }).gone.isSubset(of: gone))
        #expect(
            world.plan(world.moved { ($1.committed + Double($0.number(0...3650)) * day, $1.committed) }).gone.isSubset(of: gone))
    }

    @Test(arguments: seeds) func `an earlier now never forgets more`(_ seed: Int) {
        var world = World(seed)
        let gone = world.plan().gone
        let back = Double(world.random.number(1...7300)) * day
        #expect(world.plan(now: Self.now - back).gone.isSubset(of: gone))
    }

    /// Whatever the store's clock did, a later one is as young as an earlier one.
    @Test(arguments: seeds) func `what one's age keeps keeps all that were made after it`(_ seed: Int) {
        var world = World(seed)
        world.snapshots = world.moved { ($1.committed + Self.tenYears(&$0), nil) }
        let plan = world.plan(nil, policy { $0.keepWithin = 30 * day })
        for (_, members) in Dictionary(grouping: plan.verdicts, by: \.snapshot.volume) {
            let young = members.map { $0.reasons.contains("younger than 30d") }
            #expect(!young.contains(true) || young.drop { !$0 }.allSatisfy { $0 })
        }
    }
}
