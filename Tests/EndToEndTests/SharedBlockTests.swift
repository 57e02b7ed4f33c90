import Foundation
import TestSupport
import Testing

/// A block that several places share is stored once and has to come back in
/// each of them.
@Suite("Files that share blocks")
struct SharedBlockTests {
    let workspace: Workspace
    let volume: Volume

    init() throws {
        workspace = try Workspace.ready("shared")
        volume = try Volume(workspace.path("volume"))
    }

    private func roundTrip(sourceLocation: SourceLocation = #_sourceLocation) throws {
        let snapshot = try workspace.backup(volume, sourceLocation: sourceLocation)
        try workspace.restore(snapshot.id, sourceLocation: sourceLocation)
        try expectIdentical(volume.path, workspace.path("restored"), sourceLocation: sourceLocation)
    }

    @Test func `Two equal files that are longer than a frame`() throws {
        try volume.write("a", noise(3 << 20, seed: 1))
        try volume.write("b", noise(3 << 20, seed: 1))
        try roundTrip()
        #expect(try workspace.dump("latest", "b") == noise(3 << 20, seed: 1))
    }

    @Test func `A file that is a stretch out of the middle of another`() throws {
        let bytes = noise(5 << 20, seed: 2)
        try volume.write("whole/matrix.dat", bytes)
        try volume.write("part/matrix.dat", Array(bytes[(1 << 20)..<(3 << 20)]))
        try volume.write("start/matrix.dat", Array(bytes[..<(1 << 20)]))
        try roundTrip()
    }

    @Test func `Many small files beside one that repeats what they hold`() throws {
        var all: [UInt8] = []
        for number in 0..<200 {
            let block = noise(16 << 10, seed: UInt64(number))
            all += block
            try volume.write("many/\(number)", block)
        }
        try volume.write("z", all + Array(all.reversed()) + all)
        try roundTrip()
    }

    @Test func `A file of one block over and over, with holes between`() throws {
        for place in 0..<300 {
            try volume.write("chunk_0.mmap", noise(4096, seed: UInt64(place % 7)), at: Int64(place * 65536 + place % 3 * 4096))
        }
        for number in 0..<40 { try volume.write("many/\(number)", "\(number)") }
        try roundTrip()
    }
}
