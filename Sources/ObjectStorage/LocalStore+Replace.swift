import BackupBase
import CLinux
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
        let lock = try lockFile()
        defer { close(lock) }
        let current = try await fetch(name, limit: 64 << 10)?.version
        guard current == version else { throw StoreError(.exists, "replace", name, "it changed meanwhile") }
        try await put(name, AlignedBuffer(copying: content), ifAbsent: version == nil)
        return Self.version(content)
    }

    private static func version(_ bytes: [UInt8]) -> String { Array(SHA256.hash(data: bytes)).hex }

    /// Held until it is closed, also by the end of the process.
    private func lockFile() throws -> Int32 {
        mkdir("\(location)/tmp", 0o700)
        let file = Glibc.open("\(location)/tmp/lock", O_RDWR | O_CREAT | O_CLOEXEC, 0o600)
        guard file >= 0 else { throw StoreError(.failed, "lock", "\(location)/tmp", String(cString: strerror(errno))) }
        while bgb_flock(file, LOCK_EX) != 0 {
            guard errno == EINTR else {
                close(file)
                throw StoreError(.failed, "lock", "\(location)/tmp", String(cString: strerror(errno)))
            }
        }
        return file
    }
}
