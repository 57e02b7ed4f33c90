import BackupBase
import Foundation
import Glibc
import Testing

@testable import ObjectStorage

/// Real programs, which do well or badly.
@Suite struct CredentialProcessTests {
    private var bench: CredentialBench

    init() throws { bench = try CredentialBench() }

    /// A script that `credential_process` of the default profile starts.
    private func program(_ script: String, arguments: String = "") throws {
        try bench.write("my program", "#!/bin/sh\n\(script)\n", mode: 0o700)
        try bench.config("[default]\ncredential_process = '\(bench.path("my program"))' \(arguments)\n")
    }

    private var name: String { "the credential_process of profile 'default' ('\(bench.path("my program"))')" }

    private static let keys =
        "{\"Version\": 1, \"AccessKeyId\": \"AKIA\", \"SecretAccessKey\": \"s\", \"SessionToken\": \"t\", "
        + "\"Expiration\": \"2027-01-15T09:00:00Z\"}"

    @Test func `a program's keys are used`() async throws {
        try program("echo error-canary >&2; echo '\(Self.keys)'")
        let keys = try await bench.load()
        #expect(keys.accessKey == "AKIA" && keys.secretKey.reveal() == "s" && keys.sessionToken?.reveal() == "t")
        #expect(keys.expires == 1_800_003_600_000_000_000 && keys.source == "profile 'default' (credential_process)")
    }

    @Test func `a program gets its arguments as they are, no input, and a clean state`() async throws {
        // What it was started with becomes the secret key, which is what a test may look at.
        try program(
            "blocked=$(sed -n 's/^SigBlk:\\t//p' /proc/$$/status); read line; "
                + "printf '{\"Version\": 1, \"AccessKeyId\": \"A\", \"SecretAccessKey\": \"%s|%s|%s|%s|%s\"}' \"$#\" \"$1\" \"$2\" \"$line\" \"$blocked\"",
            arguments: "'a  $HOME' b\\ *")
        #expect(try await bench.load().secretKey.reveal() == "2|a  $HOME|b *||0000000000000000")
    }

    @Test(
        arguments: [
            ("echo canary; echo canary >&2; exit 3", "NAME ended with status 3"),
            ("echo canary; kill -TERM $$", "NAME was ended by signal 15"),
            ("echo canary", "NAME printed no JSON object with keys"), ("", "NAME printed no JSON object with keys"),
            ("echo '{\"AccessKeyId\": \"A\", \"SecretAccessKey\": \"canary\"}'", "NAME printed keys whose Version is not 1"),
            (
                "echo '{\"Version\": 2, \"AccessKeyId\": \"A\", \"SecretAccessKey\": \"canary\"}'",
                "NAME printed keys whose Version is not 1"
            ),
            ("echo '{\"Version\": 1, \"SecretAccessKey\": \"canary\"}'", "the output of NAME holds no access key id"),
            (
                "echo '{\"Version\": 1, \"AccessKeyId\": \"A\", \"SecretAccessKey\": \"canary\", \"Expiration\": \"canary\"}'",
                "the expiration of the output of NAME is no time as RFC 3339 writes it"
            ),
            (
                "echo '{\"Version\": 1, \"AccessKeyId\": \"A\", \"SecretAccessKey\": \"c\", \"Expiration\": \"2027-01-15T07:00:00Z\"}'",
                "the keys from profile 'default' (credential_process) ended at 2027-01-15T07:00:00Z"
            ),
        ])
    func `what a program does wrong is told, and nothing of what it said`(_ script: String, _ message: String) async throws {
        try program(script, arguments: "--password canary")
        #expect(await bench.failure().message == message.replacing("NAME", with: name))
    }

    @Test(
        arguments: [
            ("'canary", "has a quote that is not closed"), ("x canary\\", "ends with a backslash"), ("''", "names no program"),
        ])
    func `a command that is none is told`(_ command: String, _ what: String) async throws {
        try bench.config("[default]\ncredential_process = \(command)\n")
        #expect(await bench.failure().message == "the credential_process of profile 'default' \(what)")
    }

    @Test func `a program that cannot be started is told`() async throws {
        try bench.config("[default]\ncredential_process = /no/such/program canary\n")
        #expect(
            await bench.failure().message
                == "the credential_process of profile 'default' ('/no/such/program') cannot be started: No such file or directory"
        )
        try bench.config("[default]\ncredential_process = bgbackup-no-such-program\n")
        // Which errno depends on the directories of PATH.
        #expect(await bench.failure().message.contains("('bgbackup-no-such-program') cannot be started: "))
        try bench.write("my program", "#!/bin/sh\n", mode: 0o600)
        try bench.config("[default]\ncredential_process = '\(bench.path("my program"))'\n")
        #expect(await bench.failure().message == "\(name) cannot be started: Permission denied")
    }

    /// Whether the process that wrote its number there is gone; a zombie counts as gone.
    private func isGone(_ file: String) async throws -> Bool {
        let text = try String(contentsOfFile: bench.path(file), encoding: .utf8).trimmingCharacters(in: .whitespacesAndNewlines)
        for _ in 0..<6000 {
            guard let status = try? String(contentsOfFile: "/proc/\(text)/stat", encoding: .utf8) else { return true }
            if status.contains(") Z ") { return true }
            try await Task.sleep(for: .milliseconds(10))
        }
        return false
    }

    @Test mutating func `a program that hangs is ended, with what it started`() async throws {
        try program("sleep 600 & echo $! > '\(bench.path("child"))'; echo canary; sleep 600")
        bench.settings.processTimeLimit = 0.3
        let start = monotonicSeconds()
        #expect(await bench.failure().message == "\(name) did not end within 0.30s")
        #expect(monotonicSeconds() - start < 200)
        #expect(try await isGone("child"))
    }

    @Test mutating func `a program that closes its output and hangs is ended`() async throws {
        try program("echo $$ > '\(bench.path("child"))'; exec >&-; sleep 600")
        bench.settings.processTimeLimit = 0.3
        #expect(await bench.failure().message == "\(name) did not end within 0.30s")
        #expect(try await isGone("child"))
    }

    @Test func `a program that prints without end is ended`() async throws {
        try program("echo $$ > '\(bench.path("child"))'; while :; do echo canary canary canary canary; done")
        #expect(await bench.failure().message == "\(name) printed more than 64.0 KiB")
        #expect(try await isGone("child"))
    }

    @Test func `a helper that a program leaves behind does not hold its keys up`() async throws {
        try program("sleep 600 & echo $! > '\(bench.path("child"))'; echo '\(Self.keys)'")
        #expect(try await bench.load().accessKey == "AKIA", "within the limit of a minute")
        let helper = try String(contentsOfFile: bench.path("child"), encoding: .utf8)
        #expect(kill(try #require(pid_t(helper.trimmingCharacters(in: .whitespacesAndNewlines))), SIGKILL) == 0)
    }

    @Test func `sixty-four KiB may be printed`() async throws {
        let space = String(repeating: " ", count: (64 << 10) - Self.keys.utf8.count)
        try bench.write("answer", Self.keys + space)
        try program("cat '\(bench.path("answer"))'")
        #expect(try await bench.load().accessKey == "AKIA")
        try bench.write("answer", Self.keys + space + " ")
        #expect(await bench.failure().message == "\(name) printed more than 64.0 KiB")
    }

    @Test func `a cancelled task does not wait for a program`() async throws {
        try program("echo $$ > '\(bench.path("child"))'; exec sleep 600")
        let provider = bench.provider
        let task = Task { try await provider.credentials() }
        while (try? Data(contentsOf: URL(filePath: bench.path("child"))))?.isEmpty ?? true {
            try await Task.sleep(for: .milliseconds(5))
        }
        let start = monotonicSeconds()
        task.cancel()
        await #expect(throws: CancellationError.self) { try await task.value }
        #expect(monotonicSeconds() - start < 200)
        #expect(try await isGone("child"))
    }

    @Test func `programs of many providers run side by side`() async throws {
        // Each waits for all, and they are more than cooperative threads: none of those may be held.
        let meeting = bench.path("meeting")
        try FileManager.default.createDirectory(atPath: meeting, withIntermediateDirectories: true)
        try program(
            "touch '\(meeting)'/$$; while [ $(ls '\(meeting)' | wc -l) -lt 16 ]; do sleep 0.05; done; echo '\(Self.keys)'")
        let bench = bench
        try await withThrowingTaskGroup(of: Credentials.self) { group in
            for _ in 0..<16 { group.addTask { try await bench.load() } }
            try await group.waitForAll()
        }
    }

    @Test func `no file descriptor is left open`() async throws {
        try program("exit 1")
        _ = await bench.failure()
        // Other tests open files meanwhile; fifty of ours would show.
        let before = try FileManager.default.contentsOfDirectory(atPath: "/proc/self/fd").count
        for _ in 0..<50 { _ = await bench.failure() }
        #expect(try FileManager.default.contentsOfDirectory(atPath: "/proc/self/fd").count < before + 40)
    }
}
