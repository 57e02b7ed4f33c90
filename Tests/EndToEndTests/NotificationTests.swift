import Foundation
import Operations
import TestSupport
import Testing

@Suite("Notifications") struct NotificationTests {
    private func seconds<Value>(_ body: () throws -> Value) rethrows -> (Value, Double) {
        let start = Date()
        return (try body(), Date().timeIntervalSince(start))
    }

    @Test func `a check is told of start and end, webhooks of what they listen to`() throws {
        let stage = try WatchStage()
        let (check, hook) = (try HookServer(), try HookServer())
        try stage.write(check: check.url, hook: hook.url, on: "[failure, recovered, drillFailed]")
        try stage.backup()
        #expect(check.requests.map { $0.path.prefix { $0 != "?" } } == ["/CANARY-path/start", "/CANARY-path/0"])
        let runs = Set(check.requests.map { $0.path.split(separator: "=").last })
        #expect(runs.count == 1 && hook.requests.isEmpty)
        #expect(check.requests.last?.body.hasPrefix("backup demo: success") == true)

        try FileManager.default.moveItem(atPath: stage.workspace.passwordFile, toPath: stage.workspace.path("aside"))
        let failed = try stage.backup(12)
        try FileManager.default.moveItem(atPath: stage.workspace.path("aside"), toPath: stage.workspace.passwordFile)
        #expect(check.requests.last?.path.hasPrefix("/CANARY-path/12?rid=") == true)
        try stage.backup()
        try stage.backup()
        try stage.expect(16, ["drill", "--policy", "demo", "--no-boot"])
        let told = hook.requests.map(\.json)
        #expect(told.map { $0["event"] as? String } == ["failure", "recovered", "drillFailed"])
        #expect(told[0]["error_code"] as? String == "no-password" && told[0]["exit_status"] as? Int == 12)
        #expect(told[0]["text"] as? String == "bgbackup: backup hourly of demo on node-7: failed, no-password (exit status 12)")
        #expect((told[1]["figures"] as? [String: Any])?["snapshot"] is String)
        // No words of errors unasked, and no secret anywhere.
        #expect(told.allSatisfy { $0["error_message"] == nil } && !hook.requests[0].body.contains(stage.workspace.passwordFile))
        #expect(hook.requests.allSatisfy { $0.agent.hasPrefix("bgbackup ") })
        let everything = (hook.requests + check.requests).map(\.body).joined() + failed.errors + failed.output
        #expect(!everything.contains("CANARY"))
    }

    @Test func `words of errors go out where the policy says so`() throws {
        let stage = try WatchStage()
        let (check, hook) = (try HookServer(), try HookServer())
        try stage.write(check: check.url, hook: hook.url, logs: true)
        try FileManager.default.removeItem(atPath: stage.workspace.passwordFile)
        try stage.backup(12)
        #expect((hook.requests.last?.json["error_message"] as? String)?.contains(stage.workspace.passwordFile) == true)
        #expect(check.requests.last?.body.contains(stage.workspace.passwordFile) == true)
    }

    @Test func `what nobody heard is told once more`() throws {
        let stage = try WatchStage()
        let (deaf, hook) = (try HookServer(.fail), try HookServer())
        try stage.systemd(load: "loaded", active: "inactive")
        try stage.write(hook: deaf.url, on: "[failure]")
        try stage.expect(0, ["check", "--policy", "demo"])
        #expect(deaf.requests.count == 1)
        try stage.write(hook: hook.url, on: "[failure]")
        for _ in 0..<2 { try stage.expect(0, ["check", "--policy", "demo"]) }
        #expect(hook.requests.count == 1 && hook.requests.first?.body.contains("timer-missing") == true)
    }

    /// glibc asks a name server that is not there for minutes, and nothing can stop it.
    @Test(.enabled(if: Requirement.root, "needs a mount namespace"))
    func `a resolver that hangs ends nothing late`() throws {
        let stage = try WatchStage()
        try stage.write(hook: "http://no.such.host.invalid/CANARY")
        let resolver = stage.workspace.path("resolv.conf")
        try Data("nameserver 192.0.2.1\noptions timeout:30 attempts:4\n".utf8).write(to: URL(filePath: resolver))
        let command = """
            mount --bind '\(resolver)' /etc/resolv.conf && exec '\(Program.binary)' backup --policy demo --schedule hourly
            """
        let (result, time) = try seconds {
            try Program.run(
                "/usr/bin/unshare",
                [
                    "--mount", "--net", "--propagation", "private", "sh", "-c",
                    "ip link set lo up; ip route add default dev lo; \(command)",
                ],
                environment: stage.workspace.environment.merging(stage.extra) { $1 })
        }
        #expect(result.status == 0 && result.errors.contains("webhook 1 is not told"), "\(result.errors)")
        #expect(time < 25, "\(time)")
    }

    @Test(arguments: [HookServer.Manner.fail, .redirect, .hang])
    func `a server that is ill fails no backup and delays it little`(_ manner: HookServer.Manner) throws {
        let stage = try WatchStage()
        let server = try HookServer(manner)
        try stage.write(check: server.url, hook: server.url)
        let (result, time) = try seconds { try stage.backup() }
        let words = [HookServer.Manner.fail: "answers 500", .redirect: "answers 302", .hang: "gives no answer within"]
        #expect(result.errors.contains("webhook 1 is not told: 127.0.0.1:\(server.port) \(words[manner]!)"), "\(result.errors)")
        #expect(result.errors.contains("healthchecks is not told") && !result.errors.contains("CANARY"))
        #expect(!server.requests.contains { $0.path == "/elsewhere" }, "a redirect was followed")
        // Beside what a debug build takes.
        #expect(time < (manner == .hang ? 45 : 30))
        #expect(result.output.contains("snapshot"))
    }

    @Test(arguments: [
        "http://127.0.0.1:1/CANARY", "ftp://CANARY", "CANARY", "http://CANARY-user:x@/", "http://no.such.host.invalid/CANARY",
    ])
    func `an address where nobody is fails no backup`(_ url: String) throws {
        let stage = try WatchStage()
        try stage.write(hook: url)
        let result = try stage.backup()
        #expect(result.errors.contains("webhook 1 is not told") && !result.errors.contains("CANARY"), "\(result.errors)")
    }

    @Test func `the journal gets one event for the start and one for the end, with fields`() throws {
        let stage = try WatchStage()
        try stage.write()
        let journal = try NotifySocket(in: stage.workspace.directory)
        let file = stage.workspace.path("stderr")
        var environment = stage.workspace.environment.merging(stage.extra) { $1 }
        environment["BGBACKUP_JOURNAL_SOCKET"] = journal.name
        let command =
            "exec 2>'\(file)'; export JOURNAL_STREAM=$(stat -Lc %d:%i '\(file)'); exec '\(Program.binary)' backup --policy demo"
        #expect(try Program.run("/bin/sh", ["-c", command], environment: environment).status == 0)
        usleep(200_000)
        let events = journal.messages.map { Set($0.lines) }
        try #require(events.count == 2)
        let run = try #require(stage.workspace.runs.first)
        for event in events {
            #expect(
                event.isSuperset(of: ["BGBACKUP_POLICY=demo", "BGBACKUP_JOB=backup", "BGBACKUP_RUN_ID=\(run.id)", "PRIORITY=6"]))
            #expect(event.contains { $0.hasPrefix("MESSAGE_ID=") } && event.contains("SYSLOG_IDENTIFIER=bgbackup"))
        }
        #expect(events[0].contains("MESSAGE=backup of demo begins"))
        #expect(
            events[1].contains("BGBACKUP_SNAPSHOT=\(run.figures.snapshot ?? "")")
                && events[1].contains("BGBACKUP_OUTCOME=success"))
        #expect(try !String(contentsOfFile: file, encoding: .utf8).contains("backup of demo"), "said twice")
        // Without a journal: the line with its priority.
        environment["BGBACKUP_JOURNAL_SOCKET"] = "/nowhere"
        #expect(try Program.run("/bin/sh", ["-c", command], environment: environment).status == 0)
        #expect(try String(contentsOfFile: file, encoding: .utf8).contains("<6>bgbackup: backup of demo: success"))
    }
}
