import BackupBase
import Foundation
import ObjectStorage
import TestSupport
import Testing

@testable import BackupRepository

/// Lists of snapshots from the node's cache: as right as from the store, with one request.
@Suite struct SnapshotListTests {
    private let store = MemoryStore()
    private let repository: Repository
    private let cache: TemporaryDirectory
    private let manifest: Extents
    private static let count = 30

    init() async throws {
        cache = try TemporaryDirectory("list")
        repository = try await Repository.written(on: store, ambient: store.ambient())
        manifest = try await repository.store([[1, 2, 3]]).reduce(into: Extents()) { $0.append($1) }
        for number in 1...Self.count {
            var record = repository.record(UInt64(number))
            record.node = "node-\(number % 3)"
            _ = try await repository.commit(record, manifest: manifest)
        }
        store.advance(100)
    }

    private var files: String { cache("\(repository.id)/snapshots") }

    private func list(_ repository: Repository? = nil) async throws -> SnapshotList {
        try await SnapshotList(repository ?? self.repository, cache: cache.path)
    }

    /// What is shown, and the calls that it took.
    private func show() async throws -> (sequences: [UInt64], damaged: Int, calls: [MemoryStore.Call]) {
        store.restart()
        var (sequences, damaged): ([UInt64], Int) = ([], 0)
        try await list().forEach { name, result in
            switch result {
            case .success(let snapshot):
                #expect(snapshot.id == name.id && snapshot.record.sequence == name.sequence)
                sequences.append(snapshot.record.sequence)
            case .failure: damaged += 1
            }
        }
        return (sequences, damaged, store.calls)
    }

    @Test func `the second list takes one request, whatever there is`() async throws {
        let all = (1...UInt64(Self.count)).map { $0 }
        let first = try await show()
        #expect(first.sequences == all && first.calls.count == Self.count + 1)
        let second = try await show()
        #expect(second.sequences == all && second.calls.map(\.operation) == ["list"])
        // One that came since is read, the others are not.
        _ = try await repository.commit(repository.record(99), manifest: manifest)
        let third = try await show()
        #expect(third.sequences == all + [99] && third.calls.map(\.operation) == ["list", "get"])
    }

    @Test func `what is gone is not shown, and leaves the cache`() async throws {
        _ = try await show()
        let gone = store.names("v1/snapshots/")[4]
        store.remove(gone)
        let shown = try await show()
        #expect(shown.sequences.count == Self.count - 1 && !shown.sequences.contains(5))
        #expect(!FileManager.default.fileExists(atPath: "\(files)/\(gone.split(separator: "/").last!)"))
    }

    @Test func `what somebody changed in the cache is read from the store`() async throws {
        _ = try await show()
        let names = try FileManager.default.contentsOfDirectory(atPath: files).sorted()
        #expect(names.count == Self.count)
        func bytes(_ index: Int) throws -> Data { try Data(contentsOf: URL(filePath: "\(files)/\(names[index])")) }
        var flipped = try bytes(0)
        flipped[flipped.count - 20] ^= 1
        // A snapshot that was forgotten, or an older one of the same node, under this one's name.
        let other = try bytes(7).prefix(16) + bytes(2).dropFirst(16)
        for (index, forged) in [(0, flipped), (1, Data()), (2, try bytes(2).prefix(100)), (7, other)] {
            try forged.write(to: URL(filePath: "\(files)/\(names[index])"))
        }
        let shown = try await show()
        #expect(shown.sequences.count == Self.count && shown.damaged == 0)
        #expect(shown.calls.count { $0.operation == "get" } == 4)
        #expect(try await show().calls.count == 1)
    }

    @Test func `what was replaced in the store is read anew`() async throws {
        _ = try await show()
        let name = store.names("v1/snapshots/")[3]
        store.set(name, store.bytes(name)!.map { $0 ^ 1 })
        let shown = try await show()
        #expect(shown.damaged == 1 && shown.sequences.count == Self.count - 1)
        #expect(await code { _ = try await repository.snapshot(SnapshotName(object: name)!) } == .damaged)
    }

    @Test func `the newest of a node is found in the cache too`() async throws {
        _ = try await show()
        store.restart()
        #expect(try await list().newest { $0.record.node == "node-1" }?.record.sequence == 28)
        #expect(try await list().newest { _ in true }?.record.sequence == 30)
        #expect(try await list().newest { $0.record.node == "nobody" } == nil)
        #expect(store.calls.allSatisfy { $0.operation == "list" })
    }

    @Test func `without a place for a cache everything comes from the store`() async throws {
        store.restart()
        var count = 0
        try await SnapshotList(repository, cache: nil).forEach { _, _ in count += 1 }
        #expect(count == Self.count && store.calls.count == Self.count + 1)
        #expect(
            await code { _ = try await list(repository.seen(keys: repository.keys.writer)).newest { _ in true } } == .writeOnlyKey
        )
    }

    private struct Shown: Equatable {
        var snapshots = 0
        var damaged: [SnapshotName] = []
    }

    private func count(_ repository: Repository) async throws -> Shown {
        var shown = Shown()
        try await SnapshotList(repository, cache: nil).forEach { name, result in
            switch result {
            case .success: shown.snapshots += 1
            case .failure(let error):
                #expect(error.code == .damaged && error.message.contains(name.object))
                shown.damaged.append(name)
            }
        }
        return shown
    }

    @Test func `one that is listed and not to be had is not passed over`() async throws {
        let denied = StoreError(.notFound, "read", "a snapshot")
        store.fail(at: 6, .before, with: denied)
        let shown = try await count(repository)
        #expect(shown.snapshots == Self.count - 1 && shown.damaged.count == 1)
        // The newest one is no older one.
        store.fail(at: 2, .before, with: denied)
        #expect(await code { _ = try await list().newest { _ in true } } == .damaged)
        // A store without conditions lists for a while what is gone.
        let alone = Repository.unwritten(
            on: store, keys: repository.keys, probe: ["conditionalCreate": "no"], ambient: store.ambient())
        store.fail(at: 6, .before, with: denied)
        #expect(try await count(alone) == Shown(snapshots: Self.count - 1))
    }

    @Test func `those that are forgotten meanwhile are left out, at the price of few lists`() async throws {
        let gone = store.names("v1/snapshots/").suffix(20)
        let view = store.another()
        view.onCall { [store] call in if call.operation == "get" { for name in gone { store.remove(name) } } }
        let shown = try await count(repository.seen(on: view))
        #expect(shown == Shown(snapshots: Self.count - 20))
        let lists = view.calls.count { $0.operation == "list" }
        // The first one, and one for each that was under way before the second one's answer was there.
        #expect((2...Self.count).contains(lists) && view.calls.last?.operation != "put")
    }
}
