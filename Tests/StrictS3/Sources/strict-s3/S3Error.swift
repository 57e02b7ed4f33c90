/// An answer other than success, in S3's words.
struct S3Error: Error, Sendable {
    var status: Int
    var code: String
    var message: String
    /// Further elements of the error document, e.g. `Region`.
    var details: [(String, String)] = []
    var headers: [(String, String)] = []

    init(
        _ status: Int, _ code: String, _ message: String, details: [(String, String)] = [],
        headers: [(String, String)] = []
    ) {
        self.status = status
        self.code = code
        self.message = message
        self.details = details
        self.headers = headers
    }

    static func invalidRequest(_ message: String) -> S3Error { S3Error(400, "InvalidRequest", message) }
    static func invalidArgument(_ message: String) -> S3Error { S3Error(400, "InvalidArgument", message) }
    static func accessDenied(_ message: String) -> S3Error { S3Error(403, "AccessDenied", message) }
    static func notImplemented(_ message: String) -> S3Error { S3Error(501, "NotImplemented", message) }

    static let malformedXML = S3Error(
        400, "MalformedXML", "The XML you provided was not well-formed or did not validate against our published schema"
    )
    static let slowDown = S3Error(503, "SlowDown", "Please reduce your request rate.")
    static let internalError = S3Error(500, "InternalError", "We encountered an internal error. Please try again.")
    static let conflict = S3Error(
        409, "ConditionalRequestConflict", "The conditional request cannot succeed due to a conflicting operation.")

    static func noSuchKey(_ key: String) -> S3Error {
        S3Error(404, "NoSuchKey", "The specified key does not exist.", details: [("Key", key)])
    }

    static func noSuchBucket(_ bucket: String) -> S3Error {
        S3Error(404, "NoSuchBucket", "The specified bucket does not exist", details: [("BucketName", bucket)])
    }

    static func noSuchVersion(_ key: String, _ version: String) -> S3Error {
        S3Error(
            404, "NoSuchVersion", "The specified version does not exist.",
            details: [("Key", key), ("VersionId", version)])
    }

    static func noSuchUpload(_ id: String) -> S3Error {
        S3Error(
            404, "NoSuchUpload",
            "The specified multipart upload does not exist. It may have been aborted or completed.",
            details: [("UploadId", id)])
    }

    static func preconditionFailed(_ condition: String) -> S3Error {
        S3Error(
            412, "PreconditionFailed", "At least one of the pre-conditions you specified did not hold",
            details: [("Condition", condition)])
    }
}
