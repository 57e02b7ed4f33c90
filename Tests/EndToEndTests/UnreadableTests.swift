import BackupBase
import Foundation
import Glibc
import Operations
import TestSupport
import Testing

@Suite("What cannot be read is named, and the rest is kept")
struct UnreadableTests {
    let workspace: Workspace
    let volume: Volume

    init() throws {
        workspace = try Workspace.ready("unreadable")
        volume = try Volume.small(workspace.path("volume"))
    }

    @Test func `Unreadable files and directories give exit 3 and an incomplete snapshot`() throws {
        try volume.write("secret/inside", "x")
        try volume.write("open/locked.dat", noise(9000, seed: 1))
        try volume.setMode("secret", 0)
        try volume.setMode("open/locked.dat", 0)
        let result = try asNobody(["backup", volume.path, "--json"])
        #expect(result.status == 3, "\(result.errors)")
        let summary = Summary(fields: result.summary)
        for name in ["secret", "open/locked.dat"] {
            #expect(result.errors.contains(name))
            #expect(summary.problems.contains { $0.contains(name) })
        }
        #expect(summary.problems.count == 2)

        let shown = Summary(fields: try #require(try asNobody(["show", summary.id, "--json"]).document as? [String: Any]))
        #expect(shown.fields["complete"] as? Bool == false)
        #expect(shown.problems == summary.problems)
        #expect(try asNobody(["snapshots"]).output.contains("incomplete"))

        let target = workspace.path("restored")
        #expect(try asNobody(["restore", summary.id, "--target", target]).status == 0)
        for name in ["collections/c/config.json", "collections/c/0/segments/s/vector_storage/matrix.dat"] {
            #expect(try Volume(target).read(name) == volume.read(name))
        }
        #expect(!(try Volume(target).exists("open/locked.dat")))
    }

    @Test func `What became readable is in the next snapshot, which is complete`() throws {
        try volume.write("locked.dat", noise(9000, seed: 1))
        try volume.setMode("locked.dat", 0)
        #expect(try asNobody(["backup", volume.path]).status == 3)
        try volume.setMode("locked.dat", 0o644)
        let second = try asNobody(["backup", volume.path, "--json"])
        #expect(second.status == 0, "\(second.errors)")
        #expect(try asNobody(["dump", "latest", "locked.dat"]).outputBytes == Data(noise(9000, seed: 1)))
    }

    @Test func `Sockets, pipes and devices are named and give exit 3`() throws {
        try volume.shell(
            "mkfifo a-pipe; cd collections; python3 -c 'import socket; socket.socket(socket.AF_UNIX).bind(\"a-socket\")'")
        var names = ["a-pipe", "a-socket"]
        if Requirement.root {
            try volume.shell("mknod a-device c 1 3")
            names.append("a-device")
        }
        let snapshot = try workspace.backup(volume, status: 3)
        #expect(snapshot.problems.count == names.count)
        for name in names { #expect(snapshot.problems.contains { $0.contains(name) }) }
        #expect(try workspace.show("latest").fields["complete"] as? Bool == false)
        #expect(try !workspace.list("latest").contains { $0.contains("a-") })
        try workspace.restore("latest")
        #expect(
            try Volume(workspace.path("restored")).read("collections/c/config.json") == volume.read("collections/c/config.json"))
    }

    @Test func `A volume that cannot be read at all makes no snapshot`() throws {
        let missing = try workspace.run(["backup", workspace.path("missing"), "--json"])
        #expect(missing.status == 1)
        #expect(missing.errors.contains("missing"))
        #expect(missing.summary["code"] as? String == "source-unreadable")
        #expect(try workspace.expect(0, ["snapshots", "--json"]).document as? [String] == [])
    }

    @Test func `Qdrant's scratch paths are left out, a collection called tmp is not`() throws {
        let scratch = [
            "tmp/upload", ".deleted/old/0/x", "snapshots_temp/x.snapshot", "snapshots_recovery_tmp/x", ".qdrant_fs_check",
            "collections/c/0/temp_segments/new/matrix.dat", "collections/c/.atomicwrite8Fd2/config.json",
        ]
        let kept = [
            "collections/tmp/config.json", "collections/tmp/0/segments/s/x", "collections/c/0/tmp/x",
            "collections/c/0/segments/temp_segments/x", "collections/c/0/.deleted/x", "aliases/tmp/x", "tmp2/x",
            "collections/snapshots_temp/0/x",
        ]
        for path in scratch + kept { try volume.write(path, path) }
        let snapshot = try workspace.backup(volume)
        let listed = try workspace.list(snapshot.id)
        for path in kept { #expect(listed.contains(path), "\(path)") }
        for path in scratch { #expect(!listed.contains(path), "\(path)") }
        #expect(!listed.contains("tmp"))
        #expect(try snapshot.number("files_excluded") >= 7)
    }

    @Test(.enabled(if: Requirement.root, "needs another user"))
    func `A watch whose snapshots are incomplete is not taken for a good one`() throws {
        try volume.write("locked.dat", noise(9000, seed: 1))
        try volume.setMode("locked.dat", 0)
        #expect(try asNobody(["snapshots"]).status == 0)
        let watch = try Running(
            "/usr/bin/env",
            [
                "setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups", workspace.path("bgbackup"), "backup",
                volume.path, "--watch", "--every", "1s", "--capture", "none",
            ], environment: workspace.environment)
        try watch.wait { workspace.runs.first?.figures.snapshotsMade == 1 }
        let run = try #require(workspace.runs.first)
        #expect(run.kind == .watch && run.figures.problems == 1 && run.figures.lastDone == nil)
        let status = try asNobody(["status", "-r", workspace.repository])
        #expect(status.status == 1 && status.output.contains("incomplete: "), "\(status.output)")
        watch.end(SIGTERM)
    }

    /// Runs as a user whom modes bind; root runs it as nobody.
    private func asNobody(_ arguments: [String]) throws -> Program.Result {
        guard Requirement.root else { return try workspace.run(arguments) }
        let binary = workspace.path("bgbackup")
        if access(binary, X_OK) != 0 {
            try Program.tool("cp", [Program.binary, binary])
            try Program.tool("chown", ["-R", "65534:65534", workspace.directory.path])
        }
        return try Program.run(
            "/usr/bin/env", ["setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups", binary] + arguments,
            environment: workspace.environment)
    }
}
