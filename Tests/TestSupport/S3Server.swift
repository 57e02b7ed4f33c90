import BackupBase
import Foundation
import Glibc

/// A real S3 server on this machine, for as long as somebody holds it: the
/// strict one of Tests/StrictS3, or moto or rclone from PyPI.
public final class S3Server: Sendable {
    public enum Kind: String, Sendable, CaseIterable { case strict, moto, rclone }

    public let kind: Kind
    public let port: Int
    public let accessKey: String
    public let secretKey: String
    private let directory: TemporaryDirectory
    private let process: Process
    private let input: Pipe

    public static let bucket = "bucket"

    public var endpoint: String { "http://127.0.0.1:\(port)" }

    /// What a program needs in its environment to be let in.
    public var environment: [String: String] {
        [
            "AWS_ACCESS_KEY_ID": accessKey, "AWS_SECRET_ACCESS_KEY": secretKey, "AWS_EC2_METADATA_DISABLED": "true",
            "AWS_CONFIG_FILE": "/dev/null", "AWS_SHARED_CREDENTIALS_FILE": "/dev/null", "AWS_ENDPOINT_URL_S3": "",
            "AWS_ENDPOINT_URL": "", "AWS_REGION": "", "AWS_DEFAULT_REGION": "", "AWS_PROFILE": "",
            "AWS_SESSION_TOKEN": "", "http_proxy": "", "https_proxy": "", "no_proxy": "*",
        ]
    }

    /// A repository's URL below the bucket.
    public func url(_ prefix: String, _ options: String = "", bucket: String = S3Server.bucket) -> String {
        "s3://\(bucket)/\(prefix)?endpoint=\(endpoint)" + (options.isEmpty ? "" : "&\(options)")
    }

    private static let shared = Locked<[Kind: Result<S3Server, any Error>]>([:])

    /// The one server of this kind that tests of this process share.
    public static func shared(_ kind: Kind) throws -> S3Server {
        try shared.withLock { shared in
            if let made = shared[kind] { return try made.get() }
            let made = Result { try S3Server(kind) }
            shared[kind] = made
            if case .success(let server) = made { AtExit.run { server.stop() } }
            return try made.get()
        }
    }

    static func isShared(_ server: S3Server) -> Bool {
        shared.withLock { shared in shared.values.contains { (try? $0.get()) === server } }
    }

    /// - Parameter configuration: of the strict server, as JSON (Tests/StrictS3/README.md)
    /// - Parameter arguments: more of the server's own
    public init(_ kind: Kind, configuration: String? = nil, arguments: [String] = []) throws {
        self.kind = kind
        directory = try TemporaryDirectory("s3-\(kind)")
        accessKey = kind == .strict ? "STRICTACCESS" : "TESTACCESSKEY"
        secretKey = kind == .strict ? "strict-secret-key" : "test-secret-key"
        process = Process()
        input = Pipe()
        let portFile = directory("port")
        switch kind {
        case .strict:
            process.executableURL = URL(filePath: Self.strictBinary)
            process.arguments = ["--port-file", portFile, "--until-eof", "--quiet"] + arguments
            if let configuration {
                try Data(configuration.utf8).write(to: URL(filePath: directory("config.json")))
                process.arguments! += ["--config", directory("config.json")]
            }
        case .moto, .rclone:
            process.executableURL = URL(filePath: "/usr/bin/env")
            process.arguments =
                ["python3", Program.root + "scripts/s3_server.py", kind.rawValue, "--port-file", portFile]
                + (kind == .rclone ? ["--data", directory("data")] : []) + arguments
        }
        process.standardInput = input
        try process.run()
        port = try Self.wait(for: portFile, process, kind)
        if kind == .moto { try makeBucket() }
    }

    /// The first start installs the servers and may take a minute.
    private static func wait(for file: String, _ process: Process, _ kind: Kind) throws -> Int {
        let end = monotonicSeconds() + 300
        while monotonicSeconds() < end, process.isRunning {
            if let text = try? String(contentsOfFile: file, encoding: .utf8),
                let port = Int(text.filter { !$0.isWhitespace })
            {
                return port
            }
            usleep(20_000)
        }
        throw BackupError(.failed, "the \(kind) server did not start")
    }

    private func makeBucket() throws {
        let result = try Program.run("/usr/bin/env", ["curl", "-sf", "-X", "PUT", "\(endpoint)/\(Self.bucket)"])
        guard result.status == 0 else { throw BackupError(.failed, "no bucket could be made: \(result.errors)") }
    }

    public static let strictBinary: String = {
        ProcessInfo.processInfo.environment["BGBACKUP_STRICT_S3"] ?? Program.root + ".build-strict/release/strict-s3"
    }()

    /// The servers that run here; the others say why not.
    public static let available: [Kind] = Kind.allCases.filter { kind in
        do {
            _ = try shared(kind)
            return true
        } catch {
            print("SKIPPED: no \(kind) server: \(error)")
            return false
        }
    }

    /// The server hangs: it answers nothing and closes nothing, until `resume`. Only where nobody shares it.
    public func pause() { kill(process.processIdentifier, SIGSTOP) }
    public func resume() { kill(process.processIdentifier, SIGCONT) }

    deinit { stop() }

    /// Ends with its standard input, and its children with it.
    private func stop() {
        try? input.fileHandleForWriting.close()
        if kind == .strict { process.terminate() }
        process.waitUntilExit()
        try? FileManager.default.removeItem(atPath: directory.path)
    }

    // MARK: - Objects, through a client that is not bgbackup's

    /// Performs an operation of scripts/s3_objects.py.
    @discardableResult
    public func objects(_ operation: String, _ fields: [String: Any] = [:], bucket: String = S3Server.bucket) throws -> Any {
        try ObjectMover.shared.perform(
            fields.merging([
                "operation": operation, "endpoint": endpoint, "access": accessKey, "secret": secretKey, "bucket": bucket,
            ]) { $1 })
    }

    // MARK: - The strict server's control

    /// Sets faults and personalities, and counts requests from here on.
    public func configure(_ json: String) throws { try control("PUT", "config", json) }

    public func reset(objects: Bool = false) throws { try control("POST", "reset" + (objects ? "?objects=1" : "")) }

    /// What was played and counted so far.
    public func statistics() throws -> [String: Any] {
        (try JSONSerialization.jsonObject(with: Data(control("GET", "stats").utf8))) as? [String: Any] ?? [:]
    }

    /// Each request since the last reset.
    public func log() throws -> [[String: Any]] {
        try control("GET", "log").split(separator: "\n").compactMap {
            try JSONSerialization.jsonObject(with: Data($0.utf8)) as? [String: Any]
        }
    }

    /// What the store keeps of an object.
    public func object(_ key: String) throws -> [String: Any] {
        let text = try control("GET", "object?bucket=\(Self.bucket)&key=\(key)")
        return try JSONSerialization.jsonObject(with: Data(text.utf8)) as? [String: Any] ?? [:]
    }

    @discardableResult
    public func control(_ method: String, _ path: String, _ body: String? = nil) throws -> String {
        var arguments = ["-s", "--fail-with-body", "-X", method, "\(endpoint)/_control/\(path)"]
        if let body { arguments += ["--data-binary", body] }
        let result = try Program.run("/usr/bin/env", ["curl"] + arguments)
        guard result.status == 0 else { throw BackupError(.failed, "control \(path): \(result.output)\(result.errors)") }
        return result.output
    }
}
