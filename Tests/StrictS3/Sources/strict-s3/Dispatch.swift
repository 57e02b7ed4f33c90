import Foundation

extension StoreState {
    /// Judges and performs one operation. Everything between the first look and the last write
    /// happens under the caller's lock.
    mutating func serve(
        _ operation: Operation, _ request: S3Request, _ identity: Identity, now: Date, slowDown: (Int) -> Bool
    ) throws -> Answer {
        try checkRegion(operation, request, identity)
        let authorization = Authorization(operation, request, now: now)
        for need in authorization.needs {
            try Authorization.require(
                need, context: authorization.context, access: identity.access, policies: identity.policies)
        }
        do {
            return try perform(operation, request, identity, now: now, slowDown: slowDown)
        } catch let error as S3Error
            where error.code == "NoSuchKey" && (operation == .getObject || operation == .headObject)
        {
            // AWS does not tell whether a key exists to those who may not list. The condition keys of a
            // listing are absent here, so that a ListBucket limited by s3:prefix does not count.
            try Authorization.require(
                .init(action: "s3:ListBucket", resource: "arn:aws:s3:::\(request.bucket ?? "")"), context: [:],
                access: identity.access, policies: identity.policies)
            throw error
        }
    }

    private mutating func perform(
        _ operation: Operation, _ request: S3Request, _ identity: Identity, now: Date, slowDown: (Int) -> Bool
    ) throws -> Answer {
        switch operation {
        case .listBuckets: return listBuckets(identity)
        case .headBucket: return Answer(200, headers: [("x-amz-bucket-region", try region(request))])
        case .createBucket: return try createBucket(request, identity)
        case .deleteBucket: return try deleteBucket(request)
        case .getBucketLocation: return try bucketLocation(request)
        case .getBucketVersioning: return try versioning(request)
        case .putBucketVersioning: return try putVersioning(request)
        case .getObjectLockConfiguration: return try lockConfiguration(request)
        case .listObjectsV2: return try listObjects(request, now: now)
        case .listObjectVersions: return try listVersions(request)
        case .listMultipartUploads: return try listUploads(request)
        case .deleteObjects: return try deleteObjects(request, identity, now: now, slowDown: slowDown)
        case .getObject, .headObject: return try readObject(request, now: now)
        case .putObject: return try putObject(request, now: now)
        case .deleteObject: return try deleteObject(request, now: now)
        case .getObjectRetention: return try getRetention(request, now: now)
        case .putObjectRetention: return try putRetention(request, now: now)
        case .createMultipartUpload: return try createUpload(request, now: now)
        case .uploadPart: return try uploadPart(request, now: now)
        case .completeMultipartUpload: return try completeUpload(request, now: now)
        case .abortMultipartUpload: return try abortUpload(request)
        case .listParts: return try listParts(request)
        case .securityToken, .putLifecycle, .putBucketPolicy, .deleteBucketPolicy, .putObjectLockConfiguration:
            throw S3Error.notImplemented("\(operation.rawValue) is not served here")
        }
    }

    /// The scope's region must be the bucket's; what AWS answers depends on which endpoint was asked.
    private mutating func checkRegion(_ operation: Operation, _ request: S3Request, _ identity: Identity) throws {
        guard let name = request.bucket, operation != .createBucket else { return }
        if let place = config.personality.temporaryRedirect[name], redirected.insert(name).inserted {
            let query = request.rawQuery.isEmpty ? "" : "?" + request.rawQuery
            throw S3Error(
                307, "TemporaryRedirect",
                "Please re-send this request to the specified temporary endpoint. Continue to use "
                    + "the original endpoint for future requests.",
                details: [("Endpoint", place), ("Bucket", name)],
                headers: [("Location", "http://\(place)\(request.rawPath)\(query)")])
        }
        if let region = config.personality.redirect[name] {
            guard identity.region != region else { return }
            throw S3Error(
                301, "PermanentRedirect",
                "The bucket you are attempting to access must be addressed using the specified endpoint.",
                details: [("Endpoint", "s3.\(region).amazonaws.com"), ("Bucket", name)],
                headers: [("x-amz-bucket-region", region)])
        }
        guard let region = buckets[name]?.region, region != identity.region else { return }
        throw S3Error(
            400, "AuthorizationHeaderMalformed",
            "The authorization header is malformed; the region '\(identity.region)' is wrong; expecting '\(region)'",
            details: [("Region", region)], headers: [("x-amz-bucket-region", region)])
    }
}
