import BackupBase
import FoundationEssentials

/// An index object: the trailers of some packs once more (docs/format.md, "Index").
struct IndexObject {
    struct Pack: Sendable {
        let id: ObjectID
        /// Bytes of the pack object.
        let size: Int
        let trailer: PackTrailer
    }

    static let prefix = "v1/index/"
    static let sizeLimit = 64 << 20

    var packs: [Pack] = []

    static func name(_ id: ObjectID) -> String { "\(prefix)\(id)" }

    static func id(name: String) -> ObjectID? {
        name.hasPrefix(prefix) ? ObjectID(hex: name.dropFirst(prefix.count)) : nil
    }

    func sealed(_ keys: KeyRing, id: ObjectID, salt: [UInt8]) throws -> AlignedBuffer {
        var writer = ByteWriter()
        writer.varint(packs.count)
        for pack in packs {
            writer.id(pack.id)
            writer.varint(pack.size)
            writer.sized(pack.trailer.bytes)
        }
        let header = ObjectHeader(kind: .index, id: id, keying: salt)
        let body = try keys.indexSealing(id, salt: salt).seal(writer.bytes, position: Sealing.body)
        return AlignedBuffer(copying: header.bytes + body)
    }

    init() {}

    init(opening bytes: [UInt8], _ keys: KeyRing, id: ObjectID) throws {
        let header = try ObjectHeader(parsing: bytes, expecting: .index, id)
        let plain = try bytes[ObjectHeader.size...].withUnsafeBytes {
            try keys.indexSealing(id, salt: header.keying).open($0, position: Sealing.body)
        }
        var reader = ByteReader(Array(plain))
        // Blocks that are absent take one byte here, and more in memory.
        var room = 2 * PackLimits.mostBlocks
        for _ in 0..<(try reader.elementCount(of: 19)) {
            let pack = try reader.id()
            let size = try reader.varint(limit: PackLimits.pack)
            packs.append(
                Pack(id: pack, size: size, trailer: try PackTrailer(parsing: try reader.sized(limit: PackLimits.trailer))))
            room -= packs[packs.count - 1].trailer.ids.count
            guard room >= 0 else { throw FormatError("it lists more blocks than any writer puts into one") }
        }
        try reader.expectEnd()
    }
}
