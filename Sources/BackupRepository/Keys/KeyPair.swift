import Crypto

/// One generation of the key pair that packs and snapshots are sealed for, with
/// the secret that whoever seals must know. Both change in a rotation, so that a
/// writer key from before makes nothing that is taken for new.
struct KeyPair: Sendable {
    /// Rotations a repository bears: a slot has 64 bytes for each.
    static let most = 64

    /// From 1.
    let generation: Int
    let publicKey: Curve25519.KeyAgreement.PublicKey
    let privateKey: Curve25519.KeyAgreement.PrivateKey?
    /// Of the first pair it is the writer secret.
    let secret: SymmetricKey

    /// A fresh pair.
    init(_ generation: Int, secret: SymmetricKey) {
        self.init(generation, Curve25519.KeyAgreement.PrivateKey(), secret: secret)
    }

    init(_ generation: Int, _ key: Curve25519.KeyAgreement.PrivateKey, secret: SymmetricKey) {
        (self.generation, publicKey, privateKey, self.secret) = (generation, key.publicKey, key, secret)
    }

    init(_ generation: Int, publicKey: Curve25519.KeyAgreement.PublicKey, secret: SymmetricKey) {
        (self.generation, self.publicKey, privateKey, self.secret) = (generation, publicKey, nil, secret)
    }

    var withoutPrivateKey: KeyPair { KeyPair(generation, publicKey: publicKey, secret: secret) }
}
