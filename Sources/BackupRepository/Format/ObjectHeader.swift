/// The kinds of sealed objects, and the 64 bytes that each begins with.
enum ObjectKind: UInt8, CaseIterable {
    case pack = 1
    case snapshot = 2
    case index = 3
    case note = 4

    var magic: [UInt8] {
        switch self {
        case .pack: Array("BGBPACK1".utf8)
        case .snapshot: Array("BGBSNAP1".utf8)
        case .index: Array("BGBINDX1".utf8)
        case .note: Array("BGBNOTE1".utf8)
        }
    }
}

struct ObjectHeader {
    static let size = 64
    static let version: UInt8 = 1
    static let suite: UInt8 = 1

    let kind: ObjectKind
    let id: ObjectID
    /// HPKE's encapsulated key, or an index's or note's salt: 32 bytes.
    let keying: [UInt8]
    /// Of the key pair that a pack or snapshot is sealed for, from 1; 1 for what knows no pair.
    let generation: Int

    var bytes: [UInt8] {
        kind.magic + [Self.version, Self.suite, kind.rawValue, UInt8(generation - 1), 0, 0, 0, 0] + id.bytes + keying
    }

    init(kind: ObjectKind, id: ObjectID, keying: [UInt8], generation: Int = 1) {
        precondition(keying.count == 32 && (1...KeyPair.most).contains(generation))
        self.generation = generation
        self.kind = kind
        self.id = id
        self.keying = keying
    }

    /// Parses and checks against what the object's name promised.
    init(parsing bytes: [UInt8], expecting kind: ObjectKind, _ id: ObjectID) throws {
        guard bytes.count >= Self.size else { throw FormatError("it is only \(bytes.count) bytes long") }
        guard Array(bytes[0..<8]) == kind.magic else { throw FormatError("it does not begin like one") }
        guard bytes[8] == Self.version, bytes[9] == Self.suite else {
            throw FormatError("version \(bytes[8]) or suite \(bytes[9]) is unknown")
        }
        guard bytes[10] == kind.rawValue, bytes[12..<16].allSatisfy({ $0 == 0 }) else {
            throw FormatError("it is of another kind")
        }
        let pairs = kind == .pack || kind == .snapshot ? KeyPair.most : 1
        guard bytes[11] < pairs else { throw FormatError("it is sealed for a key pair that cannot be") }
        guard ObjectID(bytes: bytes[16..<32]) == id else { throw FormatError("it carries another object's id") }
        self.init(kind: kind, id: id, keying: Array(bytes[32..<64]), generation: Int(bytes[11]) + 1)
    }
}
