import BackupBase
import Foundation
import ObjectStorage

@testable import BackupRepository

/// Fills a repository that `bgbackup init` made with what many backups of a large volume leave behind, in hours less.
///
/// Packs, trailers, index objects, manifests, block lists and snapshots are real, written by the program's own writer.
/// Only blocks are not: each has 32 bytes, whatever its file says, and a random id. Nothing of it restores.
@main struct ScaleRepository {
    static let usage = """
        usage: ScaleRepository DIRECTORY PASSWORD-FILE snapshots BLOCKS SNAPSHOTS
               ScaleRepository DIRECTORY PASSWORD-FILE index BLOCKS
        """

    static func main() async throws {
        let arguments = CommandLine.arguments
        guard arguments.count >= 5, let blocks = Int(arguments[4]) else { return print(usage) }
        let text = try String(contentsOfFile: arguments[2], encoding: .utf8)
        let password = Array(text.utf8.prefix { $0 != 0x0a })
        let repository = try await Repository.open(
            store: LocalStore(path: arguments[1]), password: password, executor: BlockingExecutor(threads: 4), identity: nil)
        switch (arguments[3], arguments.count) {
        case ("snapshots", 6): try await ScaledHistory(repository, blocks: blocks, snapshots: Int(arguments[5]) ?? 1).write()
        case ("index", 5): try ScaledIndex(repository, directory: arguments[1], blocks: blocks).write()
        default: print(usage)
        }
    }
}

/// Numbers that look like chance and repeat (splitmix64).
struct Dice: RandomNumberGenerator {
    private var state: UInt64
    init(_ seed: UInt64) { state = seed }

    mutating func next() -> UInt64 {
        state &+= 0x9e37_79b9_7f4a_7c15
        var value = state
        value = (value ^ (value >> 30)) &* 0xbf58_476d_1ce4_e5b9
        value = (value ^ (value >> 27)) &* 0x94d0_49bb_1331_11eb
        return value ^ (value >> 31)
    }

    mutating func bytes(_ words: Int) -> [UInt8] {
        (0..<words).flatMap { _ in withUnsafeBytes(of: next().littleEndian) { Array($0) } }
    }

    mutating func block() -> BlockID { BlockID((next(), next(), next(), next())) }
}
