import BackupBase
import BackupRepository
import CLinux
import Glibc
import VolumeIO

/// What the node remembers of a target that a restore left whole: the snapshot,
/// and of each name the stat. With it `--refresh` knows what the target holds
/// without reading it, and that nobody has written to it since.
///
/// It has the format of `LocalState`: authenticated, names as keyed hashes only.
/// It is not in the target, which is the database's. Lost, the target can only
/// be restored anew.
struct TargetNote {
    let snapshot: ObjectID
    /// How metadata was set: `manner`.
    let manner: [UInt8]
    private let state: LocalState

    /// Opens the note on a target; nil where there is none that can be trusted.
    init?(_ place: String, _ repository: Repository) {
        guard let state = LocalState(path: place, repository: repository.id, hasher: repository.keys.stateHasher),
            let root = state.find([])
        else { return nil }
        snapshot = state.snapshot
        manner = Array(root.content)
        self.state = state
    }

    /// Whether a name looks as it was left. Of the root only what it is: its
    /// times move with the marker, and names in it that come or go are seen.
    /// - Parameter modified: the time that a refresh under way may have set,
    ///   with other metadata; who writes to a file moves its time to now
    /// - Returns: nil where nothing of that name was left
    func isAsLeft(_ path: [UInt8], _ stat: FileStat, orModified modified: Int64?) -> Bool? {
        guard let stamp = state.find(path)?.stamp else { return nil }
        let now = LocalState.Stamp(stat)
        if path.isEmpty { return stamp.inode == now.inode }
        guard let modified else { return stamp == now }
        return stamp.inode == now.inode && stamp.size == now.size && [stamp.modified, modified].contains(now.modified)
    }

    /// Where the note on a target is kept: by its path, links resolved, and by
    /// the file system that is there. Nil where there is no such directory.
    static func place(of target: String, in directory: String?, _ repository: Repository) -> String? {
        guard let directory, let resolved = realpath(target, nil) else { return nil }
        defer { free(resolved) }
        var system = statfs()
        guard statfs(resolved, &system) == 0 else { return nil }
        let number = system.f_fsid.__val
        let name = Array("\(String(cString: resolved))\0\(system.f_type) \(number.0) \(number.1)".utf8)
        let folder = "\(directory)/\(repository.id)"
        let key = name.withUnsafeBytes { repository.keys.stateHasher.id(of: $0).bytes.prefix(8).hex }
        return LocalFile.makeDirectory(folder) ? "\(folder)/\(key).target" : nil
    }

    /// What besides the snapshot decides on the metadata of a restored target.
    static func manner(owner: (user: UInt32, group: UInt32)?, hasProblems: Bool) -> [UInt8] {
        Array((owner.map { "\($0.user):\($0.group)" } ?? "stored").utf8) + (hasProblems ? Array(" with problems".utf8) : [])
    }

    /// Writes the note on a tree that is whole, its marker aside. Names that the
    /// restore did not make are not noted: they will be found to be new.
    /// - Returns: false where it cannot be kept; no older one is left then
    static func write(
        _ place: String, _ tree: TargetTree, _ names: Set<[UInt8]>, _ snapshot: ObjectID, manner: [UInt8],
        _ repository: Repository
    ) -> Bool {
        var next = LocalState.Builder(hasher: repository.keys.stateHasher)
        do {
            try tree.forEachNode { path, stat in
                guard names.contains(path) || path == lostAndFound else { return }
                next.add(path, LocalState.Stamp(stat), racy: false, content: path.isEmpty ? manner : [])
            }
            if next.write(to: place, repository: repository.id, snapshot: snapshot) { return true }
        } catch {}
        unlink(place)
        return false
    }

    /// A fresh ext4 has it, and a restore leaves it.
    static let lostAndFound = Array("lost+found".utf8)
}
