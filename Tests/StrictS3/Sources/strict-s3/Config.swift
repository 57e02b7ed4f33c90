/// What the server is made to be: buckets, keys, faults. Always read from a whole JSON document,
/// the one that earlier documents were merged into.
struct Config: Sendable {
    struct BucketSpec: Sendable {
        var name: String
        var region: String
        var objectLock: Bool
        var versioning: Bool
    }

    struct AccessKey: Sendable {
        var access: String
        var secret: String
        /// nil: may do everything.
        var policies: [Policy]?
    }

    struct SecurityTokens: Sendable {
        var lifetimeSeconds: Double?
        /// Role ARN → its policies; nil: every role is known and may do everything.
        var roles: [String: [Policy]?]?
        /// Accepted web identity tokens; nil: any that is not empty.
        var webTokens: [String]?
    }

    var buckets: [BucketSpec]
    var keys: [String: AccessKey]
    var tokens: SecurityTokens
    var minimumPartSize: Int
    var faults: FaultPlan
    var personality: Personality

    /// The defaults every configuration is merged over.
    static let base = JSONValue.object([
        "buckets": .array([.object(["name": .string("bucket"), "region": .string("us-east-1")])]),
        "keys": .array([
            .object(["access": .string("STRICTACCESS"), "secret": .string("strict-secret-key")])
        ]),
    ])

    init(_ json: JSONValue) throws {
        var reader = try FieldReader(json, in: "config")
        buckets = try (reader.list("buckets") ?? []).map(Self.bucket)
        let list = try (reader.list("keys") ?? []).map(Self.key)
        keys = Dictionary(list.map { ($0.access, $0) }, uniquingKeysWith: { _, last in last })
        tokens = try Self.tokens(reader.value("sts"))
        minimumPartSize = try reader.int("minimumPartSize") ?? 5 << 20
        faults = try FaultPlan(&reader)
        personality = try Personality(reader.value("personality"))
        try reader.finish()
    }

    private static func bucket(_ json: JSONValue) throws -> BucketSpec {
        var reader = try FieldReader(json, in: "buckets[]")
        let name = try reader.string("name") ?? "bucket"
        let region = try reader.string("region") ?? "us-east-1"
        let objectLock = try reader.bool("objectLock")
        let versioning = try reader.bool("versioning")
        try reader.finish()
        return BucketSpec(name: name, region: region, objectLock: objectLock, versioning: versioning || objectLock)
    }

    private static func key(_ json: JSONValue) throws -> AccessKey {
        var reader = try FieldReader(json, in: "keys[]")
        guard let access = try reader.string("access"), let secret = try reader.string("secret") else {
            throw FieldReader.Problem(description: "keys[] needs access and secret")
        }
        let policies = try reader.list("policies")?.map(Policy.init)
        try reader.finish()
        return AccessKey(access: access, secret: secret, policies: policies)
    }

    private static func tokens(_ json: JSONValue?) throws -> SecurityTokens {
        var reader = try FieldReader(json, in: "sts")
        let lifetime = try reader.double("lifetimeSeconds")
        let webTokens = try reader.strings("webTokens")
        var roles: [String: [Policy]?]?
        switch reader.value("roles") {
        case nil: break
        case .object(let object):
            roles = try object.mapValues {
                guard case .array(let list) = $0 else { return nil }
                return try list.map(Policy.init)
            }
        default: throw FieldReader.Problem(description: "sts.roles must map role ARNs to lists of policies")
        }
        try reader.finish()
        return SecurityTokens(lifetimeSeconds: lifetime, roles: roles, webTokens: webTokens)
    }
}
