import BackupBase
import Testing

@testable import QdrantStorage

@Suite("Points of a log of id changes")
struct PointMappingsTests {
    private enum Point: Hashable {
        case number(UInt64)
        case uuid(UInt64, UInt64)

        func change(isInsert: Bool, inner: UInt32) -> [UInt8] {
            func bytes(_ value: some FixedWidthInteger) -> [UInt8] { withUnsafeBytes(of: value.littleEndian) { Array($0) } }
            let tail = isInsert ? bytes(inner) : []
            switch self {
            case .number(let number): return [isInsert ? 1 : 3] + bytes(number) + tail
            case .uuid(let low, let high): return [isInsert ? 2 : 4] + bytes(low) + bytes(high) + tail
            }
        }
    }

    @Test(arguments: [UInt64(1), 3, 200, 100_000])
    func `The count is that of a set that the changes were applied to`(_ variety: UInt64) {
        var live: Set<Point> = []
        var log: [UInt8] = []
        for change in 0..<UInt32(20_000) {
            // Numbers and UUIDs that share their first half, and UUIDs that look like numbers.
            let number = UInt64.random(in: 0..<variety)
            let point = Bool.random() ? Point.number(number) : .uuid(number, .random(in: 0...1))
            let isInsert = Int.random(in: 0..<3) > 0
            if isInsert { live.insert(point) } else { live.remove(point) }
            log += point.change(isInsert: isInsert, inner: change)
        }
        #expect(PointMappings.count(log) == UInt64(live.count))
        let last = Point.number(variety).change(isInsert: true, inner: 0)
        #expect(PointMappings.count(log + last) == UInt64(live.count + 1))
        #expect(PointMappings.count(log + last.dropLast()) == UInt64(live.count), "a torn tail is cut off")
    }

    @Test func `A log that is longer than what is read is not read, and points are estimated`() async throws {
        let log = (0..<10).flatMap { Point.number(UInt64($0 % 3)).change(isInsert: true, inner: UInt32($0)) }
        let files: [String: [UInt8]] = [
            "s/version.info": Array("0.6.0".utf8), "s/segment.json": Array(#"{"version": 9, "config": {}}"#.utf8),
            "s/mutable_id_tracker.versions": [UInt8](repeating: 0, count: 80), "s/mutable_id_tracker.mappings": log,
        ]
        let read = Locked(Set<String>())
        var tree = StorageTree { path, body in
            read.withLock { _ = $0.insert(path) }
            _ = try files[path]!.withUnsafeBytes { try body($0) }
        }
        tree.add("s", isDirectory: true)
        for (path, bytes) in files { tree.add(path, isDirectory: false, size: Int64(bytes.count)) }
        for (limit, points) in [(log.count, UInt64(3)), (log.count - 1, 10)] {
            read.withLock { $0 = [] }
            var inspector = SegmentInspector("s", of: tree, mappingLimit: limit)
            #expect(try await inspector.inspect().0.points == points)
            #expect(read.withLock { $0.contains("s/mutable_id_tracker.mappings") } == (points == 3))
        }
    }

    @Test func `Nothing is no point, and another format is none`() {
        #expect(PointMappings.count([]) == 0)
        #expect(PointMappings.count([3] + [UInt8](repeating: 0, count: 8)) == 0)
        for kind in [UInt8(0), 5, 255] { #expect(PointMappings.count([kind] + [UInt8](repeating: 0, count: 40)) == nil) }
    }
}

@Suite("Logs and archives that nobody sane wrote")
struct HostileStorageTests {
    /// A log segment with one record of eight bytes.
    private static let segment: [UInt8] = {
        let record = [8, 0, 0, 0, 0, 0, 0, 0] + [UInt8](repeating: 7, count: 8) + [0, 0, 0, 0]
        var sum = CRC32C(continuing: ~0)
        record.withUnsafeBytes { sum.update($0) }
        return Array("wal\0".utf8) + [0, 0, 0, 0] + record + withUnsafeBytes(of: sum.checksum.littleEndian) { Array($0) }
            + [UInt8](repeating: 0, count: 32)
    }()

    private func tree(_ files: [String: [UInt8]]) -> StorageTree {
        var tree = StorageTree { path, body in _ = try files[path]!.withUnsafeBytes { try body($0) } }
        tree.add("wal", isDirectory: true)
        for (path, bytes) in files { tree.add(path, isDirectory: false, size: Int64(bytes.count)) }
        return tree
    }

    @Test func `A log whose name says that its numbers are at their end does not overflow`() async throws {
        let sound = try #require(try await LogDirectory.read("wal", of: tree(["wal/closed-5": Self.segment])))
        #expect(sound.records == 1 && sound.first == 5 && sound.next == 6 && sound.problems.isEmpty)
        let log = try await LogDirectory.read("wal", of: tree(["wal/closed-\(UInt64.max)": Self.segment]))
        #expect(log?.next == .max && log?.records == 1)
    }

    @Test func `A path of an archive that is no text keeps its bytes`() {
        let path = Array("0/segments/".utf8) + [0xff, 0xfe] + Array("/files/a".utf8) + [0xff]
        #expect(SnapshotArchive.place(path) == .keep(Array("0/segments/".utf8) + [0xff, 0xfe] + Array("/a".utf8) + [0xff]))
        #expect(SnapshotArchive.place([UInt8]("segments/u/snapshot/files/a".utf8)) == .keep(Array("segments/u/a".utf8)))
    }
}
