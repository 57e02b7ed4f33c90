import BackupBase
import Glibc
import Testing

@testable import ObjectStorage

@Suite struct CredentialProfileTests {
    private var bench: CredentialBench

    init() throws {
        bench = try CredentialBench()
        bench.user("AKIABASE")
    }

    private static let base = "aws_access_key_id = AKIABASE\naws_secret_access_key = static-secret-canary\n"

    // MARK: - Files

    @Test mutating func `a profile is what both files say, and the credentials file wins`() async throws {
        try bench.config("[profile a]\nregion = eu-west-1\naws_access_key_id = WRONG\n[profile \"b c\"]\n\(Self.base)")
        try bench.shared("[a]\n\(Self.base)aws_session_token = t\n")
        bench.settings.profile = "a"
        let keys = try await bench.load()
        #expect(keys.accessKey == "AKIABASE" && keys.sessionToken?.reveal() == "t" && keys.expires == nil)
        #expect(keys.source == "profile 'a'")
        bench.settings.profile = "b c"
        #expect(try await bench.load().accessKey == "AKIABASE")
    }

    @Test mutating func `in the config file only sections of profiles are profiles`() async throws {
        try bench.config("[a]\n\(Self.base)[sso-session b]\n\(Self.base)[services c]\n\(Self.base)[profiled]\n\(Self.base)")
        for name in ["a", "sso-session b", "b", "services c", "d", "profiled"] {
            bench.settings.profile = name
            #expect(await bench.failure().message.hasPrefix("there is no profile '\(name)', which the profile option names"))
        }
        bench.settings.profile = nil
        try bench.config("[profile default]\n\(Self.base)[default]\naws_access_key_id = SHORT\n")
        #expect(try await bench.load().accessKey == "AKIABASE")
    }

    @Test mutating func `the variables say where the files are`() async throws {
        bench.variables["AWS_SHARED_CREDENTIALS_FILE"] = try bench.write("my keys", "[default]\n\(Self.base)")
        #expect(try await bench.load().accessKey == "AKIABASE")
        bench.variables["AWS_SHARED_CREDENTIALS_FILE"] = "~/my keys"
        bench.variables["AWS_CONFIG_FILE"] = "/dev/null"
        #expect(try await bench.load().accessKey == "AKIABASE")
        bench.variables["AWS_CONFIG_FILE"] = bench.path("none")
        #expect(
            await bench.failure().message
                == "cannot read AWS_CONFIG_FILE, '\(bench.path("none"))': No such file or directory")
    }

    @Test(.enabled(if: geteuid() != 0, "root may read everything"))
    mutating func `a closed directory counts as empty, and a closed file is an error`() async throws {
        bench.cloud.set(\.isInstance, true)
        try bench.shared("[default]\n\(Self.base)")
        chmod(bench.path(".aws/credentials"), 0)
        #expect(
            await bench.failure().message == "cannot read the shared file, '\(bench.path(".aws/credentials"))': Permission denied"
        )
        chmod(bench.path(".aws"), 0)
        #expect(try await bench.load().source == "instance role 'vector-db'")
        chmod(bench.path(".aws"), 0o700)
    }

    @Test mutating func `a named profile that is not there is an error`() async throws {
        bench.cloud.set(\.isInstance, true)
        bench.variables["AWS_PROFILE"] = "nobody"
        let error = await bench.failure()
        #expect(
            error.message
                == "there is no profile 'nobody', which AWS_PROFILE names, in ~/.aws/credentials and ~/.aws/config")
        #expect(error.hint.contains("aws configure --profile nobody"))
    }

    @Test(
        arguments: [
            ("[default]\naws_secret_access_key = canary\n", "profile 'default' in FILES holds no access key id"),
            ("[default]\naws_access_key_id = AKIA\n", "profile 'default' in FILES holds no secret access key"),
            ("[default]\ncanary\n", "line 2 of '~/.aws/credentials' is neither a section nor 'name = value'"),
            (
                "[default]\nsso_session = s\nsso_account_id = 1\n",
                "profile 'default' signs in by SSO, which bgbackup does not do"
            ),
            ("[default]\nsource_profile = a\n", "profile 'default' has source_profile and no role_arn"),
            ("[default]\nweb_identity_token_file = a\n", "profile 'default' has web_identity_token_file and no role_arn"),
            (
                "[default]\nrole_arn = r\n\(base)",
                "profile 'default' has role_arn and none of source_profile, credential_source and web_identity_token_file"
            ),
            (
                "[default]\nrole_arn = r\nsource_profile = default\ncredential_source = Environment\n\(base)",
                "profile 'default' has both source_profile and credential_source"
            ),
            (
                "[default]\nrole_arn = r\nmfa_serial = m\nsource_profile = default\n\(base)",
                "profile 'default' has mfa_serial, and nobody is there to type a code"
            ),
            (
                "[default]\nrole_arn = r\nsource_profile = default\nduration_seconds = 60\n\(base)",
                "profile 'default' has a duration_seconds that is no number from 900 to 43200"
            ),
            (
                "[default]\nrole_arn = r\nsource_profile = default\n",
                "profile 'default' in FILES holds no access key id"
            ),
            (
                "[default]\nrole_arn = r\nsource_profile = gone\n",
                "profile 'default' names the source_profile 'gone', which is not there"
            ),
            (
                "[default]\nrole_arn = r\nsource_profile = idle\n[idle]\nregion = x\n",
                "profile 'default' names the source_profile 'idle', which has no keys"
            ),
            (
                "[default]\nrole_arn = r\nsource_profile = b\n[b]\nrole_arn = r\nsource_profile = c\n"
                    + "[c]\nrole_arn = r\nsource_profile = b\n",
                "profile 'c' leads back to itself: default → b → c → b"
            ),
            (
                "[default]\nrole_arn = r\ncredential_source = Moon\n",
                "profile 'default' has a credential_source that is none of Environment, Ec2InstanceMetadata, EcsContainer"
            ),
            (
                "[default]\nrole_arn = r\ncredential_source = Environment\n",
                "profile 'default' wants the keys of the environment, where AWS_ACCESS_KEY_ID is not set"
            ),
            (
                "[default]\nrole_arn = r\ncredential_source = EcsContainer\n",
                "profile 'default' wants the container's keys, and AWS_CONTAINER_CREDENTIALS_RELATIVE_URI is not set"
            ),
            (
                "[default]\nrole_arn = r\ncredential_source = Ec2InstanceMetadata\n",
                "profile 'default' wants the instance's keys: the instance metadata service does not answer: nobody at 169.254.169.254"
            ),
        ])
    mutating func `a broken profile is an error`(_ text: String, _ message: String) async throws {
        try bench.shared(text)
        // Good keys further on, which must not be used.
        bench.variables["AWS_WEB_IDENTITY_TOKEN_FILE"] = bench.path("never read")
        #expect(await bench.failure().message == message.replacing("FILES", with: "~/.aws/credentials and ~/.aws/config"))
    }

    // MARK: - Roles

    @Test(arguments: [true, false]) mutating func `a chain of roles ends at static keys`(_ json: Bool) async throws {
        bench.cloud.set(\.speaksJSON, json)
        try bench.config(
            """
            [profile top]
            role_arn = arn:top
            source_profile = middle
            external_id = an id & more
            role_session_name = nightly
            duration_seconds = 1800
            region = eu-north-1
            [profile middle]
            role_arn = arn:middle
            source_profile = base
            [profile base]
            \(Self.base)
            """)
        bench.role("arn:middle", takers: ["AKIABASE"])
        bench.role("arn:top", takers: ["ASIA1"], externalID: "an id & more")
        bench.settings.profile = "top"
        let keys = try await bench.load()
        #expect(keys.accessKey == "ASIA2" && keys.secretKey.reveal() == "made-secret-canary/2")
        #expect(keys.sessionToken?.reveal() == "made-token-canary+&/2==")
        #expect(keys.expires == 1_800_003_600_000_000_000)
        #expect(keys.source == "profile 'top' (role arn:top)")
        let form = bench.cloud.state.withLock { $0.lastForm }
        #expect(form["RoleSessionName"] == "nightly" && form["DurationSeconds"] == "1800")
        #expect(
            bench.cloud.asked == ["POST https://sts.us-east-1.amazonaws.com/", "POST https://sts.eu-north-1.amazonaws.com/"])
    }

    @Test mutating func `a profile may take on its role with its own static keys`() async throws {
        try bench.shared("[default]\nrole_arn = arn:r\nsource_profile = default\n\(Self.base)")
        bench.role("arn:r", takers: ["AKIABASE"])
        #expect(try await bench.load().accessKey == "ASIA1")
        #expect(bench.cloud.state.withLock { $0.lastForm["RoleSessionName"] } == "bgbackup-1800000000")
    }

    @Test mutating func `a role may be taken on with keys of the environment, the container or the instance`() async throws {
        bench.role("arn:r", takers: ["AKIABASE", "ASIA2", "ASIA4"])
        bench.variables = [
            "AWS_ACCESS_KEY_ID": "AKIABASE", "AWS_SECRET_ACCESS_KEY": "static-secret-canary",
            "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI": "/v2/credentials/path-canary",
        ]
        bench.cloud.set(\.isInstance, true)
        bench.settings.profile = "p"
        for (source, count) in [("Environment", 1), ("EcsContainer", 3), ("Ec2InstanceMetadata", 5)] {
            try bench.config("[profile p]\nrole_arn = arn:r\ncredential_source = \(source)\n")
            #expect(try await bench.load().source == "profile 'p' (role arn:r)")
            #expect(bench.cloud.made == count)
        }
    }

    @Test mutating func `a role may be taken on with a web identity`() async throws {
        bench.role("arn:r", identity: "web-canary")
        try bench.write("token", "web-canary\n")
        try bench.config("[default]\nrole_arn = arn:r\nweb_identity_token_file = ~/token\nregion = eu-west-1\n")
        #expect(try await bench.load().accessKey == "ASIA1")
        #expect(bench.cloud.asked == ["POST https://sts.eu-west-1.amazonaws.com/"])
    }

    @Test(arguments: [true, false]) mutating func `a refusal says who refuses whom what`(_ json: Bool) async throws {
        bench.cloud.set(\.speaksJSON, json)
        try bench.shared("[default]\nrole_arn = arn:r\nsource_profile = default\n\(Self.base)")
        bench.role("arn:r", takers: [])
        let error = await bench.failure()
        #expect(
            error.message
                == "STS at sts.us-east-1.amazonaws.com refuses profile 'default' the role 'arn:r' (status 403, AccessDenied):"
                + " AKIABASE is not authorized to perform: sts:AssumeRole")
        #expect(error.hint.contains("trust policy"))
        bench.user("AKIABASE", secret: "another-canary")
        #expect(
            await bench.failure().message
                == "STS at sts.us-east-1.amazonaws.com refuses profile 'default' the role 'arn:r' (status 403, SignatureDoesNotMatch)"
        )
    }
}
