import BackupBase
import BackupRepository
import Dispatch
import QdrantStorage
import VolumeIO

/// Looks at what is known of files that changed, before they are read.
struct ChangeTracker {
    let state: LocalState?
    let lists: BlockListStore?
    let capture: (any Capture)?
    private var random = SystemRandomNumberGenerator()

    init(state: LocalState?, lists: BlockListStore?, capture: (any Capture)?) {
        (self.state, self.lists, self.capture) = (state, lists, capture)
    }

    /// One stretch in so many is read though it is said to be unchanged.
    private static let sample = 100

    mutating func parents(of volume: VolumeScan, where isChanged: (Int) -> Bool) -> [Int: TrackedParent] {
        var parents: [Int: TrackedParent] = [:]
        var last: Compared?
        var isAudited = false
        for file in compare(volume, where: isChanged) {
            let size = volume.nodes[file.index].stat.size
            let parent = TrackedParent(file.list, changed: file.changed, size: size) {
                Int.random(in: 0..<Self.sample, using: &random) == 0
            }
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

    private struct Compared: Sendable {
        let index: Int
        let list: BlockList
        let changed: [Range<Int64>]
    }

    /// Compares files with what the kept capture has. Each costs a few reads of
    /// metadata, one after the other: eight files at once keep a disk busy.
    private func compare(_ volume: VolumeScan, where isChanged: (Int) -> Bool) -> [Compared] {
        guard let state, let lists, let capture else { return [] }
        let candidates = volume.nodes.indices.filter {
            volume.holdsContent($0) && isChanged($0) && volume.nodes[$0].stat.size > ReadQueue.stretch
        }
        let nodes = candidates.map { volume.nodes[$0] }
        // Comparing with what was kept changes nothing of a capture.
        nonisolated(unsafe) let kept = capture
        let found = Locked<[Compared]>([])
        let next = Locked(0)
        DispatchQueue.concurrentPerform(iterations: min(8, nodes.count)) { _ in
            while true {
                let position = next.withLock { value in
                    defer { value += 1 }
                    return value
                }
                guard position < nodes.count else { return }
                let node = nodes[position]
                guard let known = state.find(node.path), known.stamp.inode == node.stat.inode,
                    let content = try? Content(decoding: known.content),
                    content.blockSize == volume.fileClass(node.path).blockSize,
                    let list = lists.find(node.path, content: content),
                    let changed = kept.changedRanges(of: node, since: content.size)
                else { continue }
                found.withLock { $0.append(Compared(index: candidates[position], list: list, changed: changed)) }
            }
        }
        return found.withLock { $0.sorted { $0.index < $1.index } }
    }
}
