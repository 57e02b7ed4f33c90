import Crypto
import FoundationEssentials

/// AES-256-GCM of one object's pieces under that object's own key.
///
/// Nonces are positions, which is safe because no two objects share a key; the
/// associated data ties a piece to its repository, object, place and version,
/// so that nothing can be moved, swapped or relabelled.
struct Sealing: Sendable {
    static let tagSize = 16
    /// Positions that are no frame's ordinal.
    static let body: UInt64 = 0
    static let trailer: UInt64 = .max

    private let key: SymmetricKey
    private let context: [UInt8]

    init(key: SymmetricKey, repository: ObjectID, kind: ObjectKind, object: ObjectID) {
        self.key = key
        context = repository.bytes + [kind.rawValue] + object.bytes
    }

    /// Seals `plaintext` and appends ciphertext and tag at `output`.
    /// - Parameter plaintext: `Data`, because CryptoKit's raw-buffer path is seven times slower.
    /// - Returns: bytes written: the plaintext's and 16.
    func seal(
        _ plaintext: Data, position: UInt64, extra: [UInt8] = [], into output: UnsafeMutableRawPointer
    ) throws -> Int {
        let box = try AES.GCM.seal(
            plaintext, using: key, nonce: nonce(position), authenticating: associated(position, extra))
        let ciphertext = box.ciphertext
        ciphertext.withUnsafeBytes { if let base = $0.baseAddress { output.copyMemory(from: base, byteCount: $0.count) } }
        box.tag.withUnsafeBytes { (output + ciphertext.count).copyMemory(from: $0.baseAddress!, byteCount: $0.count) }
        return ciphertext.count + Self.tagSize
    }

    func seal(_ plaintext: [UInt8], position: UInt64) throws -> [UInt8] {
        try [UInt8](unsafeUninitializedCapacity: plaintext.count + Self.tagSize) { buffer, count in
            count = try seal(Data(plaintext), position: position, into: UnsafeMutableRawPointer(buffer.baseAddress!))
        }
    }

    /// Opens ciphertext ‖ tag. Any change of any bit, or of the piece's place, throws.
    func open(_ sealed: UnsafeRawBufferPointer, position: UInt64, extra: [UInt8] = []) throws -> Data {
        guard sealed.count >= Self.tagSize, let base = sealed.baseAddress else {
            throw FormatError("a sealed piece is too short")
        }
        let length = sealed.count - Self.tagSize
        let ciphertext = Data(
            bytesNoCopy: UnsafeMutableRawPointer(mutating: base), count: length, deallocator: .none)
        do {
            let box = try AES.GCM.SealedBox(
                nonce: nonce(position), ciphertext: ciphertext, tag: Data(bytes: base + length, count: Self.tagSize))
            return try AES.GCM.open(box, using: key, authenticating: associated(position, extra))
        } catch {
            throw FormatError("it was altered, or is not sealed under this repository's keys")
        }
    }

    private func nonce(_ position: UInt64) throws -> AES.GCM.Nonce {
        var writer = ByteWriter()
        writer.u64(position)
        writer.u32(0)
        return try AES.GCM.Nonce(data: writer.bytes)
    }

    private func associated(_ position: UInt64, _ extra: [UInt8]) -> Data {
        var writer = ByteWriter()
        writer.raw(context)
        writer.u64(position)
        writer.u8(ObjectHeader.version)
        writer.raw(extra)
        return Data(writer.bytes)
    }
}

/// Names blocks and files: HMAC-SHA-256 under the repository's own keys.
public struct BlockHasher: Sendable {
    private let start: HMAC<SHA256>

    init(key: SymmetricKey) { start = HMAC<SHA256>(key: key) }

    public func id(of block: UnsafeRawBufferPointer) -> BlockID {
        var hash = start
        hash.update(data: block)
        return Self.finish(hash)
    }

    private static func finish(_ hash: HMAC<SHA256>) -> BlockID {
        hash.finalize().withUnsafeBytes { BlockID(raw: $0) }
    }

    /// Starts a file's digest (docs/format.md, "Digest").
    public func fileDigest(size: Int64, blockSize: Int) -> FileDigest {
        var writer = ByteWriter()
        writer.u64(UInt64(size))
        writer.u32(UInt32(blockSize))
        var hash = start
        hash.update(data: writer.bytes)
        return FileDigest(hash: hash)
    }

    /// Collects a file's block ids, in order. Zero blocks count by the run, so
    /// that a hole of a terabyte costs nothing.
    public struct FileDigest {
        fileprivate var hash: HMAC<SHA256>
        /// What is to be hashed next: 32 bytes at a time cost more to hand over than to hash.
        private var pending: [UInt8] = []
        private var zeros = 0

        fileprivate init(hash: HMAC<SHA256>) { self.hash = hash }

        public mutating func add(_ id: BlockID) {
            endZeros()
            append(id)
        }
        public mutating func addZero(_ count: Int) { zeros += count }

        private mutating func endZeros() {
            guard zeros > 0 else { return }
            append(.zero)
            withUnsafeBytes(of: UInt64(zeros).littleEndian) { pending.append(contentsOf: $0) }
            zeros = 0
        }

        private mutating func append(_ id: BlockID) {
            if pending.count >= 4096 { flush() }
            withUnsafeTemporaryAllocation(byteCount: 32, alignment: 8) { raw in
                id.write(to: raw.baseAddress!)
                pending.append(contentsOf: raw)
            }
        }

        private mutating func flush() {
            hash.update(data: pending)
            pending.removeAll(keepingCapacity: true)
        }

        public consuming func finish() -> [UInt8] {
            endZeros()
            flush()
            return Array(hash.finalize())
        }
    }
}
