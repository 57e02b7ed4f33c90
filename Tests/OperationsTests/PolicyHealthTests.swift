import BackupBase
import Foundation
import TestSupport
import Testing

@testable import Operations

@Suite("How a policy is doing") struct PolicyHealthTests {
    private static let now = 1_795_795_200.0
    private static let hour = 3600.0

    private static func policy(_ more: String = "", schedules: String = "{name: hourly, onCalendar: hourly}") throws -> Policy {
        let directory = try TemporaryDirectory("policy")
        let text = """
            apiVersion: bgbackup.io/v1
            kind: BackupPolicy
            metadata: {name: p}
            spec:
              source: {path: /var/lib/qdrant}
              repository: {url: /srv/backup}
              schedules: [\(schedules)]
              retention: {keepLast: 3}
            \(more)
            """
        try Data(text.utf8).write(to: URL(filePath: directory("p.yaml")))
        return try #require(try PolicyFile(path: directory("p.yaml")).policy)
    }

    /// A run that began so many hours ago.
    private static func run(
        _ kind: RunRecord.Kind, _ hours: Double, _ status: Int32 = 0, _ code: String? = nil, schedule: String? = nil,
        _ fill: (inout RunRecord.Figures) -> Void = { _ in }
    ) throws -> RunRecord {
        let ambient = Ambient(now: { Int64((now - hours * hour) * 1e9) }, random: Ambient.system.random)
        let run = ActiveRun(
            RunRecord(kind, policy: "p", schedule: schedule ?? (kind == .backup ? "hourly" : nil), ambient: ambient), in: nil)
        run.note(fill)
        return try run.end(status, code: code, message: code, ambient: ambient)
    }

    private static func health(
        _ policy: Policy? = nil, _ records: [RunRecord], timers: [String: TimerState] = [:], since hours: Double? = nil
    ) throws -> PolicyHealth {
        PolicyHealth(
            try policy ?? Self.policy(), records.sorted { $0.start > $1.start }, timers: timers,
            first: hours.map { now - $0 * hour } ?? records.map(\.start).min(), now: now, offset: 0)
    }

    /// RFC 3339, so many hours ago.
    private static func at(_ hours: Double) -> String { formatTime(Int64((now - hours * hour) * 1e9)) }

    @Test func `lights`() throws {
        let at = Self.at
        func look(_ records: [RunRecord], timers: [String: TimerState] = [:]) throws -> [String] {
            let health = try Self.health(nil, records, timers: timers)
            return [health.light.rawValue] + health.problems.map(\.code)
        }
        let good = try Self.run(.backup, 0.5)
        #expect(try look([]) == ["never", "never-ran"])
        #expect(try look([good]) == ["ok"])
        #expect(try look([try Self.run(.backup, 1.6)]) == ["ok"])
        #expect(try look([try Self.run(.backup, 1.8)]) == ["late", "overdue"])
        #expect(try look([try Self.run(.backup, 0.2, 1, "store-full"), good]) == ["failed", "store-full"])
        #expect(try look([try Self.run(.backup, 0.7, 1, "store-full"), good]) == ["ok"])
        // Busy and stopped runs say nothing.
        #expect(
            try look([try Self.run(.backup, 0.2, 11, "busy"), try Self.run(.backup, 0.1, 143, "interrupted"), good]) == ["ok"])
        #expect(try look([try Self.run(.backup, 0.2, 3, "incomplete")]) == ["failed", "incomplete"])
        #expect(try look([try Self.run(.backup, 0.2, 11, "busy")]) == ["never", "never-ran"])
        #expect(try look([good], timers: ["backup hourly": .disabled]) == ["late", "timer-missing"])
        #expect(try look([good], timers: ["backup hourly": .missing]) == ["late", "timer-missing"])
        #expect(try look([good], timers: ["backup hourly": .active]) == ["ok"])
        let strange = try Self.run(.backup, 0.5) { $0.anomaly = "it changed" }
        #expect(try look([strange]) == ["held", "anomaly"] && strange.outcome == .warning)
        // Held until retention finds nothing any more.
        let refused = try Self.run(.prune, 0.3, 1, "retention-refused") { ($0.anomaly, $0.judged) = ("it changed", at(0.3)) }
        #expect(try look([good, refused]) == ["held", "anomaly"])
        #expect(try look([try Self.run(.prune, 0.1) { $0.judged = at(0.1) }, strange, refused]) == ["ok"])
        // What somebody tried by hand, without a schedule, and what worked since.
        let byHand = try Self.run(.backup, 0.7, 1, "capture-failed", schedule: "_")
        #expect(try look([byHand, good]) == ["ok"])
        #expect(try look([try Self.run(.backup, 0.2, 1, "capture-failed", schedule: "_"), good]).first == "failed")
    }

    @Test func `objectives, other hosts' jobs, pauses and clocks`() throws {
        let proven = try Self.policy("  drill: {onCalendar: weekly, objectives: {rpo: 75m}}\n  prune: {onCalendar: daily}")
        let health = try Self.health(proven, [try Self.run(.backup, 1.3)])
        #expect(health.objective == 75 * 60 && health.problems.map(\.code) == ["overdue"])
        // Never run here, without a timer: another host's.
        #expect(health.jobs.filter(\.isElsewhere).map(\.title) == ["prune", "drill"])
        let here = try Self.health(
            proven, [try Self.run(.backup, 0.1)], timers: ["prune": .active, "backup hourly": .active, "drill": .missing],
            since: 40)
        #expect(here.problems.map { [$0.code, $0.job] } == [["overdue", "prune"]] && here.jobs.filter(\.isElsewhere).count == 1)
        // A timer that was installed and stopped is here; one of the package's template that nobody installed is not.
        func stopped(_ plan: PlanTimes) throws -> [String] {
            let timers = ["prune": TimerState.disabled, "drill": .disabled, "backup hourly": .active]
            return PolicyHealth(
                proven, [try Self.run(.backup, 0.1)], timers: timers, first: nil, plan: plan, now: Self.now, offset: 0
            ).problems.map { "\($0.code) \($0.job ?? "")" }
        }
        var plan = PlanTimes()
        #expect(try stopped(plan) == [])
        plan.timers["prune"] = Self.now - Self.hour
        #expect(try stopped(plan) == ["timer-missing prune"])
        let drilled = try Self.health(proven, [try Self.run(.backup, 0.1), try Self.run(.drill, 1, 16, "drill-failed")])
        #expect(drilled.problems.map(\.code) == ["drill-failed"] && drilled.light == .failed)

        let paused = try Self.health(try Self.policy("  paused: true"), [try Self.run(.backup, 100, 1, "store-full")])
        #expect(paused.light == .paused && paused.problems.isEmpty)
        // The clock went back: nothing is of a negative age.
        let future = try Self.health(nil, [try Self.run(.backup, -5)])
        #expect(future.age == 0 && future.light == .ok)
        // Only the store knows of backups of other nodes.
        var keeper = PolicyHealth(try Self.policy(), [], first: nil, now: Self.now, offset: 0, isSourceHere: false)
        keeper.newestStored = Self.now - 60
        #expect(keeper.age == 60 && keeper.light == .ok && keeper.isNewestOfStore)
        // Which says nothing where the volume is here and was never backed up.
        var idle = try Self.health(nil, [])
        idle.newestStored = Self.now - 60
        #expect(idle.light == .never && idle.problems.map(\.code) == ["never-ran"] && idle.age == nil)
        keeper.seen = [Problem("store-full", "x")]
        #expect(keeper.light == .failed)
    }

    @Test func `a monthly schedule is missed although the hourly one runs`() throws {
        let policy = try Self.policy(schedules: "{name: hourly, onCalendar: hourly}, {name: monthly, onCalendar: monthly}")
        let health = try Self.health(policy, [try Self.run(.backup, 0.2), try Self.run(.backup, 24 * 60, schedule: "monthly")])
        #expect(health.problems.map { [$0.code, $0.schedule] } == [["overdue", "monthly"]])
        let text = MetricsFile([health], version: "1").text
        #expect(
            text.contains(
                "bgbackup_problem{policy=\"p\",repository=\"/srv/backup\",job_name=\"backup\",schedule=\"monthly\",code=\"overdue\"} 1"
            ))
    }

    /// Runs of one job, oldest first, each with what the one before it left standing.
    private static func chain(
        _ kind: RunRecord.Kind, _ runs: [(hours: Double, status: Int32, fill: (inout RunRecord.Figures) -> Void)]
    ) throws -> [RunRecord] {
        var records: [RunRecord] = []
        for (hours, status, fill) in runs {
            let ambient = Ambient(now: { Int64((now - hours * hour) * 1e9) }, random: Ambient.system.random)
            let record = RunRecord(kind, policy: "p", schedule: kind == .backup ? "hourly" : nil, ambient: ambient)
            let run = ActiveRun(record, in: nil)
            run.note(fill)
            run.settle(after: records.last)
            records.append(try run.end(status, code: status == 17 ? "damaged" : nil, ambient: ambient))
        }
        return records
    }

    @Test func `a change unlike before stands until retention looked, whatever backups come after it`() throws {
        let at = Self.at
        let runs = try Self.chain(
            .backup, [(5, 0, { $0.anomaly = "it changed" }), (4, 0, { _ in }), (3, 1, { _ in }), (0.5, 0, { _ in })])
        // What `latest` gives: the newest that was done.
        let last = [try #require(runs.last)]
        #expect(try Self.health(nil, last).problems.map(\.code) == ["anomaly"])
        let text = MetricsFile([try Self.health(nil, last)], version: "1").text
        #expect(text.contains("bgbackup_anomaly_hold{policy=\"p\",repository=\"/srv/backup\"} 1"))
        let looked = try Self.run(.prune, 2) { $0.judged = at(2) }
        #expect(try Self.health(nil, last + [looked]).anomaly == nil)
        #expect(try Self.health(nil, last + [try Self.run(.prune, 6) { $0.judged = at(6) }]).anomaly == "it changed")
        // Named snapshots, one node, or a prune without a policy: nobody judged all of them.
        for kind in [RunRecord.Kind.prune, .forget] {
            #expect(try Self.health(nil, last + [try Self.run(kind, 2) { $0.snapshots = 3 }]).anomaly == "it changed")
        }
        // Nor do these take back what was judged before them.
        let forgets = try Self.chain(
            .forget,
            [(5, 1, { ($0.anomaly, $0.judged) = ("it changed", at(5)) }), (2, 0, { $0.judged = at(2) }), (1, 0, { _ in })])
        #expect(try Self.health(nil, last + [try #require(forgets.last)]).anomaly == nil)
        let named = try Self.chain(.forget, [(5, 1, { ($0.anomaly, $0.judged) = ("it changed", at(5)) }), (1, 0, { _ in })])
        #expect(try Self.health(nil, [try Self.run(.backup, 0.1), try #require(named.last)]).anomaly == "it changed")
        // Of a watch too, also where its later snapshots were well.
        let watch = try Self.chain(
            .watch,
            [
                (
                    1, 0,
                    { figures in
                        figures.anomaly = "it changed"
                        figures.noteAnomaly(at: formatTime(Int64((Self.now - 1800) * 1e9)))
                        figures.anomaly = nil
                    }
                )
            ])
        #expect(try Self.health(nil, watch + [try Self.run(.backup, 0.2)]).anomaly == "it changed")
        // Somebody looked at the same repository by hand.
        let byHand = try ActiveRun(RunRecord(.forget, repository: "/srv/backup"), in: nil).end(0)
        var looks = byHand
        looks.figures.judged = looks.started
        let all = PolicyHealth.all(
            [try Self.policy()], last, names: [], looks: [looks], now: Date().timeIntervalSince1970, offset: 0)
        #expect(all.first?.anomaly == nil)
    }

    @Test func `damages stand until a check that reads as much was well`() throws {
        func standing(_ runs: [(Double, Int32, (inout RunRecord.Figures) -> Void)]) throws -> (Int?, [String]) {
            let last = try #require(try Self.chain(.check, runs.map { (hours: $0.0, status: $0.1, fill: $0.2) }).last)
            let health = try Self.health(nil, [try Self.run(.backup, 0.1), last])
            return (last.standingDamages, health.problems.map(\.code))
        }
        let found: (Double, Int32, (inout RunRecord.Figures) -> Void) = (9, 17, { ($0.damages, $0.dataShare) = (3, 1) })
        func well(_ hours: Double, _ share: Double) -> (Double, Int32, (inout RunRecord.Figures) -> Void) {
            (hours, 0, { ($0.damages, $0.dataShare) = (0, share) })
        }
        #expect(try standing([found, well(8, 0)]) == (3, ["damaged"]))
        #expect(try standing([found, well(8, 0.05), (7, 1, { _ in }), well(6, 0)]) == (3, ["damaged"]))
        #expect(try standing([found, well(8, 0), well(7, 1)]) == (0, []))
        // A lesser check that finds something itself says nothing of the rest; what all of them see, the last one knows.
        let missing: (Double, Int32, (inout RunRecord.Figures) -> Void) = (8, 17, { ($0.damages, $0.dataShare) = (1, 0) })
        #expect(try standing([found, missing]) == (3, ["damaged"]))
        #expect(try standing([found, missing, well(7, 0)]) == (3, ["damaged"]))
        #expect(try standing([found, (8, 17, { ($0.damages, $0.dataShare) = (4, 0.1) }), well(7, 0)]) == (4, ["damaged"]))
        #expect(try standing([found, (8, 17, { ($0.damages, $0.dataShare) = (1, 1) })]).0 == 1)
        #expect(try standing([(9, 17, { ($0.damages, $0.dataShare) = (3, 0) }), missing]).0 == 1)
        // What was seen without reading data, every check sees.
        #expect(try standing([(9, 17, { ($0.damages, $0.dataShare) = (2, 0) }), well(8, 0)]) == (0, []))
        let last = try #require(try Self.chain(.check, [found, well(8, 0)].map { (hours: $0.0, status: $0.1, fill: $0.2) }).last)
        #expect(
            MetricsFile([try Self.health(nil, [last])], version: "1").text.contains(
                "bgbackup_check_errors{policy=\"p\",repository=\"/srv/backup\"} 3"))
    }

    @Test func `a job that is new is not late, nor one that takes long`() throws {
        let policy = try Self.policy("  check: {onCalendar: daily}")
        func codes(_ records: [RunRecord], _ plan: PlanTimes) -> [String] {
            PolicyHealth(
                policy, records, timers: ["check": .active], first: Self.now - 400 * Self.hour, plan: plan, now: Self.now,
                offset: 0
            ).problems.map { "\($0.code) \($0.job ?? "")" }
        }
        let backup = try Self.run(.backup, 0.1)
        var plan = PlanTimes()
        #expect(codes([backup], plan) == ["overdue check"])
        plan.policy = Self.now - 3600
        #expect(codes([backup], plan) == [])
        // The drop-in is what counts where there is one; a calendar that was changed counts from then on.
        plan.timers["check"] = Self.now - 100 * Self.hour
        #expect(codes([backup], plan) == ["overdue check"])
        let check = try Self.run(.check, 50)
        #expect(codes([backup, check], plan) == ["overdue check"])
        plan.timers["check"] = Self.now - 3600
        #expect(codes([backup, check], plan) == [])
        // 50 hours ago it began, and took 20.
        let ambient = Ambient(now: { Int64((Self.now - 50 * Self.hour) * 1e9) }, random: Ambient.system.random)
        var long = try ActiveRun(RunRecord(.check, policy: "p", ambient: ambient), in: nil).end(0, ambient: ambient)
        long.durationSeconds = 20 * Self.hour
        #expect(codes([backup, long], PlanTimes()) == [])
    }

    @Test func `jobs that are no more need nobody's attention`() throws {
        let good = try Self.run(.backup, 0.2)
        let gone = try Self.run(.backup, 1, 1, "store-full", schedule: "nightly")
        let health = try Self.health(nil, [good, gone])
        #expect(health.problems.isEmpty)
        #expect(!MetricsFile([health], version: "1").text.contains("nightly"))
        // The policy has no drill any more; somebody may have tried one by hand.
        func drill(_ hours: Double) throws -> PolicyHealth {
            try Self.health(nil, [good, try Self.run(.drill, hours, 16, "drill-failed")])
        }
        #expect(try drill(24).problems.map(\.code) == ["drill-failed"] && drill(8 * 24).problems.isEmpty)
        #expect(
            try !MetricsFile([drill(8 * 24)], version: "1").text.contains(
                "last_run_status{policy=\"p\",repository=\"/srv/backup\",job_name=\"drill\""))
    }

    @Test func `a watch whose last snapshot is incomplete is told of`() throws {
        let record = RunRecord(.watch, policy: "p")
        let run = ActiveRun(record, in: nil)
        run.note { ($0.problems, $0.snapshotsMade) = (2, 5) }
        #expect(try Self.health(nil, [run.record, try Self.run(.backup, 0.1)]).problems.map(\.code) == ["incomplete"])
        run.note { $0.problems = 0 }
        #expect(try Self.health(nil, [run.record, try Self.run(.backup, 0.1)]).problems.isEmpty)
    }

    @Test func `a watch that was killed is told of for a week`() throws {
        func codes(_ hours: Double, _ schedule: String?) throws -> [String] {
            let watch = try Self.run(.watch, hours, 137, "killed", schedule: schedule)
            var killed = watch
            killed.outcome = .killed
            return try Self.health(nil, [killed, try Self.run(.backup, 0.1)]).problems.map(\.code)
        }
        for schedule in [nil, "hourly"] {
            #expect(try codes(24, schedule) == ["killed"] && codes(8 * 24, schedule).isEmpty)
        }
    }

    @Test func `two files have no sample in common`() throws {
        func samples(_ name: String) throws -> Set<String> {
            let health = PolicyHealth(
                nil, [RunRecord(.check, policy: name, repository: "/r")], first: nil, now: Self.now, offset: 0)
            let lines = MetricsFile([health], version: "1").text.split(separator: "\n").filter { !$0.hasPrefix("#") }
            return Set(lines.map { String($0.prefix { $0 != " " }) })
        }
        #expect(try samples("a").isDisjoint(with: samples("b")))
    }

    @Test func `places of copies and words of changes go out only where the policy says so`() throws {
        let record = try Self.run(.copy, 0) {
            ($0.copyLocation, $0.anomalyStanding) = ("s3://secret-bucket/x", "it changed by 80 %")
        }
        for (sends, words) in [(true, true), (false, false)] {
            let text = String(decoding: Announcement(.success, record, problems: [], sendLogs: sends).json, as: UTF8.self)
            #expect(text.contains("secret-bucket") == words && text.contains("80 %") == words)
        }
    }

    @Test func `label values cannot break out`() throws {
        let record = RunRecord(.backup, repository: "/srv/a\"b\\c\nd")
        let health = PolicyHealth(nil, [record], first: nil, now: Self.now, offset: 0)
        let text = MetricsFile([health], version: "1\"\n").text
        #expect(text.contains("repository=\"/srv/a\\\"b\\\\\\\\c\\\\x0ad\"") || text.contains("repository=\"/srv/a\\\"b"))
        #expect(text.split(separator: "\n").allSatisfy { $0.hasPrefix("#") || $0.hasPrefix("bgbackup_") })
        guard Program.hasTool("promtool") else { return }
        #expect(try Program.run("/bin/sh", ["-c", "promtool check metrics"], input: Data(text.utf8)).status == 0)
    }

    @Test func `what a run is worth telling`() throws {
        let (well, ill) = (try Self.run(.backup, 2), try Self.run(.backup, 1, 1, "store-full"))
        func events(_ record: RunRecord, after previous: RunRecord? = nil) -> [String] {
            Announcement.events(record, after: previous).map(\.rawValue)
        }
        #expect(events(well) == ["success"] && events(well, after: well) == ["success"])
        #expect(events(well, after: ill) == ["recovered", "success"] && events(ill, after: ill) == ["failure"])
        #expect(events(try Self.run(.drill, 0, 16, "drill-failed")) == ["drillFailed", "failure"])
        #expect(events(try Self.run(.check, 0, 17, "damaged")) == ["damage", "failure"])
        // That damage was found before and nobody saw it mended is no recovery.
        let checks = try Self.chain(
            .check, [(9, 17, { ($0.damages, $0.dataShare) = (3, 1) }), (8, 0, { ($0.damages, $0.dataShare) = (0, 0) })])
        #expect(events(checks[1], after: checks[0]) == ["damage", "failure"] && Notifier.word(checks[1]) == "17")
        let text = String(decoding: Announcement(.damage, checks[1], problems: [], sendLogs: false).json, as: UTF8.self)
        #expect(text.contains("damage that was found before stands"))
        #expect(Notifier.word(well) == "0" && Notifier.word(ill) == "1")
        #expect(events(try Self.run(.prune, 0, 13, "immutable")) == ["warning"])
        #expect(events(try Self.run(.backup, 0, 11, "busy")).isEmpty)
        #expect(events(try Self.run(.backup, 0, 143, "interrupted")).isEmpty)
    }

    @Test(arguments: [
        ("https://hc/UUID", "https://hc/UUID/start?rid=r"), ("https://hc/UUID//", "https://hc/UUID/start?rid=r"),
        ("https://hc/UUID?key=1", "https://hc/UUID/start?rid=r&key=1"),
    ])
    func `a check's addresses`(_ url: String, _ address: String) {
        #expect(Notifier.address(SecretText(url), "start", "r").reveal() == address)
    }

    @Test(arguments: [(0.0, "0s"), (59, "59s"), (3599, "59m"), (3600, "1h"), (4500, "1h 15m"), (90_000, "1d 1h"), (1e6, "11d")])
    func `spans`(_ seconds: Double, _ text: String) { #expect(PolicyHealth.span(seconds) == text) }
}
