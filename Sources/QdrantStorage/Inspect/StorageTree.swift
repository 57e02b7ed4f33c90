/// A volume to look into, wherever it is: a directory, a capture of one, or a
/// snapshot in the repository. Nothing is ever written to it.
public struct StorageTree: Sendable {
    public struct File: Sendable, Hashable {
        public let name: String
        public let isDirectory: Bool
        /// Bytes; 0 for directories.
        public let size: Int64
    }

    /// Gives the file's bytes from its beginning in pieces, until `body` returns false.
    public typealias Reader =
        @Sendable (_ path: String, _ body: (UnsafeRawBufferPointer) throws -> Bool) async throws -> Void

    private var folders: [String: [File]] = ["": []]
    private let reader: Reader

    public init(reader: @escaping Reader) { self.reader = reader }

    /// - Parameter path: relative to the volume's root; a directory above must have been added before
    public mutating func add(_ path: String, isDirectory: Bool, size: Int64 = 0) {
        guard !path.isEmpty else { return }
        let (folder, name) = Self.split(path)
        folders[folder, default: []].append(File(name: name, isDirectory: isDirectory, size: size))
        if isDirectory, folders[path] == nil { folders[path] = [] }
    }

    /// What is directly in a directory; nothing where there is none.
    public func list(_ folder: String) -> [File] { folders[folder] ?? [] }

    public func hasDirectory(_ path: String) -> Bool { folders[path] != nil }

    public func file(_ path: String) -> File? {
        let (folder, name) = Self.split(path)
        return folders[folder]?.first { $0.name == name && !$0.isDirectory }
    }

    /// Bytes of all files below a directory.
    public func bytes(below folder: String) -> Int64 {
        list(folder).reduce(0) { $0 + ($1.isDirectory ? bytes(below: "\(folder)/\($1.name)") : $1.size) }
    }

    public func stream(_ path: String, _ body: (UnsafeRawBufferPointer) throws -> Bool) async throws {
        try await reader(path, body)
    }

    /// A small file whole.
    /// - Returns: nil where there is none, or more than `limit` bytes
    public func read(_ path: String, limit: Int = JSONValue.sizeLimit) async throws -> [UInt8]? {
        guard let file = file(path), file.size <= limit else { return nil }
        var bytes: [UInt8] = []
        try await stream(path) { piece in
            bytes.append(contentsOf: piece.prefix(limit - bytes.count))
            return bytes.count < limit
        }
        return bytes
    }

    private static func split(_ path: String) -> (folder: String, name: String) {
        guard let slash = path.lastIndex(of: "/") else { return ("", path) }
        return (String(path[..<slash]), String(path[path.index(after: slash)...]))
    }
}
