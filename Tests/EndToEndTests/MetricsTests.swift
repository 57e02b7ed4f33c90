import BackupBase
import Foundation
import Glibc
import Operations
import TestSupport
import Testing

@Suite("Metrics") struct MetricsTests {
    private static let hasPromtool = Program.hasTool("promtool")

    private func check(_ stage: WatchStage) throws {
        guard Self.hasPromtool else { return }
        let result = try Program.run(
            "/bin/sh", ["-c", "promtool check metrics"], input: Data((try stage.samples.joined(separator: "\n") + "\n").utf8))
        #expect(result.status == 0 && result.errors.isEmpty && result.output.isEmpty, "\(result.errors)\(result.output)")
    }

    @Test func `one file holds all jobs, and what one run writes another leaves`() throws {
        let stage = try WatchStage()
        try stage.write()
        try stage.backup()
        let backup = try #require(try stage.sample("bgbackup_last_success_timestamp_seconds{"))
        #expect(abs(backup - Date().timeIntervalSince1970) < 300)
        try stage.expect(0, ["check", "--policy", "demo"])
        try stage.expect(0, ["prune", "--policy", "demo"])
        try stage.expect(16, ["drill", "--policy", "demo", "--no-boot"])
        try check(stage)
        let labels = "{policy=\"demo\",repository=\"\(stage.workspace.repository)\""
        #expect(
            try stage.sample("bgbackup_last_success_timestamp_seconds\(labels),job_name=\"backup\",schedule=\"hourly\"}")
                == backup)
        #expect(try stage.sample("bgbackup_last_run_status\(labels),job_name=\"drill\"}") == 0)
        #expect(try stage.sample("bgbackup_last_run_exit_code\(labels),job_name=\"drill\"}") == 16)
        #expect(try stage.sample("bgbackup_last_run_status\(labels),job_name=\"check\"}") == 2)
        #expect(try stage.sample("bgbackup_check_data_coverage_ratio\(labels)}") == 1)
        #expect(try stage.sample("bgbackup_problem\(labels),job_name=\"drill\",code=\"drill-failed\"}") == 1)
        #expect(try stage.sample("bgbackup_repository_bytes\(labels),class=\"live\"}") ?? 0 > 300_000)
        #expect(try stage.sample("bgbackup_uploaded_bytes\(labels)}") ?? 0 > 300_000)
        #expect(try stage.sample("bgbackup_schedule_interval_seconds\(labels),job_name=\"backup\",schedule=\"hourly\"}") == 3600)
        // One moment missed, and what a backup takes.
        let objective = try #require(try stage.sample("bgbackup_objective_seconds\(labels)}"))
        #expect(objective >= 6000 && objective < 6060)
        #expect(try stage.sample("bgbackup_snapshots\(labels)}") == 1)
        // Every name is documented, and for everybody to read.
        let names = Set(try stage.samples.filter { !$0.hasPrefix("#") }.map { String($0.prefix { $0 != "{" }) })
        #expect(names.isSubset(of: MetricsFile.families.map(\.name)) && names.count > 20)
        let mode = try FileManager.default.attributesOfItem(atPath: stage.metrics)[.posixPermissions] as? Int
        #expect(mode == 0o644)
        #expect(try FileManager.default.contentsOfDirectory(atPath: stage.workspace.path("metrics")) == ["bgbackup.prom"])

        // Another policy with the same file adds its own, and takes nothing away.
        try stage.write("other")
        try stage.expect(0, ["backup", "--policy", "other", "--schedule", "hourly"])
        #expect(try stage.sample("bgbackup_last_run_status\(labels),job_name=\"check\"}") == 2)
        #expect(try stage.samples.contains { $0.hasPrefix("bgbackup_last_run_status{policy=\"other\"") })
        try check(stage)
    }

    @Test func `who writes last has seen what the others left`() throws {
        let stage = try WatchStage()
        try stage.write()
        try stage.backup()
        let lock = open(stage.workspace.path("state/metrics.lock"), O_RDWR)
        #expect(lock >= 0 && LocalFile.tryLock(lock, shared: false))
        let before = try String(contentsOfFile: stage.metrics, encoding: .utf8)
        let check = try Running(
            Program.binary, ["check", "--policy", "demo"], environment: stage.workspace.environment.merging(stage.extra) { $1 })
        try check.wait { stage.workspace.runs.first?.kind == .check && stage.workspace.runs.first?.outcome == .success }
        #expect(try String(contentsOfFile: stage.metrics, encoding: .utf8) == before, "it writes beside another")
        // Another run ends meanwhile.
        let history = RunHistory(stateDirectory: stage.workspace.path("state"))
        let record = RunRecord(.drill, policy: "demo", repository: stage.workspace.repository, textfile: stage.metrics)
        _ = try history.begin(record).end(16, code: "drill-failed")
        close(lock)
        #expect(check.wait() == 0)
        #expect(try stage.samples.contains { $0.hasPrefix("bgbackup_last_run_status") && $0.contains("check") })
        #expect(try stage.samples.contains { $0.hasPrefix("bgbackup_last_run_status") && $0.contains("drill") })
    }

    @Test func `numbers follow their policy: to another file, and away with it; timers of all are there`() throws {
        let stage = try WatchStage()
        try stage.write()
        try stage.write("other")
        try stage.systemd(load: "loaded", active: "active")
        try stage.expect(0, ["check", "--policy", "demo"])
        try stage.expect(0, ["check", "--policy", "other"])
        #expect(try stage.samples.filter { $0.hasPrefix("bgbackup_timer_active") && $0.contains("policy=\"demo\"") }.count == 2)
        // Another file.
        let file = stage.workspace.path("config/policies/demo.yaml")
        let text = try String(contentsOfFile: file, encoding: .utf8)
        let moved = stage.workspace.path("metrics/moved.prom")
        try Data(text.replacing(stage.metrics, with: moved).utf8).write(to: URL(filePath: file))
        try stage.backup()
        #expect(try String(contentsOfFile: moved, encoding: .utf8).contains("job_name=\"check\""))
        try stage.expect(0, ["check", "--policy", "other"])
        #expect(try !stage.samples.contains { $0.contains("policy=\"demo\"") })
        // It is gone, and with it what was wrong.
        try Data(text.utf8).write(to: URL(filePath: file))
        try stage.expect(16, ["drill", "--policy", "demo", "--no-boot"])
        #expect(try stage.samples.contains { $0.contains("policy=\"demo\"") && $0.contains("drill-failed") })
        try FileManager.default.removeItem(atPath: file)
        try stage.expect(0, ["check", "--policy", "other"])
        #expect(try !stage.samples.contains { $0.contains("policy=\"demo\"") })
    }

    @Test func `a policy that is broken takes no numbers away, and says what it is`() throws {
        let stage = try WatchStage()
        try stage.write()
        try stage.write("other")
        try stage.backup()
        try Data("nonsense: [".utf8).write(to: URL(filePath: stage.workspace.path("config/policies/demo.yaml")))
        try stage.expect(0, ["check", "--policy", "other"])
        #expect(try stage.samples.contains { $0.hasPrefix("bgbackup_newest_snapshot_timestamp_seconds{policy=\"demo\"") })
        try stage.expect(64, ["check", "--policy", "demo"])
        #expect(
            try stage.samples.contains {
                $0.hasPrefix("bgbackup_problem{policy=\"demo\"") && $0.contains("code=\"wrong-policy\"")
            })
        #expect(try stage.samples.contains { $0.hasPrefix("bgbackup_newest_snapshot_timestamp_seconds{policy=\"demo\"") })
    }

    @Test func `a policy that is paused says so, and no run is remembered`() throws {
        let stage = try WatchStage()
        try stage.write()
        try stage.backup()
        // One that is in no library.
        try stage.write("other")
        let elsewhere = stage.workspace.path("elsewhere.yaml")
        try FileManager.default.moveItem(atPath: stage.workspace.path("config/policies/other.yaml"), toPath: elsewhere)
        try stage.expect(0, ["check", "--policy", elsewhere])
        try stage.write(spec: "  paused: true")
        for arguments in [["backup", "--policy", "demo", "--schedule", "hourly"], ["check", "--policy", "demo"]] {
            try FileManager.default.removeItem(atPath: stage.metrics)
            try stage.expect(0, arguments)
            #expect(try stage.samples.contains { $0.hasPrefix("bgbackup_paused{policy=\"demo\"") && $0.hasSuffix(" 1") })
        }
        #expect(stage.workspace.runs.count == 2)
        #expect(try stage.samples.contains { $0.hasPrefix("bgbackup_last_run_status{policy=\"other\"") })
    }

    @Test func `a file that cannot be written is said, and fails no run`() throws {
        let stage = try WatchStage()
        try stage.write()
        try FileManager.default.removeItem(atPath: stage.workspace.path("metrics"))
        let result = try stage.backup()
        #expect(result.errors.contains("the metrics cannot be written to"))
        // By hand: the variable names the file.
        let file = stage.workspace.path("by-hand.prom")
        try stage.workspace.expect(
            0, ["backup", stage.volume.path, "--capture", "none"], extra: ["BGBACKUP_METRICS_FILE": file])
        let text = try String(contentsOfFile: file, encoding: .utf8)
        #expect(text.contains("bgbackup_uploaded_bytes{repository=\"\(stage.workspace.repository)\"}"))
    }

    @Test(.enabled(if: hasPromtool, "needs promtool (Debian package prometheus)"))
    func `alert rules are right and fire when they should`() throws {
        for (command, file) in [("check", "alerts.yaml"), ("test", "alerts_test.yaml")] {
            let result = try Program.tool("promtool", [command, "rules", "\(Program.root)observability/\(file)"])
            #expect(result.status == 0, "\(result.output)\(result.errors)")
        }
    }

    @Test(arguments: ["observability/alerts.yaml", "observability/dashboard.json"])
    func `alerts and dashboard ask for what is written`(_ file: String) throws {
        let text = try String(contentsOfFile: Program.root + file, encoding: .utf8)
        let asked = Set(text.matches(of: /bgbackup_[a-z_]+/).map { String($0.output) })
        let written = Set(MetricsFile.families.map(\.name))
        #expect(asked.count > 8 && asked.isSubset(of: written), "\(asked.subtracting(written))")
        if file.hasSuffix("json") {
            let dashboard = try #require(try JSONSerialization.jsonObject(with: Data(text.utf8)) as? [String: Any])
            let panels = try #require(dashboard["panels"] as? [[String: Any]])
            #expect(panels.count > 10 && Set(panels.compactMap { $0["id"] as? Int }).count == panels.count)
            #expect(panels.allSatisfy { ($0["targets"] as? [[String: Any]])?.isEmpty == false })
        }
    }

    @Test func `docs list every metric, and no other`() throws {
        let text = try String(contentsOfFile: Program.root + "docs/observability.md", encoding: .utf8)
        let rows = text.split(separator: "\n").filter { $0.hasPrefix("| `bgbackup_") }
        let expected = MetricsFile.families.map { family in
            "| `\(family.name)` | \(family.labels.map { "`\($0)`" }.joined(separator: ", ")) | \(family.help) |"
        }
        #expect(rows.map(String.init) == expected, "\n\(expected.joined(separator: "\n"))")
    }
}
