import Foundation
import NIOCore

/// What /_control/damage does to the current version of an object, behind its ETag's back.
enum Damage: String, CaseIterable {
    case flip, zero, truncate, extend, empty, delete, swap, replace, revert, etag, metadata

    /// - Parameters:
    ///   - offset: the byte to flip or the first to zero or cut; the middle by default
    ///   - other: the key to swap with
    func apply(to bucket: inout Bucket, key: ObjectKey, offset: Int?, other: ObjectKey?, content: ByteBuffer) throws {
        guard var entry = bucket[key], var version = entry.versions.popLast(), !version.isDeleteMarker else {
            throw S3Error.noSuchKey(key.text)
        }
        let size = version.body.readableBytes
        let place = max(0, min(offset ?? size / 2, size))
        switch self {
        case .flip:
            guard size > 0 else { throw S3Error.invalidArgument("nothing to flip in an empty object") }
            version.body.flipByte(at: min(place, size - 1))
        case .zero:
            let length = min(4096, size - place)
            version.body.setRepeatingByte(0, count: length, at: version.body.readerIndex + place)
        case .truncate:
            version.body = version.body.getSlice(at: version.body.readerIndex, length: place) ?? ByteBuffer()
        case .extend: version.body.writeRepeatingByte(0x58, count: max(0, offset ?? 16))
        case .empty: version.body = ByteBuffer()
        case .delete: return bucket[key] = nil
        case .replace: version.body = content
        case .etag: version.etag = String(version.etag.reversed())
        case .metadata: version.attributes?.metadata = []
        case .revert:
            guard !entry.versions.isEmpty else { throw S3Error.invalidArgument("there is no older version") }
            return bucket[key] = entry
        case .swap:
            guard let other, var second = bucket[other], var exchanged = second.versions.popLast() else {
                throw S3Error.invalidArgument("swap needs other=KEY of an object that is there")
            }
            (version.body, exchanged.body) = (exchanged.body, version.body)
            (version.etag, exchanged.etag) = (exchanged.etag, version.etag)
            (version.checksum, exchanged.checksum) = (exchanged.checksum, version.checksum)
            second.versions.append(exchanged)
            bucket[other] = second
        }
        entry.versions.append(version)
        entry.previous = nil
        bucket[key] = entry
    }
}

extension ByteBuffer {
    mutating func flipByte(at offset: Int) {
        guard let byte = getInteger(at: readerIndex + offset, as: UInt8.self) else { return }
        setInteger(byte ^ 1, at: readerIndex + offset)
    }
}
