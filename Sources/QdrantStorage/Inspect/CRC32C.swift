/// CRC-32C (Castagnoli, RFC 3720), eight bytes at a step.
struct CRC32C {
    /// The register, which begins as the complement of the checksum before.
    private var register: UInt32

    /// - Parameter previous: the checksum that this one goes on from; 0 for none
    init(continuing previous: UInt32 = 0) { register = ~previous }

    var checksum: UInt32 { ~register }

    mutating func update(_ bytes: UnsafeRawBufferPointer) {
        var register = register
        var offset = 0
        Self.tables.withUnsafeBufferPointer { tables in
            while offset + 8 <= bytes.count {
                let word = UInt64(littleEndian: bytes.loadUnaligned(fromByteOffset: offset, as: UInt64.self)) ^ UInt64(register)
                register = 0
                for position in 0..<8 {
                    register ^= tables[(7 - position) << 8 | Int(word >> UInt64(position * 8) & 0xff)]
                }
                offset += 8
            }
            while offset < bytes.count {
                register = register >> 8 ^ tables[Int((register ^ UInt32(bytes[offset])) & 0xff)]
                offset += 1
            }
        }
        self.register = register
    }

    /// Table n has the checksum of a byte that n more zero bytes follow.
    private static let tables: [UInt32] = {
        var tables = [UInt32](repeating: 0, count: 8 * 256)
        for byte in 0..<256 {
            var value = UInt32(byte)
            for _ in 0..<8 { value = value & 1 == 1 ? value >> 1 ^ 0x82f6_3b78 : value >> 1 }
            tables[byte] = value
        }
        for table in 1..<8 {
            for byte in 0..<256 {
                let before = tables[(table - 1) << 8 | byte]
                tables[table << 8 | byte] = before >> 8 ^ tables[Int(before & 0xff)]
            }
        }
        return tables
    }()
}
