import BackupBase
import BackupRepository
import QdrantStorage

/// A file's blocks as they come in, until their locations are known.
struct FileAssembly {
    private enum Run {
        case zero(Int)
        case stored(Location, Int)
        case new(ticket: Int, Int)
    }

    let file: FileToRead
    private(set) var size: Int64
    private var ranges: [Range<Int64>]
    private var runs: [Run] = []
    private var blocks = 0
    private var digest: BlockHasher.FileDigest
    private let blockSize: Int
    /// The ids of all blocks, for the next run; nil where that is not wanted.
    private var ids: [BlockID]?
    /// The last ticket among the blocks.
    private(set) var lastTicket = -1
    /// Blocks that no pack held before.
    private(set) var blocksNew = 0
    /// Whether the file moved while it was read: what was read may be a mixture.
    var isMixed = false

    /// - Parameter keepsIDs: whether the next run wants to know the blocks
    init(_ piece: FilePiece, digest hasher: BlockHasher, keepsIDs: Bool) {
        self.init(piece.file, size: piece.size, dataRanges: piece.dataRanges, digest: hasher)
        if keepsIDs, BlockList.isWorthKeeping(piece.file, size: piece.size) { ids = [] }
    }

    init(_ file: FileToRead, size: Int64, dataRanges: [Range<Int64>], digest hasher: BlockHasher) {
        self.file = file
        self.size = size
        ranges = dataRanges
        blockSize = file.kind.blockSize
        digest = hasher.fileDigest(size: size, blockSize: blockSize)
    }

    /// Adds a piece's blocks, and those before it that were not read: zeros in
    /// a hole, or what the parent snapshot has.
    mutating func add(_ piece: FilePiece, _ places: [RepositoryWriter.Place]) {
        add(piece.region.blocks, at: piece.offset, places)
    }

    mutating func add(_ added: [HashedRegion.Block], at offset: Int64, _ places: [RepositoryWriter.Place]) {
        fill(upTo: Int(offset / Int64(blockSize)))
        for (block, place) in zip(added, places) {
            blocks += 1
            if let id = block.id { digest.add(id) } else { digest.addZero(1) }
            ids?.append(block.id ?? .zero)
            if case .new(let ticket) = place {
                lastTicket = max(lastTicket, ticket)
                blocksNew += 1
            }
            append(place)
        }
    }

    /// Fills up to the end, after the last piece.
    /// - Parameter dataRanges: where data is, if that was not known before
    mutating func finish(dataRanges: [Range<Int64>]? = nil) {
        if let dataRanges { ranges = dataRanges }
        fill(upTo: Int((size + Int64(blockSize) - 1) / Int64(blockSize)))
    }

    private mutating func fill(upTo end: Int) {
        guard let parent = file.parent?.list else { return addZero(end - blocks) }
        while blocks < end {
            let (id, place) = parent.block(blocks)
            guard let place else {
                addZero(1)
                continue
            }
            blocks += 1
            digest.add(id)
            ids?.append(id)
            append(.stored(place))
        }
    }

    private mutating func addZero(_ count: Int) {
        guard count > 0 else { return }
        blocks += count
        digest.addZero(count)
        ids?.append(contentsOf: repeatElement(.zero, count: count))
        if case .zero(let before)? = runs.last {
            runs[runs.count - 1] = .zero(before + count)
        } else {
            runs.append(.zero(count))
        }
    }

    private mutating func append(_ place: RepositoryWriter.Place) {
        switch (place, runs.last) {
        case (.zero, .zero(let count)?): runs[runs.count - 1] = .zero(count + 1)
        case (.zero, _): runs.append(.zero(1))
        case (.new(let ticket), .new(let first, let count)?) where first + count == ticket:
            runs[runs.count - 1] = .new(ticket: first, count + 1)
        case (.new(let ticket), _): runs.append(.new(ticket: ticket, 1))
        case (.stored(let location), .stored(let first, let count)?)
        where first.pack == location.pack && first.ordinal + count == location.ordinal:
            runs[runs.count - 1] = .stored(first, count + 1)
        case (.stored(let location), _): runs.append(.stored(location, 1))
        }
    }

    /// Blocks per part of a large file's block list.
    private static let blocksPerPart = 1024
    /// Bytes of block list that stand in the manifest itself.
    private static let inlineLimit = 16 << 10

    /// How the block list is kept: in the manifest itself, or as parts that
    /// have to be stored as metadata blocks first.
    enum Draft {
        case inline(Content)
        case indirect([Content.Part])
    }

    /// Where everything is, once the writer has settled its tickets.
    func whole(_ writer: RepositoryWriter) -> Content.Part {
        var extents = Extents()
        for run in runs {
            switch run {
            case .zero(let count): extents.appendZero(count)
            case .stored(let location, let count): extents.append(location, count: count)
            case .new(let ticket, let count):
                // A run of tickets may reach over the border of a pack.
                for next in ticket..<ticket + count { extents.append(writer.location(ofTicket: next)) }
            }
        }
        return Content.Part(dataRanges: ranges, extents: extents)
    }

    func draft(_ whole: Content.Part) -> Draft {
        if whole.encoded.count <= Self.inlineLimit { return .inline(content(.inline(whole))) }
        return .indirect(split(whole))
    }

    /// Blocks whose ids are in memory.
    var idCount: Int { ids?.count ?? 0 }

    /// Gives the ids away, once they are needed no more.
    mutating func takeIDs() -> [BlockID]? {
        defer { ids = nil }
        return ids
    }

    /// The content of an indirect draft, once its parts are stored.
    func content(parts: Extents) -> Content {
        content(.indirect(blocksPerPart: Self.blocksPerPart, parts: parts))
    }

    private func content(_ layout: Content.Layout) -> Content {
        Content(size: size, blockSize: blockSize, digest: digest.finish(), layout: layout)
    }

    private func split(_ whole: Content.Part) -> [Content.Part] {
        let span = Int64(Self.blocksPerPart) * Int64(blockSize)
        var extents: [Extents] = [Extents()]
        func room() -> Int { Self.blocksPerPart - extents[extents.count - 1].count }
        for run in whole.extents.runs {
            var done = 0
            while done < run.count {
                if room() == 0 { extents.append(Extents()) }
                let count = min(room(), run.count - done)
                switch run {
                case .zero: extents[extents.count - 1].appendZero(count)
                case .stored(let pack, let first, _):
                    extents[extents.count - 1].append(Location(pack: pack, ordinal: first + done), count: count)
                }
                done += count
            }
        }
        var ranges = [[Range<Int64>]](repeating: [], count: extents.count)
        for range in whole.dataRanges {
            for index in Int(range.lowerBound / span)...Int((range.upperBound - 1) / span) {
                let start = Int64(index) * span
                ranges[index].append(max(range.lowerBound, start) - start..<min(range.upperBound, start + span) - start)
            }
        }
        return zip(ranges, extents).map { Content.Part(dataRanges: $0, extents: $1) }
    }
}
