import BackupBase
import Foundation
import TestSupport
import Testing

/// A repository with one snapshot of a volume that has changed since.
struct BackupStage: Sendable {
    let workspace: Workspace
    let volume: String
    /// Id of the snapshot.
    let first: String
    let firstTree: String
    let secondTree: String
    /// Bytes of all packs once the second backup was made, undisturbed.
    let packBytes: Int

    /// Made once; the volume is only read from then on.
    static let shared = Result { try BackupStage() }

    private init() throws {
        let work = try Workspace("stage")
        AtExit.remove(work.directory)
        volume = work.path("volume")
        try SmallVolume.make(volume)
        guard try work.bgbackup("key", "export-writer", work.path("writer.key")).status == 0 else {
            throw BackupError(.failed, "no writer key")
        }
        let backup = try work.bgbackup("backup", volume, "--json")
        guard backup.status == 0, let id = backup.summary["snapshot_id"] as? String else {
            throw BackupError(.failed, "the first backup failed: \(backup.errors.prefix(2000))")
        }
        first = id
        firstTree = try Fixture.hash(volume)
        try Program.run("/bin/cp", ["-a", volume, work.path("first-volume")])
        try SmallVolume.change(volume)
        secondTree = try Fixture.hash(volume)
        workspace = work
        let undisturbed = try work.copy("undisturbed")
        guard try undisturbed.bgbackup("backup", volume).status == 0 else {
            throw BackupError(.failed, "the second backup failed")
        }
        packBytes = undisturbed.packBytes
    }
}

/// Where to kill: the changes that an undisturbed run makes.
struct KillPlan: Sendable {
    struct Point: Sendable, CustomStringConvertible, CustomTestStringConvertible {
        let number: Int
        let kind: String
        let torn: Bool
        /// Near the end: a run whose packs fall into folders that are there
        /// already makes fewer changes and may be over before.
        let mayEndBefore: Bool
        let description: String
        var testDescription: String { description }
    }

    let points: [Point]

    static let backup = KillPlan { log in
        let stage = try BackupStage.shared.get()
        let work = try stage.workspace.copy("plan")
        return try work.bgbackup(
            "backup", stage.volume, extra: Faults(below: work.directory.path).logging(to: log).environment)
    }

    static let restore = KillPlan { log in
        let work = try BackupStage.shared.get().workspace.copy("plan")
        return try work.bgbackup(
            "restore", "latest", "--target", work.path("target"),
            extra: Faults(below: work.path("target")).logging(to: log).environment)
    }

    static let initialization = KillPlan { log in
        let work = try Workspace("plan", initialize: false)
        return try work.bgbackup("init", extra: Faults(below: work.repository).logging(to: log).environment)
    }

    init(_ run: (_ log: String) throws -> Program.Result) {
        guard FaultLibrary.canRun, let folder = try? TemporaryDirectory("plan"),
            (try? run(folder("log")))?.status == 0, let calls = try? Faults.calls(folder("log"))
        else {
            points = []
            return
        }
        let every = ProcessInfo.processInfo.environment["BGBACKUP_TEST_EVERY"] != nil
        var chosen: Set<Int> = []
        for kind in Set(calls.map(\.kind)) {
            let of = calls.filter { $0.kind == kind }
            chosen.formUnion([of[0].number, of[of.count / 2].number, of[of.count - 1].number])
        }
        // A part of those between, the same ones in every run.
        for call in calls where every || call.number % 11 == 0 { chosen.insert(call.number) }
        points = calls.filter { chosen.contains($0.number) }.flatMap { call in
            let mayEnd = call.number > calls.count - 10
            let whole = Point(
                number: call.number, kind: call.kind, torn: false, mayEndBefore: mayEnd, description: "at \(call)")
            guard call.kind == "write" else { return [whole] }
            let torn = Point(
                number: call.number, kind: call.kind, torn: true, mayEndBefore: mayEnd, description: "half way through \(call)")
            return every ? [whole, torn] : [torn]
        }
    }
}

enum FaultLibrary {
    static let canRun = Faults.isAvailable
}
