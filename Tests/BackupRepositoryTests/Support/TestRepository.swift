import BackupBase
import Crypto
import Foundation
import ObjectStorage
import TestSupport
import Testing

@testable import BackupRepository

/// A repository in a directory of its own, opened without a password: deriving
/// a key takes longer than most of these tests.
struct TestRepository {
    let directory: TemporaryDirectory
    let store: LocalStore
    let repository: Repository
    var keys: KeyRing { repository.keys }
    static let executor = BlockingExecutor(threads: 4)

    init(_ label: String = "unit") throws {
        directory = try TemporaryDirectory(label)
        store = LocalStore(path: directory.path)
        repository = Repository.unwritten(on: store)
    }
}

extension Repository {
    /// A repository of which nothing is in the store yet.
    static func unwritten(
        on store: any ObjectStore, keys: KeyRing? = nil, probe: [String: String] = [:], ambient: Ambient = .system,
        identity: WriterIdentity? = nil
    ) -> Repository {
        let ring = keys ?? KeyRing.generate(repository: .random(.system))
        let configuration = Configuration(
            repository: "\(ring.repository)", created: "2026-01-01T00:00:00Z",
            publicKey: Array(ring.publicKey.rawRepresentation).hex, probe: probe)
        return Repository(
            store: store, keys: ring, configuration: configuration, executor: TestRepository.executor, ambient: ambient,
            identity: identity)
    }

    /// The same with its configuration, and a key slot that opens with nothing.
    static func written(
        on store: any ObjectStore, probe: [String: String] = [:], ambient: Ambient = .system, identity: WriterIdentity? = nil
    ) async throws -> Repository {
        let repository = unwritten(on: store, probe: probe, ambient: ambient, identity: identity)
        let slot = KeySlot(
            n: 1 << 15, r: 8, p: 1, salt: [UInt8](repeating: 1, count: 16).hex, nonce: [UInt8](repeating: 2, count: 12).hex,
            sealed: [UInt8](repeating: 3, count: 80).hex, label: "l", created: "c")
        let bytes = AlignedBuffer(copying: Array(try JSONEncoder().encode(slot)))
        for copy in ["a", "b"] { try await store.put("v1/keys/0102030405060708.\(copy)", bytes, ifAbsent: true) }
        let configuration = AlignedBuffer(copying: try repository.configuration.encoded(repository.keys))
        for name in Configuration.names { try await store.put(name, configuration, ifAbsent: true) }
        return repository
    }

    /// The same repository seen by another process: other store, keys, clock or node.
    func seen(
        on store: (any ObjectStore)? = nil, keys: KeyRing? = nil, ambient: Ambient? = nil, identity: WriterIdentity? = nil
    ) -> Repository {
        Repository(
            store: store ?? self.store, keys: keys ?? self.keys, configuration: configuration, executor: executor,
            ambient: ambient ?? self.ambient, identity: identity ?? self.identity)
    }

    /// A snapshot of one file with these blocks; known ones are not stored again.
    @discardableResult
    func snapshot(_ sequence: UInt64, _ blocks: [[UInt8]]) async throws -> SnapshotName {
        let stored = try await store(blocks, cohort: .mutable)
        let ids = blocks.map { block in block.withUnsafeBytes { keys.blockHasher.id(of: $0) } }
        let extents = stored.reduce(into: Extents()) { $0.append($1) }
        let size = Int64(blocks.reduce(0) { $0 + $1.count })
        let entries: [Entry] = [.root, .file("a", content(extents, ids: ids, size: size))]
        let chunks = entries.map { entry in
            var writer = ByteWriter()
            entry.encode(after: [], to: &writer)
            return writer.bytes
        }
        let manifest = try await store(chunks).reduce(into: Extents()) { $0.append($1) }
        return try await commit(record(sequence), manifest: manifest).name
    }

    func check(readShare: Double = 1) async throws -> CheckReport {
        try await Check(self, readShare: readShare) { _, _ in }.run()
    }
}

extension Repository {
    /// Stores blocks, each where the writer puts it.
    func store(_ blocks: [[UInt8]], cohort: Cohort = .metadata) async throws -> [Location] {
        try await withWriter(cache: nil, width: 2) { writer in
            var places: [RepositoryWriter.Place] = []
            for block in blocks {
                let buffer = writer.buffers.take()
                buffer.memory.copyBytes(from: block)
                buffer.count = block.count
                let id = self.keys.blockHasher.id(of: buffer.bytes)
                let region = HashedRegion(buffer: buffer, blocks: [HashedRegion.Block(range: 0..<block.count, id: id)])
                places += try await writer.add(region, cohort: cohort)
            }
            try await writer.settleTickets()
            return places.map {
                switch $0 {
                case .stored(let location): location
                case .new(let ticket): writer.location(ofTicket: ticket)
                case .zero: preconditionFailure("not asked for")
                }
            }
        }
    }

    func record(_ sequence: UInt64 = 1) -> SnapshotRecord {
        SnapshotRecord(
            sequence: sequence, node: "n", volume: "/v", kind: .tree, lineage: "0123456789abcdef", parent: nil,
            started: "2026-01-01T00:00:00Z", finished: "2026-01-01T00:00:01Z", capture: "none", consistency: .fuzzy,
            tags: [], set: nil, agent: "test", complete: true, problems: [], statistics: [:])
    }

    /// Commits a snapshot of these entries, one chunk each.
    func commit(_ entries: [Entry]) async throws -> SnapshotName {
        let chunks = entries.map { entry in
            var writer = ByteWriter()
            entry.encode(after: [], to: &writer)
            return writer.bytes
        }
        var manifest = Extents()
        for location in try await store(chunks) { manifest.append(location) }
        return try await commit(record(), manifest: manifest).name
    }

    /// A snapshot object with any body, sealed as the writer would.
    func put(body: [UInt8]) async throws -> SnapshotName {
        let name = SnapshotName(sequence: 1, id: .random(ambient))
        let (header, sealing) = try keys.newObject(.snapshot, name.id)
        let object = header.bytes + (try sealing.seal(body, position: Sealing.body))
        try await store.put(name.object, AlignedBuffer(copying: object), ifAbsent: true)
        return name
    }

    /// A file's content of these blocks, with the digest they give.
    func content(_ extents: Extents, ids: [BlockID], size: Int64, blockSize: Int = 4096) -> Content {
        var digest = keys.digestHasher.fileDigest(size: size, blockSize: blockSize)
        for id in ids { digest.add(id) }
        return Content(
            size: size, blockSize: blockSize, digest: digest.finish(),
            layout: .inline(Content.Part(dataRanges: size > 0 ? [0..<size] : [], extents: extents)))
    }
}

extension Entry {
    static let root = Entry(path: [], kind: .directory(plain))
    static let plain = Metadata(mode: 0o755, owner: 0, group: 0, modified: 0, attributes: [])

    static func file(_ name: String, _ content: Content) -> Entry { Entry(path: Array(name.utf8), kind: .file(plain, content)) }
}

/// Stretches new passwords as little as a slot may ask for: a debug build takes half a second otherwise.
struct CheapPasswords: SuiteTrait, TestTrait, TestScoping {
    var isRecursive: Bool { true }

    func provideScope(
        for test: Test, testCase: Test.Case?, performing function: @concurrent @Sendable () async throws -> Void
    ) async throws {
        try await KeySlot.$cost.withValue((n: 1 << 10, r: 1, p: 1)) { try await function() }
    }
}

/// The error that `body` throws, or nil.
func failure(_ body: () async throws -> Void) async -> (any Error)? {
    do {
        try await body()
        return nil
    } catch {
        return error
    }
}

/// Calls `body` until it holds; for what another task does. False after a minute.
func eventually(_ body: () async throws -> Bool) async rethrows -> Bool {
    let end = monotonicSeconds() + 60
    while monotonicSeconds() < end {
        if try await body() { return true }
        try? await Task.sleep(for: .milliseconds(2))
    }
    return false
}

/// The code of the error that `body` throws, or nil.
func code(_ body: () async throws -> Void) async -> BackupError.Code? {
    do {
        try await body()
        return nil
    } catch let error as BackupError {
        return error.code
    } catch {
        return .failed
    }
}
