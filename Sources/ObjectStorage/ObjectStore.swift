import BackupBase

/// Named immutable objects. Implementations: a local directory (`LocalStore`)
/// and S3 (`S3Store`); decorators conform too.
///
/// All methods throw `StoreError` and nothing else of their own, or
/// `CancellationError`. A `put` that returns has made the object durable under
/// its name, whole.
public protocol ObjectStore: Sendable {
    /// The place, for messages: a path or a URL without secrets.
    var location: String { get }
    /// Uploads that may run at once with profit.
    var parallelPuts: Int { get }
    /// Bytes that one read should ask for: more where a request costs a round trip.
    var readSize: Int { get }
    /// Reads that may run at once with profit.
    var parallelGets: Int { get }
    /// How long new objects under `v1/` are locked for, in nanoseconds; nil where they are not.
    var lockDuration: Int64? { get }

    /// Stores `content` (its first `count` bytes) under `name`. With
    /// `ifAbsent`, throws `.exists` when the name is taken; without, replaces.
    func put(_ name: String, _ content: AlignedBuffer, ifAbsent: Bool) async throws
    /// As `put` with `ifAbsent`, but on the store's word alone: `confirm` has to
    /// follow before anything refers to the object. For packs, whose next one
    /// need not wait for the look at the last.
    func putUnconfirmed(_ name: String, _ content: AlignedBuffer) async throws
    /// Looks whether an object that was put is there, whole.
    func confirm(_ name: String, size: Int) async throws
    /// Bytes of an object. Throws `.notFound`, and `.tooLarge` where more than
    /// `limit` bytes would come back. A range beyond the end comes back short.
    func get(_ name: String, _ range: ByteRange, limit: Int) async throws -> ObjectBytes
    /// Size and time of an object, or nil where there is none.
    func info(_ name: String) async throws -> ObjectInfo?
    /// All objects whose names start with `prefix` (ending in "/"), by name.
    func list(_ prefix: String) async throws -> [ObjectInfo]
    /// Objects below `prefix` that are kept, under locks, and that a list leaves out: somebody put a delete marker over
    /// them, which this program never does.
    func hiddenNames(_ prefix: String) async throws -> [String]
    /// Removes an object; none is removed already. Throws `.locked` where it may not go yet.
    func delete(_ name: String) async throws
    func delete(all names: [String]) async throws
    /// Whether `delete(all:)` takes few requests; otherwise it takes each name by itself.
    var deletesTogether: Bool { get async throws }

    // MARK: Objects that change: leases

    /// The object with the version that `replace` compares, or nil where there is none.
    func fetch(_ name: String, limit: Int) async throws -> VersionedObject?
    /// Writes the object if it still has this version, or is still absent for
    /// nil. Throws `.exists` where it is otherwise: the store decides, atomically.
    @discardableResult
    func replace(_ name: String, _ content: [UInt8], expecting version: String?) async throws -> String

    /// A lock of this purpose that ends with its process, where the store is on
    /// this machine; nil where only a lease can keep others out. Throws `.exists`
    /// while another process holds it.
    func processLock(_ purpose: String) throws -> ProcessLock?
    /// Whether a process holds the lock of this purpose; nil where there are no such locks. Changes nothing.
    func isProcessLocked(_ purpose: String) throws -> Bool?

    // MARK: Care

    /// Locks an object until this time (nanoseconds since 1970), never shorter than it is.
    func extendLock(_ name: String, until: Int64) async throws
    /// Takes away what uploads that were cut off before this time left, where the store keeps such.
    func removeLeftovers(before: Int64) async throws
}

extension ObjectStore {
    public var readSize: Int { 4 << 20 }
    public var parallelGets: Int { 8 }
    public var lockDuration: Int64? { nil }

    public func processLock(_ purpose: String) throws -> ProcessLock? { nil }
    public func isProcessLocked(_ purpose: String) throws -> Bool? { nil }

    public func putUnconfirmed(_ name: String, _ content: AlignedBuffer) async throws {
        try await put(name, content, ifAbsent: true)
    }

    public func confirm(_ name: String, size: Int) async throws {}

    public func delete(all names: [String]) async throws {
        for name in names { try await delete(name) }
    }

    public func hiddenNames(_ prefix: String) async throws -> [String] { [] }

    public var deletesTogether: Bool { get async throws { false } }

    public func extendLock(_ name: String, until: Int64) async throws {
        throw StoreError(.unsupported, "lock", name, "this store has no locks")
    }

    public func removeLeftovers(before: Int64) async throws {}
}

/// An object that may change, with what tells one state from another.
public struct VersionedObject: Sendable {
    public var bytes: [UInt8]
    public var version: String
    /// Nanoseconds since 1970, both by the store's clock: when it was written, and now.
    public var modified: Int64
    public var now: Int64

    public init(bytes: [UInt8], version: String, modified: Int64, now: Int64) {
        self.bytes = bytes
        self.version = version
        self.modified = modified
        self.now = now
    }
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

    /// Without the first `count` bytes.
    public func dropping(_ count: Int) -> ObjectBytes {
        ObjectBytes(buffer, start: start + count, count: self.count - count, objectSize: objectSize)
    }

    public var array: [UInt8] { withBytes { Array($0) } }
}

public struct ObjectInfo: Sendable, Equatable {
    public var name: String
    /// Bytes.
    public var size: Int
    /// Nanoseconds since 1970 by the store's clock.
    public var modified: Int64
    /// Nanoseconds since 1970: not to be removed before. Only `info` tells, and only of a lock.
    public var lockedUntil: Int64?

    public init(name: String, size: Int, modified: Int64, lockedUntil: Int64? = nil) {
        self.name = name
        self.size = size
        self.modified = modified
        self.lockedUntil = lockedUntil
    }
}
