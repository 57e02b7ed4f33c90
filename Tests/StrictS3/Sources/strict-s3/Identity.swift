import Foundation

/// Who signed a request.
struct Identity: Sendable {
    var access: String
    /// nil: may do everything.
    var policies: [Policy]?
    var region: String
}

/// A key that STS gave and that ends.
struct TemporaryKey: Sendable {
    var access: String
    var secret: String
    var token: String
    var expiration: Date
    var policies: [Policy]?
    var uses = 0
}

extension StoreState {
    /// The signer of a request, or the error AWS would answer with.
    mutating func authenticate(_ request: S3Request, service: String, now: Date) throws -> Identity {
        guard let authorization = request.header("authorization") else {
            throw S3Error.accessDenied("Access Denied: the request is not signed")
        }
        let signature = try SignatureV4(parsing: authorization)
        let token = request.header("x-amz-security-token")
        if let key = config.keys[signature.access] {
            try signature.verify(request, secret: key.secret, service: service, now: now)
            if token != nil {
                throw tokenError("InvalidToken", "The provided token is malformed or otherwise invalid.")
            }
            return Identity(access: key.access, policies: key.policies, region: signature.region)
        }
        guard let key = temporaryKeys[signature.access], token != nil else {
            throw S3Error(
                403, "InvalidAccessKeyId", "The AWS Access Key Id you provided does not exist in our records.",
                details: [("AWSAccessKeyId", signature.access)])
        }
        guard token == key.token else {
            throw tokenError("InvalidToken", "The provided token is malformed or otherwise invalid.")
        }
        try signature.verify(request, secret: key.secret, service: service, now: now)
        temporaryKeys[signature.access]?.uses += 1
        let limit = config.personality.expireTokensAfterRequests ?? .max
        guard now < key.expiration, key.uses < limit else {
            throw tokenError("ExpiredToken", "The provided token has expired.")
        }
        return Identity(access: key.access, policies: key.policies, region: signature.region)
    }

    private func tokenError(_ code: String, _ message: String) -> S3Error {
        S3Error(config.personality.tokenErrorStatus, code, message)
    }
}
