import Glibc

/// A directory of a volume that stands somewhere else: mounted, a subvolume of
/// its own, or behind a symbolic link.
public struct VolumePart: Sendable, Hashable {
    /// Relative to the volume's root; "" for the root itself.
    public let path: [UInt8]
    /// Where it is: absolute, without links.
    public let directory: String
    public let isLinked: Bool
}

/// The directories that together are a volume: the root, and what is mounted or
/// linked beneath it, as a write-ahead log on a disk of its own is.
public struct VolumeParts: Sendable {
    /// The root first.
    public private(set) var all: [VolumePart]
    /// Links that lead out of the volume and are not followed, because their
    /// target is not the volume's owner's.
    public private(set) var refused: [SourceError] = []

    public var root: VolumePart { all[0] }
    /// Beneath the root, by path.
    public var elsewhere: [VolumePart] { Array(all.dropFirst()) }
    /// Where links lead to: what a live tree has to be told.
    public var links: [[UInt8]: String] {
        Dictionary(elsewhere.filter(\.isLinked).map { ($0.path, $0.directory) }, uniquingKeysWith: { $1 })
    }

    private struct Place: Hashable { let device, inode: UInt64 }

    /// One directory or image file, with nothing beneath it.
    init(only place: String) { all = [VolumePart(path: [], directory: place, isLinked: false)] }

    /// Looks at every directory and link beneath `path`.
    public init(path: String) throws(SourceError) {
        let bytes = Array(path.utf8)
        guard let resolved = resolve(path) else { throw SourceError(path: bytes, operation: "open", errno: errno) }
        all = [VolumePart(path: [], directory: resolved, isLinked: false)]
        do throws(SystemError) {
            let top = try Descriptor(system("open") { Glibc.open(resolved, O_RDONLY | O_DIRECTORY | O_CLOEXEC) })
            let stat = try top.stat()
            var seen: Set<Place> = [Place(device: stat.device, inode: stat.inode)]
            walk(top, [], resolved, stat, owner: stat.owner, &seen)
        } catch {
            throw SourceError(bytes, error)
        }
    }

    /// What cannot be opened here is the scan's to report.
    private mutating func walk(
        _ directory: Descriptor, _ path: [UInt8], _ place: String, _ stat: FileStat, owner: UInt32,
        _ seen: inout Set<Place>
    ) {
        let listing = DirectoryListing(path: path, directory: directory) { _ in }
        while let entry = listing.next() {
            let childPath = listing.path(of: entry)
            let name = String(decoding: childPath[(path.isEmpty ? 0 : path.count + 1)...], as: UTF8.self)
            if name == CaptureArea.directoryName { continue }
            let childPlace = "\(place)/\(name)"
            switch entry.type {
            case Int(DT_DIR), Int(DT_UNKNOWN):
                guard
                    let child = try? listing.withName(
                        of: entry, { name throws(SystemError) in try directory.open(name, O_DIRECTORY) }),
                    let childStat = try? child.stat()
                else { continue }
                if childStat.device != stat.device {
                    all.append(VolumePart(path: childPath, directory: childPlace, isLinked: false))
                    seen.insert(Place(device: childStat.device, inode: childStat.inode))
                }
                walk(child, childPath, childPlace, childStat, owner: owner, &seen)
            case Int(DT_LNK):
                follow(childPath, childPlace, owner: owner, &seen)
            default: continue
            }
        }
    }

    /// A link to a directory outside is a part, if it is the volume's owner's:
    /// whoever may write into a volume must not have the agent read for him
    /// what he cannot.
    private mutating func follow(_ path: [UInt8], _ place: String, owner: UInt32, _ seen: inout Set<Place>) {
        guard let target = resolve(place), !isBeneath(target, root.directory) else { return }
        guard
            let directory = try? Descriptor(
                system("open", { Glibc.open(target, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW) })),
            let stat = try? directory.stat()
        else { return }  // a file, or nothing: it stays a link
        guard stat.owner == owner else {
            refused.append(
                SourceError(path: path, operation: "follow a link out of the volume to another owner's", errno: EACCES))
            return
        }
        guard seen.insert(Place(device: stat.device, inode: stat.inode)).inserted else { return }
        all.append(VolumePart(path: path, directory: target, isLinked: true))
        walk(directory, path, target, stat, owner: owner, &seen)
    }
}

/// The path without links, or nil with errno.
func resolve(_ path: String) -> String? {
    guard let resolved = realpath(path, nil) else { return nil }
    defer { free(resolved) }
    return String(cString: resolved)
}

func isBeneath(_ path: String, _ directory: String) -> Bool {
    path == directory || directory == "/" || path.hasPrefix(directory + "/")
}
