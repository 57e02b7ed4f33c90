import BackupBase
import CLinux
import Glibc

/// The directory in which captures of a volume's part stand: on its own file
/// system, beside it or, where it fills a file system, in it.
///
/// Its lock is held for as long as the object lives. Whatever else stands in it
/// then was left by a run that was killed, and is removed.
public final class CaptureArea {
    /// Never backed up (`ScratchPath`).
    public static let directoryName = ".bgbackup"
    static let takenName = "taken"

    public let path: String
    let directory: Descriptor
    private let lock: Descriptor
    private let isBtrfs: Bool

    /// - Throws: `CaptureError`; `isBusy` where another run holds it
    convenience init(of part: VolumePart) throws(CaptureError) {
        let place: (base: String, name: String, isBtrfs: Bool)
        do throws(SystemError) {
            let source = try Descriptor(
                system("open") { open(part.directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC) })
            let parent = Self.parent(part)
            let base = Self.isTogether(parent.isEmpty ? "/" : parent, source) ? parent : part.directory
            place = (base, Self.name(try source.stat()), try source.isBtrfs)
        } catch {
            throw Self.noRoom(part, error)
        }
        try self.init(of: part, in: place.base, name: place.name, isBtrfs: place.isBtrfs)
    }

    /// Of an image file, beside it. Named after its name and not its inode: one
    /// that is replaced takes over the area, and nothing stays of the one before.
    convenience init(ofImage part: VolumePart) throws(CaptureError) {
        let isBtrfs: Bool
        do throws(SystemError) {
            isBtrfs = try Descriptor(system("open") { open(part.directory, O_RDONLY | O_NONBLOCK | O_CLOEXEC) }).isBtrfs
        } catch {
            throw Self.noRoom(part, error)
        }
        let name = part.directory.split(separator: "/").last.map { "image-\($0)" } ?? "image"
        try self.init(of: part, in: Self.parent(part), name: name, isBtrfs: isBtrfs)
    }

    private init(of part: VolumePart, in base: String, name: String, isBtrfs: Bool) throws(CaptureError) {
        self.isBtrfs = isBtrfs
        path = "\(base)/\(Self.directoryName)/\(name)"
        do throws(SystemError) {
            for place in ["\(base)/\(Self.directoryName)", path] {
                guard mkdir(place, 0o700) == 0 || errno == EEXIST else {
                    throw SystemError(operation: "make the directory \(place)", errno: errno)
                }
            }
            // Whoever may write to the parent must not have put a place of his
            // own there, in which root would make and remove things for him.
            let folder = "\(base)/\(Self.directoryName)"
            let top = try Descriptor(
                system("use \(folder)") { open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW) })
            guard try top.stat().owner == geteuid() else { throw SystemError(operation: "use \(folder)", errno: EPERM) }
            directory = try top.openBeneath(Array(name.utf8), O_RDONLY | O_DIRECTORY | O_NOFOLLOW)
            lock = try directory.openBeneath(Array("lock".utf8), O_RDWR | O_CREAT, mode: 0o600)
            guard try directory.stat().owner == geteuid() else { throw SystemError(operation: "use \(path)", errno: EPERM) }
        } catch {
            throw Self.noRoom(part, error)
        }
        do throws(SystemError) {
            try lock.call("lock") { bgb_flock($0, LOCK_EX | LOCK_NB) }
        } catch {
            throw CaptureError("another capture of \(part.directory) is under way", hint: "Wait for it to end.", isBusy: true)
        }
    }

    private static func noRoom(_ part: VolumePart, _ error: SystemError) -> CaptureError {
        CaptureError("there is no room for a capture of \(part.directory)", error, hint: "Give another method with --capture.")
    }

    private static func parent(_ part: VolumePart) -> String {
        part.directory.split(separator: "/").dropLast().map { "/" + $0 }.joined()
    }

    private static func name(_ stat: FileStat) -> String {
        String(stat.inode, radix: 16) + "-" + String(stat.device, radix: 16)
    }

    /// Thaws what a run left frozen that was killed together with its guard.
    /// Writes nothing before: it would wait for the thaw.
    /// - Returns: what was thawed
    public static func thawLeftovers(_ parts: VolumeParts) -> [String] {
        var value = Glibc.stat()
        guard stat(parts.root.directory, &value) == 0 else { return [] }
        for base in [parent(parts.root), parts.root.directory] {
            let marker = FreezeMarker(directory: "\(base)/\(directoryName)/\(name(FileStat(value)))")
            let thawed = marker.thaw()
            if !thawed.isEmpty { return thawed }
        }
        return []
    }

    /// Whether extents of one may be shared by the other: asked of the kernel,
    /// because device numbers differ between subvolumes of one file system.
    private static func isTogether(_ parent: String, _ source: Descriptor) -> Bool {
        guard let directory = try? Descriptor(system("open", { open(parent, O_RDONLY | O_DIRECTORY | O_CLOEXEC) })),
            let one = try? directory.stat(), let other = try? source.stat()
        else { return false }
        if one.device == other.device { return true }
        guard (try? directory.isBtrfs) == true, (try? source.isBtrfs) == true else { return false }
        return (try? Descriptor.canClone(from: source, to: directory)) ?? false
    }

    /// Whether something is kept for the next run, under the name of the snapshot it belongs to.
    func kept(_ token: String) -> Bool {
        let stat = try? terminated(Array("kept-\(token)".utf8)) { name throws(SystemError) in try directory.stat(name) }
        return stat?.kind == .directory
    }

    /// Removes all but what is kept under `token`.
    /// - Returns: names of what a killed run had left
    @discardableResult
    func clean(except token: String?) throws(CaptureError) -> [String] {
        var leftovers: [String] = []
        for name in names(of: path).sorted() where name != "lock" && name != token.map({ "kept-\($0)" }) {
            if name == Self.takenName { leftovers.append("\(path)/\(name)") }
            try remove(name)
        }
        return leftovers
    }

    /// Keeps what was taken, in place of what was kept before.
    func keep(as token: String) throws(CaptureError) {
        do throws(SystemError) {
            try directory.call("keep the capture") { number in
                bgb_renameat_noreplace(number, Self.takenName, number, "kept-\(token)")
            }
        } catch {
            throw CaptureError("the capture cannot be kept for the next backup", error)
        }
        try clean(except: token)
    }

    /// Bytes that only the capture kept under `token` has any more, because the
    /// volume's files were written to, shortened or removed since: what its
    /// extents share with nobody. Files are looked at, not read.
    ///
    /// - Parameters:
    ///   - part: where in it the volume is
    ///   - unchanged: inodes of files that need not be looked at
    func bytesPinned(_ token: String?, part: String = "", except unchanged: Set<UInt64>) -> Int64 {
        guard let token, let top = try? directory.openBeneath(Array("kept-\(token)".utf8), O_RDONLY | O_DIRECTORY | O_NOFOLLOW),
            let root = try? top.openBeneath(Array(part.utf8), O_RDONLY | O_DIRECTORY), let stat = try? top.stat()
        else { return 0 }
        // Clones are called by their files' inodes; files of a snapshot have them.
        return root.unsharedBytes(except: unchanged, areClones: !isBtrfs || stat.inode != 256)
    }

    func remove(_ name: String) throws(CaptureError) {
        do throws(SystemError) {
            try directory.removeTree(name, isBtrfs: isBtrfs)
        } catch {
            throw CaptureError("the capture \(path)/\(name) cannot be removed", error)
        }
    }
}

extension Descriptor {
    var isBtrfs: Bool {
        get throws(SystemError) {
            var info = statfs()
            try call("stat") { fstatfs($0, &info) }
            return UInt32(truncatingIfNeeded: info.f_type) == 0x9123_683e
        }
    }

    /// Whether files in one directory can share extents with files in the other.
    static func canClone(from source: Descriptor, to target: Descriptor) throws(SystemError) -> Bool {
        let one = try source.openBeneath([UInt8(ascii: ".")], O_RDWR | BGB_O_TMPFILE, mode: 0o600)
        let other = try target.openBeneath([UInt8(ascii: ".")], O_RDWR | BGB_O_TMPFILE, mode: 0o600)
        let page = [UInt8](repeating: 1, count: 4096)
        try one.call("write") { write($0, page, page.count) }
        return (try? one.call("clone") { from in (try? other.call("clone") { bgb_clone($0, from) }) ?? -1 }) != nil
    }

    /// Bytes of the files beneath this directory that share their place on the disk with no other file.
    fileprivate func unsharedBytes(except unchanged: Set<UInt64>, areClones: Bool) -> Int64 {
        var bytes: Int64 = 0
        let listing = DirectoryListing(path: [], directory: self) { _ in }
        while let entry = listing.next() {
            if entry.type == DT_DIR {
                let child = try? openBeneath(listing.path(of: entry), O_RDONLY | O_DIRECTORY | O_NOFOLLOW)
                bytes += child?.unsharedBytes(except: unchanged, areClones: areClones) ?? 0
            } else if entry.type == DT_REG {
                let name = listing.path(of: entry)
                let inode = areClones ? UInt64(String(decoding: name, as: UTF8.self), radix: 16) : inode(of: name)
                if let inode, unchanged.contains(inode) { continue }
                guard let file = try? openBeneath(name, O_RDONLY | O_NOFOLLOW), let extents = try? file.extents() else {
                    continue
                }
                bytes += extents.reduce(0) { $0 + ($1.isAlone ? $1.length : 0) }
            }
        }
        return bytes
    }

    private func inode(of name: [UInt8]) -> UInt64? {
        try? terminated(name) { name throws(SystemError) in try stat(name).inode }
    }

    /// Removes a file, or a directory and all that is in it, without following links.
    func removeTree(_ name: String, isBtrfs: Bool) throws(SystemError) {
        do throws(SystemError) {
            let stat = try terminated(Array(name.utf8)) { name throws(SystemError) in try self.stat(name) }
            guard stat.kind == .directory else {
                _ = try call("remove") { unlinkat($0, name, 0) }
                return
            }
            // The root of every subvolume is inode 256.
            if isBtrfs, stat.inode == 256 {
                _ = try call("remove the snapshot") { bgb_btrfs_remove($0, name) }
                return
            }
            let child = try openBeneath(Array(name.utf8), O_RDONLY | O_DIRECTORY | O_NOFOLLOW)
            var failure: SystemError?
            let listing = DirectoryListing(path: [], directory: child) { failure = $0 }
            if let failure { throw failure }
            while let entry = listing.next() {
                let inner = listing.path(of: entry)
                if entry.type == DT_REG {
                    _ = try terminated(inner) { inner throws(SystemError) in
                        try child.call("remove") { unlinkat($0, inner, 0) }
                    }
                } else {
                    try child.removeTree(String(decoding: inner, as: UTF8.self), isBtrfs: isBtrfs)
                }
            }
            _ = try call("remove") { unlinkat($0, name, AT_REMOVEDIR) }
        } catch {
            guard error.errno == ENOENT else { throw error }
        }
    }
}
