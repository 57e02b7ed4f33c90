import BackupBase
import Testing

@testable import ObjectStorage

/// Container agent, instance metadata and STS, over the network that may fail.
@Suite struct CredentialServiceTests {
    private var bench: CredentialBench

    init() throws { bench = try CredentialBench() }

    // MARK: - Container

    @Test mutating func `the container's token is read anew each time, and its file wins`() async throws {
        bench.variables = [
            "AWS_CONTAINER_CREDENTIALS_FULL_URI": "http://127.0.0.1:9000/v1/credentials?a=b",
            "AWS_CONTAINER_AUTHORIZATION_TOKEN": "wrong",
            "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE": try bench.write("t", "one-canary\n"),
        ]
        bench.cloud.set(\.containerPath, "/v1/credentials")
        bench.cloud.set(\.containerToken, "one-canary")
        let provider = bench.provider
        let first = try await provider.credentials()
        #expect(first.expires == 1_800_003_600_000_000_000 && first.source == "container")
        try bench.write("t", "two-canary\n")
        bench.cloud.set(\.containerToken, "two-canary")
        provider.invalidate(first)
        #expect(try await provider.credentials().accessKey == "ASIA2")
        #expect(Set(bench.cloud.asked) == ["GET http://127.0.0.1:9000/v1/credentials?a=b"])
        bench.variables["AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE"] = nil
        bench.variables["AWS_CONTAINER_AUTHORIZATION_TOKEN"] = "Bearer three-canary"
        bench.cloud.set(\.containerToken, "Bearer three-canary")
        #expect(try await bench.load().accessKey == "ASIA3")
    }

    @Test(
        arguments: [
            "https://agent.example/x", "http://127.0.0.1/x", "http://127.1.2.3:80/x", "http://localhost/x", "http://[::1]/x",
            "http://[0:0:0:0:0:0:0:1]:99/x", "http://169.254.170.2/x", "http://169.254.170.23/v1/x", "http://[fd00:ec2::23]/x",
            "HTTP://LOCALHOST/x",
        ])
    mutating func `keys are fetched over TLS or from this host`(_ url: String) async throws {
        bench.variables["AWS_CONTAINER_CREDENTIALS_FULL_URI"] = url
        let error = await bench.failure()
        #expect(bench.cloud.asked.count >= 1 && error.message.hasPrefix("the container's credential service at "))
    }

    @Test(
        arguments: [
            "http://agent.example/canary", "http://10.0.0.1/x", "http://169.254.169.254/x", "http://127.evil.example/x",
            "http://[fd00:ec2::24]/x", "http://localhost.evil.example/x", "http://0x7f.1/x", "http://127.1/x",
        ])
    mutating func `keys are not fetched in the clear from elsewhere`(_ url: String) async throws {
        bench.variables["AWS_CONTAINER_CREDENTIALS_FULL_URI"] = url
        #expect(await bench.failure().message.hasPrefix("AWS_CONTAINER_CREDENTIALS_FULL_URI leads without TLS to '"))
        #expect(bench.cloud.asked.isEmpty)
    }

    @Test(
        arguments: [
            "canary", "ftp://localhost/x", "http://", "http://localhost@evil.example/x", "http://evil.example\\@localhost/x",
            "http://localhost:99999/x", "http://localhost:x/", "http://[::1/x", "http://local host/", "http://localhost/#x",
            "http://[::1%25lo]/x",
        ])
    mutating func `what is no URL is an error`(_ url: String) async throws {
        bench.variables["AWS_CONTAINER_CREDENTIALS_FULL_URI"] = url
        #expect(await bench.failure().message == "AWS_CONTAINER_CREDENTIALS_FULL_URI is no URL")
        bench.variables["AWS_CONTAINER_CREDENTIALS_RELATIVE_URI"] = ".evil.example/canary"
        #expect(
            await bench.failure().message == "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI is no path that begins with '/'")
    }

    @Test mutating func `what the container's service does wrong is told`() async throws {
        bench.variables = ["AWS_CONTAINER_CREDENTIALS_RELATIVE_URI": "/v2/credentials/path-canary"]
        let service = "the container's credential service at 169.254.170.2"
        bench.cloud.fail("170.2", .status(401))
        #expect(await bench.failure().message == "\(service) answered with status 401")
        bench.cloud.fail("170.2", .body("canary"))
        #expect(await bench.failure().message == "\(service) answered with something else than keys")
        bench.cloud.fail("170.2", .body("{\"AccessKeyId\": \"A\"}"))
        #expect(await bench.failure().message == "the answer of \(service) holds no secret access key")
        bench.cloud.fail("170.2", .noAnswer(.connect), .noAnswer(.stalled), .noAnswer(.broken))
        #expect(await bench.failure().message == "\(service) does not answer: no answer from http://169.254.170.2***")
        bench.cloud.fail("170.2", .noAnswer(.connect), .status(503))
        #expect(try await bench.load().source == "container", "the third attempt")
        bench.variables["AWS_CONTAINER_AUTHORIZATION_TOKEN"] = "canary\r\nx: y"
        #expect(
            await bench.failure().message == "AWS_CONTAINER_AUTHORIZATION_TOKEN holds characters that no header may have")
        bench.variables["AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE"] = bench.path("none")
        #expect(await bench.failure().message.hasPrefix("cannot read AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE, '"))
    }

    // MARK: - Instance metadata

    @Test mutating func `an instance's keys are had with a session`() async throws {
        bench.cloud.set(\.isInstance, true)
        bench.cloud.set(\.instanceRole, "a+role@x")
        let keys = try await bench.load()
        #expect(keys.accessKey == "ASIA1" && keys.sessionToken?.reveal() == "made-token-canary+&/1==")
        #expect(keys.source == "instance role 'a+role@x'")
        let base = "http://169.254.169.254/latest"
        let roles = "\(base)/meta-data/iam/security-credentials/"
        #expect(bench.cloud.asked == ["PUT \(base)/api/token", "GET \(roles)", "GET \(roles)a%2Brole%40x"])
    }

    @Test mutating func `the metadata service may be elsewhere or switched off`() async throws {
        bench.cloud.set(\.isInstance, true)
        bench.variables["AWS_EC2_METADATA_SERVICE_ENDPOINT_MODE"] = "IPv6"
        #expect(try await bench.load().accessKey == "ASIA1")
        #expect(bench.cloud.asked.allSatisfy { $0.contains("http://[fd00:ec2::254]/latest/") })
        bench.variables["AWS_EC2_METADATA_SERVICE_ENDPOINT"] = "http://169.254.169.254/"
        #expect(try await bench.load().accessKey == "ASIA2")
        bench.variables["AWS_EC2_METADATA_SERVICE_ENDPOINT"] = "169.254.169.254"
        #expect(await bench.failure().message == "AWS_EC2_METADATA_SERVICE_ENDPOINT is no URL of a host")
        let before = bench.cloud.asked.count
        bench.variables["AWS_EC2_METADATA_DISABLED"] = "True"
        #expect(await bench.failure().hint.contains("EC2 instance metadata (AWS_EC2_METADATA_DISABLED is set)"))
        #expect(bench.cloud.asked.count == before)
    }

    @Test mutating func `where no metadata service or no role is, there are no keys`() async throws {
        bench.cloud.set(\.isInstance, true)
        bench.cloud.set(\.instanceRole, nil)
        #expect(await bench.failure().hint.contains("(the instance has no role)"))
        bench.cloud.fail("/api/token", .status(404))
        #expect(await bench.failure().hint.contains("(the instance metadata service opens no session (status 404))"))
        bench.cloud.fail("/api/token", .noAnswer(.stalled), .noAnswer(.stalled))
        let error = await bench.failure()
        #expect(error.message == "no credentials found" && error.hint.contains("does not answer"))
    }

    @Test mutating func `a metadata service that fails is an error of its own`() async throws {
        bench.cloud.set(\.isInstance, true)
        let service = "the instance metadata service"
        bench.cloud.fail("/security-credentials/", .status(500), .status(500))
        #expect(await bench.failure().message == "\(service) answered with status 500 instead of a role")
        bench.cloud.fail("/vector-db", .status(401))
        #expect(await bench.failure().message == "\(service) answered with status 401 instead of keys")
        bench.cloud.fail("/vector-db", .body("{\"Code\": \"AssumeRoleUnauthorizedAccess\"}"))
        #expect(await bench.failure().message == "\(service) has no keys for the role 'vector-db': AssumeRoleUnauthorizedAccess")
        bench.cloud.fail("/vector-db", .noAnswer(.broken), .noAnswer(.broken))
        #expect(await bench.failure().message.hasPrefix("\(service) does not answer: no answer from http://169.254.169.254/"))
        bench.cloud.fail("/api/token", .noAnswer(.connect))
        bench.cloud.fail("/vector-db", .status(503))
        #expect(try await bench.load().accessKey == "ASIA1", "each question has a second attempt")
    }

    // MARK: - STS

    private mutating func takeRole() throws {
        bench.user("AKIABASE")
        bench.role("arn:r", takers: ["AKIABASE"])
        try bench.shared(
            "[default]\nrole_arn = arn:r\nsource_profile = default\nregion = eu-west-1\n"
                + "aws_access_key_id = AKIABASE\naws_secret_access_key = static-secret-canary\n")
    }

    @Test mutating func `STS is asked where the variables, the settings or the region say`() async throws {
        try takeRole()
        func place() async throws -> String {
            _ = try await bench.load()
            return try #require(bench.cloud.asked.last)
        }
        #expect(try await place() == "POST https://sts.eu-west-1.amazonaws.com/")
        bench.variables["AWS_DEFAULT_REGION"] = "cn-north-1"
        #expect(try await place() == "POST https://sts.cn-north-1.amazonaws.com.cn/")
        bench.variables["AWS_REGION"] = "eu-west-2"
        #expect(try await place() == "POST https://sts.eu-west-2.amazonaws.com/")
        bench.settings.region = "eu-west-3"
        #expect(try await place() == "POST https://sts.eu-west-3.amazonaws.com/")
        bench.variables["AWS_ENDPOINT_URL"] = "http://sts.minio.example:9000"
        #expect(try await place() == "POST http://sts.minio.example:9000/")
        bench.variables["AWS_ENDPOINT_URL_STS"] = "https://sts.own.example:443/path/"
        #expect(try await place() == "POST https://sts.own.example/path/")
        bench.variables["AWS_ENDPOINT_URL_STS"] = "sts.own.example"
        #expect(await bench.failure().message == "AWS_ENDPOINT_URL_STS is no URL")
        bench.variables = [:]
        bench.settings.region = "evil.example/#"
        #expect(await bench.failure().message == "'evil.example/#' is no region")
    }

    @Test mutating func `STS is asked four times at the most`() async throws {
        try takeRole()
        let throttled = FakeCloud.Fault.body("<ErrorResponse><Error><Code>Throttling</Code></Error></ErrorResponse>", status: 400)
        bench.cloud.fail("sts.", .status(503), .noAnswer(.broken), throttled)
        #expect(try await bench.load().accessKey == "ASIA1")
        #expect(bench.cloud.asked.count == 4)
        bench.cloud.fail("sts.", .status(500), .status(500), .status(502), .status(500))
        #expect(
            await bench.failure().message
                == "STS at sts.eu-west-1.amazonaws.com refuses profile 'default' the role 'arn:r' (status 500)")
        #expect(bench.cloud.asked.count == 8)
        for kind in [TransportError.Kind.tls, .unusable, .tooLarge] {
            bench.cloud.fail("sts.", .noAnswer(kind))
            #expect(await bench.failure().message.hasPrefix("STS at sts.eu-west-1.amazonaws.com does not answer: no answer"))
        }
        #expect(bench.cloud.asked.count == 11, "in vain is once")
    }

    @Test(
        arguments: [
            ("canary", "STS at HOST answered with something else than keys"),
            ("{\"AssumeRoleResponse\": {\"AssumeRoleResult\": {}}}", "STS at HOST answered with something else than keys"),
            ("<Credentials><AccessKeyId>A</AccessKeyId></Credentials>", "the answer of STS at HOST holds no secret access key"),
            (
                "<Credentials><AccessKeyId><b>A</b></AccessKeyId><SecretAccessKey>canary</SecretAccessKey></Credentials>",
                "the answer of STS at HOST holds no access key id"
            ),
            ("<Credentials><AccessKeyId>A", "STS at HOST answered with something else than keys"),
            (
                "<Credentials><AccessKeyId>A</AccessKeyId><SecretAccessKey>canary</SecretAccessKey>"
                    + "<Expiration>canary</Expiration></Credentials>",
                "the expiration of the answer of STS at HOST is no time as RFC 3339 writes it"
            ),
        ])
    mutating func `an answer that is none is told`(_ body: String, _ message: String) async throws {
        try takeRole()
        bench.cloud.fail("sts.", .body(body))
        #expect(await bench.failure().message == message.replacing("HOST", with: "sts.eu-west-1.amazonaws.com"))
    }
}
