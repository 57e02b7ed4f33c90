import Foundation
import NIOCore

extension StoreState {
    struct Deleted {
        var version: String?
        var marker: String?
        var existed = false
    }

    mutating func deleteObject(_ request: S3Request, now: Date) throws -> Answer {
        let (name, key) = (request.bucket ?? "", ObjectKey(request.key ?? ""))
        _ = try bucket(request)
        let version = request.queryValue("versionId")
        let claim = try WriteCondition.judge(request, current: buckets[name]?[key]?.current, config.personality)
        let done = try delete(bucket: name, key, version: version, bypass: request.bypassesGovernance, now: now)
        if let claim { throw claim }
        if config.personality.deleteMissing404, !done.existed { throw S3Error.noSuchKey(key.text) }
        var answer = Answer(204)
        if let id = done.marker ?? done.version { answer.headers.append(("x-amz-version-id", id)) }
        if done.marker != nil { answer.headers.append(("x-amz-delete-marker", "true")) }
        return answer
    }

    /// One version for good, or a delete marker on top; deleting what is not there succeeds.
    private mutating func delete(
        bucket name: String, _ key: ObjectKey, version: String?, bypass: Bool, now: Date
    ) throws -> Deleted {
        guard let versioning = buckets[name]?.versioning else { throw S3Error.noSuchBucket(name) }
        if config.personality.deletesNothing { return Deleted(version: version, existed: true) }
        var entry = buckets[name]?[key]
        let existed = entry?.current != nil
        if let version {
            guard let index = entry?.versions.firstIndex(where: { $0.id == version }) else {
                return Deleted(version: version)
            }
            let target = entry?.versions[index]
            if let lock = target?.attributes?.retention, lock.forbidsDeletion(now: now, bypass: bypass) {
                throw Retention.refusal
            }
            entry?.versions.remove(at: index)
            if entry?.versions.isEmpty ?? true { entry = nil }
            buckets[name]?[key] = entry
            return Deleted(version: version, marker: target?.isDeleteMarker ?? false ? version : nil, existed: true)
        }
        if versioning == .off {
            buckets[name]?[key] = nil
            return Deleted(existed: existed)
        }
        let id = versioning == .enabled ? makeID() : "null"
        let marker = ObjectVersion(id: id, body: ByteBuffer(), etag: "", modified: now)
        buckets[name]?.add(marker, to: key, staleFor: config.personality.staleReads)
        return Deleted(marker: id, existed: existed)
    }

    /// - Parameter slowDown: whether the key of that index gets SlowDown instead
    mutating func deleteObjects(
        _ request: S3Request, _ identity: Identity, now: Date, slowDown: (Int) -> Bool
    ) throws -> Answer {
        _ = try bucket(request)
        guard Checksum.isPresent(in: request) else {
            throw S3Error.invalidRequest("Missing required header for this request: Content-MD5 OR x-amz-checksum-*")
        }
        let body = try XMLTree.parse(request.body.readableBytesView)
        let objects = body.all("Object")
        guard body.name == "Delete", (1...1000).contains(objects.count) else { throw S3Error.malformedXML }
        let quiet = body["Quiet"] == "true"
        var results: [(key: String, version: String?, outcome: Result<Deleted, S3Error>)] = []
        for (index, object) in objects.enumerated() {
            guard let key = object["Key"], !key.isEmpty else { throw S3Error.malformedXML }
            let version = object["VersionId"]
            do throws(S3Error) {
                if slowDown(index) { throw S3Error.slowDown }
                results.append(
                    (key, version, .success(try deleteOne(key, version, object["ETag"], request, identity, now: now))))
            } catch {
                results.append((key, version, .failure(error)))
            }
        }
        let document = XMLText.document("DeleteResult") { xml in
            for result in results {
                switch result.outcome {
                case .success(let done) where !quiet:
                    xml.element("Deleted") { xml in
                        xml.element("Key", result.key)
                        if let version = result.version { xml.element("VersionId", version) }
                        if let marker = done.marker {
                            xml.element("DeleteMarker", true)
                            xml.element("DeleteMarkerVersionId", marker)
                        }
                    }
                case .success: break
                case .failure(let error):
                    xml.element("Error") { xml in
                        xml.element("Key", result.key)
                        if let version = result.version { xml.element("VersionId", version) }
                        xml.element("Code", error.code)
                        xml.element("Message", error.message)
                    }
                }
            }
        }
        return Answer(200, xml: document)
    }

    private mutating func deleteOne(
        _ key: String, _ version: String?, _ etag: String?, _ request: S3Request, _ identity: Identity, now: Date
    ) throws(S3Error) -> Deleted {
        let name = request.bucket ?? ""
        let resource = "arn:aws:s3:::\(name)/\(key)"
        var actions = [version == nil ? "s3:DeleteObject" : "s3:DeleteObjectVersion"]
        if request.bypassesGovernance { actions.append("s3:BypassGovernanceRetention") }
        do {
            for action in actions {
                try Authorization.require(
                    .init(action: action, resource: resource), context: version.map { ["s3:versionid": $0] } ?? [:],
                    access: identity.access, policies: identity.policies)
            }
            if let etag, !config.personality.ignoreConditions, !config.personality.ignoreIfMatch {
                guard let current = buckets[name]?[ObjectKey(key)]?.current else { throw S3Error.noSuchKey(key) }
                guard etag == "*" || WriteCondition.unquoted(etag) == current.etag else {
                    throw S3Error.preconditionFailed("ETag")
                }
            }
            return try delete(
                bucket: name, ObjectKey(key), version: version, bypass: request.bypassesGovernance, now: now)
        } catch {
            throw error as? S3Error ?? S3Error.internalError
        }
    }
}
