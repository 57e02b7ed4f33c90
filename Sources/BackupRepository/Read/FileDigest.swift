import BackupBase

/// Checks that the blocks a manifest points at are the ones its file was made
/// of: their ids, from authenticated trailers, must give the file's digest.
/// That each block then has the bytes its id names is checked when it is read.
public struct FileDigest {
    private let content: Content
    private var digest: BlockHasher.FileDigest
    private var blocks = 0

    public init(_ content: Content, _ repository: Repository) {
        self.content = content
        digest = repository.keys.digestHasher.fileDigest(size: content.size, blockSize: content.blockSize)
    }

    public mutating func addZero(_ count: Int) {
        digest.addZero(count)
        blocks += count
    }

    /// Adds `count` blocks of a pack from ordinal `first`, which stand in the
    /// file from block `block`. Throws `.damaged` when the pack has no such
    /// blocks, or blocks of another length.
    public mutating func add(_ pack: PackReader.OpenPack, first: Int, count: Int, at block: Int) throws {
        guard first >= 0, first + count <= pack.trailer.ids.count else {
            throw BackupError(.damaged, "pack \(FinishedPack.name(pack.id)) has no block \(first + count - 1)")
        }
        for step in 0..<count {
            guard Int(pack.trailer.lengths[first + step]) == content.length(ofBlock: block + step) else {
                throw BackupError(
                    .damaged, "block \(first + step) of pack \(FinishedPack.name(pack.id)) has another length than its file needs"
                )
            }
            digest.add(pack.trailer.ids[first + step])
        }
        blocks += count
    }

    public func check() throws {
        guard blocks == content.blockCount, digest.finish() == content.digest else {
            throw BackupError(.damaged, "a file's digest does not fit its blocks")
        }
    }
}

extension PackReader.OpenPack {
    /// Cuts a run of blocks at frame borders.
    public func pieces(first: Int, count: Int) -> [(frame: Int, ordinals: Range<Int>)] {
        var pieces: [(frame: Int, ordinals: Range<Int>)] = []
        var ordinal = first
        while ordinal < first + count, let frame = trailer.frame(holding: ordinal) {
            let end = min(first + count, trailer.frames[frame].blocks.upperBound)
            pieces.append((frame, ordinal..<end))
            ordinal = end
        }
        return pieces
    }

    /// Bytes of consecutive frames in the pack.
    public func bytes(of frames: Range<Int>) -> Int {
        guard let last = frames.last else { return 0 }
        return trailer.frames[last].extent.upperBound - trailer.frames[frames.lowerBound].offset
    }
}

extension PackReader.OpenPack {
    /// What a block is; nil where the pack has no such block.
    public func id(_ ordinal: Int) -> BlockID? { trailer.holds(ordinal) ? trailer.ids[ordinal] : nil }

    /// Whether a block is in a frame.
    public func holds(_ ordinal: Int, in frame: Int) -> Bool { trailer.frames[frame].blocks.contains(ordinal) }
}
