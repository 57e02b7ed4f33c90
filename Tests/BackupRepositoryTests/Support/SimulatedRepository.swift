import BackupBase
import Crypto
import Foundation
import ObjectStorage
import TestSupport

@testable import BackupRepository

/// A repository whose files hold blocks that are known by number, so that any
/// snapshot tells what its files have to hold.
struct SimulatedRepository: Sendable {
    /// One for all schedules.
    static let keys = KeyRing.generate(repository: ObjectID(bytes: [UInt8](repeating: 7, count: 16)))
    static let blockCount = 14
    private static let blocks: [[UInt8]] = (0..<blockCount).map { number in
        var random = Seeded(number + 1000)
        return random.bytes(4096)
    }
    private static let ids: [BlockID] = blocks.map { block in block.withUnsafeBytes { keys.blockHasher.id(of: $0) } }

    static func open(_ store: MemoryStore, _ executor: BlockingExecutor, _ ambient: Ambient) -> Repository {
        let configuration = Configuration(
            repository: "\(keys.repository)", created: "2026-01-01T00:00:00Z",
            publicKey: Array(keys.publicKey.rawRepresentation).hex, probe: [:])
        return Repository(
            store: store, keys: keys, configuration: configuration, executor: executor, ambient: ambient, identity: nil)
    }

    /// What is there before anybody comes: configuration and a key slot.
    static func fill(_ store: MemoryStore) {
        let repository = open(store, TestRepository.executor, store.ambient())
        let bytes = (try? repository.configuration.encoded(keys)) ?? []
        for name in Configuration.names { store.set(name, bytes) }
        let slot = KeySlot(
            n: 1 << 15, r: 8, p: 1, salt: [UInt8](repeating: 1, count: 16).hex, nonce: [UInt8](repeating: 2, count: 12).hex,
            sealed: [UInt8](repeating: 3, count: 80).hex, label: "l", created: "c")
        let encoded = Array((try? JSONEncoder().encode(slot)) ?? Data())
        for copy in ["a", "b"] { store.set("v1/keys/0102030405060708.\(copy)", encoded) }
    }

    /// Another place with snapshots of this repository, for copies; one for all schedules, which only read it.
    static let origin: (store: MemoryStore, ended: Int) = {
        let stage = Stage(MemoryStore())
        fill(stage.store)
        var random = Seeded(4711)
        stage.add {
            let memory = Locked(Memory())
            let dice = Locked(Seeded(4712))
            let repository = open(stage.store, stage.executor, stage.store.ambient(seed: 4713))
            for _ in 0..<3 { try? await backup(repository, memory, directory: nil, dice) }
        }
        return (stage.store, stage.play(&random))
    }()

    // MARK: - Backups

    /// A file of the last snapshot, as the node remembers it.
    struct File: Sendable {
        var numbers: [Int]
        var content: Content
        var packs: Set<ObjectID>
    }

    /// What a node remembers from run to run: the counterpart of `LocalState`.
    struct Memory: Sendable {
        var snapshot: ObjectID?
        var files: [String: File] = [:]
    }

    /// One backup, by the rules of `BackupRun`: a file that did not change is taken from what is remembered where all
    /// that holds it may be used; others are read, and their blocks stored where they are not known.
    static func backup(
        _ repository: Repository, _ memory: Locked<Memory>, directory: String?, _ random: Locked<Seeded>,
        session: WriterSession? = nil
    ) async throws {
        try await repository.withWriter(
            cache: directory.map { "\($0)/cache" }, journal: directory.map { "\($0)/packs" }, width: 2, session: session,
            renewing: nil
        ) { writer in
            let names = try await repository.snapshotNames()
            let remembered = memory.withLock { $0 }
            let isListed = names.contains { $0.id == remembered.snapshot }
            var files: [String: File] = [:]
            for (name, cohort) in [("a", Cohort.mutable), ("b", .writtenOnce), ("c", .log)] {
                if isListed, let file = remembered.files[name], random.withLock({ $0.number(0...2) > 0 }),
                    file.packs.allSatisfy({ writer.mayUse(pack: $0) })
                {
                    files[name] = file
                    continue
                }
                let numbers = random.withLock { random in
                    (0..<random.number(1...6)).map { _ in random.number(0...blockCount - 1) }
                }
                files[name] = try await store(numbers, cohort, isIndirect: name == "b", writer)
                if random.withLock({ $0.number(0...3) == 0 }) { try await writer.intent.renew() }
            }
            let manifest = try await storeManifest(files, writer)
            var record = repository.record((names.last?.sequence ?? 0) + 1)
            record.tags = files.sorted { $0.key < $1.key }.map { name, file in
                "\(name):" + file.numbers.map { "\($0)" }.joined(separator: ",")
            }
            let name = try await writer.commit(record, manifest: manifest).name
            memory.withLock { $0 = Memory(snapshot: name.id, files: files) }
        }
    }

    private static func add(_ bytes: [UInt8], _ id: BlockID, _ cohort: Cohort, _ writer: RepositoryWriter) async throws
        -> RepositoryWriter.Place
    {
        let buffer = writer.buffers.take()
        buffer.memory.copyBytes(from: bytes)
        buffer.count = bytes.count
        let region = HashedRegion(buffer: buffer, blocks: [HashedRegion.Block(range: 0..<bytes.count, id: id)])
        return try await writer.add(region, cohort: cohort)[0]
    }

    private static func extents(_ places: [RepositoryWriter.Place], _ writer: RepositoryWriter) async throws -> Extents {
        try await writer.settleTickets()
        return places.reduce(into: Extents()) { extents, place in
            switch place {
            case .stored(let location): extents.append(location)
            case .new(let ticket): extents.append(writer.location(ofTicket: ticket))
            case .zero: preconditionFailure("no block is zero")
            }
        }
    }

    private static func metadata(_ chunks: [[UInt8]], _ writer: RepositoryWriter) async throws -> Extents {
        var places: [RepositoryWriter.Place] = []
        for chunk in chunks {
            let id = chunk.withUnsafeBytes { keys.blockHasher.id(of: $0) }
            places.append(try await add(chunk, id, .metadata, writer))
        }
        return try await extents(places, writer)
    }

    private static func store(_ numbers: [Int], _ cohort: Cohort, isIndirect: Bool, _ writer: RepositoryWriter) async throws
        -> File
    {
        var places: [RepositoryWriter.Place] = []
        for number in numbers { places.append(try await add(blocks[number], ids[number], cohort, writer)) }
        let extents = try await Self.extents(places, writer)
        let size = Int64(numbers.count * 4096)
        var content = writer.repository.content(extents, ids: numbers.map { ids[$0] }, size: size)
        guard isIndirect else { return File(numbers: numbers, content: content, packs: extents.packs) }
        var parts: [[UInt8]] = []
        var part: [Location] = []
        func endPart() {
            guard !part.isEmpty else { return }
            let length = Int64(part.count * 4096)
            let extents = part.reduce(into: Extents()) { $0.append($1) }
            parts.append(Content.Part(dataRanges: [0..<length], extents: extents).encoded)
            part = []
        }
        extents.forEachBlock { location in
            part.append(location!)
            if part.count == 2 { endPart() }
        }
        endPart()
        let lists = try await metadata(parts, writer)
        content.layout = .indirect(blocksPerPart: 2, parts: lists)
        return File(numbers: numbers, content: content, packs: extents.packs.union(lists.packs))
    }

    private static func storeManifest(_ files: [String: File], _ writer: RepositoryWriter) async throws -> Extents {
        let entries = [Entry.root] + files.sorted { $0.key < $1.key }.map { Entry.file($0.key, $0.value.content) }
        return try await metadata(
            entries.map { entry in
                var bytes = ByteWriter()
                entry.encode(after: [], to: &bytes)
                return bytes.bytes
            }, writer)
    }

    // MARK: - Restores

    /// Reads all of a snapshot. Throws where something is not what the snapshot has to hold.
    static func restore(_ name: SnapshotName, from repository: Repository) async throws {
        let snapshot = try await repository.snapshot(name)
        let wanted = Dictionary(
            uniqueKeysWithValues: snapshot.record.tags.map { tag in
                let parts = tag.split(separator: ":")
                return (String(parts[0]), parts[1].split(separator: ",").map { Int($0)! })
            })
        var found = 0
        try await repository.forEachEntry(of: snapshot) { entry in
            guard case .file(_, let content) = entry.kind else { return }
            let numbers = wanted[String(decoding: entry.path, as: UTF8.self)] ?? []
            found += 1
            try await repository.forEachPart(of: content) { part, first in
                var locations: [Location] = []
                part.extents.forEachBlock { locations.append($0!) }
                for (step, location) in locations.enumerated() {
                    let bytes = try await read(location, repository)
                    guard first + step < numbers.count, bytes == blocks[numbers[first + step]] else {
                        throw BackupError(.damaged, "block \(first + step) of \(printable(entry.path)) is another one")
                    }
                }
            }
        }
        guard found == wanted.count else { throw BackupError(.damaged, "\(found) files of \(wanted.count)") }
    }

    private static func read(_ location: Location, _ repository: Repository) async throws -> [UInt8] {
        let reader = repository.reader
        let pack = try await reader.pack(location.pack)
        guard let number = pack.trailer.frame(holding: location.ordinal) else { throw BackupError(.damaged, "no such block") }
        let frame = try reader.open(number, in: try await reader.read(number..<number + 1, of: pack))
        defer { reader.release(frame) }
        let range = frame.ranges[location.ordinal - frame.blocks.lowerBound]
        try reader.verify(location.ordinal, range, of: frame)
        return Array(frame.buffer.bytes[range])
    }
}
