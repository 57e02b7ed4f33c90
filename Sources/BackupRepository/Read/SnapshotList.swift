import BackupBase
import ObjectStorage

/// What the store lists of snapshots and of the notes on them. It takes no key, so it is asked for beside opening.
public struct SnapshotListing: Sendable {
    let snapshots: [ObjectInfo]
    /// Of all topics. Who wants only snapshots minds no error of theirs.
    private let noted: Result<[ObjectInfo], any Error>

    public init(_ store: any ObjectStore) async throws {
        async let noted = Result.of { try await store.list(NoteTopic.prefix) }
        snapshots = try await store.list(SnapshotName.prefix)
        self.noted = await noted
    }

    func notes(_ topic: NoteTopic) throws -> [ObjectInfo] { try noted.get().filter { $0.name.hasPrefix(topic.prefix) } }
}

/// The snapshots that the store lists now, read from this node's cache where it has them (`ObjectCache`).
///
/// For lists: whoever restores, checks or prunes reads the store (`Repository.snapshot`).
public final class SnapshotList: Sendable {
    /// Oldest first.
    public let names: [SnapshotName]
    private let repository: Repository
    private let listed: [SnapshotName: ObjectInfo]
    private let cache: ObjectCache?
    /// Snapshots that a later list had, once there was a reason for one.
    private let still = Locked<Set<SnapshotName>?>(nil)

    /// Objects under way at once.
    private static let width = 64

    /// - Parameters:
    ///   - cache: the node's cache; nil reads everything from the store
    ///   - listing: of just now; nil lists
    public init(_ repository: Repository, cache: String?, listing: SnapshotListing? = nil) async throws {
        self.repository = repository
        var infos = listing?.snapshots ?? []
        if listing == nil { infos = try await repository.store.list(SnapshotName.prefix) }
        listed = infos.reduce(into: [:]) { listed, info in SnapshotName(object: info.name).map { listed[$0] = info } }
        names = listed.keys.sorted()
        self.cache = ObjectCache(cache, of: repository.id, prefix: SnapshotName.prefix)
        self.cache?.sweep(infos)
    }

    /// Throws as `Repository.snapshot` does, and `.damaged` for one that is still listed and not to be had.
    public func snapshot(_ name: SnapshotName) async throws -> Snapshot {
        guard repository.keys.canRead else { throw KeyRing.writeOnly }
        let info = listed[name]
        if let info, let bytes = cache?.bytes(info), let snapshot = try? await repository.verify(name, bytes) { return snapshot }
        do {
            let (snapshot, bytes) = try await repository.fetchSnapshot(name)
            if let info { cache?.keep(bytes, of: info) }
            return snapshot
        } catch let error as BackupError where error.code == .noSnapshot {
            guard info != nil, try await isStillListed(name) else { throw error }
            throw BackupError(
                .damaged, "snapshot \(name.object) is listed, and the store says that it is not there",
                hint: "Something between here and the store may answer for it: try again, then run 'bgbackup check'.",
                cause: error)
        }
    }

    /// Whether a snapshot that the store denies is no snapshot that was just forgotten.
    private func isStillListed(_ name: SnapshotName) async throws -> Bool {
        // Stores without conditions list for a while what is gone; one node writes to them.
        guard repository.isShared else { return false }
        // What a list did not have does not come back. So a forget of many beside us costs few lists.
        if let still = still.withLock({ $0 }), !still.contains(name) { return false }
        let now = Set(try await repository.snapshotNames())
        still.withLock { $0 = now }
        return now.contains(name)
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
                } catch let error as BackupError where error.code == .damaged || error.code == .wrongPassword {
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
}
