import BackupBase
import ObjectStorage

@testable import BackupRepository

/// A repository that two passwords open, with a snapshot: what rotations are tried on.
struct RotationStage {
    let store = MemoryStore()
    let repository: Repository
    let first: SnapshotName
    static let mine = Array("mine".utf8)
    static let theirs = Array("theirs".utf8)
    static let blocks = [[UInt8](repeating: 1, count: 4096)]

    init() async throws {
        _ = try await Repository.create(
            store: store, password: Self.mine, label: "mine", probe: [:], executor: TestRepository.executor,
            ambient: store.ambient())
        repository = try await Self.open(store, Self.mine)
        _ = try await repository.addKeySlot(password: Self.theirs, label: "theirs")
        first = try await repository.snapshot(1, Self.blocks)
    }

    static func open(_ store: MemoryStore, _ password: [UInt8] = mine) async throws -> Repository {
        try await Repository.open(store: store, password: password, executor: TestRepository.executor, ambient: store.ambient())
    }
}
