import Foundation
import Glibc
import TestSupport
import Testing

/// A disk that gives back other bytes than a restore wrote: the drill is held
/// when all is written, a file is changed, the drill goes on.
@Suite(.enabled(if: FaultLibrary.canRun, "needs a C compiler for the fault library"))
struct DrillDiskTests {
    private let work: Workspace

    init() throws {
        work = try Workspace("drill-disk")
        try SmallVolume.make(work.path("volume"))
        // One that nobody can make harmless ends a restore.
        try FileManager.default.removeItem(atPath: work.path("volume/raft_state.json"))
        #expect(try work.bgbackup("backup", work.path("volume")).status == 0)
    }

    /// Verdicts by stage, and the reason.
    private func drill(_ change: (_ volume: String) throws -> Void) throws -> (stages: [String: String], reason: String) {
        let (work, gate, scratch) = (work, work.path("gate"), work.path("scratch"))
        let faults = try Faults(below: scratch).pausing("unlink", on: ".bgbackup-incomplete", file: gate)
        let running = Running {
            try work.bgbackup("drill", "--no-boot", "--json", "--scratch", scratch, extra: faults.environment)
        }
        try waitForFile(gate)
        let name = try #require(try FileManager.default.contentsOfDirectory(atPath: scratch).first)
        try change("\(scratch)/\(name)/volume")
        try FileManager.default.removeItem(atPath: gate)
        let result = try running.wait()
        // It is no volume of Qdrant's, so that inspection ends each.
        #expect(result.status == 16, "\(result.errors)")
        let node = try #require((result.summary["nodes"] as? [[String: Any]])?.first)
        var stages: [String: String] = [:]
        for stage in node["stages"] as? [[String: Any]] ?? [] {
            stages[stage["name"] as? String ?? ""] = stage["verdict"] as? String
        }
        return (stages, result.summary["reason"] as? String ?? "")
    }

    @Test func `What is as it was written passes`() throws {
        let (stages, reason) = try drill { _ in }
        #expect(stages == ["restore": "pass", "verify": "pass", "inspect": "fail", "cleanup": "pass"])
        #expect(reason.hasPrefix("inspect: it has no collections/"), "\(reason)")
    }

    @Test(arguments: ["byte", "byte in a hole", "shorter", "longer", "gone"])
    func `What is not fails and is named`(_ change: String) throws {
        let (stages, reason) = try drill { volume in
            switch change {
            case "byte", "byte in a hole":
                let name = change == "byte" ? "matrix.dat" : "sparse.dat"
                let file = open("\(volume)/segment/\(name)", O_RDWR)
                defer { close(file) }
                let place = change == "byte" ? off_t(300_000) : lseek(file, 0, 4 /* SEEK_HOLE */)
                var byte: UInt8 = 0
                pread(file, &byte, 1, place)
                byte ^= 1
                #expect(pwrite(file, &byte, 1, place) == 1)
            case "shorter": truncate("\(volume)/segment/matrix.dat", 499_999)
            case "longer": truncate("\(volume)/segment/matrix.dat", 500_001)
            default: unlink("\(volume)/segment/matrix.dat")
            }
        }
        #expect(stages == ["restore": "pass", "verify": "fail", "cleanup": "pass"])
        let words = [
            "shorter": "499999 bytes instead of 500000", "longer": "500001", "gone": "cannot",
        ]
        let name = change == "byte in a hole" ? "sparse.dat" : "matrix.dat"
        #expect(reason.contains("segment/\(name)") && reason.contains(words[change] ?? "other bytes"), "\(reason)")
    }
}
