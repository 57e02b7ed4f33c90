import Foundation
import Glibc
import TestSupport
import Testing

/// A source that changes while it is read: the backup is held at a read, the
/// file is changed, the backup goes on.
@Suite(.enabled(if: FaultLibrary.canRun, "needs a C compiler for the fault library"))
struct ChangingSourceTests {
    private let work: Workspace
    private var volume: String { work.path("volume") }
    /// More than is read ahead: what comes after it is not open yet.
    private static let large = 12 << 20

    init() throws {
        work = try Workspace("changing")
        try SmallVolume.make(work.path("volume"))
        var random = Seeded(9)
        try SmallVolume.write("a-large.dat", random.bytes(Self.large), in: work.path("volume"))
        try SmallVolume.write("b-small.dat", random.bytes(100_000), in: work.path("volume"))
    }

    /// Backs up, held at the n-th read of a-large.dat while `change` runs.
    private func backup(
        heldAtRead number: Int = 1, capture: String = "none", _ change: () throws -> Void
    ) throws -> Program.Result {
        let gate = work.path("gate")
        let faults = try Faults(below: volume).pausing("read", on: "a-large.dat", at: number, file: gate)
        let (work, volume) = (work, volume)
        let running = Running {
            try work.bgbackup("backup", volume, "--capture", capture, "--json", extra: faults.environment)
        }
        try waitForFile(gate)
        try change()
        try FileManager.default.removeItem(atPath: gate)
        return try running.wait()
    }

    private func problems(_ result: Program.Result) -> [String] { result.summary["problems"] as? [String] ?? [] }

    private func restored(_ name: String) throws -> Data? {
        let result = try work.bgbackup("restore", "latest", "--target", work.path("target"))
        #expect(result.status == 0, "the snapshot restores: \(result.errors)")
        return FileManager.default.contents(atPath: work.path("target/\(name)"))
    }

    /// What a plain copy has to name is only another pass for a copy in two phases.
    @Test(arguments: ["shrink", "grow", "overwrite", "vanish", "appear"])
    func `by default it is read again, until nothing changed meanwhile`(_ change: String) throws {
        let result = try backup(heldAtRead: 2, capture: "pause") {
            switch change {
            case "shrink": truncate("\(volume)/a-large.dat", 1000)
            case "grow": truncate("\(volume)/a-large.dat", off_t(Self.large + 5_000_000))
            case "vanish": unlink("\(volume)/b-small.dat")
            case "appear": try SmallVolume.write("c-new.dat", Data([1, 2, 3]), in: volume)
            default:
                let file = open("\(volume)/a-large.dat", O_WRONLY)
                defer { close(file) }
                let bytes: [UInt8] = [9, 9, 9]
                _ = pwrite(file, bytes, 3, 0)
            }
        }
        #expect(result.status == 0, "\(result.errors)")
        #expect(result.summary["consistency"] as? String == "atomic")
        #expect(problems(result) == [])
        let tree = try Fixture.hash(volume)
        #expect(try work.restored("latest", to: "again") == tree)
    }

    @Test(arguments: [0, 1000, 5 << 20, (5 << 20) + 77])
    func `a file that shrinks is named and left out`(_ size: Int) throws {
        let result = try backup(heldAtRead: 2) { truncate("\(volume)/a-large.dat", off_t(size)) }
        #expect(result.status == 3, "\(result.errors)")
        #expect(problems(result).contains { $0.contains("a-large.dat") })
        #expect(try restored("a-large.dat") == nil)
        #expect(
            FileManager.default.contents(atPath: work.path("target/b-small.dat"))
                == FileManager.default.contents(atPath: "\(volume)/b-small.dat"))
        // The next backup takes it as it is then.
        #expect(try work.bgbackup("backup", volume).status == 0)
        #expect(try work.restored("latest", to: "next") == Fixture.hash(volume))
    }

    @Test func `a file that grows is stored as it was when it was opened`() throws {
        let before = FileManager.default.contents(atPath: "\(volume)/a-large.dat")!
        let result = try backup(heldAtRead: 2) { try append("a-large.dat", 3 << 20) }
        #expect(
            result.status == 0 || result.status == 3 && problems(result).contains { $0.contains("a-large.dat") },
            "\(result.errors)")
        let stored = try restored("a-large.dat")
        #expect(stored == before || stored == nil && result.status == 3)
        #expect(try work.bgbackup("backup", volume).status == 0)
        #expect(try work.restored("latest", to: "next") == Fixture.hash(volume))
    }

    @Test(arguments: [2_000, 1 << 20, 3 << 20])
    func `a small file that grows between scan and read does not spoil the snapshot`(_ more: Int) throws {
        let before = FileManager.default.contents(atPath: "\(volume)/b-small.dat")!
        let result = try backup { try append("b-small.dat", more) }
        #expect(result.status == 0 || result.status == 3, "\(result.errors)")
        let check = try work.bgbackup("check", "--read-data")
        #expect(check.status == 0, "\(check.output)")
        let stored = try restored("b-small.dat")
        let now = FileManager.default.contents(atPath: "\(volume)/b-small.dat")!
        if result.status == 0 {
            #expect(stored == now || stored == before, "\(stored?.count ?? -1) of \(now.count) bytes and nobody was told")
        }
        #expect(try work.bgbackup("backup", volume).status == 0)
        #expect(try work.restored("latest", to: "next") == Fixture.hash(volume))
    }

    @Test func `a file that vanishes between scan and read is named`() throws {
        let result = try backup { unlink("\(volume)/b-small.dat") }
        #expect(result.status == 3, "\(result.errors)")
        #expect(problems(result).contains { $0.contains("b-small.dat") })
        #expect(!result.output.contains("store-failed"))
        #expect(try restored("b-small.dat") == nil)
    }

    @Test func `a file that is replaced by something else between scan and read is named`() throws {
        let result = try backup {
            unlink("\(volume)/b-small.dat")
            mkfifo("\(volume)/b-small.dat", 0o600)
        }
        #expect(result.status == 3, "\(result.errors)")
        #expect(problems(result).contains { $0.contains("b-small.dat") })
        #expect(try restored("b-small.dat") == nil)
    }

    @Test func `a file deleted while it is open is stored whole or named`() throws {
        let before = FileManager.default.contents(atPath: "\(volume)/a-large.dat")!
        let result = try backup(heldAtRead: 2) { unlink("\(volume)/a-large.dat") }
        #expect(result.status == 0 || result.status == 3, "\(result.errors)")
        #expect(try restored("a-large.dat") == before)
    }

    /// As 'bgbackup help backup' promises: "Exit status 3 says that some file
    /// … changed while it was read; the snapshot names it."
    @Test func `a file overwritten in place while it is read is named`() throws {
        let result = try backup(heldAtRead: 6) {
            let file = open("\(volume)/a-large.dat", O_WRONLY)
            defer { close(file) }
            for offset in [0, Self.large - 4096] {
                _ = [UInt8](repeating: 0xee, count: 4096).withUnsafeBytes { pwrite(file, $0.baseAddress, 4096, off_t(offset)) }
            }
        }
        #expect(result.summary["consistency"] as? String == "fuzzy")
        #expect(result.status == 3)
        #expect(problems(result).contains { $0.contains("a-large.dat") })
        // Whatever was said: the next backup reads it again.
        #expect(try work.bgbackup("backup", volume).status == 0)
        #expect(try work.restored("latest", to: "next") == Fixture.hash(volume))
    }

    private func append(_ name: String, _ count: Int) throws {
        var random = Seeded(10)
        let file = try FileHandle(forWritingTo: URL(filePath: "\(volume)/\(name)"))
        try file.seekToEnd()
        try file.write(contentsOf: random.bytes(count))
        try file.close()
    }
}
