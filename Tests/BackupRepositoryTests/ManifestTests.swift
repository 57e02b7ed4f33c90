import Testing

@testable import BackupRepository

/// Extents, contents, entries and chunks: what is encoded comes back, and
/// hostile bytes are refused.
@Suite struct ManifestTests {
    @Test(arguments: 0..<100) func `extents come back as they were`(_ seed: Int) throws {
        var random = Seeded(seed)
        let extents = random.extents(40)
        var writer = ByteWriter()
        extents.encode(to: &writer)
        var reader = ByteReader(writer.bytes)
        #expect(try Extents(from: &reader, expected: extents.count) == extents)
        try reader.expectEnd()
        var other = ByteReader(writer.bytes)
        #expect(throws: FormatError.self) { try Extents(from: &other, expected: extents.count + 1) }
    }

    @Test func `runs that continue one another are one run`() {
        var random = Seeded(1)
        let pack = random.id()
        var extents = Extents()
        for ordinal in 0..<5 { extents.append(Location(pack: pack, ordinal: ordinal)) }
        extents.appendZero()
        extents.appendZero(2)
        extents.append(Location(pack: pack, ordinal: 5))
        #expect(
            extents.runs == [.stored(pack: pack, first: 0, count: 5), .zero(count: 3), .stored(pack: pack, first: 5, count: 1)])
        #expect(extents.count == 9)
    }

    @Test(arguments: 0..<100) func `a content comes back as it was`(_ seed: Int) throws {
        var random = Seeded(seed)
        let content = random.content()
        #expect(try Content(decoding: content.encoded[...]) == content)
        #expect(throws: FormatError.self) { try Content(decoding: (content.encoded + [0])[...]) }
        #expect(throws: FormatError.self) { try Content(decoding: content.encoded.dropLast()) }
    }

    @Test(arguments: 0..<40) func `entries come back from their chunks as they were`(_ seed: Int) throws {
        var random = Seeded(seed)
        var entries = [Entry(path: [], kind: .directory(random.metadata()))]
        let names = Set((0..<200).map { _ in random.bytes(random.number(1...30)).map { $0 == 0 || $0 == 0x2f ? 0x41 : $0 } })
            .filter { $0 != Array(".".utf8) && $0 != Array("..".utf8) }
        for name in names.sorted(by: { comparePaths($0, $1) < 0 }) {
            switch random.number(0...3) {
            case 0: entries.append(Entry(path: name, kind: .directory(random.metadata())))
            case 1: entries.append(Entry(path: name, kind: .symlink(random.metadata(), target: random.text(1...50))))
            default: entries.append(Entry(path: name, kind: .file(random.metadata(), random.content())))
            }
        }
        if let file = entries.first(where: { if case .file = $0.kind { true } else { false } }) {
            entries.append(Entry(path: [0xff, 0xff, 0xff, 0xff], kind: .hardLink(to: file.path)))
        }
        var chunker = ManifestChunker()
        var chunks: [[UInt8]] = []
        for entry in entries { if let chunk = try chunker.add(entry) { chunks.append(chunk) } }
        if let chunk = chunker.finish() { chunks.append(chunk) }
        var validator = ManifestValidator()
        var back: [Entry] = []
        for chunk in chunks {
            try ManifestChunk.decode(chunk) { entry in
                try validator.accept(entry)
                back.append(entry)
            }
        }
        #expect(back == entries)
    }

    @Test func `one new name changes few chunks`() throws {
        var random = Seeded(3)
        let metadata = random.metadata()
        func chunks(_ names: [[UInt8]]) throws -> Set<[UInt8]> {
            var chunker = ManifestChunker()
            var result: Set<[UInt8]> = []
            for name in names.sorted(by: { comparePaths($0, $1) < 0 }) {
                if let chunk = try chunker.add(Entry(path: name, kind: .directory(metadata))) { result.insert(chunk) }
            }
            if let chunk = chunker.finish() { result.insert(chunk) }
            return result
        }
        let names = (0..<20_000).map { Array("name-\($0)".utf8) }
        let before = try chunks(names)
        let after = try chunks(names + [Array("name-7777x".utf8)])
        #expect(before.count > 20)
        #expect(after.subtracting(before).count <= 2)
    }

    @Test func `an entry larger than its limit is refused when it is written`() {
        var random = Seeded(4)
        var metadata = random.metadata()
        metadata.attributes = (0..<17).map { Entry.Attribute(name: [UInt8($0 + 65)], value: [UInt8](repeating: 1, count: 65536)) }
        var chunker = ManifestChunker()
        #expect(throws: FormatError.self) { try chunker.add(Entry(path: [], kind: .directory(metadata))) }
    }

    @Test(arguments: 0..<300) func `changed bytes are refused or mean something valid`(_ seed: Int) throws {
        var random = Seeded(seed)
        let content = random.content()
        var chunk = ByteWriter()
        Entry(path: [], kind: .directory(random.metadata())).encode(after: [], to: &chunk)
        Entry(path: [65], kind: .file(random.metadata(), content)).encode(after: [], to: &chunk)
        Entry(path: [65, 66], kind: .symlink(random.metadata(), target: [67])).encode(after: [65], to: &chunk)
        for _ in 0..<20 {
            var validator = ManifestValidator()
            let bytes = mutated(chunk.bytes, &random)
            do {
                try ManifestChunk.decode(bytes) { entry in
                    try validator.accept(entry)
                    guard case .file(_, let content) = entry.kind, case .inline(let part) = content.layout else { return }
                    // What is accepted can be relied upon.
                    #expect(part.extents.count == content.blockCount)
                    #expect(part.dataRanges.allSatisfy { $0.lowerBound >= 0 && $0.upperBound <= content.size && !$0.isEmpty })
                    #expect(zip(part.dataRanges, part.dataRanges.dropFirst()).allSatisfy { $0.upperBound <= $1.lowerBound })
                    #expect(part.extents.runs.allSatisfy { $0.count > 0 })
                }
            } catch is FormatError {}
        }
    }

    // MARK: - Hostile numbers

    private func content(_ body: (inout ByteWriter) -> Void) -> [UInt8] {
        var writer = ByteWriter()
        body(&writer)
        return writer.bytes
    }

    @Test(arguments: [0, 1, 4095, 4097, 1 << 21, 6000, 1 << 40]) func `a block size that is none is refused`(_ size: Int) {
        let bytes = content {
            $0.varint(100)
            $0.varint(size)
            $0.raw([UInt8](repeating: 0, count: 32))
            $0.u8(0)
            $0.raw([0, 0, 1, 2])
        }
        #expect(throws: FormatError.self) { try Content(decoding: bytes[...]) }
    }

    @Test func `counts that no bytes stand behind are refused at once`() {
        let huge = content {
            $0.varint(1 << 60)
            $0.varint(4096)
            $0.raw([UInt8](repeating: 0, count: 32))
            $0.u8(0)
            $0.varint(1 << 50)
        }
        #expect(throws: FormatError.self) { try Content(decoding: huge[...]) }
        var extents = ByteWriter()
        extents.varint(1 << 40)
        var reader = ByteReader(extents.bytes)
        #expect(throws: FormatError.self) { try Extents(from: &reader) }
    }

    @Test(arguments: [0, 1 << 62, Int.max]) func `a run of no or too many blocks is refused`(_ tag: Int) {
        var writer = ByteWriter()
        writer.varint(0)
        writer.varint(2)
        writer.varint(tag)
        writer.varint(tag)
        var reader = ByteReader(writer.bytes)
        #expect(throws: FormatError.self) { try Extents(from: &reader, expected: 1) }
    }

    @Test func `a run in a pack that is not listed, or longer than a pack, is refused`() {
        for (index, first, count) in [(1, 0, 1), (0, 1 << 40, 1), (0, 0, 1 << 40)] {
            var writer = ByteWriter()
            writer.varint(1)
            writer.raw([UInt8](repeating: 7, count: 16))
            writer.varint(1)
            writer.varint(count << 1 | 1)
            writer.varint(index)
            writer.varint(first)
            var reader = ByteReader(writer.bytes)
            #expect(throws: FormatError.self) { try Extents(from: &reader) }
        }
    }

    @Test func `a hole of 2^60 bytes costs nothing`() throws {
        var extents = Extents()
        extents.appendZero(1 << 48)
        let content = Content(
            size: 1 << 60, blockSize: 4096, digest: [UInt8](repeating: 0, count: 32),
            layout: .inline(Content.Part(dataRanges: [], extents: extents)))
        #expect(content.encoded.count < 100)
        #expect(try Content(decoding: content.encoded[...]) == content)
    }

    @Test func `an indirect content needs parts that are stored somewhere`() throws {
        var extents = Extents()
        extents.appendZero(3)
        let zero = Content(
            size: 3 * 4096 * 1024, blockSize: 4096, digest: [UInt8](repeating: 0, count: 32),
            layout: .indirect(blocksPerPart: 1024, parts: extents))
        #expect(throws: FormatError.self) { try Content(decoding: zero.encoded[...]) }
        var none = zero
        none.layout = .indirect(blocksPerPart: 0, parts: Extents())
        #expect(throws: FormatError.self) { try Content(decoding: none.encoded[...]) }
    }
}
