import Foundation
import TestSupport
import Testing

@Suite("Holes of sparse files")
struct HoleTests {
    let workspace: Workspace
    let volume: Volume

    init() throws {
        workspace = try Workspace.ready("holes")
        volume = try Volume(workspace.path("volume"))
    }

    private func roundTrip(sourceLocation: SourceLocation = #_sourceLocation) throws -> Summary {
        let snapshot = try workspace.backup(volume, sourceLocation: sourceLocation)
        try workspace.restore(snapshot.id, sourceLocation: sourceLocation)
        try expectIdentical(volume.path, workspace.path("restored"), sourceLocation: sourceLocation)
        return snapshot
    }

    @Test func `Data in the middle, a hole at the end, nothing but a hole`() throws {
        try volume.write("middle", noise(8 << 10, seed: 1), at: 1 << 20, size: 3 << 20)
        try volume.write("hole-at-end", noise(5000, seed: 2), size: 9 << 20)
        try volume.write("hole-at-start", noise(5000, seed: 3), at: 7 << 20)
        try volume.write("all-hole", [], size: 5 << 20)
        try volume.write("unaligned-size", noise(100, seed: 4), at: 4096 * 5, size: 4096 * 7 + 123)
        let snapshot = try roundTrip()
        #expect(try snapshot.number("bytes_new") < 64 << 10)
    }

    @Test func `Holes smaller than a block of the format`() throws {
        for index in 0..<64 {
            try volume.write("page_0.dat", noise(4096, seed: UInt64(index)), at: Int64(index) * 8192)
            try volume.write("matrix.dat", noise(4096, seed: UInt64(index)), at: Int64(index) * 12288, size: 1 << 20)
        }
        let snapshot = try roundTrip()
        #expect(try snapshot.number("bytes_stored") < 700 << 10)
    }

    @Test func `Allocated zeros come back as allocated zeros`() throws {
        let zeros = [UInt8](repeating: 0, count: 256 << 10)
        try volume.write("zeros", zeros)
        try volume.write("zeros-in-a-hole", zeros, at: 1 << 20, size: 4 << 20)
        try volume.write("matrix.dat", zeros + zeros + zeros + zeros + zeros + noise(10, seed: 1))
        try volume.write("between", noise(4096, seed: 1) + zeros + noise(4096, seed: 2), at: 8192, size: 1 << 20)
        let snapshot = try roundTrip()
        #expect(try snapshot.number("bytes_stored") < 64 << 10)
        #expect(try fileSegments("zeros") == [[0, 256 << 10]])
    }

    @Test func `Space that is reserved and never written reads as it did`() throws {
        try volume.write("reserved", noise(4096, seed: 1), size: 4096)
        try volume.shell("fallocate -l 4M reserved; fallocate -n -o 4M -l 4M reserved")
        _ = try roundTrip()
    }

    @Test func `A file with ten thousand holes has them all`() throws {
        // More than fits into the manifest: the block list becomes parts of its own.
        try volume.shell(
            """
            python3 -c '
            import os
            f = os.open("chunk_0.mmap", os.O_RDWR | os.O_CREAT)
            for i in range(10000):
                os.pwrite(f, (b"%08d" % i) * 512, i * 16384 + i % 3 * 4096)
            os.ftruncate(f, 10001 * 16384)'
            """)
        _ = try roundTrip()
    }

    @Test func `A file of 100 GiB that is nearly all hole takes no time`() throws {
        let gigabyte: Int64 = 1 << 30
        try volume.write("huge", noise(10_000, seed: 1), at: 0)
        try volume.write("huge", noise(10_000, seed: 2), at: 50 * gigabyte + 4096)
        try volume.write("huge", noise(10_000, seed: 3), at: 100 * gigabyte - 10_000)
        let snapshot = try workspace.backup(volume)
        #expect(try snapshot.number("bytes_total") == 100 * gigabyte)
        #expect(try snapshot.number("bytes_read") < 8 << 20)
        #expect(try #require(snapshot.fields["duration_seconds"] as? Double) < 5)
        let restored = try workspace.restore(snapshot.id)
        #expect(try #require(restored.fields["duration_seconds"] as? Double) < 5)
        #expect(try restored.number("bytes_written") < 8 << 20)
        // Hashing 100 GiB of zeros would take the time that the backup does not.
        try expectIdentical(volume.path, workspace.path("restored"), omitting: ["sha256"])
        let ends = "for b in 0 13107201 26214397; do dd if=huge bs=4096 skip=$b count=3 status=none; done | sha256sum"
        #expect(try volume.shell(ends) == Volume(workspace.path("restored")).shell(ends))
    }

    private func fileSegments(_ name: String) throws -> [[Int]] {
        let line = try Fixture.hash(workspace.path("restored")).split(separator: "\n").first { $0.contains("\"\(name)\"") }
        let fields = try JSONSerialization.jsonObject(with: Data(try #require(line).utf8)) as? [String: Any]
        return try #require(fields?["segments"] as? [[Int]])
    }
}
