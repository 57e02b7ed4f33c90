import BackupBase
import ObjectStorage

/// Blocks of one pack, by their ordinals.
struct BlockSet {
    private var words: [UInt64] = []

    /// No trailer has room for more: what a manifest says beyond is damage, and no reason for more memory.
    private static let most = 1 << 20

    mutating func insert(_ first: Int, _ count: Int) {
        let end = min(first + count, Self.most)
        guard first < end else { return }
        if end > words.count * 64 { words += [UInt64](repeating: 0, count: (end + 63) / 64 - words.count) }
        for ordinal in first..<end { words[ordinal >> 6] |= 1 << UInt64(ordinal & 63) }
    }

    func contains(_ ordinal: Int) -> Bool {
        ordinal >> 6 < words.count && words[ordinal >> 6] & (1 << UInt64(ordinal & 63)) != 0
    }

    /// Bytes of the pack's frames that hold none of these blocks, or as a share of a frame that holds some.
    func unusedBytes(of trailer: PackTrailer) -> Int64 {
        var unused: Int64 = 0
        for frame in trailer.frames {
            let live = frame.blocks.reduce(0) { $0 + (contains($1) ? Int(trailer.lengths[$1]) : 0) }
            unused += Int64(Double(frame.sealedLength) * (1 - Double(live) / Double(max(frame.length, 1))))
        }
        return unused
    }
}

/// The packs that several snapshots need. What one of them shares with the one
/// before, chunks of the manifest and block lists, is read once.
final class ReferenceMark {
    /// Which blocks of which packs: a bit for each.
    private(set) var used: [ObjectID: BlockSet] = [:]
    private let repository: Repository
    private var seen: Set<Location> = []

    /// Places remembered at the most: some 100 MB. Beyond, what is shared is read again.
    private static let mostSeen = 2_000_000

    init(_ repository: Repository) { self.repository = repository }

    func needs(_ pack: ObjectID) -> Bool { used[pack] != nil }

    /// Throws `.damaged` for what cannot be read: then nothing is known.
    func add(_ snapshot: Snapshot) async throws {
        try await forEachUnseen(snapshot.manifest) { location in
            let bytes = try await repository.reader.block(location)
            var indirect: [Content] = []
            try named("the manifest of snapshot \(snapshot.id)", location) {
                try ManifestChunk.decode(bytes) { entry in
                    guard case .file(_, let content) = entry.kind else { return }
                    switch content.layout {
                    case .inline(let part): insert(part.extents)
                    case .indirect: indirect.append(content)
                    }
                }
            }
            for content in indirect { try await add(content) }
        }
    }

    private func add(_ content: Content) async throws {
        guard case .indirect(let perPart, let parts) = content.layout else { return }
        var part = 0
        var wanted: [(location: Location, part: Int)] = []
        parts.forEachBlock { location in
            if let location, visit(location) { wanted.append((location, part)) }
            part += 1
        }
        insert(parts)
        for (location, part) in wanted {
            let first = part * perPart
            let blocks = min(perPart, content.blockCount - first)
            let size = min(
                Int64(perPart) * Int64(content.blockSize), content.size - Int64(first) * Int64(content.blockSize))
            let bytes = try await repository.reader.block(location)
            try named("a file's block list", location) {
                insert(try Content.Part(decoding: bytes, size: size, blocks: blocks).extents)
            }
        }
    }

    private func forEachUnseen(_ extents: Extents, _ body: (Location) async throws -> Void) async throws {
        insert(extents)
        for case .stored(let pack, let first, let count) in extents.runs {
            for ordinal in first..<first + count {
                let location = Location(pack: pack, ordinal: ordinal)
                if visit(location) { try await body(location) }
            }
        }
    }

    /// Whether a place was not seen before.
    private func visit(_ location: Location) -> Bool {
        if seen.count >= Self.mostSeen { seen = [] }
        return seen.insert(location).inserted
    }

    private func insert(_ extents: Extents) {
        for case .stored(let pack, let first, let count) in extents.runs {
            used[pack, default: BlockSet()].insert(first, count)
        }
    }

    private func named(_ what: String, _ location: Location, _ body: () throws -> Void) throws {
        do { try body() } catch let error as FormatError {
            throw BackupError(
                .damaged, "\(what) is not valid (\(FinishedPack.name(location.pack)), block \(location.ordinal))", cause: error)
        }
    }
}

extension Repository {
    /// The packs that a snapshot needs: those of its manifest, its block lists and its files.
    func packs(of snapshot: Snapshot) async throws -> Set<ObjectID> {
        var needed = snapshot.manifest.packs
        try await forEachEntry(of: snapshot) { entry in
            guard case .file(_, let content) = entry.kind else { return }
            needed.formUnion(entry.packs)
            guard case .indirect = content.layout else { return }
            try await forEachPart(of: content) { part, _ in needed.formUnion(part.extents.packs) }
        }
        return needed
    }
}
