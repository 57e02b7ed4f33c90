import Glibc

/// One member of a tar archive, as it is to be written or as it was read.
public struct ArchiveMember: Sendable {
    public enum Kind: Sendable, Equatable {
        /// Bytes, and where data is, ascending: the rest is holes.
        case file(size: Int64, dataRanges: [Range<Int64>])
        case directory
        case symlink(target: [UInt8])
        case hardLink(to: [UInt8])
        /// What no volume holds: a device, pipe or socket.
        case special
    }

    /// As the archive has it: nothing vouches for what it leads to.
    public var path: [UInt8]
    public var kind: Kind
    /// Permission bits, 12 of them.
    public var mode: UInt32
    public var owner: UInt32
    public var group: UInt32
    /// Nanoseconds since 1970.
    public var modified: Int64
    /// Sorted by name; access lists are two of them, as the kernel stores them.
    public var attributes: [ExtendedAttribute]

    public init(
        path: [UInt8], kind: Kind, mode: UInt32, owner: UInt32, group: UInt32, modified: Int64,
        attributes: [ExtendedAttribute] = []
    ) {
        self.path = path
        self.kind = kind
        self.mode = mode
        self.owner = owner
        self.group = group
        self.modified = modified
        self.attributes = attributes
    }
}

/// An archive that cannot be read or written, in libarchive's words or ours.
public struct ArchiveError: Error, Sendable, CustomStringConvertible {
    public let text: String
    public init(_ text: String) { self.text = text }
    public var description: String { text }
}

/// The types of stat(2), as libarchive wants them. Apart, because both Glibc
/// and libarchive's headers name them.
enum MemberType {
    static let file = UInt32(S_IFREG)
    static let directory = UInt32(S_IFDIR)
    static let symlink = UInt32(S_IFLNK)
}
