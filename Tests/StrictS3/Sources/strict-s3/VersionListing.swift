import Foundation

extension StoreState {
    /// Names as `encoding-type=url` writes them: AWS puts a plus for a space.
    func nameEncoder(_ request: S3Request) throws -> (String) -> String {
        switch request.queryValue("encoding-type") {
        case nil: return { $0 }
        case "url":
            return { PercentCoding.encode($0, keepingSlashes: true).replacing("%20", with: "+") }
        default: throw S3Error.invalidArgument("Invalid Encoding Method specified in Request")
        }
    }

    func listVersions(_ request: S3Request) throws -> Answer {
        let bucket = try bucket(request)
        let encode = try nameEncoder(request)
        let prefix = request.queryValue("prefix") ?? ""
        let limit = try request.queryNumber("max-keys", 0...1000) ?? 1000
        guard request.queryValue("delimiter") == nil else {
            throw S3Error.notImplemented("ListObjectVersions has no delimiter here")
        }
        let keyMarker = request.queryValue("key-marker")
        let idMarker = request.queryValue("version-id-marker")
        var rows: [(key: ObjectKey, version: ObjectVersion, isLatest: Bool)] = []
        let first = bucket.firstIndex(notBefore: ObjectKey(keyMarker ?? ""))
        for key in bucket.keys[first...] where key.hasPrefix(prefix) {
            var versions = Array((bucket[key]?.versions ?? []).reversed())
            let latest = versions.first?.id
            if let keyMarker, key == ObjectKey(keyMarker) {
                guard let idMarker, let index = versions.firstIndex(where: { $0.id == idMarker }) else { continue }
                versions.removeFirst(index + 1)
            }
            rows += versions.map { (key, $0, $0.id == latest) }
            if rows.count > limit { break }
        }
        let shown = rows.prefix(limit)
        let document = XMLText.document("ListVersionsResult") { xml in
            xml.element("Name", bucket.name)
            xml.element("Prefix", encode(prefix))
            xml.element("KeyMarker", encode(keyMarker ?? ""))
            xml.element("VersionIdMarker", idMarker ?? "")
            xml.element("MaxKeys", limit)
            if request.hasQuery("encoding-type") { xml.element("EncodingType", "url") }
            xml.element("IsTruncated", rows.count > limit)
            if rows.count > limit, let last = shown.last {
                xml.element("NextKeyMarker", encode(last.key.text))
                xml.element("NextVersionIdMarker", last.version.id)
            }
            for row in shown {
                xml.element(row.version.isDeleteMarker ? "DeleteMarker" : "Version") { xml in
                    xml.element("Key", encode(row.key.text))
                    xml.element("VersionId", row.version.id)
                    xml.element("IsLatest", row.isLatest)
                    xml.element("LastModified", Timestamp.iso(row.version.modified))
                    guard let attributes = row.version.attributes else { return }
                    xml.element("ETag", quoted(row.version.etag))
                    xml.element("Size", row.version.body.readableBytes)
                    xml.element("StorageClass", attributes.storageClass)
                }
            }
        }
        return Answer(200, xml: document)
    }

    func listUploads(_ request: S3Request) throws -> Answer {
        let bucket = try bucket(request)
        let encode = try nameEncoder(request)
        let prefix = request.queryValue("prefix") ?? ""
        let limit = try request.queryNumber("max-uploads", 1...1000) ?? 1000
        guard request.queryValue("delimiter") == nil else {
            throw S3Error.notImplemented("ListMultipartUploads has no delimiter here")
        }
        let keyMarker = ObjectKey(request.queryValue("key-marker") ?? "")
        let idMarker = request.queryValue("upload-id-marker")
        var uploads: [(id: String, upload: Bucket.Upload)] = []
        for (id, upload) in bucket.uploads where upload.key.hasPrefix(prefix) {
            let isLater = upload.key == keyMarker ? id > idMarker ?? "\u{7F}" : upload.key > keyMarker
            if isLater { uploads.append((id, upload)) }
        }
        uploads.sort { $0.upload.key == $1.upload.key ? $0.id < $1.id : $0.upload.key < $1.upload.key }
        let shown = uploads.prefix(limit)
        let document = XMLText.document("ListMultipartUploadsResult") { xml in
            xml.element("Bucket", bucket.name)
            xml.element("KeyMarker", encode(keyMarker.text))
            xml.element("UploadIdMarker", idMarker ?? "")
            xml.element("Prefix", encode(prefix))
            xml.element("MaxUploads", limit)
            if request.hasQuery("encoding-type") { xml.element("EncodingType", "url") }
            xml.element("IsTruncated", uploads.count > limit)
            if uploads.count > limit, let last = shown.last {
                xml.element("NextKeyMarker", encode(last.upload.key.text))
                xml.element("NextUploadIdMarker", last.id)
            }
            for (id, upload) in shown {
                xml.element("Upload") { xml in
                    xml.element("Key", encode(upload.key.text))
                    xml.element("UploadId", id)
                    xml.element("StorageClass", upload.attributes.storageClass)
                    xml.element("Initiated", Timestamp.iso(upload.initiated))
                }
            }
        }
        return Answer(200, xml: document)
    }
}
