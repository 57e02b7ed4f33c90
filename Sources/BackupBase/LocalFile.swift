import CLinux
import Glibc

/// Small files of the node itself: state, notes and locks.
public enum LocalFile {
    public static func read(_ path: String, limit: Int) -> [UInt8]? {
        let descriptor = open(path, O_RDONLY | O_CLOEXEC)
        guard descriptor >= 0 else { return nil }
        defer { close(descriptor) }
        return read(descriptor, limit: limit)
    }

    /// The bytes of an open file, wherever it stands; nil where they are more than `limit`.
    public static func read(_ descriptor: Int32, limit: Int) -> [UInt8]? {
        let size = Int(lseek(descriptor, 0, SEEK_END))
        guard size >= 0, size <= limit else { return nil }
        var got = 0
        let bytes = [UInt8](unsafeUninitializedCapacity: size) { buffer, count in
            while got < size {
                let more = pread(descriptor, buffer.baseAddress! + got, size - got, off_t(got))
                if more <= 0 { break }
                got += more
            }
            count = got
        }
        return got == size ? bytes : nil
    }

    /// The text of a file of /proc or /sys, up to 64 KiB.
    public static func readText(_ path: String) -> String? {
        let descriptor = open(path, O_RDONLY | O_CLOEXEC)
        guard descriptor >= 0 else { return nil }
        defer { close(descriptor) }
        var bytes = [UInt8](repeating: 0, count: 64 << 10)
        let count = Glibc.read(descriptor, &bytes, bytes.count)
        return count < 0 ? nil : String(decoding: bytes[..<count], as: UTF8.self)
    }

    /// Writes aside, forces to the disk and renames: old or new, never a mixture.
    /// - Parameter durably: false where a mixture is noticed by who reads it
    public static func replace(_ path: String, with bytes: [UInt8], durably: Bool = true) -> Bool {
        let aside = path + ".new"
        let descriptor = open(aside, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0o600)
        guard descriptor >= 0 else { return false }
        let whole = write(bytes, to: descriptor) && (!durably || fdatasync(descriptor) == 0)
        close(descriptor)
        guard whole, rename(aside, path) == 0 else {
            unlink(aside)
            return false
        }
        return true
    }

    /// Writes all bytes; false, and errno, where the disk does not take them.
    public static func write(_ bytes: [UInt8], to descriptor: Int32) -> Bool {
        var offset = 0
        while offset < bytes.count {
            let written = bytes.withUnsafeBytes { Glibc.write(descriptor, $0.baseAddress! + offset, bytes.count - offset) }
            if written < 0, errno == EINTR { continue }
            if written <= 0 { return false }
            offset += written
        }
        return true
    }

    /// Takes the lock of an open file (flock(2)), unless somebody else has it.
    public static func tryLock(_ descriptor: Int32, shared: Bool) -> Bool {
        bgb_flock(descriptor, (shared ? LOCK_SH : LOCK_EX) | LOCK_NB) == 0
    }

    /// Forces a directory's names to the disk, as far as its file system does that.
    public static func synchronize(directory: String) {
        let descriptor = open(directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC)
        guard descriptor >= 0 else { return }
        _ = fsync(descriptor)
        close(descriptor)
    }

    /// Makes a directory and its parents, for the owner only.
    public static func makeDirectory(_ path: String) -> Bool {
        var current = path.hasPrefix("/") ? "" : "."
        for part in path.split(separator: "/") {
            current += "/" + part
            if mkdir(current, 0o700) != 0, errno != EEXIST { return false }
        }
        return true
    }

    /// What a directory holds, in no order; nothing where it cannot be read.
    public static func names(in directory: String) -> [String] {
        guard let handle = opendir(directory) else { return [] }
        defer { closedir(handle) }
        var names: [String] = []
        while let entry = readdir(handle) {
            let name = withUnsafeBytes(of: &entry.pointee.d_name) { raw in
                String(decoding: raw.prefix { $0 != 0 }, as: UTF8.self)
            }
            if name != ".", name != ".." { names.append(name) }
        }
        return names
    }
}
