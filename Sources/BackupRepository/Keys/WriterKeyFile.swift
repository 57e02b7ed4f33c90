import BackupBase
import Crypto
import FoundationEssentials

/// The text of a writer key file (docs/format.md).
extension KeyRing {
    /// After a rotation there is a second secret, which a program that does not know of rotations must not overlook.
    private static let firstLines = ["bgbackup-writer-key-1", "bgbackup-writer-key-2"]

    public var writerKeyFile: String {
        func hex(_ key: SymmetricKey) -> String { key.withUnsafeBytes { Array($0) }.hex }
        let text = """
            \(Self.firstLines[generation > 1 ? 1 : 0])
            repository: \(repository)
            public-key: \(Array(publicKey.rawRepresentation).hex)
            writer-secret: \(hex(writerSecret))

            """
        return generation == 1 ? text : text + "generation: \(generation)\npair-secret: \(hex(current.secret))\n"
    }

    /// Throws `.wrongPassword` when the text is no writer key.
    public init(writerKeyFile text: String) throws {
        let lines = text.split(whereSeparator: \.isNewline)
        var fields: [Substring: String] = [:]
        for line in lines.dropFirst() {
            guard let colon = line.firstIndex(of: ":") else { continue }
            fields[line[..<colon]] = line[line.index(after: colon)...].filter { !$0.isWhitespace }
        }
        guard let version = Self.firstLines.firstIndex(where: { lines.first == $0[...] }),
            let repository = ObjectID(hex: fields["repository"] ?? ""),
            let key = bytesFromHex(fields["public-key"] ?? ""), key.count == 32,
            let secret = bytesFromHex(fields["writer-secret"] ?? ""), secret.count == 32,
            let publicKey = try? Curve25519.KeyAgreement.PublicKey(rawRepresentation: key)
        else { throw Self.noWriterKey }
        let writerSecret = SymmetricKey(data: secret)
        var pair = KeyPair(1, publicKey: publicKey, secret: writerSecret)
        if version == 1 {
            guard let generation = Int(fields["generation"] ?? ""), (2...KeyPair.most).contains(generation),
                let secret = bytesFromHex(fields["pair-secret"] ?? ""), secret.count == 32
            else { throw Self.noWriterKey }
            pair = KeyPair(generation, publicKey: publicKey, secret: SymmetricKey(data: secret))
        }
        self.init(repository: repository, pairs: [pair], writerSecret: writerSecret)
    }

    private static let noWriterKey = BackupError(
        .wrongPassword, "this is no writer key file", hint: "Make one with 'bgbackup key export-writer FILE'.")
}
