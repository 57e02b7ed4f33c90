import Foundation
import TestSupport
import Testing

/// kill -9 at mutating system calls. By default at the first, middle and last
/// of each kind and some between; with BGBACKUP_TEST_EVERY=1 at every one.
@Suite(.enabled(if: FaultLibrary.canRun, "needs a C compiler for the fault library"))
struct KillTests {
    @Test(arguments: KillPlan.backup.points)
    func `a backup that is killed loses nothing, and the next one succeeds`(_ point: KillPlan.Point) throws {
        let stage = try BackupStage.shared.get()
        let work = try stage.workspace.copy("kill")
        let faults = try Faults(below: work.directory.path).killing(at: point.number, torn: point.torn)
        let killed = try work.bgbackup("backup", stage.volume, extra: faults.environment)
        #expect(killed.status == 128 + SIGKILL || point.mayEndBefore && killed.status == 0, "\(killed.errors)")

        let check = try work.bgbackup("check", "--read-data")
        #expect(check.status == 0, "\(check.output)")
        #expect(try work.restored(stage.first, to: "first") == stage.firstTree)
        let next = try work.bgbackup("backup", stage.volume)
        #expect(next.status == 0, "\(next.errors)")
        #expect(try work.restored("latest", to: "latest") == stage.secondTree)
        // No block twice: all that may differ is how a list of files names its packs.
        #expect(work.packBytes <= stage.packBytes + 8 << 10)
    }

    @Test(arguments: KillPlan.restore.points)
    func `a restore that is killed goes on with --resume and is identical`(_ point: KillPlan.Point) throws {
        let stage = try BackupStage.shared.get()
        let work = try stage.workspace.copy("kill")
        let faults = try Faults(below: work.path("target")).killing(at: point.number, torn: point.torn)
        let killed = try work.bgbackup("restore", "latest", "--target", work.path("target"), extra: faults.environment)
        #expect(killed.status == 128 + SIGKILL, "\(killed.errors)")

        let names =
            try FileManager.default.contentsOfDirectory(atPath: work.directory.path).contains("target")
            ? FileManager.default.contentsOfDirectory(atPath: work.path("target")) : []
        let isMarked = names.contains(".bgbackup-incomplete")
        if !isMarked, names.contains(where: { !$0.hasPrefix(".bgbackup-incomplete") }) {
            // Taking the marker away is the last step but one: it moves the
            // root's own time, and nothing else may be missing.
            let tree = try Fixture.hash(work.path("target"))
            #expect(tree.split(separator: "\n").dropFirst() == stage.firstTree.split(separator: "\n").dropFirst())
            return
        }
        let resumed = try work.bgbackup("restore", "latest", "--target", work.path("target"), "--resume")
        #expect(resumed.status == 0, "\(resumed.errors)")
        #expect(try Fixture.hash(work.path("target")) == stage.firstTree)
    }

    /// What a killed `init` leaves: before the first copy of the configuration
    /// is in place nothing (a second `init` succeeds), from then on a repository
    /// (a second `init` says so, and backups go in).
    @Test(arguments: KillPlan.initialization.points)
    func `an init that is killed leaves either nothing or a repository`(_ point: KillPlan.Point) throws {
        let work = try Workspace("kill", initialize: false)
        let faults = try Faults(below: work.repository).killing(at: point.number, torn: point.torn)
        #expect(try work.bgbackup("init", extra: faults.environment).status == 128 + SIGKILL)

        let exists = FileManager.default.fileExists(atPath: "\(work.repository)/v1/config.a")
        let again = try work.bgbackup("init", "--json")
        #expect(again.status == (exists ? 1 : 0), "\(again.errors)")
        if exists { #expect(again.summary["code"] as? String == "repository-exists") }
        try SmallVolume.make(work.path("volume"))
        #expect(try work.bgbackup("backup", work.path("volume")).status == 0)
        #expect(try work.restored("latest", to: "target") == Fixture.hash(work.path("volume")))
        let check = try work.bgbackup("check", "--read-data")
        #expect(check.status == 0, "\(check.output)")
    }

    @Test func `every kind of change is met`() {
        #expect(
            Set(KillPlan.backup.points.map(\.kind)).isSuperset(of: ["create", "write", "fsync", "rename", "mkdir", "fdatasync"]))
        #expect(
            Set(KillPlan.restore.points.map(\.kind)).isSuperset(
                of: ["create", "write", "fsync", "rename", "mkdir", "truncate", "link", "symlink", "utimens", "unlink", "syncfs"])
        )
        #expect(Set(KillPlan.initialization.points.map(\.kind)).isSuperset(of: ["create", "write", "fsync", "rename", "unlink"]))
    }
}
