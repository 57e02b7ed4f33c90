import BackupBase
import Foundation
import Testing

@testable import ObjectStorage

/// What each role's policy says, judged by IAM's rules.
@Suite struct AccessPolicyTests {
    private func policy(_ role: AccessPolicy.Role, _ url: String = "s3://bucket/qdrant/a") throws -> PolicyEvaluator {
        try PolicyEvaluator(try AccessPolicy(try S3Place(url: url, environment: { _ in nil }), role: role).json())
    }

    private static let root = "arn:aws:s3:::bucket/qdrant/a"
    private static let lasting = ["packs/ab/abcd", "index/x", "snapshots/1-2", "writers/z", "notes/hold/1"].map {
        "\(root)/v1/\($0)"
    }
    private static let keys = ["config.a", "config.b", "keys/0123456789abcdef.a", "pairs/1.a"].map { "\(root)/v1/\($0)" }
    private static let scratch = ["lease-init", "put-1", "probe-1/race"].map { "\(root)/tmp/\($0)" }
    private static let once = ["s3:if-none-match": "*", "s3:ObjectCreationOperation": "true"]
    private static let over = ["s3:ObjectCreationOperation": "true"]
    private static let part = ["s3:ObjectCreationOperation": "false"]
    private static let locked = "s3://bucket/qdrant/a?lock=compliance&lock-for=30d"

    @Test func `the evaluator itself keeps to IAM's rules`() throws {
        for (pattern, text, fits) in [
            ("a*c", "abbc", true), ("a*c", "ac", true), ("a*c", "acd", false), ("a?c", "abc", true), ("a?c", "ac", false),
            ("*", "", true), ("", "", true), ("**b", "aab", true), ("a${*}c", "a*c", true), ("a${*}c", "abc", false),
            ("a${$}", "a$", true), ("${?}", "x", false), ("a${b", "a${b", true),
        ] { #expect(PolicyEvaluator.matches(pattern, text) == fits, "\(pattern) \(text)") }
        #expect(throws: PolicyEvaluator.Unknown.self) {
            try PolicyEvaluator(
                """
                {"Version": "2012-10-17", "Statement": [{"Sid": "A", "Effect": "Allow", "Action": ["*"], "Resource": ["*"],
                "Condition": {"StringSounds": {"a": ["b"]}}}]}
                """)
        }
        let both = try PolicyEvaluator(
            """
            {"Version": "2012-10-17", "Statement": [{"Sid": "A", "Effect": "Allow", "Action": ["s3:*"], "Resource": ["*"]},
            {"Sid": "B", "Effect": "Deny", "Action": ["S3:get*"], "Resource": ["x"], "Condition": {"Null": {"k": ["true"]}}}]}
            """)
        #expect(both.allows("s3:PutObject", "x") && !both.allows("s3:GetObject", "x"))
        #expect(both.allows("s3:GetObject", "x", ["K": "1"]) && both.verdict("ec2:Run", "x") == .notMentioned)
    }

    // MARK: - All roles

    @Test(arguments: AccessPolicy.Role.allCases) func `every role reads and lists its prefix and nothing else`(
        _ role: AccessPolicy.Role
    ) throws {
        let policy = try policy(role)
        for object in Self.lasting + Self.keys + Self.scratch { #expect(policy.allows("s3:GetObject", object)) }
        for object in [
            "arn:aws:s3:::bucket/qdrant/b/v1/x", "arn:aws:s3:::bucket/qdrant/ab/v1/x", "arn:aws:s3:::bucket/v1/x",
            "arn:aws:s3:::bucket/qdrant/a/v2/x", "arn:aws:s3:::other/qdrant/a/v1/x", "\(Self.root)/x",
        ] {
            for action in [
                "GetObject", "PutObject", "DeleteObject", "DeleteObjectVersion", "PutObjectRetention", "AbortMultipartUpload",
            ] {
                #expect(!policy.allows("s3:\(action)", object, Self.once), "\(action) \(object)")
            }
        }
        let bucket = "arn:aws:s3:::bucket"
        for prefix in ["qdrant/a/v1/", "qdrant/a/v1/packs/", "qdrant/a/tmp/"] {
            #expect(policy.allows("s3:ListBucket", bucket, ["s3:prefix": prefix]))
        }
        for prefix in ["", "qdrant/", "qdrant/b/v1/", "v1/"] {
            #expect(!policy.allows("s3:ListBucket", bucket, ["s3:prefix": prefix]))
        }
        // HEAD of what is not there: the right to list, asked without a prefix.
        #expect(policy.allows("s3:ListBucket", bucket) && policy.allows("s3:GetBucketLocation", bucket))
        for action in [
            "s3:PutBucketPolicy", "s3:DeleteBucket", "s3:PutLifecycleConfiguration", "s3:PutBucketVersioning",
            "s3:PutBucketObjectLockConfiguration", "s3:PutBucketAcl", "s3:PutReplicationConfiguration", "iam:CreateUser",
        ] { #expect(!policy.allows(action, bucket), "\(action)") }
        for action in ["s3:BypassGovernanceRetention", "s3:PutObjectLegalHold", "s3:PutObjectAcl", "s3:ReplicateDelete"] {
            for url in ["s3://bucket/qdrant/a", Self.locked] {
                #expect(try !self.policy(role, url).allows(action, Self.lasting[0]), "\(action)")
            }
        }
    }

    @Test func `a restorer only reads`() throws {
        let policy = try policy(.restorer)
        for object in Self.lasting + Self.scratch {
            for action in ["PutObject", "DeleteObject", "DeleteObjectVersion", "PutObjectRetention", "AbortMultipartUpload"] {
                #expect(!policy.allows("s3:\(action)", object, Self.once))
            }
        }
    }

    // MARK: - Writer

    @Test(arguments: ["s3://bucket/qdrant/a", locked]) func `a writer makes an object once and destroys none`(_ url: String)
        throws
    {
        let policy = try policy(.writer, url)
        for object in Self.lasting {
            #expect(policy.allows("s3:PutObject", object, Self.once))
            #expect(policy.verdict("s3:PutObject", object, Self.over) == .denied)
            #expect(policy.verdict("s3:PutObject", object, Self.over.merging(["s3:if-match": "x"]) { $1 }) == .denied)
            // A part makes no object, and its upload is given up by whoever began it.
            #expect(policy.allows("s3:PutObject", object, Self.part) && policy.allows("s3:AbortMultipartUpload", object))
            for action in ["DeleteObject", "DeleteObjectVersion"] {
                #expect(policy.verdict("s3:\(action)", object) == .denied)
            }
        }
        // What says which keys count is not a backup's, new names as little as old ones.
        for object in Self.keys {
            for context in [Self.once, Self.over, Self.part] {
                #expect(policy.verdict("s3:PutObject", object, context) == .denied)
            }
            for action in ["DeleteObject", "DeleteObjectVersion", "PutObjectRetention"] {
                #expect(policy.verdict("s3:\(action)", object) == .denied)
            }
        }
        for topic in ["succession", "acceptance"] {
            for context in [Self.once, Self.over, Self.part] {
                #expect(policy.verdict("s3:PutObject", "\(Self.root)/v1/notes/\(topic)/1", context) == .denied)
            }
        }
        #expect(policy.allows("s3:PutObject", "\(Self.root)/v1/notes/drill/1", Self.once))
        #expect(!policy.allows("s3:PutObject", "\(Self.root)/v1/other/x", Self.once))
        for object in Self.scratch {
            for context in [Self.once, Self.over, Self.part] { #expect(policy.allows("s3:PutObject", object, context)) }
            #expect(policy.allows("s3:DeleteObject", object) && policy.allows("s3:DeleteObjectVersion", object))
            #expect(!policy.allows("s3:PutObjectRetention", object))
        }
        for action in ["PutBucketPolicy", "DeleteBucket", "PutBucketVersioning", "PutLifecycleConfiguration"] {
            #expect(policy.verdict("s3:\(action)", "arn:aws:s3:::bucket") == .denied)
        }
    }

    @Test func `a writer locks what it makes, as the repository says and no longer`() throws {
        let object = Self.lasting[2]
        #expect(try policy(.writer).verdict("s3:PutObjectRetention", object, ["s3:object-lock-mode": "COMPLIANCE"]) == .denied)
        let policy = try policy(.writer, Self.locked)
        func allows(_ mode: String?, _ days: String?) -> Bool {
            var context: [String: String] = [:]
            context["s3:object-lock-mode"] = mode
            context["s3:object-lock-remaining-retention-days"] = days
            return policy.allows("s3:PutObjectRetention", object, context)
        }
        #expect(allows("COMPLIANCE", "30") && allows("COMPLIANCE", "31") && allows("COMPLIANCE", "1"))
        #expect(!allows("COMPLIANCE", "32") && !allows("COMPLIANCE", "36500") && !allows("GOVERNANCE", "30"))
        #expect(!allows(nil, "30") && !allows("COMPLIANCE", nil) && !allows("COMPLIANCE", "many") && !allows(nil, nil))
    }

    // MARK: - Keeper

    @Test func `a keeper makes, replaces, locks and deletes, and cannot get past a lock`() throws {
        let policy = try policy(.keeper, Self.locked)
        for object in Self.lasting + Self.keys + Self.scratch {
            for context in [Self.once, Self.over, Self.part] { #expect(policy.allows("s3:PutObject", object, context)) }
            for action in ["DeleteObject", "DeleteObjectVersion", "PutObjectRetention", "AbortMultipartUpload"] {
                #expect(policy.allows("s3:\(action)", object))
            }
            #expect(policy.verdict("s3:BypassGovernanceRetention", object) == .denied)
        }
    }

    // MARK: - Places

    @Test(arguments: [
        ("cn-north-1", "aws-cn"), ("cn-northwest-1", "aws-cn"), ("us-gov-west-1", "aws-us-gov"), ("eu-central-1", "aws"),
    ])
    func `resources are of the region's partition`(_ region: String, _ partition: String) throws {
        for role in AccessPolicy.Role.allCases {
            let policy = try policy(role, "s3://bucket/p?region=\(region)")
            for name in ["aws", "aws-cn", "aws-us-gov"] {
                #expect(policy.allows("s3:GetObject", "arn:\(name):s3:::bucket/p/v1/x") == (name == partition))
                #expect(policy.allows("s3:ListBucket", "arn:\(name):s3:::bucket") == (name == partition))
            }
        }
    }

    @Test func `a bucket without a prefix is the repository's root`() throws {
        let policy = try policy(.writer, "s3://bucket")
        #expect(policy.allows("s3:PutObject", "arn:aws:s3:::bucket/v1/packs/x", Self.once))
        #expect(policy.allows("s3:ListBucket", "arn:aws:s3:::bucket", ["s3:prefix": "v1/"]))
        #expect(!policy.allows("s3:GetObject", "arn:aws:s3:::bucket/other/v1/x"))
    }

    @Test func `a prefix that looks like a pattern stands for itself`() throws {
        let star = try self.policy(.keeper, "s3://bucket/a*$b")
        #expect(star.allows("s3:DeleteObject", "arn:aws:s3:::bucket/a*$b/v1/x"))
        #expect(!star.allows("s3:DeleteObject", "arn:aws:s3:::bucket/ab$b/v1/x"))
        #expect(star.allows("s3:ListBucket", "arn:aws:s3:::bucket", ["s3:prefix": "a*$b/v1/"]))
        #expect(!star.allows("s3:ListBucket", "arn:aws:s3:::bucket", ["s3:prefix": "axx$b/v1/"]))
    }

    @Test func `a key of KMS is granted to whom it serves, and no other`() throws {
        let key = "arn:aws:kms:eu-central-1:1:key/abc"
        let url = "s3://bucket/p?sse=aws:kms:\(key)"
        for role in AccessPolicy.Role.allCases {
            let policy = try policy(role, url)
            #expect(policy.allows("kms:Decrypt", key) && !policy.allows("kms:Decrypt", key + "x"))
            #expect(policy.allows("kms:GenerateDataKey", key) == (role != .restorer))
            #expect(!policy.allows("kms:ScheduleKeyDeletion", key))
            #expect(try !self.policy(role, "s3://bucket/p?sse=aws:kms").allows("kms:Decrypt", key))
        }
    }

    @Test func `documents are small enough for IAM`() throws {
        for role in AccessPolicy.Role.allCases {
            let text = try AccessPolicy(
                S3Place(
                    url: "s3://bucket/\(String(repeating: "p", count: 200))?lock=compliance&lock-for=30d",
                    environment: { _ in nil }),
                role: role
            ).json()
            // Of a user's inline policies IAM takes 2048 characters, of a managed one 6144; blanks do not count.
            #expect(text.filter { !$0.isWhitespace }.count < 6144)
        }
    }
}
