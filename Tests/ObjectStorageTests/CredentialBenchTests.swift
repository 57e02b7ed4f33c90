import BackupBase
import Foundation
import TestSupport
import Testing

@testable import ObjectStorage

/// A place to look for keys in: a home directory, variables, a clock and a cloud.
struct CredentialBench {
    private let directory: TemporaryDirectory
    let clock = Locked<Int64>(1_800_000_000_000_000_000)
    let cloud: FakeCloud
    var variables: [String: String] = [:]
    var settings = CredentialSettings()

    init() throws {
        directory = try TemporaryDirectory("credentials")
        try FileManager.default.createDirectory(atPath: directory(".aws"), withIntermediateDirectories: true)
        cloud = FakeCloud(clock: clock)
        // Nothing but what a test puts there: no metadata service either.
        cloud.set(\.isInstance, false)
        let clock = clock
        settings.now = { clock.withLock { $0 } }
        settings.retryDelay = 0.001
        settings.processTimeLimit = 60
    }

    var home: String { directory.path }
    func path(_ name: String) -> String { directory(name) }

    @discardableResult
    func write(_ name: String, _ text: String, mode: mode_t = 0o600) throws -> String {
        try Data(text.utf8).write(to: URL(filePath: directory(name)))
        chmod(directory(name), mode)
        return directory(name)
    }

    func config(_ text: String) throws { try write(".aws/config", text) }
    func shared(_ text: String) throws { try write(".aws/credentials", text) }
    func pass(seconds: Int64) { clock.withLock { $0 += seconds * 1_000_000_000 } }

    /// A role that whoever has one of the access keys may take on.
    func role(_ arn: String, takers: Set<String>? = nil, externalID: String? = nil, identity: String? = nil) {
        cloud.state.withLock {
            $0.roles[arn] = FakeCloud.Role(takers: takers, externalID: externalID, identity: identity)
        }
    }

    /// Static keys that the cloud knows: "static-secret-canary" with "AKIA…".
    func user(_ id: String, secret: String = "static-secret-canary", token: String? = nil) {
        cloud.state.withLock { $0.keys[id] = FakeCloud.Keys(secret: secret, token: token) }
    }

    var ready: CredentialSettings {
        var settings = settings
        let variables = variables.merging(["HOME": home]) { mine, _ in mine }
        settings.environment = { variables[$0] }
        return settings
    }

    var provider: CredentialProvider { CredentialProvider(settings: ready, transport: cloud) }

    func load() async throws -> Credentials { try await provider.credentials() }

    /// What went wrong; a test fails when nothing does, or when the error shows a secret.
    func failure(_ location: SourceLocation = #_sourceLocation) async -> CredentialError {
        do {
            let keys = try await load()
            Issue.record("there are keys, from \(keys.source)", sourceLocation: location)
        } catch let error as CredentialError {
            var dumped = ""
            dump(error, to: &dumped)
            #expect(!(dumped + error.hint + "\(error)").contains("canary"), sourceLocation: location)
            #expect(!error.hint.isEmpty && error.hint.hasSuffix("."), sourceLocation: location)
            #expect(!error.message.hasSuffix(".") && !error.message.contains("\n"), sourceLocation: location)
            return error
        } catch {
            Issue.record("another error: \(error)", sourceLocation: location)
        }
        return CredentialError("", hint: "")
    }
}

@Suite struct CredentialBenchTests {
    @Test func `where nothing is configured the error lists every place`() async throws {
        let error = try await CredentialBench().failure()
        #expect(error.message == "no credentials found")
        for place in [
            "key file", "AWS_ACCESS_KEY_ID", "profile 'default' in ~/.aws/credentials and ~/.aws/config",
            "AWS_WEB_IDENTITY_TOKEN_FILE", "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", "_FULL_URI",
            "EC2 instance metadata (the instance metadata service does not answer: nobody at 169.254.169.254)",
        ] { #expect(error.hint.contains(place), "\(place)") }
    }
}
