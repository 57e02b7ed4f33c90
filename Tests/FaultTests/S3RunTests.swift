import BackupBase
import Foundation
import Glibc
import TestSupport
import Testing

/// Backups and restores over a store that fails in every way it knows; and the
/// end of a connection, or of the program, at each request.
@Suite(.enabled(if: S3Server.available.contains(.strict), "needs the strict S3 server")) struct S3RunTests {
    private static let rates = """
        {"error503": 0.05, "error500": 0.02, "resetBefore": 0.01, "resetAfter": 0.01, "shortBody": 0.02, "hang": 0.01, \
        "slowDownIn200": 0.01, "conflict409": 0.01}
        """
    private static let environment = ProcessInfo.processInfo.environment
    /// BGBACKUP_TEST_LONG=1: every request in turn, before and after its effect;
    /// otherwise every seventh, the one or the other, and of many requests fewer.
    private static let isLong = environment["BGBACKUP_TEST_LONG"] == "1"
    private static func step(_ count: Int) -> Int { isLong ? 1 : max(7, (count + 5) / 6) }

    /// BGBACKUP_FAULT_RUNS=1000 for the long run; BGBACKUP_FAULT_SEED=N for one run again.
    @Test func `Backups and restores come through seeded faults`() throws {
        let seeds =
            Self.environment["BGBACKUP_FAULT_SEED"].flatMap { Int($0) }.map { [$0] }
            ?? Array(1...(Self.environment["BGBACKUP_FAULT_RUNS"].flatMap { Int($0) } ?? 10))
        let server = try S3Server(.strict)
        let work = try Workspace.ready("faults", server: server, options: "timeout=1&retry-for=5m")
        let volume = work.path("volume")
        var failures: [String] = []
        for seed in seeds {
            // Each run by itself: what came before does not show in it.
            try Program.run("/bin/rm", ["-rf", volume, work.path("target")])
            try SmallVolume.make(volume, seed: 1)
            try SmallVolume.change(volume, seed: UInt64(seed))
            let tree = try Fixture.hash(volume)
            try server.configure("{\"seed\": \(seed), \"hangSeconds\": 2, \"rates\": \(Self.rates)}")
            let backup = try work.bgbackup("backup", volume, "--json")
            let id = backup.summary["snapshot_id"] as? String ?? "latest"
            let restore = backup.status == 0 ? try work.bgbackup("restore", id, "--target", work.path("target")) : backup
            try server.configure("{\"rates\": null}")
            let again = "BGBACKUP_FAULT_SEED=\(seed) swift test --filter 'S3RunTests.*seeded'"
            if backup.status != 0 || restore.status != 0 {
                failures.append("seed \(seed): \(backup.errors)\(restore.errors) again: \(again)")
                #expect(backup.status < 128 && restore.status < 128, "\(again)")
            } else {
                #expect(try Fixture.hash(work.path("target")) == tree, "\(again)")
            }
        }
        // 99.9 % succeed: of ten all.
        #expect(failures.count * 1000 <= seeds.count, "\(failures.joined(separator: "\n"))")
        let check = try work.bgbackup("check", "--read-data", "--json")
        #expect(check.status == 0, "\(check.output)")
        if failures.isEmpty { print("S3RunTests: \(seeds.count) of \(seeds.count) runs with faults succeeded") }
    }

    // MARK: - One moment after the other

    enum Command: String, CaseIterable, CustomTestStringConvertible {
        case backup, initialization, copy, keyRemoval
        var testDescription: String { rawValue }
    }

    /// A repository with a snapshot and a second password, as it is before each try.
    private struct Stage {
        let server: S3Server
        let work: Workspace
        let command: Command
        let volume: String
        let first: String
        let slot: String
        private let objects: String

        init(_ command: Command) throws {
            self.command = command
            server = try S3Server(.strict)
            work = try Workspace.ready("moments", server: server, options: "timeout=2&retry-for=20")
            volume = work.path("volume")
            try SmallVolume.make(volume)
            try SmallVolume.write("../second", Data("battery staple\n".utf8), in: volume)
            let added = try work.bgbackup("key", "add", "--new-password-file", work.path("second"), "--json")
            slot = try #require((added.document as? [String: Any])?["key"] as? String, "\(added.errors)")
            let backup = try work.bgbackup("backup", volume, "--json")
            first = try #require(backup.summary["snapshot_id"] as? String, "\(backup.errors)")
            try SmallVolume.change(volume)
            objects = work.path("objects")
            try work.store.download(to: objects)
            for name in ["state", "cache"] { try Program.tool("cp", ["-a", work.path(name), work.path("\(name)-before")]) }
        }

        private var place: String {
            command == .copy ? work.url.replacing("?endpoint", with: "-copy?endpoint") : work.url
        }

        /// Everything as it was; nothing at all for init.
        func reset() throws {
            try server.reset(objects: true)
            if command != .initialization { try work.store.upload(from: objects, omitting: ["tmp/"]) }
            for name in ["state", "cache"] {
                try Program.tool("rm", ["-rf", work.path(name)])
                try Program.tool("cp", ["-a", work.path("\(name)-before"), work.path(name)])
            }
        }

        var arguments: [String] {
            switch command {
            case .backup: ["backup", volume]
            case .initialization: ["init"]
            case .copy: ["copy", "--all", "--to", place]
            case .keyRemoval: ["key", "remove", slot]
            }
        }

        /// The next run, without faults, must succeed or find the work done; and all is well then.
        func expectWell(_ moment: String) throws {
            let next = try work.run(arguments)
            let done: Bool =
                switch command {
                case .backup, .copy: false
                case .initialization: next.errors.contains("already")
                case .keyRemoval: next.errors.contains("0 key slots match")
                }
            #expect(next.status == 0 || done, "\(moment): \(next.errors)")
            var judged = work
            judged.environment["BGBACKUP_REPOSITORY"] = place
            if command == .initialization {
                // An init that was killed may have left one copy of the configuration: a backup makes the other.
                let backup = try judged.bgbackup("backup", volume)
                #expect(backup.status == 0, "\(moment): \(backup.errors)")
            }
            let check = try judged.bgbackup("check", "--json")
            #expect(check.status == 0, "\(moment): \(check.output)\(check.errors)")
            guard command != .initialization, S3RunTests.isLong || command == .backup else { return }
            try Program.tool("rm", ["-rf", work.path("target")])
            #expect(try judged.bgbackup("restore", first, "--target", work.path("target")).status == 0, "\(moment)")
        }
    }

    @Test(arguments: Command.allCases)
    func `A connection that ends at one request does no harm`(command: Command) throws {
        let stage = try Stage(command)
        try stage.reset()
        try #require(stage.work.run(stage.arguments).status == 0)
        let count = try #require(stage.server.statistics()["count"] as? Int)
        let step = Self.step(count)
        for number in stride(from: 1, through: count, by: step) {
            let both = ["before", "after"]
            for when in Self.isLong ? both : [both[number / step % 2]] {
                try stage.reset()
                try stage.server.configure("{\"drop\": {\"request\": \(number), \"when\": \"\(when)\"}}")
                let result = try stage.work.run(stage.arguments)
                let moment = "\(command): request \(number) of \(count), \(when)"
                #expect(result.status < 128, "\(moment): \(result.errors)")
                // A repeated request is all it takes.
                #expect(result.status == 0, "\(moment): \(result.errors)")
                try stage.server.configure("{\"drop\": null}")
                try stage.expectWell(moment)
            }
        }
    }

    @Test(arguments: Command.allCases)
    func `A program that is killed at one request leaves nothing that is in the way`(command: Command) throws {
        let stage = try Stage(command)
        try stage.reset()
        try #require(stage.work.run(stage.arguments).status == 0)
        let count = try #require(stage.server.statistics()["count"] as? Int)
        let step = Self.step(count)
        for number in stride(from: 1 + step / 2, through: count, by: step) {
            try stage.reset()
            // From this request on nothing has an effect any more; the program tries again until it is killed.
            try stage.server.configure("{\"burst503\": {\"from\": \(number), \"count\": 1000000}}")
            let moment = "\(command): killed at request \(number) of \(count)"
            try kill(stage, at: number, of: count, moment)
            // Later, as leases count it: that of the killed run has run out.
            try stage.server.configure(#"{"burst503": null, "personality": {"clockSkewSeconds": 200}}"#)
            try stage.expectWell(moment)
        }
    }

    private func kill(_ stage: Stage, at number: Int, of count: Int, _ moment: String) throws {
        let process = Process()
        process.executableURL = URL(filePath: Program.binary)
        process.arguments = stage.arguments
        process.environment = Self.environment.merging(stage.work.environment) { $1 }
        (process.standardOutput, process.standardError) = (FileHandle.nullDevice, FileHandle.nullDevice)
        try process.run()
        while process.isRunning, try stage.server.statistics()["count"] as? Int ?? 0 < number { usleep(5000) }
        Glibc.kill(process.processIdentifier, SIGKILL)
        process.waitUntilExit()
        // Two runs need not make the same number of requests: near the end it may be over.
        #expect(process.terminationReason == .uncaughtSignal || number > count - 12, "\(moment): it ended before")
    }
}
