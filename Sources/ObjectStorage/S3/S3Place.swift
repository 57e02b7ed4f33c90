import BackupBase

/// Where a repository is on an S3 store and how its objects are kept there: the
/// URL `s3://bucket/prefix?option=value&…`. It holds no secret, only names of
/// files that do.
public struct S3Place: Sendable {
    public enum Addressing: String, Sendable { case virtual, path }
    public enum LockMode: String, Sendable { case governance, compliance }
    public enum Encryption: Sendable, Equatable {
        case none
        /// SSE-S3
        case store
        /// SSE-KMS, with a key or the account's own.
        case kms(key: String?)
        /// SSE-C: a file with 32 bytes, raw or in hexadecimal or base64.
        case customer(keyFile: String)
    }

    public internal(set) var bucket: String
    /// Without slashes at its ends; may be empty.
    public internal(set) var prefix: String
    public internal(set) var endpoint: String?
    public internal(set) var region: String?
    public internal(set) var addressing: Addressing?
    public internal(set) var profile: String?
    public internal(set) var credentialsFile: String?
    public internal(set) var certificates: String?
    /// Of packs: index, snapshots, configuration and keys stay in the standard class,
    /// so that a restore never waits for them to be thawed.
    public internal(set) var storageClass: String?
    public internal(set) var encryption = Encryption.none
    /// Send and ask for x-amz-checksum-sha256; nil: on AWS, and where objects are locked.
    public internal(set) var checksums: Bool?
    public internal(set) var lockMode: LockMode?
    /// Nanoseconds that objects are locked for from their writing or their last extension.
    public internal(set) var lockFor: Int64 = 0
    /// Requests at once.
    public internal(set) var connections = 8
    /// Seconds without a byte after which a request is given up and repeated.
    public internal(set) var stallTimeout = 30.0
    /// Seconds for which a request is repeated.
    public internal(set) var patience = 600.0
    /// Bytes a second; 0 is no limit.
    public var uploadLimit = 0
    public var downloadLimit = 0
    /// Bytes above which an upload goes in parts: what one PUT takes (5 GiB on AWS).
    public internal(set) var multipartAbove = 5 << 30
    public internal(set) var partSize = 64 << 20

    /// For messages: without options.
    public var location: String { prefix.isEmpty ? "s3://\(bucket)" : "s3://\(bucket)/\(prefix)" }

    /// For another host, by people: with what says where the store is, without how it is used here.
    public var portable: String {
        let options = [
            endpoint.map { "endpoint=\($0)" }, region.map { "region=\($0)" }, addressing.map { "style=\($0.rawValue)" },
        ]
        let known = options.compactMap { $0 }
        return location + (known.isEmpty ? "" : "?" + known.joined(separator: "&"))
    }

    /// - Parameter environment: the process's, for AWS_ENDPOINT_URL_S3, AWS_ENDPOINT_URL, AWS_REGION, AWS_DEFAULT_REGION
    /// - Throws: `StoreError` of kind `.usage`
    public init(url: String, environment: (String) -> String?) throws {
        guard url.hasPrefix("s3://") else { throw Self.wrong("'\(printable(url.utf8))' is no s3:// URL") }
        let rest = url.dropFirst("s3://".count)
        guard !rest.prefix(while: { $0 != "/" && $0 != "?" }).contains(where: { $0 == "@" || $0 == ":" }) else {
            // Not repeated in the message: somebody put keys there.
            throw Self.wrong(
                "an s3:// URL takes no user and password", "Give the keys by the AWS variables or files, or credentials=FILE.")
        }
        let parts = rest.split(separator: "?", maxSplits: 1, omittingEmptySubsequences: false)
        let path = parts[0].split(separator: "/", maxSplits: 1, omittingEmptySubsequences: false)
        bucket = String(path[0])
        prefix = path.count > 1 ? String(path[1]) : ""
        while prefix.hasSuffix("/") { prefix.removeLast() }
        try Self.check(bucket: bucket, prefix: prefix)
        if parts.count > 1 {
            for option in parts[1].split(separator: "&") { try set(option) }
        }
        // An empty one counts as unset, as in every AWS SDK.
        func variable(_ name: String) -> String? { environment(name).flatMap { $0.isEmpty ? nil : $0 } }
        if endpoint == nil, let url = variable("AWS_ENDPOINT_URL_S3") ?? variable("AWS_ENDPOINT_URL") {
            endpoint = try Self.checkedEndpoint(url)
        }
        for name in ["AWS_REGION", "AWS_DEFAULT_REGION"] where region == nil {
            region = try variable(name).map { try Self.region(name, $0) }
        }
    }

    private static func check(bucket: String, prefix: String) throws {
        let allowed = bucket.utf8.allSatisfy {
            isAlphanumeric($0) || $0 == UInt8(ascii: "-") || $0 == UInt8(ascii: ".") || $0 == UInt8(ascii: "_")
        }
        guard (3...63).contains(bucket.utf8.count), allowed, !bucket.contains("..") else {
            throw wrong("'\(printable(bucket.utf8))' is no name of a bucket", "Give s3://BUCKET/PREFIX.")
        }
        let folders = prefix.split(separator: "/", omittingEmptySubsequences: false)
        guard prefix.isEmpty || folders.allSatisfy({ !$0.isEmpty && $0 != "." && $0 != ".." }),
            prefix.utf8.allSatisfy({ $0 >= 0x20 && $0 != 0x7f }), prefix.utf8.count <= 512
        else { throw wrong("'\(printable(prefix.utf8))' is no prefix for objects", "Give s3://BUCKET/PREFIX.") }
    }

    static func isAlphanumeric(_ byte: UInt8) -> Bool {
        (UInt8(ascii: "0")...UInt8(ascii: "9")).contains(byte) || (UInt8(ascii: "a")...UInt8(ascii: "z")).contains(byte | 0x20)
    }

    static func wrong(_ message: String, _ hint: String? = nil) -> StoreError {
        StoreError(.usage, "use", "the repository's URL", message, hint: hint)
    }

    /// "https://host:port" without a path. TLS unless it says http.
    static func checkedEndpoint(_ text: String) throws -> String {
        var url = text.contains("://") ? text : "https://\(text)"
        while url.hasSuffix("/") { url.removeLast() }
        let host = url.split(separator: "/", maxSplits: 2, omittingEmptySubsequences: false).last ?? ""
        guard url.hasPrefix("https://") || url.hasPrefix("http://"), !host.isEmpty,
            host.utf8.allSatisfy({ isAlphanumeric($0) || "-._:[]".utf8.contains($0) })
        else {
            throw wrong(
                "the endpoint is no address of a server: '\(host.contains("@") ? "…" : printable(host.utf8))'",
                "Give https://HOST[:PORT].")
        }
        return url
    }
}
