import Foundation
import Glibc
import TestSupport
import Testing

@Suite struct PasswordAndLockTests {
    private let stage: BackupStage
    private let work: Workspace

    init() throws {
        stage = try BackupStage.shared.get()
        work = try stage.workspace.copy("lock")
    }

    private func code(_ result: Program.Result) -> String? { result.summary["code"] as? String }

    @Test(arguments: [["check"], ["snapshots"], ["restore", "latest", "--target", "t"], ["ls", "latest"]])
    func `a wrong password is exit status 12`(_ arguments: [String]) throws {
        try Data("incorrect horse\n".utf8).write(to: URL(filePath: work.path("wrong")))
        let result = try work.run(arguments + ["--json", "--password-file", work.path("wrong")])
        #expect(result.status == 12, "\(result.errors)")
        #expect(code(result) == "wrong-password")
        #expect(!FileManager.default.fileExists(atPath: work.path("t")))
    }

    @Test func `an empty or missing password file is exit status 12`() throws {
        try Data("\n".utf8).write(to: URL(filePath: work.path("empty")))
        for file in [work.path("empty"), work.path("nowhere")] {
            #expect(try work.bgbackup("check", "--password-file", file).status == 12)
        }
    }

    @Test(arguments: [["check"], ["snapshots"], ["restore", "latest", "--target", "t"], ["backup", "."]])
    func `no repository is exit status 10`(_ arguments: [String]) throws {
        for place in ["nowhere", "empty-folder"] {
            try? FileManager.default.createDirectory(atPath: work.path("empty-folder"), withIntermediateDirectories: true)
            let result = try work.run(arguments + ["--json", "--repository", work.path(place)])
            #expect(result.status == 10, "\(result.errors)")
            #expect(code(result) == "no-repository")
        }
    }

    @Test func `a writer key of another repository is exit status 12`() throws {
        let other = try Workspace("other")
        #expect(try other.bgbackup("key", "export-writer", other.path("key")).status == 0)
        let result = try work.bgbackup("backup", stage.volume, "--json", extra: ["BGBACKUP_WRITER_KEY_FILE": other.path("key")])
        #expect(result.status == 12, "\(result.errors)")
    }

    // MARK: - Two at once

    @Test(.enabled(if: FaultLibrary.canRun, "needs a C compiler for the fault library"))
    func `of two backups of one volume at once one succeeds and the other is busy`() throws {
        let gate = work.path("gate")
        let held = try Faults(below: work.repository).pausing("create", on: "/tmp/put-", file: gate)
        let (work, stage) = (work, stage)
        let first = Running { try work.bgbackup("backup", stage.volume, extra: held.environment) }
        try waitForFile(gate)
        let second = try work.bgbackup("backup", stage.volume, "--json")
        #expect(second.status == 11, "\(second.errors)")
        #expect(code(second) == "busy")
        try FileManager.default.removeItem(atPath: gate)
        #expect(try first.wait().status == 0)
        #expect(try work.restored("latest", to: "latest") == stage.secondTree)
        // The lock went with its process.
        #expect(try work.bgbackup("backup", stage.volume).status == 0)
    }

    @Test(
        .enabled(if: FaultLibrary.canRun, "needs a C compiler for the fault library"),
        arguments: ["/v1/packs/", "/v1/snapshots/"])
    func `backups of different volumes into one repository at once are both whole`(_ place: String) throws {
        let other = work.path("other-volume")
        try SmallVolume.make(other, seed: 55)
        let gate = work.path("gate")
        let held = try Faults(below: work.repository).pausing("rename", on: place, file: gate)
        let (work, stage) = (work, stage)
        let first = Running { try work.bgbackup("backup", stage.volume, "--json", extra: held.environment) }
        try waitForFile(gate)
        let second = try work.bgbackup("backup", other, "--json")
        #expect(second.status == 0, "\(second.errors)")
        try FileManager.default.removeItem(atPath: gate)
        let result = try first.wait()
        #expect(result.status == 0, "\(result.errors)")
        let check = try work.bgbackup("check", "--read-data")
        #expect(check.status == 0, "\(check.output)")
        let ids = [result, second].compactMap { $0.summary["snapshot_id"] as? String }
        #expect(try ids.count == 2 && work.restored(ids[0], to: "one") == stage.secondTree)
        #expect(try work.restored(ids[1], to: "two") == Fixture.hash(other))
    }

    @Test func `several backups at once without any timing are whole`() throws {
        let work = work
        let volumes = (0..<3).map { work.path("volume-\($0)") }
        for (seed, volume) in volumes.enumerated() { try SmallVolume.make(volume, seed: UInt64(seed % 2) + 90) }
        let running = volumes.map { volume in Running { try work.bgbackup("backup", volume, "--json") } }
        for (index, one) in running.enumerated() {
            let result = try one.wait()
            #expect(result.status == 0, "\(result.errors)")
            let id = result.summary["snapshot_id"] as? String ?? "?"
            #expect(try work.restored(id, to: "t\(index)") == Fixture.hash(volumes[index]))
        }
        #expect(try work.bgbackup("check", "--read-data").status == 0)
    }

    // MARK: - Signals

    @Test(
        .enabled(if: FaultLibrary.canRun, "needs a C compiler for the fault library"),
        arguments: [
            (SIGTERM, "/tmp/put-", "create"), (SIGINT, "/v1/packs/", "rename"), (SIGTERM, "/v1/snapshots/", "rename"),
        ])
    func `a signal ends a backup with 128 and its number, and nothing is lost`(
        _ number: Int32, _ place: String, _ kind: String
    ) throws {
        let gate = work.path("gate")
        let held = try Faults(below: work.repository).pausing(kind, on: place, file: gate)
        let process = Process()
        process.executableURL = URL(filePath: Program.binary)
        process.arguments = ["backup", stage.volume]
        process.environment = ProcessInfo.processInfo.environment.merging(work.environment) { $1 }
            .merging(held.environment) { $1 }
        process.standardError = FileHandle.nullDevice
        process.standardOutput = FileHandle.nullDevice
        try process.run()
        try waitForFile(gate)
        kill(process.processIdentifier, number)
        usleep(100_000)
        try FileManager.default.removeItem(atPath: gate)
        let start = Date()
        process.waitUntilExit()
        #expect(Date().timeIntervalSince(start) < 10)
        // What was committed before the signal was seen counts as done.
        let committed = work.objects("snapshots").count == 2
        let isDone = process.terminationReason == .exit && process.terminationStatus == 0 && committed
        #expect(isDone || process.terminationReason == .exit && process.terminationStatus == 128 + number)
        #expect(try work.bgbackup("check", "--read-data").status == 0)
        #expect(try work.restored(stage.first, to: "first") == stage.firstTree)
        #expect(try work.bgbackup("backup", stage.volume).status == 0)
        #expect(try work.restored("latest", to: "latest") == stage.secondTree)
    }

    @Test(.enabled(if: FaultLibrary.canRun, "needs a C compiler for the fault library"))
    func `a second signal ends the process at once`() throws {
        let gate = work.path("gate")
        let held = try Faults(below: work.repository).pausing("create", on: "/tmp/put-", file: gate)
        let process = Process()
        process.executableURL = URL(filePath: Program.binary)
        process.arguments = ["backup", stage.volume]
        process.environment = ProcessInfo.processInfo.environment.merging(work.environment) { $1 }
            .merging(held.environment) { $1 }
        process.standardError = FileHandle.nullDevice
        process.standardOutput = FileHandle.nullDevice
        try process.run()
        try waitForFile(gate)
        kill(process.processIdentifier, SIGTERM)
        usleep(200_000)
        kill(process.processIdentifier, SIGTERM)
        process.waitUntilExit()
        #expect(process.terminationStatus == 128 + SIGTERM)
        #expect(FileManager.default.fileExists(atPath: gate), "it did not wait for the write")
    }
}
