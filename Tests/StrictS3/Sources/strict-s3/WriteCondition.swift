/// If-None-Match and If-Match of a write, judged against the current object.
enum WriteCondition {
    /// Throws when the write must not happen. Returns an error to answer with although it happens:
    /// the lie of `claimConditions`.
    static func judge(_ request: S3Request, current: ObjectVersion?, _ personality: Personality) throws -> S3Error? {
        guard request.isConditional else { return nil }
        if personality.conditionsNotImplemented {
            throw S3Error.notImplemented("A header you provided implies functionality that is not implemented")
        }
        if personality.ignoreConditions { return nil }
        guard let refusal = try refusal(request, current, personality) else { return nil }
        if personality.claimConditions { return refusal }
        throw refusal
    }

    private static func refusal(
        _ request: S3Request, _ current: ObjectVersion?, _ personality: Personality
    ) throws -> S3Error? {
        let unsupported = S3Error.notImplemented("A header you provided implies functionality that is not implemented")
        let isDelete = request.method == "DELETE"
        if let noneMatch = request.header("if-none-match") {
            guard noneMatch == "*", request.header("if-match") == nil, !isDelete else { throw unsupported }
            return current == nil ? nil : .preconditionFailed("If-None-Match")
        }
        guard let match = request.header("if-match"), !personality.ignoreIfMatch else { return nil }
        guard match != "*" || isDelete else { throw unsupported }
        guard let current else { return .noSuchKey(request.key ?? "") }
        return match == "*" || unquoted(match) == current.etag ? nil : .preconditionFailed("If-Match")
    }

    static func unquoted(_ etag: String) -> String {
        etag.count >= 2 && etag.hasPrefix("\"") && etag.hasSuffix("\"") ? String(etag.dropFirst().dropLast()) : etag
    }
}
