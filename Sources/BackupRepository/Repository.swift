import BackupBase
import FoundationEssentials
import Glibc
import ObjectStorage

/// A repository that was opened with a key: snapshots, and the way in and out
/// of its packs. Bytes in, bytes out; it knows nothing of volumes.
public final class Repository: Sendable {
    public let store: any ObjectStore
    public let keys: KeyRing
    public let configuration: Configuration
    public let executor: BlockingExecutor
    public let reader: PackReader
    let ambient: Ambient
    /// Who this node is to a store that lets one node write; nil where nobody kept it.
    let identity: WriterIdentity?
    /// Id of the key slot that opened it; nil with a writer key.
    public let slot: String?
    let closings: PairClosings

    /// For people who find a lease: node and process.
    var holder: String { "\(identity?.node ?? "a node"), process \(getpid())" }

    public var id: ObjectID { keys.repository }

    init(
        store: any ObjectStore, keys: KeyRing, configuration: Configuration, executor: BlockingExecutor, ambient: Ambient,
        identity: WriterIdentity?, slot: String? = nil
    ) {
        self.store = store
        self.keys = keys.knowing(newest: configuration.keyGeneration)
        self.configuration = configuration
        self.executor = executor
        self.ambient = ambient
        self.identity = identity
        self.slot = slot
        reader = PackReader(store: store, keys: self.keys)
        closings = PairClosings(store: store, keys: self.keys, executor: executor, ambient: ambient)
    }

    /// Whether the key pair was rotated since: the keys then read what is older, and nothing is written with them.
    public var isOutdated: Bool { configuration.keyGeneration > keys.generation }

    /// Before anything is written. Throws `.wrongPassword`.
    public func requireCurrent() throws {
        if isOutdated { throw keys.outdated(configuration) }
    }

    // MARK: - Writing

    /// Runs `body` with a writer. When it returns, everything added is stored
    /// and indexed; when it throws, nothing refers to what was stored.
    /// - Parameters:
    ///   - cache: directory for the block index, or nil to keep it in memory.
    ///   - journal: directory for notes of packs under way, which the next run
    ///     takes over where this one is interrupted; no other run may use it meanwhile.
    ///   - width: regions that `body` has under way at once.
    ///   - session: of the runs before this one, where they follow each other closely
    ///
    /// From before anything is looked at until after the commit an intent keeps
    /// prunes away from what is found here: `body` lists snapshots, looks at what
    /// its node remembers and commits (`RepositoryWriter.commit`) all within.
    public func withWriter<Result>(
        cache: String?, journal: String? = nil, width: Int, session: WriterSession? = nil,
        _ body: (RepositoryWriter) async throws -> Result
    ) async throws -> Result {
        try await withWriter(
            cache: cache, journal: journal, width: width, session: session, renewing: Intent.renewal, body)
    }

    /// - Parameter pause: seconds between renewals of the run's intent; nil leaves them to `body`
    func withWriter<Result>(
        cache: String?, journal: String?, width: Int, session: WriterSession? = nil, renewing pause: Double?,
        _ body: (RepositoryWriter) async throws -> Result
    ) async throws -> Result {
        try await requireClaim()
        guard let session else {
            return try await withIntent(.writer, pause: pause) { intent in
                try await write(intent, nil, cache, journal, width, body)
            }
        }
        let (intent, packs) = try await session.begin(self, renewing: pause)
        do {
            return try await write(intent, packs, cache, journal, width) { writer in
                let result = try await body(writer)
                session.keep(writer.usable)
                return result
            }
        } catch {
            await session.end()
            throw error
        }
    }

    /// - Parameter packs: those that may be used, where that was looked up
    private func write<Result>(
        _ intent: Intent, _ packs: UsablePacks?, _ cache: String?, _ journal: String?, _ width: Int,
        _ body: (RepositoryWriter) async throws -> Result
    ) async throws -> Result {
        // Beside the work: each of these is a round trip or two.
        async let sweeping: Void = sweepTemporary()
        async let completing: Void = completeConfiguration()
        async let usable = usablePacks(packs, intent)
        let index = BlockIndex(directory: cache.map { "\($0)/\(id)/index" }, ambient: ambient)
        try await index.load(store, keys)
        try await completing
        let pending = journal.flatMap { PendingPacks(directory: $0, keys: keys, ambient: ambient) }
        let writer = RepositoryWriter(
            repository: self, index: index, usable: try await usable, intent: intent, pending: pending, width: width)
        do {
            try await writer.takeOver()
            let result = try await body(writer)
            try await writer.finish()
            await sweeping
            return result
        } catch {
            await writer.abandon()
            throw error
        }
    }

    private func usablePacks(_ known: UsablePacks?, _ intent: Intent) async throws -> UsablePacks {
        if let known { return known }
        return try await usablePacks(intent).packs
    }

    /// Takes away what runs that were killed a day ago or more left below `tmp/`.
    /// It is only space: errors wait for the next run.
    private func sweepTemporary() async {
        let yesterday = ambient.now() - 86_400_000_000_000
        for info in (try? await store.list("tmp/")) ?? [] where info.modified < yesterday {
            guard ["tmp/put-", "tmp/probe-", "tmp/clock-"].contains(where: { info.name.hasPrefix($0) }) else { continue }
            try? await store.delete(info.name)
        }
        try? await store.removeLeftovers(before: yesterday)
    }

    /// Stores a snapshot's object, which makes it exist. For `RepositoryWriter.commit`,
    /// which makes sure that what it needs is there and stays.
    /// - Returns: its name, and the bytes stored.
    func commit(
        _ record: SnapshotRecord, manifest: Extents, id: ObjectID? = nil
    ) async throws -> (name: SnapshotName, stored: Int) {
        let name = SnapshotName(sequence: record.sequence, id: id ?? .random(ambient))
        let (header, sealing) = try keys.newObject(.snapshot, name.id)
        let plain = try Snapshot.encode(record, manifest: manifest)
        guard plain.count <= Snapshot.bodyLimit else { throw BackupError(.failed, "the snapshot has too many manifest chunks") }
        let packed = [UInt8](unsafeUninitializedCapacity: Compressor.bound(plain.count)) { buffer, count in
            count = plain.withUnsafeBytes { input in
                Compressor.with { $0.compress(input, into: UnsafeMutableRawBufferPointer(buffer), .small) } ?? 0
            }
        }
        let object = AlignedBuffer(copying: header.bytes + (try sealing.seal(packed, position: Sealing.body)))
        try await store.put(name.object, object, ifAbsent: true)
        return (name, object.count)
    }

    // MARK: - Snapshots

    /// What the store lists, oldest first. Needs no private key.
    public func snapshotNames() async throws -> [SnapshotName] {
        try await store.list(SnapshotName.prefix).compactMap { SnapshotName(object: $0.name) }.sorted()
    }

    /// Throws `.writeOnlyKey` for a writer, `.damaged` for what is no snapshot, `.wrongPassword` for one from after a
    /// rotation that these keys are from before.
    public func snapshot(_ name: SnapshotName) async throws -> Snapshot { try await fetchSnapshot(name).snapshot }

    /// An object's bytes as a snapshot. Throws `FormatError` for what is none, or another one, or was
    /// made with a key pair after that was rotated away.
    func verify(_ name: SnapshotName, _ bytes: [UInt8]) async throws -> Snapshot {
        let header = try ObjectHeader(parsing: bytes, expecting: .snapshot, name.id)
        try await closings.require(name, bytes, of: header.generation)
        let sealing = try keys.openObject(header)
        let packed = try bytes[ObjectHeader.size...].withUnsafeBytes { try sealing.open($0, position: Sealing.body) }
        let snapshot = try Snapshot(id: name.id, decoding: Decompression.inflate(packed, limit: Snapshot.bodyLimit))
        guard snapshot.record.sequence == name.sequence else { throw FormatError("it carries another sequence") }
        return snapshot
    }

    /// From the store, with its object's bytes. Throws as `snapshot` does.
    func fetchSnapshot(_ name: SnapshotName) async throws -> (snapshot: Snapshot, bytes: [UInt8]) {
        guard keys.canRead else { throw KeyRing.writeOnly }
        do {
            let bytes = try await store.get(name.object, .all, limit: Snapshot.bodyLimit).array
            return (try await verify(name, bytes), bytes)
        } catch let error as FormatError {
            throw BackupError(
                .damaged, "snapshot \(name.object) is damaged",
                hint: "Other snapshots are not affected; see 'bgbackup snapshots'.", cause: error)
        } catch let error as StoreError where error.kind == .notFound {
            throw BackupError(.noSnapshot, "snapshot \(name.id) is gone")
        } catch let error as StoreError where error.kind == .tooLarge {
            throw BackupError(.damaged, "snapshot \(name.object) is damaged", cause: error)
        }
    }

    /// Visits the manifest's entries in order, validated as a whole.
    /// - Parameter trailers: read those of the packs that files are in ahead, several at once
    public func forEachEntry(
        of snapshot: Snapshot, trailers: Bool = true, _ body: (Entry) async throws -> Void
    ) async throws {
        var validator = ManifestValidator()
        for run in snapshot.manifest.runs {
            guard case .stored(let pack, let first, let count) = run else { continue }
            for ordinal in first..<first + count {
                let location = Location(pack: pack, ordinal: ordinal)
                let bytes = try await reader.block(location)
                var entries: [Entry] = []
                do {
                    try ManifestChunk.decode(bytes) { entry in
                        try validator.accept(entry)
                        entries.append(entry)
                    }
                } catch let error as FormatError {
                    throw BackupError(
                        .damaged,
                        "the manifest of snapshot \(snapshot.id) is not valid (\(FinishedPack.name(pack)), block \(ordinal))",
                        cause: error)
                }
                if trailers { try await reader.prefetch(entries.flatMap { $0.packs }, on: executor) }
                for entry in entries { try await body(entry) }
            }
        }
        do {
            try validator.finish()
        } catch let error as FormatError {
            throw BackupError(.damaged, "the manifest of snapshot \(snapshot.id) is not valid", cause: error)
        }
    }

    /// Visits a file's parts in order, each with the number of its first block.
    public func forEachPart(
        of content: Content, trailers: Bool = true, _ body: (Content.Part, _ firstBlock: Int) async throws -> Void
    ) async throws {
        switch content.layout {
        case .inline(let part): try await body(part, 0)
        case .indirect(let perPart, let parts):
            var first = 0
            for run in parts.runs {
                guard case .stored(let pack, let ordinal, let count) = run else { continue }
                for number in ordinal..<ordinal + count {
                    let location = Location(pack: pack, ordinal: number)
                    let blocks = min(perPart, content.blockCount - first)
                    let start = Int64(first) * Int64(content.blockSize)
                    let size = min(Int64(perPart) * Int64(content.blockSize), content.size - start)
                    let bytes = try await reader.block(location)
                    let part: Content.Part
                    do {
                        part = try Content.Part(decoding: bytes, size: size, blocks: blocks)
                    } catch let error as FormatError {
                        throw BackupError(
                            .damaged, "a file's block list is not valid (\(FinishedPack.name(pack)), block \(number))",
                            cause: error)
                    }
                    if trailers { try await reader.prefetch(part.extents.packs, on: executor) }
                    try await body(part, first)
                    first += blocks
                }
            }
        }
    }
}
