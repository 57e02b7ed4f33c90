import BackupBase
import Crypto
import FoundationEssentials

/// The keys somebody holds: the owner's ring opens everything, the writer's
/// ring makes objects and reads indexes and trailers only.
///
/// A rotation adds a key pair: what is new is sealed for the newest one, what is
/// old opens with its own. The writer secret stays, and with it the names of
/// blocks, so that what is stored is found again.
public struct KeyRing: Sendable {
    public let repository: ObjectID
    /// Oldest first, of all generations from 1; a writer has only one.
    let pairs: [KeyPair]
    /// The pair that seals what is new: the one that the configuration names. Those after it are of a rotation that did
    /// not come to the configuration; other passwords do not have them.
    let current: KeyPair
    let writerSecret: SymmetricKey
    /// Of the newest pair that the repository is known to have: more than are held where the keys are outdated.
    private var newest = 0

    var publicKey: Curve25519.KeyAgreement.PublicKey { current.publicKey }
    /// As a configuration names it.
    var publicKeyText: String { Array(publicKey.rawRepresentation).hex }
    /// How many key pairs the repository has had, as far as these keys know.
    public var generation: Int { current.generation }
    /// The same with those of a rotation that was stopped.
    var heldGeneration: Int { pairs.last!.generation }
    public var canRead: Bool { current.privateKey != nil }

    func pair(_ generation: Int) -> KeyPair? { pairs.first { $0.generation == generation } }

    private static let suite = HPKE.Ciphersuite(
        kem: .Curve25519_HKDF_SHA256, kdf: .HKDF_SHA256, aead: .AES_GCM_256)
    private static let pskID = Data("bgbackup v1 writer".utf8)
    private static let exportLabel = Data("bgbackup v1 object key".utf8)

    /// A fresh ring for a new repository.
    static func generate(repository: ObjectID) -> KeyRing {
        let secret = SymmetricKey(size: .bits256)
        return KeyRing(repository: repository, pairs: [KeyPair(1, secret: secret)], writerSecret: secret)
    }

    /// The ring with one more key pair, under a secret of its own.
    func rotated() -> KeyRing {
        KeyRing(
            repository: repository, pairs: pairs + [KeyPair(heldGeneration + 1, secret: SymmetricKey(size: .bits256))],
            writerSecret: writerSecret)
    }

    /// The ring without pairs of later generations. An owner's ring has the first.
    func upTo(_ generation: Int) -> KeyRing {
        KeyRing(repository: repository, pairs: pairs.filter { $0.generation <= generation }, writerSecret: writerSecret)
    }

    /// The same keys, sealing for this pair; for the last where there is no such.
    func sealing(for generation: Int) -> KeyRing {
        KeyRing(repository: repository, pairs: pairs, writerSecret: writerSecret, current: pair(generation))
    }

    /// The same keys, for a repository that names this pair.
    func knowing(newest: Int) -> KeyRing {
        var ring = self
        ring.newest = newest
        return ring
    }

    /// The ring without any private key.
    var writer: KeyRing {
        KeyRing(repository: repository, pairs: [current.withoutPrivateKey], writerSecret: writerSecret)
    }

    private func derived(_ info: String) -> SymmetricKey { derived(info, from: writerSecret) }

    private func derived(_ info: String, from secret: SymmetricKey) -> SymmetricKey {
        HKDF<SHA256>.deriveKey(
            inputKeyMaterial: secret, salt: repository.bytes, info: Array(info.utf8), outputByteCount: 32)
    }

    public var blockHasher: BlockHasher { BlockHasher(key: derived("bgbackup v1 block id")) }
    public var digestHasher: BlockHasher { BlockHasher(key: derived("bgbackup v1 file digest")) }
    /// For files that the writer keeps on its own node.
    public var stateHasher: BlockHasher { BlockHasher(key: derived("bgbackup v1 local state")) }

    func configurationMAC(_ line: some Sequence<UInt8>, _ pair: KeyPair) -> [UInt8] {
        let key = derived("bgbackup v1 config", from: pair.secret)
        return Array(HMAC<SHA256>.authenticationCode(for: Array(line), using: key))
    }

    /// Of the word that closes an older pair: no writer can say it.
    /// - Parameter generation: of the pair that took the closed one's place
    func closingMAC(_ line: some Sequence<UInt8>, _ generation: Int) -> [UInt8]? {
        guard let key = pair(generation)?.privateKey else { return nil }
        return Array(HMAC<SHA256>.authenticationCode(for: Array(line), using: owned("bgbackup v1 closing", key)))
    }

    // MARK: - The owner's word

    /// HMAC under a key that only the private key gives: what somebody said who
    /// can read, and no writer can say. Throws `.writeOnlyKey` for a writer.
    public func ownerSeal(of text: String) throws -> String {
        Array(HMAC<SHA256>.authenticationCode(for: Array(text.utf8), using: try ownerKey)).hex
    }

    /// Whether a seal is the owner's, by any key pair; nobody but the owner can tell.
    public func isOwnerSeal(_ seal: String, of text: String) -> Bool {
        guard let code = bytesFromHex(seal) else { return false }
        return pairs.contains { pair in
            guard let key = pair.privateKey else { return false }
            return HMAC<SHA256>.isValidAuthenticationCode(
                code, authenticating: Array(text.utf8), using: owned("bgbackup v1 owner", key))
        }
    }

    private var ownerKey: SymmetricKey {
        get throws {
            guard let key = current.privateKey else { throw Self.writeOnly }
            return owned("bgbackup v1 owner", key)
        }
    }

    private func owned(_ info: String, _ key: Curve25519.KeyAgreement.PrivateKey) -> SymmetricKey {
        derived(info, from: SymmetricKey(data: key.rawRepresentation))
    }

    // MARK: - Object keys

    /// A fresh key for a pack or snapshot, sealed to the public key.
    func newObject(_ kind: ObjectKind, _ id: ObjectID) throws -> (header: ObjectHeader, sealing: Sealing) {
        let sender = try HPKE.Sender(
            recipientKey: publicKey, ciphersuite: Self.suite, info: info(kind, id),
            presharedKey: derived("bgbackup v1 writer psk", from: current.secret), presharedKeyIdentifier: Self.pskID)
        let key = try sender.exportSecret(context: Self.exportLabel, outputByteCount: 32)
        let header = ObjectHeader(kind: kind, id: id, keying: Array(sender.encapsulatedKey), generation: generation)
        return (header, sealing(key, kind, id))
    }

    /// The key of a pack or snapshot. Throws `.writeOnlyKey` for a writer, `.wrongPassword` for what is sealed for a pair
    /// that the repository has and these keys have not: that is no damage.
    func openObject(_ header: ObjectHeader) throws -> Sealing {
        guard canRead else { throw Self.writeOnly }
        guard let pair = pair(header.generation), let privateKey = pair.privateKey else {
            if header.generation <= newest { throw Self.newer(header.generation, than: heldGeneration) }
            throw FormatError("it is sealed for key pair \(header.generation), and these keys end with \(heldGeneration)")
        }
        do {
            let recipient = try HPKE.Recipient(
                privateKey: privateKey, ciphersuite: Self.suite, info: info(header.kind, header.id),
                encapsulatedKey: Data(header.keying),
                presharedKey: derived("bgbackup v1 writer psk", from: pair.secret),
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

    private static func newer(_ generation: Int, than held: Int) -> BackupError {
        BackupError(
            .wrongPassword, "it is sealed for key pair \(generation), and these keys end with \(held)",
            hint: "It is from after a rotation of the keys: use a password that the rotation kept.")
    }

    /// These keys are from before a rotation.
    func outdated(_ configuration: Configuration) -> BackupError {
        BackupError(
            .wrongPassword,
            "these keys are of key pair \(generation), and the repository has pair \(configuration.keyGeneration) since"
                + " \(printable((configuration.rotated ?? "a rotation").utf8.prefix(40)))",
            hint: canRead
                ? "They read what is older. Use a password that the rotation kept, or have it added: 'bgbackup key add'."
                : "Have a new writer key made, with the password: 'bgbackup key export-writer FILE'.")
    }

    // MARK: - Secrets as bytes

    /// For a key slot: private key ‖ secret of each pair, 64 bytes a pair. The first pair's secret is the writer secret.
    var secrets: [UInt8]? {
        guard canRead else { return nil }
        return pairs.flatMap { pair in
            Array(pair.privateKey!.rawRepresentation) + pair.secret.withUnsafeBytes { Array($0) }
        }
    }

    init(repository: ObjectID, secrets: [UInt8]) throws {
        guard secrets.count % 64 == 0, (1...KeyPair.most).contains(secrets.count / 64) else {
            throw FormatError("it does not hold pairs of keys")
        }
        let pairs = try (0..<secrets.count / 64).map { number in
            let start = number * 64
            return KeyPair(
                number + 1, try Curve25519.KeyAgreement.PrivateKey(rawRepresentation: secrets[start..<start + 32]),
                secret: SymmetricKey(data: secrets[start + 32..<start + 64]))
        }
        self.init(repository: repository, pairs: pairs, writerSecret: pairs[0].secret)
    }

    init(repository: ObjectID, pairs: [KeyPair], writerSecret: SymmetricKey, current: KeyPair? = nil) {
        self.repository = repository
        self.pairs = pairs
        self.current = current ?? pairs.last!
        self.writerSecret = writerSecret
    }
}
