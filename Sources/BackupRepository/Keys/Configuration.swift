import BackupBase
import Crypto
import FoundationEssentials

/// What `v1/config.a` says: public, and authenticated by the config key.
public struct Configuration: Codable, Sendable {
    public var format = 1
    public var repository: String
    public var created: String
    public var suite = 1
    public var publicKey: String
    public var probe: [String: String]

    static let sizeLimit = 64 << 10
    static let names = ["v1/config.a", "v1/config.b"]

    var id: ObjectID? { ObjectID(hex: repository) }

    /// Line 1 and line 2 of the object.
    func encoded(_ ring: KeyRing) throws -> [UInt8] {
        let encoder = JSONEncoder()
        encoder.outputFormatting = [.sortedKeys, .withoutEscapingSlashes]
        let line = Array(try encoder.encode(self))
        return line + [0x0a] + Array(ring.configurationMAC(line).hex.utf8) + [0x0a]
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
        ring.repository == id && ring.configurationMAC(line) == mac
            && Array(ring.publicKey.rawRepresentation).hex == configuration.publicKey
    }
}
