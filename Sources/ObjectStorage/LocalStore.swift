import BackupBase
import CLinux
import Glibc

/// A directory as an object store: each object a file, names as paths.
///
/// A put writes below `tmp/`, forces it to the disk, moves it to its name
/// without replacing, and forces the directory: after a crash an object is
/// there whole or not at all. Large objects go past the page cache, which
/// belongs to the database.
public final class LocalStore: ObjectStore {
    public let location: String
    /// Two, so that one pack is written while the other one is forced to the disk.
    public var parallelPuts: Int { 2 }
    private let random: @Sendable (Int) -> [UInt8]
    /// Directories that are there and durable.
    private let known = Locked<Set<String>>([])
    /// From this many bytes on a transfer bypasses the page cache.
    private static let directFrom = 256 << 10
    /// Bytes from which an object is a run's work, and not a lease renewed beside it.
    static let workFrom = 16 << 10

    /// - Parameter path: an existing directory; nothing is made here.
    public init(path: String, ambient: Ambient = .system) {
        var trimmed = path
        while trimmed.count > 1, trimmed.hasSuffix("/") { trimmed.removeLast() }
        location = trimmed
        random = ambient.random
    }

    public func put(_ name: String, _ content: AlignedBuffer, ifAbsent: Bool) async throws {
        let temporary = "tmp/put-\(random(8).hex)"
        try makeDirectories(for: temporary)
        try makeDirectories(for: name)
        do {
            try write(content, to: temporary)
            try move(temporary, to: name, replace: !ifAbsent)
        } catch {
            unlink(path(temporary))
            throw error
        }
        try synchronizeDirectory(of: name)
    }

    public func get(_ name: String, _ range: ByteRange, limit: Int) async throws -> ObjectBytes {
        let file = Glibc.open(path(name), O_RDONLY | O_NONBLOCK | O_CLOEXEC)
        guard file >= 0 else { throw failure("read", name) }
        defer { close(file) }
        var status = stat()
        guard fstat(file, &status) == 0 else { throw failure("read", name) }
        guard status.st_mode & S_IFMT == S_IFREG else { throw StoreError(.failed, "read", name, "not a file") }
        let size = Int(status.st_size)
        let wanted: Range<Int>
        switch range {
        case .all: wanted = 0..<size
        case .from(let offset, let count): wanted = min(offset, size)..<min(offset + count, size)
        case .last(let count): wanted = max(size - count, 0)..<size
        }
        guard wanted.count <= limit else {
            throw StoreError(.tooLarge, "read", name, "\(wanted.count) bytes, at most \(limit) expected")
        }
        return try read(file, wanted, size, name)
    }

    public func info(_ name: String) async throws -> ObjectInfo? {
        var status = stat()
        guard lstat(path(name), &status) == 0 else {
            if errno == ENOENT || errno == ENOTDIR { return nil }
            throw failure("look up", name)
        }
        return ObjectInfo(name: name, size: Int(status.st_size), modified: Self.modified(status))
    }

    public func list(_ prefix: String) async throws -> [ObjectInfo] {
        var found: [ObjectInfo] = []
        var folder = prefix
        while folder.hasSuffix("/") { folder.removeLast() }
        try collect(folder, into: &found)
        return found.sorted { $0.name < $1.name }
    }

    public func delete(_ name: String) async throws {
        if unlink(path(name)) == 0 {
            // A snapshot that a power cut brings back after its packs went would be damage.
            if name.hasPrefix("v1/snapshots/") { try synchronizeDirectory(of: name) }
        } else if errno != ENOENT {
            throw failure("delete", name)
        }
        WorkPulse.beat()
    }

    // MARK: - Writing

    private func write(_ content: AlignedBuffer, to name: String) throws {
        let direct = content.count >= Self.directFrom
        var file = Glibc.open(path(name), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | (direct ? BGB_O_DIRECT : 0), 0o600)
        if file < 0, direct, errno == EINVAL {
            file = Glibc.open(path(name), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0o600)
        }
        guard file >= 0 else { throw failure("write", name) }
        defer { close(file) }
        // The last part of a block is not for direct I/O.
        let whole = content.count / AlignedBuffer.alignment * AlignedBuffer.alignment
        try write(content.pointer, 0..<whole, to: file, name)
        if whole < content.count {
            let flags = fcntl(file, F_GETFL)
            _ = fcntl(file, F_SETFL, flags & ~Int32(BGB_O_DIRECT))
            try write(content.pointer, whole..<content.count, to: file, name)
        }
        // An error of fsync is final: the pages are gone (PostgreSQL, 2018).
        guard fsync(file) == 0 else { throw failure("write", name) }
        posix_fadvise(file, 0, 0, POSIX_FADV_DONTNEED)
        if content.count >= Self.workFrom { WorkPulse.beat() }
    }

    private func write(_ base: UnsafeMutableRawPointer, _ range: Range<Int>, to file: Int32, _ name: String) throws {
        var offset = range.lowerBound
        while offset < range.upperBound {
            let written = pwrite(file, base + offset, min(range.upperBound - offset, 8 << 20), off_t(offset))
            if written < 0 {
                if errno == EINTR { continue }
                throw failure("write", name)
            }
            guard written > 0 else { throw StoreError(.failed, "write", name, "wrote nothing") }
            offset += written
        }
    }

    private func move(_ from: String, to name: String, replace: Bool) throws {
        if replace {
            guard rename(path(from), path(name)) == 0 else { throw failure("write", name) }
            return
        }
        if bgb_renameat_noreplace(AT_FDCWD, path(from), AT_FDCWD, path(name)) == 0 { return }
        guard errno == EINVAL || errno == ENOSYS else { throw failure("write", name) }
        // A file system without RENAME_NOREPLACE: a link never replaces either.
        guard link(path(from), path(name)) == 0 else { throw failure("write", name) }
        unlink(path(from))
    }

    private func makeDirectories(for name: String) throws {
        let parts = name.split(separator: "/").dropLast()
        for length in parts.indices {
            let folder = parts[...length].joined(separator: "/")
            if known.withLock({ $0.contains(folder) }) { continue }
            guard mkdir(path(folder), 0o700) == 0 || errno == EEXIST else { throw failure("make directory", folder) }
            // Also where it exists: whoever made it may have been killed before this.
            try synchronizeDirectory(of: folder)
            known.withLock { _ = $0.insert(folder) }
        }
    }

    private func synchronizeDirectory(of name: String) throws {
        let folder = name.split(separator: "/").dropLast().joined(separator: "/")
        let directory = Glibc.open(path(folder), O_RDONLY | O_DIRECTORY | O_CLOEXEC)
        guard directory >= 0 else { throw failure("write", name) }
        defer { close(directory) }
        guard fsync(directory) == 0 else { throw failure("write", name) }
    }

    // MARK: - Reading

    private func read(_ file: Int32, _ wanted: Range<Int>, _ size: Int, _ name: String) throws -> ObjectBytes {
        let alignment = AlignedBuffer.alignment
        let direct = wanted.count >= Self.directFrom && makeDirect(file)
        let begin = direct ? wanted.lowerBound / alignment * alignment : wanted.lowerBound
        let buffer = AlignedBuffer(capacity: wanted.upperBound - begin)
        var offset = begin
        while offset < wanted.upperBound {
            let room = buffer.capacity - (offset - begin)
            let count = direct ? room : wanted.upperBound - offset
            let got = pread(file, buffer.pointer + (offset - begin), min(count, 8 << 20), off_t(offset))
            if got < 0 {
                if errno == EINTR { continue }
                throw failure("read", name)
            }
            guard got > 0 else { throw StoreError(.failed, "read", name, "it ended at byte \(offset) of \(size)") }
            offset += got
        }
        if wanted.count >= Self.workFrom { WorkPulse.beat() }
        return ObjectBytes(buffer, start: wanted.lowerBound - begin, count: wanted.count, objectSize: size)
    }

    private func makeDirect(_ file: Int32) -> Bool {
        fcntl(file, F_SETFL, fcntl(file, F_GETFL) | Int32(BGB_O_DIRECT)) == 0
    }

    private func collect(_ folder: String, into found: inout [ObjectInfo]) throws {
        guard let directory = opendir(path(folder)) else {
            if errno == ENOENT { return }
            throw failure("list", folder)
        }
        defer { closedir(directory) }
        while true {
            errno = 0
            guard let entry = readdir(directory) else {
                guard errno == 0 else { throw failure("list", folder) }
                return
            }
            let name = withUnsafeBytes(of: &entry.pointee.d_name) { raw in
                String(decoding: raw.prefix { $0 != 0 }, as: UTF8.self)
            }
            if name == "." || name == ".." { continue }
            let full = "\(folder)/\(name)"
            var status = stat()
            guard lstat(path(full), &status) == 0 else {
                if errno == ENOENT { continue }
                throw failure("list", full)
            }
            if status.st_mode & S_IFMT == S_IFDIR {
                try collect(full, into: &found)
            } else {
                found.append(ObjectInfo(name: full, size: Int(status.st_size), modified: Self.modified(status)))
            }
        }
    }

    // MARK: - Helpers

    private func path(_ name: String) -> String { name.isEmpty ? location : "\(location)/\(name)" }

    private static func modified(_ status: stat) -> Int64 {
        Int64(status.st_mtim.tv_sec) * 1_000_000_000 + Int64(status.st_mtim.tv_nsec)
    }

    private func failure(_ operation: String, _ name: String) -> StoreError {
        let code = errno
        let kind: StoreError.Kind =
            switch code {
            case ENOENT, ENOTDIR: .notFound
            case EEXIST: .exists
            case ENOSPC, EDQUOT: .full
            case EACCES, EPERM, EROFS: .denied
            default: .failed
            }
        return StoreError(kind, operation, path(name), String(cString: strerror(code)))
    }
}
