import BackupBase
import Glibc

/// A read error of the source: never to be confused with an error of the repository.
public struct SourceError: Error, Sendable, CustomStringConvertible {
    /// Relative to the volume's root, "" for the root; absolute where a whole device was opened.
    public var path: [UInt8]
    /// What was tried, as a verb: "open", "read", "list" …
    public var operation: String
    public var errno: Int32

    public init(path: [UInt8], operation: String, errno: Int32) {
        self.path = path
        self.operation = operation
        self.errno = errno
    }

    init(_ path: [UInt8], _ cause: SystemError) {
        self.init(path: path, operation: cause.operation, errno: cause.errno)
    }

    /// The object existed when it was listed and does not any more.
    public var isGone: Bool { errno == ENOENT || errno == ESTALE }

    public var description: String { describe(operation, path, errno) }
}

/// A write error of the restore target.
public struct TargetError: Error, Sendable, CustomStringConvertible {
    /// Relative to the target's root, "" for the root; absolute where a whole device was opened.
    public var path: [UInt8]
    /// What was tried, as a verb: "open", "write", "link" …
    public var operation: String
    public var errno: Int32

    public init(path: [UInt8], operation: String, errno: Int32) {
        self.path = path
        self.operation = operation
        self.errno = errno
    }

    init(_ path: [UInt8], _ cause: SystemError) {
        self.init(path: path, operation: cause.operation, errno: cause.errno)
    }

    /// No space, or no quota, is left.
    public var isFull: Bool { errno == ENOSPC || errno == EDQUOT }

    public var description: String { describe(operation, path, errno) }
}

/// An errno and the call that gave it, until a caller knows whose fault it was.
struct SystemError: Error {
    var operation: String
    var errno: Int32
}

/// The operating system's text for an errno.
func explain(_ code: Int32) -> String { String(cString: strerror(code)) }

private func describe(_ operation: String, _ path: [UInt8], _ code: Int32) -> String {
    "cannot \(operation) \(path.isEmpty ? "the root of the volume" : printable(path)): \(explain(code))"
}
