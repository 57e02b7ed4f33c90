import BackupBase

/// The keys of an EC2 instance's role (Amazon EC2 User Guide, "Use the Instance
/// Metadata Service", version 2: nothing is read without a session's token).
struct InstanceMetadata: Sendable {
    /// Why there are no keys to be had here: not an error of its own, since nobody
    /// configured this source. It is what is asked when all else is silent.
    struct Absent: Error {
        var reason: String
    }

    private static let service = "the instance metadata service"
    private static let roles = "/latest/meta-data/iam/security-credentials/"

    var settings: CredentialSettings
    var transport: any HTTPTransport

    func credentials() async throws -> Credentials {
        if settings.variable("AWS_EC2_METADATA_DISABLED")?.lowercased() == "true" {
            throw Absent(reason: "AWS_EC2_METADATA_DISABLED is set")
        }
        let base = try base()
        let token = try await sessionToken(base)
        let role = try await role(base, token)
        let response = try await ask("GET", base + Self.roles + RequestSigner.encode(role), token)
        guard response.isSuccess, let fields = KeyFields(json: response.bytes) else { throw refusal(response.status, "keys") }
        guard fields.code == nil || fields.code == "Success" else {
            throw CredentialError(
                "\(Self.service) has no keys for the role '\(role)': \(fields.code!.safeToShow(limit: 80))",
                hint: "Check the trust policy of the instance's role.")
        }
        return try fields.credentials(source: "instance role '\(role)'", origin: "the answer of \(Self.service)")
    }

    private func base() throws -> String {
        let variable = "AWS_EC2_METADATA_SERVICE_ENDPOINT"
        let isIPv6 = settings.variable("AWS_EC2_METADATA_SERVICE_ENDPOINT_MODE")?.lowercased() == "ipv6"
        let text = settings.variable(variable) ?? (isIPv6 ? "http://[fd00:ec2::254]" : "http://169.254.169.254")
        guard let endpoint = CredentialEndpoint(text), ["", "/"].contains(endpoint.path) else {
            throw CredentialError("\(variable) is no URL of a host", hint: "Write it as http://host, without a path.")
        }
        return endpoint.base
    }

    /// A token for the next two questions. Whoever does not hand one out is no
    /// metadata service of version 2: another cloud's answers 404 here.
    private func sessionToken(_ base: String) async throws -> SecretText {
        let response: HTTPResponse
        do {
            response = try await ask("PUT", base + "/latest/api/token", nil)
        } catch let error as CredentialError {
            throw Absent(reason: error.message)
        }
        let token = response.text.trimmingSpace()
        guard response.isSuccess, Credentials.isHeaderSafe(token) else {
            throw Absent(reason: "\(Self.service) opens no session (status \(response.status))")
        }
        return SecretText(token)
    }

    private func role(_ base: String, _ token: SecretText) async throws -> String {
        let response = try await ask("GET", base + Self.roles, token)
        if response.status == 404 { throw Absent(reason: "the instance has no role") }
        let name = response.text.prefix { !$0.isNewline }
        guard response.isSuccess, Credentials.isHeaderSafe(String(name)), name.utf8.count <= 128 else {
            throw refusal(response.status, "a role")
        }
        return String(name)
    }

    private func ask(_ method: String, _ url: String, _ token: SecretText?) async throws -> HTTPResponse {
        var request = HTTPRequest(method, url)
        request.bypassesProxy = true
        (request.connectTimeout, request.stallTimeout) = (1, 2)
        if let token {
            request.headers = [("x-aws-ec2-metadata-token", token.reveal())]
        } else {
            request.headers = [("x-aws-ec2-metadata-token-ttl-seconds", "300")]
        }
        do {
            return try await CredentialExchange(transport: transport, attempts: 2, delay: settings.retryDelay).send(request)
        } catch let error as TransportError {
            throw CredentialError(
                "\(Self.service) does not answer: \(error.detail.safeToShow(hiding: [token]))",
                hint: "In a container its hop limit must be 2 or more.")
        }
    }

    private func refusal(_ status: Int, _ what: String) -> CredentialError {
        CredentialError(
            "\(Self.service) answered with status \(status) instead of \(what)", hint: "Check that the instance has a role.")
    }
}
