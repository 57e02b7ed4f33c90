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

    @Test func `lights`() throws {
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
        let refused = try Self.run(.prune, 0.3, 1, "retention-refused") { ($0.anomaly, $0.snapshots) = ("it changed", 3) }
        #expect(try look([good, refused]) == ["held", "anomaly"])
        #expect(try look([try Self.run(.prune, 0.1) { $0.snapshots = 3 }, strange, refused]) == ["ok"])
        // What somebody tried by hand, and what worked since.
        let byHand = try Self.run(.backup, 0.7, 1, "capture-failed", schedule: "other")
        #expect(try look([byHand, good]) == ["ok"])
        #expect(try look([try Self.run(.backup, 0.2, 1, "capture-failed", schedule: "other"), good]).first == "failed")
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
        let drilled = try Self.health(proven, [try Self.run(.backup, 0.1), try Self.run(.drill, 1, 16, "drill-failed")])
        #expect(drilled.problems.map(\.code) == ["drill-failed"] && drilled.light == .failed)

        let paused = try Self.health(try Self.policy("  paused: true"), [try Self.run(.backup, 100, 1, "store-full")])
        #expect(paused.light == .paused && paused.problems.isEmpty)
        // The clock went back: nothing is of a negative age.
        let future = try Self.health(nil, [try Self.run(.backup, -5)])
        #expect(future.age == 0 && future.light == .ok)
        // Only the store knows of backups of other nodes.
        var keeper = try Self.health(nil, [], since: nil)
        keeper.newestStored = Self.now - 60
        #expect(keeper.age == 60 && keeper.light == .ok)
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
