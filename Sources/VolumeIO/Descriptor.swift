import CLinux
import Glibc

/// An open file descriptor, closed with its last reference.
final class Descriptor: Sendable {
    private let number: Int32

    /// Takes over `number`.
    init(_ number: Int32) { self.number = number }

    deinit { close(number) }

    /// Makes a system call with the number, again when a signal interrupts it.
    /// The number is valid inside `body` only: the optimizer may release the
    /// object, and so close the file, right after its last use.
    @discardableResult
    func call<Value: FixedWidthInteger>(
        _ operation: String, _ body: (Int32) -> Value
    ) throws(SystemError) -> Value {
        defer { withExtendedLifetime(self) {} }
        return try system(operation) { body(number) }
    }

    /// Opens relative to this directory without following a link at the end.
    /// O_NOATIME where the owner allows it: reading a volume must not change it.
    func open(_ name: UnsafePointer<CChar>, _ flags: Int32) throws(SystemError) -> Descriptor {
        let flags = flags | O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY | O_CLOEXEC
        return try Descriptor.withoutAccessTime { noatime throws(SystemError) in
            Descriptor(try call("open") { openat($0, name, flags | noatime) })
        }
    }

    /// Opens a path that stays beneath this directory and passes no link at all.
    func openBeneath(_ path: [UInt8], _ flags: Int32, mode: UInt32 = 0) throws(SystemError) -> Descriptor {
        // openat2 is strict: with O_PATH it refuses flags that mean nothing then.
        let flags = flags | O_CLOEXEC | (flags & BGB_O_PATH == 0 ? O_NOCTTY : 0)
        let path = path.isEmpty ? [UInt8(ascii: ".")] : path
        // EAGAIN: a rename elsewhere while the kernel resolved "..", says openat2(2).
        for _ in 0..<100 {
            do throws(SystemError) {
                return Descriptor(
                    try terminated(path) { name throws(SystemError) in
                        try call("open") { bgb_openat2($0, name, flags, mode, bgb_resolve_beneath()) }
                    })
            } catch {
                guard error.errno == EAGAIN else { throw error }
            }
        }
        throw SystemError(operation: "open", errno: EAGAIN)
    }

    /// Opens with O_NOATIME, and without where only the owner may ask for it.
    static func withoutAccessTime(
        _ open: (_ noatime: Int32) throws(SystemError) -> Descriptor
    ) throws(SystemError) -> Descriptor {
        do throws(SystemError) {
            return try open(BGB_O_NOATIME)
        } catch {
            guard error.errno == EPERM else { throw error }
            return try open(0)
        }
    }

    /// The same file opened anew, with flags of its own.
    func reopened(_ flags: Int32) throws(SystemError) -> Descriptor {
        try Descriptor(
            call("open") { number in
                Glibc.open("/proc/self/fd/\(number)", flags | O_NONBLOCK | O_NOCTTY | O_CLOEXEC)
            })
    }

    func stat() throws(SystemError) -> FileStat {
        var value = Glibc.stat()
        try call("stat") { fstat($0, &value) }
        var stat = FileStat(value)
        if stat.mode & S_IFMT == S_IFBLK {
            var bytes: UInt64 = 0
            try call("stat") { bgb_block_device_size($0, &bytes) }
            stat.size = Int64(clamping: bytes)
        }
        return stat
    }

    /// The state of an entry of this directory; of a link itself, not of what it points to.
    func stat(_ name: UnsafePointer<CChar>) throws(SystemError) -> FileStat {
        var value = Glibc.stat()
        try call("stat") { fstatat($0, name, &value, AT_SYMLINK_NOFOLLOW) }
        return FileStat(value)
    }

    /// Where a link of this directory points to.
    func linkTarget(_ name: UnsafePointer<CChar>) throws(SystemError) -> [UInt8] {
        try withBytes(capacity: Int(PATH_MAX) + 1) { buffer throws(SystemError) in
            try call("read link") { number in
                readlinkat(number, name, buffer.assumingMemoryBound(to: CChar.self).baseAddress!, buffer.count)
            }
        }
    }

    /// Gives an entry of this directory another name in `parent`; a link at the
    /// end is linked itself, not followed.
    func link(_ name: UnsafePointer<CChar>, to newName: UnsafePointer<CChar>, in parent: Descriptor)
        throws(SystemError)
    {
        try call("link") { old in linkat(old, name, parent.number, newName, 0) }
        withExtendedLifetime(parent) {}
    }

    /// Writes the file's dirty pages out and write-protects them, so that the
    /// next store through a mapping faults and moves the modification time.
    /// Enough on ext4, XFS and btrfs, and without the journal commit and device
    /// flush of an fsync. The waiting flags matter: without them the kernel
    /// passes over pages that are being written while they are dirty again.
    func clean() throws(SystemError) {
        try call("sync") { bgb_sync_file_range($0) }
    }
}

/// Makes a system call, again when a signal interrupts it.
@discardableResult
func system<Value: FixedWidthInteger>(
    _ operation: String, _ body: () -> Value
) throws(SystemError) -> Value {
    while true {
        let result = body()
        if result >= 0 { return result }
        let code = errno
        guard code == EINTR else { throw SystemError(operation: operation, errno: code) }
    }
}

/// Calls with the bytes as a C string. EINVAL where they hold a NUL: the kernel
/// would see another, shorter name.
func terminated<Value>(
    _ bytes: [UInt8], _ body: (UnsafePointer<CChar>) throws(SystemError) -> Value
) throws(SystemError) -> Value {
    guard !bytes.contains(0) else { throw SystemError(operation: "name", errno: EINVAL) }
    let name = bytes + [0]
    return try name.withUnsafeBufferPointer { memory throws(SystemError) in
        try body(UnsafeRawPointer(memory.baseAddress!).assumingMemoryBound(to: CChar.self))
    }
}

/// The bytes that `fill` puts into scratch memory; it returns how many.
func withBytes(
    capacity: Int, _ fill: (UnsafeMutableRawBufferPointer) throws(SystemError) -> Int
) throws(SystemError) -> [UInt8] {
    let scratch = UnsafeMutableRawBufferPointer.allocate(byteCount: capacity, alignment: 16)
    defer { scratch.deallocate() }
    let count = try fill(scratch)
    return [UInt8](scratch.prefix(count))
}
