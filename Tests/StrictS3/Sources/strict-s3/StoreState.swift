import Foundation

/// All that requests share. It is one value under one lock, so that every operation on it is atomic
/// and conditional writes need no thought about races.
struct StoreState: Sendable {
    private(set) var document: JSONValue = Config.base
    private(set) var config: Config
    var buckets: [String: Bucket] = [:]
    var temporaryKeys: [String: TemporaryKey] = [:]
    var temporaryCount = 0
    private var serial = 0
    /// Buckets whose one temporary redirect has been given.
    var redirected: Set<String> = []

    init(_ patch: JSONValue) throws {
        document = Config.base.merging(patch)
        config = try Config(document)
        makeBuckets()
    }

    /// Merges a patch into the configuration; nothing changes if the result is not valid.
    mutating func configure(_ patch: JSONValue) throws {
        let merged = document.merging(patch)
        config = try Config(merged)
        document = merged
        redirected = []
        makeBuckets()
    }

    /// Back to no faults and no personality; buckets and keys stay.
    mutating func clearFaults() throws {
        var patch: [String: JSONValue] = [:]
        for name in ["rates", "personality", "drop", "burst503", "hangSeconds", "faultOperations"] {
            patch[name] = .null
        }
        try configure(.object(patch))
    }

    mutating func clearObjects() {
        for name in buckets.keys { buckets[name]?.removeAll() }
    }

    private mutating func makeBuckets() {
        for spec in config.buckets {
            var bucket =
                buckets[spec.name]
                ?? Bucket(
                    name: spec.name, region: spec.region, objectLock: spec.objectLock, versioning: spec.versioning)
            bucket.region = spec.region
            bucket.objectLock = spec.objectLock || bucket.objectLock
            if spec.versioning { bucket.versioning = .enabled }
            buckets[spec.name] = bucket
        }
    }

    /// Unguessable only in looks; the same in every run.
    mutating func makeID() -> String {
        serial += 1
        var value = UInt64(serial) &* 0x9E37_79B9_7F4A_7C15
        var text = ""
        for _ in 0..<2 {
            value = (value ^ (value >> 29)) &* 0xBF58_476D_1CE4_E5B9
            text += String(value | 1 << 63, radix: 36)
        }
        return text + String(serial, radix: 36)
    }

    func bucket(_ request: S3Request) throws -> Bucket {
        let name = request.bucket ?? ""
        guard let bucket = buckets[name] else { throw S3Error.noSuchBucket(name) }
        return bucket
    }
}
