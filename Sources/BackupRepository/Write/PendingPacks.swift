import BackupBase
import Glibc

/// Notes on the node of packs that no index object lists yet, so that a run
/// that is interrupted does not make the next one store their blocks again.
///
/// A note is an index object of one pack, named as the pack is: sealed, because
/// a wrong one would lose blocks. Disposable: without it blocks are stored once
/// more, so a disk that does not take one is no error.
struct PendingPacks: Sendable {
    private let directory: String
    private let keys: KeyRing
    private let ambient: Ambient

    private static let sizeLimit = PackLimits.trailer + 4096

    /// - Parameter directory: of one writer at a time: notes of packs that are not in the store are taken away.
    init?(directory: String, keys: KeyRing, ambient: Ambient) {
        guard LocalFile.makeDirectory(directory) else { return nil }
        (self.directory, self.keys, self.ambient) = (directory, keys, ambient)
    }

    /// Comes before the first byte of the pack goes to the store.
    func note(_ pack: IndexObject.Pack) {
        var object = IndexObject()
        object.packs = [pack]
        guard let sealed = try? object.sealed(keys, id: pack.id, salt: ambient.random(32)) else { return }
        _ = LocalFile.replace(path("\(pack.id)"), with: Array(sealed.bytes))
    }

    func forget(_ pack: ObjectID) { unlink(path("\(pack)")) }

    /// Notes that other runs left, to be opened one by one.
    var names: [String] { LocalFile.names(in: directory) }

    /// What a note says; one that is torn, altered or of other keys goes away.
    func open(_ name: String) -> IndexObject.Pack? {
        // A power cut may leave it under the name that it was written under.
        guard let id = ObjectID(hex: name.prefix(32)), let bytes = LocalFile.read(path(name), limit: Self.sizeLimit),
            let packs = try? IndexObject(opening: bytes, keys, id: id).packs, packs.count == 1, packs[0].id == id,
            !packs[0].trailer.ids.isEmpty
        else {
            unlink(path(name))
            return nil
        }
        if name != "\(id)" { rename(path(name), path("\(id)")) }
        return packs[0]
    }

    private func path(_ name: String) -> String { "\(directory)/\(name)" }
}
