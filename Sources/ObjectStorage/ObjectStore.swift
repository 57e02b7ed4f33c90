import BackupBase

/// Named immutable objects. Implementations: a local directory (`LocalStore`);
/// decorators conform too. Six methods, and a property that tells how many
/// transfers at once the store likes.
///
/// All methods throw `StoreError` and nothing else of their own. A `put` that
/// returns has made the object durable under its name, whole.
public protocol ObjectStore: Sendable {
    /// The place, for messages: a path or a URL without secrets.
    var location: String { get }
    /// Uploads that may run at once with profit.
    var parallelPuts: Int { get }

    /// Stores `content` (its first `count` bytes) under `name`. With
    /// `ifAbsent`, throws `.exists` when the name is taken; without, replaces.
    func put(_ name: String, _ content: AlignedBuffer, ifAbsent: Bool) async throws
    /// Bytes of an object. Throws `.notFound`, and `.tooLarge` where more than
    /// `limit` bytes would come back. A range beyond the end comes back short.
    func get(_ name: String, _ range: ByteRange, limit: Int) async throws -> ObjectBytes
    /// Size and time of an object, or nil where there is none.
    func info(_ name: String) async throws -> ObjectInfo?
    /// All objects whose names start with `prefix` (ending in "/"), by name.
    func list(_ prefix: String) async throws -> [ObjectInfo]
    func delete(_ name: String) async throws
}

/// Which bytes of an object: all, `count` from `offset`, or the last `count`.
public enum ByteRange: Sendable, Equatable {
    case all
    case from(Int, count: Int)
    case last(Int)
}

/// Bytes of an object as a store returns them.
public struct ObjectBytes: Sendable {
    /// Size of the whole object in bytes.
    public let objectSize: Int
    private let buffer: AlignedBuffer
    private let start: Int
    public let count: Int

    public init(_ buffer: AlignedBuffer, start: Int = 0, count: Int, objectSize: Int) {
        precondition(start >= 0 && count >= 0 && start + count <= buffer.capacity)
        self.buffer = buffer
        self.start = start
        self.count = count
        self.objectSize = objectSize
    }

    /// Calls `body` with the bytes, which live as long as the call.
    public func withBytes<Result>(_ body: (UnsafeRawBufferPointer) throws -> Result) rethrows -> Result {
        try withExtendedLifetime(buffer) {
            try body(UnsafeRawBufferPointer(start: buffer.pointer + start, count: count))
        }
    }

    public var array: [UInt8] { withBytes { Array($0) } }
}

public struct ObjectInfo: Sendable, Equatable {
    public var name: String
    /// Bytes.
    public var size: Int
    /// Nanoseconds since 1970 by the store's clock.
    public var modified: Int64

    public init(name: String, size: Int, modified: Int64) {
        self.name = name
        self.size = size
        self.modified = modified
    }
}

/// What a store failed at. Never the source's fault.
public struct StoreError: Error, Sendable, CustomStringConvertible {
    public enum Kind: String, Sendable {
        case notFound = "not found"
        case exists = "exists already"
        case full = "no space left"
        case denied = "permission denied"
        case tooLarge = "larger than allowed"
        case failed = "failed"
    }
    public var kind: Kind
    public var operation: String
    public var name: String
    public var detail: String

    public init(_ kind: Kind, _ operation: String, _ name: String, _ detail: String = "") {
        self.kind = kind
        self.operation = operation
        self.name = name
        self.detail = detail
    }

    public var description: String {
        "cannot \(operation) \(name): \(detail.isEmpty ? kind.rawValue : detail)"
    }
}
