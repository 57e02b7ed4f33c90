import BackupBase

/// The keys of an ECS task or an EKS pod, from the agent that the environment
/// names (AWS SDKs and Tools Reference Guide, "Container credential provider").
struct ContainerService: Sendable {
    private static let host = "http://169.254.170.2"
    private static let relative = "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI"
    private static let full = "AWS_CONTAINER_CREDENTIALS_FULL_URI"

    var settings: CredentialSettings
    var transport: any HTTPTransport

    var isConfigured: Bool { settings.variable(Self.relative) != nil || settings.variable(Self.full) != nil }

    func credentials() async throws -> Credentials {
        let (endpoint, variable) = try endpoint()
        let service = "the container's credential service at \(endpoint.authority)"
        var request = HTTPRequest("GET", endpoint.base + endpoint.path)
        request.headers = [("accept", "application/json")]
        let token = try authorization()
        if let token { request.headers.append(("authorization", token.reveal())) }
        request.bypassesProxy = endpoint.isLocal
        (request.connectTimeout, request.stallTimeout) = (2, 5)
        let response: HTTPResponse
        do {
            response = try await CredentialExchange(transport: transport, attempts: 3, delay: settings.retryDelay).send(request)
        } catch let error as TransportError {
            // On ECS the path is all that keeps one container from another's keys.
            let why = error.detail.safeToShow(hiding: [token, SecretText(endpoint.path)])
            throw CredentialError("\(service) does not answer: \(why)", hint: "Check \(variable).")
        }
        guard response.isSuccess else {
            throw CredentialError(
                "\(service) answered with status \(response.status)",
                hint: "Check \(variable), its authorization token, and the role of the task or pod.")
        }
        guard let fields = KeyFields(json: response.bytes) else {
            throw CredentialError("\(service) answered with something else than keys", hint: "Check \(variable).")
        }
        return try fields.credentials(source: "container", origin: "the answer of \(service)")
    }

    private func endpoint() throws -> (CredentialEndpoint, variable: String) {
        if let path = settings.variable(Self.relative) {
            guard path.hasPrefix("/"), let endpoint = CredentialEndpoint(Self.host + path) else {
                throw CredentialError("\(Self.relative) is no path that begins with '/'", hint: "ECS sets this variable itself.")
            }
            return (endpoint, Self.relative)
        }
        guard let endpoint = CredentialEndpoint(settings.variable(Self.full) ?? "") else {
            throw CredentialError("\(Self.full) is no URL", hint: "EKS sets this variable itself.")
        }
        guard endpoint.isSecure || endpoint.isLocal else {
            throw CredentialError(
                "\(Self.full) leads without TLS to '\(endpoint.host)', which is not this host",
                hint: "Use an https URL, or the address of the ECS or EKS agent.")
        }
        return (endpoint, Self.full)
    }

    /// Read each time: EKS replaces the file while the pod runs. The file wins, as in the SDKs.
    private func authorization() throws -> SecretText? {
        let (file, variable) = ("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", "AWS_CONTAINER_AUTHORIZATION_TOKEN")
        if let path = settings.variable(file) { return try CredentialFile.requireToken(path, what: file) }
        guard let token = settings.variable(variable) else { return nil }
        // "Bearer x" is allowed, a line end is not.
        guard token.utf8.allSatisfy({ (0x20...0x7e).contains($0) }) else {
            throw CredentialError("\(variable) holds characters that no header may have", hint: "Check what sets this variable.")
        }
        return SecretText(token)
    }
}
