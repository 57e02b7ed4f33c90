import BackupBase
import BackupRepository
import Testing

@testable import BackupEngine

/// Which snapshots stay, and the words for it.
@Suite struct RetentionPlanTests {
    private let now = at("2026-11-27 12:00")
    private static let newest = "newest that is complete and of one moment"
    private static let always = "newest 1 of 1 that always stay"

    private func plan(
        _ snapshots: [SnapshotFacts], _ policy: RetentionPolicy, _ evidence: RetentionEvidence = .init(), now: Double? = nil,
        node: String? = nil
    ) -> RetentionPlan {
        RetentionPlan(snapshots, policy: policy, evidence: evidence, now: now ?? self.now, node: node)
    }

    /// Snapshots 1… one a day at noon, the last one yesterday.
    private func daily(_ count: Int) -> [SnapshotFacts] {
        (1...count).map { snapshot($0, now - Double(count + 1 - $0) * day) }
    }

    // MARK: - Rules

    @Test func `an empty policy forgets nothing, whatever else it says`() {
        let plan = plan(daily(9), policy { ($0.minSnapshots, $0.maxDeleteRatio) = (2, 0.1) })
        #expect(plan.forgotten.isEmpty && plan.why(1) == ["the policy has no rule that lets anything go"])
    }

    @Test func `a policy file lets only that go which was made under it`() {
        var snapshots = daily(8)
        for index in [0, 1, 2, 4, 5, 7] { snapshots[index].policy = "own" }
        snapshots[3].policy = "other"
        func plan(_ policy: RetentionPolicy) -> RetentionPlan {
            RetentionPlan(snapshots, policy: policy, evidence: .init(), now: now, policyName: "own")
        }
        let ruled = plan(policy { $0.keepLast = 2 })
        #expect(ruled.forgotten.map(\.snapshot.sequence) == [1, 2, 3, 5])
        #expect(ruled.kept[4] == ["not made under policy own"] && ruled.kept[7]?.first == "not made under policy own")
        // Without rules only what a schedule lets go by its age.
        for index in [0, 1, 5] { snapshots[index].keepFor = 5 * day }
        let aged = plan(policy { $0.minSnapshots = 2 })
        #expect(aged.forgotten.map(\.snapshot.sequence) == [1, 2])
        #expect(aged.kept[3] == ["neither the policy nor its schedule lets it go"])
        #expect(aged.kept[6] == ["newest 2 of 2 that always stay", "younger than 5d, as its schedule says"])
        // The share is that of the policy's own.
        #expect(ruled.excesses.first?.total == 6 && ruled.excesses.first?.forgotten == 4)
    }

    @Test func `the last ones stay by sequence, not by time`() {
        let snapshots = [snapshot(3, now - 900), snapshot(1, now - 10), snapshot(2, now - 500)]
        let plan = plan(snapshots, policy { $0.keepLast = 2 })
        #expect(plan.verdicts.map(\.snapshot.sequence) == [1, 2, 3])
        #expect(plan.kept == [3: [Self.newest, "last 1 of 2", Self.always], 2: ["last 2 of 2"]])
        #expect(plan.verdicts[0].reasons == ["no rule keeps it"])
    }

    @Test func `the newest of each of the last stretches stays, and all reasons are given`() {
        let snapshots = [
            snapshot(1, at("2026-11-19 01:00")), snapshot(2, at("2026-11-20 01:00")), snapshot(3, at("2026-11-20 23:59")),
            snapshot(4, at("2026-11-25 01:00")), snapshot(5, at("2026-11-25 01:59")), snapshot(6, at("2026-11-25 02:00")),
        ]
        let plan = plan(snapshots, policy { ($0.keepHourly, $0.keepDaily, $0.keepMonthly) = (2, 2, 5) })
        #expect(
            plan.kept == [
                6: [Self.newest, Self.always, "hourly 2026-11-25T02", "daily 2026-11-25", "monthly 2026-11"],
                5: ["hourly 2026-11-25T01"], 3: ["daily 2026-11-20"],
            ])
    }

    @Test func `days without a snapshot do not count`() {
        let snapshots = [1, 5, 30, 200].enumerated().map { snapshot(10 - $0.offset, now - Double($0.element) * day) }
        #expect(plan(snapshots, policy { $0.keepDaily = 3 }).keptNumbers == [8, 9, 10])
    }

    @Test func `volumes are judged one by one`() {
        let snapshots = (1...8).map { snapshot($0, now - Double(9 - $0) * day, node: $0 % 2 == 0 ? "even" : "odd") }
        let plan = plan(snapshots, policy { $0.keepLast = 2 })
        #expect(plan.keptNumbers == [5, 6, 7, 8])
    }

    @Test func `ages: a policy's and the snapshot's own`() {
        var snapshots = daily(6)
        snapshots[0].keepFor = 7 * day
        snapshots[1].keepFor = day
        let plan = plan(snapshots, policy { $0.keepWithin = 2 * day })
        // The second is exactly as old as allowed: not younger.
        #expect(plan.kept == [1: ["younger than 7d, as its schedule says"], 6: [Self.newest, Self.always, "younger than 2d"]])
        #expect(self.plan(snapshots, policy { $0.keepWithin = 2 * day + 1 }).keptNumbers == [1, 5, 6])
    }

    @Test func `a minimum stays, whatever its age`() {
        let plan = plan(daily(6), policy { ($0.keepWithin, $0.minSnapshots) = (60, 3) })
        #expect(plan.keptNumbers == [4, 5, 6] && plan.why(4) == ["newest 3 of 3 that always stay"])
    }

    @Test func `only snapshots of a node go where it is named`() {
        let snapshots = (1...8).map { snapshot($0, now - Double(9 - $0) * day, node: $0 % 2 == 0 ? "even" : "odd") }
        let plan = plan(snapshots, policy { $0.keepLast = 1 }, node: "odd")
        #expect(plan.keptNumbers == [2, 4, 6, 7, 8] && plan.why(2) == ["not of node odd"])
    }

    // MARK: - What stays whatever the policy

    @Test func `what is held stays until it is not`() {
        let last = policy { $0.keepLast = 1 }
        #expect(plan(daily(4), last, .holding(2)).why(2) == ["held: audit"])
        #expect(plan(daily(4), last, .holding(2, until: "2026-11-27T12:00:01Z")).why(2) == ["held: audit, until 2026-11-27"])
        #expect(plan(daily(4), last, .holding(2, until: "2026-11-27T12:00:00Z")).keptNumbers == [4])
        #expect(plan(daily(4), last, .holding(2, until: "some day")).keptNumbers == [2, 4], "no time is no end")
    }

    @Test func `the last that a drill proved stays, and a rehearsal without a start does not take its place`() {
        var evidence = RetentionEvidence()
        for number in [1, 2] { evidence.drill(number, passed: true, answered: true) }
        evidence.drill(3, passed: true, answered: false)
        evidence.drill(4, passed: false, answered: false)
        let plan = plan(daily(6), policy { $0.keepLast = 1 }, evidence)
        #expect(plan.keptNumbers == [2, 3, 6])
        #expect(plan.why(2) == ["last proven by a drill"] && plan.why(3) == ["last that a drill read back"])
        // What failed since is proven no more.
        evidence.drill(2, passed: false, answered: false)
        #expect(self.plan(daily(6), policy { $0.keepLast = 1 }, evidence).keptNumbers == [1, 3, 6])
    }

    @Test func `the newest that one would restore stays, however many worse ones follow`() {
        var snapshots = daily(5)
        for index in 2...4 { snapshots[index].isGood = false }
        let plan = plan(snapshots, policy { $0.keepLast = 1 })
        #expect(plan.kept == [2: [Self.newest], 5: ["last 1 of 1", Self.always]])
    }

    @Test func `a set stays or goes as a whole`() {
        func set(_ number: Int, _ node: String, _ set: String, isComplete: Bool = true) -> SnapshotFacts {
            snapshot(number, now - Double(20 - number) * day, node: node, set: set, isComplete: isComplete)
        }
        let snapshots = [
            set(1, "a", "s1"), set(2, "b", "s1"), set(3, "a", "s2"), set(4, "b", "s2", isComplete: false), set(5, "a", "s3"),
            set(6, "b", "s3"), set(7, "a", "s4"), set(8, "b", "s4"),
        ]
        let rules = policy { $0.keepLast = 1 }
        var plan = plan(snapshots, rules)
        #expect(plan.keptNumbers == [7, 8])
        plan = self.plan(snapshots, rules, .holding(3))
        #expect(plan.keptNumbers == [3, 4, 7, 8])
        #expect(plan.why(4) == ["only one of b in set s2, of which \(snapshots[2].shortID) stays"])
        #expect(self.plan(snapshots, rules, .holding(6)).why(5).first?.hasPrefix("only complete one of a in set s3, ") == true)
        // A node by itself tears no set.
        #expect(self.plan(snapshots, rules, node: "a").forgotten.isEmpty)
        #expect(plan.units.map { $0.map(\.sequence) } == [[1, 2], [5, 6]])
    }

    @Test func `a set that is called the same every night is the last night's`() {
        let snapshots = (1...6).map {
            snapshot($0, now - Double(7 - $0) * day, node: $0 % 2 == 0 ? "even" : "odd", set: "night", isComplete: $0 != 6)
        }
        let plan = plan(snapshots, policy { $0.keepLast = 1 })
        // Of "even" the last one is not complete: the one before is the set's as well.
        #expect(plan.keptNumbers == [4, 5, 6])
        #expect(plan.units.map { $0.map(\.sequence) } == [[1], [2], [3]])
    }

    @Test func `what cannot be read stays until it is named`() {
        let damaged = UnreadableSnapshot(name: SnapshotName(sequence: 9, id: id(9)), committed: now, problem: "damaged")
        let byRule = RetentionPlan(
            daily(3), unreadable: [damaged], policy: policy { $0.keepLast = 1 }, evidence: .init(), now: now)
        #expect(byRule.unreadable.map(\.isKept) == [true])
        for (evidence, isKept) in [(RetentionEvidence(), false), (.holding(9), true)] {
            let byName = RetentionPlan(naming: [id(9)], of: daily(3), unreadable: [damaged], evidence: evidence, now: now)
            #expect(byName.unreadable.map(\.isKept) == [isKept] && byName.forgotten.isEmpty)
            #expect(byName.refused.map(\.id) == (isKept ? [id(9)] : []))
        }
    }

    // MARK: - By name

    @Test func `named ones go, held ones are refused, and the best are warned of`() throws {
        var evidence = RetentionEvidence.holding(2)
        evidence.drill(3, passed: true, answered: true)
        var plan = RetentionPlan(naming: [id(1)], of: daily(4), evidence: evidence, now: now)
        #expect(plan.keptNumbers == [2, 3, 4] && plan.warnings.isEmpty && plan.why(4) == ["not named"])
        try plan.requireAllowed(force: false)
        plan = RetentionPlan(naming: [id(1), id(2)], of: daily(4), evidence: evidence, now: now)
        for force in [false, true] {
            #expect { try plan.requireAllowed(force: force) } throws: { ($0 as? BackupError)?.code == .held }
        }
        plan = RetentionPlan(naming: [id(3), id(4)], of: daily(4), evidence: evidence, now: now)
        #expect(plan.keptNumbers == [1, 2] && plan.warnings.count == 2)
        #expect(plan.warnings.first?.contains("last proven by a drill") == true)
        #expect(plan.warnings.last?.contains(Self.newest) == true)
        let pair = ["a", "b"].enumerated().map { snapshot($0.offset + 1, now, node: $0.element, set: "s", isGood: false) }
        #expect(
            RetentionPlan(naming: [id(1)], of: pair, evidence: .init(), now: now).warnings.first?.contains(
                "only complete one of a in set s") == true)
        #expect(RetentionPlan(naming: [id(1), id(2)], of: pair, evidence: .init(), now: now).warnings.isEmpty)
    }

    // MARK: - How much at once

    @Test func `more than the share at once is refused without force`() throws {
        func plan(_ keep: Int, _ ratio: Double) -> RetentionPlan {
            self.plan(daily(10), policy { ($0.keepLast, $0.maxDeleteRatio) = (keep, ratio) })
        }
        try plan(5, 0.5).requireAllowed(force: false)
        // 0.29 of a hundred is less than 29 in binary.
        try self.plan(daily(100), policy { ($0.keepLast, $0.maxDeleteRatio) = (71, 0.29) }).requireAllowed(force: false)
        let excess = plan(4, 0.5)
        #expect(excess.excesses.first.map { [$0.forgotten, $0.total] } == [6, 10])
        #expect { try excess.requireAllowed(force: false) } throws: {
            ($0 as? BackupError)?.code == .retentionRefused && "\($0)".contains("6 of 10 snapshots of n /v")
        }
        try excess.requireAllowed(force: true)
        // One volume too many is enough.
        let others = (11...20).map { snapshot($0, now - 60, node: "other") }
        let both = self.plan(daily(10) + others, policy { ($0.keepDaily, $0.maxDeleteRatio) = (9, 0.5) })
        #expect(both.excesses.map(\.volume.node) == ["other"])
    }

    // MARK: - Clocks

    @Test func `a repository that was copied in one go loses nothing by it`() {
        let original = daily(40)
        let copied = original.map { snapshot(Int($0.sequence), now - 60, claimed: $0.claimed) }
        let rules = policy { ($0.keepDaily, $0.keepWeekly, $0.keepMonthly, $0.maxDeleteRatio) = (7, 4, 6, 1) }
        let (before, after) = (plan(original, rules), plan(copied, rules))
        #expect(!before.forgotten.isEmpty && after.gone.isSubset(of: before.gone))
        #expect(after.why(34) == ["daily 2026-11-20 by its node's clock"])
    }

    @Test func `a node's clock that is ahead counts for nothing`() {
        var snapshots = daily(4)
        snapshots[3] = snapshot(4, snapshots[3].committed, claimed: now + 3650 * day)
        #expect(snapshots[3].claimed == snapshots[3].committed)
        let plan = plan(snapshots, policy { $0.keepYearly = 2 })
        #expect(plan.keptNumbers == [4] && plan.warnings.isEmpty)
    }

    @Test func `a store's clock that went back makes nothing old`() {
        var snapshots = daily(6)
        for index in [3, 4, 5] { snapshots[index] = snapshot(index + 1, snapshots[index].committed - 3650 * day) }
        let plan = plan(snapshots, policy { $0.keepWithin = 5 * day })
        #expect(plan.keptNumbers == [3, 4, 5, 6], "as young as the one before them")
    }

    @Test func `a clock that is behind is said, and nothing goes for its age`() {
        let plan = plan(daily(6), policy { $0.keepWithin = day }, now: now - 3650 * day)
        #expect(plan.forgotten.isEmpty && plan.warnings.count == 1 && plan.warnings[0].contains("the store's clock says 2016"))
        #expect(self.plan(daily(6), policy { $0.keepWithin = day }, now: now - day - 30).warnings.isEmpty)
    }

    // MARK: - The calendar

    @Test(arguments: [
        ("2026-12-31 23:59", "2026-W53"), ("2027-01-03 23:59", "2026-W53"), ("2027-01-04 00:00", "2027-W01"),
        ("2021-01-01 00:00", "2020-W53"), ("2024-12-30 00:00", "2025-W01"), ("2024-12-29 23:59", "2024-W52"),
        ("2024-02-29 12:00", "2024-W09"), ("1970-01-01 00:00", "1970-W01"), ("2100-03-01 00:00", "2100-W09"),
    ])
    func `weeks are those of ISO 8601`(_ moment: String, _ week: String) {
        #expect(CalendarBucket.weekly.name(at(moment)) == week)
    }

    @Test func `days, months and years end where UTC has it`() {
        #expect(CalendarBucket.daily.name(at("2024-02-29 23:59")) == "2024-02-29")
        #expect(CalendarBucket.daily.name(at("2024-03-01 00:00") - 0.001) == "2024-02-29")
        #expect(CalendarBucket.daily.name(at("2023-02-28 23:59") + 60) == "2023-03-01")
        #expect(CalendarBucket.monthly.name(at("2024-03-01 00:00") - 1) == "2024-02")
        #expect(CalendarBucket.yearly.name(at("2027-01-01 00:00") - 0.001) == "2026")
        #expect(CalendarBucket.hourly.name(at("2026-11-21 13:59") + 59.999) == "2026-11-21T13")
        #expect(CalendarBucket.yearly.name(at("1969-12-31 23:59")) == "1969")
    }

    @Test func `around New Year a week is kept once and two years are`() {
        // Wednesday to Tuesday: W53 until Sunday the 3rd.
        let snapshots = (0..<7).map { snapshot($0 + 1, at("2026-12-30 12:00") + Double($0) * day) }
        let plan = plan(snapshots, policy { ($0.keepWeekly, $0.keepYearly) = (2, 2) }, now: at("2027-01-05 13:00"))
        #expect(plan.why(5) == ["weekly 2026-W53"] && plan.why(2) == ["yearly 2026"])
        #expect(plan.keptNumbers == [2, 5, 7])
    }
}
