import CLinux
import Glibc

/// A directory tree that is read.
public final class SourceTree: Sendable {
    private let root: Descriptor
    /// Of the root, when it was opened.
    public let stat: FileStat

    /// Whether somebody may write while it is read.
    let isLive: Bool
    /// Directories that stand elsewhere, by where they belong.
    private let grafts: [[UInt8]: Descriptor]

    /// Opens the root. Links in `path` itself are followed; it is the operator's.
    ///
    /// - Parameters:
    ///   - isLive: false for what nobody can write to
    ///   - grafts: directories, absolute, that are read in place of what the
    ///     tree has at these paths (`VolumeParts`)
    /// - Throws: `SourceError`, ENOTDIR where it is no directory
    public init(path: String, isLive: Bool = true, grafts: [[UInt8]: String] = [:]) throws(SourceError) {
        self.isLive = isLive
        var opened: [[UInt8]: Descriptor] = [:]
        for (place, directory) in grafts {
            do throws(SystemError) {
                opened[place] = try Descriptor.withoutAccessTime { noatime throws(SystemError) in
                    try Descriptor(
                        system("open") { Glibc.open(directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW | noatime) })
                }
            } catch {
                throw SourceError(place, error)
            }
        }
        self.grafts = opened
        do throws(SystemError) {
            root = try Descriptor.withoutAccessTime { noatime throws(SystemError) in
                try Descriptor(
                    system("open") { Glibc.open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC | noatime) })
            }
            stat = try root.stat()
        } catch {
            throw SourceError(Array(path.utf8), error)
        }
    }

    /// Directories that are open already: no path leads anywhere else meanwhile.
    init(root: Descriptor, isLive: Bool, grafts: [[UInt8]: Descriptor]) throws(SystemError) {
        self.root = root
        self.isLive = isLive
        self.grafts = grafts
        stat = try root.stat()
    }

    /// Whether a store through a mapping moves the modification time after
    /// `settle`. Memory file systems never write a page out, so there it moves
    /// with the first store only, and an equal time proves nothing.
    public var noticesMappedWrites: Bool {
        var info = statfs()
        guard (try? root.call("stat") { fstatfs($0, &info) }) != nil else { return false }
        let (tmpfs, ramfs): (UInt32, UInt32) = (0x0102_1994, 0x8584_58f6)
        return ![tmpfs, ramfs].contains(UInt32(truncatingIfNeeded: info.f_type))
    }

    /// Visits the root and then everything beneath it, depth first, the children
    /// of a directory in the byte order of their names, a directory before its
    /// content.
    ///
    /// - Parameters:
    ///   - settle: clean the dirty pages of each regular file just before it is
    ///     looked at, so that a later store through a mapping moves its time
    ///   - known: files of which the attributes are known are not opened; not with `settle`
    ///   - exclude: true → neither visited nor descended into
    ///   - problem: gets what could not be read; the scan goes on. A directory
    ///     that cannot be listed is visited all the same, other things are not.
    ///   - visit: may throw to stop the scan
    /// - Throws: what `visit` throws
    public func scan(
        settle: Bool,
        remembering known: KnownAttributes? = nil,
        exclude: (_ path: [UInt8], _ isDirectory: Bool) -> Bool,
        problem: (SourceError) -> Void,
        visit: (ScannedNode) throws -> Void
    ) throws {
        var levels: [DirectoryListing] = []
        func descend(_ node: ScannedNode, _ directory: Descriptor) {
            levels.append(
                DirectoryListing(path: node.path, directory: directory) { problem(SourceError(node.path, $0)) })
        }

        let top: (ScannedNode, Descriptor)
        do throws(SystemError) {
            top = try openRoot()
        } catch {
            return problem(SourceError([], error))
        }
        try visit(top.0)
        descend(top.0, top.1)

        while let level = levels.last {
            guard let entry = level.next() else {
                levels.removeLast()
                continue
            }
            let path = level.path(of: entry)
            let found: Found
            do throws(SystemError) {
                let type = try level.type(of: entry)
                if exclude(path, type == DT_DIR) {
                    level.skip(entry)
                    continue
                }
                if let graft = grafts[path] {
                    level.skip(entry)
                    found = try Found(directory: graft, path: path)
                } else {
                    found = try level.examine(entry, type: type, path: path, settle: settle, known)
                }
            } catch {
                problem(SourceError(path, error))
                continue
            }
            try visit(found.node)
            if let error = found.closed { problem(SourceError(path, error)) }
            if let directory = found.directory { descend(found.node, directory) }
        }
    }

    /// Opens a regular file for reading. No link on the way is followed.
    /// - Throws: `SourceError`; EINVAL where it is no regular file
    public func open(_ path: [UInt8]) throws(SourceError) -> SourceFile {
        do throws(SystemError) {
            try checkRelative(path)
            let (base, path) = base(of: path)
            let file = try Descriptor.withoutAccessTime { noatime throws(SystemError) in
                try base.openBeneath(path, O_RDONLY | O_NONBLOCK | O_NOFOLLOW | noatime)
            }
            let stat = try file.stat()
            guard stat.kind == .file else { throw SystemError(operation: "open", errno: EINVAL) }
            return SourceFile(path: path, reader: BlockReader(file, size: stat.size))
        } catch {
            throw SourceError(path, error)
        }
    }

    /// The directory that a path is beneath, and the rest of the path.
    private func base(of path: [UInt8]) -> (Descriptor, [UInt8]) {
        var best: (Descriptor, [UInt8]) = (root, path)
        for (place, directory) in grafts {
            guard path.count > place.count, path.starts(with: place), path[place.count] == UInt8(ascii: "/") else { continue }
            let rest = Array(path[(place.count + 1)...])
            if rest.count < best.1.count { best = (directory, rest) }
        }
        return best
    }

    /// A descriptor of its own, because a directory has one reading position
    /// and two scans may run at once.
    private func openRoot() throws(SystemError) -> (ScannedNode, Descriptor) {
        let directory = try root.open(".", O_DIRECTORY)
        let node = ScannedNode(
            path: [], kind: .directory, stat: try directory.stat(), attributes: try directory.attributes())
        return (node, directory)
    }
}

/// What a scan learned about one entry.
private struct Found {
    var node: ScannedNode
    /// Of a directory, to descend into.
    var directory: Descriptor?
    /// Of a directory that could not be opened.
    var closed: SystemError?

    init(node: ScannedNode, directory: Descriptor? = nil, closed: SystemError? = nil) {
        self.node = node
        self.directory = directory
        self.closed = closed
    }

    /// Of a directory that stands elsewhere.
    init(directory graft: Descriptor, path: [UInt8]) throws(SystemError) {
        // A descriptor of its own: a directory has one reading position.
        let directory = try graft.open(".", O_DIRECTORY)
        node = ScannedNode(
            path: path, kind: .directory, stat: try directory.stat(), attributes: try directory.attributes())
        self.directory = directory
    }
}

extension DirectoryListing {
    /// As DT_… .
    fileprivate func type(of entry: Entry) throws(SystemError) -> Int {
        if entry.type != DT_UNKNOWN { return entry.type }
        return Int(try stat(of: entry).mode >> 12)  // S_IF… >> 12 is DT_…
    }

    private func stat(of entry: Entry) throws(SystemError) -> FileStat {
        try withName(of: entry) { name throws(SystemError) in try directory.stat(name) }
    }

    fileprivate func examine(
        _ entry: Entry, type: Int, path: [UInt8], settle: Bool, _ known: KnownAttributes?
    ) throws(SystemError) -> Found {
        switch type {
        case DT_REG where known != nil && !settle:
            let stat = try stat(of: entry)
            guard let attributes = known?.attributes(of: stat) else {
                return try examine(entry, type: type, path: path, settle: settle, nil)
            }
            return Found(node: ScannedNode(path: path, kind: stat.kind, stat: stat, attributes: attributes))
        case DT_REG:
            // Opening, fstat and flistxattr together cost less than fstatat
            // and one llistxattr by path.
            let file = try openFile(entry, settle: settle)
            let stat = try file.stat()
            return Found(
                node: ScannedNode(path: path, kind: stat.kind, stat: stat, attributes: try file.attributes()))
        case DT_DIR:
            return try examineDirectory(entry, path: path)
        case DT_LNK:
            let stat = try stat(of: entry)
            let target = try withName(of: entry) { name throws(SystemError) in try directory.linkTarget(name) }
            return Found(node: ScannedNode(path: path, kind: .symlink, stat: stat, linkTarget: target))
        default:
            return Found(node: ScannedNode(path: path, kind: .special, stat: try stat(of: entry)))
        }
    }

    private func examineDirectory(_ entry: Entry, path: [UInt8]) throws(SystemError) -> Found {
        let child: Descriptor
        do throws(SystemError) {
            child = try withName(of: entry) { name throws(SystemError) in try directory.open(name, O_DIRECTORY) }
        } catch {
            let stat = try stat(of: entry)
            guard stat.kind == .directory else { throw error }
            return Found(node: ScannedNode(path: path, kind: .directory, stat: stat), closed: error)
        }
        let node = ScannedNode(
            path: path, kind: .directory, stat: try child.stat(), attributes: try child.attributes())
        return Found(node: node, directory: child)
    }
}

/// A path from a root that says where it leads by itself: no empty component,
/// no "." or "..", no NUL. "" is the root.
/// - Throws: EINVAL
func checkRelative(_ path: [UInt8]) throws(SystemError) {
    if path.isEmpty { return }
    for part in path.split(separator: UInt8(ascii: "/"), omittingEmptySubsequences: false) {
        if part.isEmpty || part.elementsEqual(".".utf8) || part.elementsEqual("..".utf8) || part.contains(0) {
            throw SystemError(operation: "use the path", errno: EINVAL)
        }
    }
}
