import BackupBase
import Crypto
import Glibc

/// Compare and swap in a directory: a lock on a file beside the objects makes
/// looking and replacing one step for all processes of the machine. Over a
/// network file system it is as good as that system's locks are.
extension LocalStore {
    public func fetch(_ name: String, limit: Int) async throws -> VersionedObject? {
        do {
            let bytes = try await get(name, .all, limit: limit).array
            guard let info = try await info(name) else { return nil }
            return VersionedObject(
                bytes: bytes, version: Self.version(bytes), modified: info.modified, now: Ambient.system.now())
        } catch let error as StoreError where error.kind == .notFound {
            return nil
        }
    }

    @discardableResult
    public func replace(_ name: String, _ content: [UInt8], expecting version: String?) async throws -> String {
        mkdir("\(location)/tmp", 0o700)
        let lock = try ProcessLock(path: "\(location)/tmp/lock", waits: true)
        defer { lock.release() }
        let current = try await fetch(name, limit: 64 << 20)?.version
        guard current == version else { throw StoreError(.exists, "replace", name, "it changed meanwhile") }
        try await put(name, AlignedBuffer(copying: content), ifAbsent: version == nil)
        return Self.version(content)
    }

    private static func version(_ bytes: [UInt8]) -> String { Array(SHA256.hash(data: bytes)).hex }

    public func processLock(_ purpose: String) throws -> ProcessLock? {
        mkdir("\(location)/tmp", 0o700)
        return try ProcessLock(path: "\(location)/tmp/lock-\(purpose)", waits: false)
    }

    public func isProcessLocked(_ purpose: String) throws -> Bool? {
        try ProcessLock.isHeld(path: "\(location)/tmp/lock-\(purpose)")
    }
}
