import Foundation
import NIOCore

extension StoreState {
    /// The version a request names, or the current one, with the errors for those that are not there.
    func version(_ request: S3Request, now: Date) throws -> ObjectVersion {
        let key = request.key ?? ""
        let entry = try bucket(request)[ObjectKey(key)]
        if let id = request.queryValue("versionId") {
            guard let version = entry?.versions.first(where: { $0.id == id }) else {
                throw S3Error.noSuchVersion(key, id)
            }
            guard !version.isDeleteMarker else {
                throw S3Error(
                    405, "MethodNotAllowed", "The specified method is not allowed against this resource.",
                    headers: [("x-amz-delete-marker", "true"), ("x-amz-version-id", id), ("Allow", "DELETE")])
            }
            return version
        }
        if let previous = entry?.previous, now < previous.until { return previous.version }
        var missing = S3Error.noSuchKey(key)
        if let last = entry?.versions.last, last.isDeleteMarker {
            missing.headers = [("x-amz-delete-marker", "true"), ("x-amz-version-id", last.id)]
        }
        guard let entry, let current = entry.current,
            now.timeIntervalSince(entry.appeared) >= config.personality.lateReads
        else { throw missing }
        return current
    }

    func readObject(_ request: S3Request, now: Date) throws -> Answer {
        let version = try version(request, now: now)
        guard let attributes = version.attributes else { throw S3Error.noSuchKey(request.key ?? "") }
        let isHead = request.method == "HEAD"
        try Encryption.checkKey(attributes.encryption, request)
        try checkReadConditions(request, version)
        if attributes.isArchived, !isHead {
            throw S3Error(
                403, "InvalidObjectState", "The operation is not valid for the object's storage class",
                details: [("StorageClass", attributes.storageClass)])
        }
        let size = version.body.readableBytes
        var range: Range<Int>?
        if let header = request.header("range"), !config.personality.ignoreRanges {
            range = try ByteRange.parse(header, size: size)
        }
        let headers = try headers(version, attributes, request, isRange: range != nil)
        var answer = Answer(range == nil ? 200 : 206, headers: headers)
        if let range {
            answer.headers.append(("Content-Range", "bytes \(range.lowerBound)-\(range.upperBound - 1)/\(size)"))
        }
        if isHead {
            answer.announcedLength = range?.count ?? size
        } else {
            answer.body = bytes(version.body, range)
        }
        return answer
    }

    private func headers(
        _ version: ObjectVersion, _ attributes: ObjectAttributes, _ request: S3Request, isRange: Bool
    ) throws -> [(String, String)] {
        var headers = [
            ("ETag", quoted(version.etag)), ("Last-Modified", Timestamp.http(version.modified)),
            ("Accept-Ranges", "bytes"), ("Content-Type", attributes.contentType),
        ]
        headers += attributes.contentHeaders
        if !config.personality.forgetsMetadata { headers += attributes.metadata }
        if attributes.storageClass != "STANDARD" { headers.append(("x-amz-storage-class", attributes.storageClass)) }
        headers += attributes.encryption?.headers ?? []
        headers += attributes.retention?.headers ?? []
        if try bucket(request).versioning != .off { headers.append(("x-amz-version-id", version.id)) }
        // The checksum is of the whole object, and some stores send it with a part all the same.
        let wanted = request.header("x-amz-checksum-mode") == "ENABLED"
        if wanted, !isRange || config.personality.checksumOnRange, let checksum = version.checksum {
            headers.append((checksum.algorithm.header, checksum.base64))
        }
        return headers
    }

    private func checkReadConditions(_ request: S3Request, _ version: ObjectVersion) throws {
        func matches(_ list: String) -> Bool {
            list == "*"
                || list.split(separator: ",").contains {
                    WriteCondition.unquoted($0.trimmingCharacters(in: .whitespaces)) == version.etag
                }
        }
        if let match = request.header("if-match"), !matches(match) { throw S3Error.preconditionFailed("If-Match") }
        if let match = request.header("if-none-match"), matches(match) {
            throw S3Error(304, "NotModified", "Not Modified", headers: [("ETag", quoted(version.etag))])
        }
    }

    private func bytes(_ body: ByteBuffer, _ range: Range<Int>?) -> ByteBuffer {
        guard var range else { return body }
        if config.personality.wrongRange {
            // The right number of bytes, from one place beside.
            if range.lowerBound > 0 {
                range = range.lowerBound - 1..<range.upperBound - 1
            } else if range.upperBound < body.readableBytes {
                range = range.lowerBound + 1..<range.upperBound + 1
            }
        }
        return body.getSlice(at: body.readerIndex + range.lowerBound, length: range.count) ?? ByteBuffer()
    }

    func getRetention(_ request: S3Request, now: Date) throws -> Answer {
        guard try bucket(request).objectLock else {
            throw S3Error.invalidRequest("Bucket is missing Object Lock Configuration")
        }
        guard let retention = try version(request, now: now).attributes?.retention else {
            throw S3Error(
                404, "NoSuchObjectLockConfiguration", "The specified object does not have a ObjectLock configuration")
        }
        let document = XMLText.document("Retention") { xml in
            xml.element("Mode", retention.mode.rawValue)
            xml.element("RetainUntilDate", Timestamp.iso(retention.until))
        }
        return Answer(200, xml: document)
    }
}
