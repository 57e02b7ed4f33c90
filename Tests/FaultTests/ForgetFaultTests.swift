import Foundation
import Glibc
import TestSupport
import Testing

/// Forgetting that is killed, fails, or is overtaken: each snapshot is there whole or gone, and a repeat goes on.
@Suite(.enabled(if: FaultLibrary.canRun, "needs a C compiler for the fault library"))
struct ForgetFaultTests {
    /// Six snapshots, of which all but two are to go.
    private static let stage = Result {
        let work = try Workspace("forget", kind: nil)
        AtExit.remove(work.directory)
        try SmallVolume.make(work.path("volume"))
        for seed in 1...6 {
            try SmallVolume.change(work.path("volume"), seed: UInt64(seed))
            let backup = try work.bgbackup("backup", work.path("volume"))
            try #require(backup.status == 0, "\(backup.errors)")
            try Data("{}".utf8).write(to: URL(filePath: work.path("volume/nothing")))
        }
        try #require(try work.bgbackup("hold", String(work.ids[1].prefix(12))).status == 0)
        return work
    }
    private static let rules = ["forget", "--keep-last", "1", "--max-delete-ratio", "1"]

    private let work: Workspace
    private let ids: [String]

    init() throws {
        work = try Self.stage.get().copy("forget")
        ids = try work.ids
        try #require(ids.count == 6)
    }

    private func expectRight(_ left: Set<String>, sourceLocation: SourceLocation = #_sourceLocation) throws {
        let check = try work.bgbackup("check", "--read-data")
        #expect(check.status == 0, "\(check.output)", sourceLocation: sourceLocation)
        #expect(try Set(work.ids) == left, sourceLocation: sourceLocation)
    }

    /// The changes of an undisturbed run.
    private static let changes: Int = {
        guard let work = try? stage.get().copy("count"),
            let faults = try? Faults(below: work.repository).logging(to: work.path("log")),
            (try? work.run(rules, extra: faults.environment).status) == 0
        else { return 0 }
        return (try? Faults.calls(work.path("log")).count) ?? 0
    }()

    @Test func `killed at any change it has lost nothing that stays, and a repeat finishes`() throws {
        try #require(Self.changes >= 4, "\(Self.changes)")
        for number in 1...Self.changes {
            let work = try Self.stage.get().copy("killed")
            let faults = try Faults(below: work.repository).killing(at: number)
            let killed = try work.run(Self.rules, extra: faults.environment)
            #expect(killed.status == 128 + SIGKILL, "\(number): \(killed.errors)")
            #expect(try Set(work.ids).isSuperset(of: [ids[1], ids[5]]))
            // Oldest first.
            let gone = Set(ids).subtracting(try work.ids)
            #expect(gone.isSubset(of: Set([ids[0], ids[2], ids[3], ids[4]].prefix(gone.count))))
            let again = try work.run(Self.rules)
            #expect(again.status == 0, "\(again.errors)")
            #expect(try Set(work.ids) == [ids[1], ids[5]])
            #expect(try work.bgbackup("check").status == 0)
        }
    }

    @Test(arguments: [1, 3]) func `an error of the store ends it, and a repeat finishes`(number: Int) throws {
        let faults = try Faults(below: "/").failing("unlink", on: work.repository + "/v1/snapshots", from: number, with: EIO)
        let failed = try work.run(Self.rules + ["--json"], extra: faults.environment)
        #expect(failed.status == 1 && failed.summary["code"] as? String == "store-failed", "\(failed.errors)")
        try expectRight(Set(ids).subtracting([ids[0], ids[2]].prefix(number - 1)))
        #expect(try work.run(Self.rules).status == 0)
        try expectRight([ids[1], ids[5]])
    }

    @Test func `a hold that comes while it runs is heeded`() throws {
        let gate = work.path("gate")
        let faults = try Faults(below: work.repository).pausing(
            "unlink", on: work.repository + "/v1/snapshots", at: 1, file: gate)
        let running = Process()
        running.executableURL = URL(filePath: Program.binary)
        running.arguments = Self.rules + ["--json"]
        running.environment = ProcessInfo.processInfo.environment.merging(work.environment) { $1 }
            .merging(faults.environment) { $1 }
        let output = Pipe()
        (running.standardOutput, running.standardError) = (output, FileHandle.nullDevice)
        try running.run()
        while running.isRunning, access(gate, F_OK) != 0 { usleep(5000) }
        let held = try work.bgbackup("hold", ids[3])
        #expect(held.status == 0, "\(held.errors)")
        // And no second run goes beside it.
        #expect(try work.run(Self.rules).status == 11)
        unlink(gate)
        let text = String(decoding: output.fileHandleForReading.readDataToEndOfFile(), as: UTF8.self)
        running.waitUntilExit()
        #expect(running.terminationStatus == 1 && text.contains(#""code":"held""#), "\(text)")
        try expectRight([ids[1], ids[3], ids[5]])
    }

    @Test func `ended by a signal it stops between two snapshots`() throws {
        let gate = work.path("gate")
        let faults = try Faults(below: work.repository).pausing(
            "unlink", on: work.repository + "/v1/snapshots", at: 1, file: gate)
        let running = Process()
        running.executableURL = URL(filePath: Program.binary)
        running.arguments = Self.rules
        running.environment = ProcessInfo.processInfo.environment.merging(work.environment) { $1 }
            .merging(faults.environment) { $1 }
        (running.standardOutput, running.standardError) = (FileHandle.nullDevice, FileHandle.nullDevice)
        try running.run()
        while running.isRunning, access(gate, F_OK) != 0 { usleep(5000) }
        kill(running.processIdentifier, SIGTERM)
        usleep(100_000)
        unlink(gate)
        running.waitUntilExit()
        #expect(running.terminationStatus == 128 + SIGTERM)
        try expectRight(Set(ids).subtracting([ids[0]]))
        #expect(try work.run(Self.rules).status == 0)
    }
}

extension Workspace {
    /// Ids of the snapshots, oldest first.
    fileprivate var ids: [String] { get throws { try store.names("v1/snapshots/").map { String($0.suffix(32)) } } }
}
