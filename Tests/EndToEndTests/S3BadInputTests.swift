import BackupBase
import Foundation
import TestSupport
import Testing

/// What people get wrong about an object store: each mistake has its exit
/// status, one sentence and one hint, and nobody waits for it.
@Suite("Mistakes about an S3 store", .enabled(if: S3Server.available.contains(.strict), "needs the strict S3 server"))
struct S3BadInputTests {
    private let server: S3Server
    private let workspace: Workspace

    init() throws {
        server = try S3Server(.strict)
        workspace = try Workspace.ready("mistake", server: server)
    }

    /// Runs and judges: the exit status, one line that says what is wrong and
    /// has these words, one hint; the end within a minute.
    @discardableResult
    private func expectRefused(
        _ status: Int32, _ code: String, _ words: String, _ arguments: [String] = ["snapshots"], url: String? = nil,
        extra: [String: String] = [:], sourceLocation: SourceLocation = #_sourceLocation
    ) throws -> Program.Result {
        let start = ContinuousClock.now
        let place = url.map { ["BGBACKUP_REPOSITORY": $0] } ?? [:]
        let result = try workspace.run(arguments + ["--json"], extra: place.merging(extra) { $1 })
        #expect(ContinuousClock.now - start < .seconds(60), sourceLocation: sourceLocation)
        #expect(result.status == status, "\(result.errors)", sourceLocation: sourceLocation)
        #expect(result.summary["code"] as? String == code, sourceLocation: sourceLocation)
        let lines = result.errors.split(separator: "\n")
        #expect(lines.count == 2, "\(lines)", sourceLocation: sourceLocation)
        #expect(
            lines.first?.hasPrefix("bgbackup: ") == true && lines.last?.hasPrefix("HINT: ") == true,
            sourceLocation: sourceLocation)
        #expect(lines.first?.contains(words) == true, "\(lines)", sourceLocation: sourceLocation)
        // What was typed is not in it: nothing of the URL but bucket and prefix, no key.
        #expect(!result.errors.contains(server.secretKey), sourceLocation: sourceLocation)
        return result
    }

    private func url(_ endpoint: String, _ more: String = "") -> String {
        "s3://bucket/prefix?endpoint=\(endpoint)" + (more.isEmpty ? "" : "&\(more)")
    }

    // MARK: - The endpoint

    @Test func `A name that nobody has`() throws {
        try expectRefused(1, "store-unreachable", "has no address", url: url("http://no-such-host.invalid:9000"))
    }

    @Test func `A port where nobody listens`() throws {
        for arguments in [["snapshots"], ["init"], ["backup", "."]] {
            try expectRefused(
                1, "store-unreachable", "nobody answers at http://127.0.0.1:1", arguments, url: url("http://127.0.0.1:1"))
        }
    }

    @Test func `A server of another kind`() throws {
        try OddServer.with(.mail) { port in
            let endpoint = "http://127.0.0.1:\(port)"
            try expectRefused(64, "usage", endpoint, url: url(endpoint, "retry-for=3"))
        }
        try OddServer.with(.web) { port in
            let place = url("http://127.0.0.1:\(port)")
            let result = try workspace.run(["init"], extra: ["BGBACKUP_REPOSITORY": place])
            #expect(result.status == 1 || result.status == 10, "\(result.errors)")
            #expect(result.errors.split(separator: "\n").count <= 2)
        }
    }

    @Test func `A server that accepts and never answers`() throws {
        try OddServer.with(.silent) { port in
            let place = url("http://127.0.0.1:\(port)", "timeout=1&retry-for=3")
            try expectRefused(1, "store-unreachable", "does not answer in time", url: place)
        }
    }

    @Test func `https where http is spoken`() throws {
        try expectRefused(
            1, "store-unreachable", "the connection to https://127.0.0.1:\(server.port) is not safe",
            url: url("https://127.0.0.1:\(server.port)"))
    }

    @Test(.enabled(if: Program.hasTool("openssl"), "needs openssl"))
    func `http where https is spoken, and an authority nobody knows`() throws {
        try OddServer.with(.tls) { port in
            let plain = "http://127.0.0.1:\(port)"
            try expectRefused(1, "store-unreachable", plain, url: url(plain, "retry-for=3"))
            let unsafe = try expectRefused(1, "store-unreachable", "is not safe", url: url("https://127.0.0.1:\(port)"))
            #expect(unsafe.errors.contains("ca-file"))
        }
    }

    @Test func `An endpoint that is none, an option misspelt, a value out of its range`() throws {
        try expectRefused(64, "usage", "there is no option 'endpont'", url: "s3://bucket/prefix?endpont=http://127.0.0.1")
        let near = try workspace.run(["snapshots"], extra: ["BGBACKUP_REPOSITORY": "s3://bucket/p?endpont=x"])
        #expect(near.errors.contains("Did you mean 'endpoint'?"))
        for (options, words) in [
            ("endpoint=ftp://host", "no address of a server"), ("connections=0", "connections"), ("timeout=soon", "timeout"),
            ("style=upside-down", "style"), ("lock=compliance", "belong together"), ("sse=rot13", "sse"),
            ("part-size", "no value"),
        ] {
            try expectRefused(64, "usage", words, url: "s3://bucket/prefix?\(options)")
        }
        try expectRefused(64, "usage", "no name of a bucket", url: "s3://B!/prefix")
    }

    @Test func `Keys in the URL are not taken, and not repeated`() throws {
        let key = "AKIDCANARY:wJalrCANARYKEY"
        let result = try expectRefused(64, "usage", "takes no user and password", url: "s3://\(key)@bucket/prefix")
        #expect(!result.errors.contains("CANARY") && !result.output.contains("CANARY"))
        let endpoint = try expectRefused(
            64, "usage", "no address of a server", url: "s3://bucket/prefix?endpoint=http://\(key)@127.0.0.1")
        #expect(!endpoint.errors.contains("CANARY") && !endpoint.output.contains("CANARY"))
    }

    // MARK: - The bucket

    @Test func `A bucket that is not there, and a prefix that holds nothing`() throws {
        for arguments in [["snapshots"], ["init"], ["backup", "."]] {
            try expectRefused(
                10, "no-repository", "there is no bucket 'other'", arguments, url: "s3://other/p?endpoint=\(server.endpoint)")
        }
        try expectRefused(10, "no-repository", "there is no repository at s3://bucket/other", url: server.url("other"))
    }

    @Test func `A bucket in another region works all the same`() throws {
        let server = try S3Server(.strict, configuration: #"{"buckets": [{"name": "bucket", "region": "eu-west-1"}]}"#)
        let workspace = try Workspace("region", initialize: false, server: server, options: "region=us-east-2")
        try workspace.expect(0, ["init"])
        try workspace.expect(0, ["snapshots"], extra: ["AWS_REGION": "ap-south-1"])
    }

    // MARK: - The keys

    @Test func `An access key nobody knows, and a secret that is not its own`() throws {
        try expectRefused(1, "store-denied", "does not know the access key", extra: ["AWS_ACCESS_KEY_ID": "AKIDNOBODY"])
        let secret = "CANARY-not-the-secret"
        let wrong = try expectRefused(
            1, "store-denied", "is not that of the access key", extra: ["AWS_SECRET_ACCESS_KEY": secret])
        #expect(!wrong.errors.contains("CANARY"))
    }

    @Test func `No keys anywhere, or half of one`() throws {
        let none = ["AWS_ACCESS_KEY_ID": "", "AWS_SECRET_ACCESS_KEY": ""]
        try expectRefused(1, "store-denied", "no credentials found", extra: none)
        try expectRefused(1, "store-denied", "AWS_SECRET_ACCESS_KEY", extra: ["AWS_SECRET_ACCESS_KEY": ""])
        try expectRefused(
            1, "store-denied", "/nonexistent", url: workspace.url + "&credentials=/nonexistent/keys", extra: none)
    }

    @Test func `A session that is over, and a token that is none`() throws {
        let answer = try server.control("GET", "credentials?access=\(server.accessKey)")
        let keys = try #require(try JSONSerialization.jsonObject(with: Data(answer.utf8)) as? [String: Any])
        let extra = [
            "AWS_ACCESS_KEY_ID": keys["AccessKeyId"] as! String, "AWS_SECRET_ACCESS_KEY": keys["SecretAccessKey"] as! String,
            "AWS_SESSION_TOKEN": keys["Token"] as! String,
        ]
        try workspace.expect(0, ["snapshots"], extra: extra)
        try server.configure(#"{"personality": {"expireTokensAfterRequests": 0}}"#)
        let over = try expectRefused(1, "store-denied", "the keys have expired", extra: extra)
        #expect(!over.errors.contains(extra["AWS_SESSION_TOKEN"]!))
        try expectRefused(1, "store-denied", "expired", extra: extra.merging(["AWS_SESSION_TOKEN": "CANARY"]) { $1 })
    }

    @Test func `Keys that may not do it`() throws {
        let reading = #"{"Statement": [{"Effect": "Allow", "Action": ["s3:GetObject", "s3:ListBucket"], "Resource": "*"}]}"#
        try server.configure(
            #"{"keys": [{"access": "STRICTACCESS", "secret": "strict-secret-key"}, {"access": "READER", "secret": "reader-secret", "policies": [\#(reading)]}]}"#
        )
        let reader = ["AWS_ACCESS_KEY_ID": "READER", "AWS_SECRET_ACCESS_KEY": "reader-secret"]
        let volume = try Volume.small(workspace.path("volume"))
        try workspace.expect(0, ["snapshots"], extra: reader)
        let denied = try expectRefused(1, "store-denied", "AccessDenied", ["backup", volume.path], extra: reader)
        #expect(denied.errors.contains("iam-policy"))
    }

    @Test(arguments: [-1200, 1200]) func `A clock that is twenty minutes wrong is seen through`(skew: Int) throws {
        // A server that never knew another time.
        let server = try S3Server(.strict, configuration: "{\"personality\": {\"clockSkewSeconds\": \(skew)}}")
        let workspace = try Workspace("clock", server: server)
        let volume = try Volume.small(workspace.path("volume"))
        let snapshot = try workspace.backup(volume)
        try workspace.restore(snapshot.id)
        try expectIdentical(volume.path, workspace.path("restored"))
    }

    // MARK: - Space

    @Test func `A store that is full`() throws {
        try OddServer.with(.full) { port in
            let place = url("http://127.0.0.1:\(port)", "retry-for=3")
            try expectRefused(1, "store-full", "has no space left", ["init"], url: place)
        }
    }
}
