import CArchive

/// A POSIX access list, between the kernel's bytes (linux/posix_acl_xattr.h:
/// u32 version 2, then u16 tag, u16 permissions, u32 id each) and libarchive's entries.
enum AccessList {
    static let access = Array("system.posix_acl_access".utf8)
    static let inherited = Array("system.posix_acl_default".utf8)

    /// libarchive's type for an attribute that is an access list.
    static func type(of name: [UInt8]) -> Int32? {
        name == access ? ARCHIVE_ENTRY_ACL_TYPE_ACCESS : name == inherited ? ARCHIVE_ENTRY_ACL_TYPE_DEFAULT : nil
    }

    private static let tags: [(kernel: UInt16, archive: Int32)] = [
        (0x01, ARCHIVE_ENTRY_ACL_USER_OBJ), (0x02, ARCHIVE_ENTRY_ACL_USER), (0x04, ARCHIVE_ENTRY_ACL_GROUP_OBJ),
        (0x08, ARCHIVE_ENTRY_ACL_GROUP), (0x10, ARCHIVE_ENTRY_ACL_MASK), (0x20, ARCHIVE_ENTRY_ACL_OTHER),
    ]

    /// Adds a list to an entry whose mode is set already.
    /// - Returns: false where the bytes are no list
    static func add(_ bytes: [UInt8], _ type: Int32, to entry: OpaquePointer) -> Bool {
        guard bytes.count % 8 == 4, bytes.prefix(4).elementsEqual([2, 0, 0, 0]) else { return false }
        for start in stride(from: 4, to: bytes.count, by: 8) {
            let (tag, permissions, id) = bytes.withUnsafeBytes { raw in
                (
                    UInt16(littleEndian: raw.loadUnaligned(fromByteOffset: start, as: UInt16.self)),
                    UInt16(littleEndian: raw.loadUnaligned(fromByteOffset: start + 2, as: UInt16.self)),
                    UInt32(littleEndian: raw.loadUnaligned(fromByteOffset: start + 4, as: UInt32.self))
                )
            }
            guard let known = tags.first(where: { $0.kernel == tag }) else { return false }
            let isNamed = tag == 0x02 || tag == 0x08
            let status = archive_entry_acl_add_entry(
                entry, type, Int32(permissions & 7), known.archive, isNamed ? Int32(bitPattern: id) : -1, nil)
            guard status == ARCHIVE_OK else { return false }
        }
        return true
    }

    /// The kernel's bytes for an entry's list, or nil where it has none.
    static func bytes(_ type: Int32, of entry: OpaquePointer) -> [UInt8]? {
        // Three are the mode's own bits and no list.
        guard archive_entry_acl_reset(entry, type) > (type == ARCHIVE_ENTRY_ACL_TYPE_ACCESS ? 3 : 0) else { return nil }
        var found: [(tag: UInt16, permissions: UInt16, id: UInt32)] = []
        var (kind, permissions, tag, id) = (Int32(0), Int32(0), Int32(0), Int32(0))
        var name: UnsafePointer<CChar>?
        while archive_entry_acl_next(entry, type, &kind, &permissions, &tag, &id, &name) == ARCHIVE_OK {
            guard let known = tags.first(where: { $0.archive == tag }) else { return nil }
            let isNamed = known.kernel == 0x02 || known.kernel == 0x08
            found.append((known.kernel, UInt16(permissions & 7), isNamed ? UInt32(bitPattern: id) : .max))
        }
        // The kernel takes them in this order only.
        found.sort { ($0.tag, $0.id) < ($1.tag, $1.id) }
        var bytes: [UInt8] = [2, 0, 0, 0]
        for item in found {
            withUnsafeBytes(of: item.tag.littleEndian) { bytes += $0 }
            withUnsafeBytes(of: item.permissions.littleEndian) { bytes += $0 }
            withUnsafeBytes(of: item.id.littleEndian) { bytes += $0 }
        }
        return bytes
    }

    /// The permissions of a list's mask, which stand for the group's in a mode.
    static func mask(_ bytes: [UInt8]) -> UInt32? {
        stride(from: 4, to: bytes.count, by: 8).first { bytes[$0] == 0x10 }.map { UInt32(bytes[$0 + 2]) }
    }
}
