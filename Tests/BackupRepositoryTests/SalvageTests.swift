import BackupBase
import ObjectStorage
import Testing

@testable import BackupRepository

/// What a salvage believes, and what it does not: each of these was a way to lose data, or to trust in lost data.
extension RepairTests {
    // MARK: - Stages

    private func id(_ pack: String) throws -> ObjectID { try #require(ObjectID(hex: pack.suffix(32))) }

    private func damage(frame number: Int, of pack: String, _ store: MemoryStore) async throws {
        let frames = try await repository.seen(on: store).reader.pack(id(pack)).trailer.frames
        store.damage(pack) { $0[frames[number].offset + 100] ^= 1 }
    }

    private func prune(_ store: MemoryStore) async throws {
        var options = Prune.Options()
        options.grace = 0
        store.advance(100)
        _ = try await Prune.run(fresh(store), options) { _, _, _ in }
    }

    /// Commits a snapshot whose chunks are in packs of their own, one for each entry.
    private func commit(
        _ entries: [Entry], _ store: MemoryStore, _ change: (inout SnapshotRecord) -> Void = { _ in }
    ) async throws -> (name: SnapshotName, chunks: [String]) {
        let repository = fresh(store)
        var manifest = Extents()
        var packs: [String] = []
        for entry in entries {
            var bytes = ByteWriter()
            entry.encode(after: [], to: &bytes)
            let location = try await repository.store([bytes.bytes])[0]
            manifest.append(location)
            packs.append(FinishedPack.name(location.pack))
        }
        var record = repository.record(2)
        change(&record)
        return (try await repository.commit(record, manifest: manifest).name, packs)
    }

    /// A file of these blocks of `large`, as if it were one.
    private func file(_ path: String, _ numbers: [Int], at places: [Location]) -> Entry {
        let ids = numbers.map { number in large[number].withUnsafeBytes { repository.keys.blockHasher.id(of: $0) } }
        let extents = places.reduce(into: Extents()) { $0.append($1) }
        return .file(path, repository.content(extents, ids: ids, size: Int64(numbers.count) << 20, blockSize: 1 << 20))
    }

    private func lost(_ report: RepairReport) -> [[String]] {
        report.snapshots.map { $0.filesLost.map { String(decoding: $0.path, as: UTF8.self) } }
    }

    // MARK: - Damaged packs are not relied on

    @Test func `no prune takes the mark off a damaged pack while it is there`() async throws {
        let pack = try await pack(.mutable)
        try await damage(frame: 0, of: pack, store)
        let report = try await repair(store)
        for _ in 0..<3 { try await prune(store) }
        // The damaged snapshot needs it still, and a backup does not use it.
        #expect(store.bytes(pack) != nil && store.names("v1/notes/").count == 1)
        let place = try await fresh(store).store([large[1]], cohort: .mutable)[0]
        #expect(FinishedPack.name(place.pack) != pack)
        // Nor does a run in a session that began before.
        let other = store.copy()
        for name in other.names("v1/notes/") { other.remove(name) }
        let session = WriterSession()
        func mayUse() async throws -> Bool {
            try await fresh(other).withWriter(cache: nil, journal: nil, width: 1, session: session, renewing: nil) {
                $0.mayUse(pack: try id(pack))
            }
        }
        #expect(try await mayUse())
        try await repair(other)
        #expect(try await !mayUse())
        await session.end()
        try await expectClean(report, store)
        #expect(store.bytes(pack) == nil)
    }

    @Test func `nothing is copied to where its pack is damaged`() async throws {
        let place = store.copy()
        let entry = file("f0", [0], at: [Location(pack: try id(await pack(.mutable)), ordinal: 0)])
        _ = try await commit([.root, entry], store)
        try await damage(frame: 1, of: pack(.mutable), place)
        try await repair(place)
        let report = try await Replication(from: fresh(store), to: place, dryRun: false) { _ in }.run(nil, renewing: nil)
        #expect(report.damaged.count == 1 && report.damaged.first?.contains("damaged there") == true, "\(report.damaged)")
    }

    @Test func `a mark takes nothing away, and is taken back from what is whole`() async throws {
        let packs = store.names("v1/packs/")
        let ids = packs.map { String($0.suffix(32)) }
        // As a writer could.
        let writer = repository.seen(on: store, keys: try KeyRing(writerKeyFile: repository.keys.writerKeyFile))
        try await writer.put(note: Tombstone(packs: ids, damaged: true), Tombstone.topic)
        store.remove(name.object)
        var options = Prune.Options()
        options.grace = 1000
        for _ in 0..<3 {
            store.advance(400)
            _ = try await Prune.run(fresh(store), options) { _, _, _ in }
            #expect(store.names("v1/packs/") == packs)
        }
        let report = try await repair(store)
        #expect(report.wholeAgain == 2 && !report.isLossy)
        let marks = try await Tombstones(fresh(store)).damaged
        #expect(marks.allSatisfy { $0.packs.isEmpty })
    }

    @Test func `a new snapshot refers to no pack that a prune may take away`() async throws {
        let packs = try Set(store.names("v1/packs/").map { try id($0) })
        try await repository.put(note: Tombstone(packs: packs.map { "\($0)" }), Tombstone.topic)
        let other = file("f1", [1], at: [Location(pack: try id(await pack(.mutable)), ordinal: 1)])
        let (second, chunks) = try await commit([.root, other], store)
        store.remove(chunks[0])
        let seen = Locked<[Bool]>([])
        let view = store.another()
        view.onCall { call in
            guard call.name.hasPrefix("v1/packs/"), call.operation == "get" else { return }
            seen.withLock { $0.append(!view.names(Intent.prefix).isEmpty) }
        }
        let report = try await repair(view)
        // Its intent was there before anything was looked at.
        #expect(seen.withLock { !$0.isEmpty && !$0.contains(false) })
        let made = try #require(report.snapshots.first { $0.damaged == second }?.repaired)
        let snapshot = try await fresh(store).snapshot(made)
        #expect(try await fresh(store).packs(of: snapshot).isDisjoint(with: packs))
        #expect(try await files(made, store) == ["f1"])
    }

    // MARK: - Earlier repairs

    @Test func `one that could save more makes a better snapshot, lossy as both are`() async throws {
        let pack = try await pack(.mutable)
        for number in [0, 1] { try await damage(frame: number, of: pack, store) }
        #expect(try await lost(repair(store)) == [["f0", "f1"]])
        _ = try await fresh(store).store([large[0]], cohort: .mutable)
        let better = try await repair(store)
        #expect(lost(better) == [["f1"]])
        #expect(try await files(#require(better.snapshots.first?.repaired), store) == ["f0", "f2"])
        // And then none.
        let names = store.names("v1/snapshots/")
        let again = try await repair(store)
        let latest = try #require(store.names("v1/snapshots/").last)
        #expect(better.snapshots.first?.repaired?.object == latest, "'latest' is the better one")
        #expect(again.snapshots.map(\.existing) == better.snapshots.map(\.repaired) && lost(again) == [["f1"]])
        #expect(store.names("v1/snapshots/") == names)
        // What an earlier one has all of is not lost.
        _ = try await fresh(store).store([large[1]], cohort: .mutable)
        #expect(try await !repair(store).isLossy)
        #expect(try await !repair(store).isLossy && store.names("v1/snapshots/").count == names.count + 1)
    }

    @Test func `what a writer calls a repaired snapshot is believed by nobody`() async throws {
        func forge(_ store: MemoryStore, mark: RepairRecord?) async throws {
            _ = try await commit([.root], store) { record in
                (record.parent, record.tags, record.repair) = ("\(name.id)", [RepairedSnapshot.tag], mark)
            }
        }
        for mark in [nil, RepairRecord(lost: 0, seal: String(repeating: "0", count: 64))] {
            let flipped = store.copy()
            try await damage(frame: 0, of: pack(.mutable), flipped)
            try await forge(flipped, mark: mark)
            let report = try await repair(flipped)
            #expect(report.snapshots.count == 1 && report.snapshots.first?.repaired != nil && report.isLossy)
            let torn = store.copy()
            torn.damage(name.object) { $0.removeLast(10) }
            try await forge(torn, mark: mark)
            #expect(try await repair(torn).unreadable.map(\.name) == [name])
        }
    }

    @Test func `what the second copy gave of a snapshot that is gone is said to be lossy where it is`() async throws {
        let good = store.copy()
        try await damage(frame: 0, of: pack(.mutable), good)
        try await damage(frame: 0, of: pack(.mutable), store)
        store.damage(name.object) { $0.removeLast(10) }
        #expect(try await lost(repair(store, from: good)) == [["f0"]])
        let again = try await repair(store)
        #expect(again.unreadable.isEmpty && again.isLossy && again.snapshots.first?.otherLosses.count == 1)
    }

    // MARK: - A store that does not answer

    @Test func `an error of the store at any read ends the repair, and loses nothing`() async throws {
        let good = store.copy()
        try await damage(frame: 0, of: pack(.mutable), store)
        let counted = store.copy()
        let second = good.copy()
        second.restart()
        try await repair(counted, from: second, dryRun: true)
        let names = store.names
        for (calls, isCopy) in [(counted.calls, false), (second.calls, true)] {
            for (number, call) in calls.enumerated() {
                let (place, other) = (store.copy(), good.copy())
                let error = StoreError(.failed, "read", call.name, "input/output error")
                (isCopy ? other : place).fail(at: number + 1, .before, with: error)
                let thrown = await failure { try await repair(place, from: other, dryRun: true) } as? StoreError
                #expect(thrown?.name == call.name, "call \(number + 1), \(call), copy: \(isCopy)")
            }
        }
        // Where it writes, nothing is committed that lacks more than what is damaged.
        let writing = store.copy()
        writing.restart()
        try await repair(writing)
        for number in stride(from: 1, through: writing.calls.count, by: 4) {
            let place = store.copy()
            place.fail(at: number, .before, with: StoreError(.failed, "read", "x", "503"))
            _ = await failure { try await repair(place) }
            place.restart()
            for name in names { #expect(place.bytes(name) != nil) }
            for made in place.names("v1/snapshots/") where !names.contains(made) {
                #expect(try await files(#require(SnapshotName(object: made)), place) == ["f1", "f2"], "call \(number)")
            }
        }
    }

    @Test func `an object that the store lists and does not give is not lost`() async throws {
        let counted = store.copy()
        try await repair(counted, dryRun: true)
        var looked = 0
        for (number, call) in counted.calls.enumerated() where call.operation == "get" {
            guard call.name.hasPrefix("v1/packs/") || call.name.hasPrefix("v1/snapshots/") else { continue }
            looked += 1
            let place = store.copy()
            place.fail(at: number + 1, .before, with: StoreError(.notFound, "read", call.name))
            #expect(await code { try await repair(place, dryRun: true) } == .storeFailed, "\(call)")
        }
        #expect(looked > 5)
    }

    @Test func `a pack that was to be put back and could not be ends the repair`() async throws {
        let good = store.copy()
        store.remove(try await pack(.mutable))
        let second = good.copy()
        second.restart()
        try await repair(store.copy(), from: second)
        let last = try #require(second.calls.lastIndex { $0.operation == "get" })
        let other = good.copy()
        other.fail(at: last + 1, .before, with: StoreError(.failed, "read", "x", "503"))
        #expect(await failure { try await repair(store, from: other) } is StoreError)
    }

    // MARK: - Blocks of other packs

    @Test func `a block that another pack lists is read before it is relied on`() async throws {
        let first = try await pack(.mutable)
        store.remove(first)
        let second = try await fresh(store).store(large, cohort: .mutable)[0].pack
        try await damage(frame: 1, of: FinishedPack.name(second), store)
        let report = try await repair(store, readData: false)
        #expect(lost(report) == [["f1"]])
        #expect(try await files(#require(report.snapshots.first?.repaired), store) == ["f0", "f2"])
    }

    @Test func `what is saved is stored anew where the pack that the index names is damaged too`() async throws {
        let first = try await pack(.mutable)
        try await repository.put(note: Tombstone(packs: [String(first.suffix(32))], damaged: true), Tombstone.topic)
        let second = try await fresh(store).store(large, cohort: .mutable)[0].pack
        #expect(FinishedPack.name(second) != first)
        try await damage(frame: 1, of: FinishedPack.name(second), store)
        store.damage(first) { $0[$0.count - 40] ^= 1 }
        let report = try await repair(store, readData: false)
        #expect(!report.isLossy)
        #expect(try await files(#require(report.snapshots.first?.repaired), store) == ["f0", "f1", "f2"])
    }

    // MARK: - Together

    @Test func `an index and a pack that are damaged at once`() async throws {
        try await damage(frame: 0, of: pack(.mutable), store)
        for name in store.names("v1/index/") { store.damage(name) { $0[70] ^= 1 } }
        let report = try await repair(store)
        #expect(report.index.damagedIndexes.count == 2 && lost(report) == [["f0"]])
        #expect(try await files(#require(report.snapshots.first?.repaired), store) == ["f1", "f2"])
        try await expectClean(report, store)
    }

    @Test func `a second copy of the configuration is written anew`() async throws {
        store.remove(Configuration.names[0])
        #expect(try await repair(store).copies == [Configuration.names[0]])
        #expect(store.bytes(Configuration.names[0]) == store.bytes(Configuration.names[1]))
    }

    // MARK: - What a new snapshot says

    @Test func `of a manifest of which nothing is left no snapshot is made`() async throws {
        store.damage(try await pack(.metadata)) { $0[40] ^= 1 }
        let report = try await repair(store)
        #expect(report.isLossy && report.snapshots.map(\.isNothingLeft) == [true] && report.snapshots.first?.repaired == nil)
        #expect(store.names("v1/snapshots/") == [name.object] && report.toForget == [name.id])
        try await expectClean(report, store)
    }

    @Test func `what was seen in the whole volume is not said of a part of it`() async throws {
        let places = try await fresh(store).store(large, cohort: .mutable)
        let entries: [Entry] = [.root] + (0..<3).map { file("f\($0)", [$0], at: [places[$0]]) }
        store.remove(name.object)
        let (whole, _) = try await commit(entries, store) { record in
            record.inspection = InspectionSummary(
                starts: true, points: 5, collections: 1, version: nil, peer: nil, peers: [], findings: [])
            record.fingerprint = FingerprintRecord(taken: "t", seconds: 0, duration: 1, document: "{}")
            record.statistics = ["bytes_total": 3 << 20]
        }
        let torn = store.copy()
        torn.damage(FinishedPack.name(places[0].pack)) { $0[$0.count - 40] ^= 1 }
        let same = try await fresh(torn).snapshot(#require(repair(torn).snapshots.first?.repaired)).record
        #expect(same.inspection?.points == 5 && same.fingerprint != nil && same.complete && same.repair?.lost == 0)
        try await damage(frame: 0, of: FinishedPack.name(places[0].pack), store)
        let report = try await repair(store)
        #expect(report.snapshots.map(\.damaged) == [whole])
        let part = try await fresh(store).snapshot(#require(report.snapshots.first?.repaired)).record
        #expect(part.inspection == nil && part.fingerprint == nil && !part.complete && part.repair?.lost == 1)
        #expect(part.statistics["bytes_total"] == 2 << 20)
    }

    @Test func `directories of a lost chunk are made for their owner, and the manifest is one`() async throws {
        let place = Location(pack: try id(await pack(.mutable)), ordinal: 0)
        let directory = Entry(path: Array("d".utf8), kind: .directory(Entry.plain))
        let link = Entry(path: Array("d/l".utf8), kind: .hardLink(to: Array("d/f0".utf8)))
        let dangling = Entry(path: Array("d/z".utf8), kind: .hardLink(to: Array("a".utf8)))
        let entries = [.root, file("a", [0], at: [place]), directory, file("d/f0", [0], at: [place]), link, dangling]
        let (broken, chunks) = try await commit(entries, store)
        for chunk in chunks[1...2] { store.remove(chunk) }
        let report = try await repair(store)
        #expect(report.snapshots.map(\.damaged) == [broken] && lost(report) == [["d/z"]])
        #expect(
            report.snapshots.first?.otherLosses.count == 1 && report.snapshots.first?.otherLosses.first?.hasPrefix("2 ") == true)
        let made = try await fresh(store).snapshot(#require(report.snapshots.first?.repaired))
        var found: [String] = []
        try await fresh(store).forEachEntry(of: made) { entry in
            found.append(String(decoding: entry.path, as: UTF8.self))
            if case .directory(let metadata) = entry.kind, !entry.path.isEmpty { #expect(metadata.mode == 0o700) }
        }
        #expect(found == ["", "d", "d/f0", "d/l"])
    }

    @Test func `a block list that is lost costs its file, and one that is not is kept`() async throws {
        let places = (0..<3).map { Location(pack: ObjectID(bytes: [UInt8](repeating: 1, count: 16)), ordinal: $0) }
        let data = try id(await pack(.mutable))
        func indirect(_ path: String, _ number: Int) async throws -> (Entry, list: ObjectID) {
            let at = Location(pack: data, ordinal: places[number].ordinal)
            var part = Extents()
            part.append(at)
            let list = Content.Part(dataRanges: [0..<(1 << 20)], extents: part).encoded
            let stored = try await fresh(store).store([list])[0]
            guard case .file(let metadata, var content) = file(path, [number], at: [at]).kind else { preconditionFailure() }
            content.layout = .indirect(blocksPerPart: 1, parts: [stored].reduce(into: Extents()) { $0.append($1) })
            return (Entry(path: Array(path.utf8), kind: .file(metadata, content)), stored.pack)
        }
        let (first, gone) = try await indirect("f0", 0)
        let (second, _) = try await indirect("f1", 1)
        let (broken, _) = try await commit([.root, first, second], store)
        store.remove(FinishedPack.name(gone))
        store.damage(FinishedPack.name(data)) { $0[$0.count - 40] ^= 1 }
        let report = try await repair(store)
        let mended = try #require(report.snapshots.first { $0.damaged == broken })
        #expect(mended.filesLost.map(\.ranges) == [[0..<(1 << 20)]] && mended.filesKept == 1)
        #expect(try await files(#require(mended.repaired), store) == ["f1"])
    }

    @Test func `a file whose blocks are not the ones it was made of is left out`() async throws {
        let data = try id(await pack(.mutable))
        let good = file("f0", [0], at: [Location(pack: data, ordinal: 0)])
        let bad = file("f1", [1], at: [Location(pack: data, ordinal: 2)])
        let (wrong, _) = try await commit([.root, good, bad], store)
        let report = try await repair(store)
        #expect(report.snapshots.map(\.damaged) == [wrong] && lost(report) == [["f1"]])
        #expect(try await files(#require(report.snapshots.first?.repaired), store) == ["f0"])
    }

    @Test func `a manifest that names a hundred million blocks takes no longer than another`() async throws {
        let data = try id(await pack(.mutable))
        var extents = Extents()
        extents.append(Location(pack: data, ordinal: 0), count: 1 << 27)
        let content = Content(
            size: 1 << 39, blockSize: 4096, digest: [UInt8](repeating: 0, count: 32),
            layout: .inline(Content.Part(dataRanges: [0..<(1 << 39)], extents: extents)))
        var bytes = ByteWriter()
        Entry.root.encode(after: [], to: &bytes)
        var manifest = Extents()
        manifest.append(try await fresh(store).store([bytes.bytes])[0])
        bytes = ByteWriter()
        Entry.file("a", content).encode(after: [], to: &bytes)
        let chunk = try await fresh(store).store([bytes.bytes])[0]
        manifest.append(chunk, count: 1 << 27)
        let hostile = try await repository.commit(repository.record(3), manifest: manifest).name
        let report = try await repair(store)
        #expect(report.snapshots.map(\.damaged) == [hostile] && lost(report) == [["a"]])
        #expect(report.snapshots.first?.otherLosses.count == 1)
    }
}
