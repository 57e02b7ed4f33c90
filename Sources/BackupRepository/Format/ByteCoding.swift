/// Reading and writing the format's bytes (docs/format.md, "Conventions").

/// Bytes that are not what the format says. The caller adds the object's name.
struct FormatError: Error, CustomStringConvertible {
    let description: String
    init(_ description: String) { self.description = description }
}

struct ByteWriter {
    private(set) var bytes: [UInt8] = []

    mutating func u8(_ value: UInt8) { bytes.append(value) }
    mutating func u32(_ value: UInt32) { withUnsafeBytes(of: value.littleEndian) { bytes.append(contentsOf: $0) } }
    mutating func u64(_ value: UInt64) { withUnsafeBytes(of: value.littleEndian) { bytes.append(contentsOf: $0) } }

    mutating func varint(_ value: Int) {
        precondition(value >= 0, "a varint is not negative")
        var rest = UInt64(value)
        while rest >= 0x80 {
            bytes.append(UInt8(truncatingIfNeeded: rest) | 0x80)
            rest >>= 7
        }
        bytes.append(UInt8(rest))
    }

    mutating func zigzag(_ value: Int64) {
        let folded = UInt64(bitPattern: (value << 1) ^ (value >> 63))
        var rest = folded
        while rest >= 0x80 {
            bytes.append(UInt8(truncatingIfNeeded: rest) | 0x80)
            rest >>= 7
        }
        bytes.append(UInt8(rest))
    }

    mutating func raw(_ value: some Sequence<UInt8>) { bytes.append(contentsOf: value) }
    mutating func sized(_ value: some Collection<UInt8>) {
        varint(value.count)
        bytes.append(contentsOf: value)
    }
    mutating func id(_ value: ObjectID) { raw(value.bytes) }
}

/// Reads from untrusted bytes: never beyond their end, never a length that was
/// not checked first.
struct ByteReader {
    private let bytes: ArraySlice<UInt8>
    private(set) var position: Int

    init(_ bytes: [UInt8]) { self.init(bytes[...]) }
    init(_ bytes: ArraySlice<UInt8>) {
        self.bytes = bytes
        position = bytes.startIndex
    }

    var remaining: Int { bytes.endIndex - position }
    var isAtEnd: Bool { remaining == 0 }

    mutating func u8() throws -> UInt8 {
        guard remaining >= 1 else { throw FormatError("it ends too early") }
        defer { position += 1 }
        return bytes[position]
    }

    mutating func u32() throws -> UInt32 {
        try take(4).reversed().reduce(0) { $0 << 8 | UInt32($1) }
    }

    mutating func u64() throws -> UInt64 {
        try take(8).reversed().reduce(0) { $0 << 8 | UInt64($1) }
    }

    private mutating func leb() throws -> UInt64 {
        var value: UInt64 = 0
        for shift in stride(from: UInt64(0), to: 70, by: 7) {
            let byte = try u8()
            guard shift < 63 || byte <= 1 else { throw FormatError("a number is too large") }
            value |= UInt64(byte & 0x7f) << shift
            if byte < 0x80 { return value }
        }
        throw FormatError("a number is too long")
    }

    /// A number from 0 to `limit`.
    mutating func varint(limit: Int = Int.max) throws -> Int {
        let value = try leb()
        guard value <= UInt64(limit) else { throw FormatError("a number is out of bounds") }
        return Int(value)
    }

    mutating func zigzag() throws -> Int64 {
        let folded = try leb()
        return Int64(bitPattern: folded >> 1) ^ -Int64(bitPattern: folded & 1)
    }

    /// How many elements of at least `size` bytes follow: more than fit are refused.
    mutating func elementCount(of size: Int) throws -> Int {
        try varint(limit: max(remaining, 0) / size)
    }

    mutating func take(_ count: Int) throws -> ArraySlice<UInt8> {
        guard count >= 0, remaining >= count else { throw FormatError("it ends too early") }
        defer { position += count }
        return bytes[position..<position + count]
    }

    mutating func sized(limit: Int) throws -> ArraySlice<UInt8> { try take(try varint(limit: limit)) }
    mutating func id() throws -> ObjectID { ObjectID(bytes: try take(16)) }

    func expectEnd() throws {
        guard isAtEnd else { throw FormatError("\(remaining) bytes too many") }
    }
}
