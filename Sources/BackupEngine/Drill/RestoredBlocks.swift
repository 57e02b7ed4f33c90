import BackupBase
import BackupRepository
import VolumeIO

/// Reads back what a restore wrote and compares every block with its id.
///
/// A restore verifies what it fetches; this verifies what the disk made of it.
struct RestoredBlocks {
    let repository: Repository
    /// The target's path.
    let target: String

    struct Result: Sendable {
        var blocks = 0
        var bytes: Int64 = 0
        /// What differs, as sentences; of a file the first block.
        var differences: [String] = []
    }

    /// - Parameter rewritten: files that a restore makes other than the snapshot has them
    func compare(_ snapshot: Snapshot, except rewritten: Set<[UInt8]>, _ board: ProgressBoard) async throws -> Result {
        var files: [(path: [UInt8], content: Content)] = []
        try await repository.forEachEntry(of: snapshot, trailers: false) { entry in
            guard case .file(_, let content) = entry.kind, !rewritten.contains(entry.path) else { return }
            files.append((entry.path, content))
        }
        let total = files.reduce(0) { $0 + $1.content.size }
        board.update {
            ($0.phase, $0.bytesDone, $0.bytesTotal) = (.verify, 0, total)
        }
        let tree = try SourceTree(path: target)
        let repository = repository
        var rest = files[...]
        var results = OrderedMap<(path: [UInt8], content: Content), Result>(
            width: 4, on: repository.executor, from: { rest.popFirst() },
            transform: { try await Self.compare($0.path, $0.content, tree, repository, board) })
        var sum = Result()
        while let result = try await results.next() {
            sum.blocks += result.blocks
            sum.bytes += result.bytes
            sum.differences += result.differences
        }
        return sum
    }

    private static func compare(
        _ path: [UInt8], _ content: Content, _ tree: SourceTree, _ repository: Repository, _ board: ProgressBoard
    ) async throws -> Result {
        let layout = try await FileLayout.read(content, repository, verified: false)
        let hasher = repository.keys.blockHasher
        let buffer = AlignedBuffer(capacity: PackLimits.frame)
        var result = Result()
        func differs(_ what: String) -> Result {
            result.differences.append("\(printable(path)) \(what)")
            return result
        }
        do {
            let file = try tree.open(path)
            guard try file.stat().size == content.size else {
                return differs("has \(try file.stat().size) bytes instead of \(content.size)")
            }
            let many = max(buffer.capacity / content.blockSize, 1)
            for (start, run) in layout.runs {
                for first in stride(from: start, to: start + run.count, by: many) {
                    try Task.checkCancellation()
                    let range = layout.bytes(first, min(many, start + run.count - first))
                    let got = try file.read(at: range.lowerBound, count: range.count, into: buffer)
                    let bytes = UnsafeRawBufferPointer(start: buffer.pointer, count: got)
                    for (block, place) in zip(first..., stride(from: 0, to: range.count, by: content.blockSize)) {
                        let part = UnsafeRawBufferPointer(rebasing: bytes.dropFirst(place).prefix(content.blockSize))
                        let isSame =
                            switch run {
                            case .zero: part.isZero
                            case .stored(let pack, let ordinal, _):
                                try await repository.reader.pack(pack).id(ordinal + block - start) == hasher.id(of: part)
                            }
                        guard got == range.count, isSame else {
                            return differs("holds other bytes at \(range.lowerBound + Int64(place))")
                        }
                        result.blocks += 1
                    }
                    result.bytes += Int64(got)
                    board.update { $0.bytesDone += Int64(got) }
                }
            }
            return result
        } catch let error as SourceError {
            return differs("cannot be read: \(error)")
        }
    }
}
