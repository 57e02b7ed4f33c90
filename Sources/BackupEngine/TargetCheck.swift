import BackupBase
import BackupRepository
import VolumeIO

/// Looks whether a target is as the restore before left it: every name and
/// stat, and some blocks. Reads only.
struct TargetCheck {
    let repository: Repository
    /// The target's path.
    let target: String
    let note: TargetNote
    let old: SnapshotNames

    /// Of a file, blocks to read and what they should be.
    private struct Sample: Sendable {
        struct Block: Sendable {
            let offset: Int64
            let count: Int
            /// Nil: all zero.
            let location: Location?
        }
        let path: [UInt8]
        let blocks: [Block]
    }

    /// One block in a hundred, within these bounds: what a sample finds depends
    /// on how many it has, not on how large the rest is.
    private static let sampleSize = 64...4096

    /// Throws `.targetChanged` unless all names and the sampled blocks are as they were left.
    func run() async throws {
        try compareNames(amid: nil)
        try await compare(try await sampled())
    }

    /// Of a refresh that was cut off: what it does not touch has to be as it was
    /// left, and of what it writes to every block that stays is compared.
    func run(interrupted plan: RefreshPlan) async throws {
        try compareNames(amid: plan)
        try await compare(
            plan.staying.sorted { $0.key < $1.key }.map { number, blocks in
                let file = plan.restore.files[number]
                return Sample(
                    path: file.path,
                    blocks: blocks.map { block, location in
                        let offset = Int64(block) * Int64(file.blockSize)
                        let count = Int(min(Int64(file.blockSize), file.size - offset))
                        return .init(offset: offset, count: count, location: location)
                    })
            })
    }

    // MARK: - Names

    /// - Parameter plan: of which some may be done
    private func compareNames(amid plan: RefreshPlan?) throws {
        let disturbed = plan?.disturbed ?? []
        var found: [String] = []
        var seen: Set<[UInt8]> = []
        try TargetTree(path: target, create: false).forEachNode { path, stat in
            guard !RestoreMarker.isOwn(path), plan == nil || !isLeftover(path) else { return }
            seen.insert(path)
            // The root of another directory is another, whatever is under way.
            guard path.isEmpty || !disturbed.contains(path) else { return }
            switch note.isAsLeft(path, stat, orModified: plan?.modified(path)) {
            case true?: break
            case false?: found.append("\(path.isEmpty ? "the directory itself" : printable(path)) changed")
            case nil: found.append("\(printable(path)) is new")
            }
        }
        for entry in old.entries where !seen.contains(entry.path) && !disturbed.contains(entry.path) {
            found.append("\(printable(entry.path)) is missing")
        }
        guard found.isEmpty else { throw Self.changed(target, note, found) }
    }

    private func isLeftover(_ path: [UInt8]) -> Bool { RefreshPlan.rewritten.contains { path == $0 + Array(".new".utf8) } }

    private static func changed(_ target: String, _ note: TargetNote, _ found: [String]) -> BackupError {
        let more = found.count > 5 ? " and \(found.count - 5) more" : ""
        return BackupError(
            .targetChanged,
            "the target \(target) is not as the restore of snapshot \(note.snapshot) left it: "
                + found.prefix(5).joined(separator: ", ") + more,
            hint: "Restore onto an empty volume: what was started or written to since cannot be brought up to date.")
    }

    // MARK: - Blocks

    /// Random blocks of the snapshot that the target holds.
    private func sampled() async throws -> [Sample] {
        let files = old.entries.compactMap { entry -> (path: [UInt8], content: Content)? in
            guard case .file(_, let content) = entry.kind, !RefreshPlan.rewritten.contains(entry.path) else { return nil }
            return (entry.path, content)
        }
        let total = files.reduce(0) { $0 + $1.content.blockCount }
        let wanted = min(total, max(Self.sampleSize.lowerBound, min(total / 100, Self.sampleSize.upperBound)))
        var picked = Set<Int>()
        if wanted * 4 >= total { picked = Set((0..<total).shuffled().prefix(wanted)) }
        while picked.count < wanted { picked.insert(.random(in: 0..<total)) }
        var rest = picked.sorted()[...]
        var samples: [Sample] = []
        var first = 0
        for (path, content) in files {
            let mine = rest.prefix { $0 < first + content.blockCount }.map { $0 - first }
            rest = rest.dropFirst(mine.count)
            first += content.blockCount
            guard !mine.isEmpty else { continue }
            let layout = try await FileLayout.read(content, repository, verified: false)
            let blocks = mine.map { block in
                Sample.Block(
                    offset: Int64(block) * Int64(content.blockSize), count: content.length(ofBlock: block),
                    location: layout.location(block))
            }
            samples.append(Sample(path: path, blocks: blocks))
        }
        return samples
    }

    private func compare(_ samples: [Sample]) async throws {
        let packs = samples.reduce(into: Set<ObjectID>()) { $0.formUnion($1.blocks.compactMap { $0.location?.pack }) }
        try await repository.reader.prefetch(packs, on: repository.executor)
        let tree = try SourceTree(path: target)
        let repository = repository
        var rest = samples[...]
        var results = OrderedMap<Sample, String?>(
            width: 8, on: repository.executor, from: { rest.popFirst() },
            transform: { try await Self.compare($0, tree, repository) })
        var found: [String] = []
        while let result = try await results.next() {
            if let result { found.append(result) }
        }
        guard found.isEmpty else { throw Self.changed(target, note, found) }
    }

    /// What is wrong with a file, or nil.
    private static func compare(_ sample: Sample, _ tree: SourceTree, _ repository: Repository) async throws -> String? {
        let hasher = repository.keys.blockHasher
        let buffer = AlignedBuffer(capacity: PackLimits.frame)
        do {
            let file = try tree.open(sample.path)
            for block in sample.blocks {
                let got = try file.read(at: block.offset, count: block.count, into: buffer)
                let bytes = UnsafeRawBufferPointer(start: buffer.pointer, count: got)
                var isSame = got == block.count
                if let location = block.location {
                    let id = try await repository.reader.pack(location.pack).id(location.ordinal)
                    isSame = isSame && id == hasher.id(of: bytes)
                } else {
                    isSame = isSame && bytes.isZero
                }
                if !isSame { return "\(printable(sample.path)) holds other bytes at \(block.offset)" }
            }
            return nil
        } catch let error as SourceError {
            return "\(error)"
        }
    }
}

extension FileLayout {
    /// Where a block is stored; nil where it is all zero.
    fileprivate func location(_ block: Int) -> Location? {
        let (start, run) = runs[runs.partitioningIndex { $0.block > block } - 1]
        guard case .stored(let pack, let first, _) = run else { return nil }
        return Location(pack: pack, ordinal: first + block - start)
    }
}
