import BackupBase
import BackupRepository
import Glibc
import ObjectStorage
import QdrantStorage

/// What a restore will do: names to make, and reads of packs with the places
/// their blocks go to.
public struct RestorePlan: Sendable {
    struct File: Sendable {
        let path: [UInt8]
        let metadata: Entry.Metadata
        let size: Int64
        let blockSize: Int
        /// Where data is, in bytes; outside are holes.
        let dataRanges: [Range<Int64>]
        /// Runs of all-zero blocks that lie in data ranges: allocated zeros.
        let zeroRanges: [Range<Int64>]
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

    /// Runs by the pack that has them, and the packs in the order of first use.
    struct Runs {
        private(set) var byPack: [ObjectID: [Run]] = [:]
        private(set) var order: [ObjectID] = []
        /// Blocks.
        private(set) var count = 0

        mutating func append(_ run: Run, of pack: ObjectID) {
            if byPack[pack] == nil { order.append(pack) }
            byPack[pack, default: []].append(run)
            count += run.count
        }
    }

    let snapshot: Snapshot
    var directories: [(path: [UInt8], metadata: Entry.Metadata)] = []
    var symlinks: [(path: [UInt8], metadata: Entry.Metadata, target: [UInt8])] = []
    var hardLinks: [(path: [UInt8], target: [UInt8])] = []
    private(set) var files: [File] = []
    private(set) var reads: [Read] = []
    private(set) var bytesTotal: Int64 = 0

    /// All names that it makes.
    var names: Set<[UInt8]> {
        Set(directories.map(\.path) + files.map(\.path) + symlinks.map(\.path) + hardLinks.map(\.path))
    }

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
        var runs = Runs()
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
                try await plan.add(entry.path, metadata, content, repository, &runs)
            case .hardLink(let target):
                guard wanted else { return }
                if let file = place[target] {
                    plan.hardLinks.append((entry.path, file))
                } else if let (metadata, content) = contents[target] {
                    // The file it is a name of is not wanted itself: this becomes the file.
                    place[target] = entry.path
                    try await plan.add(entry.path, metadata, content, repository, &runs)
                }
            }
        }
        if include != nil { plan.dropEmptyDirectories(include!) }
        try await plan.planReads(runs, repository)
        return plan
    }

    init(snapshot: Snapshot) { self.snapshot = snapshot }

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

    /// Adds a file, or of a file that is there what differs.
    /// - Parameter old: what the file of that name is so far
    @discardableResult
    mutating func add(
        _ path: [UInt8], _ metadata: Entry.Metadata, _ content: Content, _ repository: Repository, _ runs: inout Runs,
        replacing old: FileLayout? = nil
    ) async throws -> FileChange {
        do {
            let layout = try await FileLayout.read(content, repository, verified: true)
            let change = FileChange(from: old, to: layout)
            for piece in change.stored {
                runs.append(
                    Run(first: piece.first, count: piece.count, file: files.count, block: piece.block), of: piece.pack)
            }
            files.append(
                File(
                    path: path, metadata: metadata, size: content.size, blockSize: content.blockSize,
                    dataRanges: layout.dataRanges, zeroRanges: change.zeroRanges))
            bytesTotal += content.size
            return change
        } catch var error as BackupError where error.code == .damaged {
            error.message += ", which concerns \(printable(path)) of snapshot \(snapshot.id)"
            throw error
        }
    }

    /// Adds a file of which only the metadata is to be set.
    mutating func addKept(_ path: [UInt8], _ metadata: Entry.Metadata, _ content: Content) {
        files.append(
            File(
                path: path, metadata: metadata, size: content.size, blockSize: content.blockSize, dataRanges: [],
                zeroRanges: []))
        bytesTotal += content.size
    }

    /// Adds the reads that bring all runs.
    mutating func planReads(_ runs: Runs, _ repository: Repository) async throws {
        for pack in runs.order {
            let opened = try await repository.reader.pack(pack)
            reads += Self.reads(of: opened, runs.byPack[pack]!, limit: repository.store.readSize)
        }
        // A block that no read brings would stay a hole: never trust the planning.
        guard blockCount == runs.count else {
            throw BackupError(
                .failed, "the restore plan covers \(blockCount) of \(runs.count) blocks: this is a defect of bgbackup")
        }
        putFirst()
    }

    /// What a start reads first comes first, as far as reads of a pack allow:
    /// small files, the log, files changed in place, files written once. The
    /// order of packs stays within each, and no read is made twice.
    private mutating func putFirst() {
        let ranks = files.map { file in
            switch FileClass.of(file.path).lifetime {
            case .log: 1
            case .mutable: file.size <= Self.smallFile ? 0 : 2
            case .writtenOnce: 3
            }
        }
        let ranked = reads.map { read in (rank: read.runs.reduce(3) { min($0, ranks[$1.file]) }, read: read) }
        reads = (0...3).flatMap { rank in ranked.filter { $0.rank == rank }.map(\.read) }
    }

    /// Bytes: raft state, configurations, segment and replica states, aliases are below.
    private static let smallFile: Int64 = 128 << 10

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
    /// The parts of a range that lie in data ranges.
    func intersections(_ range: Range<Int64>) -> [Range<Int64>] { dataRanges.parts(in: range) }
}
