import BackupBase
import BackupRepository
import QdrantStorage
import VolumeIO

/// The blocks of one file of a snapshot: what each is, and where it is stored.
/// Kept on the node for files that change in place, because a writer's key
/// cannot read what the repository says about them.
struct BlockList: Sendable {
    let content: Content
    /// Of all blocks; `.zero` for those that are all zero.
    private let ids: [BlockID]
    /// By first block: where a run of blocks is.
    private let starts: [Int]
    private let runs: [Extents.Run]

    /// Nil where the parts do not describe as many blocks as there are ids.
    init?(content: Content, ids: [BlockID], extents: Extents) {
        guard ids.count == content.blockCount, extents.count == ids.count else { return nil }
        self.content = content
        self.ids = ids
        var starts: [Int] = []
        var next = 0
        for run in extents.runs {
            starts.append(next)
            next += run.count
        }
        self.starts = starts
        runs = extents.runs
    }

    /// A block's id and place; no place where it is all zero.
    func block(_ index: Int) -> (BlockID, Location?) {
        let run = starts.partitioningIndex { $0 > index } - 1
        switch runs[run] {
        case .zero: return (.zero, nil)
        case .stored(let pack, let first, _):
            return (ids[index], Location(pack: pack, ordinal: first + index - starts[run]))
        }
    }

    func id(_ index: Int) -> BlockID { ids[index] }

    /// Where the blocks are.
    var packs: Set<ObjectID> {
        runs.reduce(into: []) { if case .stored(let pack, _, _) = $1 { $0.insert(pack) } }
    }

    /// For a copy that is made while writes are held: what need not be put aside.
    func known(_ hasher: BlockHasher) -> KnownBlocks {
        KnownBlocks(
            blockSize: content.blockSize,
            isSame: { index, bytes in
                guard index < ids.count, bytes.count == content.length(ofBlock: index) else { return false }
                return ids[index] == (bytes.isZero ? .zero : hasher.id(of: bytes))
            },
            isZero: { index in index < ids.count && ids[index] == .zero })
    }

    /// Files written once are never changed in place, and small ones are read
    /// faster than looked up. A list is in memory while its file is read: 32
    /// bytes for each block, 32 MiB at the most.
    static func isWorthKeeping(_ file: FileToRead, size: Int64) -> Bool {
        file.kind.lifetime != .writtenOnce && size > ReadQueue.stretch
            && size / Int64(file.kind.blockSize) < 1 << 20
    }
}

/// What the parent snapshot knows of a file, and what has to be read all the same.
final class TrackedParent: Sendable {
    struct Read: Sendable {
        let range: Range<Int64>
        /// Not said to have changed: read to see whether that is true.
        let isAudit: Bool
    }

    let list: BlockList
    /// Ascending and disjoint, whole blocks, none longer than a stretch.
    let reads: [Read]
    var bytesToRead: Int64 { reads.reduce(0) { $0 + Int64($1.range.count) } }

    /// - Parameters:
    ///   - changed: what may have changed, ascending
    ///   - size: of the file now
    ///   - isSampled: whether a stretch that did not change is to be read; asked for each
    init(_ list: BlockList, changed: [Range<Int64>], size: Int64, isSampled: () -> Bool) {
        self.list = list
        let block = Int64(list.content.blockSize)
        var reads: [Read] = []
        var position: Int64 = 0
        func unchanged(upTo end: Int64) {
            while position < end {
                let next = min((position / ReadQueue.stretch + 1) * ReadQueue.stretch, end)
                if isSampled() { reads.append(Read(range: position..<next, isAudit: true)) }
                position = next
            }
        }
        func read(_ range: Range<Int64>) {
            unchanged(upTo: range.lowerBound)
            while position < range.upperBound {
                let next = min((position / ReadQueue.stretch + 1) * ReadQueue.stretch, range.upperBound)
                reads.append(Read(range: position..<next, isAudit: false))
                position = next
            }
        }
        // The block that ends with the shorter file's end has another length now.
        let tail = min(size, list.content.size) / block * block
        let differs = size != list.content.size
        for range in Self.wholeBlocks(changed + (differs ? [tail..<max(tail, size)] : []), block, size) { read(range) }
        unchanged(upTo: size)
        self.reads = reads
    }

    private static func wholeBlocks(_ ranges: [Range<Int64>], _ block: Int64, _ size: Int64) -> [Range<Int64>] {
        var whole: [Range<Int64>] = []
        for range in ranges.sorted(by: { $0.lowerBound < $1.lowerBound }) where !range.isEmpty {
            let wider = range.lowerBound / block * block..<min((range.upperBound + block - 1) / block * block, size)
            guard !wider.isEmpty else { continue }
            if let last = whole.last, last.upperBound >= wider.lowerBound {
                whole[whole.count - 1] = last.lowerBound..<max(last.upperBound, wider.upperBound)
            } else {
                whole.append(wider)
            }
        }
        return whole
    }

    /// Where the blocks of an audited piece are.
    /// - Throws: `TrackingLie` where the piece has other blocks than the parent
    func places(confirmedBy piece: FilePiece) throws -> [RepositoryWriter.Place] {
        let first = Int(piece.offset / Int64(list.content.blockSize))
        return try piece.region.blocks.enumerated().map { step, block in
            let (id, place) = list.block(first + step)
            guard id == block.id ?? .zero else { throw TrackingLie(path: piece.file.path) }
            return place.map { .stored($0) } ?? .zero
        }
    }
}

/// Changed-block tracking said that a part of a file is as it was, and it is not.
struct TrackingLie: Error {
    let path: [UInt8]
}

/// The block lists of a volume's files, on the node. Disposable and
/// authenticated, as the state beside them (`LocalState`) is.
struct BlockListStore: Sendable {
    private let directory: String
    private let hasher: BlockHasher
    private static let magic = Array("BGBLIST1".utf8)

    init?(directory: String, hasher: BlockHasher) {
        guard LocalFile.makeDirectory(directory) else { return nil }
        self.directory = directory
        self.hasher = hasher
    }

    private func place(_ path: [UInt8]) -> String {
        "\(directory)/" + path.withUnsafeBytes { hasher.id(of: $0).bytes }.prefix(16).hex
    }

    /// - Returns: false where the disk did not take it: the next run reads the file
    @discardableResult
    func write(_ path: [UInt8], content: Content, ids: [BlockID], extents: Extents) -> Bool {
        let part = Content.Part(dataRanges: [], extents: extents).encoded
        var bytes = Self.magic + content.digest
        withUnsafeBytes(of: UInt64(ids.count).littleEndian) { bytes.append(contentsOf: $0) }
        let start = bytes.count
        bytes.append(contentsOf: [UInt8](repeating: 0, count: ids.count * 32))
        bytes.withUnsafeMutableBytes { memory in
            for (index, id) in ids.enumerated() { id.write(to: memory.baseAddress! + start + index * 32) }
        }
        bytes += part
        bytes += bytes.withUnsafeBytes { hasher.id(of: $0).bytes }
        // Not forced to the disk: what is torn is not authentic, and then the file is read.
        return LocalFile.replace(place(path), with: bytes, durably: false)
    }

    /// The list of the content that the state has for a file.
    func find(_ path: [UInt8], content: Content) -> BlockList? {
        guard let bytes = LocalFile.read(place(path), limit: 256 << 20), bytes.count >= 80 else { return nil }
        let body = bytes[..<(bytes.count - 32)]
        guard body.withUnsafeBytes({ hasher.id(of: $0).bytes }) == Array(bytes.suffix(32)),
            Array(bytes[..<8]) == Self.magic, Array(bytes[8..<40]) == content.digest
        else { return nil }
        let count = bytes.withUnsafeBytes { Int(UInt64(littleEndian: $0.loadUnaligned(fromByteOffset: 40, as: UInt64.self))) }
        guard count == content.blockCount, count <= (body.count - 48) / 32 else { return nil }
        let ids = (0..<count).map { BlockID(bytes: bytes[(48 + $0 * 32)..<(80 + $0 * 32)]) }
        guard
            let part = try? Content.Part(
                decoding: Array(body[(48 + count * 32)...]), size: content.size, blocks: content.blockCount)
        else { return nil }
        return BlockList(content: content, ids: ids, extents: part.extents)
    }
}
