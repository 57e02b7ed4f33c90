import BackupBase
import ObjectStorage
import Testing

@testable import BackupRepository

/// Repositories damaged in each way, and what a repair makes of them. What it must not believe is in SalvageTests.swift.
@Suite(.timeLimit(.minutes(5))) struct RepairTests {
    let store = MemoryStore()
    let repository: Repository
    let name: SnapshotName
    let large = (1...3).map { seed in
        var random = Seeded(seed)
        return random.bytes(1 << 20)
    }

    /// One snapshot of three files, each of one block in a frame of its own; one pack of data, one of the manifest.
    init() async throws {
        repository = try await Repository.written(on: store, ambient: store.ambient())
        name = try await Self.snapshot(repository, large)
        store.advance(100)
    }

    static func snapshot(_ repository: Repository, _ blocks: [[UInt8]]) async throws -> SnapshotName {
        let places = try await repository.store(blocks, cohort: .mutable)
        var entries: [Entry] = [.root]
        for (number, block) in blocks.enumerated() {
            var extents = Extents()
            extents.append(places[number])
            let id = block.withUnsafeBytes { repository.keys.blockHasher.id(of: $0) }
            entries.append(
                .file("f\(number)", repository.content(extents, ids: [id], size: Int64(block.count), blockSize: 1 << 20)))
        }
        return try await repository.commit(entries)
    }

    func fresh(_ store: MemoryStore) -> Repository { repository.seen(on: store, ambient: store.ambient()) }

    @discardableResult
    func repair(
        _ store: MemoryStore, from copy: MemoryStore? = nil, dryRun: Bool = false, readData: Bool = true
    ) async throws -> RepairReport {
        var options = Repair.Options()
        options.readData = readData
        options.dryRun = dryRun
        let second = copy.map { repository.seen(on: $0, ambient: $0.ambient()) }
        return try await Repair.run(fresh(store), from: second, options) { _, _ in }
    }

    /// Files that a snapshot gives back byte for byte.
    func files(_ name: SnapshotName, _ store: MemoryStore) async throws -> [String] {
        let repository = fresh(store)
        var found: [String] = []
        try await repository.forEachEntry(of: repository.snapshot(name)) { entry in
            guard case .file(_, let content) = entry.kind else { return }
            let name = String(decoding: entry.path, as: UTF8.self)
            var bytes: [UInt8] = []
            try await repository.read(content) { bytes += $0 }
            if bytes == large[try #require(Int(name.suffix(1)))] { found.append(name) }
        }
        return found
    }

    /// Forgets what the repair says, prunes, and expects a check to find nothing, and no note to be left.
    func expectClean(_ report: RepairReport, _ store: MemoryStore, sourceLocation: SourceLocation = #_sourceLocation)
        async throws
    {
        for name in store.names("v1/snapshots/") where report.toForget.contains(where: { name.hasSuffix("\($0)") }) {
            store.remove(name)
        }
        var options = Prune.Options()
        options.grace = 0
        for _ in 0..<3 {
            store.advance(100)
            _ = try await Prune.run(fresh(store), options) { _, _, _ in }
        }
        #expect(store.names("v1/notes/").isEmpty, sourceLocation: sourceLocation)
        let findings = try await fresh(store).check().findings
        #expect(!findings.contains { $0.severity == .damage }, "\(findings)", sourceLocation: sourceLocation)
        let again = try await repair(store)
        #expect(again.snapshots.isEmpty && again.packs.isEmpty && !again.isLossy, sourceLocation: sourceLocation)
    }

    func pack(_ cohort: Cohort) async throws -> String {
        for name in store.names("v1/packs/") {
            let id = try #require(ObjectID(hex: name.suffix(32)))
            if try await fresh(store).reader.pack(id).trailer.cohort == cohort { return name }
        }
        throw BackupError(.failed, "no such pack")
    }

    // MARK: - Data

    @Test func `a flipped byte costs the file it is in, and the others are saved`() async throws {
        let good = store.copy()
        let pack = try await pack(.mutable)
        store.damage(pack) { $0[100_000] ^= 1 }
        #expect(try await fresh(store).check().isDamaged)
        let before = store.names
        let plan = try await repair(store, dryRun: true)
        #expect(store.names == before)
        #expect(plan.isLossy && plan.packs.map(\.blocksLost) == [1] && plan.packs.map(\.blocksSaved) == [2])
        let report = try await repair(store)
        let mended = try #require(report.snapshots.first)
        #expect(mended.filesLost.map { String(decoding: $0.path, as: UTF8.self) } == ["f0"] && mended.filesKept == 2)
        #expect(mended.filesLost[0].ranges == [0..<(1 << 20)])
        let made = try #require(mended.repaired)
        #expect(try await files(made, store) == ["f1", "f2"] && store.bytes(name.object) != nil)
        let record = try await fresh(store).snapshot(made).record
        #expect(record.tags == ["repaired"] && record.parent == "\(name.id)" && !record.complete && record.problems.count == 1)
        #expect(made > name && made.sequence == name.sequence)
        // What was there is as it was, but for notes.
        for object in before { #expect(store.bytes(object) != nil) }
        // No second one for the same.
        let again = try await repair(store)
        #expect(again.isLossy && again.snapshots.map(\.existing) == [made] && store.names("v1/snapshots/").count == 2)
        // A backup that meets the block stores it again, and does not trust in the pack.
        _ = try await fresh(store).store([large[0]], cohort: .mutable)
        #expect(try await repair(store).snapshots.first?.isLossy == false)
        try await expectClean(report, store.copy())
        // With a second copy nothing is lost.
        let other = store.copy()
        for name in other.names where !before.contains(name) { other.remove(name) }
        let whole = try await repair(other, from: good)
        #expect(!whole.isLossy && whole.packs.map(\.blocksLost) == [0])
        #expect(try await files(#require(whole.snapshots.first?.repaired), other) == ["f0", "f1", "f2"])
        try await expectClean(whole, other)
    }

    @Test func `a pack that is gone is put back from the copy, or its files are named`() async throws {
        let good = store.copy()
        let pack = try await pack(.mutable)
        store.remove(pack)
        let other = store.copy()
        let whole = try await repair(other, from: good)
        #expect(!whole.isLossy && whole.snapshots.isEmpty && whole.packs.map(\.isRestored) == [true])
        #expect(other.bytes(pack) == good.bytes(pack) && other.names == good.names)
        #expect(try await fresh(other).check().findings.isEmpty)
        let report = try await repair(store)
        #expect(report.isLossy && report.snapshots.first?.filesLost.count == 3)
        #expect(try await files(#require(report.snapshots.first?.repaired), store) == [])
        try await expectClean(report, store)
    }

    @Test func `a torn trailer loses nothing that the index tells of`() async throws {
        let pack = try await pack(.mutable)
        for change in [{ $0[$0.count - 40] ^= 1 }, { $0.removeLast(20) }, { $0[$0.count - 1] = 0 }] as [(inout [UInt8]) -> Void] {
            let store = store.copy()
            store.damage(pack, change)
            let report = try await repair(store)
            #expect(!report.isLossy && report.packs.map(\.blocksSaved) == [3])
            #expect(try await files(#require(report.snapshots.first?.repaired), store) == ["f0", "f1", "f2"])
            try await expectClean(report, store)
        }
        // Without an index nobody knows where a block ends.
        for name in store.names("v1/index/") { store.remove(name) }
        store.damage(pack) { $0[$0.count - 40] ^= 1 }
        #expect(try await repair(store).snapshots.first?.filesLost.count == 3)
    }

    @Test func `a lost header loses the pack, and a copy brings it back`() async throws {
        let good = store.copy()
        store.damage(try await pack(.mutable)) { $0[40] ^= 1 }
        #expect(try await repair(store.copy()).snapshots.first?.filesLost.count == 3)
        let report = try await repair(store, from: good)
        #expect(!report.isLossy)
        try await expectClean(report, store)
    }

    // MARK: - Metadata

    @Test func `a chunk of the manifest that is lost is said to be, and what is left is kept`() async throws {
        let good = store.copy()
        let pack = try await pack(.metadata)
        let id = try #require(ObjectID(hex: pack.suffix(32)))
        let frames = try await fresh(store).reader.pack(id).trailer.frames
        store.damage(pack) { $0[frames[0].offset + 20] ^= 1 }
        let other = store.copy()
        let report = try await repair(store)
        #expect(report.isLossy && report.snapshots.count == 1 && report.snapshots.first?.otherLosses.count == 1)
        #expect(report.snapshots.first?.otherLosses.first?.contains("is not known") == true)
        let whole = try await repair(other, from: good)
        #expect(!whole.isLossy)
        #expect(try await files(#require(whole.snapshots.first?.repaired), other) == ["f0", "f1", "f2"])
        try await expectClean(whole, other)
    }

    @Test func `a truncated snapshot is lost, unless the copy has it`() async throws {
        let good = store.copy()
        store.damage(name.object) { $0.removeLast(10) }
        let lost = try await repair(store.copy())
        #expect(lost.unreadable.map(\.name) == [name] && lost.isLossy && lost.snapshots.isEmpty)
        let report = try await repair(store, from: good)
        #expect(!report.isLossy && report.unreadable.isEmpty)
        #expect(try await files(#require(report.snapshots.first?.repaired), store) == ["f0", "f1", "f2"])
        // Without the copy at hand the next run knows that it was mended.
        #expect(try await !repair(store).isLossy)
        try await expectClean(report, store)
    }

    @Test func `an index that is missing or garbage is written anew`() async throws {
        for change in [{ $0 = [] }, { $0[70] ^= 1 }, { $0 = [UInt8](repeating: 7, count: 1000) }] as [(inout [UInt8]) -> Void] {
            let store = store.copy()
            let names = store.names("v1/index/")
            store.damage(names[0], change)
            let report = try await repair(store)
            #expect(!report.isLossy && report.index.damagedIndexes == [names[0]] && report.index.written == 1)
            #expect(try await fresh(store).check().findings.isEmpty)
        }
        for name in store.names("v1/index/") { store.remove(name) }
        #expect(try await repair(store).index.packs == 2)
        #expect(try await fresh(store).check().findings.isEmpty)
    }

    @Test func `a repository that is whole is left as it is`() async throws {
        let before = store.names
        let report = try await repair(store)
        #expect(!report.isLossy && report.packs.isEmpty && report.snapshots.isEmpty && store.names == before)
    }

    // MARK: - Killed

    @Test func `a repair that is killed at any store call is done by the next`() async throws {
        let pack = try await pack(.mutable)
        store.damage(pack) { $0[100_000] ^= 1 }
        let counted = store.copy()
        counted.restart()
        try await repair(counted)
        let calls = counted.calls.count
        #expect(calls > 20)
        let before = store.names
        for number in stride(from: 1, through: calls, by: 3) {
            let store = store.copy()
            store.fail(at: number, number % 2 == 0 ? .before : .after, dies: true)
            _ = try? await repair(store)
            store.restart()
            for object in before { #expect(store.bytes(object) != nil) }
            store.advance(4000)
            let report = try await repair(store)
            let made = try #require(report.snapshots.first?.repaired ?? report.snapshots.first?.existing)
            #expect(try await files(made, store) == ["f1", "f2"], "call \(number)")
        }
    }
}
