import Foundation
import Glibc
import TestSupport
import Testing

/// Everything was read and stored, and then the store failed before the index,
/// or the snapshot, was written.
@Suite("A backup that did not end", .enabled(if: FaultLibrary.canRun, "needs a C compiler for the fault library"))
struct InterruptedBackupTests {
    let work: Workspace
    let volume: String
    private static let page = "segment/page_0.dat"
    /// Bytes that the list of files may take.
    private static let metadata = 16 << 10

    init() async throws {
        work = try Workspace.ready("interrupted", kind: nil)
        volume = work.path("volume")
        try SmallVolume.make(volume)
        try await settle()
    }

    /// Waits until no file counts as changed a moment ago.
    private func settle() async throws { try await Task.sleep(for: .milliseconds(2_150)) }

    private func interrupt(at kind: String = "index", _ work: Workspace? = nil) throws {
        let work = work ?? self.work
        let faults = try Faults(below: work.repository).failing("rename", on: "/v1/\(kind)/", with: EIO)
        let failed = try work.bgbackup("backup", volume, extra: faults.environment)
        #expect(failed.status == 1, "\(failed.errors)")
        #expect(!work.objects("packs").isEmpty)
        #expect(work.objects("snapshots").isEmpty)
        #expect(try (notes(work, "packs").isEmpty) == (kind != "index"))
        #expect(try !notes(work, "read").isEmpty)
    }

    /// The files in which the node keeps what is under way: packs, and what was read.
    private func notes(_ work: Workspace, _ kind: String) throws -> [String] {
        let folder = work.path("state")
        return try FileManager.default.subpathsOfDirectory(atPath: folder)
            .filter { $0.contains(".\(kind)/") }.sorted().map { "\(folder)/\($0)" }
    }

    private struct Run {
        let read, resumed, new, total: Int
    }

    /// The next backup, which succeeds, restores to the volume and leaves no notes.
    @discardableResult
    private func complete(
        _ work: Workspace? = nil, _ more: String..., sourceLocation: SourceLocation = #_sourceLocation
    ) throws -> Run {
        let next = try (work ?? self.work).run(["backup", volume, "--json"] + more)
        try #require(next.status == 0, "\(next.errors)", sourceLocation: sourceLocation)
        func number(_ name: String) throws -> Int {
            try #require((next.summary[name] as? NSNumber)?.intValue, "\(name)", sourceLocation: sourceLocation)
        }
        #expect(try self.work.restored("latest", to: "restored") == Fixture.hash(volume), sourceLocation: sourceLocation)
        let check = try self.work.bgbackup("check", "--read-data")
        #expect(check.status == 0, "\(check.output)", sourceLocation: sourceLocation)
        for kind in ["packs", "read"] { #expect(try notes(self.work, kind) == [], sourceLocation: sourceLocation) }
        return Run(
            read: try number("bytes_read"), resumed: try number("bytes_resumed"), new: try number("bytes_new"),
            total: try number("bytes_total"))
    }

    @Test(arguments: ["index", "snapshots"]) func `What it read and stored is neither read nor stored again`(_ kind: String)
        throws
    {
        try interrupt(at: kind)
        let before = work.packBytes
        let next = try complete()
        #expect(next.read == 0)
        #expect(next.resumed == next.total)
        #expect(work.packBytes - before <= Self.metadata)
        #expect(try work.bgbackup("backup", volume).output.contains("interrupted") == false)
    }

    @Test func `It is said to people`() throws {
        try interrupt()
        let next = try work.bgbackup("backup", volume)
        #expect(next.output.contains("taken from an interrupted run: "), "\(next.output)")
    }

    @Test func `The writer key alone is enough`() throws {
        var node = work
        node.environment["BGBACKUP_PASSWORD_FILE"] = nil
        node.environment["BGBACKUP_WRITER_KEY_FILE"] = work.path("writer-key")
        try interrupt(node)
        let before = work.packBytes
        let next = try complete(node)
        #expect(next.read == 0)
        #expect(work.packBytes - before <= Self.metadata)
    }

    private func interrupt(_ node: Workspace) throws { try interrupt(at: "index", node) }

    @Test func `Several of them add up, and the later one counts`() async throws {
        try interrupt()
        var random = Seeded(7)
        try SmallVolume.write("segment/graph.bin", random.bytes(100_000), in: volume)
        try overwrite(random.bytes(4096))
        try await settle()
        try interrupt(at: "snapshots")
        let next = try complete()
        #expect(next.read == 0)
        #expect(next.resumed == next.total)
    }

    @Test func `A file that changed since is read again, under its old size and time too`() throws {
        try interrupt()
        try Program.tool("touch", ["-r", "\(volume)/\(Self.page)", work.path("time")])
        var random = Seeded(8)
        try overwrite(random.bytes(4096))
        try Program.tool("touch", ["-r", work.path("time"), "\(volume)/\(Self.page)"])
        let next = try complete()
        #expect(next.read == 130_000)
        #expect(next.new <= 32 << 10 + Self.metadata)
    }

    private func overwrite(_ bytes: Data) throws {
        let file = try FileHandle(forUpdating: URL(filePath: "\(volume)/\(Self.page)"))
        try file.seek(toOffset: 20_000)
        try file.write(contentsOf: bytes)
        try file.close()
    }

    @Test(arguments: ["index", "snapshots"]) func `What the repository lost is read and stored again`(_ kind: String) throws {
        try interrupt(at: kind)
        for name in work.objects("index") { try FileManager.default.removeItem(atPath: "\(work.repository)/\(name)") }
        try FileManager.default.removeItem(atPath: "\(work.repository)/\(largestPack())")
        let next = try complete()
        #expect(next.read >= 500_000)
        #expect(next.new >= 500_000)
    }

    /// The one that holds the largest file.
    private func largestPack() throws -> String {
        try #require(
            work.objects("packs").max {
                func size(_ name: String) -> Int {
                    let values = try? FileManager.default.attributesOfItem(atPath: "\(work.repository)/\(name)")
                    return (values?[.size] as? NSNumber)?.intValue ?? 0
                }
                return size($0) < size($1)
            })
    }

    @Test func `A pack that is there by half is not taken over`() throws {
        try interrupt()
        #expect(truncate("\(work.repository)/\(try largestPack())", 1000) == 0)
        let next = try work.bgbackup("backup", volume)
        #expect(next.status == 0, "\(next.errors)")
        #expect(try work.restored("latest", to: "restored") == Fixture.hash(volume))
    }

    enum Damage: CaseIterable { case torn, empty, altered, foreign, garbage }

    @Test(arguments: Damage.allCases) func `Notes that cannot be trusted are ignored and taken away`(_ damage: Damage) throws {
        try interrupt()
        let all = try notes(work, "packs") + notes(work, "read")
        let other = try Workspace("another")
        if damage == .foreign { try interrupt(other) }
        for path in all {
            let bytes = try Data(contentsOf: URL(filePath: path))
            let url = URL(filePath: path)
            switch damage {
            case .torn: try bytes.prefix(bytes.count / 2).write(to: url)
            case .empty: try Data().write(to: url)
            case .altered:
                var changed = bytes
                changed[bytes.count / 2] ^= 1
                try changed.write(to: url)
            case .foreign:
                let kind = path.contains(".read/") ? "read" : "packs"
                try Data(contentsOf: URL(filePath: try #require(notes(other, kind).first))).write(to: url)
            case .garbage:
                try bytes.write(to: url.deletingLastPathComponent().appending(path: "name"))
                try FileManager.default.removeItem(at: url)
            }
        }
        let next = try complete()
        #expect(next.resumed == 0)
        #expect(next.new >= 700_000)
    }

    @Test func `A note under the name it was written under is as good`() throws {
        try interrupt()
        for path in try notes(work, "packs") { try FileManager.default.moveItem(atPath: path, toPath: path + ".new") }
        #expect(try complete().new <= Self.metadata)
    }

    @Test func `--rescan reads everything again`() throws {
        try interrupt()
        let next = try complete(work, "--rescan")
        #expect(next.resumed == 0)
        #expect(next.read > 700_000)
        #expect(next.new <= Self.metadata)
    }

    @Test func `A dry run leaves the notes as they are`() throws {
        try interrupt()
        let before = try notes(work, "packs") + notes(work, "read")
        #expect(try work.bgbackup("backup", volume, "--dry-run").status == 0)
        #expect(try notes(work, "packs") + notes(work, "read") == before)
        #expect(try complete().read == 0)
    }

    @Test func `A disk that takes no notes only costs time`() throws {
        let faults = try Faults(below: work.path("state")).failing("create", on: ".packs/|.read/", with: ENOSPC)
        let run = try work.bgbackup("backup", volume, extra: faults.environment)
        #expect(run.status == 0, "\(run.errors)")
        #expect(try complete().read == 0)
    }

    @Test func `Notes are for the owner's eyes`() throws {
        try interrupt()
        for path in try notes(work, "packs") + notes(work, "read") {
            for (name, mode) in [(path, S_IFREG | 0o600), (String(path[..<path.lastIndex(of: "/")!]), S_IFDIR | 0o700)] {
                var status = stat()
                #expect(lstat(name, &status) == 0 && status.st_mode == mode)
            }
        }
    }
}
