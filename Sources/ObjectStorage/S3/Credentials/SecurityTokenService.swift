import BackupBase

/// A role's keys, from AWS Security Token Service or what stands in for it (AWS
/// Security Token Service API Reference, version 2011-06-15).
struct SecurityTokenService: Sendable {
    /// A role to be taken on, as a profile or the environment describes it.
    struct Role: Sendable {
        var arn: String
        var sessionName: String?
        var externalID: String?
        /// Seconds the keys shall be valid; nil leaves it to STS (an hour).
        var duration: Int?
        /// For `Credentials.source` and errors: "profile 'backup'".
        var askedBy: String
    }

    var settings: CredentialSettings
    var transport: any HTTPTransport
    /// Of the profile, where neither the settings nor the environment name a region.
    var profileRegion: String?

    /// The keys of a role that `credentials` may take on.
    func assume(_ role: Role, with credentials: Credentials) async throws -> Credentials {
        let endpoint = try endpoint()
        let body = form("AssumeRole", role, role.externalID.map { [("ExternalId", $0)] } ?? [])
        let subject = RequestSigner.Subject(
            method: "POST", host: endpoint.authority, path: endpoint.path, query: "", headers: Self.headers,
            payloadHash: RequestSigner.hash(body))
        let signer = RequestSigner(credentials: credentials, region: try region(), service: "sts")
        let headers = signer.headers(for: subject, now: settings.now())
        let secrets = [credentials.secretKey, credentials.sessionToken]
        return try await ask(endpoint, headers, body, role, secrets)
    }

    /// The keys of a role that whoever holds the token may take on. The token is the
    /// proof, so nothing is signed.
    func assume(_ role: Role, withWebIdentity token: SecretText) async throws -> Credentials {
        let body = form("AssumeRoleWithWebIdentity", role, [("WebIdentityToken", token.reveal())])
        return try await ask(try endpoint(), Self.headers, body, role, [token])
    }

    // MARK: - The request

    private static let headers = [
        (name: "accept", value: "application/json"),
        (name: "content-type", value: "application/x-www-form-urlencoded; charset=utf-8"),
    ]

    private func form(_ action: String, _ role: Role, _ more: [(name: String, value: String)]) -> [UInt8] {
        var items = [(name: "Action", value: action), ("Version", "2011-06-15"), ("RoleArn", role.arn)] + more
        items.append(("RoleSessionName", role.sessionName ?? "bgbackup-\(settings.now() / 1_000_000_000)"))
        if let duration = role.duration { items.append(("DurationSeconds", "\(duration)")) }
        return Array(RequestSigner.query(items).utf8)
    }

    /// Without any region, that of AWS's oldest one: its STS serves all of them but China's and the government's.
    private func region() throws -> String {
        let region =
            settings.region ?? settings.variable("AWS_REGION") ?? settings.variable("AWS_DEFAULT_REGION") ?? profileRegion
            ?? "us-east-1"
        // It becomes part of a host's name.
        guard !region.isEmpty, region.utf8.allSatisfy({ $0 == 0x2d || (0x30...0x39).contains($0) || (0x61...0x7a).contains($0) })
        else {
            throw CredentialError("'\(region.safeToShow(limit: 40))' is no region", hint: "Write it as in \"eu-central-1\".")
        }
        return region
    }

    private func endpoint() throws -> CredentialEndpoint {
        for variable in ["AWS_ENDPOINT_URL_STS", "AWS_ENDPOINT_URL"] {
            guard let url = settings.variable(variable) else { continue }
            guard var endpoint = CredentialEndpoint(url), !endpoint.path.contains("?") else {
                throw CredentialError("\(variable) is no URL", hint: "Write it as https://host or https://host:port.")
            }
            if endpoint.path.isEmpty { endpoint.path = "/" }
            return endpoint
        }
        let region = try region()
        return CredentialEndpoint("https://sts.\(region).amazonaws.com\(region.hasPrefix("cn-") ? ".cn" : "")/")!
    }

    // MARK: - The answer

    private func ask(
        _ endpoint: CredentialEndpoint, _ headers: [(name: String, value: String)], _ body: [UInt8], _ role: Role,
        _ secrets: [SecretText?]
    ) async throws -> Credentials {
        var request = HTTPRequest("POST", endpoint.base + endpoint.path)
        request.headers = headers
        request.body = .bytes(body)
        request.bypassesProxy = endpoint.isLocal
        let response: HTTPResponse
        do {
            let exchange = CredentialExchange(transport: transport, attempts: 4, delay: settings.retryDelay)
            response = try await exchange.send(request) { Self.isBadMoment($0) }
        } catch let error as TransportError {
            throw CredentialError(
                "STS at \(endpoint.authority) does not answer: \(error.detail.safeToShow(hiding: secrets))",
                hint: "Check AWS_ENDPOINT_URL_STS and the region, and that the host may be reached from here.")
        }
        guard response.isSuccess else { throw refusal(response, endpoint, role, secrets) }
        guard let fields = SecurityTokenAnswer.keys(response.bytes) else {
            throw CredentialError(
                "STS at \(endpoint.authority) answered with something else than keys",
                hint: "Check that AWS_ENDPOINT_URL_STS or AWS_ENDPOINT_URL leads to an STS.")
        }
        return try fields.credentials(
            source: "\(role.askedBy) (role \(role.arn))", origin: "the answer of STS at \(endpoint.authority)")
    }

    /// Codes of status 400 that the SDKs ask again after.
    private static func isBadMoment(_ response: HTTPResponse) -> Bool {
        response.status == 429
            || response.status == 400
                && ["Throttling", "ThrottlingException", "RequestLimitExceeded", "IDPCommunicationError"]
                    .contains(SecurityTokenAnswer.failure(response.bytes)?.code)
    }

    private func refusal(
        _ response: HTTPResponse, _ endpoint: CredentialEndpoint, _ role: Role, _ secrets: [SecretText?]
    ) -> CredentialError {
        var text = "STS at \(endpoint.authority) refuses \(role.askedBy) the role '\(role.arn)' (status \(response.status)"
        let failure = SecurityTokenAnswer.failure(response.bytes)
        if let failure, !failure.code.isEmpty { text += ", \(failure.code.safeToShow(hiding: secrets, limit: 80))" }
        text += ")"
        // That message repeats the request, with the session token in it.
        if let failure, !failure.message.isEmpty, failure.code != "SignatureDoesNotMatch" {
            text += ": \(failure.message.safeToShow(hiding: secrets))"
        }
        return CredentialError(text, hint: Self.hint(failure?.code ?? ""))
    }

    private static func hint(_ code: String) -> String {
        switch code {
        case "AccessDenied": "Check the role's trust policy, its external id, and the permissions of whoever takes it on."
        case "ExpiredToken", "ExpiredTokenException": "Check this host's clock, and what renews the keys or the token."
        case "InvalidIdentityToken": "Check the token file and the identity provider registered with AWS."
        case "SignatureDoesNotMatch", "InvalidClientTokenId": "Check the keys that take on the role, and this host's clock."
        default: "Check the role and the keys or token that take it on."
        }
    }
}
