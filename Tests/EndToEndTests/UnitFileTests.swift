import BackupBase
import Foundation
import TestSupport
import Testing

@testable import bgbackup

/// What a policy becomes for systemd, judged by systemd.
@Suite("Units of policies")
struct UnitFileTests {
    private static let hasSystemd = Program.hasTool("systemd-analyze") && Program.hasTool("systemd-escape")

    private func units(_ policy: String = "qdrant-prod") -> PolicyUnits {
        PolicyUnits(
            policy: policy,
            jobs: [
                ScheduledJob(
                    template: .backup, schedule: "hourly",
                    arguments: ["backup", "--policy", policy, "--schedule", "hourly"], onCalendar: ["*-*-* *:05:00"]),
                ScheduledJob(
                    template: .backup, schedule: "daily",
                    arguments: ["backup", "--policy", policy, "--schedule", "daily"],
                    onCalendar: ["*-*-* 02:00:00 UTC", "Sat 14:00"], randomizedDelay: 300),
                ScheduledJob(template: .check, arguments: ["check", "--policy", policy], onCalendar: ["weekly"]),
                ScheduledJob(
                    template: .drill, arguments: ["drill", "--policy", policy], onCalendar: ["Sun *-*-* 04:00:00 Europe/Berlin"]),
            ])
    }

    private func file(_ files: [UnitFile], _ path: String) throws -> String {
        try #require(files.first { $0.path == path }, "no \(path) in \(files.map(\.path))").text
    }

    @Test(.enabled(if: hasSystemd, "needs systemd-escape"))
    func `names are escaped as systemd-escape does it`() throws {
        var names = [
            "qdrant", "qdrant-prod", "/var/lib/qdrant", ".hidden", "a.b", "a:b", "a b", "50%", "a\\b", "ä€😀", "x@y", "_", "-",
            "~",
        ]
        names += (1...126).filter { $0 != 10 }.map { "a" + String(UnicodeScalar(UInt8($0))) + "b" }
        let real = try Program.tool("systemd-escape", ["--"] + names)
        #expect(real.status == 0, "\(real.errors)")
        let expected = real.output.trimmingCharacters(in: .newlines).split(separator: " ").map(String.init)
        #expect(expected.count == names.count)
        for (name, expected) in zip(names, expected) { #expect(UnitName.escaped(name) == expected, "\(name)") }
    }

    @Test func `instances can be typed, and two names are never one`() throws {
        #expect(try UnitName.instance("qdrant-prod", nil) == "qdrant-prod")
        #expect(try UnitName.instance("qdrant-prod", "hourly") == "qdrant-prod:hourly")
        #expect(try UnitName.instance("my policy", "a:b") == "my\\x20policy:a\\x3ab")
        let names = ["a", "a-b", "a b", "a\\x20b", "a:b", "b", ".a", "x2ea", "ä", "a.b", "a_b", "a%b", "a@b"]
        let instances = try names.flatMap { policy in try ([nil] + names).map { try UnitName.instance(policy, $0) } }
        #expect(Set(instances).count == instances.count)
        for name in ["", "a/b", "a\nb", "\u{7f}"] {
            #expect(throws: BackupError.self) { try UnitName.instance(name, nil) }
            #expect(throws: BackupError.self) { try UnitName.instance("a", name) }
        }
        #expect(throws: BackupError.self) { try UnitName.unit("t", String(repeating: "x", count: 250), "timer") }
    }

    @Test func `a policy becomes what its templates do not say`() throws {
        let files = try units().files()
        #expect(
            files.map(\.path) == [
                "bgbackup-backup@qdrant-prod:daily.service.d/50-policy.conf",
                "bgbackup-backup@qdrant-prod:daily.timer.d/50-policy.conf",
                "bgbackup-backup@qdrant-prod:hourly.service.d/50-policy.conf",
                "bgbackup-backup@qdrant-prod:hourly.timer.d/50-policy.conf",
                "bgbackup-check@qdrant-prod.timer.d/50-policy.conf", "bgbackup-drill@qdrant-prod.timer.d/50-policy.conf",
            ])
        #expect(
            try file(files, "bgbackup-backup@qdrant-prod:daily.timer.d/50-policy.conf") == """
                # Made by bgbackup policy install from policy 'qdrant-prod'. Changes here are lost.
                [Timer]
                OnCalendar=
                OnCalendar=*-*-* 02:00:00 UTC
                OnCalendar=Sat 14:00
                RandomizedDelaySec=300

                """)
        #expect(
            try file(files, "bgbackup-backup@qdrant-prod:hourly.service.d/50-policy.conf") == """
                # Made by bgbackup policy install from policy 'qdrant-prod'. Changes here are lost.
                [Service]
                ExecStart=
                ExecStart=/usr/bin/bgbackup backup --policy qdrant-prod --schedule hourly

                """)
        #expect(try units().timers.last == "bgbackup-drill@qdrant-prod.timer")
        #expect(try units().files() == files)
    }

    @Test func `places, devices and credentials are let in, and those that are known are not named again`() throws {
        var units = units()
        units.jobs.removeLast(3)
        units.writablePaths = ["/data/q drant", "/var/lib/qdrant/storage", "/home/me/backup", "/srv/bgbackup", "/data/100%"]
        units.credentials = ["bgbackup.password", "hc.url"]
        units.devices = ["/dev/vg/qdrant"]
        let text = try file(try units.files(), "bgbackup-backup@qdrant-prod:hourly.service.d/50-policy.conf")
        #expect(
            text.split(separator: "\n").dropFirst(4).map(String.init) == [
                "LoadCredentialEncrypted=hc.url", #"ReadWritePaths=-/data/100%% "-/data/q drant" -/home/me/backup"#,
                "ProtectHome=no",
                "PrivateDevices=no", "DeviceAllow=/dev/vg/qdrant r",
            ])
        for path in ["relative", "/a/../etc", "/a\nb"] {
            units.writablePaths = [path]
            #expect(throws: BackupError.self, "\(path)") { try units.files() }
        }
        units.writablePaths = []
        units.devices = ["/dev/a b"]
        #expect(throws: BackupError.self) { try units.files() }
        units.devices = []
        for name in ["a/b", "a:b", "", "a\nb", "..", "%i"] {
            units.credentials = [name]
            #expect(throws: BackupError.self, "\(name)") { try units.files() }
        }
    }

    @Test func `two schedules of one name, none and a calendar that would be another line are refused`() throws {
        for change: (inout PolicyUnits) -> Void in [
            { $0.jobs[1].schedule = "hourly" }, { $0.jobs[0].onCalendar = [] }, { $0.jobs[0].onCalendar = [""] },
            { $0.jobs[0].onCalendar = ["daily\nExecStart=/bin/sh"] }, { $0.policy = "a/b" },
        ] {
            var units = units()
            change(&units)
            #expect(throws: BackupError.self) { try units.files() }
        }
    }

    /// The package's units with these drop-ins, in a directory of their own; what systemd says of them.
    private func verify(_ units: PolicyUnits) throws -> String {
        let folder = try TemporaryDirectory("units")
        try Program.run(
            "/bin/sh",
            ["-c", "cp '\(Program.root)systemd'/*.service '\(Program.root)systemd'/*.timer '\(Program.root)systemd'/*.slice ."],
            directory: folder.path)
        try Program.run(
            "/bin/sh", ["-c", "sed -Ei 's,/usr/(bin|lib/bgbackup)/[a-z]+,/bin/true,' *.service"], directory: folder.path)
        var names: [String] = []
        for file in try units.files() {
            // To 'verify' a colon in a file's name is the beginning of an alias.
            let parts = file.path.replacing(":", with: "_").split(separator: "/").map(String.init)
            let name = String(parts[0].dropLast(2))
            let template = name.replacing(/@.*\./, with: "@.")
            try FileManager.default.createDirectory(atPath: folder(parts[0]), withIntermediateDirectories: true)
            try Data(file.text.utf8).write(to: URL(filePath: folder("\(parts[0])/\(parts[1])")))
            // What is verified is a file: an instance that is one.
            try? FileManager.default.copyItem(atPath: folder(template), toPath: folder(name))
            names.append(folder(name))
        }
        let result = try Program.tool(
            "systemd-analyze", ["verify", "--man=no", "--recursive-errors=no"] + Set(names).sorted(),
            environment: ["SYSTEMD_LOG_LEVEL": "warning"])
        return result.status == 0 ? result.errors : "status \(result.status): \(result.errors)"
    }

    @Test(.enabled(if: hasSystemd, "needs systemd-analyze"))
    func `systemd takes every line, and finds the program by the words that were meant`() throws {
        let folder = try TemporaryDirectory("program")
        for name in ["bgbackup", "we ird", "50%n", "$HOME", "semi;colon", "größe"] {
            try Program.tool("cp", ["/bin/true", folder(name)])
            var units = units(name.hasPrefix("5") ? "fifty%" : "qdrant-prod")
            units.program = folder(name)
            units.writablePaths = ["/data/\(name)", "/data/a\"b", "/data/back\\slash", "/data/a'b"]
            units.credentials = ["hc.url"]
            #expect(try verify(units) == "", "\(name)")
        }
        var wrong = units()
        wrong.program = folder("missing")
        #expect(try verify(wrong).contains("missing"), "the test cannot fail")
    }

    @Test(.enabled(if: hasSystemd, "needs systemd-analyze"))
    func `calendars are those of systemd`() throws {
        for job in units().jobs {
            for calendar in job.onCalendar {
                let result = try Program.tool("systemd-analyze", ["calendar", calendar])
                #expect(result.status == 0, "\(calendar): \(result.errors)")
            }
        }
        var wrong = units()
        wrong.jobs[0].onCalendar = ["hourlyy"]
        #expect(try verify(wrong).contains("hourlyy"))
    }

    @Test func `installing again changes nothing, and what is no longer wanted goes`() throws {
        let folder = try TemporaryDirectory("installed")
        let directory = UnitDirectory(path: folder.path)
        try directory.apply(try directory.plan(units()))
        #expect(try directory.plan(units()) == UnitDirectory.Plan())
        // Another policy whose name begins the same, and the administrator's own.
        try directory.apply(try directory.plan(units("qdrant-prod2")))
        let own = "bgbackup-backup@qdrant-prod:daily.timer.d/60-mine.conf"
        try Data("[Timer]\nPersistent=no\n".utf8).write(to: URL(filePath: folder(own)))
        var fewer = units()
        fewer.jobs.remove(at: 1)
        let plan = try directory.plan(fewer)
        #expect(plan.written.isEmpty)
        #expect(
            plan.removed == [
                "bgbackup-backup@qdrant-prod:daily.service.d/50-policy.conf",
                "bgbackup-backup@qdrant-prod:daily.timer.d/50-policy.conf",
            ])
        try directory.apply(plan)
        #expect(FileManager.default.fileExists(atPath: folder(own)))
        #expect(!FileManager.default.fileExists(atPath: folder("bgbackup-backup@qdrant-prod:daily.service.d")))
        #expect(try directory.plan(units("qdrant-prod2")) == UnitDirectory.Plan(), "the other policy was touched")
    }

    @Test func `a file that somebody else wrote is not replaced`() throws {
        let folder = try TemporaryDirectory("installed")
        let directory = UnitDirectory(path: folder.path)
        let path = "bgbackup-check@qdrant-prod.timer.d/50-policy.conf"
        try FileManager.default.createDirectory(
            atPath: folder("bgbackup-check@qdrant-prod.timer.d"), withIntermediateDirectories: true)
        try Data("[Timer]\nOnCalendar=daily\n".utf8).write(to: URL(filePath: folder(path)))
        let plan = try directory.plan(units())
        #expect(plan.foreign == [path] && !plan.written.contains { $0.path == path })
        var none = units()
        none.jobs = []
        #expect(try directory.plan(none).removed.isEmpty)
    }
}
