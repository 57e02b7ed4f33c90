import Foundation
import Glibc
import TestSupport
import Testing

/// System calls that fail, on each of the three sides: source, repository, target.
@Suite(.enabled(if: FaultLibrary.canRun, "needs a C compiler for the fault library"))
struct ErrorInjectionTests {
    private let work: Workspace
    private let stage: BackupStage

    init() throws {
        stage = try BackupStage.shared.get()
        work = try stage.workspace.copy("inject")
    }

    private func faults(_ kinds: String, on path: String, from number: Int = 1, _ code: Int32) throws -> [String: String] {
        // "/var" and "/tmp": source, repository and all the rest.
        try Faults(below: "/").failing(kinds, on: path, from: number, with: code).environment
    }

    private var snapshots: Int { work.objects("snapshots").count }

    private func expectIntact() throws {
        let check = try work.bgbackup("check", "--read-data")
        #expect(check.status == 0, "\(check.output)")
        #expect(try work.restored(stage.first, to: "intact") == stage.firstTree)
    }

    // MARK: - Source

    @Test(arguments: [
        ("read", "segment/matrix.dat"), ("read", "segment/page_0.dat"), ("open", "segment/graph.bin"), ("clean", "wal/open-1"),
    ])
    func `a file that cannot be read is named, and all others are backed up`(_ kind: String, _ name: String) throws {
        let result = try work.bgbackup(
            "backup", stage.volume, "--rescan", "--json", extra: faults(kind, on: "\(stage.volume)/\(name)", EIO))
        #expect(result.status == 3, "\(result.errors)")
        let problems = result.summary["problems"] as? [String] ?? []
        // A file that is only fine to read and not to clean may be read all the same.
        #expect(problems.contains { $0.contains(name) && $0.contains("Input/output error") }, "\(problems)")
        #expect(!result.output.contains("store-failed") && !result.output.contains("\"error\""))
        #expect(try work.bgbackup("restore", "latest", "--target", work.path("target")).status == 0)
        var expected = stage.secondTree.split(separator: "\n")
        var got = try Fixture.hash(work.path("target")).split(separator: "\n")
        // Another name of an unreadable file goes with it.
        func leaveOut(_ line: Substring) -> Bool {
            line.contains("\"\(name)\"") || name.hasSuffix("page_0.dat") && line.contains("page_again.dat")
        }
        expected.removeAll(where: leaveOut)
        got.removeAll(where: leaveOut)
        #expect(got == expected)
        // And the next one makes it good.
        #expect(try work.bgbackup("backup", stage.volume).status == 0)
        #expect(try work.restored("latest", to: "next") == stage.secondTree)
    }

    @Test func `a directory that cannot be listed is named`() throws {
        let result = try work.bgbackup(
            "backup", stage.volume, "--json", extra: faults("list|open", on: "\(stage.volume)/wal", EIO))
        #expect(result.status == 3, "\(result.errors)")
        #expect((result.summary["problems"] as? [String] ?? []).contains { $0.contains("wal") })
        #expect(try work.bgbackup("restore", "latest", "--target", work.path("target")).status == 0)
        #expect(FileManager.default.fileExists(atPath: work.path("target/segment/graph.bin")))
    }

    @Test func `a volume whose root cannot be listed is an error of the source`() throws {
        let result = try work.bgbackup(
            "backup", stage.volume, "--json", extra: faults("list", on: stage.volume, EIO))
        #expect(result.status == 1 || result.status == 3, "\(result.errors)")
        if result.status == 1 { #expect(result.summary["code"] as? String == "source-unreadable") }
        try expectIntact()
    }

    // MARK: - Repository

    @Test(arguments: [
        ("write", "/tmp/put-"), ("fsync", "/tmp/put-"), ("create", "/tmp/put-"), ("rename", "/v1/packs/"),
        ("fsync", "/v1/packs/"),
        ("rename", "/v1/index/"), ("rename", "/v1/snapshots/"), ("mkdir", "/v1/packs/"),
    ])
    func `an error of the repository ends the backup and is never taken for one of the source`(
        _ kind: String, _ place: String
    ) throws {
        let before = snapshots
        let result = try work.bgbackup(
            "backup", stage.volume, "--json", extra: faults(kind, on: work.repository + place, EIO))
        #expect(result.status == 1, "\(result.errors)")
        #expect(result.summary["code"] as? String == "store-failed")
        #expect(snapshots == before)
        #expect(work.objects("../tmp").filter { !$0.contains("/lock") }.isEmpty, "scratch is cleaned up")
        try expectIntact()
        #expect(try work.bgbackup("backup", stage.volume).status == 0)
        #expect(try work.restored("latest", to: "next") == stage.secondTree)
    }

    @Test func `a snapshot whose directory could not be synced is whole or absent`() throws {
        let result = try work.bgbackup(
            "backup", stage.volume, "--json", extra: faults("fsync", on: work.repository + "/v1/snapshots", EIO))
        #expect(result.status == 1)
        #expect(result.summary["code"] as? String == "store-failed")
        try expectIntact()
        let listed = try work.bgbackup("snapshots", "--json")
        #expect(listed.status == 0)
        if snapshots > 1 { #expect(try work.restored("latest", to: "latest") == stage.secondTree) }
    }

    @Test(arguments: [0, 3]) func `a full store says so, with what to do`(_ after: Int) throws {
        let before = snapshots
        let result = try work.bgbackup(
            "backup", stage.volume, "--json",
            extra: faults("write|create|mkdir", on: work.repository, from: 1 + after, ENOSPC))
        #expect(result.status == 1)
        #expect(result.summary["code"] as? String == "store-full")
        #expect((result.summary["hint"] as? String)?.isEmpty == false)
        #expect(snapshots == before)
        try expectIntact()
    }

    @Test func `a pack that cannot be read is named by restore and check`() throws {
        let pack = work.objects("packs")[0]
        let failing = try faults("read", on: pack, EIO)
        let restore = try work.bgbackup("restore", "latest", "--target", work.path("target"), "--json", extra: failing)
        #expect(restore.status == 1 || restore.status == 17, "\(restore.errors)")
        #expect(restore.output.contains(pack), "\(restore.output)")
        #expect(!["source-unreadable", "target-failed"].contains(restore.summary["code"] as? String))
        let check = try work.bgbackup("check", "--json", extra: failing)
        #expect(check.status == 17)
        #expect(check.output.contains(pack) && check.output.contains("cannot be read"))
    }

    // MARK: - State and cache

    @Test(arguments: ["read", "open", "write|create", "rename", "fdatasync", "mkdir"])
    func `an unreadable or unwritable cache or state costs time only`(_ kind: String) throws {
        if kind == "mkdir" { try FileManager.default.removeItem(atPath: work.path("cache")) }
        let failing = try faults(
            kind, on: kind == "mkdir" ? work.path("cache") : "\(work.path("cache"))|\(work.path("state"))", EIO)
        let result = try work.bgbackup("backup", stage.volume, "--json", extra: failing)
        // The lock is in the state directory: without it there is no backup.
        if kind == "open" || kind == "write|create" {
            #expect([0, 1, 3].contains(result.status))
        } else {
            #expect(result.status == 0 || result.status == 3 && result.output.contains("state"), "\(result.errors)")
            #expect(try work.restored("latest", to: "latest") == stage.secondTree)
        }
        try expectIntact()
        #expect(try work.bgbackup("backup", stage.volume).status == 0)
    }

    // MARK: - Target

    @Test(arguments: [
        ("write", "segment/matrix.dat"), ("syncfs", ""), ("fsync", ""), ("create", "segment/sparse.dat"), ("truncate", "wal"),
        ("unlink", ".bgbackup-incomplete"), ("mkdir", "segment"), ("link", ""), ("symlink", ""),
    ])
    func `an error of the target leaves it marked, and --resume makes it whole`(_ kind: String, _ name: String) throws {
        let target = work.path("target")
        let result = try work.bgbackup(
            "restore", "latest", "--target", target, "--json",
            extra: Faults(below: target).failing(kind, on: "\(target)\(name.isEmpty ? "" : "/\(name)")", with: EIO).environment)
        #expect(result.status == 1, "\(result.errors)")
        #expect(result.summary["code"] as? String == "target-failed")
        let names = try FileManager.default.contentsOfDirectory(atPath: target)
        #expect(names.allSatisfy { $0.hasPrefix(".bgbackup") } || names.contains(".bgbackup-incomplete"))
        let resumed = try work.bgbackup("restore", "latest", "--target", target, "--resume")
        #expect(resumed.status == 0, "\(resumed.errors)")
        #expect(try Fixture.hash(target) == stage.firstTree)
    }

    @Test func `metadata that cannot be set is named and exits 3`() throws {
        let result = try work.bgbackup(
            "restore", "latest", "--target", work.path("target"), "--json",
            extra: faults("utimens|fchmod", on: "\(work.path("target"))/wal/open-1", EPERM))
        #expect(result.status == 3, "\(result.errors)")
        #expect((result.summary["problems"] as? [String] ?? []).contains { $0.contains("wal/open-1") })
    }
}
