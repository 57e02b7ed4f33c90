import Foundation
import Glibc
import TestSupport
import Testing

/// A workspace with a directory of policies.
private struct Stage {
    let workspace: Workspace
    let volume: Volume
    var policies: String { workspace.path("config/policies") }
    var configuration: [String: String] { ["BGBACKUP_CONFIG": workspace.path("config")] }
    /// No repository and no password: both come from the policy.
    var bare: [String: String] {
        configuration.merging(["BGBACKUP_REPOSITORY": "", "BGBACKUP_PASSWORD_FILE": ""]) { $1 }
    }

    init(initialize: Bool = true) throws {
        workspace = try Workspace("policy", initialize: initialize, kind: nil)
        volume = try Volume.small(workspace.path("volume"))
        try FileManager.default.createDirectory(atPath: policies, withIntermediateDirectories: true)
    }

    @discardableResult
    func write(_ name: String = "demo", spec: String = "") throws -> String {
        let text = """
            apiVersion: bgbackup.io/v1
            kind: BackupPolicy
            metadata: {name: \(name)}
            spec:
              node: node-7
              cluster: blue
              tags: [nightly]
              source: {path: "\(volume.path)"}
              capture: {method: none, acceptFuzzy: true}
              repository:
                url: "\(workspace.repository)"
                password: {file: "\(workspace.passwordFile)"}
              schedules:
                - {name: hourly, onCalendar: hourly, keepFor: 48h, tags: [often]}
                - {name: daily, onCalendar: "*-*-* 02:00:00 UTC"}
            \(spec)
            """
        let path = "\(policies)/\(name).yaml"
        try Data((text + "\n").utf8).write(to: URL(filePath: path))
        return path
    }
}

@Suite("Policy files") struct PolicyTests {
    // MARK: - validate

    @Test func `validate reads all policies, and says of each that it is right`() throws {
        let stage = try Stage(initialize: false)
        try stage.write("one")
        try stage.write("two", spec: "  paused: true")
        let all = try stage.workspace.expect(0, ["policy", "validate"], extra: stage.configuration)
        #expect(all.output.contains("one.yaml: valid, policy one, 2 schedules\n"))
        #expect(all.output.contains("two.yaml: valid, policy two, 2 schedules, paused\n") && all.errors == "")
        try stage.workspace.expect(0, ["policy", "validate", "two"], extra: stage.configuration)
        let json =
            try stage.workspace.expect(0, ["policy", "validate", "--json", "\(stage.policies)/one.yaml"]).document
            as? [String: Any]
        #expect(json?["valid"] as? Bool == true && (json?["files"] as? [[String: Any]])?.first?["name"] as? String == "one")
    }

    @Test func `validate lists every mistake as compilers do, with status 64 and no stack`() throws {
        let stage = try Stage(initialize: false)
        let path = try stage.write(spec: "  retention: {keepDayly: 7}\n  prune: {onCalendar: dayly}")
        let result = try stage.workspace.expect(64, ["policy", "validate"], extra: stage.configuration)
        let lines = result.errors.split(separator: "\n").map(String.init)
        #expect(lines.first == "\(path):16:15: unknown key 'keepDayly' in spec.retention; did you mean 'keepDaily'?")
        #expect(
            lines.dropFirst().first
                == "\(path):17:23: spec.prune.onCalendar: 'dayly' is no calendar expression; did you mean 'daily'?")
        #expect(lines.last == "bgbackup: the policy \(path) has 2 errors" && lines.count == 3 && result.output == "")
        let json =
            try stage.workspace.expect(64, ["policy", "validate", "--json"], extra: stage.configuration).document
            as? [String: Any]
        let issues = (json?["files"] as? [[String: Any]])?.first?["issues"] as? [[String: Any]]
        #expect(json?["valid"] as? Bool == false && issues?.count == 2 && issues?.first?["line"] as? Int == 16)
    }

    @Test func `at most twenty mistakes are listed`() throws {
        let stage = try Stage(initialize: false)
        try stage.write(spec: (0..<30).map { "  key\($0): 1" }.joined(separator: "\n"))
        let result = try stage.workspace.expect(64, ["policy", "validate"], extra: stage.configuration)
        #expect(result.errors.split(separator: "\n").filter { $0.contains("unknown key") }.count == 20)
        #expect(result.errors.contains("and 10 more errors"))
    }

    @Test func `what is not there, or no file, is an error of its own`() throws {
        let stage = try Stage(initialize: false)
        let none = try stage.workspace.expect(64, ["policy", "validate"], extra: stage.configuration)
        #expect(none.errors.contains("there is no policy in \(stage.policies)"))
        try stage.write("production")
        let near = try stage.workspace.expect(64, ["policy", "validate", "prodution"], extra: stage.configuration)
        #expect(near.errors.contains("there is no policy 'prodution'") && near.errors.contains("Did you mean 'production'?"))
        #expect(try stage.workspace.expect(64, ["policy", "show", "/no/such.yaml"]).errors.contains("No such file"))
        #expect(try stage.workspace.expect(64, ["policy", "show", stage.policies]).errors.contains("is no file"))
    }

    @Test func `two files of one name, and a file that others may write, are told`() throws {
        let stage = try Stage(initialize: false)
        let path = try stage.write("one")
        try FileManager.default.copyItem(atPath: path, toPath: "\(stage.policies)/other.yaml")
        let result = try stage.workspace.expect(64, ["policy", "validate"], extra: stage.configuration)
        #expect(result.errors.contains("other.yaml:3:18: \(path) has the name 'one' too"))
        chmod(path, 0o666)
        let warned = try stage.workspace.expect(0, ["policy", "validate", path])
        #expect(warned.errors.contains("warning: others may write this file; chmod o-w"))
        chmod(path, 0o644)
        chmod(stage.policies, 0o777)
        #expect(try stage.workspace.expect(0, ["policy", "validate", path]).errors.contains("others may write to its directory"))
    }

    // MARK: - show, schema, next

    @Test func `show prints each value with its origin, and no secret`() throws {
        let stage = try Stage(initialize: false)
        let path = try stage.write()
        let output = try stage.workspace.expect(0, ["policy", "show", "demo"], extra: stage.configuration).output
        #expect(output.contains(/spec\.node +node-7 +line 5\n/) && output.contains(/spec\.capture\.maxFreeze +10s +default\n/))
        #expect(output.contains(/spec\.repository\.password\.file .*line 12\n/) && !output.contains("correct horse"))
        let document = try stage.workspace.expect(0, ["policy", "show", "--json", path]).document as? [String: Any]
        let spec = (document?["policy"] as? [String: Any])?["spec"] as? [String: Any]
        #expect((spec?["capture"] as? [String: Any])?["keep"] as? Bool == true)
        #expect((document?["origins"] as? [String: String])?["spec.cluster"] == "line 6")
    }

    @Test func `the schema takes every example and finds what is wrong in a file`() throws {
        let stage = try Stage(initialize: false)
        let text = try stage.workspace.expect(0, ["policy", "schema"]).output
        let schema = try #require(try JSONSerialization.jsonObject(with: Data(text.utf8)) as? [String: Any])
        #expect(schema["$schema"] as? String == "https://json-schema.org/draft/2020-12/schema")
        #expect(Set((schema["properties"] as? [String: Any] ?? [:]).keys) == ["apiVersion", "kind", "metadata", "spec"])
        let file = stage.workspace.path("schema.json")
        try Data(text.utf8).write(to: URL(filePath: file))
        let folder = Program.root + "policies/"
        let examples = try FileManager.default.contentsOfDirectory(atPath: folder).sorted().map { folder + $0 }
        let good = try Program.tool("python3", [Program.root + "scripts/check_schema.py", file] + examples)
        if good.status == 77 { return print("SKIPPED: no validator: \(good.errors)") }
        #expect(good.status == 0 && good.output.split(separator: "\n").count == examples.count, "\(good.output)\(good.errors)")
        let bad = try stage.write(spec: "  retention: {keepDayly: 7}\n  limits: {read: 80}")
        let wrong = try Program.tool("python3", [Program.root + "scripts/check_schema.py", file, bad])
        #expect(
            wrong.status == 1 && wrong.output.contains("$.spec.retention") && wrong.output.contains("$.spec.limits.read"),
            "\(wrong.output)")
    }

    @Test(.enabled(if: Program.hasTool("systemd-analyze"), "needs systemd-analyze"))
    func `next says when each job runs, as systemd has it`() throws {
        let stage = try Stage(initialize: false)
        try stage.write(spec: "  check: {onCalendar: \"*-*-* 04:30:00 UTC\"}")
        let json =
            try stage.workspace.expect(0, ["policy", "next", "-n", "3", "--json"], extra: stage.configuration).document
            as? [[String: Any]]
        let rows = try #require(json)
        #expect(rows.map { "\($0["job"] ?? "")" } == ["backup", "backup", "check"])
        let daily = try #require(rows[1]["next"] as? [String])
        #expect(daily.count == 3 && daily.allSatisfy { $0.hasSuffix("T02:00:00Z") } && daily == daily.sorted())
        let text = try stage.workspace.expect(0, ["policy", "next", "demo", "-n", "2"], extra: stage.configuration).output
        #expect(text.split(separator: "\n").count == 7 && text.contains(/04:30:00 UTC +demo +check/))
        // Whether systemd will: one that says it has no such timer.
        let bin = stage.workspace.path("bin")
        try FileManager.default.createDirectory(atPath: bin, withIntermediateDirectories: false)
        let script = """
            #!/bin/sh
            for unit; do case $unit in *.timer) printf 'Id=%s\\nLoadState=not-found\\nActiveState=inactive\\n\\n' "$unit" ;; esac; done
            """
        try Data(script.utf8).write(to: URL(filePath: "\(bin)/systemctl"))
        chmod("\(bin)/systemctl", 0o755)
        let path = stage.configuration.merging(["PATH": "\(bin):/usr/bin:/bin"]) { $1 }
        #expect(try stage.workspace.expect(0, ["policy", "next"], extra: path).output.contains("not installed"))
    }

    @Test func `next without systemd says what is missing`() throws {
        let stage = try Stage(initialize: false)
        try stage.write()
        let result = try stage.workspace.expect(
            1, ["policy", "next"], extra: stage.configuration.merging(["PATH": stage.volume.path]) { $1 })
        #expect(result.errors.contains("systemd-analyze cannot be run"))
        // The rest of validate needs no systemd.
        try stage.workspace.expect(
            0, ["policy", "validate"], extra: stage.configuration.merging(["PATH": stage.volume.path]) { $1 })
    }

    // MARK: - backup

    @Test func `a backup under a policy needs nothing else, and the snapshot says what it was`() throws {
        let stage = try Stage()
        try stage.write()
        let made = try stage.workspace.expect(
            0, ["backup", "--policy", "demo", "--schedule", "hourly", "--json"], extra: stage.bare)
        let id = try #require(made.summary["snapshot_id"] as? String)
        let record = try #require(try stage.workspace.expect(0, ["show", id, "--json"]).document as? [String: Any])
        #expect(record["node"] as? String == "node-7" && record["cluster"] as? String == "blue")
        #expect(record["tags"] as? [String] == ["nightly", "often"] && record["keepFor"] as? Double == 172_800)
        #expect(record["volume"] as? String == stage.volume.path && record["consistency"] as? String == "fuzzy")
        let policy = try #require(record["policy"] as? [String: Any])
        #expect(policy["name"] as? String == "demo" && policy["schedule"] as? String == "hourly")
        let shown =
            try stage.workspace.expect(0, ["policy", "show", "demo", "--json"], extra: stage.configuration).document
            as? [String: Any]
        func sorted(_ value: Any?) throws -> Data {
            try JSONSerialization.data(withJSONObject: try #require(value), options: .sortedKeys)
        }
        let stored = try JSONSerialization.jsonObject(with: Data((policy["document"] as? String ?? "").utf8))
        #expect(try sorted(stored) == sorted(shown?["policy"]))
        let text = try stage.workspace.expect(0, ["show", id]).output
        #expect(text.contains(/policy +demo, schedule hourly\n/) && text.contains(/keep for +48h00m\n/))
        // Lists do without the document.
        let list = try stage.workspace.expect(0, ["snapshots", "--json"]).document as? [[String: Any]]
        #expect((list?.first?["policy"] as? [String: Any])?.keys.sorted() == ["name", "schedule"])
    }

    @Test func `nodes of a cluster that run by one schedule make one set`() throws {
        let stage = try Stage()
        let path = try stage.write()
        let text = try String(contentsOfFile: path, encoding: .utf8).replacing("onCalendar: hourly", with: "onCalendar: minutely")
        try Data(text.utf8).write(to: URL(filePath: path))
        for arguments in [["--schedule", "hourly"], ["--schedule", "hourly", "--set", "mine"], []] {
            try stage.workspace.expect(0, ["backup", "--policy", "demo"] + arguments, extra: stage.bare)
        }
        let list = try #require(try stage.workspace.expect(0, ["snapshots", "--json"]).document as? [[String: Any]])
        #expect(
            (list[0]["set"] as? String)?.wholeMatch(of: /blue@\d{4}-\d\d-\d\dT\d\d:\d\d:00Z/) != nil, "\(list[0]["set"] ?? "")")
        #expect(list[1]["set"] as? String == "mine" && list[2]["set"] == nil)
    }

    @Test func `flags win over the policy`() throws {
        let stage = try Stage()
        try stage.write()
        let other = try Volume.small(stage.workspace.path("other"))
        let made = try stage.workspace.expect(
            0, ["backup", other.path, "--policy", "demo", "--node", "node-8", "--tag", "hand", "--json"], extra: stage.bare)
        let id = try #require(made.summary["snapshot_id"] as? String)
        let record = try #require(try stage.workspace.expect(0, ["show", id, "--json"]).document as? [String: Any])
        #expect(record["node"] as? String == "node-8" && record["volume"] as? String == other.path)
        #expect(record["tags"] as? [String] == ["nightly", "hand"] && record["keepFor"] == nil)
        #expect((record["policy"] as? [String: Any])?["schedule"] == nil)
        let elsewhere = try stage.workspace.expect(
            10, ["backup", "--policy", "demo", "-r", stage.workspace.path("nowhere")], extra: stage.bare)
        #expect(elsewhere.errors.contains("nowhere"))
    }

    @Test func `a paused policy makes no backup, and that is no failure`() throws {
        let stage = try Stage(initialize: false)
        try stage.write(spec: "  paused: true")
        let result = try stage.workspace.expect(0, ["backup", "--policy", "demo"], extra: stage.bare)
        #expect(result.output == "policy demo is paused: no backup is made\n")
        #expect(!FileManager.default.fileExists(atPath: stage.workspace.repository))
        let json = try stage.workspace.expect(0, ["backup", "--policy", "demo", "--json"], extra: stage.bare)
        #expect(json.summary["paused"] as? Bool == true && json.summary["snapshot_id"] is NSNull)
    }

    @Test func `a wrong policy, an unknown schedule and a missing credential end the backup before it begins`() throws {
        let stage = try Stage()
        try stage.write()
        let unknown = try stage.workspace.expect(64, ["backup", "--policy", "demo", "--schedule", "weekly"], extra: stage.bare)
        #expect(unknown.errors.contains("has no schedule 'weekly'") && unknown.errors.contains("There are: hourly, daily."))
        try stage.workspace.expect(64, ["backup", "--schedule", "daily", stage.volume.path])
        try stage.workspace.expect(64, ["backup"])
        let path = try stage.write(spec: "  drills: {}")
        let wrong = try stage.workspace.expect(64, ["backup", "--policy", "demo", "--json"], extra: stage.bare)
        #expect(wrong.errors.contains("\(path):16:3: unknown key 'drills' in spec; did you mean 'drill'?"))
        #expect(wrong.summary["code"] as? String == "wrong-policy" && wrong.summary["exit_status"] as? Int == 64)

        let text = try String(contentsOfFile: try stage.write(), encoding: .utf8)
        let moved = text.replacing("{file: \"\(stage.workspace.passwordFile)\"}", with: "{credential: repository-password}")
        try Data(moved.utf8).write(to: URL(filePath: path))
        let missing = try stage.workspace.expect(12, ["backup", "--policy", "demo"], extra: stage.bare)
        #expect(missing.errors.contains("the credential 'repository-password' that the policy names is not there"))
        let credentials = stage.workspace.path("credentials")
        try FileManager.default.createDirectory(atPath: credentials, withIntermediateDirectories: true)
        try FileManager.default.copyItem(atPath: stage.workspace.passwordFile, toPath: "\(credentials)/repository-password")
        try stage.workspace.expect(
            0, ["backup", "--policy", "demo"], extra: stage.bare.merging(["CREDENTIALS_DIRECTORY": credentials]) { $1 })
    }

    @Test func `the laptop demo runs as its first lines say`() throws {
        let stage = try Stage(initialize: false)
        let text = try String(contentsOfFile: Program.root + "policies/laptop-demo.yaml", encoding: .utf8)
        let path = stage.workspace.path("laptop-demo.yaml")
        let folder = stage.workspace.path("demo")
        try Data(text.replacing("/tmp/bgbackup-demo", with: folder).utf8).write(to: URL(filePath: path))
        _ = try Volume.small("\(folder)/storage")
        try Program.tool("sh", ["-c", "umask 077 && head -c 24 /dev/urandom | base64 > \"$0\"/password", folder])
        let bare = ["BGBACKUP_REPOSITORY": "", "BGBACKUP_PASSWORD_FILE": ""]
        try stage.workspace.expect(
            0, ["init", "-r", "\(folder)/repository", "--password-file", "\(folder)/password"], extra: bare)
        let made = try stage.workspace.expect(0, ["backup", "--policy", path, "--schedule", "hourly", "--json"], extra: bare)
        #expect(made.summary["files_new"] as? Int == 3)
        let forget = try stage.workspace.expect(0, ["forget", "--policy", path, "--dry-run"], extra: bare)
        #expect(forget.output.contains("would forget 0 of 1 snapshots"))
    }
}
