import Crypto
import Foundation
import NIOCore

/// A checksum a client sent with a body, verified before anything is stored.
struct Checksum: Sendable, Equatable {
    enum Algorithm: String, Sendable, CaseIterable {
        case sha256, sha1, crc32, crc32c

        var header: String { "x-amz-checksum-" + rawValue }
        /// As in `ChecksumSHA256` of XML answers.
        var element: String { "Checksum" + rawValue.uppercased() }
    }

    var algorithm: Algorithm
    var base64: String

    /// The checksum header of a request, verified; nil when it has none.
    static func verified(in request: S3Request) throws -> Checksum? {
        if let text = request.header("content-md5") {
            guard let sent = Data(base64Encoded: text), sent.count == 16 else {
                throw S3Error(400, "InvalidDigest", "The Content-MD5 you specified is not valid.")
            }
            guard Array(sent) == request.digests.md5(of: request.body) else { throw badDigest("Content-MD5") }
        }
        for name in request.headers.keys where name.hasPrefix("x-amz-checksum-") && name != "x-amz-checksum-mode" {
            let known = Algorithm.allCases.contains { $0.header == name }
            guard known || name == "x-amz-checksum-algorithm" || name == "x-amz-checksum-type" else {
                throw S3Error.notImplemented("\(name) is not served here")
            }
        }
        let sent = Algorithm.allCases.compactMap { algorithm in
            request.header(algorithm.header).map { Checksum(algorithm: algorithm, base64: $0) }
        }
        guard sent.count <= 1 else {
            throw S3Error.invalidRequest(
                "Expecting a single x-amz-checksum- header. Multiple checksum Types are not allowed.")
        }
        guard let checksum = sent.first else { return nil }
        let actual = bytes(checksum.algorithm, request)
        guard let claimed = Data(base64Encoded: checksum.base64), claimed.count == actual.count else {
            throw S3Error.invalidRequest("Value for \(checksum.algorithm.header) header is invalid.")
        }
        guard Array(claimed) == actual else { throw badDigest(checksum.algorithm.rawValue.uppercased()) }
        return checksum
    }

    /// Locks and batch deletions must not be sent without one.
    static func isPresent(in request: S3Request) -> Bool {
        request.header("content-md5") != nil || Algorithm.allCases.contains { request.header($0.header) != nil }
    }

    private static func badDigest(_ name: String) -> S3Error {
        S3Error(400, "BadDigest", "The \(name) you specified did not match the calculated checksum.")
    }

    private static func bytes(_ algorithm: Algorithm, _ request: S3Request) -> [UInt8] {
        switch algorithm {
        case .sha256: return request.digests.sha256
        case .sha1:
            var hash = Insecure.SHA1()
            request.body.withUnsafeReadableBytes { hash.update(bufferPointer: $0) }
            return Array(hash.finalize())
        case .crc32: return crc(request.body, table: crc32Table)
        case .crc32c: return crc(request.body, table: crc32cTable)
        }
    }

    private static func crc(_ body: ByteBuffer, table: [UInt32]) -> [UInt8] {
        var value: UInt32 = 0xFFFF_FFFF
        body.withUnsafeReadableBytes { bytes in
            for byte in bytes { value = table[Int((value ^ UInt32(byte)) & 255)] ^ (value >> 8) }
        }
        value = ~value
        return [24, 16, 8, 0].map { UInt8(truncatingIfNeeded: value >> $0) }
    }

    private static let crc32Table = table(0xEDB8_8320)
    private static let crc32cTable = table(0x82F6_3B78)

    private static func table(_ polynomial: UInt32) -> [UInt32] {
        (0..<256).map { (index: UInt32) in
            (0..<8).reduce(index) { value, _ in value & 1 == 1 ? polynomial ^ (value >> 1) : value >> 1 }
        }
    }
}
