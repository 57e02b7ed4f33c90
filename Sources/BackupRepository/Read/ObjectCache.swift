import BackupBase
import Glibc
import ObjectStorage

/// Small objects of the store on this node, as the store has them, sealed.
///
/// Whoever takes one opens and authenticates it as if it came from the store, so that whoever changes a file here gains
/// nothing; and the store's list alone says which objects there are. Only for lists: an object that was damaged in the
/// store after it was cached still shows.
struct ObjectCache: Sendable {
    private let prefix: String
    private let directory: String

    /// Bytes of an object that is kept. A record with a server's fingerprint has 100 KiB.
    private static let objectLimit = 1 << 20

    /// - Parameters:
    ///   - cache: the node's; nil where there is none, as where its directory cannot be made
    ///   - prefix: of the objects, `v1/.../`
    init?(_ cache: String?, of repository: ObjectID, prefix: String) {
        guard let cache else { return nil }
        self.prefix = prefix
        directory = "\(cache)/\(repository)/\(prefix.dropFirst("v1/".count).dropLast())"
        guard LocalFile.makeDirectory(directory) else { return nil }
    }

    /// Nil for names that are none of ours: they come from the store.
    private func path(_ name: String) -> String? {
        let rest = name.dropFirst(prefix.count)
        guard name.hasPrefix(prefix), !rest.isEmpty, rest.utf8.allSatisfy({ Self.digits.contains($0) }) else { return nil }
        return "\(directory)/\(rest)"
    }
    private static let digits = Set("0123456789abcdef-".utf8)

    /// Size and date of an object as the store lists it: what was replaced there is read anew.
    private static func stamp(_ info: ObjectInfo) -> [UInt8] {
        [UInt64(info.size), UInt64(bitPattern: info.modified)].flatMap { withUnsafeBytes(of: $0.littleEndian, Array.init) }
    }

    /// The object's bytes, if they are here.
    /// - Parameter info: as the store lists it now
    func bytes(_ info: ObjectInfo) -> [UInt8]? {
        guard let path = path(info.name), let bytes = LocalFile.read(path, limit: Self.objectLimit + 16) else { return nil }
        let stamp = Self.stamp(info)
        guard bytes.count == info.size + stamp.count, bytes.starts(with: stamp) else { return nil }
        return Array(bytes[stamp.count...])
    }

    /// Keeps what was read. Under the list's date only what has the list's size: it may have been replaced since.
    func keep(_ bytes: [UInt8], of info: ObjectInfo) {
        guard let path = path(info.name), bytes.count == info.size, bytes.count <= Self.objectLimit else { return }
        _ = LocalFile.replace(path, with: Self.stamp(info) + bytes, durably: false)
    }

    /// Takes away what the store does not list any more.
    func sweep(_ listed: [ObjectInfo]) {
        let wanted = Set(listed.map { $0.name.dropFirst(prefix.count) })
        for file in LocalFile.names(in: directory) where !wanted.contains(file[...]) { unlink("\(directory)/\(file)") }
    }
}
