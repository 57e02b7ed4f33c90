import BackupBase

/// 16 random bytes that name an object, or the repository itself.
public struct ObjectID: Hashable, Comparable, Sendable, CustomStringConvertible {
    private let high: UInt64
    private let low: UInt64

    /// - Parameter bytes: exactly 16.
    public init(bytes: some Collection<UInt8>) {
        precondition(bytes.count == 16)
        high = bytes.prefix(8).reduce(0) { $0 << 8 | UInt64($1) }
        low = bytes.suffix(8).reduce(0) { $0 << 8 | UInt64($1) }
    }

    /// 32 lower-case hex digits, or nil.
    public init?(hex: some StringProtocol) {
        guard hex.utf8.count == 32, let bytes = bytesFromHex(hex) else { return nil }
        self.init(bytes: bytes)
    }

    public static func random(_ ambient: Ambient) -> ObjectID { ObjectID(bytes: ambient.random(16)) }

    public var bytes: [UInt8] {
        (0..<8).map { UInt8(truncatingIfNeeded: high >> (56 - 8 * UInt64($0))) }
            + (0..<8).map { UInt8(truncatingIfNeeded: low >> (56 - 8 * UInt64($0))) }
    }
    public var description: String { bytes.hex }
    public static func < (left: Self, right: Self) -> Bool { (left.high, left.low) < (right.high, right.low) }
}

/// HMAC-SHA-256 of a block under the id key: the block's identity.
public struct BlockID: Hashable, Comparable, Sendable {
    /// The 32 bytes as big-endian words, so that order is byte order.
    let words: (UInt64, UInt64, UInt64, UInt64)

    init(_ words: (UInt64, UInt64, UInt64, UInt64)) { self.words = words }

    /// - Parameter raw: exactly 32 bytes.
    init(raw: UnsafeRawBufferPointer) {
        precondition(raw.count == 32)
        func word(_ index: Int) -> UInt64 {
            UInt64(bigEndian: raw.loadUnaligned(fromByteOffset: index * 8, as: UInt64.self))
        }
        words = (word(0), word(1), word(2), word(3))
    }

    /// - Parameter bytes: exactly 32.
    public init(bytes: ArraySlice<UInt8>) { self = bytes.withUnsafeBytes { BlockID(raw: $0) } }

    public func write(to raw: UnsafeMutableRawPointer) {
        raw.storeBytes(of: words.0.bigEndian, toByteOffset: 0, as: UInt64.self)
        raw.storeBytes(of: words.1.bigEndian, toByteOffset: 8, as: UInt64.self)
        raw.storeBytes(of: words.2.bigEndian, toByteOffset: 16, as: UInt64.self)
        raw.storeBytes(of: words.3.bigEndian, toByteOffset: 24, as: UInt64.self)
    }

    public var bytes: [UInt8] {
        [UInt8](unsafeUninitializedCapacity: 32) { buffer, count in
            write(to: buffer.baseAddress!)
            count = 32
        }
    }

    /// Stands for a block that is all zero, in file digests and block lists only.
    public static let zero = BlockID((0, 0, 0, 0))

    public static func == (left: Self, right: Self) -> Bool {
        left.words.0 == right.words.0 && left.words.1 == right.words.1
            && left.words.2 == right.words.2 && left.words.3 == right.words.3
    }
    public static func < (left: Self, right: Self) -> Bool { left.words < right.words }
    /// The id is the output of a keyed hash: one word of it is a hash already.
    public func hash(into hasher: inout Hasher) { hasher.combine(words.0) }
}

/// Where a block stands: the n-th block of a pack.
public struct Location: Hashable, Sendable {
    public let pack: ObjectID
    public let ordinal: Int

    public init(pack: ObjectID, ordinal: Int) {
        self.pack = pack
        self.ordinal = ordinal
    }
}
