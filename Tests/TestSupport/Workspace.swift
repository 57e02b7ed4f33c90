import BackupBase
import Foundation
import Glibc

/// Where tests keep their repositories when they do not say: BGBACKUP_TEST_STORE
/// is strict, moto or rclone; unset is a directory of this machine.
public enum TestStore {
    public static let kind: S3Server.Kind? = {
        guard let name = ProcessInfo.processInfo.environment["BGBACKUP_TEST_STORE"], !name.isEmpty else { return nil }
        guard let kind = S3Server.Kind(rawValue: name) else { fatalError("BGBACKUP_TEST_STORE=\(name): strict, moto or rclone") }
        return kind
    }()

    /// Whether several nodes can write to one repository there: rclone ignores the conditions of a write.
    public static let hasConditions = kind != .rclone
}

/// A repository with everything `bgbackup` needs around it, in a directory of
/// its own: password, state, cache, scratch space. The repository is a
/// directory too, or a prefix on an S3 server.
public struct Workspace: Sendable {
    public let directory: TemporaryDirectory
    public var environment: [String: String]
    /// Nil where the repository is a directory.
    public let server: S3Server?
    /// What the repository consists of.
    public let store: StoredObjects
    /// The repository as messages name it.
    public let location: String

    /// The directory of a local repository.
    public var repository: String { directory("repository") }
    public var passwordFile: String { directory("password") }
    /// The repository's URL or path, with all options.
    public var url: String { environment["BGBACKUP_REPOSITORY"]! }

    public init(_ label: String = "work", initialize: Bool = true, kind: S3Server.Kind? = TestStore.kind) throws {
        try self.init(label, initialize: initialize, server: try kind.map { try S3Server.shared($0) })
    }

    /// - Parameters:
    ///   - server: nil for a directory
    ///   - options: of the URL, after the endpoint
    public init(
        _ label: String = "work", initialize: Bool = true, server: S3Server?, bucket: String = S3Server.bucket,
        options: String = ""
    ) throws {
        directory = try TemporaryDirectory(label)
        environment = [
            "BGBACKUP_PASSWORD_FILE": directory("password"),
            "BGBACKUP_STATE_DIR": directory("state"), "BGBACKUP_CACHE_DIR": directory("cache"),
        ]
        self.server = server
        if let server {
            let prefix = "\(label)-\(UUID().uuidString.lowercased().prefix(8))"
            environment.merge(server.environment) { $1 }
            environment["BGBACKUP_REPOSITORY"] = server.url(prefix, options, bucket: bucket)
            location = "s3://\(bucket)/\(prefix)"
            store = StoredObjects(place: .prefix(.init(server, bucket, "\(prefix)/")))
        } else {
            environment["BGBACKUP_REPOSITORY"] = directory("repository")
            location = directory("repository")
            store = StoredObjects(place: .directory(directory("repository")))
        }
        try Data("correct horse\n".utf8).write(to: URL(filePath: directory("password")))
        chmod(directory("password"), 0o600)
        if initialize {
            let result = try bgbackup("init")
            guard result.status == 0 else { throw BackupError(.failed, "init failed: \(result.errors)") }
        }
    }

    public func path(_ name: String) -> String { directory(name) }

    /// Runs `bgbackup` in this workspace; `extra` adds to or replaces the environment.
    @discardableResult
    public func bgbackup(_ arguments: String..., extra: [String: String] = [:]) throws -> Program.Result {
        try run(arguments, extra: extra)
    }

    @discardableResult
    public func run(_ arguments: [String], extra: [String: String] = [:]) throws -> Program.Result {
        try Program.run(
            Program.binary, arguments, environment: environment.merging(extra) { $1 }, directory: directory.path)
    }
}
