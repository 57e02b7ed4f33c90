import BackupBase
import Testing

@testable import ObjectStorage

/// No secret is seen in what is printed, described, reflected or dumped. (Every
/// error of the other suites is looked through by `CredentialBench.failure`.)
@Suite struct CredentialSecrecyTests {
    private var bench: CredentialBench

    init() throws { bench = try CredentialBench() }

    /// All that Swift shows of a value, however it is asked.
    private func shown(_ value: Any) -> String {
        var text = ""
        dump(value, to: &text)
        debugPrint(value, to: &text)
        print(value, to: &text)
        return text + String(reflecting: value) + "\(value)"
    }

    private func isSilent(_ value: Any, _ location: SourceLocation = #_sourceLocation) {
        #expect(!shown(value).contains("canary"), sourceLocation: location)
    }

    @Test func `the check finds what is not hidden`() {
        #expect(shown(["a": ("x", ["canary"])]).contains("canary"))
        #expect(shown(KeyFields.Expiration.text("canary")).contains("canary"))
    }

    @Test func `values with secrets in them do not show them`() throws {
        let secret = SecretText("canary")
        isSilent(secret)
        isSilent(Credentials(accessKey: "A", secretKey: secret, sessionToken: secret, expires: 1, source: "s"))
        var fields = KeyFields()
        (fields.secretKey, fields.token) = (secret, secret)
        isSilent(fields)
        isSilent(try #require(KeyFields(json: Array("{\"SecretAccessKey\": \"canary\", \"Token\": \"canary\"}".utf8))))
        isSilent(try INIDocument(Array("[a]\naws_secret_access_key = canary\n".utf8)))
        isSilent(Profile("a", ["aws_secret_access_key": secret]))
        let body = "<Credentials><SecretAccessKey>canary</SecretAccessKey><SessionToken>canary</SessionToken></Credentials>"
        isSilent(try #require(SecurityTokenAnswer.keys(Array(body.utf8))))
    }

    @Test mutating func `no source of keys shows them, before or after it was asked`() async throws {
        bench.variables = ["AWS_ACCESS_KEY_ID": "A", "AWS_SECRET_ACCESS_KEY": "canary", "AWS_SESSION_TOKEN": "canary"]
        try bench.shared("[default]\naws_access_key_id = A\naws_secret_access_key = canary\naws_session_token = canary\n")
        let settings = bench.ready
        // A cloud without secrets of its own, since it stands inside these values.
        let transport = NoTransport()
        let profiles = try ProfileSet(settings)
        isSilent(settings)
        isSilent(profiles)
        isSilent(try #require(profiles["default"]))
        isSilent(ProfileKeys(settings: settings, transport: transport, profiles: profiles))
        isSilent(EnvironmentKeys(settings: settings))
        isSilent(ContainerService(settings: settings, transport: transport))
        isSilent(InstanceMetadata(settings: settings, transport: transport))
        isSilent(SecurityTokenService(settings: settings, transport: transport))
        isSilent(KeyFile(path: "p", section: "s"))
        isSilent(CredentialChain(settings: settings, transport: transport))
        let provider = CredentialProvider(settings: settings, transport: transport)
        isSilent(provider)
        isSilent(try await provider.credentials())
        isSilent(provider)
    }

    private struct NoTransport: HTTPTransport {
        func send(_ request: HTTPRequest) async throws -> HTTPResponse { throw TransportError(kind: .connect, detail: "none") }
    }

    @Test func `what a server says is shown without secrets, in one line, and not at length`() {
        let secret = SecretText("top+secret/canary==")
        let echo = "a top+secret/canary== b top%2Bsecret%2Fcanary%3D%3D\r\n\u{1b}[31mc\u{202e}"
        #expect(echo.safeToShow(hiding: [secret, nil, SecretText("")]) == "a *** b ***???[31mc?")
        #expect("canary\u{301}".safeToShow(hiding: [SecretText("canary")]) == "***?")
        #expect(String(repeating: "x", count: 400).safeToShow(limit: 10) == "xxxxxxxxxx…")
        // Hidden before it is cut: half a secret is one too.
        #expect("xxxx canary".safeToShow(hiding: [SecretText("canary")], limit: 8) == "xxxx ***")
    }
}
