import CLinux
import Glibc

/// Small files at the root, for what a restore notes about itself. Each call
/// returns when the bytes are on stable storage.
extension TargetTree {
    /// Replaces the file at once: a crash leaves the old content or the new.
    public func writeSmallFile(_ name: String, _ bytes: [UInt8]) throws(TargetError) {
        let fresh = Array((name + ".new").utf8)
        try attributed(Array(name.utf8)) { () throws(SystemError) in
            let file = try openSmall(fresh, O_WRONLY | O_CREAT | O_TRUNC)
            try file.writeAll(bytes)
            try file.call("sync") { fsync($0) }
            try terminated(fresh) { old throws(SystemError) in
                try terminated(Array(name.utf8)) { new throws(SystemError) in
                    _ = try root.call("rename") { renameat($0, old, $0, new) }
                }
            }
            try root.call("sync") { fsync($0) }
        }
    }

    /// Appends to the file, which is made where it is missing. A crash leaves a
    /// beginning of the bytes at the most.
    public func appendToFile(_ name: String, _ bytes: [UInt8]) throws(TargetError) {
        try attributed(Array(name.utf8)) { () throws(SystemError) in
            let file = try openSmall(Array(name.utf8), O_WRONLY | O_CREAT | O_APPEND)
            let isNew = try file.stat().size == 0
            try file.writeAll(bytes)
            try file.call("sync") { fdatasync($0) }
            if isNew { try root.call("sync") { fsync($0) } }
        }
    }

    /// The file's content, or nil where it is missing.
    /// - Throws: `TargetError`; EFBIG where it holds more than `limit` bytes
    public func readSmallFile(_ name: String, limit: Int) throws(TargetError) -> [UInt8]? {
        try attributed(Array(name.utf8)) { () throws(SystemError) in
            let file: Descriptor
            do throws(SystemError) {
                file = try openSmall(Array(name.utf8), O_RDONLY)
            } catch {
                guard error.errno == ENOENT else { throw error }
                return nil
            }
            guard try file.stat().size <= limit else { throw SystemError(operation: "read", errno: EFBIG) }
            return try withBytes(capacity: limit + 1) { buffer throws(SystemError) in
                var filled = 0
                while filled < buffer.count {
                    let got = try file.call("read") { read($0, buffer.baseAddress! + filled, buffer.count - filled) }
                    if got == 0 { return filled }
                    filled += got
                }
                throw SystemError(operation: "read", errno: EFBIG)
            }
        }
    }

    private func openSmall(_ name: [UInt8], _ flags: Int32) throws(SystemError) -> Descriptor {
        try checkRelative(name)
        let file = try root.openBeneath(
            name, flags | O_NOFOLLOW | O_NONBLOCK, mode: flags & O_CREAT == 0 ? 0 : 0o600)
        guard try file.stat().kind == .file else { throw SystemError(operation: "open", errno: EEXIST) }
        return file
    }
}

extension Descriptor {
    fileprivate func writeAll(_ bytes: [UInt8]) throws(SystemError) {
        try bytes.withUnsafeBufferPointer { memory throws(SystemError) in
            var written = 0
            while written < memory.count {
                written += try call("write") { write($0, memory.baseAddress! + written, memory.count - written) }
            }
        }
    }
}
