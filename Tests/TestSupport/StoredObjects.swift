import BackupBase
import Foundation

/// The objects of a test's repository, reached without bgbackup: files of a
/// directory, or a prefix of an S3 server's bucket. Names are those that the
/// repository uses, "v1/config.a".
public struct StoredObjects: Sendable {
    /// Removes its objects with its last reference: servers keep them in memory.
    final class Prefix: Sendable {
        let server: S3Server
        let bucket: String
        let name: String

        init(_ server: S3Server, _ bucket: String, _ name: String) {
            (self.server, self.bucket, self.name) = (server, bucket, name)
        }

        /// Of a server that is the test's own, everything goes with the server.
        deinit { if S3Server.isShared(server) { _ = try? server.objects("remove", ["prefix": name], bucket: bucket) } }

        func perform(_ operation: String, _ fields: [String: Any] = [:]) throws -> Any {
            try server.objects(operation, fields, bucket: bucket)
        }
    }
    enum Place: Sendable { case directory(String), prefix(Prefix) }
    let place: Place

    /// Names that start with `prefix`, sorted.
    public func names(_ prefix: String = "") throws -> [String] { try list(prefix).map(\.name) }

    /// Each name with its size and what tells one content from another, a line each.
    public func fingerprint(_ prefix: String = "") throws -> String {
        try list(prefix).map { "\($0.name) \($0.size) \($0.tag)" }.joined(separator: "\n")
    }

    public func remove(_ prefix: String = "") throws {
        switch place {
        case .directory(let path):
            for name in try names(prefix) { try FileManager.default.removeItem(atPath: "\(path)/\(name)") }
        case .prefix(let own): _ = try own.perform("remove", ["prefix": own.name + prefix])
        }
    }

    /// Writes every object as a file below the folder, which is made. Of a
    /// server without what is below `tmp/`: rclone lists for a while what is gone.
    public func download(to folder: String) throws {
        try FileManager.default.createDirectory(atPath: folder, withIntermediateDirectories: true)
        switch place {
        case .directory(let path): try copy("\(path)/.", folder)
        case .prefix(let own): _ = try own.perform("download", ["prefix": own.name, "folder": folder, "omit": ["tmp/"]])
        }
    }

    /// Stores every file below the folder, but those whose names start with one of `omitted`.
    public func upload(from folder: String, omitting omitted: [String] = []) throws {
        switch place {
        case .directory(let path):
            try FileManager.default.createDirectory(atPath: path, withIntermediateDirectories: true)
            try copy("\(folder)/.", path)
            for name in omitted { try remove(name) }
        case .prefix(let own):
            _ = try own.perform("upload", ["prefix": own.name, "folder": folder, "omit": omitted])
        }
    }

    public func copy(_ name: String, as other: String) throws { try write(other, try read(name)) }

    public func read(_ name: String) throws -> Data {
        try withFile { file in
            switch place {
            case .directory(let path): return try Data(contentsOf: URL(filePath: "\(path)/\(name)"))
            case .prefix(let own):
                _ = try own.perform("get", ["key": own.name + name, "file": file])
                return try Data(contentsOf: URL(filePath: file))
            }
        }
    }

    public func write(_ name: String, _ bytes: Data) throws {
        try withFile { file in
            switch place {
            case .directory(let path): try bytes.write(to: URL(filePath: "\(path)/\(name)"))
            case .prefix(let own):
                try bytes.write(to: URL(filePath: file))
                _ = try own.perform("put", ["key": own.name + name, "file": file])
            }
        }
    }

    /// Changes one byte in the middle.
    public func flip(_ name: String) throws {
        var bytes = try read(name)
        bytes[bytes.count / 2] ^= 0x10
        try write(name, bytes)
    }

    // MARK: - Helpers

    private func list(_ prefix: String) throws -> [(name: String, size: Int, tag: String)] {
        switch place {
        case .directory(let path):
            let files = try Program.run(
                "/bin/sh", ["-c", "test -d \"$0\" || exit 0; cd \"$0\"; find . -type f -printf '%P\\n' | LC_ALL=C sort", path])
            return try files.output.split(separator: "\n").map(String.init).filter { $0.hasPrefix(prefix) }.map { name in
                let digest = try Program.tool("sha256sum", ["\(path)/\(name)"]).output.prefix(64)
                let size = try FileManager.default.attributesOfItem(atPath: "\(path)/\(name)")[.size] as? NSNumber
                return (name, size?.intValue ?? -1, String(digest))
            }
        case .prefix(let own):
            let items = try own.perform("list", ["prefix": own.name + prefix]) as? [[Any]] ?? []
            return items.map { item in
                (String((item[0] as! String).dropFirst(own.name.count)), (item[1] as! NSNumber).intValue, item[2] as! String)
            }
        }
    }

    private func copy(_ from: String, _ to: String) throws {
        let result = try Program.tool("cp", ["-a", from, to])
        guard result.status == 0 else { throw BackupError(.failed, result.errors) }
    }

    private func withFile<Result>(_ body: (String) throws -> Result) throws -> Result {
        let folder = try TemporaryDirectory("object")
        return try withExtendedLifetime(folder) { try body(folder("object")) }
    }
}
