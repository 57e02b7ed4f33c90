import CLinux
import Glibc

/// The directory a restore writes into.
///
/// Every path is resolved beneath it by the kernel and passes no symbolic link,
/// so that a hostile snapshot, or somebody who puts a link in the way while the
/// restore runs, leads nowhere else. Things that are there already count as
/// made when they are what was asked for: a restore can be resumed.
public final class TargetTree: Sendable {
    let root: Descriptor

    /// Opens the directory. Links in `path` itself are followed; it is the operator's.
    /// - Parameter create: make it, and its parents, where it is missing
    public init(path: String, create: Bool) throws(TargetError) {
        let bytes = Array(path.utf8)
        do throws(SystemError) {
            if create { try makeDirectories(bytes) }
            root = try Descriptor(
                system("open") { Glibc.open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC) })
        } catch {
            throw TargetError(bytes, error)
        }
    }

    /// Whether nothing would be mixed with what a restore writes: the directory
    /// is missing, empty, or holds only an empty `lost+found`, as a fresh ext4
    /// volume does.
    public static func isEmpty(path: String) throws(TargetError) -> Bool {
        do throws(SystemError) {
            let top = try Descriptor(
                system("open") { Glibc.open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC) })
            guard try isEmpty(top, besides: "lost+found") else { return false }
            do throws(SystemError) {
                return try isEmpty(top.open("lost+found", O_DIRECTORY), besides: nil)
            } catch {
                // ENOTDIR, ELOOP: a file or link of that name is somebody's.
                if error.errno == ENOTDIR || error.errno == ELOOP { return false }
                guard error.errno == ENOENT else { throw error }
                return true
            }
        } catch {
            if error.errno == ENOENT { return true }
            throw TargetError(Array(path.utf8), error)
        }
    }

    private static func isEmpty(_ directory: Descriptor, besides name: String?) throws(SystemError) -> Bool {
        var failure: SystemError?
        let listing = DirectoryListing(path: [], directory: directory) { failure = $0 }
        if let failure { throw failure }
        while let entry = listing.next() {
            guard let name, listing.path(of: entry).elementsEqual(name.utf8) else { return false }
        }
        return true
    }

    /// Makes a directory with mode 0700, until its metadata is set. An existing
    /// one is fine, and becomes writable by its owner.
    public func makeDirectory(_ path: [UInt8]) throws(TargetError) {
        try attributed(path) { () throws(SystemError) in
            if path.isEmpty { return }
            try inParent(of: path) { parent, name throws(SystemError) in
                do throws(SystemError) {
                    try parent.call("make directory") { mkdirat($0, name, 0o700) }
                } catch {
                    guard error.errno == EEXIST else { throw error }
                    let stat = try parent.stat(name)
                    guard stat.kind == .directory else { throw error }
                    if stat.mode & S_IRWXU != S_IRWXU { try permit(path, stat.permissions | S_IRWXU) }
                }
            }
        }
    }

    /// Makes a file of mode 0600 that is one hole of `size` bytes. An existing
    /// regular file is fine and keeps its content up to `size`.
    ///
    /// - Parameter links: names that an existing file may have at the most. A
    ///   restore that resumes gives what the snapshot says; anything beyond is
    ///   a link that leads elsewhere.
    /// - Throws: `TargetError`; EEXIST where something else is there, ELOOP where a link is
    public func makeFile(_ path: [UInt8], size: Int64, links: UInt64 = 1) throws(TargetError) {
        try attributed(path) { () throws(SystemError) in
            let file = try openWritable(path, O_CREAT)
            let stat = try file.stat()
            guard stat.kind == .file, stat.links <= links else {
                throw SystemError(operation: "make file", errno: EEXIST)
            }
            if stat.size != size {
                try file.call("set the size of") { ftruncate($0, off_t(size)) }
            }
        }
    }

    /// Makes a symbolic link. An identical one is fine.
    public func makeSymlink(_ path: [UInt8], target: [UInt8]) throws(TargetError) {
        try attributed(path) { () throws(SystemError) in
            try inParent(of: path) { parent, name throws(SystemError) in
                do throws(SystemError) {
                    _ = try terminated(target) { target throws(SystemError) in
                        try parent.call("make link") { symlinkat(target, $0, name) }
                    }
                } catch {
                    guard error.errno == EEXIST, try parent.stat(name).kind == .symlink,
                        try parent.linkTarget(name) == target
                    else { throw error }
                }
            }
        }
    }

    /// Gives `existing`, which is no directory, another name. The name is fine
    /// if it stands for the same file already.
    public func makeHardLink(_ path: [UInt8], to existing: [UInt8]) throws(TargetError) {
        try attributed(path) { () throws(SystemError) in
            try inParent(of: existing) { oldParent, oldName throws(SystemError) in
                try inParent(of: path) { parent, name throws(SystemError) in
                    do throws(SystemError) {
                        try oldParent.link(oldName, to: name, in: parent)
                    } catch {
                        guard error.errno == EEXIST else { throw error }
                        let (old, new) = (try oldParent.stat(oldName), try parent.stat(name))
                        guard old.inode == new.inode, old.device == new.device else { throw error }
                    }
                }
            }
        }
    }

    /// Opens an existing regular file for writing.
    public func openForWriting(_ path: [UInt8]) throws(TargetError) -> TargetFile {
        try attributed(path) { () throws(SystemError) in
            let file = try openWritable(path, 0)
            let stat = try file.stat()
            guard stat.kind == .file else { throw SystemError(operation: "open", errno: EINVAL) }
            return TargetFile(path: path, file: file, size: stat.size, isDevice: false)
        }
    }

    /// Removes a file, link or empty directory. A missing one is fine.
    public func remove(_ path: [UInt8]) throws(TargetError) {
        try attributed(path) { () throws(SystemError) in
            do throws(SystemError) {
                try inParent(of: path) { parent, name throws(SystemError) in
                    let isDirectory = try parent.stat(name).kind == .directory
                    try parent.call("remove") { unlinkat($0, name, isDirectory ? AT_REMOVEDIR : 0) }
                }
            } catch {
                guard error.errno == ENOENT else { throw error }
            }
        }
    }

    /// Puts everything that was written, data and metadata, on stable storage.
    /// An EIO is final: the kernel has dropped the pages, and a second call
    /// would succeed without them.
    public func synchronize() throws(TargetError) {
        try attributed([]) { () throws(SystemError) in _ = try root.call("sync") { bgb_syncfs($0) } }
    }

    // MARK: - Opening

    /// Opens for reading and writing. A file of our own that got its read-only
    /// mode before the restore was interrupted becomes writable again.
    private func openWritable(_ path: [UInt8], _ flags: Int32) throws(SystemError) -> Descriptor {
        try checkRelative(path)
        let flags = flags | O_RDWR | O_NOFOLLOW | O_NONBLOCK
        let mode: UInt32 = flags & O_CREAT == 0 ? 0 : 0o600
        do throws(SystemError) {
            return try root.openBeneath(path, flags, mode: mode)
        } catch {
            guard error.errno == EACCES, (try? permit(path, 0o600)) != nil else { throw error }
            return try root.openBeneath(path, flags, mode: mode)
        }
    }

    /// Changes the mode of a file or directory that cannot be opened as it is.
    func permit(_ path: [UInt8], _ mode: UInt32) throws(SystemError) {
        let node = try root.openBeneath(path, BGB_O_PATH | O_NOFOLLOW)
        let kind = try node.stat().kind
        guard kind == .file || kind == .directory else { throw SystemError(operation: "set mode", errno: EEXIST) }
        try node.call("set mode of") { chmod("/proc/self/fd/\($0)", mode) }
    }

    func attributed<Value>(
        _ path: [UInt8], _ body: () throws(SystemError) -> Value
    ) throws(TargetError) -> Value {
        do throws(SystemError) { return try body() } catch { throw TargetError(path, error) }
    }

    /// Calls with the directory that holds the last component, and its name.
    func inParent<Value>(
        of path: [UInt8], _ body: (Descriptor, UnsafePointer<CChar>) throws(SystemError) -> Value
    ) throws(SystemError) -> Value {
        try checkRelative(path)
        guard !path.isEmpty else { throw SystemError(operation: "use the path", errno: EINVAL) }
        var parent = root
        var name = path[...]
        if let slash = path.lastIndex(of: UInt8(ascii: "/")) {
            parent = try root.openBeneath(Array(path[..<slash]), BGB_O_PATH | O_DIRECTORY)
            name = path[(slash + 1)...]
        }
        return try terminated(Array(name)) { name throws(SystemError) in try body(parent, name) }
    }
}

/// Makes the directory and its parents; existing ones are fine. The last is
/// mode 0700: nobody else looks into a half restored volume.
private func makeDirectories(_ path: [UInt8]) throws(SystemError) {
    var ends = path.indices.filter { $0 > 0 && path[$0] == UInt8(ascii: "/") }
    ends.append(path.endIndex)
    for end in ends {
        do throws(SystemError) {
            _ = try terminated(Array(path[..<end])) { name throws(SystemError) in
                try system("make directory") { mkdir(name, end == path.endIndex ? 0o700 : 0o755) }
            }
        } catch {
            // EROFS, EACCES: an existing parent that we could not have made; opening tells.
            guard [EEXIST, EROFS, EACCES].contains(error.errno), end != path.endIndex || error.errno == EEXIST
            else { throw error }
        }
    }
}
