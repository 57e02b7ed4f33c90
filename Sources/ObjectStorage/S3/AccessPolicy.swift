import FoundationEssentials

/// Policies for AWS IAM: what each role needs of a bucket, and not more.
///
/// IAM cannot tell creating an object from overwriting it, but it can demand
/// the condition that does (`s3:if-none-match`, "Enforce conditional writes on
/// Amazon S3 buckets"): so a writer's keys make objects once and destroy none.
public struct AccessPolicy: Sendable {
    public enum Role: String, CaseIterable, Sendable {
        /// A node: makes backups; can neither delete, nor overwrite, nor shorten a lock.
        case writer
        /// Another host: init, repair, retention, locks.
        case keeper
        /// Whoever restores: reads.
        case restorer
    }

    private let place: S3Place
    private let role: Role

    public init(_ place: S3Place, role: Role) {
        self.place = place
        self.role = role
    }

    private typealias Condition = [String: [String: [String]]]

    private struct Statement: Encodable {
        let Sid: String
        let Effect: String
        let Action: [String]
        let Resource: [String]
        var Condition: [String: [String: [String]]]?
    }

    private struct Document: Encodable {
        let Version = "2012-10-17"
        let Statement: [Statement]
    }

    /// The policy document, to attach to the role or user whose keys are used.
    public func json() throws -> String {
        let encoder = JSONEncoder()
        encoder.outputFormatting = [.prettyPrinted, .sortedKeys, .withoutEscapingSlashes]
        return String(decoding: try encoder.encode(Document(Statement: statements)), as: UTF8.self)
    }

    private var statements: [Statement] {
        switch role {
        case .restorer: reading
        case .writer: reading + writing + writerNever
        case .keeper: reading + keeping
        }
    }

    private var bucket: String {
        let region = place.region ?? ""
        let partition = region.hasPrefix("cn-") ? "aws-cn" : region.hasPrefix("us-gov-") ? "aws-us-gov" : "aws"
        return "arn:\(partition):s3:::\(place.bucket)"
    }
    /// The prefix as a pattern that matches only itself.
    private var prefix: String {
        place.prefix.map { "$*?".contains($0) ? "${\($0)}" : String($0) }.joined()
    }
    private var root: String { place.prefix.isEmpty ? bucket : "\(bucket)/\(prefix)" }
    private var lasting: [String] { ["\(root)/v1/*"] }
    /// What backups, drills and holds make. Not configuration, key slots and closings of key pairs: they say what opens the
    /// repository and which keys still count, and a stolen node would have a word in it.
    private var made: [String] { ["packs", "index", "snapshots", "writers", "notes"].map { "\(root)/v1/\($0)/*" } }
    private var scratch: [String] { ["\(root)/tmp/*"] }

    // MARK: - Statements

    private var reading: [Statement] {
        let prefix = place.prefix.isEmpty ? "" : "\(self.prefix)/"
        var statements = [
            // "IfExists": a HEAD carries no prefix, and without this right says
            // "forbidden" instead of "not there".
            Statement(
                Sid: "List", Effect: "Allow", Action: ["s3:ListBucket"], Resource: [bucket],
                Condition: ["StringLikeIfExists": ["s3:prefix": ["\(prefix)v1/*", "\(prefix)tmp/*"]]]),
            Statement(
                Sid: "Locate", Effect: "Allow", Action: ["s3:GetBucketLocation", "s3:ListBucketMultipartUploads"],
                Resource: [bucket]),
            Statement(
                Sid: "Read", Effect: "Allow", Action: ["s3:GetObject", "s3:GetObjectRetention"], Resource: lasting + scratch),
        ]
        if case .kms(let key?) = place.encryption, key.hasPrefix("arn:") {
            let actions = role == .restorer ? ["kms:Decrypt"] : ["kms:Decrypt", "kms:GenerateDataKey"]
            statements.append(Statement(Sid: "Encrypt", Effect: "Allow", Action: actions, Resource: [key]))
        }
        return statements
    }

    private var writing: [Statement] {
        var statements = [
            Statement(
                Sid: "Create", Effect: "Allow", Action: ["s3:PutObject", "s3:AbortMultipartUpload"], Resource: made + scratch),
            Statement(
                Sid: "Scratch", Effect: "Allow", Action: ["s3:DeleteObject", "s3:DeleteObjectVersion"], Resource: scratch),
        ]
        guard let mode = place.lockMode else { return statements }
        // A lock set while an object is written takes this right; the conditions
        // keep it from being used for locks of another kind, or for ever.
        let days = place.lockFor / 86_400_000_000_000 + 1
        statements.append(
            Statement(
                Sid: "LockAtCreation", Effect: "Allow", Action: ["s3:PutObjectRetention"], Resource: lasting,
                Condition: [
                    "StringEquals": ["s3:object-lock-mode": [mode.rawValue.uppercased()]],
                    "NumericLessThanEquals": ["s3:object-lock-remaining-retention-days": ["\(days)"]],
                ]))
        return statements
    }

    private var writerNever: [Statement] {
        [
            Statement(
                Sid: "NeverOverwrite", Effect: "Deny", Action: ["s3:PutObject"], Resource: lasting,
                // The second key spares the parts of a multipart upload, which make no object.
                Condition: ["Null": ["s3:if-none-match": ["true"]], "Bool": ["s3:ObjectCreationOperation": ["true"]]]),
            // Whatever another policy of the same user allows.
            Statement(
                Sid: "NeverKeys", Effect: "Deny", Action: ["s3:PutObject", "s3:PutObjectRetention"],
                Resource: ["config.*", "keys/*", "pairs/*"].map { "\(root)/v1/\($0)" }),
            // The owner's word on which a prune deletes packs and retention goes on after an anomaly. Both are the keeper's
            // to give; what a drill proved a node may say.
            Statement(
                Sid: "NeverOwner", Effect: "Deny", Action: ["s3:PutObject", "s3:PutObjectRetention"],
                Resource: ["succession", "acceptance"].map { "\(root)/v1/notes/\($0)/*" }),
            Statement(
                Sid: "NeverDestroy", Effect: "Deny", Action: ["s3:DeleteObject", "s3:DeleteObjectVersion"], Resource: lasting),
            Statement(
                Sid: "NeverWeaken", Effect: "Deny",
                Action: [
                    "s3:BypassGovernanceRetention", "s3:PutObjectLegalHold", "s3:PutLifecycleConfiguration",
                    "s3:PutBucketPolicy", "s3:DeleteBucketPolicy", "s3:PutBucketVersioning",
                    "s3:PutBucketObjectLockConfiguration", "s3:DeleteBucket",
                ] + (place.lockMode == nil ? ["s3:PutObjectRetention"] : []), Resource: [bucket, "\(bucket)/*"]),
        ]
    }

    private var keeping: [Statement] {
        // Whether somebody hid a snapshot behind a delete marker, before a prune believes that it is gone.
        let looking = Statement(Sid: "SeeMarkers", Effect: "Allow", Action: ["s3:ListBucketVersions"], Resource: [bucket])
        return (place.lockMode == nil ? [] : [looking]) + [
            Statement(
                Sid: "Keep", Effect: "Allow",
                Action: [
                    "s3:PutObject", "s3:AbortMultipartUpload", "s3:DeleteObject", "s3:DeleteObjectVersion",
                    "s3:PutObjectRetention",
                ], Resource: lasting + scratch),
            Statement(
                Sid: "NeverBypass", Effect: "Deny", Action: ["s3:BypassGovernanceRetention"], Resource: ["\(bucket)/*"]),
        ]
    }
}
