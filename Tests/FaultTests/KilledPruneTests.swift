import BackupBase
import Foundation
import TestSupport
import Testing

/// A repository with two snapshots, of which the first was forgotten.
struct PruneStage: Sendable {
    let workspace: Workspace
    let tree: String
    /// Bytes of all packs once an undisturbed prune has ended.
    let packBytes: Int

    static let shared = Result { try PruneStage() }

    private init() throws {
        let stage = try BackupStage.shared.get()
        workspace = try stage.workspace.copy("prune")
        AtExit.remove(workspace.directory)
        tree = stage.secondTree
        guard try workspace.bgbackup("backup", stage.volume).status == 0,
            let first = workspace.objects("snapshots").first(where: { $0.hasSuffix(stage.first) })
        else { throw BackupError(.failed, "the second backup failed") }
        try FileManager.default.removeItem(atPath: "\(workspace.repository)/\(first)")
        let undisturbed = try workspace.copy("undisturbed")
        let before = undisturbed.packBytes
        guard try undisturbed.bgbackup("prune", "--grace", "0").status == 0, undisturbed.packBytes < before else {
            throw BackupError(.failed, "nothing was pruned")
        }
        packBytes = undisturbed.packBytes
    }
}

extension KillPlan {
    static let prune = KillPlan { log in
        let work = try PruneStage.shared.get().workspace.copy("plan")
        return try work.bgbackup(
            "prune", "--grace", "0", extra: Faults(below: work.directory.path).logging(to: log).environment)
    }
}

/// kill -9 at mutating system calls of a prune, as `KillTests` does it.
@Suite(.enabled(if: FaultLibrary.canRun, "needs a C compiler for the fault library"))
struct KilledPruneTests {
    @Test(arguments: KillPlan.prune.points)
    func `a prune that is killed wastes space only, and the next one goes on`(_ point: KillPlan.Point) throws {
        let stage = try PruneStage.shared.get()
        let work = try stage.workspace.copy("kill")
        let faults = try Faults(below: work.directory.path).killing(at: point.number, torn: point.torn)
        let killed = try work.bgbackup("prune", "--grace", "0", extra: faults.environment)
        #expect(killed.status == 128 + SIGKILL || point.mayEndBefore && killed.status == 0, "\(killed.errors)")

        let check = try work.bgbackup("check", "--read-data")
        #expect(check.status == 0, "\(check.output)")
        #expect(try work.restored("latest", to: "latest") == stage.tree)
        // Its process is gone, and so is what it said: nobody waits an hour.
        for _ in 0..<2 {
            let next = try work.bgbackup("prune", "--grace", "0")
            #expect(next.status == 0, "\(next.errors)")
        }
        #expect(work.packBytes == stage.packBytes && work.objects("notes").isEmpty)
        #expect(
            try FileManager.default.contentsOfDirectory(atPath: "\(work.repository)/tmp").allSatisfy { !$0.hasPrefix("intent-") })
        let again = try work.bgbackup("check", "--read-data")
        #expect(again.status == 0, "\(again.output)")
        #expect(try work.restored("latest", to: "again") == stage.tree)
    }

    @Test func `every kind of change is met`() {
        #expect(Set(KillPlan.prune.points.map(\.kind)).isSuperset(of: ["create", "write", "fsync", "rename", "unlink"]))
    }
}
