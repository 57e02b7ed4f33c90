import BackupBase
import Glibc
import ObjectStorage

/// The snapshots that the store lists now, read from this node's cache where it has them.
///
/// The cache holds objects as the store has them, sealed. What is in it is opened
/// and authenticated at each use like what comes from the store, so that whoever
/// changes a file of it gains nothing; and the store's list alone says which
/// snapshots there are, so that one that is gone is not shown. An object that was
/// damaged in the store after it was cached still shows: for lists that is right,
/// and whoever restores, checks or prunes reads the store (`Repository.snapshot`).
public final class SnapshotList: Sendable {
    /// Oldest first.
    public let names: [SnapshotName]
    private let repository: Repository
    private let listed: [SnapshotName: ObjectInfo]
    private let directory: String?

    /// Bytes of an object that is kept, and objects under way at once. A record with a server's fingerprint has 100 KiB.
    private static let objectLimit = 1 << 20
    private static let width = 64

    /// Lists.
    /// - Parameter cache: the node's cache; nil reads everything from the store
    public init(_ repository: Repository, cache: String?) async throws {
        self.repository = repository
        let infos = try await repository.store.list(SnapshotName.prefix)
        listed = infos.reduce(into: [:]) { listed, info in SnapshotName(object: info.name).map { listed[$0] = info } }
        names = listed.keys.sorted()
        directory = cache.map { "\($0)/\(repository.id)/snapshots" }.flatMap { LocalFile.makeDirectory($0) ? $0 : nil }
        sweep()
    }

    /// Throws as `Repository.snapshot` does.
    public func snapshot(_ name: SnapshotName) async throws -> Snapshot {
        guard repository.keys.canRead else { throw KeyRing.writeOnly }
        guard let info = listed[name], let path = path(name) else { return try await repository.snapshot(name) }
        if let bytes = cached(path, info), let snapshot = try? await repository.verify(name, bytes) { return snapshot }
        let (snapshot, bytes) = try await repository.fetchSnapshot(name)
        // Under the list's date only what has the list's size: it may have been replaced since.
        if bytes.count == info.size, bytes.count <= Self.objectLimit {
            _ = LocalFile.replace(path, with: Self.stamp(info) + bytes, durably: false)
        }
        return snapshot
    }

    /// All of them, oldest first, many at once. Those that are gone meanwhile are left out; those that are damaged come
    /// with their errors.
    public func forEach(_ body: (SnapshotName, Result<Snapshot, BackupError>) throws -> Void) async throws {
        _ = try await first(of: names, width: Self.width) { name, result in
            try body(name, result)
            return false
        }
    }

    /// The newest one that `isWanted`, or nil. Throws `.damaged` where one that may be it cannot be read.
    public func newest(where isWanted: (Snapshot) -> Bool) async throws -> Snapshot? {
        var found: Snapshot?
        func look(_ names: [SnapshotName], width: Int) async throws -> Bool {
            try await first(of: names, width: width) { _, result in
                let snapshot = try result.get()
                if isWanted(snapshot) { found = snapshot }
                return found != nil
            }
        }
        // Mostly one of the first few; where it is not, one round trip for each would take minutes.
        if try await look(names.suffix(1), width: 1) { return found }
        _ = try await look(names.dropLast().reversed(), width: 16)
        return found
    }

    /// Reads in order until `body` says that it is enough.
    /// - Returns: whether it did
    private func first(
        of names: [SnapshotName], width: Int, _ body: (SnapshotName, Result<Snapshot, BackupError>) throws -> Bool
    ) async throws -> Bool {
        var rest = names[...]
        var reading = OrderedMap<SnapshotName, (SnapshotName, Result<Snapshot, BackupError>?)>(
            width: width, on: repository.executor, from: { rest.popFirst() },
            transform: { name in
                do {
                    return (name, .success(try await self.snapshot(name)))
                } catch let error as BackupError where error.code == .damaged {
                    return (name, .failure(error))
                } catch let error as BackupError where error.code == .noSnapshot {
                    return (name, nil)
                }
            })
        do {
            while let (name, result) = try await reading.next() {
                guard let result, try body(name, result) else { continue }
                await reading.abandon()
                return true
            }
            return false
        } catch {
            await reading.abandon()
            throw error
        }
    }

    // MARK: - The cache

    private func path(_ name: SnapshotName) -> String? {
        directory.map { "\($0)/\(name.object.dropFirst(SnapshotName.prefix.count))" }
    }

    /// Size and date of an object as the store lists it: what was replaced there is read anew.
    private static func stamp(_ info: ObjectInfo) -> [UInt8] {
        [UInt64(info.size), UInt64(bitPattern: info.modified)].flatMap { withUnsafeBytes(of: $0.littleEndian, Array.init) }
    }

    private func cached(_ path: String, _ info: ObjectInfo) -> [UInt8]? {
        guard let bytes = LocalFile.read(path, limit: Self.objectLimit + 16) else { return nil }
        let stamp = Self.stamp(info)
        guard bytes.count == info.size + stamp.count, bytes.starts(with: stamp) else { return nil }
        return Array(bytes[stamp.count...])
    }

    /// Takes away what is of no snapshot any more.
    private func sweep() {
        guard let directory else { return }
        let wanted = Set(names.map { String($0.object.dropFirst(SnapshotName.prefix.count)) })
        for file in LocalFile.names(in: directory) where !wanted.contains(file) { unlink("\(directory)/\(file)") }
    }
}
