import BackupBase
import ObjectStorage
import Testing

@testable import BackupRepository

/// What `check` says while others write.
@Suite(.timeLimit(.minutes(20))) struct CheckTests {
    private let store = MemoryStore()
    private let repository: Repository

    init() async throws {
        repository = try await Repository.written(on: store, ambient: store.ambient())
        var random = Seeded(7)
        for sequence in 1...3 { try await repository.snapshot(UInt64(sequence), [random.bytes(4096)]) }
    }

    private func damage(_ view: MemoryStore) async throws -> [String] {
        try await repository.seen(on: view).check().findings.filter { $0.severity == .damage }.map {
            "\($0.object): \($0.message)"
        }
    }

    /// Takes objects away and brings them back right before this call.
    private func arriving(_ names: [String], before operation: String, _ prefix: String) -> MemoryStore {
        let memory = store
        let objects = names.map { ($0, memory.bytes($0)!) }
        for name in names { store.remove(name) }
        let view = store.another()
        view.onCall { call in
            guard call.operation == operation, call.name == prefix else { return }
            for (name, bytes) in objects { memory.set(name, bytes) }
        }
        return view
    }

    @Test func `a backup that ends meanwhile is no damage`() async throws {
        let later = try await latest()
        #expect(try await damage(arriving(later, before: "list", IndexObject.prefix)) == [])
    }

    @Test func `a pack that is gone is`() async throws {
        let pack = try #require(try await latest().first { $0.hasPrefix("v1/packs/") })
        store.remove(pack)
        let found = try await damage(store.another())
        #expect(found.contains { $0.hasPrefix(pack) && $0.contains("it is missing and listed in v1/index/") }, "\(found)")
    }

    /// Packs, index and snapshot of one more backup.
    private func latest() async throws -> [String] {
        let before = Set(store.names)
        var random = Seeded(8)
        try await repository.snapshot(4, [random.bytes(4096)])
        return store.names.filter { !before.contains($0) && $0.hasPrefix("v1/") }
    }
}
