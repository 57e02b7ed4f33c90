import Glibc

/// What a name stands for.
public enum NodeKind: UInt8, Sendable {
    case file = 1
    case directory = 2
    case symlink = 3
    /// Socket, FIFO or device.
    case special = 4

    /// Of st_mode.
    public init(mode: UInt32) {
        switch mode & S_IFMT {
        case S_IFREG: self = .file
        case S_IFDIR: self = .directory
        case S_IFLNK: self = .symlink
        default: self = .special
        }
    }
}

/// One entry of a tree, as a scan found it.
public struct ScannedNode: Sendable {
    /// Relative to the root, components joined by "/", raw bytes; "" for the root.
    public var path: [UInt8]
    public var kind: NodeKind
    public var stat: FileStat
    /// Of a symbolic link; else empty.
    public var linkTarget: [UInt8]
    /// Of files and directories, sorted by name; ACLs are among them.
    public var attributes: [ExtendedAttribute]

    public init(
        path: [UInt8], kind: NodeKind, stat: FileStat, linkTarget: [UInt8] = [],
        attributes: [ExtendedAttribute] = []
    ) {
        self.path = path
        self.kind = kind
        self.stat = stat
        self.linkTarget = linkTarget
        self.attributes = attributes
    }
}
