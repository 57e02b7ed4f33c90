import BackupBase
import Crypto
import FoundationEssentials

/// The keys somebody holds: the owner's ring opens everything, the writer's
/// ring makes objects and reads indexes and trailers only.
public struct KeyRing: Sendable {
    public let repository: ObjectID
    let publicKey: Curve25519.KeyAgreement.PublicKey
    let privateKey: Curve25519.KeyAgreement.PrivateKey?
    let writerSecret: SymmetricKey

    public var canRead: Bool { privateKey != nil }

    private static let suite = HPKE.Ciphersuite(
        kem: .Curve25519_HKDF_SHA256, kdf: .HKDF_SHA256, aead: .AES_GCM_256)
    private static let pskID = Data("bgbackup v1 writer".utf8)
    private static let exportLabel = Data("bgbackup v1 object key".utf8)

    /// A fresh ring for a new repository.
    static func generate(repository: ObjectID) -> KeyRing {
        let key = Curve25519.KeyAgreement.PrivateKey()
        return KeyRing(
            repository: repository, publicKey: key.publicKey, privateKey: key,
            writerSecret: SymmetricKey(size: .bits256))
    }

    /// The ring without the private key.
    var writer: KeyRing {
        KeyRing(repository: repository, publicKey: publicKey, privateKey: nil, writerSecret: writerSecret)
    }

    private func derived(_ info: String) -> SymmetricKey {
        HKDF<SHA256>.deriveKey(
            inputKeyMaterial: writerSecret, salt: repository.bytes, info: Array(info.utf8), outputByteCount: 32)
    }

    public var blockHasher: BlockHasher { BlockHasher(key: derived("bgbackup v1 block id")) }
    public var digestHasher: BlockHasher { BlockHasher(key: derived("bgbackup v1 file digest")) }
    /// For files that the writer keeps on its own node.
    public var stateHasher: BlockHasher { BlockHasher(key: derived("bgbackup v1 local state")) }

    func configurationMAC(_ line: some Sequence<UInt8>) -> [UInt8] {
        Array(HMAC<SHA256>.authenticationCode(for: Array(line), using: derived("bgbackup v1 config")))
    }

    // MARK: - The owner's word

    /// HMAC under a key that only the private key gives: what somebody said who
    /// can read, and no writer can say. Throws `.writeOnlyKey` for a writer.
    public func ownerSeal(of text: String) throws -> String {
        Array(HMAC<SHA256>.authenticationCode(for: Array(text.utf8), using: try ownerKey)).hex
    }

    /// Whether a seal is the owner's; nobody but the owner can tell.
    public func isOwnerSeal(_ seal: String, of text: String) -> Bool {
        guard let code = bytesFromHex(seal), let key = try? ownerKey else { return false }
        return HMAC<SHA256>.isValidAuthenticationCode(code, authenticating: Array(text.utf8), using: key)
    }

    private var ownerKey: SymmetricKey {
        get throws {
            guard let privateKey else { throw Self.writeOnly }
            return HKDF<SHA256>.deriveKey(
                inputKeyMaterial: SymmetricKey(data: privateKey.rawRepresentation), salt: repository.bytes,
                info: Array("bgbackup v1 owner".utf8), outputByteCount: 32)
        }
    }

    // MARK: - Object keys

    /// A fresh key for a pack or snapshot, sealed to the public key.
    func newObject(_ kind: ObjectKind, _ id: ObjectID) throws -> (header: ObjectHeader, sealing: Sealing) {
        let sender = try HPKE.Sender(
            recipientKey: publicKey, ciphersuite: Self.suite, info: info(kind, id),
            presharedKey: derived("bgbackup v1 writer psk"), presharedKeyIdentifier: Self.pskID)
        let key = try sender.exportSecret(context: Self.exportLabel, outputByteCount: 32)
        let header = ObjectHeader(kind: kind, id: id, keying: Array(sender.encapsulatedKey))
        return (header, sealing(key, kind, id))
    }

    /// The key of a pack or snapshot. Throws `.writeOnlyKey` for a writer.
    func openObject(_ header: ObjectHeader) throws -> Sealing {
        guard let privateKey else { throw Self.writeOnly }
        do {
            let recipient = try HPKE.Recipient(
                privateKey: privateKey, ciphersuite: Self.suite, info: info(header.kind, header.id),
                encapsulatedKey: Data(header.keying), presharedKey: derived("bgbackup v1 writer psk"),
                presharedKeyIdentifier: Self.pskID)
            let key = try recipient.exportSecret(context: Self.exportLabel, outputByteCount: 32)
            return sealing(key, header.kind, header.id)
        } catch {
            throw FormatError("its encapsulated key is no key")
        }
    }

    func trailerSealing(of pack: ObjectID) -> Sealing {
        let key = HKDF<SHA256>.deriveKey(
            inputKeyMaterial: derived("bgbackup v1 index"), salt: pack.bytes,
            info: Array("bgbackup v1 trailer".utf8) + repository.bytes, outputByteCount: 32)
        return sealing(key, .pack, pack)
    }

    func indexSealing(_ id: ObjectID, salt: [UInt8]) -> Sealing {
        let key = HKDF<SHA256>.deriveKey(
            inputKeyMaterial: derived("bgbackup v1 index"), salt: salt,
            info: Array("bgbackup v1 index object".utf8) + repository.bytes + id.bytes, outputByteCount: 32)
        return sealing(key, .index, id)
    }

    func noteSealing(_ id: ObjectID, topic: String, salt: [UInt8]) -> Sealing {
        let key = HKDF<SHA256>.deriveKey(
            inputKeyMaterial: derived("bgbackup v1 index"), salt: salt,
            info: Array("bgbackup v1 note".utf8) + repository.bytes + id.bytes + Array(topic.utf8), outputByteCount: 32)
        return sealing(key, .note, id)
    }

    private func info(_ kind: ObjectKind, _ id: ObjectID) -> Data {
        Data(Array("bgbackup v1".utf8) + repository.bytes + [kind.rawValue] + id.bytes)
    }

    private func sealing(_ key: SymmetricKey, _ kind: ObjectKind, _ id: ObjectID) -> Sealing {
        Sealing(key: key, repository: repository, kind: kind, object: id)
    }

    static let writeOnly = BackupError(
        .writeOnlyKey, "a writer key makes backups and cannot read them",
        hint: "Use the repository's password (--password-file) to restore, list or dump.")

    // MARK: - Secrets as bytes

    /// private key ‖ writer secret: 64 bytes, for a key slot.
    var secrets: [UInt8]? {
        guard let privateKey else { return nil }
        return Array(privateKey.rawRepresentation) + writerSecret.withUnsafeBytes { Array($0) }
    }

    init(repository: ObjectID, secrets: [UInt8]) throws {
        guard secrets.count == 64 else { throw FormatError("it does not hold two keys") }
        let key = try Curve25519.KeyAgreement.PrivateKey(rawRepresentation: secrets[0..<32])
        self.init(
            repository: repository, publicKey: key.publicKey, privateKey: key,
            writerSecret: SymmetricKey(data: secrets[32..<64]))
    }

    private init(
        repository: ObjectID, publicKey: Curve25519.KeyAgreement.PublicKey,
        privateKey: Curve25519.KeyAgreement.PrivateKey?, writerSecret: SymmetricKey
    ) {
        self.repository = repository
        self.publicKey = publicKey
        self.privateKey = privateKey
        self.writerSecret = writerSecret
    }
}

/// The text of a writer key file (docs/format.md).
extension KeyRing {
    private static let firstLine = "bgbackup-writer-key-1"

    public var writerKeyFile: String {
        """
        \(Self.firstLine)
        repository: \(repository)
        public-key: \(Array(publicKey.rawRepresentation).hex)
        writer-secret: \(writerSecret.withUnsafeBytes { Array($0) }.hex)

        """
    }

    /// Throws `.wrongPassword` when the text is no writer key.
    public init(writerKeyFile text: String) throws {
        let lines = text.split(whereSeparator: \.isNewline)
        var fields: [Substring: String] = [:]
        for line in lines.dropFirst() {
            guard let colon = line.firstIndex(of: ":") else { continue }
            fields[line[..<colon]] = line[line.index(after: colon)...].filter { !$0.isWhitespace }
        }
        guard lines.first == Self.firstLine[...],
            let repository = ObjectID(hex: fields["repository"] ?? ""),
            let key = bytesFromHex(fields["public-key"] ?? ""), key.count == 32,
            let secret = bytesFromHex(fields["writer-secret"] ?? ""), secret.count == 32,
            let publicKey = try? Curve25519.KeyAgreement.PublicKey(rawRepresentation: key)
        else {
            throw BackupError(
                .wrongPassword, "this is no writer key file",
                hint: "Make one with 'bgbackup key export-writer FILE'.")
        }
        self.init(
            repository: repository, publicKey: publicKey, privateKey: nil, writerSecret: SymmetricKey(data: secret))
    }
}
