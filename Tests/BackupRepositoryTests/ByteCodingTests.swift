import Testing

@testable import BackupRepository

@Suite struct ByteCodingTests {
    @Test(arguments: 0..<50) func `what is written is read`(_ seed: Int) throws {
        var random = Seeded(seed)
        let numbers = (0..<40).map { _ in random.anyNumber() }
        let signed = (0..<40).map { _ in Int64(bitPattern: random.next()) } + [.min, .max, 0, -1, 1]
        let pieces = (0..<10).map { _ in random.bytes(random.number(0...200)) }
        var writer = ByteWriter()
        for number in numbers { writer.varint(number) }
        for number in signed { writer.zigzag(number) }
        for piece in pieces { writer.sized(piece) }
        writer.u32(0xdead_beef)
        writer.u64(.max - 3)
        writer.u8(7)

        var reader = ByteReader(writer.bytes)
        for number in numbers { #expect(try reader.varint() == number) }
        for number in signed { #expect(try reader.zigzag() == number) }
        for piece in pieces { #expect(try Array(reader.sized(limit: 200)) == piece) }
        #expect(try reader.u32() == 0xdead_beef)
        #expect(try reader.u64() == .max - 3)
        #expect(try reader.u8() == 7)
        try reader.expectEnd()
    }

    @Test(arguments: 0..<200) func `hostile bytes end in an error or in a number, never beyond the end`(_ seed: Int) {
        var random = Seeded(seed)
        var reader = ByteReader(random.bytes(random.number(0...40)).map { random.number(0...2) == 0 ? $0 : 0xff })
        while !reader.isAtEnd {
            let before = reader.remaining
            do {
                switch random.number(0...6) {
                case 0: _ = try reader.varint(limit: 1000)
                case 1: _ = try reader.zigzag()
                case 2: _ = try reader.sized(limit: .max)
                case 3: _ = try reader.u64()
                case 4: _ = try reader.id()
                case 5: #expect(try reader.elementCount(of: 16) <= before / 16)
                default: _ = try reader.take(random.number(0...50))
                }
            } catch { break }
            #expect(reader.remaining >= 0 && reader.remaining < before || before == reader.remaining)
            if reader.remaining == before { break }
        }
    }

    @Test(
        arguments: [
            [], [0x80], [0xff, 0xff], [UInt8](repeating: 0xff, count: 9), [UInt8](repeating: 0xff, count: 10),
            [UInt8](repeating: 0x80, count: 10) + [1], [UInt8](repeating: 0xff, count: 9) + [2],
        ] as [[UInt8]])
    func `a varint that ends early or is too long is refused`(_ bytes: [UInt8]) {
        var reader = ByteReader(bytes)
        #expect(throws: FormatError.self) { try reader.varint() }
    }

    @Test func `a length beyond its limit is refused before anything is taken`() {
        var writer = ByteWriter()
        writer.varint(101)
        writer.raw([UInt8](repeating: 1, count: 101))
        var reader = ByteReader(writer.bytes)
        #expect(throws: FormatError.self) { try reader.sized(limit: 100) }
        var other = ByteReader(writer.bytes)
        #expect(throws: FormatError.self) { try other.take(-1) }
        #expect(throws: FormatError.self) { try other.expectEnd() }
    }

    @Test func `a reader of a slice does not leave it`() throws {
        let all: [UInt8] = [1, 2, 3, 4, 5, 6]
        var reader = ByteReader(all[2..<4])
        #expect(try Array(reader.take(2)) == [3, 4])
        #expect(throws: FormatError.self) { try reader.u8() }
    }
}
