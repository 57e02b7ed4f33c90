import Foundation
import Glibc
import TestSupport

/// A volume of about 1 MB with one of everything: all file classes, holes,
/// links, an empty directory, an attribute. Same seed, same bytes.
enum SmallVolume {
    static func make(_ path: String, seed: UInt64 = 1) throws {
        for folder in ["", "/segment", "/wal", "/empty"] {
            try FileManager.default.createDirectory(atPath: path + folder, withIntermediateDirectories: true)
        }
        var random = Seeded(seed)
        try write("segment/matrix.dat", random.bytes(500_000), in: path)
        try write("segment/page_0.dat", random.bytes(130_000), in: path)
        try write("wal/open-1", random.bytes(70_000), in: path)
        try write("raft_state.json", Data("{\"term\": 7}".utf8), in: path)
        try write("nothing", Data(), in: path)
        try writeSparse("segment/sparse.dat", random.bytes(4096), in: path)
        try FileManager.default.createSymbolicLink(
            atPath: "\(path)/link", withDestinationPath: "segment/matrix.dat")
        try FileManager.default.linkItem(atPath: "\(path)/segment/page_0.dat", toPath: "\(path)/segment/page_again.dat")
        chmod("\(path)/raft_state.json", 0o600)
        // Where the file system has no such attributes there is one thing less to lose.
        try Program.tool(
            "python3", ["-c", "import os, sys; os.setxattr(sys.argv[1], 'user.test', b'value')", "\(path)/raft_state.json"])
    }

    /// What a database does between two backups: overwrites, appends, adds, deletes.
    static func change(_ path: String, seed: UInt64 = 2) throws {
        var random = Seeded(seed)
        let page = try FileHandle(forUpdating: URL(filePath: "\(path)/segment/page_0.dat"))
        try page.seek(toOffset: 40_000)
        try page.write(contentsOf: random.bytes(5000))
        try page.close()
        let log = try FileHandle(forUpdating: URL(filePath: "\(path)/wal/open-1"))
        try log.seekToEnd()
        try log.write(contentsOf: random.bytes(20_000))
        try log.close()
        try write("segment/graph.bin", random.bytes(200_000), in: path)
        try FileManager.default.removeItem(atPath: "\(path)/nothing")
    }

    static func write(_ name: String, _ data: Data, in path: String) throws {
        try data.write(to: URL(filePath: "\(path)/\(name)"))
    }

    /// 3 MB apparent, with data in the middle only, and a trailing hole.
    private static func writeSparse(_ name: String, _ data: Data, in path: String) throws {
        let file = open("\(path)/\(name)", O_RDWR | O_CREAT, 0o644)
        defer { close(file) }
        ftruncate(file, 3_000_000)
        _ = data.withUnsafeBytes { pwrite(file, $0.baseAddress, $0.count, 1 << 20) }
    }
}

/// Numbers that look like chance and repeat with their seed (splitmix64).
struct Seeded: RandomNumberGenerator {
    private var state: UInt64
    init(_ seed: UInt64) { state = seed }

    mutating func next() -> UInt64 {
        state &+= 0x9e37_79b9_7f4a_7c15
        var value = state
        value = (value ^ (value >> 30)) &* 0xbf58_476d_1ce4_e5b9
        value = (value ^ (value >> 27)) &* 0x94d0_49bb_1331_11eb
        return value ^ (value >> 31)
    }

    mutating func bytes(_ count: Int) -> Data {
        var data = Data(count: (count + 7) / 8 * 8)
        data.withUnsafeMutableBytes { raw in
            for word in raw.bindMemory(to: UInt64.self).indices { raw.bindMemory(to: UInt64.self)[word] = next() }
        }
        return data.prefix(count)
    }
}
