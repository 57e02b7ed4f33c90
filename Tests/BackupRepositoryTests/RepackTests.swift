import BackupBase
import Foundation
import ObjectStorage
import Testing

@testable import BackupRepository

/// Packs of which snapshots need a part: what is needed is put into packs that take their places.
@Suite(.timeLimit(.minutes(20))) struct RepackTests {
    private let store = MemoryStore()
    private let repository: Repository
    private let old: ObjectID
    private static let blocks: [[UInt8]] = {
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

    private var options: Prune.Options {
        var options = Prune.Options()
        options.grace = 0
        options.maxUnused = 0
        return options
    }

    @discardableResult
    private func prune(
        _ repository: Repository? = nil, _ options: Prune.Options? = nil, confirm: () async throws -> Void = {}
    ) async throws -> PrunePlan {
        try await Prune.run(
            repository ?? self.repository, options ?? self.options, renewing: nil, progress: { _, _, _ in }, confirm: confirm)
    }

    private func seen(_ store: MemoryStore? = nil) -> Repository {
        let store = store ?? self.store
        return repository.seen(on: store, ambient: store.ambient())
    }

    private func expectWhole(_ store: MemoryStore? = nil, _ comment: Comment? = nil) async throws {
        let store = store ?? self.store
        let report = try await repository.seen(on: store).check()
        #expect(!report.isDamaged, comment ?? "\(report.findings)")
        for name in try await repository.seen(on: store).snapshotNames() {
            let blocks = name.sequence == 2 ? [3, 7] : name.sequence == 4 ? [5] : [0, 3]
            #expect(try await read(name, store) == blocks.flatMap { Self.blocks[$0] }, comment)
        }
    }

    private func read(_ name: SnapshotName, _ store: MemoryStore) async throws -> [UInt8] {
        let repository = repository.seen(on: store)
        var bytes: [UInt8] = []
        var contents: [Content] = []
        try await repository.forEachEntry(of: repository.snapshot(name)) { entry in
            if case .file(_, let content) = entry.kind { contents.append(content) }
        }
        for content in contents { try await repository.read(content) { bytes += $0 } }
        return bytes
    }

    private func successors(_ store: MemoryStore? = nil) async throws -> [ObjectID: Successor] {
        try await Successions(seen(store)).of
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
    private func repacked() async throws -> (packs: [String], index: [String], notes: [String], store: MemoryStore) {
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

    // MARK: - Faults

    @Test(arguments: MemoryStore.Moment.allCases)
    func `killed at any call it loses nothing, and the next runs end it`(_ moment: MemoryStore.Moment) async throws {
        let whole = store.copy()
        try await prune(seen(whole))
        let left = whole.names("v1/packs/").count
        for number in 1...whole.calls.count {
            let memory = store.copy()
            let view = memory.another()
            view.fail(at: number, moment, dies: true)
            _ = await failure { try await prune(repository.seen(on: view, ambient: memory.ambient())) }
            memory.advance(Intent.life + 1)
            try await expectWhole(memory, "call \(number)")
            for _ in 0..<3 { try await prune(seen(memory)) }
            #expect(memory.names("v1/packs/").count == left, "call \(number)")
            #expect(memory.names("v1/notes/").count == memory.names(Succession.topic.prefix).count, "call \(number)")
            try await expectWhole(memory, "call \(number)")
        }
    }

    @Test func `a block that cannot be read keeps its pack, and is told`() async throws {
        store.damage(FinishedPack.name(old)) { $0[ObjectHeader.size + 40] ^= 1 }
        let done = try await prune()
        #expect(done.unreadable.count == 1 && done.unreadable[0].contains("\(old)"))
        #expect(store.bytes(FinishedPack.name(old)) != nil && store.bytes(Succession.topic.object(old)) == nil)
    }

    @Test func `what took a pack's place is read whole before the pack goes, whatever the note says`() async throws {
        let (packs, index, notes, after) = try await repacked()
        for name in packs + index + notes { store.set(name, after.bytes(name)!) }
        let all = try await successors()
        let successor = FinishedPack.name(try #require(all[old]?.pack))
        store.damage(successor) { $0[ObjectHeader.size + 40] ^= 1 }
        let plan = try await prune(nil, with { $0.maxUnused = 1 })
        #expect(plan.unreadable.count == 1 && plan.unreadable[0].contains(successor))
        #expect(store.bytes(FinishedPack.name(old)) != nil)
        // Nor on the word of one of the same name that holds other blocks.
        let other = FinishedPack.name(try await seen().store([Self.blocks[1]], cohort: .mutable)[0].pack)
        store.set(successor, store.bytes(other)!)
        #expect(try await prune(nil, with { $0.maxUnused = 1 }).unreadable.count == 1)
        #expect(store.bytes(FinishedPack.name(old)) != nil)
    }

    @Test func `where a needed pack is missing nothing goes: another one may be all that is left of it`() async throws {
        try await prune()
        let all = try await successors()
        let (note, successor) = (Succession.topic.object(old), try #require(all[old]?.pack))
        let bytes = store.bytes(note)!
        store.remove(note)
        let before = store.names("v1/packs/")
        for _ in 0..<2 { #expect(await code { try await prune() } == .damaged) }
        #expect(store.names("v1/packs/") == before && before.contains(FinishedPack.name(successor)))
        store.set(note, bytes)
        try await prune()
        try await expectWhole()
    }

    @Test func `what the store has is read back before the old pack goes on its word`() async throws {
        let view = store.another()
        let (store, old) = (store, FinishedPack.name(old))
        let known = Locked(Set(store.names))
        // The answer was 200; a bit of what is there is another one.
        view.onCall { call in
            guard call.operation == "get", call.name.hasPrefix("v1/packs/"),
                known.withLock({ $0.insert(call.name).inserted })
            else { return }
            store.damage(call.name) { $0[ObjectHeader.size + 20] ^= 1 }
        }
        let done = try await prune(repository.seen(on: view, ambient: store.ambient()))
        view.onCall(nil)
        #expect(done.repacked.packs == 0 && !done.unreadable.isEmpty)
        #expect(store.bytes(old) != nil && store.names(Succession.topic.prefix).isEmpty)
    }

    @Test func `given up while it stood still it says so, and its notes stay`() async throws {
        let view = store.another()
        let store = store
        view.onCall { call in
            guard call.operation == "put", call.name.hasPrefix(Succession.topic.prefix) else { return }
            for name in store.names("tmp/intent-") { store.remove(name) }
        }
        #expect(await code { try await prune(repository.seen(on: view, ambient: store.ambient())) } == .busy)
        view.onCall(nil)
        // Another prune may have acted on them.
        #expect(!store.names(Succession.topic.prefix).isEmpty)
        try await expectWhole()
        for _ in 0..<3 { try await prune() }
        try await expectWhole()
    }

    // MARK: - Beside it

    @Test func `a copy has what took the place of a pack, and the note that says so`() async throws {
        try await prune()
        let place = MemoryStore()
        let report = try await Replication(from: seen(), to: place, dryRun: false) { _ in }.run(nil, renewing: nil)
        #expect(report.damaged.isEmpty && report.snapshots == 1)
        #expect(
            place.names(Succession.topic.prefix) == store.names(Succession.topic.prefix)
                && place.bytes(FinishedPack.name(old)) == nil)
        try await expectWhole(place)
        for _ in 0..<2 { try await prune(seen(place)) }
        try await expectWhole(place)
        // Also by who cannot read.
        let blind = MemoryStore()
        let writer = seen().seen(keys: repository.keys.writer)
        #expect(try await Replication(from: writer, to: blind, dryRun: false) { _ in }.run(nil, renewing: nil).snapshots == 1)
        try await expectWhole(blind)
    }

    @Test func `where both places repacked a pack, a copy needs what the place has of it`() async throws {
        // The place has of it what only it needs: block 5.
        let place = store.copy()
        try await seen(place).snapshot(4, [Self.blocks[5]])
        let names = try await seen(place).snapshotNames()
        for name in names where name.sequence == 2 { try await place.delete(name.object) }
        place.advance(100)
        for _ in 0..<3 { try await prune(seen(place)) }
        try await prune()
        let before = place.names("v1/snapshots/")
        let report = try await Replication(from: seen(), to: place, dryRun: false) { _ in }.run(nil, renewing: nil)
        #expect(report.damaged.count == 1 && report.damaged[0].contains("repacked pack"))
        #expect(place.names("v1/snapshots/") == before)
        try await expectWhole(place)
        // One that needs no more than the place has is copied.
        let other = store.copy()
        let more = try await seen(other).snapshotNames()
        for name in more { try await other.delete(name.object) }
        try await seen(other).snapshot(2, [Self.blocks[3], Self.blocks[7]])
        other.advance(100)
        for _ in 0..<3 { try await prune(seen(other)) }
        let second = try await Replication(from: seen(), to: other, dryRun: false) { _ in }.run(nil, renewing: nil)
        #expect(second.damaged.isEmpty && second.snapshots == 1)
        try await expectWhole(other)
    }

    @Test func `a copy does not rely on what a prune of the place is about to take away`() async throws {
        // The place has what it needs of the pack, and nobody there needs it any more.
        let place = store.copy()
        for _ in 0..<3 { try await prune(seen(place)) }
        try await prune()
        let names = try await seen(place).snapshotNames()
        for name in names { try await place.delete(name.object) }
        place.advance(100)
        try await prune(
            seen(place),
            with {
                $0.grace = 1000; $0.sparesYoung = false
            })
        #expect(
            await code { _ = try await Replication(from: seen(), to: place, dryRun: false) { _ in }.run(nil, renewing: nil) }
                == .busy)
        #expect(place.names("v1/snapshots/").isEmpty)
    }

    @Test func `a copy takes no other note of the same name for its own`() async throws {
        try await prune()
        let place = store.copy()
        for name in place.names("v1/snapshots/") { place.remove(name) }
        let writer = seen(place).seen(keys: repository.keys.writer)
        let note = Succession.topic.object(old)
        let bytes = store.bytes(note)!
        place.set(note, bytes.dropLast() + [bytes.last! ^ 1])
        func copy(_ source: Repository) async throws -> Replication.Report {
            try await Replication(from: source, to: place, dryRun: false) { _ in }.run(nil, renewing: nil)
        }
        #expect(try await copy(seen()).damaged.count == 1)
        #expect(await code { _ = try await copy(seen().seen(keys: repository.keys.writer)) } == .damaged)
        #expect(place.names("v1/snapshots/").isEmpty)
        // One that the owner did not make goes with a prune that is alone.
        place.remove(note)
        try await writer.put(note: Succession(successor: "\(old)", kept: "", seal: "00"), Succession.topic, as: old)
        try await prune(seen(place))
        #expect(place.bytes(note) == nil)
    }

    @Test func `a note that cannot be read keeps no lock from being extended, and is told`() async throws {
        let day: Int64 = 86_400_000_000_000
        try await prune()
        let place = MemoryStore(MemoryStore.Rules(lockDuration: 30 * day))
        _ = try await Replication(from: seen(), to: place, dryRun: false) { _ in }.run(nil, renewing: nil)
        place.damage(Succession.topic.object(old)) { $0[70] ^= 1 }
        place.advance(86_400)
        #expect(await code { _ = try await LockExtension(seen(place)).run(dryRun: false) { _, _ in } } == .damaged)
        for name in place.names("v1/packs/") + place.names("v1/snapshots/") {
            #expect(place.lock(of: name) == place.now + 30 * day, "\(name)")
        }
        // Nor is the pack that it tells of lost.
        #expect(await code { _ = try await Repair.run(seen(place), from: nil, Repair.Options()) { _, _ in } } == .damaged)
    }

    @Test func `a copy that brings notes waits for prunes of the place`() async throws {
        try await prune()
        let place = MemoryStore()
        for name in store.names where !name.hasPrefix("v1/snapshots/") && !name.hasPrefix("v1/notes/") {
            place.set(name, store.bytes(name)!)
        }
        func copy() async throws {
            _ = try await Replication(from: seen(), to: place, dryRun: false) { _ in }.run(nil, renewing: nil)
        }
        let prune = try await Intent.begin(.prune, seen(place))
        #expect(await code { try await copy() } == .busy)
        #expect(place.names("v1/snapshots/").isEmpty)
        await prune.end()
        try await copy()
        try await expectWhole(place)
    }

    @Test func `where objects are locked nothing is repacked, and what a copy brought stays locked`() async throws {
        let day: Int64 = 86_400_000_000_000
        let locked = MemoryStore(MemoryStore.Rules(lockDuration: 30 * day))
        for name in store.names { locked.set(name, store.bytes(name)!) }
        locked.advance(1000)
        #expect(try await prune(seen(locked)).repacked.packs == 0)
        try await prune()
        let place = MemoryStore(MemoryStore.Rules(lockDuration: 30 * day))
        _ = try await Replication(from: seen(), to: place, dryRun: false) { _ in }.run(nil, renewing: nil)
        place.advance(86_400)
        _ = try await LockExtension(seen(place)).run(dryRun: false) { _, _ in }
        for name in place.names("v1/packs/") + place.names(Succession.topic.prefix) {
            #expect(place.lock(of: name) == place.now + 30 * day, "\(name)")
        }
    }

    @Test func `a repair takes a pack that another one took the place of for neither missing nor damaged`() async throws {
        try await prune()
        var options = Repair.Options()
        options.readData = true
        let before = store.names("v1/")
        let report = try await Repair.run(seen(), from: nil, options) { _, _ in }
        #expect(report.packs.isEmpty && report.snapshots.isEmpty && report.unreadable.isEmpty, "\(report)")
        #expect(store.names("v1/") == before)
        // Where that one is damaged, what is left of it is saved.
        let all = try await successors()
        store.damage(FinishedPack.name(try #require(all[old]?.pack))) { $0[ObjectHeader.size + 40] ^= 1 }
        let damaged = try await Repair.run(seen(), from: nil, options) { _, _ in }
        #expect(damaged.packs.count == 1 && damaged.snapshots.map(\.isLossy) == [true])
        #expect(damaged.snapshots.first?.filesLost.first?.ranges == [0..<8192])
    }

    private func with(_ change: (inout Prune.Options) -> Void) -> Prune.Options {
        var options = options
        change(&options)
        return options
    }
}
