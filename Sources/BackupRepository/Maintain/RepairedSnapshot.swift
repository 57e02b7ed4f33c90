import BackupBase
import ObjectStorage

/// What is left of a damaged snapshot: its entries without the files that lost
/// something. A file with a hole where data was would open, and lie; one that
/// is not there makes itself felt.
struct RepairedSnapshot {
    static let tag = "repaired"
    private static let mostProblems = 100

    let name: SnapshotName
    private(set) var report: RepairReport.Snapshot
    /// Damaged packs that it needs.
    private(set) var packs: Set<ObjectID> = []
    private let record: SnapshotRecord
    private var entries: [Entry] = []
    private var mustMove = false

    /// Whether it cannot be restored as it is.
    var isDamaged: Bool { mustMove || report.isLossy }

    init(_ snapshot: Snapshot, _ name: SnapshotName, _ repository: Repository, _ survey: PackSurvey) async throws {
        self.name = name
        record = snapshot.record
        report = RepairReport.Snapshot(damaged: name, node: snapshot.record.node)
        var lostChunks = 0
        for location in snapshot.manifest.locations {
            meet(location, survey)
            do {
                let bytes = try await survey.bytes(location)
                if lostChunks > 0 { noteLost(lostChunks, before: try Self.firstPath(bytes)) }
                lostChunks = 0
                var chunk: [Entry] = []
                try ManifestChunk.decode(bytes) { chunk.append($0) }
                for entry in chunk { try await add(entry, survey) }
            } catch let error as BackupError where error.code == .damaged {
                lostChunks += 1
            } catch is FormatError {
                lostChunks += 1
            }
        }
        if lostChunks > 0 { noteLost(lostChunks, before: nil) }
        dropLinks()
    }

    private static func firstPath(_ chunk: [UInt8]) throws -> [UInt8]? {
        var first: [UInt8]?
        try ManifestChunk.decode(chunk) { if first == nil { first = $0.path } }
        return first
    }

    private mutating func noteLost(_ chunks: Int, before path: [UInt8]?) {
        let after = entries.last.map { $0.path.isEmpty ? "the root" : printable($0.path) } ?? "the beginning"
        report.otherLosses.append(
            "\(chunks) of the manifest's chunks: which entries there were between \(after) and"
                + " \(path.map { printable($0) } ?? "the end") is not known")
    }

    private mutating func meet(_ location: Location, _ survey: PackSurvey) {
        guard survey.isBad(location.pack) else { return }
        packs.insert(location.pack)
        if survey.mustMove(location) { mustMove = true }
    }

    // MARK: - Entries

    private mutating func add(_ entry: Entry, _ survey: PackSurvey) async throws {
        addParents(of: entry.path)
        guard case .file(_, let content) = entry.kind else { return entries.append(entry) }
        if let lost = try await lostRanges(content, survey) {
            report.filesLost.append(RepairReport.LostFile(path: entry.path, ranges: lost, size: content.size))
        } else {
            report.filesKept += 1
            entries.append(entry)
        }
    }

    /// Directories that stood in a chunk that is lost: for its owner alone until somebody looks at them.
    private mutating func addParents(of path: [UInt8]) {
        let plain = Entry.Metadata(mode: 0o700, owner: 0, group: 0, modified: 0, attributes: [])
        if entries.isEmpty, !path.isEmpty { entries.append(Entry(path: [], kind: .directory(plain))) }
        var known: Set<[UInt8]> = []
        for entry in entries.reversed() {
            if case .directory = entry.kind { known.insert(entry.path) }
            if known.count > 64 { break }
        }
        let slashes = path.indices.filter { path[$0] == UInt8(ascii: "/") }
        for end in slashes where !known.contains(Array(path[..<end])) {
            guard !entries.contains(where: { $0.path == Array(path[..<end]) }) else { continue }
            entries.append(Entry(path: Array(path[..<end]), kind: .directory(plain)))
        }
    }

    /// Nil for a file that is whole.
    private mutating func lostRanges(_ content: Content, _ survey: PackSurvey) async throws -> [Range<Int64>]? {
        var ranges: [Range<Int64>] = []
        func lose(_ first: Int, _ count: Int) {
            let start = Int64(first) * Int64(content.blockSize)
            let end = min(content.size, Int64(first + count) * Int64(content.blockSize))
            if ranges.last?.upperBound == start {
                ranges[ranges.count - 1] = ranges[ranges.count - 1].lowerBound..<end
            } else {
                ranges.append(start..<end)
            }
        }
        switch content.layout {
        case .inline(let part):
            for (block, location) in part.extents.blocks where location.map(survey.isLost) == true { lose(block, 1) }
            for location in part.extents.locations { meet(location, survey) }
        case .indirect(let perPart, let parts):
            for (number, place) in parts.locations.enumerated() {
                meet(place, survey)
                guard let bytes = try? await survey.bytes(place), let part = try? content.part(number, perPart: perPart, bytes)
                else {
                    lose(number * perPart, perPart)
                    continue
                }
                for (block, location) in part.extents.blocks where location.map(survey.isLost) == true {
                    lose(number * perPart + block, 1)
                }
                for location in part.extents.locations { meet(location, survey) }
            }
        }
        return ranges.isEmpty ? nil : ranges
    }

    /// Other names of files that are gone.
    private mutating func dropLinks() {
        let files = Set(entries.compactMap { entry -> [UInt8]? in if case .file = entry.kind { entry.path } else { nil } })
        for entry in entries {
            guard case .hardLink(let target) = entry.kind, !files.contains(target) else { continue }
            report.filesLost.append(RepairReport.LostFile(path: entry.path, ranges: [], size: 0))
        }
        entries.removeAll { if case .hardLink(let target) = $0.kind { !files.contains(target) } else { false } }
    }

    // MARK: - The new snapshot

    /// Stores manifest and record; the blocks are where `moved` says.
    func commit(
        _ repository: Repository, _ writer: RepositoryWriter, _ survey: PackSurvey, moved: (Location) -> Location?
    ) async throws -> (SnapshotName, RepairReport.Snapshot) {
        func place(_ location: Location) throws -> Location {
            if let there = moved(location) { return there }
            guard !survey.mustMove(location) else {
                throw BackupError(.failed, "block \(location.ordinal) of \(FinishedPack.name(location.pack)) was not saved")
            }
            return location
        }
        func mapped(_ extents: Extents) throws -> Extents {
            var result = Extents()
            try extents.forEachBlock { location in
                if let location { result.append(try place(location)) } else { result.appendZero() }
            }
            return result
        }
        var chunker = ManifestChunker()
        var chunks: [RepositoryWriter.Place] = []
        let hasher = repository.keys.blockHasher
        for entry in entries {
            var entry = entry
            if case .file(let metadata, var content) = entry.kind {
                switch content.layout {
                case .inline(var part):
                    part.extents = try mapped(part.extents)
                    content.layout = .inline(part)
                case .indirect(let perPart, let parts):
                    var places: [RepositoryWriter.Place] = []
                    for (number, location) in parts.locations.enumerated() {
                        var part = try content.part(number, perPart: perPart, try await survey.bytes(location))
                        part.extents = try mapped(part.extents)
                        places.append(try await writer.add(block: part.encoded, hasher, cohort: .metadata))
                    }
                    try await writer.settleTickets()
                    content.layout = .indirect(blocksPerPart: perPart, parts: Self.extents(places, writer))
                }
                entry.kind = .file(metadata, content)
            }
            if let chunk = try chunker.add(entry) { chunks.append(try await writer.add(block: chunk, hasher, cohort: .metadata)) }
        }
        if let chunk = chunker.finish() { chunks.append(try await writer.add(block: chunk, hasher, cohort: .metadata)) }
        try await writer.settleTickets()
        let made = try await writer.commit(newRecord(), manifest: Self.extents(chunks, writer), after: name.id)
        return (made, report)
    }

    private static func extents(_ places: [RepositoryWriter.Place], _ writer: RepositoryWriter) -> Extents {
        var extents = Extents()
        for place in places {
            switch place {
            case .stored(let location): extents.append(location)
            case .new(let ticket): extents.append(writer.location(ofTicket: ticket))
            case .zero: preconditionFailure("metadata is never all zero")
            }
        }
        return extents
    }

    private func newRecord() -> SnapshotRecord {
        var next = record
        next.parent = "\(name.id)"
        if !next.tags.contains(Self.tag) { next.tags.append(Self.tag) }
        let lost =
            report.filesLost.map { "\(printable($0.path)): lost, left out by a repair" }
            + report.otherLosses.map { "lost: \($0)" }
        next.problems += lost.prefix(Self.mostProblems)
        if lost.count > Self.mostProblems { next.problems.append("and \(lost.count - Self.mostProblems) more that are lost") }
        next.complete = next.complete && lost.isEmpty
        return next
    }
}

extension Extents {
    /// Blocks by their numbers; nil for an all-zero block.
    var blocks: [(number: Int, location: Location?)] {
        var found: [(Int, Location?)] = []
        forEachBlock { found.append((found.count, $0)) }
        return found
    }
}
