import Foundation
import Testing

@testable import BackupRepository

/// Numbers that look like chance and repeat with their seed (splitmix64).
struct Seeded: RandomNumberGenerator {
    private var state: UInt64
    init(_ seed: some BinaryInteger) { state = UInt64(truncatingIfNeeded: seed) }

    mutating func next() -> UInt64 {
        state &+= 0x9e37_79b9_7f4a_7c15
        var value = state
        value = (value ^ (value >> 30)) &* 0xbf58_476d_1ce4_e5b9
        value = (value ^ (value >> 27)) &* 0x94d0_49bb_1331_11eb
        return value ^ (value >> 31)
    }

    mutating func bytes(_ count: Int) -> [UInt8] {
        [UInt8](unsafeUninitializedCapacity: count) { buffer, filled in
            var word: UInt64 = 0
            for index in 0..<count {
                if index & 7 == 0 { word = next() }
                buffer[index] = UInt8(truncatingIfNeeded: word >> UInt64(8 * (index & 7)))
            }
            filled = count
        }
    }

    mutating func number(_ range: ClosedRange<Int>) -> Int { Int.random(in: range, using: &self) }
    /// Bytes of a name or link: anything but NUL.
    mutating func text(_ count: ClosedRange<Int>) -> [UInt8] { bytes(number(count)).map { max($0, 1) } }
    mutating func id() -> ObjectID { ObjectID(bytes: bytes(16)) }
    mutating func block() -> BlockID { BlockID(bytes: bytes(32)[...]) }

    /// Small numbers, large ones and those at the borders, about alike.
    mutating func anyNumber() -> Int {
        switch number(0...3) {
        case 0: number(0...300)
        case 1: [0, 1, 127, 128, 16383, 16384, Int(UInt32.max), 1 << 56, Int.max - 1, Int.max].randomElement(using: &self)!
        default: Int(truncatingIfNeeded: next() >> UInt64(number(1...63)))
        }
    }

    mutating func extents(_ most: Int = 12) -> Extents {
        var extents = Extents()
        let packs = (0..<3).map { _ in id() }
        for _ in 0..<number(0...most) {
            if number(0...2) == 0 {
                extents.appendZero(number(1...1000))
            } else {
                extents.append(
                    Location(pack: packs.randomElement(using: &self)!, ordinal: number(0...100_000)), count: number(1...50))
            }
        }
        return extents
    }

    /// Data ranges within `size` bytes.
    mutating func ranges(_ size: Int64) -> [Range<Int64>] {
        var ranges: [Range<Int64>] = []
        var end: Int64 = 0
        while ranges.count < 6, end < size {
            let start = Int64.random(in: end..<size, using: &self)
            let stop = Int64.random(in: start + 1...size, using: &self)
            ranges.append(start..<stop)
            end = stop
        }
        return ranges
    }

    mutating func content() -> Content {
        let extents = extents()
        let blockSize = 1 << number(12...20)
        let size = extents.count == 0 ? 0 : Int64(extents.count) * Int64(blockSize) - Int64(number(0...blockSize - 1))
        return Content(
            size: size, blockSize: blockSize, digest: bytes(32),
            layout: .inline(Content.Part(dataRanges: ranges(size), extents: extents)))
    }

    mutating func metadata() -> Entry.Metadata {
        Entry.Metadata(
            mode: UInt32(number(0...0o7777)), owner: UInt32(truncatingIfNeeded: next()), group: UInt32(number(0...70000)),
            modified: Int64(next() >> UInt64(number(1...40))) * (number(0...1) == 0 ? 1 : -1),
            attributes: (0..<number(0...3)).map { _ in
                Entry.Attribute(name: Array("user.".utf8) + text(1...20), value: bytes(number(0...300)))
            })
    }
}

/// Changes some bytes of `bytes`, or cuts it, or makes it longer.
func mutated(_ bytes: [UInt8], _ random: inout Seeded) -> [UInt8] {
    var copy = bytes
    for _ in 0..<random.number(1...4) {
        switch random.number(0...5) {
        case 0 where !copy.isEmpty: copy.removeLast(random.number(1...copy.count))
        case 1: copy += random.bytes(random.number(1...40))
        case 2 where !copy.isEmpty:
            let at = random.number(0...copy.count - 1)
            copy.replaceSubrange(at..<min(at + 9, copy.count), with: [UInt8](repeating: 0xff, count: min(9, copy.count - at)))
        case 3 where !copy.isEmpty: copy.insert(UInt8(random.number(0...255)), at: random.number(0...copy.count - 1))
        default: if !copy.isEmpty { copy[random.number(0...copy.count - 1)] = UInt8(random.number(0...255)) }
        }
    }
    return copy
}
