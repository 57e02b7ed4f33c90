import Foundation
import Operations
import TestSupport
import Testing

@Suite("Status") struct StatusTests {
    /// What goes wrong, and the code by which everything tells it.
    enum Fault: String, CaseIterable {
        case timer = "timer-missing", keys = "store-denied", unreachable = "store-unreachable", full = "store-full"
    }

    @Test(arguments: Fault.allCases)
    func `what is wrong shows in status, metrics, notification and exit status alike`(_ fault: Fault) throws {
        let stage = try WatchStage()
        let hook = try HookServer()
        func run() throws {
            switch fault {
            case .timer:
                try stage.write(hook: hook.url, on: "[failure, recovered]")
                try stage.systemd(load: "loaded", active: "active")
                try stage.backup()
                #expect(try stage.status().status == 0 && hook.requests.isEmpty)
                try stage.systemd(load: "loaded", active: "inactive")
                // The run itself is well, and tells of the timers.
                try stage.expect(0, ["check", "--policy", "demo"])
                #expect(
                    try stage.sample(
                        "bgbackup_timer_active{policy=\"demo\",repository=\"\(stage.workspace.repository)\",job_name=\"backup\"")
                        == 0)
            case .keys:
                try OddServer.with(.expired) { port in
                    try stage.write(endpoint: "http://127.0.0.1:\(port)", hook: hook.url)
                    try stage.backup(1)
                    try expectStatus()
                }
            case .full:
                try OddServer.with(.full) { port in
                    try stage.write(endpoint: "http://127.0.0.1:\(port)", hook: hook.url)
                    try stage.backup(1)
                    try expectStatus()
                }
            case .unreachable:
                try stage.write(endpoint: "http://127.0.0.1:1", hook: hook.url)
                try stage.backup(1)
            }
        }
        func expectStatus() throws {
            for more in [[], ["--offline"]] {
                let result = try stage.workspace.run(["status"] + more, extra: stage.extra)
                #expect(result.status == 1 && result.output.contains("✗ \(fault.rawValue): "), "\(result.output)\(result.errors)")
            }
            #expect(try stage.status("--offline").codes.contains(fault.rawValue))
        }
        try run()
        try expectStatus()
        #expect(
            try stage.samples.contains {
                $0.hasPrefix("bgbackup_problem{policy=\"demo\"") && $0.contains("code=\"\(fault.rawValue)\"")
            })
        let told = try #require(hook.requests.last)
        #expect(told.json["event"] as? String == "failure" && told.body.contains("\"\(fault.rawValue)\""), "\(told.body)")
        #expect(!told.body.contains("CANARY"))
        // And when it is over, that is told too.
        guard fault == .timer else { return }
        try stage.expect(0, ["check", "--policy", "demo"])
        #expect(hook.requests.count == 1, "told once, not at each run")
        try stage.systemd(load: "loaded", active: "active")
        try stage.expect(0, ["check", "--policy", "demo"])
        #expect(hook.requests.last?.json["event"] as? String == "recovered" && hook.requests.count == 2)
        #expect(try stage.status().status == 0)
    }

    @Test func `that damage stands is told by a lesser check that is well, and nothing recovers`() throws {
        let (stage, hook) = (try WatchStage(), try HookServer())
        try stage.write(hook: hook.url, on: "[success, failure, recovered, damage]")
        try stage.systemd(load: "loaded", active: "active")
        try stage.backup()
        let store = stage.workspace.store
        let packs = try store.names("v1/packs/").map { (name: $0, size: try store.read($0).count) }
        try store.flip(#require(packs.max { $0.size < $1.size }).name)
        try stage.expect(17, ["check", "--policy", "demo"])
        try stage.systemd(load: "loaded", active: "inactive")
        try stage.backup()
        // Without data; the timers are there again.
        let file = URL(filePath: stage.workspace.path("config/policies/demo.yaml"))
        try Data(String(contentsOf: file, encoding: .utf8).replacing(", readData: 100%", with: "").utf8).write(to: file)
        try stage.systemd(load: "loaded", active: "active")
        try stage.expect(0, ["check", "--policy", "demo"])
        let told = hook.requests.compactMap { $0.json["event"] as? String }
        #expect(told.last == "damage" && told.filter { $0 == "damage" }.count == 2 && !told.contains("recovered"), "\(told)")
        #expect(try stage.status().codes == ["damaged"])
    }

    @Test func `lights, from never to ok, held by hand and by age`() throws {
        let stage = try WatchStage()
        try stage.write()
        let never = try stage.status()
        #expect(never.status == 1 && never.lights == ["never"] && never.codes == ["never-ran"])
        try stage.backup()
        let well = try stage.status()
        #expect(well.status == 0 && well.lights == ["ok"], "\(well.text)")
        #expect(well.policies.first?["snapshots"] as? Int == 1 && well.text.contains("all is well"))
        #expect(well.text.split(separator: "\n").allSatisfy { $0.count <= 80 }, "\(well.text)")
        #expect((well.policies.first?["days"] as? [Any])?.count == 30)

        // Two hours later, by the clock of the node.
        if Program.hasTool("faketime") {
            let late = try Program.tool(
                "faketime", ["-f", "+2h", Program.binary, "status", "--offline"],
                environment: stage.workspace.environment.merging(stage.extra) { $1 })
            #expect(
                late.status == 1 && late.output.contains("▲") && late.output.contains("overdue: "), "\(late.output)\(late.errors)"
            )
        }
        try stage.write(spec: "  paused: true")
        let paused = try stage.status()
        #expect(paused.status == 0 && paused.lights == ["paused"])
        try Data("nonsense: [".utf8).write(to: URL(filePath: stage.workspace.path("config/policies/bad.yaml")))
        #expect(try stage.status().codes == ["wrong-policy"] && stage.status().status == 1)
        try stage.expect(64, ["status", "no-such"])
    }

    @Test func `a run that was killed, a record that is damaged and a password that is gone show`() throws {
        let stage = try WatchStage()
        try stage.write()
        try stage.backup()
        let run = try #require(stage.workspace.runs.first)
        let file = stage.workspace.path("state/runs/\(run.id)")
        var text = try String(contentsOfFile: file, encoding: .utf8)
        text = text.replacing(/"ended":"[^"]*",/, with: "").replacing("\"outcome\":\"success\"", with: "\"outcome\":\"running\"")
        try Data(text.utf8).write(to: URL(filePath: file))
        #expect(try stage.status().codes.contains("killed"))
        try Data("{".utf8).write(to: URL(filePath: file))
        let damaged = try stage.status()
        #expect(damaged.codes.contains("history-damaged") && damaged.status == 1)
        try FileManager.default.removeItem(atPath: file)
        try FileManager.default.removeItem(atPath: stage.workspace.passwordFile)
        #expect(try stage.status().codes.contains("no-password"))
    }

    @Test func `a disk that is not mounted, and a repository that lost its snapshots, are trouble`() throws {
        let stage = try WatchStage()
        try stage.write()
        try stage.backup()
        let away = stage.workspace.path("away")
        try FileManager.default.moveItem(atPath: stage.workspace.repository, toPath: away)
        try FileManager.default.createDirectory(atPath: stage.workspace.repository, withIntermediateDirectories: false)
        let lost = try stage.status()
        #expect(lost.status == 1 && lost.codes == ["no-repository"] && lost.text.contains("mounted"), "\(lost.text)")
        try FileManager.default.removeItem(atPath: stage.workspace.repository)
        #expect(try stage.status().codes == ["no-repository"])
        try stage.workspace.expect(0, ["init"])
        #expect(try stage.status().codes == ["no-snapshot"])
    }

    @Test func `keys that are nowhere are trouble`() throws {
        let stage = try WatchStage()
        try stage.write(repository: "s3://bucket/prefix")
        let extra = stage.extra.merging(["AWS_EC2_METADATA_DISABLED": "true", "HOME": stage.workspace.path("home")]) { $1 }
        let result = try stage.workspace.run(["status", "--json"], extra: extra)
        #expect(result.status == 1 && result.output.contains("\"store-denied\""), "\(result.output)")
    }

    @Test(.enabled(if: FuseMount.isAvailable, "needs root and FUSE"))
    func `a file system that answers nothing holds nobody up`() throws {
        let stage = try WatchStage()
        let mount = try FuseMount()
        try stage.write(repository: "\(mount.path)/repository")
        try stage.workspace.expect(1, ["status"], extra: stage.extra)
        mount.hang()
        let start = Date()
        let result = try stage.workspace.run(["status", "--json"], extra: stage.extra)
        #expect(result.status == 1 && result.output.contains("\"store-unreachable\""), "\(result.output)")
        #expect(Date().timeIntervalSince(start) < 30)
    }

    @Test func `without a policy it shows what was done by hand, and a repository`() throws {
        let workspace = try Workspace("by-hand", kind: nil)
        let volume = try Volume.small(workspace.path("volume"))
        let config = ["BGBACKUP_CONFIG": workspace.path("nothing")]
        let none = try workspace.expect(1, ["status"], extra: config)
        #expect(none.output.contains("no backup is known"))
        try workspace.expect(0, ["backup", volume.path, "--capture", "none"])
        let one = try workspace.expect(0, ["status"], extra: config)
        #expect(one.output.contains("by hand") && one.output.contains("1 snapshot"))
        // A node that knows nothing: the store tells.
        let other = config.merging(["BGBACKUP_STATE_DIR": workspace.path("other"), "BGBACKUP_PASSWORD_FILE": ""]) { $1 }
        #expect(try workspace.expect(0, ["status", "-r", workspace.repository], extra: other).output.contains("1 snapshot"))
        try workspace.expect(1, ["status", "-r", workspace.path("elsewhere")], extra: other)
    }
}
