import Foundation
import Glibc
import Operations
import TestSupport
import Testing

extension Workspace {
    /// What the node remembers of its runs, newest first.
    var runs: [RunRecord] {
        let reading = RunHistory(stateDirectory: path("state")).read()
        #expect(reading.damaged.isEmpty)
        return reading.records
    }
}

@Suite("Run history of the commands") struct HistoryTests {
    @Test func `each job leaves one record with the figures of its summary`() throws {
        let workspace = try Workspace("history", kind: nil)
        let volume = try Volume.small(workspace.path("volume"))
        let summary = try workspace.backup(volume, "--capture", "none", "--node", "n1")
        let made = try #require(workspace.runs.first)
        #expect(workspace.runs.count == 1 && made.kind == .backup && made.outcome == .success && made.exitStatus == 0)
        #expect(made.figures.snapshot == summary.id && made.node == "n1" && made.repository == workspace.repository)
        #expect(
            try made.figures.bytesStored == summary.number("bytes_stored")
                && made.figures.bytesTotal == summary.number("bytes_total"))
        #expect(made.policy == nil && made.errorCode == nil && made.figures.consistency == "fuzzy")

        let copy = workspace.path("copy")
        try workspace.expect(0, ["check", "--read-data"])
        try workspace.expect(0, ["copy", "--all", "--to", copy])
        try workspace.expect(16, ["drill", "--no-boot"])
        try workspace.expect(0, ["forget", "--keep-last", "1"])
        try workspace.expect(0, ["prune", "--grace", "0"])
        let runs = workspace.runs
        #expect(runs.map(\.kind) == [.prune, .forget, .drill, .copy, .check, .backup])
        #expect(runs[0].figures.snapshots == 1 && runs[0].figures.repositoryBytes ?? 0 > 0)
        #expect(runs[1].figures.snapshotsForgotten == 0)
        // By rules all were judged; a prune without a policy judged none, nor do these.
        #expect(runs[1].figures.judged == runs[1].started && runs[0].figures.judged == nil)
        #expect(runs[2].outcome == .failure && runs[2].errorCode == "drill-failed" && runs[2].figures.verdict == "fail")
        #expect(runs[3].figures.snapshotsCopied == 1 && runs[3].figures.copyLocation == copy)
        #expect(runs[4].figures.dataShare == 1 && runs[4].figures.damages == 0 && runs[4].figures.framesRead ?? 0 > 0)

        // What only says what it would do, and what is no job, leaves nothing.
        for arguments in [["backup", volume.path, "-n"], ["prune", "-n"], ["forget", "--keep-last", "1", "-n"], ["snapshots"]] {
            try workspace.expect(0, arguments)
        }
        #expect(workspace.runs.count == 6)
        for arguments in [["--keep-last", "1", "--node", "n2"], [summary.id]] {
            try workspace.expect(0, ["forget"] + arguments)
            #expect(workspace.runs.first?.figures.judged == runs[1].started)
        }
    }

    @Test func `what failed says why`() throws {
        let workspace = try Workspace("history", kind: nil)
        let volume = try Volume.small(workspace.path("volume"))
        try workspace.expect(12, ["backup", volume.path], extra: ["BGBACKUP_PASSWORD_FILE": workspace.path("nothing")])
        try workspace.expect(10, ["prune", "-r", workspace.path("elsewhere")])
        // A command line that is wrong ran nothing.
        try workspace.expect(64, ["backup", "--policy", workspace.path("no-such.yaml")])
        try workspace.expect(64, ["check", "--read-data=much"])
        let wrong = workspace.path("wrong.yaml")
        try Data("nonsense: 1".utf8).write(to: URL(filePath: wrong))
        try workspace.expect(64, ["check", "--policy", wrong])
        try workspace.backup(volume, "--capture", "none")
        let pack = try #require(
            try Program.tool("sh", ["-c", "find \"$0\"/v1/packs -type f | head -1", workspace.repository]).output
                .split(separator: "\n").first.map(String.init))
        try FileManager.default.removeItem(atPath: pack)
        try workspace.expect(17, ["check"])
        let runs = workspace.runs
        #expect(
            runs.map(\.errorCode) == ["damaged", nil, "wrong-policy", "no-repository", "no-password"])
        #expect(
            runs[0].outcome == .failure && runs[0].errorMessage?.contains("packs/") == true && runs[0].figures.damages ?? 0 > 0)
        #expect(runs[2].policy == "wrong" && runs[2].exitStatus == 64)
        #expect(runs[3].repository == workspace.path("elsewhere") && runs[3].exitStatus == 10)
        #expect(runs[4].exitStatus == 12 && runs[4].errorMessage?.contains("nothing") == true)
    }

    @Test func `a run that is killed shows as that, one that is stopped as interrupted`() throws {
        let workspace = try Workspace("history", kind: nil)
        let volume = try Volume.small(workspace.path("volume"))
        for (number, outcome) in [(SIGKILL, RunRecord.Outcome.killed), (SIGTERM, .interrupted)] {
            let watch = try workspace.start([
                "backup", volume.path, "--capture", "none", "--watch", "--every", "1s", "--tag", "\(number)",
            ])
            try watch.wait { try watch.printed.contains("snapshot") }
            #expect(workspace.runs.first?.outcome == .running)
            _ = watch.end(number)
            let run = try #require(workspace.runs.first)
            #expect(run.kind == .watch && run.outcome == outcome && run.figures.snapshotsMade == 1 && run.figures.snapshot != nil)
        }
        #expect(workspace.runs.count == 2)
    }

    @Test func `a history that cannot be written fails no run`() throws {
        let workspace = try Workspace("history", kind: nil)
        let volume = try Volume.small(workspace.path("volume"))
        try FileManager.default.createDirectory(atPath: workspace.path("state"), withIntermediateDirectories: true)
        try Data().write(to: URL(filePath: workspace.path("state/runs")))
        let result = try workspace.expect(0, ["backup", volume.path, "--capture", "none"])
        #expect(result.errors.components(separatedBy: "history of runs").count == 2)
    }
}
