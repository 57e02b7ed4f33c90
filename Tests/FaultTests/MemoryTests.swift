import Foundation
import Glibc
import TestSupport
import Testing

/// What a backup takes from the node besides time.
@Suite(.serialized) struct MemoryTests {
    private let work: Workspace
    private var volume: String { work.path("volume") }
    private static let bound = 300 << 10  // KiB

    init() throws { work = try Workspace("memory") }

    private func write(_ name: String, megabytes: Int) throws {
        try FileManager.default.createDirectory(atPath: volume, withIntermediateDirectories: true)
        FileManager.default.createFile(atPath: "\(volume)/\(name)", contents: nil)
        let file = try FileHandle(forWritingTo: URL(filePath: "\(volume)/\(name)"))
        var random = Seeded(UInt64(name.utf8.reduce(0) { $0 &* 31 &+ Int($1) }))
        for _ in 0..<megabytes / 4 { try file.write(contentsOf: random.bytes(4 << 20)) }
        try file.synchronize()
        try file.close()
    }

    @Test func `backup and restore stay below 300 MiB however large the volume is`() throws {
        for number in 0..<4 { try write("matrix-\(number).dat", megabytes: 48) }
        try write("matrix.dat", megabytes: 64)
        let backup = try work.measured(["backup", volume, "--json"])
        #expect(backup.result.status == 0, "\(backup.result.errors)")
        #expect(backup.peak < Self.bound, "backup: \(backup.peak) KiB")
        let restore = try work.measured(["restore", "latest", "--target", work.path("target")])
        #expect(restore.result.status == 0, "\(restore.result.errors)")
        #expect(restore.peak < Self.bound, "restore: \(restore.peak) KiB")
        let check = try work.measured(["check", "--read-data"])
        #expect(check.result.status == 0)
        #expect(check.peak < Self.bound, "check: \(check.peak) KiB")
        #expect(try Fixture.hash(work.path("target")) == Fixture.hash(volume))
    }

    @Test(.enabled(if: Program.hasTool("fincore"), "needs fincore"))
    func `a backup leaves the page cache of the volume as it was`() throws {
        try write("matrix.dat", megabytes: 32)
        try write("page_0.dat", megabytes: 16)
        try SmallVolume.write("small.json", Data(repeating: 65, count: 3000), in: volume)
        for name in ["matrix.dat", "page_0.dat", "small.json"] { try forget(name) }
        // The database has some of it in use: the first 8 MiB of one file.
        let file = open("\(volume)/matrix.dat", O_RDONLY)
        posix_fadvise(file, 0, 0, POSIX_FADV_RANDOM)
        var memory = [UInt8](repeating: 0, count: 8 << 20)
        _ = pread(file, &memory, memory.count, 0)
        close(file)
        let before = try resident()
        try #require(before["matrix.dat"]! >= 8 << 20)
        #expect(try work.bgbackup("backup", volume).status == 0)
        let after = try resident()
        for (name, bytes) in after {
            #expect(Double(bytes) >= 0.99 * Double(before[name]!), "\(name) lost cached pages: \(bytes) of \(before[name]!)")
            #expect(bytes <= before[name]! + 16384, "\(name) is cached now: \(bytes), before \(before[name]!)")
        }
    }

    private func forget(_ name: String) throws {
        let file = open("\(volume)/\(name)", O_RDWR)
        defer { close(file) }
        fsync(file)
        posix_fadvise(file, 0, 0, POSIX_FADV_DONTNEED)
    }

    private func resident() throws -> [String: Int] {
        var bytes: [String: Int] = [:]
        for name in try FileManager.default.contentsOfDirectory(atPath: volume) {
            let result = try Program.tool("fincore", ["--bytes", "--noheadings", "--output", "RES", "\(volume)/\(name)"])
            bytes[name] = Int(result.output.filter(\.isNumber)) ?? -1
        }
        return bytes
    }
}
