import BackupBase
import ObjectStorage

/// Blocks of one pack, by their ordinals.
struct BlockSet: Sendable, Equatable {
    private var words: [UInt64] = []
    /// There was no room to tell which.
    private var isWhole = false

    /// No trailer has room for more: what a manifest says beyond is damage, and no reason for more memory.
    private static let most = PackLimits.mostBlocks

    /// - Parameter room: words that the set may grow by
    /// - Returns: those that it grew by
    mutating func insert(_ first: Int, _ count: Int, room: Int) -> Int {
        let end = min(first + count, Self.most)
        guard first < end, !isWhole else { return 0 }
        let more = max((end + 63) / 64 - words.count, 0)
        guard more <= room else {
            isWhole = true
            defer { words = [] }
            return -words.count
        }
        if more > 0 { words += [UInt64](repeating: 0, count: more) }
        var next = first
        while next < end {
            // Up to a word at once: runs are long.
            let width = min(64 - (next & 63), end - next)
            let mask = width == 64 ? UInt64.max : ((1 << UInt64(width)) - 1) << UInt64(next & 63)
            words[next >> 6] |= mask
            next += width
        }
        return more
    }

    /// What `hex` gave; nil for anything else, and for more blocks than a pack has.
    init?(hex: String) {
        guard hex.utf8.count <= Self.most / 4, let bytes = bytesFromHex(hex) else { return nil }
        words = stride(from: 0, to: bytes.count, by: 8).map { start in
            bytes[start..<min(start + 8, bytes.count)].reversed().reduce(UInt64(0)) { $0 << 8 | UInt64($1) }
        }
    }

    init() {}

    /// A bit for each block, the lowest of a byte first.
    var hex: String { words.flatMap { word in (0..<8).map { UInt8(truncatingIfNeeded: word >> (8 * $0)) } }.hex }

    var count: Int { isWhole ? Self.most : words.reduce(0) { $0 + $1.nonzeroBitCount } }

    /// Whether the other has all of these: what is not known may be any.
    func isSubset(of other: BlockSet) -> Bool {
        if other.isWhole { return true }
        guard !isWhole else { return false }
        return words.indices.allSatisfy { words[$0] & ~($0 < other.words.count ? other.words[$0] : 0) == 0 }
    }

    /// Adds those that both of two others have.
    /// - Returns: words that it grew by, or 0 where nothing was new
    mutating func formUnion(_ one: BlockSet, and two: BlockSet) -> Int {
        guard !isWhole else { return 0 }
        guard !one.isWhole || !two.isWhole else {
            defer { (isWhole, words) = (true, []) }
            return -words.count
        }
        let (short, long) = one.isWhole || !two.isWhole && one.words.count > two.words.count ? (two, one) : (one, two)
        let more = max(short.words.count - words.count, 0)
        if more > 0 { words += [UInt64](repeating: 0, count: more) }
        for (index, word) in short.words.enumerated() {
            words[index] |= long.isWhole ? word : word & long.words[index]
        }
        return more
    }

    func contains(_ ordinal: Int) -> Bool {
        isWhole || ordinal >> 6 < words.count && words[ordinal >> 6] & (1 << UInt64(ordinal & 63)) != 0
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
    /// Those that snapshots name; the others took the place of one.
    private(set) var byName: Set<ObjectID> = []
    private let repository: Repository
    private var seen: Set<Location> = []
    /// Words that sets of blocks may still take. A manifest can name packs that never were, each with a million blocks.
    private var room = mostWords

    /// Places remembered at the most: some 100 MB. Beyond, what is shared is read again.
    private static let mostSeen = 2_000_000
    /// 256 MB, as much as 2 billion blocks need. Beyond, packs are needed as a whole: nothing counts as wasted.
    private static let mostWords = 32 << 20
    /// 600 TB in packs; honest snapshots need no more.
    private static let mostPacks = 10_000_000
    private static let tooManyPacks = BackupError(
        .damaged, "snapshots need more than \(mostPacks) packs",
        hint: "Some name packs that never were: look at the newest ones, and forget those that nobody made.")

    init(_ repository: Repository) { self.repository = repository }

    func needs(_ pack: ObjectID) -> Bool { used[pack] != nil }

    /// What is needed of a pack is needed of the one that took its place as well, and of the one that took that one's.
    func follow(_ successions: Successions) {
        var next = successions.of.keys.filter { used[$0] != nil }
        // Each step adds blocks, or is the last of its kind: there is no going round in circles.
        while let pack = next.popLast() {
            guard let needed = used[pack], let successor = successions.of[pack] else { continue }
            let before = used[successor.pack]
            var after = before ?? BlockSet()
            room -= after.formUnion(needed, and: successor.kept)
            guard after != before, after.count > 0 else { continue }
            used[successor.pack] = after
            if successions.of[successor.pack] != nil { next.append(successor.pack) }
        }
    }

    /// Throws `.damaged` for what cannot be read: then nothing is known.
    func add(_ snapshot: Snapshot) async throws {
        try await forEachUnseen(snapshot.manifest) { location, _ in
            let bytes = try await repository.reader.block(location)
            var indirect: [Content] = []
            try named("the manifest of snapshot \(snapshot.id)", location) {
                try ManifestChunk.decode(bytes) { entry in
                    guard case .file(_, let content) = entry.kind else { return }
                    switch content.layout {
                    case .inline(let part): try insert(part.extents)
                    case .indirect: indirect.append(content)
                    }
                }
            }
            for content in indirect { try await add(content) }
        }
    }

    private func add(_ content: Content) async throws {
        guard case .indirect(let perPart, let parts) = content.layout else { return }
        try await forEachUnseen(parts) { location, part in
            let first = part * perPart
            let blocks = min(perPart, content.blockCount - first)
            let size = min(
                Int64(perPart) * Int64(content.blockSize), content.size - Int64(first) * Int64(content.blockSize))
            let bytes = try await repository.reader.block(location)
            try named("a file's block list", location) {
                try insert(try Content.Part(decoding: bytes, size: size, blocks: blocks).extents)
            }
        }
    }

    /// - Parameter body: gets a place, and how many blocks stand before it
    private func forEachUnseen(_ extents: Extents, _ body: (Location, Int) async throws -> Void) async throws {
        try insert(extents)
        var before = 0
        for run in extents.runs {
            if case .stored(let pack, let first, let count) = run {
                for step in 0..<count {
                    let location = Location(pack: pack, ordinal: first + step)
                    if visit(location) { try await body(location, before + step) }
                }
            }
            before += run.count
        }
    }

    /// Whether a place was not seen before.
    private func visit(_ location: Location) -> Bool {
        if seen.count >= Self.mostSeen { seen = [] }
        return seen.insert(location).inserted
    }

    private func insert(_ extents: Extents) throws {
        for case .stored(let pack, let first, let count) in extents.runs {
            byName.insert(pack)
            room -= used[pack, default: BlockSet()].insert(first, count, room: room)
            guard used.count <= Self.mostPacks else { throw Self.tooManyPacks }
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
