import BackupBase
import Crypto
import Foundation
import Glibc
import ObjectStorage
import TestSupport
import Testing

@testable import BackupRepository

@Suite struct BlockIndexTests {
    private let directory: TemporaryDirectory

    init() throws { directory = try TemporaryDirectory("index") }

    private func records(_ count: Int, _ random: inout Seeded) -> [IndexRun.Record] {
        (0..<count).map { IndexRun.Record(id: random.block(), pack: UInt32($0 % 3), ordinal: UInt32($0)) }.sorted {
            $0.id < $1.id
        }
    }

    @Test(arguments: [0, 1, 101, 102, 103, 204, 205, 5000], [true, false])
    func `a run finds every record and nothing else`(_ count: Int, _ inFile: Bool) throws {
        var random = Seeded(count)
        let records = records(count, &random)
        let packs = (0..<3).map { _ in random.id() }
        let covers: Set = [random.id()]
        let path = inFile ? directory("a.run") : nil
        var run = try #require(IndexRun(sorted: records, count: count, packs: packs, covers: covers, path: path))
        for _ in 0..<(inFile ? 2 : 1) {
            #expect(run.recordCount == count && run.packs == packs && run.covers == covers)
            for record in records
            where try run.find(record.id) != Location(pack: packs[Int(record.pack)], ordinal: Int(record.ordinal)) {
                Issue.record("a record is not found")
            }
            for _ in 0..<2000 where try run.find(random.block()) != nil { Issue.record("something is found that is not there") }
            if let path { run = try #require(IndexRun(path: path)) }
        }
    }

    @Test func `ids that share their first word are all found, over page borders`() throws {
        var random = Seeded(7)
        let records = (0..<500).map { number in
            IndexRun.Record(id: BlockID((42, random.next(), random.next(), UInt64(number))), pack: 0, ordinal: UInt32(number))
        }.sorted { $0.id < $1.id }
        let run = try #require(
            IndexRun(sorted: records, count: 500, packs: [random.id()], covers: [random.id()], path: nil))
        for record in records { #expect(try run.find(record.id)?.ordinal == Int(record.ordinal)) }
        #expect(try run.find(BlockID((42, 0, 0, 0))) == nil)
    }

    @Test(arguments: 0..<30) func `a damaged page says that it is, and is never wrong`(_ seed: Int) throws {
        var random = Seeded(seed)
        let records = records(1000, &random)
        let packs = (0..<3).map { _ in random.id() }
        let path = directory("a.run")
        let run = try #require(IndexRun(sorted: records, count: 1000, packs: packs, covers: [random.id()], path: path))
        let page = random.number(0...9)
        let file = try FileHandle(forUpdating: URL(filePath: path))
        try file.seek(toOffset: UInt64(page * IndexRun.pageSize + random.number(0...4095)))
        let byte = try #require(try file.read(upToCount: 1)?.first)
        try file.seek(toOffset: try file.offset() - 1)
        try file.write(contentsOf: Data([byte ^ 4]))
        try file.close()
        for run in [run, try #require(IndexRun(path: path))] {
            var unknown = 0
            for record in records {
                do {
                    #expect(try run.find(record.id) == Location(pack: packs[Int(record.pack)], ordinal: Int(record.ordinal)))
                } catch is IndexRun.Damaged {
                    unknown += 1
                }
            }
            #expect(unknown == (page == 9 ? 1000 - 9 * 102 : 102))
        }
    }

    @Test(arguments: 0..<60) func `a run with a damaged head or end is none`(_ seed: Int) throws {
        var random = Seeded(seed)
        let path = directory("a.run")
        _ = IndexRun(sorted: records(300, &random), count: 300, packs: [random.id()], covers: [random.id()], path: path)
        let bytes = Array(try Data(contentsOf: URL(filePath: path)))
        // Three pages of records, and one of the filter.
        let head = bytes[(4 * IndexRun.pageSize)...]
        try Data(bytes[..<(4 * IndexRun.pageSize)] + mutated(Array(head), &random)).write(to: URL(filePath: path))
        if Array(try Data(contentsOf: URL(filePath: path))) != bytes { #expect(IndexRun(path: path) == nil) }
        for size in [0, 1, 47, 48, bytes.count / 2, bytes.count - 1] {
            try Data(bytes.prefix(size)).write(to: URL(filePath: path))
            #expect(IndexRun(path: path) == nil)
        }
        #expect(IndexRun(path: directory("nowhere")) == nil)
    }

    @Test func `a head that says more than the file has is none`() throws {
        let path = directory("a.run")
        func write(records: Int, words: Int, start: Int, filter: Int) throws {
            var head = ByteWriter()
            head.varint(records)
            for _ in 0..<2 { head.varint(0) }
            head.varint(words)
            for _ in 0..<min(words, 100) { head.u64(0) }
            head.varint(start)
            head.varint(filter)
            var footer = ByteWriter()
            footer.u64(UInt64(head.bytes.count))
            footer.raw(SHA256.hash(data: head.bytes))
            footer.raw(Array("BGBRUN02".utf8))
            let pages = [UInt8](repeating: 0, count: 2 * IndexRun.pageSize)
            try Data(pages + head.bytes + footer.bytes).write(to: URL(filePath: path))
        }
        try write(records: 102, words: 1, start: 1, filter: 1)
        #expect(IndexRun(path: path)?.recordCount == 102)
        for (records, words, start, filter) in [
            (Int.max, 0, 0, 1), (Int.max - 50, 1, 1, 1), (205, 3, 0, 2), (102, 1, 0, 2), (102, 1, 1, 2), (102, 1, 1 << 40, 1),
            (102, 1, 1, 1 << 40), (102, 1, 1, 0), (1, 1 << 60, 1, 1),
        ] {
            try write(records: records, words: words, start: start, filter: filter)
            #expect(IndexRun(path: path) == nil, "\(records) \(words) \(start) \(filter)")
        }
    }

    @Test func `a record of no pack of its run ends a walk through it`() throws {
        var random = Seeded(8)
        var records = records(300, &random)
        records[150] = IndexRun.Record(id: records[150].id, pack: .max, ordinal: 0)
        let run = try #require(
            IndexRun(sorted: records, count: 300, packs: (0..<3).map { _ in random.id() }, covers: [], path: directory("a.run")))
        #expect(try run.find(records[150].id) == nil)
        var cursor = IndexRun.Cursor(run, packBase: 7)
        var seen = 0
        while cursor.current != nil {
            seen += 1
            cursor.advance()
        }
        #expect(seen == 150 && cursor.isDamaged)
        cursor.advance()
        #expect(cursor.current == nil && cursor.isDamaged)
    }

    @Test func `pages that a full disk does not give back are no records`() throws {
        var random = Seeded(9)
        // More than is kept back before it is written.
        let count = 30_000
        let records = records(count, &random)
        let path = directory("a.run")
        // The run cannot take its name, so that its pages are wanted again.
        try FileManager.default.createDirectory(atPath: path, withIntermediateDirectories: false)
        func make(_ harm: @escaping () -> Void) -> IndexRun? {
            var left = records[...]
            let walk = AnyIterator {
                if left.count == 1 { harm() }
                return left.popFirst()
            }
            let packs = (0..<3).map { _ in random.id() }
            return IndexRun(sorted: IteratorSequence(walk), count: count, packs: packs, covers: [], path: path)
        }
        let whole = try #require(make {})
        for record in records where try whole.find(record.id) == nil { Issue.record("a record is lost") }
        #expect(make { truncate(path + ".new", 0) } == nil)
        #expect(make { truncate(path + ".new", 100 << 10) } == nil)
    }

    @Test func `a damaged page of the filter says that it is, and hides nothing`() throws {
        var random = Seeded(5)
        let path = directory("a.run")
        let records = records(300, &random)
        _ = IndexRun(sorted: records, count: 300, packs: (0..<3).map { _ in random.id() }, covers: [random.id()], path: path)
        var bytes = try Data(contentsOf: URL(filePath: path))
        bytes[3 * IndexRun.pageSize + 100] ^= 1
        try bytes.write(to: URL(filePath: path))
        let run = try #require(IndexRun(path: path))
        for record in records { #expect(throws: IndexRun.Damaged.self) { try run.find(record.id) } }
    }

    @Test(arguments: [1, 50, 20_000]) func `a filter lets through what was added, and little else`(_ count: Int) throws {
        var random = Seeded(count)
        let ids = (0..<count).map { _ in random.block() }.sorted()
        // More room than is used: records of the same id count once.
        var builder = RunFilter.Builder(records: count * 2)
        var bytes: [UInt8] = []
        for id in ids { builder.add(id) { bytes += $0 } }
        builder.finish { bytes += $0 }
        #expect(bytes.count == builder.pages * IndexRun.pageSize)
        let path = directory("filter")
        try Data([UInt8](repeating: 7, count: IndexRun.pageSize) + bytes).write(to: URL(filePath: path))
        let file = open(path, O_RDONLY)
        defer { close(file) }
        for filter in [RunFilter(bytes), RunFilter(file, start: 1, pages: builder.pages, resident: 0)] {
            for id in ids where try !filter.mayHold(id) { Issue.record("an id that was added is not let through") }
            let wrong = try (0..<5000).count { _ in try filter.mayHold(random.block()) }
            #expect(wrong < 150)
        }
    }

    @Test func `records are rewritten a few times, however many runs come`() throws {
        var random = Seeded(6)
        let index = BlockIndex(directory: directory("runs"), ambient: .system)
        var before: Set<String> = []
        var written = 0
        for _ in 0..<200 {
            index.add(object(&random, packs: 1, blocks: 50), id: random.id())
            let names = Set(try FileManager.default.contentsOfDirectory(atPath: directory("runs")))
            for name in names.subtracting(before) {
                written += try #require(IndexRun(path: directory("runs/\(name)"))).recordCount
            }
            #expect(names.count <= 8)
            before = names
        }
        #expect(index.recordCount == 10_000 && written < 60_000, "\(written)")
    }

    // MARK: - The index

    private func object(_ random: inout Seeded, packs: Int = 2, blocks: Int = 40) -> IndexObject {
        var object = IndexObject()
        for _ in 0..<packs {
            var trailer = PackTrailer(cohort: .mutable)
            trailer.add(sealedLength: 1000, blocks: (0..<blocks).map { _ in (id: random.block(), length: 25) })
            object.packs.append(IndexObject.Pack(id: random.id(), size: trailer.end + 5000, trailer: trailer))
        }
        return object
    }

    private func expect(_ index: BlockIndex, holds objects: [IndexObject], _ location: SourceLocation = #_sourceLocation) throws {
        for pack in objects.flatMap(\.packs) {
            for (ordinal, id) in pack.trailer.ids.enumerated()
            where try index.find(id) != Location(pack: pack.id, ordinal: ordinal) {
                Issue.record("block \(ordinal) of \(pack.id) is not found", sourceLocation: location)
            }
        }
    }

    @Test(arguments: [true, false]) func `more than eight runs become one that holds them all`(_ inFile: Bool) throws {
        var random = Seeded(1)
        let index = BlockIndex(directory: inFile ? directory("runs") : nil, ambient: .system)
        let objects = (0..<30).map { _ in object(&random) }
        for object in objects {
            index.add(object, id: random.id())
            if inFile { #expect(try FileManager.default.contentsOfDirectory(atPath: directory("runs")).count <= 8) }
        }
        #expect(index.recordCount == 30 * 80)
        try expect(index, holds: objects)
        for _ in 0..<5000 where try index.find(random.block()) != nil { Issue.record("something is found that is not there") }
    }

    @Test func `a block that several packs hold is found in one of them`() throws {
        var random = Seeded(2)
        let index = BlockIndex(directory: nil, ambient: .system)
        let first = object(&random)
        var second = object(&random)
        second.packs[0] = IndexObject.Pack(id: random.id(), size: 10_000, trailer: first.packs[0].trailer)
        for _ in 0..<12 { for object in [first, second] { index.add(object, id: random.id()) } }
        for (ordinal, id) in first.packs[0].trailer.ids.enumerated() {
            let found = try index.find(id)
            #expect(found?.ordinal == ordinal && [first.packs[0].id, second.packs[0].id].contains(found?.pack))
        }
    }

    @Test(arguments: [1, 20]) func `a run that turns out damaged is made again from the repository`(_ count: Int) async throws {
        let test = try TestRepository()
        var random = Seeded(3)
        let objects = (0..<count).map { _ in object(&random, packs: 4, blocks: 60) }
        let index = BlockIndex(directory: directory("runs"), ambient: .system)
        for (number, object) in objects.enumerated() {
            try await index.add(object, id: put(object, test, &random))
            guard number == 0 else { continue }
            let path = directory("runs/\(try FileManager.default.contentsOfDirectory(atPath: directory("runs"))[0])")
            let file = try FileHandle(forUpdating: URL(filePath: path))
            try file.seek(toOffset: 5000)
            try file.write(contentsOf: Data([1, 2, 3]))
            try file.close()
        }
        for pack in objects.flatMap(\.packs) {
            for (ordinal, id) in pack.trailer.ids.enumerated() {
                #expect(try await index.find(id, test.store, test.keys) == Location(pack: pack.id, ordinal: ordinal))
            }
        }
        // And so it is for the next one that uses the cache.
        let next = BlockIndex(directory: directory("runs"), ambient: .system)
        try await next.load(test.store, test.keys)
        try expect(next, holds: objects)
    }

    private func put(_ object: IndexObject, _ test: TestRepository, _ random: inout Seeded) async throws -> ObjectID {
        let id = random.id()
        let sealed = try object.sealed(test.keys, id: id, salt: random.bytes(32))
        try await test.store.put(IndexObject.name(id), sealed, ifAbsent: true)
        return id
    }

    @Test func `the cache is taken over, completed, and dropped when its index objects are gone`() async throws {
        let test = try TestRepository()
        var random = Seeded(4)
        let (one, two) = (object(&random), object(&random))
        let first = try await put(one, test, &random)
        let cache = directory("cache")
        let index = BlockIndex(directory: cache, ambient: .system)
        try await index.load(test.store, test.keys)
        try expect(index, holds: [one])
        _ = try await put(two, test, &random)
        let again = BlockIndex(directory: cache, ambient: .system)
        try await again.load(test.store, test.keys)
        try expect(again, holds: [one, two])
        try await test.store.delete(IndexObject.name(first))
        let pruned = BlockIndex(directory: cache, ambient: .system)
        try await pruned.load(test.store, test.keys)
        try expect(pruned, holds: [two])
        for id in one.packs.flatMap(\.trailer.ids) { #expect(try pruned.find(id) == nil, "a block of an index that is gone") }
    }

    @Test(arguments: 0..<100) func `an index object comes back, and changed bytes are refused`(_ seed: Int) throws {
        var random = Seeded(seed)
        let ring = KeyRing.generate(repository: random.id())
        let id = random.id()
        let buffer = try object(&random).sealed(ring, id: id, salt: random.bytes(32))
        let sealed = withExtendedLifetime(buffer) { Array(buffer.bytes) }
        #expect(try IndexObject(opening: sealed, ring, id: id).packs.count == 2)
        // A writer can read it, another repository cannot.
        #expect(try IndexObject(opening: sealed, ring.writer, id: id).packs.count == 2)
        #expect(throws: FormatError.self) { try IndexObject(opening: sealed, .generate(repository: ring.repository), id: id) }
        #expect(throws: FormatError.self) { try IndexObject(opening: sealed, ring, id: random.id()) }
        for _ in 0..<5 {
            let changed = mutated(sealed, &random)
            if changed != sealed,
                changed[..<min(11, changed.count)] != sealed[..<11] || changed.dropFirst(16) != sealed.dropFirst(16)
            {
                #expect(throws: FormatError.self) { try IndexObject(opening: changed, ring, id: id) }
            }
        }
    }
}
