import BackupBase
import Foundation
import ObjectStorage
import Testing

@testable import BackupRepository

/// Packs of which snapshots need a part: what is needed is put into packs that take their places.
@Suite(.timeLimit(.minutes(20))) struct RepackTests {
    let store = MemoryStore()
    let repository: Repository
    let old: ObjectID
    static let blocks: [[UInt8]] = {
        var random = Seeded(11)
        return (0..<10).map { _ in random.bytes(4096) }
    }()

    /// A pack of ten blocks of which a snapshot needs two; what else was in it is forgotten.
    init() async throws {
        repository = try await Repository.written(on: store, ambient: store.ambient())
        let first = try await repository.snapshot(1, Self.blocks)
        try await repository.snapshot(2, [Self.blocks[3], Self.blocks[7]])
        old = try await repository.store([Self.blocks[3]], cohort: .mutable)[0].pack
        try await store.delete(first.object)
        store.advance(100)
    }

    var options: Prune.Options {
        var options = Prune.Options()
        options.grace = 0
        options.maxUnused = 0
        return options
    }

    @discardableResult
    func prune(
        _ repository: Repository? = nil, _ options: Prune.Options? = nil, confirm: () async throws -> Void = {}
    ) async throws -> PrunePlan {
        try await Prune.run(
            repository ?? self.repository, options ?? self.options, renewing: nil, progress: { _, _, _ in }, confirm: confirm)
    }

    func seen(_ store: MemoryStore? = nil) -> Repository {
        let store = store ?? self.store
        return repository.seen(on: store, ambient: store.ambient())
    }

    func expectWhole(_ store: MemoryStore? = nil, _ comment: Comment? = nil) async throws {
        let store = store ?? self.store
        let report = try await repository.seen(on: store).check()
        #expect(!report.isDamaged, comment ?? "\(report.findings)")
        for name in try await repository.seen(on: store).snapshotNames() {
            let blocks = name.sequence == 2 ? [3, 7] : name.sequence == 4 ? [5] : [0, 3]
            #expect(try await read(name, store) == blocks.flatMap { Self.blocks[$0] }, comment)
        }
    }

    func read(_ name: SnapshotName, _ store: MemoryStore) async throws -> [UInt8] {
        let repository = repository.seen(on: store)
        var bytes: [UInt8] = []
        var contents: [Content] = []
        try await repository.forEachEntry(of: repository.snapshot(name)) { entry in
            if case .file(_, let content) = entry.kind { contents.append(content) }
        }
        for content in contents { try await repository.read(content) { bytes += $0 } }
        return bytes
    }

    func successors(_ store: MemoryStore? = nil) async throws -> [ObjectID: Successor] {
        try await Successions(seen(store)).of
    }

    func with(_ change: (inout Prune.Options) -> Void) -> Prune.Options {
        var options = options
        change(&options)
        return options
    }

    // MARK: - What it does

    @Test func `what is needed moves, what is not comes free, and the snapshot reads as before`() async throws {
        let plan = try await Prune.run(repository, with { $0.dryRun = true }) { _, _, _ in }
        #expect(plan.repacked.packs >= 1 && plan.repackedInto < plan.repacked.bytes)
        #expect(store.names(Succession.topic.prefix).isEmpty, "a dry run changes nothing")
        let before = try await repository.storedPacks()
        let size = try #require(before[old]?.size)
        let done = try await prune()
        #expect(done.repacked == plan.repacked && done.unreadable.isEmpty)
        let packs = try await repository.storedPacks()
        let all = try await successors()
        let kept = try #require(all[old]?.kept)
        #expect(packs[old] == nil && (0..<10).filter(kept.contains) == [3, 7] && kept.count == 2)
        let id = try #require(all[old]?.pack)
        let successor = try #require(packs[id])
        #expect(successor.size < size - 7 * 4096 && successor.size > 2 * 4096)
        try await expectWhole()
        // Later runs have nothing to do.
        #expect(try await prune().repacked.packs == 0)
        #expect(try await repository.seen().check().findings.isEmpty)
        // The next backup finds its blocks where they are now.
        store.restart()
        try await seen().snapshot(3, [Self.blocks[0], Self.blocks[3]])
        let names = try await repository.snapshotNames()
        let last = try #require(names.last)
        let used = try await repository.packs(of: repository.snapshot(last))
        #expect(used.contains(id))
        try await expectWhole()
    }

    @Test func `below what may be unused nothing is repacked`() async throws {
        #expect(try await prune(nil, with { $0.maxUnused = 1000 }).repacked.packs == 0)
        #expect(try await prune(nil, with { $0.leastUnused = 0.95 }).repacked.packs == 0)
        #expect(store.names(Succession.topic.prefix).isEmpty)
        try await expectWhole()
    }

    @Test func `the fewest packs of which the most is unused`() {
        func pack(_ size: Int, _ unused: Int64) -> PrunePlan.PartlyUsed {
            PrunePlan.PartlyUsed(id: .random(.system), size: size, unused: unused)
        }
        let packs = [pack(100, 40), pack(100, 90), pack(1000, 500)]
        let all = packs.reduce(0) { $0 + $1.unused }
        #expect(Repack.chosen(packs, unused: all, allowed: all).isEmpty)
        #expect(Repack.chosen(packs, unused: all, allowed: all - 1).map(\.unused) == [90])
        #expect(Repack.chosen(packs, unused: all, allowed: all - 91).map(\.unused) == [90, 500])
        #expect(Repack.chosen(packs, unused: all, allowed: 0).count == 3)
    }

    @Test func `what was repacked is repacked again, and found over both steps`() async throws {
        try await prune()
        let names = try await repository.snapshotNames()
        let snapshot = try #require(names.last)
        // Of its two blocks a later snapshot needs one.
        try await seen().snapshot(4, [Self.blocks[7]])
        try await store.delete(snapshot.object)
        store.set("v1/snapshots/x", [])
        store.remove("v1/snapshots/x")
        store.advance(100)
        try await prune()
        #expect(try await seen().check().isDamaged == false)
        let all = try await successors()
        #expect(all.values.contains { $0.kept.count == 1 && $0.kept.contains(7) })
        for _ in 0..<5 { try await prune() }
        #expect(try await repository.storedPacks().count <= 3)
        // What nobody names any more has no notes either.
        let left = try await repository.snapshotNames()
        for name in left { try await store.delete(name.object) }
        for _ in 0..<5 { try await prune() }
        #expect(store.names("v1/packs/").isEmpty && store.names("v1/notes/").isEmpty)
    }

    @Test func `who opened the pack before it went reads on in the one that took its place`() async throws {
        let reader = repository.seen()
        let pack = try await reader.reader.pack(old)
        try await prune()
        #expect(try await repository.storedPacks()[old] == nil)
        let frame = try reader.reader.open(0, in: try await reader.reader.read(0..<1, of: pack))
        #expect(frame.pack.id != old && frame.held.map(\.ordinal) == [3, 7])
        for (ordinal, range) in frame.held {
            try reader.reader.verify(ordinal, range, of: frame)
            #expect(Array(frame.buffer.bytes[range]) == Self.blocks[ordinal])
        }
        // What was left out is not there for anybody.
        #expect(throws: BackupError.self) { try reader.reader.verify(4, 0..<0, of: frame) }
        var digest = FileDigest(repository.content(Extents(), ids: [], size: 4096), reader)
        #expect(throws: BackupError.self) { try digest.add(frame.pack, first: 4, count: 1, at: 0) }
    }

    // MARK: - Others at work

    @Test func `a snapshot that needs what was left out keeps the pack`() async throws {
        let node = repository.seen()
        var isFirst = true
        // Between the repack's look at what is needed and its note.
        try await prune {
            guard try await repository.seen().storedPacks().count > 4, isFirst else { return }
            isFirst = false
            try await node.snapshot(4, [Self.blocks[5]])
        }
        #expect(!isFirst)
        #expect(try await repository.storedPacks()[old] != nil)
        try await expectWhole()
        for _ in 0..<3 { try await prune(nil, with { $0.maxUnused = 1 }) }
        #expect(try await repository.storedPacks()[old] != nil)
        try await expectWhole()
    }

    /// What a repack puts, in order: packs, index, note.
    func repacked() async throws -> (packs: [String], index: [String], notes: [String], store: MemoryStore) {
        let after = store.copy()
        let before = Set(store.names)
        try await prune(seen(after))
        let new = after.names.filter { !before.contains($0) }
        func below(_ prefix: String) -> [String] { new.filter { $0.hasPrefix(prefix) } }
        return (below("v1/packs/"), below(IndexObject.prefix), below(Succession.topic.prefix), after)
    }

    @Test func `a prune that saw the new pack before its note lets it stay`() async throws {
        let (packs, index, notes, after) = try await repacked()
        for name in packs + index { store.set(name, after.bytes(name)!) }
        store.advance(100)
        let view = store.another()
        let (store, told) = (store, Locked(0))
        // It has marked once, and is about to say so: now the repack tells of its packs, and ends.
        view.onCall { call in
            guard call.operation == "put", call.name.hasPrefix(Tombstone.topic.prefix) else { return }
            for name in notes { store.set(name, after.bytes(name)!) }
            told.withLock { $0 += 1 }
        }
        let plan = try await prune(repository.seen(on: view, ambient: store.ambient()), with { $0.maxUnused = 1 })
        #expect(told.withLock { $0 } == 1 && plan.revived.packs == packs.count)
        for name in packs { #expect(store.bytes(name) != nil, "\(name)") }
        try await expectWhole()
    }

    @Test func `a pack does not go on the word of one that another prune may be taking away`() async throws {
        let (packs, index, notes, after) = try await repacked()
        for name in packs + index + notes { store.set(name, after.bytes(name)!) }
        let doomed = packs.map { "\($0.suffix(32))" }
        try await repository.put(note: Tombstone(packs: doomed), Tombstone.topic)
        try await prune(nil, with { $0.maxUnused = 1 })
        #expect(try await repository.storedPacks()[old] != nil)
        for name in packs { store.remove(name) }
        try await expectWhole()
    }

    @Test func `who finds that another run was first leaves its note alone`() async throws {
        let (_, _, notes, after) = try await repacked()
        let view = store.another()
        let store = store
        view.onCall { call in
            guard call.operation == "put", notes.contains(call.name) else { return }
            for name in after.names where store.bytes(name) == nil { store.set(name, after.bytes(name)!) }
        }
        #expect(try await prune(repository.seen(on: view, ambient: store.ambient())).repacked.packs == 0)
        view.onCall(nil)
        for name in notes { #expect(store.bytes(name) == after.bytes(name)) }
        try await expectWhole()
        for _ in 0..<3 { try await prune() }
        try await expectWhole()
    }

    @Test func `without what took its place a pack stays`() async throws {
        let (packs, index, notes, after) = try await repacked()
        for name in index + notes { store.set(name, after.bytes(name)!) }
        #expect(!packs.isEmpty)
        for _ in 0..<2 { try await prune(nil, with { $0.maxUnused = 1 }) }
        #expect(try await repository.storedPacks()[old] != nil && store.names(Succession.topic.prefix).isEmpty)
        try await expectWhole()
    }

    @Test func `a note that the owner did not make takes nothing away and hides nothing`() async throws {
        let other = try await repository.store([[UInt8](repeating: 1, count: 4096)], cohort: .mutable)[0].pack
        let writer = repository.seen(keys: repository.keys.writer)
        let forged = Succession(successor: "\(other)", kept: "ff03", seal: String(repeating: "ab", count: 32))
        try await writer.put(note: forged, Succession.topic, as: old)
        let report = try await repository.seen().check()
        #expect(!report.isDamaged && report.findings.contains { $0.message.contains("owner did not make it") })
        try await prune()
        #expect(try await repository.storedPacks()[old] != nil)
        // It was in the way of the owner's, and is gone.
        try await prune()
        #expect(try await repository.storedPacks()[old] == nil)
        // Nor does garbage keep a reader from what the owner said; a prune stops there.
        store.set(Succession.topic.object(ObjectID(bytes: [UInt8](repeating: 0, count: 16))), [1, 2, 3])
        for name in try await repository.snapshotNames() {
            #expect(try await read(name, store) == Self.blocks[3] + Self.blocks[7])
        }
        #expect(await code { try await prune() } == .damaged)
        #expect(try await repository.seen().check().isDamaged)
    }
}
