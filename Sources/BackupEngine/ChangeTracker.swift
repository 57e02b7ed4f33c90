import BackupBase
import BackupRepository
import Glibc
import QdrantStorage
import VolumeIO

/// Looks at what is known of files that changed, before they are read.
struct ChangeTracker {
    let state: LocalState?
    let lists: BlockListStore?
    let capture: (any Capture)?
    let executor: BlockingExecutor
    /// Whether a new snapshot may refer to a pack.
    let mayUse: (ObjectID) -> Bool
    private var toNext = Self.gap()

    init(
        state: LocalState?, lists: BlockListStore?, capture: (any Capture)?, on executor: BlockingExecutor,
        mayUse: @escaping (ObjectID) -> Bool
    ) {
        (self.state, self.lists, self.capture, self.executor) = (state, lists, capture, executor)
        self.mayUse = mayUse
    }

    /// One stretch in so many is read though it is said to be unchanged.
    private static let sample = 100

    mutating func parents(of volume: VolumeScan, where isChanged: (Int) -> Bool) async throws -> [Int: TrackedParent] {
        var parents: [Int: TrackedParent] = [:]
        var last: Compared?
        var isAudited = false
        for file in try await compare(volume, where: isChanged) {
            let size = volume.nodes[file.index].stat.size
            let parent = TrackedParent(file.list, changed: file.changed, size: size) { isSampled() }
            isAudited = isAudited || parent.reads.contains(where: \.isAudit)
            parents[file.index] = parent
            if parent.bytesToRead < size { last = file }
        }
        // Never a run that believes everything.
        if !isAudited, let last {
            let size = volume.nodes[last.index].stat.size
            var isFirst = true
            parents[last.index] = TrackedParent(last.list, changed: last.changed, size: size) {
                defer { isFirst = false }
                return isFirst
            }
        }
        return parents
    }

    /// How many stretches are passed over before the next that is read, if each
    /// is read with the same chance: asking the system for chance at each is a
    /// system call each.
    private static func gap() -> Int { Int(log(Double.random(in: 0x1p-53..<1)) / log(1 - 1 / Double(sample))) }

    private mutating func isSampled() -> Bool {
        guard toNext == 0 else {
            toNext -= 1
            return false
        }
        toNext = Self.gap()
        return true
    }

    private struct Compared: Sendable {
        let index: Int
        let list: BlockList
        let changed: [Range<Int64>]
    }

    /// Files that are looked at at once. Each costs a few reads of metadata, one
    /// after the other, so that a disk is kept busy only by many.
    private static let width = 16

    /// Compares files with what the kept capture has.
    private func compare(_ volume: VolumeScan, where isChanged: (Int) -> Bool) async throws -> [Compared] {
        guard let state, let lists, let capture else { return [] }
        var candidates = volume.nodes.indices.filter {
            volume.holdsContent($0) && isChanged($0) && volume.nodes[$0].stat.size > ReadQueue.stretch
        }[...]
        // Comparing with what was kept changes nothing of a capture.
        nonisolated(unsafe) let kept = capture
        var results = OrderedMap<Int, Compared?>(
            width: Self.width, on: executor, from: { candidates.popFirst() },
            transform: { index in
                let node = volume.nodes[index]
                guard let known = state.find(node.path), known.stamp.inode == node.stat.inode,
                    let content = try? Content(decoding: known.content),
                    content.blockSize == volume.fileClass(node.path).blockSize,
                    let list = lists.find(node.path, content: content),
                    let changed = kept.changedRanges(of: node, since: content.size)
                else { return nil }
                return Compared(index: index, list: list, changed: changed)
            })
        var found: [Compared] = []
        while let result = try await results.next() {
            if let result, result.list.packs.allSatisfy(mayUse) { found.append(result) }
        }
        return found
    }
}
