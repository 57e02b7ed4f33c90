import Foundation
import Glibc
import TestSupport
import Testing

@Suite("A first backup that is killed midway")
struct KilledBackupTests {
    let workspace: Workspace
    let volume: Volume

    init() async throws {
        workspace = try Workspace.ready("killed", kind: nil)
        volume = try Volume(workspace.path("volume"))
        for number in 10..<50 {
            let folder = "collections/c/0/segments/s\(number)"
            try volume.writeRandom("\(folder)/vector_storage/matrix.dat", megabytes: 12)
            try volume.writeRandom("\(folder)/payload_storage/page_0.dat", megabytes: 4)
        }
        try volume.writeRandom("collections/c/0/wal/open-1", megabytes: 32)
        try await settle()
    }

    private func packs() throws -> [String] {
        (FileManager.default.subpaths(atPath: "\(workspace.repository)/v1/packs") ?? []).filter { $0.contains("/") }
    }

    private func packBytes() throws -> Int64 {
        try packs().reduce(0) { sum, name in
            var status = stat()
            #expect(lstat("\(workspace.repository)/v1/packs/\(name)", &status) == 0)
            return sum + Int64(status.st_size)
        }
    }

    private func kill(at count: Int) throws {
        let backup = try workspace.start(["backup", volume.path, "--writer-key", try workspace.writerKey()])
        try backup.wait { try packs().count >= count }
        #expect(backup.end() == 128 + SIGKILL)
    }

    /// 672 MB are ten packs and a half; of the first kill at the sixth the
    /// journal has the 256 MiB and more that were read by then.
    @Test(arguments: [[6], [3, 6, 9]])
    func `The next one goes on where it was, reads only the rest and stores no block twice`(_ kills: [Int]) throws {
        for count in kills { try kill(at: count) }
        let left = try packBytes()

        let summary = try workspace.backup(volume)
        let (total, read, resumed) = (
            try summary.number("bytes_total"), try summary.number("bytes_read"), try summary.number("bytes_resumed")
        )
        #expect(total == 672 << 20)
        #expect(resumed >= 200 << 20)
        #expect(read + resumed == total)
        // Random bytes do not compress: each block once is what there is, plus 2 %.
        #expect(try packBytes() <= total / 50 * 51)
        #expect(try summary.number("bytes_stored") <= total / 50 * 51 - left)

        try workspace.restore(summary.id)
        try expectIdentical(volume.path, workspace.path("restored"))
        try workspace.expect(0, ["check", "--read-data"])
        let next = try workspace.backup(volume)
        #expect(try next.number("bytes_read") == 0)
        #expect(try next.number("bytes_resumed") == 0)
        #expect(try volume.shell("find '\(workspace.path("state"))' -path '*.packs/*' -o -path '*.read*'") == "")
    }
}
