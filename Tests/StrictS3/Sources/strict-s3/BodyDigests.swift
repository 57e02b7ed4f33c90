import Crypto
import Hummingbird
import NIOCore

/// The digests of a body, computed once while it arrives.
struct BodyDigests: Sendable {
    var sha256: [UInt8] = Array(SHA256.hash(data: [UInt8]()))
    /// Only where an ETag or Content-MD5 needs it.
    var md5: [UInt8]?

    /// The MD5, computed now if the reading did not.
    func md5(of body: ByteBuffer) -> [UInt8] { md5 ?? Self.md5(of: body) }

    static func md5(of body: ByteBuffer) -> [UInt8] {
        var hash = Insecure.MD5()
        body.withUnsafeReadableBytes { hash.update(bufferPointer: $0) }
        return Array(hash.finalize())
    }

    static func sha256(of body: ByteBuffer) -> [UInt8] {
        var hash = SHA256()
        body.withUnsafeReadableBytes { hash.update(bufferPointer: $0) }
        return Array(hash.finalize())
    }
}

/// Reads a request's body into one buffer of its announced length, hashing chunk by chunk.
struct BodyReader {
    enum Problem: Error {
        case cutShort
    }

    static let limit = 1 << 30

    let length: Int
    let wantsMD5: Bool

    /// - Parameter upTo: stop after so many bytes, to drop a connection in the middle of a body
    func read(_ body: RequestBody, upTo: Int? = nil) async throws -> (ByteBuffer, BodyDigests) {
        guard length > 0 else {
            for try await _ in body {}
            return (ByteBuffer(), BodyDigests())
        }
        var buffer = ByteBufferAllocator().buffer(capacity: upTo == nil ? length : 0)
        var sha256 = SHA256()
        var md5 = Insecure.MD5()
        var count = 0
        for try await var chunk in body {
            count += chunk.readableBytes
            if let upTo {
                if count >= upTo { return (ByteBuffer(), BodyDigests()) }
                continue
            }
            chunk.withUnsafeReadableBytes {
                sha256.update(bufferPointer: $0)
                if wantsMD5 { md5.update(bufferPointer: $0) }
            }
            buffer.writeBuffer(&chunk)
        }
        guard upTo != nil || count == length else { throw Problem.cutShort }
        let digests = BodyDigests(
            sha256: Array(sha256.finalize()), md5: wantsMD5 ? Array(md5.finalize()) : nil)
        return (buffer, digests)
    }
}
