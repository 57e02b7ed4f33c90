import Crypto
import Foundation
import NIOCore

extension StoreState {
    mutating func putObject(_ request: S3Request, now: Date) throws -> Answer {
        let attributes = try writtenAttributes(request, now: now)
        return try commit(
            request, now: now, body: request.body, attributes: attributes, checksum: request.checksum,
            etag: etag(request, attributes))
    }

    /// The attributes of a write whose Object Lock headers the bucket can keep.
    func writtenAttributes(_ request: S3Request, now: Date) throws -> ObjectAttributes {
        let objectLock = try bucket(request).objectLock
        var attributes = try ObjectAttributes(request, now: now)
        guard attributes.retention != nil else { return attributes }
        if config.personality.lockIgnored {
            attributes.retention = nil
            return attributes
        }
        guard objectLock else { throw S3Error.invalidRequest("Bucket is missing Object Lock Configuration") }
        guard request.method == "POST" || Checksum.isPresent(in: request) else {
            throw S3Error.invalidRequest(
                "Content-MD5 OR x-amz-checksum- HTTP header is required for Put Object requests "
                    + "with Object Lock parameters"
            )
        }
        return attributes
    }

    func etag(_ request: S3Request, _ attributes: ObjectAttributes) -> String {
        let hidden = config.personality.opaqueETag || attributes.encryption?.hidesMD5 ?? false
        return hidden ? hex(request.digests.sha256.prefix(16)) : hex(request.digests.md5(of: request.body))
    }

    /// The end of a PUT and of a CompleteMultipartUpload: condition and write in one.
    mutating func commit(
        _ request: S3Request, now: Date, body: ByteBuffer, attributes: ObjectAttributes, checksum: Checksum?,
        etag: String
    ) throws -> Answer {
        let (name, key) = (request.bucket ?? "", ObjectKey(request.key ?? ""))
        let personality = config.personality
        let versioning = try bucket(request).versioning
        let claim = try WriteCondition.judge(request, current: buckets[name]?[key]?.current, personality)
        let id = versioning == .enabled ? makeID() : "null"
        var body = body
        if personality.storesTruncated, body.readableBytes > 0 {
            body = body.getSlice(at: body.readerIndex, length: body.readableBytes - 1) ?? body
        }
        if !personality.storesNothing {
            let version = ObjectVersion(
                id: id, body: body, etag: etag, modified: now, attributes: attributes, checksum: checksum)
            buckets[name]?.add(version, to: key, staleFor: personality.staleReads)
        }
        if let claim { throw claim }
        var answer = Answer(200, headers: [("ETag", quoted(etag))])
        if versioning != .off { answer.headers.append(("x-amz-version-id", id)) }
        answer.headers += attributes.encryption?.headers ?? []
        if let checksum { answer.headers.append((checksum.algorithm.header, checksum.base64)) }
        return answer
    }

    func quoted(_ etag: String) -> String { config.personality.etagUnquoted ? etag : "\"\(etag)\"" }

    mutating func putRetention(_ request: S3Request, now: Date) throws -> Answer {
        guard try bucket(request).objectLock else {
            throw S3Error.invalidRequest("Bucket is missing Object Lock Configuration")
        }
        guard Checksum.isPresent(in: request) else {
            throw S3Error.invalidRequest("Missing required header for this request: Content-MD5 OR x-amz-checksum-*")
        }
        let body = try XMLTree.parse(request.body.readableBytesView)
        guard body.name == "Retention" else { throw S3Error.malformedXML }
        var retention: Retention?
        switch (body["Mode"], body["RetainUntilDate"]) {
        case (let mode?, let until?): retention = try Retention(mode: mode, until: until, now: now)
        case (nil, nil): break
        default: throw S3Error.malformedXML
        }
        let (name, key) = (request.bucket ?? "", ObjectKey(request.key ?? ""))
        let id = try version(request, now: now).id
        guard var entry = buckets[name]?[key], let index = entry.versions.firstIndex(where: { $0.id == id }),
            var attributes = entry.versions[index].attributes
        else { throw S3Error.noSuchKey(key.text) }
        let old = attributes.retention
        guard old?.mayBecome(retention, now: now, bypass: request.bypassesGovernance) ?? true else {
            throw Retention.refusal
        }
        if !config.personality.lockIgnored {
            attributes.retention = retention
            entry.versions[index].attributes = attributes
            buckets[name]?[key] = entry
        }
        return Answer(200)
    }
}
