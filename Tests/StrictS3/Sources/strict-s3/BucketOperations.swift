import Foundation

extension StoreState {
    func listBuckets(_ identity: Identity) -> Answer {
        let document = XMLText.document("ListAllMyBucketsResult") { xml in
            xml.element("Owner") { $0.element("ID", "strict") }
            xml.element("Buckets") { xml in
                for name in buckets.keys.sorted() {
                    xml.element("Bucket") { xml in
                        xml.element("Name", name)
                        xml.element("CreationDate", "2026-01-01T00:00:00.000Z")
                    }
                }
            }
        }
        return Answer(200, xml: document)
    }

    mutating func createBucket(_ request: S3Request, _ identity: Identity) throws -> Answer {
        let name = request.bucket ?? ""
        let valid = name.utf8.allSatisfy {
            (0x61...0x7A).contains($0) || (0x30...0x39).contains($0) || $0 == 0x2D || $0 == 0x2E
        }
        guard valid, (3...63).contains(name.utf8.count) else {
            throw S3Error(
                400, "InvalidBucketName", "The specified bucket is not valid.", details: [("BucketName", name)])
        }
        guard buckets[name] == nil else {
            throw S3Error(
                409, "BucketAlreadyOwnedByYou",
                "Your previous request to create the named bucket succeeded and you already own it.",
                details: [("BucketName", name)])
        }
        var region = identity.region
        if request.body.readableBytes > 0 {
            let body = try XMLTree.parse(request.body.readableBytesView)
            guard body.name == "CreateBucketConfiguration" else { throw S3Error.malformedXML }
            region = body["LocationConstraint"] ?? region
        }
        let lock = request.header("x-amz-bucket-object-lock-enabled")?.lowercased() == "true"
        buckets[name] = Bucket(name: name, region: region, objectLock: lock, versioning: lock)
        return Answer(200, headers: [("Location", "/\(name)")])
    }

    mutating func deleteBucket(_ request: S3Request) throws -> Answer {
        guard try bucket(request).keys.isEmpty else {
            throw S3Error(409, "BucketNotEmpty", "The bucket you tried to delete is not empty")
        }
        buckets[request.bucket ?? ""] = nil
        return Answer(204)
    }

    /// Where the bucket claims to be.
    func region(_ request: S3Request) throws -> String {
        let region = try bucket(request).region
        return config.personality.redirect[request.bucket ?? ""] ?? region
    }

    func bucketLocation(_ request: S3Request) throws -> Answer {
        let region = try region(request)
        var xml = XMLText.document("LocationConstraint") { _ in }
        if region != "us-east-1" {
            xml = xml.replacing("</LocationConstraint>", with: "\(region)</LocationConstraint>")
        }
        return Answer(200, xml: xml)
    }

    func versioning(_ request: S3Request) throws -> Answer {
        let versioning = try bucket(request).versioning
        return Answer(
            200,
            xml: XMLText.document("VersioningConfiguration") {
                if versioning != .off { $0.element("Status", versioning.rawValue) }
            })
    }

    mutating func putVersioning(_ request: S3Request) throws -> Answer {
        let objectLock = try bucket(request).objectLock
        let body = try XMLTree.parse(request.body.readableBytesView)
        guard body.name == "VersioningConfiguration", let status = body["Status"],
            let versioning = Bucket.Versioning(rawValue: status), versioning != .off
        else {
            throw S3Error(400, "IllegalVersioningConfigurationException", "The Versioning element must be specified")
        }
        guard versioning == .enabled || !objectLock else {
            throw S3Error(
                409, "InvalidBucketState",
                "An Object Lock configuration is present on this bucket, so the versioning state cannot be changed.")
        }
        buckets[request.bucket ?? ""]?.versioning = versioning
        return Answer(200)
    }

    func lockConfiguration(_ request: S3Request) throws -> Answer {
        guard try bucket(request).objectLock else {
            throw S3Error(
                404, "ObjectLockConfigurationNotFoundError",
                "Object Lock configuration does not exist for this bucket")
        }
        return Answer(
            200, xml: XMLText.document("ObjectLockConfiguration") { $0.element("ObjectLockEnabled", "Enabled") })
    }
}
