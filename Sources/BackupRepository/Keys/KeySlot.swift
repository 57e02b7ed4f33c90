import BackupBase
import Crypto
import CryptoExtras
import FoundationEssentials

/// The repository's secrets under one password (docs/format.md, "Configuration and keys").
public struct KeySlot: Codable, Sendable, Equatable {
    /// 1 for the secrets of one key pair, 2 for those of several.
    var format = 1
    var kind = "password"
    var kdf = "scrypt"
    var n: Int
    var r: Int
    var p: Int
    var salt: String
    var nonce: String
    var sealed: String
    public var label: String
    public var created: String
    /// Who made it, on which host.
    public var by: String?
    /// Of the newest pair that it holds; tells slots of different rotations apart. Not vouched for.
    var fingerprint: String?

    /// Key pairs that it holds, by its length.
    public var generation: Int { max(1, (sealed.utf8.count / 2 - Sealing.tagSize) / 64) }

    /// What a guess costs, in no unit.
    var expense: Double { Double(n) * Double(r) * Double(p) }

    static let prefix = "v1/keys/"
    static func names(_ id: String) -> [String] { ["\(prefix)\(id).a", "\(prefix)\(id).b"] }
    static let sizeLimit = 64 << 10
    /// Measured here: 0.1 s and 32 MiB, so that an unattended backup with a
    /// password stays under 0.2 s; the parameters are the slot's own, and a
    /// later slot may ask for more. Tests that are not about it set less.
    @TaskLocal static var cost: (n: Int, r: Int, p: Int) = (n: 1 << 15, r: 8, p: 1)

    /// Seals the ring's secrets.
    /// - Parameter strength: how many times the usual memory and time a guess costs; a power of two
    static func make(
        _ ring: KeyRing, password: [UInt8], slot: [UInt8], label: String, by: String? = nil, strength: Int = 1,
        ambient: Ambient
    ) throws -> KeySlot {
        guard let secrets = ring.secrets else { throw KeyRing.writeOnly }
        let salt = ambient.random(16)
        let nonce = ambient.random(12)
        let n = cost.n * strength
        let key = try stretch(password, salt: salt, n: n, r: cost.r, p: cost.p)
        let box = try AES.GCM.seal(
            secrets, using: key, nonce: AES.GCM.Nonce(data: nonce),
            authenticating: associated(ring.repository, slot))
        return KeySlot(
            format: ring.heldGeneration > 1 ? 2 : 1, n: n, r: cost.r, p: cost.p, salt: salt.hex, nonce: nonce.hex,
            sealed: (Array(box.ciphertext) + Array(box.tag)).hex, label: label, created: formatTime(ambient.now()), by: by,
            fingerprint: ring.fingerprint(of: ring.heldGeneration))
    }

    /// The ring, or nil when the password is another.
    func open(password: [UInt8], repository: ObjectID, slot: [UInt8]) throws -> KeyRing? {
        guard (1...2).contains(format), kind == "password", kdf == "scrypt" else { return nil }
        guard n >= 1 << 10, n <= 1 << 20, n & (n - 1) == 0, (1...16).contains(r), (1...16).contains(p),
            128 * n * r <= 1 << 30
        else { throw FormatError("it asks for a key derivation out of bounds") }
        guard let salt = bytesFromHex(salt), let nonce = bytesFromHex(nonce), nonce.count == 12,
            let sealed = bytesFromHex(sealed), sealed.count == 64 * generation + Sealing.tagSize,
            generation <= KeyPair.most, (format == 1) == (generation == 1)
        else { throw FormatError("its fields are no keys") }
        let key = try Self.stretch(password, salt: salt, n: n, r: r, p: p)
        guard
            let box = try? AES.GCM.SealedBox(
                nonce: AES.GCM.Nonce(data: nonce), ciphertext: sealed.dropLast(Sealing.tagSize),
                tag: sealed.suffix(Sealing.tagSize)),
            let secrets = try? AES.GCM.open(box, using: key, authenticating: Self.associated(repository, slot))
        else { return nil }
        return try KeyRing(repository: repository, secrets: Array(secrets))
    }

    private static func stretch(_ password: [UInt8], salt: [UInt8], n: Int, r: Int, p: Int) throws -> SymmetricKey {
        try KDF.Scrypt.deriveKey(
            from: password, salt: salt, outputByteCount: 32, rounds: n, blockSize: r, parallelism: p)
    }

    private static func associated(_ repository: ObjectID, _ slot: [UInt8]) -> [UInt8] {
        Array("bgbackup v1 key".utf8) + repository.bytes + slot
    }
}

extension KeyRing {
    /// Whether a slot that says this of itself holds the pair that these keys seal for: one of the same number may be of
    /// a rotation that was overtaken. Slots that name no fingerprint are believed.
    func isKnown(_ generation: Int, _ fingerprint: String?) -> Bool {
        generation >= self.generation && (fingerprint == nil || fingerprint == self.fingerprint(of: generation))
    }

    func isKnown(_ slot: KeySlot) -> Bool { isKnown(slot.generation, slot.fingerprint) }
}
