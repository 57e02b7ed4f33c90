import CLinux
import Glibc

/// What the file system says about one file.
public struct FileStat: Sendable, Hashable {
    public var device: UInt64
    public var inode: UInt64
    /// st_mode, with the type bits.
    public var mode: UInt32
    /// Names of the file, hard links included.
    public var links: UInt64
    public var owner: UInt32
    public var group: UInt32
    /// Bytes, holes included; of a block device, its capacity.
    public var size: Int64
    /// Nanoseconds since 1970.
    public var modified: Int64
    /// Nanoseconds since 1970 of the last change of content or metadata.
    public var changed: Int64
    /// Bytes on disk.
    public var allocated: Int64

    public init(
        device: UInt64 = 0, inode: UInt64 = 0, mode: UInt32, links: UInt64 = 1, owner: UInt32, group: UInt32,
        size: Int64, modified: Int64, changed: Int64 = 0, allocated: Int64 = 0
    ) {
        self.device = device
        self.inode = inode
        self.mode = mode
        self.links = links
        self.owner = owner
        self.group = group
        self.size = size
        self.modified = modified
        self.changed = changed
        self.allocated = allocated
    }

    init(_ value: stat) {
        self.init(
            device: UInt64(value.st_dev), inode: UInt64(value.st_ino), mode: value.st_mode,
            links: UInt64(value.st_nlink), owner: value.st_uid, group: value.st_gid, size: Int64(value.st_size),
            modified: nanoseconds(value.st_mtim), changed: nanoseconds(value.st_ctim),
            allocated: Int64(value.st_blocks) * 512)
    }

    /// Permission, setuid, setgid and sticky bits.
    public var permissions: UInt32 { mode & 0o7777 }

    public var kind: NodeKind { NodeKind(mode: mode) }
}

/// Clamped: a file system may keep years that 64 bits of nanoseconds cannot.
private func nanoseconds(_ time: timespec) -> Int64 {
    let (whole, over) = Int64(time.tv_sec).multipliedReportingOverflow(by: 1_000_000_000)
    if over { return time.tv_sec < 0 ? .min : .max }
    let (sum, overSum) = whole.addingReportingOverflow(Int64(time.tv_nsec))
    return overSum ? .max : sum
}

/// Nanoseconds since 1970 as the kernel takes them; the fraction is never negative.
func timespecOf(_ nanoseconds: Int64) -> timespec {
    var (seconds, rest) = nanoseconds.quotientAndRemainder(dividingBy: 1_000_000_000)
    if rest < 0 {
        seconds -= 1
        rest += 1_000_000_000
    }
    return timespec(tv_sec: Int(seconds), tv_nsec: Int(rest))
}
