import Crypto
import Foundation

/// An `Authorization: AWS4-HMAC-SHA256 …` header, and its verification without any leniency.
struct SignatureV4: Sendable {
    var access: String
    var date: String
    var region: String
    var service: String
    var signedHeaders: [String]
    var signature: String

    init(parsing authorization: String) throws {
        let malformed = { (why: String) in
            S3Error(400, "AuthorizationHeaderMalformed", "The authorization header is malformed; \(why)")
        }
        let prefix = "AWS4-HMAC-SHA256 "
        guard authorization.hasPrefix(prefix) else {
            throw S3Error.invalidRequest("Please use AWS4-HMAC-SHA256.")
        }
        var fields: [String: String] = [:]
        for part in authorization.dropFirst(prefix.count).split(separator: ",", omittingEmptySubsequences: false) {
            let part = part.hasPrefix(" ") ? part.dropFirst() : part
            let halves = part.split(separator: "=", maxSplits: 1, omittingEmptySubsequences: false)
            guard halves.count == 2, fields.updateValue(String(halves[1]), forKey: String(halves[0])) == nil else {
                throw malformed("the field '\(part)' cannot be read.")
            }
        }
        guard fields.count == 3, let credential = fields["Credential"], let signed = fields["SignedHeaders"],
            let signature = fields["Signature"]
        else { throw malformed("it must have Credential, SignedHeaders and Signature.") }
        let scope = credential.split(separator: "/", omittingEmptySubsequences: false).map(String.init)
        guard scope.count == 5, scope[4] == "aws4_request", scope.allSatisfy({ !$0.isEmpty }) else {
            throw malformed("the Credential must be ACCESS/DATE/REGION/SERVICE/aws4_request.")
        }
        (access, date, region, service) = (scope[0], scope[1], scope[2], scope[3])
        guard date.utf8.count == 8, date.utf8.allSatisfy({ (0x30...0x39).contains($0) }) else {
            throw malformed("the Credential's date must be yyyyMMdd.")
        }
        signedHeaders = signed.split(separator: ";", omittingEmptySubsequences: false).map(String.init)
        guard signedHeaders == signedHeaders.sorted(), Set(signedHeaders).count == signedHeaders.count,
            signedHeaders.allSatisfy({ !$0.isEmpty && $0 == $0.lowercased() })
        else { throw malformed("SignedHeaders must be lower case, sorted and without repetition.") }
        guard signature.utf8.count == 64,
            signature.utf8.allSatisfy({ (0x30...0x39).contains($0) || (0x61...0x66).contains($0) })
        else { throw malformed("the Signature must be 64 lower-case hexadecimal digits.") }
        self.signature = signature
    }

    /// Checks scope, time, signed headers, signature and payload hash, in AWS's order.
    func verify(_ request: S3Request, secret: String, service wanted: String, now: Date) throws {
        guard service == wanted else {
            throw S3Error(
                400, "AuthorizationHeaderMalformed",
                "The authorization header is malformed; incorrect service \"\(service)\". This "
                    + "endpoint belongs to \"\(wanted)\"."
            )
        }
        guard let stamp = request.header("x-amz-date"), let time = Timestamp.parseBasic(stamp) else {
            throw S3Error.accessDenied("AWS authentication requires a valid Date or x-amz-date header")
        }
        guard stamp.hasPrefix(date) else {
            throw S3Error(
                400, "AuthorizationHeaderMalformed",
                "The authorization header is malformed; Invalid credential date \"\(date)\". This "
                    + "date is not the same as X-Amz-Date."
            )
        }
        guard abs(time.timeIntervalSince(now)) <= 900 else {
            throw S3Error(
                403, "RequestTimeTooSkewed",
                "The difference between the request time and the current time is too large.",
                details: [
                    ("RequestTime", stamp), ("ServerTime", Timestamp.iso(now, milliseconds: false)),
                    ("MaxAllowedSkewMilliseconds", "900000"),
                ])
        }
        let payload = try payloadHash(request, isRequired: wanted == "s3")
        try checkSignedHeaders(request)
        let canonical = try canonicalRequest(request, payload: payload)
        let scope = "\(date)/\(region)/\(service)/aws4_request"
        let toSign = "AWS4-HMAC-SHA256\n\(stamp)\n\(scope)\n\(hex(SHA256.hash(data: Array(canonical.utf8))))"
        let expected = hex(Self.hmac(signingKey(secret), toSign))
        guard expected == signature else {
            throw S3Error(
                403, "SignatureDoesNotMatch",
                "The request signature we calculated does not match the signature you provided. "
                    + "Check your key and signing method.",
                details: [
                    ("AWSAccessKeyId", access), ("StringToSign", toSign), ("SignatureProvided", signature),
                    ("CanonicalRequest", canonical),
                ])
        }
        let actual = hex(request.digests.sha256)
        guard payload == actual else {
            throw S3Error(
                400, "XAmzContentSHA256Mismatch",
                "The provided 'x-amz-content-sha256' header does not match what was computed.",
                details: [("ClientComputedContentSHA256", payload), ("S3ComputedContentSHA256", actual)])
        }
    }

    private func payloadHash(_ request: S3Request, isRequired: Bool) throws -> String {
        guard let payload = request.header("x-amz-content-sha256") else {
            if !isRequired { return hex(request.digests.sha256) }
            throw S3Error.invalidRequest("Missing required header for this request: x-amz-content-sha256")
        }
        if payload == "UNSIGNED-PAYLOAD" || payload.hasPrefix("STREAMING-") {
            throw S3Error.invalidArgument(
                "x-amz-content-sha256 \(payload) is refused here: sign the body's true SHA-256")
        }
        guard payload.utf8.count == 64,
            payload.utf8.allSatisfy({ (0x30...0x39).contains($0) || (0x61...0x66).contains($0) })
        else { throw S3Error.invalidArgument("x-amz-content-sha256 must be a valid sha256 value in lower-case hex.") }
        return payload
    }

    private func checkSignedHeaders(_ request: S3Request) throws {
        var required: Set<String> = ["host", "x-amz-date"]
        required.formUnion(request.headers.keys.filter { $0.hasPrefix("x-amz-") })
        let unsigned = required.subtracting(signedHeaders).sorted()
        guard unsigned.isEmpty else {
            throw S3Error(
                403, "AccessDenied", "There were headers present in the request which were not signed",
                details: [("HeadersNotSigned", unsigned.joined(separator: ", "))])
        }
        for name in signedHeaders where request.header(name) == nil {
            throw S3Error(
                403, "SignatureDoesNotMatch", "The header '\(name)' is named in SignedHeaders and was not sent.")
        }
    }

    private func canonicalRequest(_ request: S3Request, payload: String) throws -> String {
        guard let path = PercentCoding.decodeBytes(request.rawPath) else {
            throw S3Error(400, "InvalidURI", "Couldn't parse the specified URI.")
        }
        // S3 signs the path encoded once, unlike every other service.
        let uri = PercentCoding.encode(path, keepingSlashes: true)
        let query = request.query
            .map { (PercentCoding.encode($0.name), PercentCoding.encode($0.value)) }
            .sorted { $0 < $1 }
            .map { "\($0)=\($1)" }
            .joined(separator: "&")
        let headers = signedHeaders.map { "\($0):\(Self.trim(request.header($0) ?? ""))\n" }.joined()
        return [request.method, uri, query, headers, signedHeaders.joined(separator: ";"), payload].joined(
            separator: "\n")
    }

    /// Outer blanks away, inner runs of blanks made one.
    private static func trim(_ value: String) -> String {
        value.split(whereSeparator: { $0 == " " || $0 == "\t" }).joined(separator: " ")
    }

    private func signingKey(_ secret: String) -> [UInt8] {
        [date, region, service, "aws4_request"].reduce(Array("AWS4\(secret)".utf8)) { Self.hmac($0, $1) }
    }

    private static func hmac(_ key: [UInt8], _ text: String) -> [UInt8] {
        Array(HMAC<SHA256>.authenticationCode(for: Array(text.utf8), using: SymmetricKey(data: key)))
    }
}
