import Foundation

/// Which AWS actions an operation needs, with the condition keys it sets.
struct Authorization: Sendable {
    struct Need: Sendable {
        var action: String
        var resource: String
    }

    var needs: [Need] = []
    var context: [String: String] = [:]

    init(_ operation: Operation, _ request: S3Request, now: Date) {
        let bucket = "arn:aws:s3:::\(request.bucket ?? "")"
        let object = "\(bucket)/\(request.key ?? "")"
        func need(_ actions: String..., on resource: String) {
            needs += actions.map { Need(action: "s3:" + $0, resource: resource) }
        }
        let versioned = request.hasQuery("versionId")
        switch operation {
        case .listBuckets: need("ListAllMyBuckets", on: "*")
        case .headBucket, .listObjectsV2: need("ListBucket", on: bucket)
        case .createBucket:
            need("CreateBucket", on: bucket)
            if request.header("x-amz-bucket-object-lock-enabled")?.lowercased() == "true" {
                need("PutBucketObjectLockConfiguration", "PutBucketVersioning", on: bucket)
            }
        case .deleteBucket: need("DeleteBucket", on: bucket)
        case .getBucketLocation: need("GetBucketLocation", on: bucket)
        case .getBucketVersioning: need("GetBucketVersioning", on: bucket)
        case .putBucketVersioning: need("PutBucketVersioning", on: bucket)
        case .getObjectLockConfiguration: need("GetBucketObjectLockConfiguration", on: bucket)
        case .putObjectLockConfiguration: need("PutBucketObjectLockConfiguration", on: bucket)
        case .putLifecycle: need("PutLifecycleConfiguration", on: bucket)
        case .putBucketPolicy: need("PutBucketPolicy", on: bucket)
        case .deleteBucketPolicy: need("DeleteBucketPolicy", on: bucket)
        case .listObjectVersions: need("ListBucketVersions", on: bucket)
        case .listMultipartUploads: need("ListBucketMultipartUploads", on: bucket)
        case .getObject, .headObject: need(versioned ? "GetObjectVersion" : "GetObject", on: object)
        case .putObject, .createMultipartUpload:
            need("PutObject", on: object)
            if request.header("x-amz-object-lock-mode") != nil { need("PutObjectRetention", on: object) }
        case .uploadPart, .completeMultipartUpload: need("PutObject", on: object)
        case .abortMultipartUpload: need("AbortMultipartUpload", on: object)
        case .listParts: need("ListMultipartUploadParts", on: object)
        case .deleteObject:
            need(versioned ? "DeleteObjectVersion" : "DeleteObject", on: object)
            if request.bypassesGovernance { need("BypassGovernanceRetention", on: object) }
        case .getObjectRetention: need("GetObjectRetention", on: object)
        case .putObjectRetention:
            need("PutObjectRetention", on: object)
            if request.bypassesGovernance { need("BypassGovernanceRetention", on: object) }
        case .deleteObjects, .securityToken: break  // judged key by key, or not by S3
        }
        fillContext(operation, request, now: now)
    }

    private mutating func fillContext(_ operation: Operation, _ request: S3Request, now: Date) {
        context["aws:securetransport"] = "false"
        context["s3:signatureversion"] = "AWS4-HMAC-SHA256"
        context["s3:authtype"] = "REST-HEADER"
        func header(_ name: String, _ key: String) {
            if let value = request.header(name) { context[key] = value }
        }
        switch operation {
        case .listObjectsV2, .listObjectVersions, .listMultipartUploads:
            for name in ["prefix", "delimiter", "max-keys"] {
                if let value = request.queryValue(name) { context["s3:" + name] = value }
            }
        case .putObject, .completeMultipartUpload, .createMultipartUpload, .uploadPart:
            // Parts are written under s3:PutObject too, and only this key tells them apart.
            let creates = operation == .putObject || operation == .completeMultipartUpload
            context["s3:objectcreationoperation"] = creates ? "true" : "false"
            header("if-none-match", "s3:if-none-match")
            header("x-amz-storage-class", "s3:x-amz-storage-class")
            header("x-amz-server-side-encryption", "s3:x-amz-server-side-encryption")
            header("x-amz-server-side-encryption-aws-kms-key-id", "s3:x-amz-server-side-encryption-aws-kms-key-id")
            header("if-match", "s3:if-match")
        case .deleteObject: header("if-match", "s3:if-match")
        default: break
        }
        if let version = request.queryValue("versionId") { context["s3:versionid"] = version }
        header("x-amz-object-lock-mode", "s3:object-lock-mode")
        setRetention(request.header("x-amz-object-lock-retain-until-date"), now: now)
        if operation == .putObjectRetention, let body = try? XMLTree.parse(request.body.readableBytesView) {
            if let mode = body["Mode"] { context["s3:object-lock-mode"] = mode }
            setRetention(body["RetainUntilDate"], now: now)
        }
    }

    private mutating func setRetention(_ text: String?, now: Date) {
        guard let text, let until = Timestamp.parseISO(text) else { return }
        context["s3:object-lock-retain-until-date"] = text
        let days = (until.timeIntervalSince(now) / 86400).rounded(.up)
        context["s3:object-lock-remaining-retention-days"] = String(Int(days))
    }

    /// Throws AccessDenied that names what was refused; `policies` nil may do everything.
    static func require(_ need: Need, context: [String: String], access: String, policies: [Policy]?) throws {
        guard let policies else { return }
        switch Policy.decide(policies, action: need.action, resource: need.resource, context: context) {
        case .allowed: return
        case .denied: throw refusal(need, access, "with an explicit deny in an identity-based policy")
        case .notMentioned: throw refusal(need, access, "because no identity-based policy allows the action")
        }
    }

    private static func refusal(_ need: Need, _ access: String, _ why: String) -> S3Error {
        .accessDenied(
            "User: \(access) is not authorized to perform: \(need.action) on resource: \(need.resource) \(why)")
    }
}
