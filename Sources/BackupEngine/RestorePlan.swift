import BackupBase
import BackupRepository
import Glibc
import ObjectStorage

/// What a restore will do: names to make, and reads of packs with the places
/// their blocks go to.
public struct RestorePlan: Sendable {
    struct File: Sendable {
        let path: [UInt8]
        let metadata: Entry.Metadata
        let size: Int64
        let blockSize: Int
        /// Where data is, in bytes; outside are holes.
        var dataRanges: [Range<Int64>]
        /// Runs of all-zero blocks that lie in data ranges: allocated zeros.
        var zeroRanges: [Range<Int64>]
    }

    /// Blocks of a pack that stand one behind the other in a file.
    struct Run: Sendable {
        let first: Int
        let count: Int
        let file: Int
        let block: Int
    }

    /// Frames that are read with one request, and the runs they serve.
    struct Read: Sendable {
        let pack: ObjectID
        let frames: Range<Int>
        let runs: [Run]
    }

    let snapshot: Snapshot
    private(set) var directories: [(path: [UInt8], metadata: Entry.Metadata)] = []
    private(set) var symlinks: [(path: [UInt8], metadata: Entry.Metadata, target: [UInt8])] = []
    private(set) var hardLinks: [(path: [UInt8], target: [UInt8])] = []
    private(set) var files: [File] = []
    private(set) var reads: [Read] = []
    private(set) var bytesTotal: Int64 = 0

    public var fileCount: Int { files.count }
    public var totalBytes: Int64 { bytesTotal }

    /// Bytes read in vain rather than asked for in two requests.
    private static let gapLimit = 256 << 10

    /// Plans the restore of the snapshot, or of what `include` accepts.
    /// Throws `.damaged` and names the path when a file's blocks are not those
    /// its digest was made of.
    static func make(
        _ repository: Repository, _ snapshot: Snapshot, include: (([UInt8]) -> Bool)?
    ) async throws -> RestorePlan {
        var plan = RestorePlan(snapshot: snapshot)
        var runs: [ObjectID: [Run]] = [:]
        var order: [ObjectID] = []
        var contents: [[UInt8]: (Entry.Metadata, Content)] = [:]
        // Where the file behind a name is restored, when only parts are.
        var place: [[UInt8]: [UInt8]] = [:]
        try await repository.forEachEntry(of: snapshot) { entry in
            let wanted = include.map { $0(entry.path) } ?? true
            switch entry.kind {
            case .directory(let metadata):
                // Parents of what is wanted are needed too; the rest is dropped below.
                plan.directories.append((entry.path, metadata))
            case .symlink(let metadata, let target):
                if wanted { plan.symlinks.append((entry.path, metadata, target)) }
            case .file(let metadata, let content):
                if include != nil { contents[entry.path] = (metadata, content) }
                guard wanted else { return }
                place[entry.path] = entry.path
                try await plan.add(entry.path, metadata, content, repository, &runs, &order)
            case .hardLink(let target):
                guard wanted else { return }
                if let file = place[target] {
                    plan.hardLinks.append((entry.path, file))
                } else if let (metadata, content) = contents[target] {
                    // The file it is a name of is not wanted itself: this becomes the file.
                    place[target] = entry.path
                    try await plan.add(entry.path, metadata, content, repository, &runs, &order)
                }
            }
        }
        if include != nil { plan.dropEmptyDirectories(include!) }
        let planned = runs.values.reduce(0) { $0 + $1.reduce(0) { $0 + $1.count } }
        for pack in order {
            let opened = try await repository.reader.pack(pack)
            plan.reads += reads(of: opened, runs[pack]!, limit: repository.store.readSize)
        }
        // A block that no read brings would stay a hole: never trust the planning.
        guard plan.blockCount == planned else {
            throw BackupError(
                .failed, "the restore plan covers \(plan.blockCount) of \(planned) blocks: this is a defect of bgbackup")
        }
        return plan
    }

    private init(snapshot: Snapshot) { self.snapshot = snapshot }

    private mutating func dropEmptyDirectories(_ include: ([UInt8]) -> Bool) {
        var needed: Set<[UInt8]> = [[]]
        for path in files.map(\.path) + symlinks.map(\.path) + hardLinks.map(\.path) {
            var parent = path[...]
            while let slash = parent.lastIndex(of: UInt8(ascii: "/")) {
                parent = parent[..<slash]
                needed.insert(Array(parent))
            }
        }
        directories = directories.filter { needed.contains($0.path) || include($0.path) }
    }

    // MARK: - Files

    private mutating func add(
        _ path: [UInt8], _ metadata: Entry.Metadata, _ content: Content, _ repository: Repository,
        _ runs: inout [ObjectID: [Run]], _ order: inout [ObjectID]
    ) async throws {
        var file = File(
            path: path, metadata: metadata, size: content.size, blockSize: content.blockSize, dataRanges: [],
            zeroRanges: [])
        var digest = FileDigest(content, repository)
        do {
            try await repository.forEachPart(of: content) { part, firstBlock in
                let start = Int64(firstBlock) * Int64(content.blockSize)
                for range in part.dataRanges {
                    file.dataRanges.append(range.lowerBound + start..<range.upperBound + start)
                }
                var block = firstBlock
                for run in part.extents.runs {
                    switch run {
                    case .zero(let count):
                        digest.addZero(count)
                        file.addZero(block, count)
                    case .stored(let pack, let first, let count):
                        try digest.add(try await repository.reader.pack(pack), first: first, count: count, at: block)
                        if runs[pack] == nil { order.append(pack) }
                        runs[pack, default: []].append(Run(first: first, count: count, file: files.count, block: block))
                    }
                    block += run.count
                }
            }
            try digest.check()
        } catch var error as BackupError where error.code == .damaged {
            error.message += ", which concerns \(printable(path)) of snapshot \(snapshot.id)"
            throw error
        }
        file.mergeRanges()
        bytesTotal += content.size
        files.append(file)
    }

    // MARK: - Reads

    /// - Parameter limit: bytes that one request fetches at the most
    private static func reads(of pack: PackReader.OpenPack, _ runs: [Run], limit: Int) -> [Read] {
        // Cut at frame borders first, then sorted: files may share blocks in any
        // way, and what one frame serves must stand together.
        let pieces = runs.flatMap { run in
            pack.pieces(first: run.first, count: run.count).map { piece in
                (
                    frame: piece.frame,
                    run: Run(
                        first: piece.ordinals.lowerBound, count: piece.ordinals.count, file: run.file,
                        block: run.block + piece.ordinals.lowerBound - run.first)
                )
            }
        }.sorted { ($0.run.first, $0.run.file, $0.run.block) < ($1.run.first, $1.run.file, $1.run.block) }
        var reads: [Read] = []
        var frames = 0..<0
        var members: [Run] = []
        func flush() {
            if !members.isEmpty { reads.append(Read(pack: pack.id, frames: frames, runs: members)) }
            members = []
        }
        for (frame, run) in pieces {
            let joined = frames.lowerBound..<max(frames.upperBound, frame + 1)
            if !members.isEmpty, pack.bytes(of: joined) <= limit,
                frame <= frames.upperBound || pack.bytes(of: frames.upperBound..<frame) <= gapLimit
            {
                frames = joined
            } else {
                flush()
                frames = frame..<frame + 1
            }
            members.append(run)
        }
        flush()
        return reads
    }

    /// Blocks that the reads bring, counted once for each place they go to.
    var blockCount: Int { reads.reduce(0) { $0 + $1.runs.reduce(0) { $0 + $1.count } } }
}

extension RestorePlan.File {
    fileprivate mutating func addZero(_ block: Int, _ count: Int) {
        let start = Int64(block) * Int64(blockSize)
        zeroRanges.append(start..<min(start + Int64(count) * Int64(blockSize), size))
    }

    /// Keeps of the zero ranges what is allocated, i.e. lies in a data range.
    fileprivate mutating func mergeRanges() {
        var merged: [Range<Int64>] = []
        for range in dataRanges {
            if let last = merged.last, last.upperBound == range.lowerBound {
                merged[merged.count - 1] = last.lowerBound..<range.upperBound
            } else {
                merged.append(range)
            }
        }
        dataRanges = merged
        zeroRanges = zeroRanges.flatMap { intersections($0) }
    }

    /// The parts of a range that lie in data ranges.
    func intersections(_ range: Range<Int64>) -> [Range<Int64>] {
        var low = dataRanges.partitioningIndex { $0.upperBound > range.lowerBound }
        var parts: [Range<Int64>] = []
        while low < dataRanges.count, dataRanges[low].lowerBound < range.upperBound {
            parts.append(dataRanges[low].clamped(to: range))
            low += 1
        }
        return parts
    }
}
