import Crypto
import Foundation
import NIOCore

extension StoreState {
    mutating func createUpload(_ request: S3Request, now: Date) throws -> Answer {
        let attributes = try writtenAttributes(request, now: now)
        let name = request.bucket ?? ""
        let id = makeID()
        buckets[name]?.uploads[id] = Bucket.Upload(
            key: ObjectKey(request.key ?? ""), initiated: now, attributes: attributes)
        let document = XMLText.document("InitiateMultipartUploadResult") { xml in
            xml.element("Bucket", name)
            xml.element("Key", request.key ?? "")
            xml.element("UploadId", id)
        }
        return Answer(200, xml: document, headers: attributes.encryption?.headers ?? [])
    }

    private func upload(_ request: S3Request) throws -> (id: String, upload: Bucket.Upload) {
        let id = request.queryValue("uploadId") ?? ""
        guard let upload = try bucket(request).uploads[id], upload.key == ObjectKey(request.key ?? "") else {
            throw S3Error.noSuchUpload(id)
        }
        return (id, upload)
    }

    mutating func uploadPart(_ request: S3Request, now: Date) throws -> Answer {
        guard let number = request.queryValue("partNumber").flatMap(Int.init), (1...10000).contains(number) else {
            throw S3Error.invalidArgument("Part number must be an integer between 1 and 10000, inclusive")
        }
        guard !request.isConditional else {
            throw S3Error.notImplemented("A header you provided implies functionality that is not implemented")
        }
        let (id, upload) = try upload(request)
        try Encryption.checkKey(upload.attributes.encryption, request)
        let version = ObjectVersion(
            id: "", body: request.body, etag: etag(request, upload.attributes), modified: now, attributes: nil,
            checksum: request.checksum)
        buckets[request.bucket ?? ""]?.uploads[id]?.parts[number] = Bucket.Upload.Part(
            version: version, sha256: request.digests.sha256)
        var answer = Answer(
            200, headers: [("ETag", quoted(version.etag))] + (upload.attributes.encryption?.headers ?? []))
        if let checksum = request.checksum { answer.headers.append((checksum.algorithm.header, checksum.base64)) }
        return answer
    }

    mutating func abortUpload(_ request: S3Request) throws -> Answer {
        let id = try upload(request).id
        buckets[request.bucket ?? ""]?.uploads[id] = nil
        return Answer(204)
    }

    func listParts(_ request: S3Request) throws -> Answer {
        let (id, upload) = try upload(request)
        let limit = try request.queryNumber("max-parts", 1...1000) ?? 1000
        let after = try request.queryNumber("part-number-marker", 0...10000) ?? 0
        let parts = upload.parts.filter { $0.key > after }.sorted { $0.key < $1.key }
        let document = XMLText.document("ListPartsResult") { xml in
            xml.element("Bucket", request.bucket ?? "")
            xml.element("Key", upload.key.text)
            xml.element("UploadId", id)
            xml.element("PartNumberMarker", after)
            xml.element("NextPartNumberMarker", parts.prefix(limit).last?.key ?? after)
            xml.element("MaxParts", limit)
            xml.element("IsTruncated", parts.count > limit)
            for (number, part) in parts.prefix(limit) {
                xml.element("Part") { xml in
                    xml.element("PartNumber", number)
                    xml.element("LastModified", Timestamp.iso(part.version.modified))
                    xml.element("ETag", quoted(part.version.etag))
                    xml.element("Size", part.version.body.readableBytes)
                }
            }
        }
        return Answer(200, xml: document)
    }

    mutating func completeUpload(_ request: S3Request, now: Date) throws -> Answer {
        let (id, upload) = try upload(request)
        let parts = try chosenParts(request, upload)
        var body = ByteBufferAllocator().buffer(capacity: parts.reduce(0) { $0 + $1.body.readableBytes })
        for part in parts { body.writeImmutableBuffer(part.body) }
        // A part's ETag is its MD5 or stands for it, so the MD5 of the ETags serves as well.
        let joined = parts.flatMap { part in
            stride(from: 0, to: 32, by: 2).map { UInt8(part.etag.dropFirst($0).prefix(2), radix: 16) ?? 0 }
        }
        let etag = hex(Insecure.MD5.hash(data: joined)) + "-\(parts.count)"
        var written = try commit(
            request, now: now, body: body, attributes: upload.attributes, checksum: nil, etag: etag)
        buckets[request.bucket ?? ""]?.uploads[id] = nil
        written.headers.removeAll { $0.0 == "ETag" }
        let document = XMLText.document("CompleteMultipartUploadResult") { xml in
            xml.element("Location", "http://\(request.host)\(request.rawPath)")
            xml.element("Bucket", request.bucket ?? "")
            xml.element("Key", request.key ?? "")
            xml.element("ETag", quoted(etag))
        }
        return Answer(200, xml: document, headers: written.headers)
    }

    /// The parts a Complete names: in order, with the right ETags, all but the last large enough.
    private func chosenParts(_ request: S3Request, _ upload: Bucket.Upload) throws -> [ObjectVersion] {
        let body = try XMLTree.parse(request.body.readableBytesView)
        let named = body.all("Part")
        guard body.name == "CompleteMultipartUpload", !named.isEmpty else { throw S3Error.malformedXML }
        var parts: [ObjectVersion] = []
        var numbers: [Int] = []
        for part in named {
            guard let number = part["PartNumber"].flatMap(Int.init), let etag = part["ETag"] else {
                throw S3Error.malformedXML
            }
            guard number > numbers.last ?? 0 else {
                throw S3Error(400, "InvalidPartOrder", "The list of parts was not in ascending order.")
            }
            guard let stored = upload.parts[number]?.version, stored.etag == WriteCondition.unquoted(etag) else {
                throw S3Error(
                    400, "InvalidPart",
                    "One or more of the specified parts could not be found, or its ETag does not match.",
                    details: [("PartNumber", String(number)), ("ETag", etag)])
            }
            parts.append(stored)
            numbers.append(number)
        }
        let small = parts.dropLast().firstIndex { $0.body.readableBytes < config.minimumPartSize }
        if let small {
            throw S3Error(
                400, "EntityTooSmall", "Your proposed upload is smaller than the minimum allowed size",
                details: [
                    ("ProposedSize", String(parts[small].body.readableBytes)),
                    ("MinSizeAllowed", String(config.minimumPartSize)), ("PartNumber", String(numbers[small])),
                ])
        }
        return parts
    }
}
