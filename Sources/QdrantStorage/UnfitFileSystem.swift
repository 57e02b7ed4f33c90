/// File systems that no volume should be on: those that Qdrant itself calls bad
/// or does not know when it starts (1.19, lib/common/common/src/fs/check.rs),
/// as far as somebody would restore to one.
public enum UnfitFileSystem: String, Sendable, CaseIterable {
    case nfs = "NFS"
    case smb = "SMB"
    case fuse = "FUSE"
    case plan9 = "9p"
    case ceph = "CephFS"
    case overlay = "overlayfs"

    /// - Parameter magic: `f_type` of statfs(2), as in linux/magic.h
    /// - Returns: nil for one that nothing speaks against
    public init?(magic: UInt32) {
        switch magic {
        case 0x6969: self = .nfs
        case 0xff53_4d42, 0xfe53_4d42, 0x517b: self = .smb
        case 0x6573_5546: self = .fuse
        case 0x0102_1997: self = .plan9
        case 0x00c3_6400: self = .ceph
        case 0x794c_7630: self = .overlay
        default: return nil
        }
    }

    /// What speaks against it, for the operator.
    public var objection: String {
        switch self {
        case .nfs, .smb: "which Qdrant calls bad when it starts: its locks are not dependable, and data may be damaged"
        case .fuse: "which Qdrant calls bad when it starts: its caching may damage data"
        case .plan9, .ceph: "a network file system that Qdrant does not know: nobody vouches for its locks and mappings"
        case .overlay: "a container's own layer: the volume goes when the container is made anew"
        }
    }
}
