import BackupBase
import ObjectStorage

/// A snapshot as the store lists it.
public struct ListedSnapshot: Sendable {
    public let name: SnapshotName
    /// Nanoseconds since 1970 by the store's clock.
    public let committed: Int64
}

/// What forgetting needs of a repository. Who removes holds the lease.
extension Repository {
    /// Oldest first, with the store's times. Needs no private key.
    public func listedSnapshots() async throws -> [ListedSnapshot] {
        try await store.list(SnapshotName.prefix).compactMap { info in
            SnapshotName(object: info.name).map { ListedSnapshot(name: $0, committed: info.modified) }
        }.sorted { $0.name < $1.name }
    }

    /// Now by the store's clock, nanoseconds since 1970. Writes nothing.
    public func storeNow() async throws -> Int64 {
        for name in Configuration.names {
            if let found = try await store.fetch(name, limit: Configuration.sizeLimit) { return found.now }
        }
        throw BackupError(.noRepository, "there is no repository at \(store.location) any more")
    }

    /// Takes a snapshot's object away; one that is gone is gone already. Its packs stay until they are pruned.
    /// - Throws: `StoreError` of the kind `.locked` where it may not go yet
    public func remove(snapshot name: SnapshotName) async throws { try await store.delete(name.object) }

    /// Nanoseconds since 1970 until which the store keeps a snapshot's object; nil where it is not locked.
    public func lock(of name: SnapshotName) async throws -> Int64? { try await store.info(name.object)?.lockedUntil }
}
