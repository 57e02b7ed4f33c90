import Foundation
import TestSupport
import Testing

/// A policy with a repository of its own, and its file.
private struct JobStage {
    let workspace: Workspace
    let volume: Volume
    var configuration: String { workspace.path("config") }
    var file: String { "\(configuration)/policies/demo.yaml" }
    /// Everything comes from the policy.
    var extra: [String: String] {
        ["BGBACKUP_CONFIG": configuration, "BGBACKUP_REPOSITORY": "", "BGBACKUP_PASSWORD_FILE": ""]
    }

    init() throws {
        workspace = try Workspace("jobs", kind: nil)
        volume = try Volume.small(workspace.path("volume"))
        try FileManager.default.createDirectory(atPath: "\(configuration)/policies", withIntermediateDirectories: true)
        try write()
    }

    static let jobs = """
          prune: {onCalendar: "*-*-* 03:30:00", grace: 24h}
          check: {onCalendar: weekly, readData: 100%}
        """

    func write(_ spec: String = JobStage.jobs, schedules: String? = nil) throws {
        let text = """
            apiVersion: bgbackup.io/v1
            kind: BackupPolicy
            metadata: {name: demo}
            spec:
              node: node-7
              source: {path: "\(volume.path)"}
              capture: {method: none, acceptFuzzy: true}
              repository:
                url: "\(workspace.repository)"
                password: {file: "\(workspace.passwordFile)"}
              schedules:
            \(schedules ?? "    - {name: hourly, onCalendar: hourly}\n    - {name: nightly, onCalendar: \"*-*-* 02:00:00\"}")
              retention: {keepLast: 2, maxDeleteRatio: 1}
            \(spec)

            """
        try Data(text.utf8).write(to: URL(filePath: file))
    }

    @discardableResult
    func expect(_ status: Int32, _ arguments: [String]) throws -> Program.Result {
        try workspace.expect(status, arguments, extra: extra)
    }

    func backup(_ content: String, byHand: Bool = false) throws {
        try volume.write("collections/c/config.json", content)
        try volume.write("collections/c/0/segments/s/matrix.dat", noise(300_000, seed: UInt64(content.utf8.count)))
        if byHand {
            try workspace.expect(0, ["backup", volume.path, "--node", "node-7", "--capture", "none"])
        } else {
            try expect(0, ["backup", "--policy", "demo", "--schedule", "hourly"])
        }
    }

    var listed: Int { get throws { try workspace.expect(0, ["snapshots"]).output.split(separator: "\n").count - 1 } }
}

@Suite("Jobs of a policy") struct PolicyJobsTests {
    @Test func `prune forgets what the policy keeps no longer, and nothing that was made by hand`() throws {
        let stage = try JobStage()
        for content in ["1", "22", "333"] { try stage.backup(content) }
        try stage.backup("4444", byHand: true)
        try stage.backup("55555")
        let dry = try stage.expect(0, ["prune", "--policy", "demo", "-n"])
        #expect(dry.output.contains("not made under policy demo") && dry.output.contains("would forget 2 of 5 snapshots"))
        #expect(try stage.listed == 5)
        let refused = try stage.expect(1, ["forget", "--policy", "demo", "--max-delete-ratio", "0.1"])
        #expect(refused.errors.contains("2 of 4 snapshots") && refused.errors.contains("--policy demo --force"))
        let done = try stage.expect(0, ["prune", "--policy", "demo", "--grace", "0"])
        #expect(done.output.contains("forgot 2 of 5 snapshots") && done.output.contains("freed"))
        #expect(try stage.listed == 3)
        // The one made by hand does not fill the policy's two.
        for content in ["a", "bb"] { try stage.backup(content, byHand: true) }
        #expect(try stage.expect(0, ["forget", "--policy", "demo", "-n"]).output.contains("would forget 0 of 5"))
        let again = try stage.expect(0, ["forget", "--policy", "demo"])
        #expect(again.output.contains("forgot 0 of 5 snapshots"))
        try stage.workspace.expect(0, ["check", "--read-data"])
    }

    @Test func `check, drill and copy take from the policy what they need`() throws {
        let stage = try JobStage()
        let copy = stage.workspace.path("copy")
        try stage.write(
            JobStage.jobs + """

                  drill: {onCalendar: weekly, snapshot: oldest, target: "\(stage.workspace.path("scratch"))", objectives: {rpo: 1d}}
                  copies:
                    - {name: second, url: "\(copy)", onCalendar: daily}
                """)
        for content in ["1", "22"] { try stage.backup(content) }
        let check = try stage.expect(0, ["check", "--policy", "demo", "--json"]).summary
        #expect(check["frames_read"] as? Int ?? 0 > 0)
        #expect(
            try stage.expect(0, ["check", "--policy", "demo", "--read-data=1%", "--json"]).summary["damaged"] as? Bool == false)
        // The volume is none that Qdrant would start on.
        let drill = try stage.expect(16, ["drill", "--policy", "demo", "--no-boot", "--json"]).summary
        let node = (drill["nodes"] as? [[String: Any]])?.first
        let oldest = try (stage.workspace.expect(0, ["snapshots", "--json"]).document as? [[String: Any]])?.first?["id"]
        #expect(node?["snapshot_id"] as? String == oldest as? String)
        #expect("\(drill["checks"] ?? "")\(node ?? [:])".contains("recovery point"))
        try stage.expect(0, ["copy", "--policy", "demo", "--schedule", "second"])
        let copied = try stage.workspace.expect(0, ["snapshots", "-r", copy])
        #expect(copied.output.split(separator: "\n").count == 3)
        #expect(try stage.expect(64, ["copy", "--policy", "demo", "--schedule", "third"]).errors.contains("There are: second."))
        try stage.expect(64, ["copy", "--policy", "demo", "--to", copy])
        try stage.expect(64, ["forget", "--policy", "demo", "--keep-last", "1"])
    }

    @Test func `of a paused policy nothing is done`() throws {
        let stage = try JobStage()
        for content in ["1", "22", "333"] { try stage.backup(content) }
        try stage.write(JobStage.jobs + "\n  paused: true\n  drill: {onCalendar: weekly}")
        for command in ["prune", "forget", "check", "drill"] {
            #expect(try stage.expect(0, [command, "--policy", "demo"]).output.contains("paused"), "\(command)")
        }
        #expect(try stage.listed == 3)
    }
}

@Suite("A policy's units") struct PolicyInstallTests {
    private func files(_ directory: String) throws -> [String] {
        try Program.tool("sh", ["-c", "cd \"$0\" && find . -type f | LC_ALL=C sort", directory]).output.split(separator: "\n")
            .map { String($0.dropFirst(2)) }
    }

    @Test(.enabled(if: Program.hasTool("systemd-analyze"), "needs systemd"))
    func `install writes a drop-in for each schedule, and takes away those of schedules that are gone`() throws {
        let stage = try JobStage()
        let units = stage.workspace.path("units")
        try FileManager.default.createDirectory(atPath: units, withIntermediateDirectories: true)
        let install = ["policy", "install", "demo", "--files-only", "--directory", units]
        let dry = try stage.expect(0, install + ["-n"])
        #expect(
            dry.output.contains("would enable  bgbackup-backup@demo:hourly.timer") && dry.output.contains("OnCalendar=hourly"))
        #expect(try files(units) == [])
        try stage.expect(0, install)
        let timers = try files(units).filter { $0.contains(".timer.d/") }
        #expect(
            timers == [
                "bgbackup-backup@demo:hourly.timer.d/50-policy.conf", "bgbackup-backup@demo:nightly.timer.d/50-policy.conf",
                "bgbackup-check@demo.timer.d/50-policy.conf", "bgbackup-prune@demo.timer.d/50-policy.conf",
            ])
        let service = try String(contentsOfFile: "\(units)/bgbackup-backup@demo:hourly.service.d/50-policy.conf", encoding: .utf8)
        #expect(
            service.contains("backup --policy \(stage.file) --schedule hourly") && service.contains(stage.workspace.repository))
        #expect(try stage.expect(0, install).output.contains("as the policies say"))

        try stage.write(schedules: "    - {name: hourly, onCalendar: \"*:05\"}")
        let changed = try stage.expect(0, install)
        #expect(changed.output.contains("disable bgbackup-backup@demo:nightly.timer"))
        #expect(try !files(units).contains { $0.contains("nightly") })
        // Jobs of other kinds stay as they are.
        let before = try files(units)
        try stage.expect(0, install + ["--only", "backup"])
        #expect(try files(units) == before && before.contains { $0.contains("prune") })
        try Program.tool("sh", ["-c", "rm -r \"$0\"/bgbackup-check@*", units])

        // What somebody else wrote stays.
        let foreign = "\(units)/bgbackup-check@demo.timer.d"
        try FileManager.default.createDirectory(atPath: foreign, withIntermediateDirectories: true)
        try Data("[Timer]\n".utf8).write(to: URL(filePath: "\(foreign)/50-policy.conf"))
        #expect(try stage.expect(1, install).errors.contains("was not written by bgbackup"))
        try stage.expect(0, ["policy", "uninstall", "demo", "--files-only", "--directory", units])
        #expect(try files(units) == ["bgbackup-check@demo.timer.d/50-policy.conf"])
        let unknown = try stage.expect(64, ["policy", "uninstall", "demi", "--files-only", "--directory", units])
        #expect(unknown.errors.contains("nothing is installed of a policy 'demi'") && unknown.errors.contains("HINT: "))
        try stage.write(schedules: "    - {name: hourly, onCalendar: hurly}")
        try stage.expect(64, install)
    }
}
