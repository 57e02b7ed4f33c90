import BackupBase
import Foundation
import Glibc
import TestSupport
import Testing

/// Keys of the store, of its encryption and of the repository are where the
/// user put them, and nowhere else.
// One at a time: a test looks through all processes for what another one gives to a program in a variable.
@Suite("Secrets of an S3 store", .serialized, .enabled(if: S3Server.available.contains(.strict), "needs the strict S3 server"))
struct S3SecretTests {
    private let server: S3Server
    private let workspace: Workspace
    private let volume: Volume
    /// By what they are. With signs that a URL encodes.
    private let secrets: [String: String]

    init() throws {
        func canary(_ name: String) -> String { "\(name)+/=\(UUID().uuidString)" }
        let (secret, token) = (canary("sec"), canary("web"))
        let sse = noise(32, seed: UInt64.random(in: 1 ... .max))
        server = try S3Server(
            .strict,
            configuration: """
                {"keys": [{"access": "CANARYACCESS", "secret": "\(secret)"}], "sts": {"webTokens": ["\(token)"]}}
                """)
        var workspace = try Workspace("secrets", initialize: false, server: server)
        volume = try Volume.small(workspace.path("volume"))
        let kept = try Volume(workspace.path("kept"))
        try kept.write("sse-key", sse)
        try kept.write("web-token", token)
        try kept.write("keys", "[default]\naws_access_key_id = CANARYACCESS\naws_secret_access_key = \(secret)\n")
        let password = canary("pass")
        try kept.write("password", password)
        let answer = try server.control("GET", "credentials?access=CANARYACCESS")
        try kept.write("session.json", answer)
        let session = try #require(try JSONSerialization.jsonObject(with: Data(answer.utf8)) as? [String: Any])
        try kept.shell("chmod 600 *")
        secrets = [
            "secret key": secret, "web identity token": token, "password": password,
            "session token": try #require(session["Token"] as? String),
            "session's secret key": try #require(session["SecretAccessKey"] as? String),
            // Searched for as bytes too; this is what a dump of it would show.
            "SSE-C key": String(decoding: sse.flatMap { Array(String(format: "%02x", $0).utf8) }, as: UTF8.self),
        ]
        for name in ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"] { workspace.environment[name] = "" }
        workspace.environment["BGBACKUP_PASSWORD_FILE"] = workspace.path("kept/password")
        workspace.environment["BGBACKUP_REPOSITORY"] = workspace.url + "&sse-c-key=" + workspace.path("kept/sse-key")
        self.workspace = workspace
    }

    /// The ways to the keys, as an operator sets them up.
    private var ways: [(name: String, extra: [String: String])] {
        let session = try? JSONSerialization.jsonObject(
            with: Data(contentsOf: URL(filePath: workspace.path("kept/session.json"))))
        let keys = session as? [String: Any] ?? [:]
        return [
            ("file", ["AWS_SHARED_CREDENTIALS_FILE": workspace.path("kept/keys")]),
            (
                "environment",
                [
                    "AWS_ACCESS_KEY_ID": keys["AccessKeyId"] as? String ?? "",
                    "AWS_SECRET_ACCESS_KEY": keys["SecretAccessKey"] as? String ?? "",
                    "AWS_SESSION_TOKEN": keys["Token"] as? String ?? "",
                ]
            ),
            (
                "web identity",
                [
                    "AWS_WEB_IDENTITY_TOKEN_FILE": workspace.path("kept/web-token"), "AWS_ENDPOINT_URL_STS": server.endpoint,
                    "AWS_ROLE_ARN": "arn:aws:iam::123456789012:role/backup", "AWS_REGION": "us-east-1",
                ]
            ),
        ]
    }

    /// Whether this text or these bytes hold a secret, as it is, in hexadecimal,
    /// base64 or percent-encoded.
    private func found(in bytes: Data) -> [String] {
        let lower = Data(String(decoding: bytes, as: UTF8.self).lowercased().utf8)
        return secrets.compactMap { name, secret in
            let raw = name == "SSE-C key" ? hexData(secret) : Data(secret.utf8)
            let base = raw.base64EncodedString()
            let forms = [
                // Not the last digits: what follows would change them.
                String(base.dropLast(4)), secret, secret.addingPercentEncoding(withAllowedCharacters: .alphanumerics) ?? secret,
            ]
            let hex = raw.map { String(format: "%02x", $0) }.joined()
            let isThere =
                bytes.range(of: raw) != nil || forms.contains { bytes.range(of: Data($0.utf8)) != nil }
                || lower.range(of: Data(hex.utf8)) != nil
            return isThere ? name : nil
        }
    }

    private func hexData(_ text: String) -> Data {
        var rest = text[...]
        var data = Data()
        while let byte = UInt8(rest.prefix(2), radix: 16) {
            data.append(byte)
            rest = rest.dropFirst(2)
        }
        return data
    }

    @Test func `The search itself finds each form`() {
        for (name, secret) in secrets {
            let raw = name == "SSE-C key" ? hexData(secret) : Data(secret.utf8)
            for text in [
                Data("x\(raw.base64EncodedString())y".utf8), Data(raw.map { String(format: "%02X", $0) }.joined().utf8), raw,
                Data((secret.addingPercentEncoding(withAllowedCharacters: .alphanumerics) ?? "").utf8),
            ] {
                #expect(found(in: Data("head".utf8) + text + Data("tail".utf8)).contains(name))
            }
        }
    }

    @Test func `None is printed, kept in a file or sent to where it does not belong`() throws {
        var printed = Data()
        func run(_ arguments: [String], _ extra: [String: String], status: Int32? = 0) throws {
            let result = try workspace.run(arguments, extra: extra)
            if let status { #expect(result.status == status, "\(arguments): \(result.errors)") }
            printed += result.outputBytes + Data(result.errors.utf8)
        }
        let key = workspace.path("kept/writer-key")
        try run(["init", "-v"], ways[0].extra)
        try run(["key", "export-writer", key], ways[0].extra)
        for way in ways {
            try run(["backup", volume.path, "-v", "--json"], way.extra)
            try run(["doctor", "--json"], way.extra, status: nil)
            try run(["doctor", "-v"], way.extra, status: nil)
        }
        for command in [
            ["snapshots", "--json", "-v"], ["show", "latest"], ["ls", "latest"], ["check", "--read-data", "-v"],
            ["repo", "stats"],
            ["repo", "probe", "--json"], ["repair", "--json"], ["repo", "iam-policy", "--role", "writer"],
            ["copy", "--all", "--to", workspace.path("copy"), "--json"],
            ["restore", "latest", "--target", workspace.path("restored"), "-v", "--json"],
        ] {
            try run(command, ways[0].extra)
        }
        // What goes wrong says no more.
        for (arguments, extra) in [
            (
                ["snapshots"],
                ways[0].extra.merging(["AWS_ACCESS_KEY_ID": "NOBODY", "AWS_SECRET_ACCESS_KEY": secrets["secret key"]!]) { $1 }
            ),
            (["snapshots", "--json"], ways[1].extra.merging(["AWS_SESSION_TOKEN": secrets["session token"]! + "x"]) { $1 }),
            (["snapshots"], ways[2].extra.merging(["AWS_ENDPOINT_URL_STS": "http://127.0.0.1:1"]) { $1 }),
            (["snapshots", "--password-file", workspace.path("kept/web-token")], ways[0].extra),
            (["snapshots"], ways[0].extra.merging(["AWS_SHARED_CREDENTIALS_FILE": workspace.path("kept/password")]) { $1 }),
            (
                ["snapshots"],
                ways[0].extra.merging(["BGBACKUP_REPOSITORY": workspace.url.replacing("kept/sse-key", with: "kept/password")]) {
                    $1
                }
            ),
        ] {
            let result = try workspace.run(arguments, extra: extra)
            #expect(result.status != 0 && result.status < 128, "\(arguments)")
            printed += result.outputBytes + Data(result.errors.utf8)
        }
        #expect(found(in: printed) == [])

        for name in FileManager.default.enumerator(atPath: workspace.directory.path)?.compactMap({ $0 as? String }) ?? []
        where !name.hasPrefix("kept/") {
            guard let bytes = FileManager.default.contents(atPath: workspace.path(name)) else { continue }
            #expect(found(in: bytes) == [], "\(name)")
        }
        // The key of SSE-C goes to the store with each request, as it must; nothing else does.
        for request in try server.log() {
            let isAnswered = request["operation"] as? String != "AssumeRoleWithWebIdentity"
            var headers = request["headers"] as? [String: Any] ?? [:]
            headers = headers.filter {
                !$0.key.lowercased().contains("customer-key") && $0.key.lowercased() != "x-amz-security-token"
            }
            let sent = "\(request["path"] ?? "") \(request["query"] ?? "") \(headers)"
            if isAnswered { #expect(found(in: Data(sent.utf8)) == [], "\(request["operation"] ?? "")") }
        }
    }

    @Test func `None is in an argument or a variable of the program or its children`() throws {
        try workspace.expect(0, ["init"], extra: ways[0].extra)
        let kept = try Volume(workspace.path("kept"))
        // A child for the keys and one for the password, both slow enough to be looked at.
        try kept.write("config", "[default]\ncredential_process = sh -c 'sleep 0.5; cat \(kept("session.json"))'\n")
        var other = workspace
        other.environment["BGBACKUP_PASSWORD_FILE"] = nil
        other.environment["BGBACKUP_PASSWORD_COMMAND"] = "sleep 0.5; cat '\(kept("password"))'"
        other.environment["AWS_CONFIG_FILE"] = kept("config")
        let backup = try other.start(["backup", volume.path, "-v"])
        var seen: Set<String> = []
        var looks = 0
        var children = 0
        while backup.isRunning {
            for process in try FileManager.default.contentsOfDirectory(atPath: "/proc") where Int(process) != nil {
                for name in ["cmdline", "environ"] {
                    guard let bytes = read("/proc/\(process)/\(name)") else { continue }
                    if name == "cmdline", bytes.range(of: Data("sleep\u{0}0.5".utf8)) != nil { children += 1 }
                    for secret in found(in: bytes) { seen.insert("\(secret) in \(name) of \(process)") }
                }
            }
            looks += 1
            usleep(10_000)
        }
        let printed = try backup.printed
        #expect(backup.wait() == 0, "\(printed)")
        #expect(seen == [])
        #expect(looks > 5 && children > 0)
        #expect(found(in: Data(try backup.printed.utf8)) == [])
    }

    @Test(arguments: [SIGSEGV, SIGABRT]) func `No core is left of it`(signal: Int32) throws {
        try workspace.expect(0, ["init"], extra: ways[0].extra)
        try volume.writeRandom("large.dat", megabytes: 24)
        let folder = try Volume(workspace.path("cores"))
        // A parent of its own: threads of tests block signals, and children inherit that.
        let script = """
            import os, resource, signal, sys, time
            child = os.fork()
            if child == 0:
                signal.pthread_sigmask(signal.SIG_SETMASK, [])
                resource.setrlimit(resource.RLIMIT_CORE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
                os.execv(sys.argv[2], sys.argv[2:])
            time.sleep(1)
            os.kill(child, int(sys.argv[1]))
            status = os.waitpid(child, 0)[1]
            print(os.WIFSIGNALED(status) and os.WTERMSIG(status), os.WCOREDUMP(status))
            """
        let result = try Program.run(
            "/usr/bin/env",
            [
                "python3", "-c", script, "\(signal)", Program.binary, "backup", volume.path, "--limit-upload", "2MiB", "-q",
            ],
            // Swift's own handler would keep the kernel's, which writes cores, from its turn.
            environment: workspace.environment.merging(ways[0].extra) { $1 }.merging(["SWIFT_BACKTRACE": "enable=no"]) { $1 },
            directory: folder.path)
        #expect(result.output == "\(signal) False\n", "\(result.errors)")
        #expect(try folder.shell("ls -A") == "")
    }

    /// Not by URL: a file of /proc says that it is empty.
    private func read(_ path: String) -> Data? {
        let file = open(path, O_RDONLY | O_CLOEXEC)
        guard file >= 0 else { return nil }
        defer { close(file) }
        var bytes = [UInt8](repeating: 0, count: 64 << 10)
        let count = Glibc.read(file, &bytes, bytes.count)
        return count > 0 ? Data(bytes.prefix(count)) : nil
    }
}
