import BackupBase
import Glibc
import Testing

@testable import ObjectStorage

/// Which place wins, and what is said of a place that is configured and broken.
@Suite struct CredentialChainTests {
    private var bench: CredentialBench

    init() throws { bench = try CredentialBench() }

    private func keys(_ prefix: String) -> String {
        "aws_access_key_id = \(prefix)\naws_secret_access_key = secret-canary\n"
    }

    // MARK: - Precedence

    /// From the last place to the first: each one added wins over those before.
    @Test mutating func `each place wins over those after it`() async throws {
        bench.cloud.set(\.isInstance, true)
        #expect(try await bench.load().source == "instance role 'vector-db'")
        bench.variables["AWS_CONTAINER_CREDENTIALS_RELATIVE_URI"] = "/v2/credentials/path-canary"
        #expect(try await bench.load().source == "container")
        bench.variables["AWS_WEB_IDENTITY_TOKEN_FILE"] = try bench.write("token", "web-canary\n")
        bench.variables["AWS_ROLE_ARN"] = "arn:pod"
        bench.role("arn:pod", identity: "web-canary")
        #expect(try await bench.load().source == "web identity (role arn:pod)")
        try bench.shared("[default]\n\(keys("AKIADEFAULT"))[other]\n\(keys("AKIAOTHER"))")
        #expect(try await bench.load().source == "profile 'default'")
        bench.variables["AWS_PROFILE"] = "other"
        #expect(try await bench.load().accessKey == "AKIAOTHER")
        bench.variables["AWS_ACCESS_KEY_ID"] = "AKIAENVIRONMENT"
        bench.variables["AWS_SECRET_ACCESS_KEY"] = "secret-canary"
        #expect(try await bench.load().source == "environment")
        bench.settings.profile = "default"
        #expect(try await bench.load().accessKey == "AKIADEFAULT")
        bench.settings.profile = nil
        bench.settings.keyFile = try bench.write("keys", "[default]\n\(keys("AKIAFILE"))")
        #expect(try await bench.load().accessKey == "AKIAFILE")
        bench.settings.keyFile = "~/keys"
        #expect(try await bench.load().source == "key file '\(bench.path("keys"))'")
    }

    @Test mutating func `a profile that names only a region does not end the search`() async throws {
        try bench.config("[default]\nregion = eu-west-1\n[profile p]\nregion = eu-west-3\n")
        bench.cloud.set(\.isInstance, true)
        #expect(try await bench.load().source == "instance role 'vector-db'")
        bench.settings.profile = "p"
        #expect(try await bench.load().source == "instance role 'vector-db'")
        #expect(profileRegion(bench.ready) == "eu-west-3")
    }

    @Test mutating func `the region is the selected profile's, and nil when there is none`() throws {
        #expect(profileRegion(bench.ready) == nil)
        try bench.config("[default]\nregion = a\n[profile q]\nregion=b\n")
        #expect(profileRegion(bench.ready) == "a")
        bench.variables["AWS_PROFILE"] = "q"
        #expect(profileRegion(bench.ready) == "b")
        bench.settings.profile = "missing"
        #expect(profileRegion(bench.ready) == nil)
        try bench.config("broken\n")
        #expect(profileRegion(bench.ready) == nil)
    }

    // MARK: - Environment

    @Test mutating func `keys of the environment are read whole`() async throws {
        bench.variables = [
            "AWS_ACCESS_KEY_ID": "AKIA", "AWS_SECRET_ACCESS_KEY": "s", "AWS_SESSION_TOKEN": "t",
            "AWS_CREDENTIAL_EXPIRATION": "2027-01-15T09:00:00Z",
        ]
        let keys = try await bench.load()
        #expect(keys.accessKey == "AKIA" && keys.secretKey.reveal() == "s" && keys.sessionToken?.reveal() == "t")
        #expect(keys.expires == 1_800_003_600_000_000_000)
        bench.variables["AWS_SESSION_TOKEN"] = ""
        bench.variables["AWS_CREDENTIAL_EXPIRATION"] = nil
        #expect(try await bench.load().sessionToken == nil)
        #expect(try await bench.load().expires == nil)
    }

    @Test(
        arguments: [
            (["AWS_ACCESS_KEY_ID": "AKIA"], "AWS_ACCESS_KEY_ID is set and AWS_SECRET_ACCESS_KEY is not"),
            (["AWS_SECRET_ACCESS_KEY": "canary"], "AWS_SECRET_ACCESS_KEY is set and AWS_ACCESS_KEY_ID is not"),
            (
                ["AWS_ACCESS_KEY_ID": "AK\nX: canary", "AWS_SECRET_ACCESS_KEY": "canary"],
                "the access key id of the environment (AWS_ACCESS_KEY_ID and the others) holds characters that no key has"
            ),
            (
                ["AWS_ACCESS_KEY_ID": "AK", "AWS_SECRET_ACCESS_KEY": "canary", "AWS_SESSION_TOKEN": "canary\r\nx: y"],
                "the session token of the environment (AWS_ACCESS_KEY_ID and the others) holds characters that no token has"
            ),
            (
                ["AWS_ACCESS_KEY_ID": "AK", "AWS_SECRET_ACCESS_KEY": "canary", "AWS_CREDENTIAL_EXPIRATION": "soon"],
                "the expiration of the environment (AWS_ACCESS_KEY_ID and the others) is no time as RFC 3339 writes it"
            ),
            (
                [
                    "AWS_ACCESS_KEY_ID": "AK", "AWS_SECRET_ACCESS_KEY": "canary",
                    "AWS_CREDENTIAL_EXPIRATION": "2027-01-15T07:00:00Z",
                ],
                "the keys from environment ended at 2027-01-15T07:00:00Z"
            ),
        ])
    mutating func `half or broken keys in the environment are an error`(_ variables: [String: String], _ message: String)
        async throws
    {
        bench.variables = variables
        // There are good keys further on, which must not be used.
        try bench.shared("[default]\n\(keys("AKIA"))")
        #expect(await bench.failure().message == message)
    }

    // MARK: - Key file

    @Test(
        arguments: [
            "[default]\naws_access_key_id = AKIA\naws_secret_access_key = s\naws_session_token = t\n",
            "{\"Version\": 1, \"AccessKeyId\": \"AKIA\", \"SecretAccessKey\": \"s\", \"SessionToken\": \"t\"}",
            "\n {\"Credentials\": {\"AccessKeyId\": \"AKIA\", \"SecretAccessKey\": \"s\", \"SessionToken\": \"t\"}}",
            "{\"AccessKey\": {\"UserName\": \"u\", \"AccessKeyId\": \"AKIA\", \"SecretAccessKey\": \"s\", \"Token\": \"t\"}}",
        ])
    mutating func `a key file is INI, or JSON as AWS tools print it`(_ text: String) async throws {
        bench.settings.keyFile = try bench.write("keys", text)
        // Somebody's AWS_PROFILE is not about this file.
        bench.variables["AWS_PROFILE"] = "somebody"
        let keys = try await bench.load()
        #expect(keys.accessKey == "AKIA" && keys.secretKey.reveal() == "s" && keys.sessionToken?.reveal() == "t")
    }

    @Test mutating func `the profile option chooses the key file's section`() async throws {
        bench.settings.keyFile = try bench.write("keys", "[default]\n\(keys("A"))[b]\n\(keys("B"))")
        bench.settings.profile = "b"
        #expect(try await bench.load().accessKey == "B")
        bench.settings.profile = "c"
        #expect(await bench.failure().message == "the key file '\(bench.path("keys"))' has no section [c]")
    }

    @Test(
        arguments: [
            ("{\"AccessKeyId\": 5}", "FILE is no JSON object with AccessKeyId and SecretAccessKey"),
            ("{\"AccessKeyId\": \"canary\"", "FILE is no JSON object with AccessKeyId and SecretAccessKey"),
            ("{\"SecretAccessKey\": \"canary\"}", "FILE holds no access key id"),
            ("{\"AccessKeyId\": \"AKIA\", \"SecretAccessKey\": \"\"}", "FILE holds no secret access key"),
            ("[default]\naws_secret_access_key = canary\n", "FILE holds no access key id"),
            ("[default]\naws_access_key_id = AKIA\n", "FILE holds no secret access key"),
            ("AKIA:canary\n", "FILE cannot be used: its line 1 stands before any section"),
            ("[default]\ncanary\n", "FILE cannot be used: its line 2 is neither a section nor 'name = value'"),
            ("", "FILE has no section [default]"),
            (
                "{\"AccessKeyId\": \"AKIA\", \"SecretAccessKey\": \"canary\", \"Expiration\": \"canary\"}",
                "the expiration of FILE is no time as RFC 3339 writes it"
            ),
            (
                "{\"AccessKeyId\": \"AKIA\", \"SecretAccessKey\": \"canary\", \"Expiration\": \"2027-01-15T08:00:30Z\"}",
                "the keys from KEYS end at 2027-01-15T08:00:30Z, in less than a minute"
            ),
        ])
    mutating func `a broken key file is an error and its name is told`(_ text: String, _ message: String) async throws {
        let path = try bench.write("keys", text)
        bench.settings.keyFile = path
        bench.variables = ["AWS_ACCESS_KEY_ID": "AKIA", "AWS_SECRET_ACCESS_KEY": "canary"]
        let expected = message.replacing("FILE", with: "the key file '\(path)'").replacing("KEYS", with: "key file '\(path)'")
        #expect(await bench.failure().message == expected)
    }

    @Test(.timeLimit(.minutes(1))) mutating func `a key file that cannot be read is an error`() async throws {
        bench.settings.keyFile = bench.path("none")
        #expect(
            await bench.failure().message
                == "cannot read the key file, '\(bench.path("none"))': No such file or directory")
        bench.settings.keyFile = bench.home
        #expect(await bench.failure().message.hasSuffix("': it is no regular file"))
        bench.settings.keyFile = try bench.write("large", String(repeating: "#canary\n", count: 1 << 18))
        #expect(await bench.failure().message.hasSuffix("': it is larger than 1 MiB"))
        let pipe = bench.path("pipe")
        #expect(mkfifo(pipe, 0o600) == 0)
        bench.settings.keyFile = pipe
        #expect(await bench.failure().message.hasSuffix("': it is no regular file"), "and nobody waits for a writer")
    }

    // MARK: - Web identity

    @Test mutating func `web identity takes the role of the environment`() async throws {
        bench.role("arn:pod", identity: "web-canary")
        bench.variables = [
            "AWS_WEB_IDENTITY_TOKEN_FILE": try bench.write("token", "web-canary"), "AWS_ROLE_ARN": "arn:pod",
            "AWS_ROLE_SESSION_NAME": "pod-7", "AWS_REGION": "eu-central-1",
        ]
        let keys = try await bench.load()
        #expect(keys.expires == 1_800_003_600_000_000_000)
        #expect(bench.cloud.asked == ["POST https://sts.eu-central-1.amazonaws.com/"])
        #expect(bench.cloud.state.withLock { $0.lastForm["RoleSessionName"] } == "pod-7")
    }

    @Test mutating func `a web identity without a role or with a bad token is an error`() async throws {
        bench.variables = ["AWS_WEB_IDENTITY_TOKEN_FILE": bench.path("token")]
        #expect(await bench.failure().message == "AWS_WEB_IDENTITY_TOKEN_FILE is set and AWS_ROLE_ARN is not")
        bench.variables["AWS_ROLE_ARN"] = "arn:pod"
        #expect(await bench.failure().message.hasPrefix("cannot read AWS_WEB_IDENTITY_TOKEN_FILE, '"))
        try bench.write("token", "canary\ncanary")
        #expect(await bench.failure().message.hasSuffix("does not hold a token of printable characters in one line"))
        bench.role("arn:pod", identity: "right-canary")
        try bench.write("token", "wrong-canary")
        #expect(
            await bench.failure().message
                == "STS at sts.us-east-1.amazonaws.com refuses web identity the role 'arn:pod' (status 403, InvalidIdentityToken):"
                + " bad token ***")
    }
}
