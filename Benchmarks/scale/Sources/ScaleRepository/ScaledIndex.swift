import BackupBase
import Foundation
import ObjectStorage

@testable import BackupRepository

/// Index objects of packs that are there as sparse files of their full size: what a backup sees of a large repository
/// as long as it reads no pack.
struct ScaledIndex {
    private let repository: Repository
    private let directory: String
    private let blocks: Int
    /// Of 64 KiB, in a pack of 64 MiB, and packs of an index object.
    private static let perPack = 1024
    private static let perObject = 16

    init(_ repository: Repository, directory: String, blocks: Int) {
        (self.repository, self.directory, self.blocks) = (repository, directory, blocks)
    }

    func write() throws {
        var dice = Dice(11)
        var object = IndexObject()
        let packs = (blocks + Self.perPack - 1) / Self.perPack
        for number in 0..<packs {
            var trailer = PackTrailer(cohort: .mutable)
            for _ in 0..<Self.perPack / 16 {
                trailer.add(sealedLength: (1 << 20) + 16, blocks: (0..<16).map { _ in (id: dice.block(), length: 64 << 10) })
            }
            let id = ObjectID(bytes: dice.bytes(2))
            let size = trailer.end + trailer.bytes.count + 32
            try makeSparse(FinishedPack.name(id), size)
            object.packs.append(IndexObject.Pack(id: id, size: size, trailer: trailer))
            if object.packs.count == Self.perObject || number == packs - 1 {
                let id = ObjectID(bytes: dice.bytes(2))
                let sealed = try object.sealed(repository.keys, id: id, salt: dice.bytes(4))
                try make(IndexObject.name(id), Data(sealed.bytes))
                object = IndexObject()
            }
            if number % 10_000 == 0 { print("\(number) packs of \(packs)") }
        }
    }

    private func makeSparse(_ name: String, _ size: Int) throws {
        try make(name, Data())
        guard truncate("\(directory)/\(name)", off_t(size)) == 0 else { throw POSIXError(.EIO) }
    }

    /// Without the store's forcing to the disk: nobody minds if this is lost.
    private func make(_ name: String, _ content: Data) throws {
        let url = URL(fileURLWithPath: "\(directory)/\(name)")
        try? FileManager.default.createDirectory(at: url.deletingLastPathComponent(), withIntermediateDirectories: true)
        try content.write(to: url)
    }
}
