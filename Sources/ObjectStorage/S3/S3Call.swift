import BackupBase

/// One request to a bucket, before it has an address, a date and a signature.
struct S3Call: Sendable {
    var method: String
    /// The object's key; nil for the bucket.
    var key: String?
    var query: [(name: String, value: String)] = []
    var headers: [(name: String, value: String)] = []
    var body = HTTPRequest.Body.none
    /// SHA-256 of the body, lower-case hexadecimal.
    var payloadHash = S3Call.emptyHash
    var limit = 1 << 20
    /// Bytes that will come back, where that is known: for the download limit.
    var expected: Int?
    /// An answer 200 may carry an error (CompleteMultipartUpload, DeleteObjects).
    var mayFailInside = false
    /// For messages: "write", "v1/config.a".
    var operation: String
    var name: String

    init(_ method: String, _ key: String?, operation: String, name: String) {
        self.method = method
        self.key = key
        self.operation = operation
        self.name = name
    }

    /// SHA-256 of nothing.
    static let emptyHash = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
}

/// An answer that is no success, as the store put it.
struct S3Failure: Error, Sendable {
    var status: Int
    /// "NoSuchKey", "SlowDown"; from the status where there is no body.
    var code: String
    var message: String
    /// The bucket's region, where the answer names it.
    var region: String?
    /// Where a redirect points to.
    var location: String?
    /// Nanoseconds since 1970 by the store's clock.
    var serverTime: Int64?
    /// What the refused request was signed with.
    var keys: Credentials?
    var signedRegion: String?
    /// The failure may still have had its effect: 5xx.
    var isUnknown: Bool { status >= 500 }

    /// Reads what the answer says; a body that is no error document says nothing.
    init(_ response: HTTPResponse) {
        status = response.status
        let document = XMLElement.parse(response.body.bytes)
        let error = document?.name == "Error" ? document : document?.first("Error")
        code = Self.bounded(error?["Code"] ?? "") ?? Self.code(of: response.status)
        message = Self.bounded(error?["Message"] ?? "") ?? ""
        region = response.header("x-amz-bucket-region") ?? error?["Region"]
        region = region.flatMap { Self.bounded($0) }
        location = response.header("location")
        serverTime = response.header("date").flatMap { parseHTTPDate($0) }
    }

    /// A server's text, for a message: printable, short, never empty.
    private static func bounded(_ text: String) -> String? {
        text.isEmpty ? nil : String(printable(text.utf8.prefix(300)))
    }

    private static func code(of status: Int) -> String {
        switch status {
        case 301, 307, 308: "Redirect"
        case 400: "BadRequest"
        case 403: "AccessDenied"
        case 404: "NotFound"
        case 409: "Conflict"
        case 412: "PreconditionFailed"
        case 416: "InvalidRange"
        case 429: "SlowDown"
        case 501: "NotImplemented"
        case 503: "ServiceUnavailable"
        default: "HTTP \(status)"
        }
    }

    /// The store asks for less load.
    var isOverload: Bool { status == 429 || status == 503 || code == "SlowDown" || code == "RequestLimitExceeded" }

    /// Trying again may help.
    var isTransient: Bool {
        [429, 500, 502, 503, 504].contains(status)
            || [
                "SlowDown", "InternalError", "ServiceUnavailable", "RequestTimeout", "OperationAborted",
                "ConditionalRequestConflict", "RequestLimitExceeded",
            ].contains(code)
    }

    var isExpiry: Bool {
        ["ExpiredToken", "ExpiredTokenException", "InvalidToken", "TokenRefreshRequired", "RequestExpired"].contains(code)
    }
}
