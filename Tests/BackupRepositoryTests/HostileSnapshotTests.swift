import BackupBase
import Foundation
import ObjectStorage
import TestSupport
import Testing

@testable import BackupRepository

/// Snapshots that somebody with the writer's own keys made to do harm. Each is
/// `.damaged`, at once and in bounded memory.
@Suite(.timeLimit(.minutes(20))) struct HostileSnapshotTests {
    private let test: TestRepository
    private var repository: Repository { test.repository }
    private let blocks: [[UInt8]]

    init() throws {
        test = try TestRepository("hostile")
        var random = Seeded(8)
        blocks = (0..<3).map { _ in random.bytes(4096) }
    }

    private func ids(_ blocks: [[UInt8]]) -> [BlockID] {
        blocks.map { block in block.withUnsafeBytes { test.keys.blockHasher.id(of: $0) } }
    }

    /// Reads everything that a restore or check would.
    private func readAll(_ name: SnapshotName) async throws {
        let repository = repository
        let snapshot = try await repository.snapshot(name)
        try await repository.forEachEntry(of: snapshot) { entry in
            guard case .file(_, let content) = entry.kind else { return }
            try await repository.read(content) { _ in }
        }
    }

    private func expectDamaged(_ name: SnapshotName, _ location: SourceLocation = #_sourceLocation) async throws {
        let start = ContinuousClock.now
        #expect(await code { try await readAll(name) } == .damaged, sourceLocation: location)
        let report = try await Check(repository, readShare: 1) { _, _ in }.run()
        #expect(
            report.findings.contains { $0.severity == .damage && $0.snapshot == "\(name.id)" }, "\(report.findings)",
            sourceLocation: location)
        #expect(ContinuousClock.now - start < .seconds(600), sourceLocation: location)
    }

    private func extents(_ locations: [Location]) -> Extents { locations.reduce(into: Extents()) { $0.append($1) } }

    @Test func `an honest snapshot made the same way is read`() async throws {
        let stored = try await repository.store(blocks, cohort: .mutable)
        let content = repository.content(extents(stored), ids: ids(blocks), size: 3 * 4096)
        let name = try await repository.commit([.root, .file("a", content)])
        var bytes: [UInt8] = []
        let snapshot = try await repository.snapshot(name)
        try await repository.forEachEntry(of: snapshot) { entry in
            guard case .file(_, let content) = entry.kind else { return }
            try await self.repository.read(content) { bytes += $0 }
        }
        #expect(bytes == blocks.flatMap { $0 })
        let report = try await Check(repository, readShare: 1) { _, _ in }.run()
        #expect(!report.findings.contains { $0.severity == .damage && $0.snapshot != nil })
    }

    // MARK: - Bodies

    @Test func `a manifest of 2^60 zero blocks is refused`() async throws {
        var manifest = Extents()
        manifest.appendZero(1 << 60)
        try await expectDamaged(try await repository.commit(repository.record(), manifest: manifest).name)
    }

    @Test(arguments: [1000, PackLimits.pack]) func `a manifest of more blocks than its pack has is refused`(_ count: Int)
        async throws
    {
        var root = ByteWriter()
        Entry.root.encode(after: [], to: &root)
        let chunk = try await repository.store([root.bytes])[0]
        var manifest = Extents()
        manifest.append(chunk, count: count)
        try await expectDamaged(try await repository.commit(repository.record(), manifest: manifest).name)
    }

    @Test func `a manifest that names one chunk again and again is refused`() async throws {
        var root = ByteWriter()
        Entry.root.encode(after: [], to: &root)
        let chunk = try await repository.store([root.bytes])[0]
        var manifest = Extents()
        for _ in 0..<100_000 { manifest.append(chunk) }
        try await expectDamaged(try await repository.commit(repository.record(), manifest: manifest).name)
    }

    @Test func `a manifest in a pack that is missing is refused`() async throws {
        let manifest = extents([Location(pack: .random(.system), ordinal: 0)])
        try await expectDamaged(try await repository.commit(repository.record(), manifest: manifest).name)
    }

    /// A chunk without entries costs a reader time and says nothing: no writer makes one.
    @Test func `a manifest of empty chunks is refused at the first`() async throws {
        var root = ByteWriter()
        Entry.root.encode(after: [], to: &root)
        let chunks = try await repository.store([root.bytes, []])
        var manifest = extents([chunks[0]])
        for _ in 0..<500 {
            manifest.append(chunks[1])
        }
        let name = try await repository.commit(repository.record(), manifest: manifest).name
        #expect(await code { try await readAll(name) } == .damaged)
    }

    @Test(arguments: 0..<40) func `bodies of any bytes are refused`(_ seed: Int) async throws {
        var random = Seeded(seed)
        let body = seed % 2 == 0 ? random.bytes(random.number(0...200)) : try packed(random.bytes(random.number(0...200)))
        let name = try await repository.put(body: body)
        #expect(await code { try await readAll(name) } == .damaged)
    }

    private func packed(_ plain: [UInt8]) throws -> [UInt8] {
        [UInt8](unsafeUninitializedCapacity: Compressor.bound(plain.count)) { buffer, count in
            count = plain.withUnsafeBytes { input in
                Compressor.with { $0.compress(input, into: UnsafeMutableRawBufferPointer(buffer), .small) } ?? 0
            }
        }
    }

    @Test func `a body that inflates beyond 64 MiB is refused`() async throws {
        let name = try await repository.put(body: try packed([UInt8](repeating: 0, count: (64 << 20) + 1)))
        #expect(await code { try await readAll(name) } == .damaged)
    }

    // MARK: - Contents

    private func expectDamaged(_ content: Content, _ location: SourceLocation = #_sourceLocation) async throws {
        try await expectDamaged(try await repository.commit([.root, .file("a", content)]), location)
    }

    @Test func `a content larger than its blocks is refused`() async throws {
        let stored = try await repository.store(blocks, cohort: .mutable)
        for size in [3 * 4096 + 1, 4 * 4096, 1 << 40, 1 << 60] as [Int64] {
            try await expectDamaged(repository.content(extents(stored), ids: ids(blocks), size: size))
        }
    }

    @Test func `a content whose last block is not as long as its size says is refused`() async throws {
        let stored = try await repository.store(blocks, cohort: .mutable)
        try await expectDamaged(repository.content(extents(stored), ids: ids(blocks), size: 3 * 4096 - 10))
    }

    @Test func `blocks in another order, or others, than the digest was made of are refused`() async throws {
        let stored = try await repository.store(blocks, cohort: .mutable)
        try await expectDamaged(repository.content(extents(stored.reversed()), ids: ids(blocks), size: 3 * 4096))
        try await expectDamaged(repository.content(extents([stored[0], stored[0], stored[0]]), ids: ids(blocks), size: 3 * 4096))
        var zeros = Extents()
        zeros.appendZero(3)
        try await expectDamaged(repository.content(zeros, ids: ids(blocks), size: 3 * 4096))
    }

    @Test func `blocks beyond their pack's end are refused`() async throws {
        let stored = try await repository.store(blocks, cohort: .mutable)
        for first in [1, 3, 100_000, PackLimits.pack] {
            var beyond = Extents()
            beyond.append(Location(pack: stored[0].pack, ordinal: first), count: 3)
            try await expectDamaged(repository.content(beyond, ids: ids(blocks), size: 3 * 4096))
        }
    }

    @Test func `parts that are no parts are refused`() async throws {
        let stored = try await repository.store(blocks, cohort: .mutable)
        var root = ByteWriter()
        Entry.root.encode(after: [], to: &root)
        let chunk = try await repository.store([root.bytes])[0]
        for part in [stored[0], chunk] {
            let content = Content(
                size: 1 << 30, blockSize: 4096, digest: [UInt8](repeating: 1, count: 32),
                layout: .indirect(blocksPerPart: 1 << 18, parts: extents([part])))
            try await expectDamaged(content)
        }
    }

    @Test func `numbers of a record are bounded, so that no sum of them overflows`() throws {
        var record = repository.record()
        record.statistics = ["bytes_total": .max, "bytes_new": -5, "bytes_read": 7]
        let snapshot = try Snapshot(id: .random(repository.ambient), decoding: try Snapshot.encode(record, manifest: Extents()))
        #expect(snapshot.record.statistics == ["bytes_total": 1 << 50, "bytes_new": 0, "bytes_read": 7])
    }

    @Test func `a part that describes too few or too many blocks, or the same ones again, is refused`() async throws {
        let stored = try await repository.store(blocks, cohort: .mutable)
        let part = Content.Part(dataRanges: [0..<3 * 4096], extents: extents(stored))
        let location = try await repository.store([part.encoded])[0]
        for (perPart, count) in [(3, 2), (4, 1), (2, 2), (3, 100_000), (1 << 40, 1)] {
            let size = Int64(min(perPart, 1 << 20)) * Int64(count) * 4096
            var parts = Extents()
            for _ in 0..<count { parts.append(location) }
            let content = Content(
                size: size, blockSize: 4096, digest: [UInt8](repeating: 1, count: 32),
                layout: .indirect(blocksPerPart: perPart, parts: parts))
            guard content.encoded.count < Entry.sizeLimit else { continue }
            try await expectDamaged(content)
        }
    }

    @Test func `a hole of 2^59 bytes is told apart at once`() async throws {
        var zeros = Extents()
        zeros.appendZero(1 << 47)
        let content = Content(
            size: 1 << 59, blockSize: 4096, digest: [UInt8](repeating: 1, count: 32),
            layout: .inline(Content.Part(dataRanges: [], extents: zeros)))
        let name = try await repository.commit([.root, .file("a", content)])
        let report = try await Check(repository, readShare: 1) { _, _ in }.run()
        #expect(report.findings.contains { $0.severity == .damage && $0.snapshot == "\(name.id)" && $0.path == "a" })
    }

    // MARK: - Packs

    /// Without this a trailer of 17 MB makes millions of frames in memory.
    @Test func `a trailer with frames that hold no block, or are shorter than their tag, is refused`() {
        var random = Seeded(1)
        var empty = PackTrailer(cohort: .mutable)
        empty.add(sealedLength: 20, blocks: [(id: BlockID, length: Int)]())
        #expect(throws: FormatError.self) { try PackTrailer(parsing: empty.bytes[...]) }
        var short = PackTrailer(cohort: .mutable)
        short.add(sealedLength: 15, blocks: [(id: random.block(), length: 1)])
        #expect(throws: FormatError.self) { try PackTrailer(parsing: short.bytes[...]) }
    }

    @Test func `a pack whose trailer claims frames of other packs' bytes is refused`() async throws {
        let stored = try await repository.store(blocks, cohort: .mutable)
        let content = repository.content(extents(stored), ids: ids(blocks), size: 3 * 4096)
        let name = try await repository.commit([.root, .file("a", content)])
        // The same frames under a trailer with other ids: sealed well, and wrong.
        let object = FinishedPack.name(stored[0].pack)
        let pack = try await repository.reader.pack(stored[0].pack)
        var random = Seeded(2)
        var trailer = PackTrailer(cohort: .mutable)
        trailer.add(
            sealedLength: pack.trailer.frames[0].sealedLength, blocks: pack.trailer.lengths.map { (random.block(), Int($0)) })
        var bytes = Array(try await test.store.get(object, .all, limit: 1 << 20).array.prefix(pack.trailer.end))
        let sealed = try test.keys.trailerSealing(of: pack.id).seal(trailer.bytes, position: Sealing.trailer)
        bytes += sealed + PackFooter(trailerLength: sealed.count).bytes
        try await test.store.put(object, AlignedBuffer(copying: bytes), ifAbsent: false)
        let fresh = Repository(
            store: test.store, keys: test.keys, configuration: repository.configuration, executor: TestRepository.executor,
            ambient: .system, identity: nil)
        let report = try await Check(fresh, readShare: 1) { _, _ in }.run()
        #expect(report.findings.contains { $0.object == object && $0.severity == .damage })
        #expect(report.findings.contains { $0.snapshot == "\(name.id)" && $0.path == "a" })
    }
}

/// The same against the program, whose memory can be measured.
@Suite(.enabled(if: FileManager.default.isExecutableFile(atPath: Program.binary), "needs the built program"))
struct HostileMemoryTests {
    @Test func `a snapshot of ten million runs is refused in 400 MiB`() async throws {
        let work = try Workspace("bomb", initialize: false)
        try FileManager.default.createDirectory(atPath: work.repository, withIntermediateDirectories: true)
        let repository = try await Repository.create(
            store: LocalStore(path: work.repository), password: Array("correct horse".utf8), label: "x", probe: [:],
            executor: TestRepository.executor)
        var root = ByteWriter()
        Entry.root.encode(after: [], to: &root)
        let chunk = try await repository.store([root.bytes])[0]
        var body = ByteWriter()
        body.sized(Array(try JSONEncoder().encode(repository.record())))
        body.varint(1)
        body.id(chunk.pack)
        let pairs = 5_000_000
        body.varint(2 * pairs)
        body.raw(
            [UInt8](unsafeUninitializedCapacity: 6 * pairs) { buffer, count in
                // One block from ordinal 0, one from ordinal 2, and so on: no two runs join.
                buffer.update(repeating: 0)
                for pair in 0..<pairs {
                    buffer[6 * pair] = 3
                    buffer[6 * pair + 3] = 3
                    buffer[6 * pair + 5] = 2
                }
                count = 6 * pairs
            })
        let plain = body.bytes
        let packed = [UInt8](unsafeUninitializedCapacity: Compressor.bound(plain.count)) { buffer, count in
            count = plain.withUnsafeBytes { input in
                Compressor.with { $0.compress(input, into: UnsafeMutableRawBufferPointer(buffer), .fast) } ?? 0
            }
        }
        _ = try await repository.put(body: packed)
        let script = """
            import resource, subprocess, sys
            status = subprocess.run(sys.argv[1:], capture_output=True).returncode
            print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
            sys.exit(status)
            """
        let result = try Program.run(
            "/usr/bin/env", ["python3", "-c", script, Program.binary, "ls", "latest"], environment: work.environment)
        #expect(result.status == 17, "\(result.errors)")
        let peak = Int(result.output.filter(\.isNumber)) ?? .max
        #expect(peak < 400 << 10, "\(peak) KiB")
    }
}
