import BackupBase
import BackupRepository

/// A file's blocks and holes, its parts put together.
struct FileLayout: Sendable {
    /// Bytes.
    let size: Int64
    let blockSize: Int
    /// In bytes, ascending, neither overlapping nor touching; the rest is holes.
    private(set) var dataRanges: [Range<Int64>] = []
    /// With the number of the first block of each.
    private(set) var runs: [(block: Int, run: Extents.Run)] = []

    /// - Parameter verified: whether the blocks have to give the file's digest,
    ///   for which the trailers of all its packs are read
    /// - Throws: `.damaged` where they do not
    static func read(_ content: Content, _ repository: Repository, verified: Bool) async throws -> FileLayout {
        var layout = FileLayout(size: content.size, blockSize: content.blockSize)
        var digest = FileDigest(content, repository)
        try await repository.forEachPart(of: content, trailers: verified) { part, firstBlock in
            layout.add(part, at: firstBlock)
            guard verified else { return }
            var block = firstBlock
            for run in part.extents.runs {
                switch run {
                case .zero(let count): digest.addZero(count)
                case .stored(let pack, let first, let count):
                    try digest.add(try await repository.reader.pack(pack), first: first, count: count, at: block)
                }
                block += run.count
            }
        }
        if verified { try digest.check() }
        return layout
    }

    private init(size: Int64, blockSize: Int) {
        self.size = size
        self.blockSize = blockSize
    }

    private mutating func add(_ part: Content.Part, at firstBlock: Int) {
        let start = Int64(firstBlock) * Int64(blockSize)
        for range in part.dataRanges {
            if let last = dataRanges.last, last.upperBound == range.lowerBound + start {
                dataRanges[dataRanges.count - 1] = last.lowerBound..<range.upperBound + start
            } else {
                dataRanges.append(range.lowerBound + start..<range.upperBound + start)
            }
        }
        var block = firstBlock
        for run in part.extents.runs {
            runs.append((block, run))
            block += run.count
        }
    }

    /// Bytes that some blocks take in the file.
    func bytes(_ first: Int, _ count: Int) -> Range<Int64> {
        let start = Int64(first) * Int64(blockSize)
        return start..<max(start, min(start + Int64(count) * Int64(blockSize), size))
    }
}

/// What has to be written so that a file becomes another.
struct FileChange: Sendable {
    /// Blocks that a pack has and the file has not, at their place in it.
    private(set) var stored: [(pack: ObjectID, first: Int, count: Int, block: Int)] = []
    /// Zeros that are allocated and were not, or stand where something else did.
    private(set) var zeroRanges: [Range<Int64>] = []
    /// Holes where data was.
    private(set) var holes: [Range<Int64>] = []
    /// Bytes of the file's blocks that need nothing.
    private(set) var bytesSame: Int64 = 0
    /// Stored blocks that need nothing, with their number in the file.
    private(set) var same: [(block: Int, location: Location)] = []

    private let new: FileLayout
    private let oldData: [Range<Int64>]

    /// - Parameter old: nil where there is nothing yet
    init(from old: FileLayout?, to new: FileLayout) {
        self.new = new
        oldData = old?.dataRanges ?? []
        if old != nil {
            holes = [0..<new.size].filter { !$0.isEmpty }.subtracting(new.dataRanges).filter { !oldData.parts(in: $0).isEmpty }
        }
        let before = old?.blockSize == new.blockSize ? old!.runs : []
        // The same block may have to be a hole elsewhere than it was.
        let moved = (oldData.subtracting(new.dataRanges) + new.dataRanges.subtracting(oldData))
            .sorted { $0.lowerBound < $1.lowerBound }
        var index = 0
        for (start, run) in new.runs {
            var block = start
            while block < start + run.count {
                while index < before.count, before[index].block + before[index].run.count <= block { index += 1 }
                let old = index < before.count ? before[index] : nil
                let end = min(start + run.count, old.map { $0.block + $0.run.count } ?? .max)
                switch (run, old?.run) {
                case (.zero, .zero?): addZero(block..<end, wasZero: true)
                case (.zero, _): addZero(block..<end, wasZero: false)
                case (.stored(let pack, let first, _), .stored(let oldPack, let oldFirst, _)?)
                where pack == oldPack && first + block - start == oldFirst + block - old!.block:
                    addSame(block..<end, Location(pack: pack, ordinal: first + block - start), moved)
                case (.stored(let pack, let first, _), _): stored.append((pack, first + block - start, end - block, block))
                }
                block = end
            }
        }
    }

    private mutating func addZero(_ blocks: Range<Int>, wasZero: Bool) {
        let range = new.bytes(blocks.lowerBound, blocks.count)
        let allocated = new.dataRanges.parts(in: range)
        let missing = wasZero ? allocated.subtracting(oldData) : allocated
        zeroRanges += missing
        if wasZero { bytesSame += Int64(range.count) - missing.reduce(0) { $0 + Int64($1.count) } }
    }

    /// Blocks that are in their place; those of which the holes moved count as others.
    private mutating func addSame(_ blocks: Range<Int>, _ location: Location, _ moved: [Range<Int64>]) {
        var next = blocks.lowerBound
        func ordinal(_ block: Int) -> Int { location.ordinal + block - blocks.lowerBound }
        func keep(upTo end: Int) {
            bytesSame += Int64(new.bytes(next, end - next).count)
            for block in next..<end { same.append((block, Location(pack: location.pack, ordinal: ordinal(block)))) }
            next = end
        }
        for part in moved.parts(in: new.bytes(blocks.lowerBound, blocks.count)) {
            let first = max(next, Int(part.lowerBound / Int64(new.blockSize)))
            let end = Int((part.upperBound - 1) / Int64(new.blockSize)) + 1
            guard end > next else { continue }
            keep(upTo: first)
            stored.append((location.pack, ordinal(first), end - first, first))
            next = end
        }
        keep(upTo: blocks.upperBound)
    }
}

/// Ascending, disjoint ranges.
extension [Range<Int64>] {
    /// The parts that lie in a range.
    func parts(in range: Range<Int64>) -> [Range<Int64>] {
        var low = partitioningIndex { $0.upperBound > range.lowerBound }
        var parts: [Range<Int64>] = []
        while low < count, self[low].lowerBound < range.upperBound {
            parts.append(self[low].clamped(to: range))
            low += 1
        }
        return parts
    }

    /// What lies in none of the others.
    func subtracting(_ others: [Range<Int64>]) -> [Range<Int64>] {
        flatMap { range in
            var rest: [Range<Int64>] = []
            var start = range.lowerBound
            for other in others.parts(in: range) {
                if start < other.lowerBound { rest.append(start..<other.lowerBound) }
                start = other.upperBound
            }
            if start < range.upperBound { rest.append(start..<range.upperBound) }
            return rest
        }
    }
}
