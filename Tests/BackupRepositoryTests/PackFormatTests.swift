import Testing

@testable import BackupRepository

@Suite struct PackFormatTests {
    private func trailer(_ random: inout Seeded, frames: Int) -> PackTrailer {
        var trailer = PackTrailer(cohort: Cohort.allCases.randomElement(using: &random)!)
        for _ in 0..<frames {
            let blocks = (0..<random.number(1...6)).map { _ in (id: random.block(), length: random.number(1...160_000)) }
            trailer.add(sealedLength: random.number(17...PackLimits.sealedFrame), blocks: blocks)
        }
        return trailer
    }

    @Test(arguments: 0..<60) func `a trailer comes back as it was`(_ seed: Int) throws {
        var random = Seeded(seed)
        let trailer = trailer(&random, frames: random.number(0...20))
        let back = try PackTrailer(parsing: trailer.bytes[...])
        #expect(back.cohort == trailer.cohort)
        #expect(back.ids == trailer.ids)
        #expect(back.lengths == trailer.lengths)
        #expect(back.end == trailer.end)
        #expect(back.frames.map(\.extent) == trailer.frames.map(\.extent))
        #expect(back.frames.map(\.blocks) == trailer.frames.map(\.blocks))
        for (ordinal, _) in back.ids.enumerated() {
            let frame = try #require(back.frame(holding: ordinal))
            #expect(back.frames[frame].blocks.contains(ordinal))
        }
        for ordinal in [-1, back.ids.count, Int.max] { #expect(back.frame(holding: ordinal) == nil) }
    }

    @Test(arguments: 0..<300) func `a changed trailer is refused or keeps its promises`(_ seed: Int) {
        var random = Seeded(seed)
        let bytes = trailer(&random, frames: 4).bytes
        for _ in 0..<20 {
            guard let back = try? PackTrailer(parsing: mutated(bytes, &random)[...]) else { continue }
            #expect(back.end <= PackLimits.pack)
            #expect(back.ids.count == back.lengths.count)
            #expect(back.frames.allSatisfy { $0.length <= PackLimits.frame && $0.extent.upperBound <= back.end })
            #expect(back.frames.last.map(\.blocks.upperBound) ?? 0 == back.ids.count)
        }
    }

    @Test func `a trailer whose counts are larger than itself is refused`() {
        for (frames, sealed, blocks) in [(Int.max, 1, 1), (1, 1, Int.max), (1 << 40, 16, 0), (1, Int.max, 1), (1, 1, 1 << 30)] {
            var writer = ByteWriter()
            writer.u8(2)
            writer.varint(frames)
            writer.varint(sealed)
            writer.varint(blocks)
            writer.raw([UInt8](repeating: 0, count: 66))
            #expect(throws: FormatError.self) { try PackTrailer(parsing: writer.bytes[...]) }
        }
    }

    @Test func `a frame of more than 1 MiB and a pack of more than 128 MiB are refused`() {
        var random = Seeded(1)
        var large = PackTrailer(cohort: .mutable)
        large.add(sealedLength: 100, blocks: [(random.block(), PackLimits.frame), (random.block(), 1)])
        #expect(throws: FormatError.self) { try PackTrailer(parsing: large.bytes[...]) }
        var many = PackTrailer(cohort: .mutable)
        for _ in 0..<129 { many.add(sealedLength: PackLimits.frame, blocks: [(random.block(), 5)]) }
        #expect(throws: FormatError.self) { try PackTrailer(parsing: many.bytes[...]) }
    }

    @Test(arguments: [0, 5, 255] as [UInt8]) func `an unknown cohort is refused`(_ cohort: UInt8) {
        #expect(throws: FormatError.self) { try PackTrailer(parsing: [cohort, 0]) }
    }

    @Test func `a footer comes back, and every changed byte of its length or magic is noticed`() throws {
        let bytes = PackFooter(trailerLength: 4711).bytes
        #expect(bytes.count == PackFooter.size)
        #expect(try PackFooter(parsing: bytes).trailerLength == 4711)
        for index in 8..<16 {
            var changed = bytes
            changed[index] ^= 1
            #expect(throws: FormatError.self) { try PackFooter(parsing: changed) }
        }
        #expect(throws: FormatError.self) { try PackFooter(parsing: PackFooter(trailerLength: PackLimits.trailer + 17).bytes) }
        for count in 0..<16 { #expect(throws: FormatError.self) { try PackFooter(parsing: Array(bytes.prefix(count))) } }
    }

    @Test func `a frame header comes back, and unknown codings are refused`() throws {
        for codec in [Coding.Codec.stored, .zstd] {
            for filter in [0, 1] as [UInt8] {
                let filter = try #require(Coding.Filter(rawValue: filter))
                let header = FrameHeader(ordinal: 77, sealedLength: 999, coding: Coding(codec: codec, filter: filter))
                let back = try FrameHeader(parsing: header.bytes)
                #expect(back.ordinal == 77 && back.sealedLength == 999 && back.coding == header.coding)
            }
        }
        let bytes = FrameHeader(ordinal: 1, sealedLength: 2, coding: Coding(codec: .zstd, filter: .none)).bytes
        for (index, value) in [(0, 0), (3, 0x47), (12, 200), (13, 200)] as [(Int, UInt8)] {
            var changed = bytes
            changed[index] = value
            #expect(throws: FormatError.self) { try FrameHeader(parsing: changed) }
        }
        for count in 0..<14 { #expect(throws: FormatError.self) { try FrameHeader(parsing: Array(bytes.prefix(count))) } }
    }

    @Test func `an object header is refused when anything but the reserved bytes is another`() throws {
        var random = Seeded(5)
        let id = random.id()
        for kind in ObjectKind.allCases {
            let bytes = ObjectHeader(kind: kind, id: id, keying: random.bytes(32)).bytes
            #expect(bytes.count == ObjectHeader.size)
            #expect(try ObjectHeader(parsing: bytes, expecting: kind, id).keying == Array(bytes[32...]))
            for index in Array(0..<11) + Array(16..<32) {
                var changed = bytes
                changed[index] ^= 0x40
                #expect(throws: FormatError.self) { try ObjectHeader(parsing: changed, expecting: kind, id) }
            }
            for other in ObjectKind.allCases where other != kind {
                #expect(throws: FormatError.self) { try ObjectHeader(parsing: bytes, expecting: other, id) }
            }
            #expect(throws: FormatError.self) { try ObjectHeader(parsing: bytes, expecting: kind, random.id()) }
            for count in [0, 1, 8, 63] {
                #expect(throws: FormatError.self) { try ObjectHeader(parsing: Array(bytes.prefix(count)), expecting: kind, id) }
            }
        }
    }
}
