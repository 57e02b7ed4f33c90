import BackupBase
import Crypto
import FoundationEssentials

/// What `v1/config.a` says: public, and authenticated by the config key.
public struct Configuration: Codable, Sendable {
    /// 1, or 2 once the key pair was rotated: programs that know of no rotation then refuse the repository.
    public var format = 1
    public var repository: String
    public var created: String
    public var suite = 1
    /// Of the newest key pair.
    public var publicKey: String
    public var probe: [String: String]
    /// Of that pair; nil before the first rotation.
    var generation: Int?
    /// Of the rotation; RFC 3339.
    var rotated: String?

    static let sizeLimit = 64 << 10
    static let names = ["v1/config.a", "v1/config.b"]

    var id: ObjectID? { ObjectID(hex: repository) }

    /// How many key pairs the repository has had.
    public var keyGeneration: Int { generation ?? 1 }
    /// Whether this program knows what it says.
    var isKnown: Bool {
        suite == 1 && (format == 1 && keyGeneration == 1 || format == 2 && (2...KeyPair.most).contains(keyGeneration))
    }

    /// The same for the ring's newest pair.
    func rotated(to ring: KeyRing, at time: Int64) -> Configuration {
        var next = self
        next.format = 2
        next.generation = ring.generation
        next.rotated = formatTime(time)
        next.publicKey = ring.publicKeyText
        return next
    }

    /// Line 1 and line 2 of the object. The ring has the pair that it names.
    func encoded(_ ring: KeyRing) throws -> [UInt8] {
        guard let pair = ring.pair(keyGeneration) else { throw ring.outdated(self) }
        let encoder = JSONEncoder()
        encoder.outputFormatting = [.sortedKeys, .withoutEscapingSlashes]
        let line = Array(try encoder.encode(self))
        return line + [0x0a] + Array(ring.configurationMAC(line, pair).hex.utf8) + [0x0a]
    }
}

/// A configuration as read, before a key has vouched for it.
struct UnverifiedConfiguration {
    let configuration: Configuration
    let id: ObjectID
    private let line: ArraySlice<UInt8>
    private let mac: [UInt8]

    init(parsing bytes: [UInt8]) throws {
        let lines = bytes.split(separator: 0x0a, maxSplits: 1, omittingEmptySubsequences: false)
        guard lines.count == 2 else { throw FormatError("it has not two lines") }
        line = lines[0]
        let text = String(decoding: lines[1], as: UTF8.self).filter { !$0.isWhitespace }
        guard let mac = bytesFromHex(text), mac.count == 32 else { throw FormatError("its second line is no MAC") }
        self.mac = mac
        guard let parsed = try? JSONDecoder().decode(Configuration.self, from: Data(line)), let id = parsed.id else {
            throw FormatError("its first line is no configuration")
        }
        configuration = parsed
        self.id = id
    }

    func isSame(as other: Self) -> Bool { line == other.line && mac == other.mac }

    /// Whether the ring's holder wrote it, for the ring's own repository.
    func isGenuine(_ ring: KeyRing) -> Bool {
        guard ring.repository == id, let pair = ring.pair(generation) else { return false }
        return ring.configurationMAC(line, pair) == mac
            && Array(pair.publicKey.rawRepresentation).hex == configuration.publicKey
    }

    /// Whether it names a key pair that the ring does not know yet: nothing then vouches for it.
    func outdates(_ ring: KeyRing) -> Bool { ring.repository == id && generation > ring.heldGeneration }

    /// Whether a slot says that it holds the key pair that is named here, as the last.
    func isNamed(by slot: KeySlot) -> Bool {
        guard slot.generation == generation, let key = bytesFromHex(configuration.publicKey) else { return false }
        return slot.fingerprint == nil || slot.fingerprint == KeyRing.fingerprint(of: key, in: id)
    }

    var generation: Int { configuration.keyGeneration }
}
