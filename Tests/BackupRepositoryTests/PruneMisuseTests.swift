import BackupBase
import Foundation
import Glibc
import ObjectStorage
import TestSupport
import Testing

@testable import BackupRepository

/// What a prune does where others do what they should not, on purpose or by mischance: nothing that is needed goes,
/// and nothing takes memory without bounds.
@Suite(.timeLimit(.minutes(20))) struct PruneMisuseTests {
    private let store = MemoryStore()
    private let repository: Repository
    private static let old = (0..<3).map { [UInt8](repeating: UInt8($0 + 1), count: 4096) }
    private static let kept = (0..<3).map { [UInt8](repeating: UInt8($0 + 101), count: 4096) }

    /// Two snapshots, of which one is forgotten: of four packs one can go.
    init() async throws {
        repository = try await Repository.written(on: store, ambient: store.ambient())
        let first = try await repository.snapshot(1, Self.old)
        try await repository.snapshot(2, Self.kept)
        try await store.delete(first.object)
        store.advance(100)
    }

    @discardableResult
    private func prune(_ repository: Repository? = nil, grace: Double = 0, dryRun: Bool = false) async throws -> PrunePlan {
        var options = Prune.Options()
        options.grace = grace
        options.dryRun = dryRun
        return try await Prune.run(repository ?? self.repository, options) { _, _, _ in }
    }

    /// What a snapshot of these blocks adds to the store, taken out of it again.
    private func prepared(_ blocks: [[UInt8]]) async throws -> [String: [UInt8]] {
        let before = Set(store.names)
        try await repository.snapshot(9, blocks)
        let added = store.names.filter { !before.contains($0) && !$0.hasPrefix("tmp/") }
        let objects = added.reduce(into: [:]) { $0[$1] = store.bytes($1)! }
        for name in added { store.remove(name) }
        return objects
    }

    /// A prune beside which these objects appear once it has put its tombstone.
    private func prune(meanwhile objects: [String: [UInt8]], grace: Double = 0) async throws -> PrunePlan {
        let view = store.another()
        let store = store
        view.onCall { call in
            guard call.operation == "list", call.name == "tmp/", !store.names("v1/notes/tombstone/").isEmpty else { return }
            for (name, bytes) in objects { store.set(name, bytes) }
        }
        return try await prune(repository.seen(on: view), grace: grace)
    }

    // MARK: - Backups that end meanwhile

    @Test func `what became needed while a prune ran waits for a grace of its own once it is forgotten`() async throws {
        let objects = try await prepared(Self.old)
        store.advance(2000)
        #expect(try await prune(meanwhile: objects, grace: 1000).free.packs == 0)
        // All that the tombstone named is needed: it says nothing any more.
        #expect(store.names("v1/notes/").isEmpty)
        for name in objects.keys where name.hasPrefix("v1/snapshots/") { store.remove(name) }
        store.advance(2000)
        // A restore may have begun an hour ago: the tombstone from before does not count.
        let plan = try await prune(grace: 1000)
        #expect(plan.free.packs == 0 && plan.later.packs >= 1)
    }

    @Test func `packs of a backup that ends meanwhile are not told as missing`() async throws {
        let objects = try await prepared((0..<2).map { [UInt8](repeating: UInt8($0 + 50), count: 4096) })
        let plan = try await prune(meanwhile: objects)
        #expect(plan.missing == 0 && plan.free.packs == 1)
        for name in objects.keys where name.hasPrefix("v1/packs/") {
            let pack = try await repository.reader.pack(ObjectID(hex: name.suffix(32))!)
            if pack.trailer.cohort != .metadata { store.remove(name) }
        }
        #expect(try await prune(dryRun: true).missing == 1)
    }

    // MARK: - Forged intents

    @Test func `nobody speaks for another run by adding an intent`() async throws {
        try await repository.withWriter(cache: nil, journal: nil, width: 1, renewing: nil) { writer in
            store.advance(100)
            #expect(try await prune().held.packs == 1)
            let stones = store.names("v1/notes/tombstone/").map { String($0.suffix(32)) }
            for kind in [Intent.Kind.writer, .prune] {
                var state = Intent.State(kind: kind, holder: "x", machine: Intent.machine)
                state.tombstones = stones
                store.advance(1)
                store.set(Intent.name(writer.intent.run, kind == .writer ? 7 : 8), try state.bytes)
                #expect(try await prune().held.packs == 1)
            }
        }
    }

    @Test func `a run whose intent says something else has been taken over, and commits nothing`() async throws {
        let store = store
        let error = await failure {
            try await repository.withWriter(cache: nil, journal: nil, width: 1, renewing: nil) { writer in
                try await writer.intent.confirm()
                for name in store.names(Intent.prefix) { store.set(name, store.bytes(name)! + [0x20]) }
                _ = try await writer.commit(repository.record(3), manifest: Extents())
            }
        }
        #expect((error as? BackupError)?.code == .busy && store.names("v1/snapshots/").count == 1)
    }

    @Test func `a run says what it knows in its first intent too`() async throws {
        store.advance(2000)
        try await prune(grace: 1000)
        let stone = try #require(store.names("v1/notes/tombstone/").first).suffix(32)
        try await repository.withWriter(cache: nil, journal: nil, width: 1, renewing: nil) { _ in
            let said = store.names(Intent.prefix).map { String(decoding: store.bytes($0)!, as: UTF8.self) }
            #expect(said.count == 2 && said.allSatisfy { $0.contains(stone) }, "\(said)")
            store.advance(1000)
            let plan = try await prune(grace: 1000)
            #expect(plan.free.packs == 1)
        }
    }

    @Test func `an intent that is dated ahead is no sign of life`() async throws {
        store.advance(Intent.life * 3)
        let state = Intent.State(kind: .writer, holder: "from the future", machine: "m")
        store.set(Intent.name(.random(.system), 0), try state.bytes)
        store.advance(-Intent.life * 0.9)
        #expect(try await prune().held.packs == 1)
        store.advance(-Intent.life * 0.2)
        let plan = try await prune()
        #expect(plan.givenUp == ["from the future"] && plan.held.packs == 0)
    }

    @Test func `more runs than any cluster has are looked at by people`() async throws {
        for _ in 0...10_000 { store.set(Intent.name(.random(.system), 0), [1]) }
        #expect(await code { try await prune() } == .busy)
        #expect(store.names("v1/packs/").count == 4)
    }

    @Test func `an intent grows old in a directory too`() async throws {
        let local = try TestRepository("intent")
        _ = try await Repository.written(on: local.store)
        try await local.repository.withWriter(cache: nil, journal: nil, width: 1, renewing: nil) { writer in
            func intents() async throws -> [ObjectInfo] {
                try await local.store.list("tmp/").filter { $0.name.hasPrefix(Intent.prefix) }
            }
            for info in try await intents() {
                var times = [timeval(tv_sec: time(nil) - 1200, tv_usec: 0), timeval(tv_sec: time(nil) - 1200, tv_usec: 0)]
                #expect(utimes(local.directory(info.name), &times) == 0)
            }
            try await writer.intent.confirm()
            let newest = try await intents().map(\.modified).max() ?? 0
            #expect(Double(Ambient.system.now() - newest) / 1e9 < 600)
        }
    }

    // MARK: - Runs that are stopped

    @Test func `a prune that was given up takes nothing more away, also between two packs`() async throws {
        for name in store.names("v1/snapshots/") { store.remove(name) }
        let view = store.another()
        let store = store
        view.onCall { call in
            guard call.operation == "delete", call.name.hasPrefix("v1/packs/") else { return }
            store.advance(Intent.renewal + 1)
            for name in store.names(Intent.prefix) { store.remove(name) }
        }
        var options = Prune.Options()
        options.grace = 0
        let error = await failure {
            _ = try await Prune.run(
                repository.seen(on: view), options, renewing: nil, progress: { _, _, _ in }, confirm: {})
        }
        #expect((error as? BackupError)?.code == .busy && store.names("v1/packs/").count == 3)
    }

    @Test func `a dry run leaves a directory as it is, whoever was killed there`() async throws {
        let local = try TestRepository("dry")
        let repository = try await Repository.written(on: local.store)
        try await repository.snapshot(1, Self.old)
        let state = Intent.State(kind: .writer, holder: "killed", machine: "another")
        try await local.store.put(
            Intent.name(.random(.system), 0), AlignedBuffer(copying: try state.bytes), ifAbsent: true)
        let before = try await local.store.list("").map(\.name)
        try await prune(repository, dryRun: true)
        #expect(try await local.store.list("").map(\.name) == before)
    }

    // MARK: - Bounds

    @Test func `a note that is longer than any of a prune is not read`() async throws {
        store.set("v1/notes/tombstone/\(String(repeating: "1", count: 32))", [UInt8](repeating: 1, count: 5 << 20))
        #expect(await code { try await prune() } == .damaged)
        #expect(await code { try await repository.withWriter(cache: nil, width: 1) { _ in } } == .damaged)
    }

    @Test func `a block list of a hundred million parts is damage, at once`() async throws {
        let pack = try #require(store.names("v1/packs/").compactMap { ObjectID(hex: $0.suffix(32)) }.first)
        var parts = Extents()
        parts.append(Location(pack: pack, ordinal: 0), count: 1 << 27)
        let content = Content(
            size: 4096 << 27, blockSize: 4096, digest: [UInt8](repeating: 1, count: 32),
            layout: .indirect(blocksPerPart: 1, parts: parts))
        _ = try await repository.commit([.root, .file("a", content)])
        let start = ContinuousClock.now
        #expect(await code { try await prune() } == .damaged)
        #expect(ContinuousClock.now - start < .seconds(20))
    }

    @Test func `sets of blocks grow only as long as there is room`() {
        var set = BlockSet()
        #expect(set.insert(60, 10, room: 2) == 2 && set.insert(0, 1, room: 0) == 0)
        #expect((0..<200).filter { set.contains($0) } == [0] + Array(60..<70))
        // Without room the pack is needed whole, and gives its room back.
        #expect(set.insert(128, 1, room: 0) == -2 && (0..<200).allSatisfy { set.contains($0) })
        #expect(set.insert(1 << 19, 1, room: 0) == 0)
    }

    @Test func `index objects that a prune replaces meanwhile are no reason to fail`() async throws {
        let view = store.another()
        let store = store
        let gone = try #require(store.names("v1/index/").first)
        view.onCall { if $0.operation == "get", $0.name == gone { store.remove(gone) } }
        let seen = repository.seen(on: view)
        let all = try await repository.storedPacks().count
        let (listed, damaged) = try await seen.listedPacks()
        #expect(!listed.isEmpty && listed.count < all && damaged.isEmpty)
        #expect(try await seen.reindex(dryRun: false).packs == all - listed.count)
    }
}
