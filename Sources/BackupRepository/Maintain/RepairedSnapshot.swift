import BackupBase
import ObjectStorage

/// What is left of a snapshot: its entries without the files that lost
/// something. A file with a hole where data was would open, and lie; one that
/// is not there makes itself felt.
struct RepairedSnapshot {
    static let tag = "repaired"
    private static let mostProblems = 100
    /// Bytes of a path that a problem names: a record has room for them.
    private static let mostOfPath = 400
    /// Directories that stood in a chunk that is lost: for its owner alone until somebody looks at them.
    private static let unknown = Entry.Metadata(mode: 0o700, owner: 0, group: 0, modified: 0, attributes: [])

    let name: SnapshotName
    private(set) var report: RepairReport.Snapshot
    /// All packs that what is left needs, and those of the manifest.
    private(set) var packs: Set<ObjectID> = []
    let record: SnapshotRecord
    private var entries: [Entry] = []
    private var mustMove = false
    private let repository: Repository
    let survey: PackSurvey
    private var validator = ManifestValidator()
    private var lostChunks = 0
    private var bytesKept: Int64 = 0

    /// Whether it cannot be restored as it is.
    var isDamaged: Bool { mustMove || report.isLossy }

    /// - Throws: what a store that does not answer throws; what is damaged is noted
    init(_ snapshot: Snapshot, _ repository: Repository, _ survey: PackSurvey) async throws {
        name = snapshot.name
        (record, self.repository, self.survey) = (snapshot.record, repository, survey)
        report = RepairReport.Snapshot(damaged: name, node: snapshot.record.node)
        for run in snapshot.manifest.runs {
            guard case .stored(let pack, let first, let count) = run else { continue }
            try await meet(pack, first..<first + count)
            // Beyond what the pack holds all is lost alike: a manifest may name a hundred million blocks.
            let there = try await known(pack, first..<first + count)
            for ordinal in there {
                WorkPulse.beat()
                try await addChunk(Location(pack: pack, ordinal: ordinal))
            }
            lostChunks += count - there.count
        }
        if lostChunks > 0 { noteLost(before: nil) }
        // An empty manifest is none; a device is one file.
        report.isNothingLeft = entries.isEmpty || record.kind == .device && report.isLossy
    }

    private mutating func meet(_ pack: ObjectID, _ ordinals: Range<Int>) async throws {
        try await survey.know(pack)
        packs.insert(pack)
        if survey.mustMove(pack, ordinals) { mustMove = true }
    }

    /// Those of the ordinals that the pack has, as far as anybody knows.
    private func known(_ pack: ObjectID, _ ordinals: Range<Int>) async throws -> Range<Int> {
        ordinals.clamped(to: 0..<(try await survey.pack(pack)?.trailer.ids.count ?? 0))
    }

    // MARK: - Entries

    private mutating func addChunk(_ location: Location) async throws {
        guard let bytes = try await survey.bytes(location) else { return lostChunks += 1 }
        var chunk: [Entry] = []
        // What is no manifest, or out of order, is refused by every reader: it cannot stay as it is.
        do { try ManifestChunk.decode(bytes) { chunk.append($0) } } catch is FormatError { return lostChunks += 1 }
        let isAfterGap = lostChunks > 0 || !report.otherLosses.isEmpty
        if lostChunks > 0 { noteLost(before: chunk.first?.path) }
        for entry in chunk {
            do {
                if isAfterGap { try addParents(of: entry.path) }
                try await add(entry)
            } catch is FormatError {
                return lostChunks += 1
            }
        }
    }

    private mutating func noteLost(before path: [UInt8]?) {
        func words(_ path: [UInt8]) -> String { path.isEmpty ? "the root" : printable(path.prefix(Self.mostOfPath)) }
        report.otherLosses.append(
            "\(lostChunks) of the manifest's chunks: which entries there were between"
                + " \(entries.last.map { words($0.path) } ?? "the beginning") and \(path.map(words) ?? "the end") is not known")
        lostChunks = 0
    }

    private mutating func add(_ entry: Entry) async throws {
        switch entry.kind {
        case .hardLink(let target) where !validator.hasFile(target):
            report.filesLost.append(RepairReport.LostFile(path: entry.path, ranges: [], size: 0, digest: nil))
        case .file(_, let content):
            let lost = try await lostRanges(content)
            guard lost.isEmpty else {
                let file = RepairReport.LostFile(path: entry.path, ranges: lost, size: content.size, digest: content.digest)
                return report.filesLost.append(file)
            }
            try append(entry)
            report.filesKept += 1
            bytesKept += content.size
        case .hardLink, .directory, .symlink: try append(entry)
        }
    }

    private mutating func append(_ entry: Entry) throws {
        try validator.accept(entry)
        entries.append(entry)
    }

    private mutating func addParents(of path: [UInt8]) throws {
        if entries.isEmpty, !path.isEmpty { try append(Entry(path: [], kind: .directory(Self.unknown))) }
        for end in path.indices where path[end] == UInt8(ascii: "/") && !validator.isInside(path[..<end]) {
            try append(Entry(path: Array(path[..<end]), kind: .directory(Self.unknown)))
        }
    }

    // MARK: - Files

    /// Empty for a file that is whole.
    private mutating func lostRanges(_ content: Content) async throws -> [Range<Int64>] {
        var lost = LostRanges(content)
        var digest = FileDigest(content, repository)
        switch content.layout {
        case .inline(let part): try await look(part.extents, from: 0, &lost, &digest)
        case .indirect(let perPart, let parts):
            var first = 0
            for run in parts.runs {
                guard case .stored(let pack, let ordinal, let count) = run else { continue }
                try await meet(pack, ordinal..<ordinal + count)
                let there = try await known(pack, ordinal..<ordinal + count)
                for place in there {
                    let bytes = try await survey.bytes(Location(pack: pack, ordinal: place))
                    if let part = bytes.flatMap({ try? content.part(first / perPart, perPart: perPart, $0) }) {
                        try await look(part.extents, from: first, &lost, &digest)
                    } else {
                        lost.add(first, perPart)
                    }
                    first += perPart
                }
                lost.add(first, (count - there.count) * perPart)
                first += (count - there.count) * perPart
            }
        }
        guard lost.ranges.isEmpty else { return lost.ranges }
        // Each block is there, and it is not the file: nobody would restore it.
        do { try digest.check() } catch let error as BackupError where error.code == .damaged { lost.addAll() }
        return lost.ranges
    }

    private mutating func look(
        _ extents: Extents, from first: Int, _ lost: inout LostRanges, _ digest: inout FileDigest
    ) async throws {
        var block = first
        for run in extents.runs {
            switch run {
            case .zero(let count): digest.addZero(count)
            case .stored(let pack, let ordinal, let count):
                let ordinals = ordinal..<ordinal + count
                try await meet(pack, ordinals)
                for gap in survey.lost(in: pack, ordinals) { lost.add(block + gap.lowerBound - ordinal, gap.count) }
                do {
                    guard let open = try await survey.pack(pack) else { throw BackupError(.damaged, "nothing is known of it") }
                    try digest.add(open, first: ordinal, count: count, at: block)
                } catch let error as BackupError where error.code == .damaged {
                    lost.add(block, count)
                }
            }
            block += run.count
        }
    }

    // MARK: - An earlier one

    /// Takes from what is lost what an earlier repair's snapshot has. Nil where that has not all that is left.
    func lessWhatIsIn(_ earlier: RepairedSnapshot) -> RepairReport.Snapshot? {
        guard !earlier.isDamaged, let mark = earlier.record.repair else { return nil }
        let there = Dictionary(earlier.entries.map { ($0.path, $0.kind) }, uniquingKeysWith: { first, _ in first })
        let isAsGood = entries.allSatisfy { entry in there[entry.path].map { Self.isAsGood($0, as: entry.kind) } ?? false }
        guard isAsGood else { return nil }
        var left = report
        left.filesLost.removeAll { file in
            switch there[file.path] {
            case .file(_, let content)?: content.digest == file.digest && content.size == file.size
            case .hardLink?: file.digest == nil
            case .directory?, .symlink?, nil: false
            }
        }
        if mark.lost == 0 { left.otherLosses = [] }
        left.existing = earlier.name
        return left
    }

    private static func isAsGood(_ kind: Entry.Kind, as wanted: Entry.Kind) -> Bool {
        switch (kind, wanted) {
        case (.file(let metadata, let content), .file(let wantedMetadata, let wanted)):
            metadata == wantedMetadata && content.size == wanted.size && content.digest == wanted.digest
        case (.directory, .directory(Self.unknown)): true
        default: kind == wanted
        }
    }

    // MARK: - The new snapshot

    /// Stores manifest and record, and all that must not be referred to where it is.
    /// - Parameter other: a snapshot of the same sequence that the new one stands behind
    func commit(_ mover: BlockMover, behind other: ObjectID) async throws -> SnapshotName {
        try await mover.move(packs)
        var chunker = ManifestChunker()
        var chunks: [RepositoryWriter.Place] = []
        for entry in entries {
            WorkPulse.beat()
            var entry = entry
            if case .file(let metadata, var content) = entry.kind {
                content.layout = try await moved(content, mover)
                entry.kind = .file(metadata, content)
            }
            if let chunk = try chunker.add(entry) { chunks.append(try await mover.store(chunk, .metadata)) }
        }
        if let chunk = chunker.finish() { chunks.append(try await mover.store(chunk, .metadata)) }
        let manifest = try await settled(chunks, mover)
        var id = ObjectID.random(repository.ambient)
        // Chances are good, and where they are not, half of the other's digits stay. Behind an id of ones there is nothing.
        for _ in 0..<64 where id < other { id = .random(repository.ambient) }
        for _ in 0..<64 where id < other { id = ObjectID(bytes: other.bytes.prefix(8) + repository.ambient.random(8)) }
        return try await mover.writer.commit(try newRecord(id), manifest: manifest, id: id).name
    }

    private func moved(_ content: Content, _ mover: BlockMover) async throws -> Content.Layout {
        switch content.layout {
        case .inline(var part):
            part.extents = try mover.moved(part.extents)
            return .inline(part)
        case .indirect(let perPart, let parts):
            var places: [RepositoryWriter.Place] = []
            for run in parts.runs {
                guard case .stored(let pack, let first, let count) = run else { continue }
                for ordinal in first..<first + count {
                    guard let bytes = try await survey.bytes(Location(pack: pack, ordinal: ordinal)) else {
                        throw BackupError(.damaged, "a file's block list was there and is damaged now", hint: "Run it again.")
                    }
                    var part = try content.part(places.count, perPart: perPart, bytes)
                    part.extents = try mover.moved(part.extents)
                    places.append(try await mover.store(part.encoded, .metadata))
                }
            }
            return .indirect(blocksPerPart: perPart, parts: try await settled(places, mover))
        }
    }

    private func settled(_ places: [RepositoryWriter.Place], _ mover: BlockMover) async throws -> Extents {
        // It ends a pack.
        if places.contains(where: { if case .new = $0 { true } else { false } }) { try await mover.writer.settleTickets() }
        return places.reduce(into: Extents()) { $0.append(mover.location(of: $1)) }
    }

    private func newRecord(_ id: ObjectID) throws -> SnapshotRecord {
        var next = record
        next.parent = "\(name.id)"
        if !next.tags.contains(Self.tag) { next.tags.append(Self.tag) }
        let lost =
            report.filesLost.map { "\(printable($0.path.prefix(Self.mostOfPath))): lost, left out by a repair" }
            + report.otherLosses.map { "lost: \($0)" }
        next.problems += lost.prefix(Self.mostProblems)
        if lost.count > Self.mostProblems { next.problems.append("and \(lost.count - Self.mostProblems) more that are lost") }
        next.repair = RepairRecord(
            lost: lost.count, seal: try repository.keys.ownerSeal(of: RepairRecord.sealed(name.id, id, lost: lost.count)))
        guard report.isLossy else { return next }
        next.complete = false
        // They were said of the whole: whether Qdrant would start on what is left nobody has looked.
        (next.inspection, next.fingerprint) = (nil, nil)
        next.statistics["bytes_total"] = bytesKept
        return next
    }
}

/// Bytes of a file that are lost, from its blocks.
private struct LostRanges {
    private(set) var ranges: [Range<Int64>] = []
    private let content: Content

    init(_ content: Content) { self.content = content }

    /// In ascending order; what was added already may be added again.
    mutating func add(_ first: Int, _ count: Int) {
        let start = Int64(first) * Int64(content.blockSize)
        let end = min(content.size, start + Int64(min(count, content.blockCount - first)) * Int64(content.blockSize))
        guard start < end else { return }
        if let last = ranges.last, last.upperBound >= start {
            ranges[ranges.count - 1] = min(last.lowerBound, start)..<max(last.upperBound, end)
        } else {
            ranges.append(start..<end)
        }
    }

    mutating func addAll() { ranges = [0..<content.size] }
}

extension Content {
    /// A part of an indirect layout from its block.
    func part(_ number: Int, perPart: Int, _ bytes: [UInt8]) throws -> Part {
        let first = number * perPart
        let start = Int64(first) * Int64(blockSize)
        return try Part(
            decoding: bytes, size: min(Int64(perPart) * Int64(blockSize), size - start), blocks: min(perPart, blockCount - first))
    }
}
