import BackupBase
import ObjectStorage
import Testing

@testable import BackupRepository

/// Runs that follow each other closely: one look at the packs for all of them, as safe as a look for each.
@Suite struct WriterSessionTests {
    private let store = MemoryStore()
    private let repository: Repository
    private static let old = (0..<3).map { [UInt8](repeating: UInt8($0 + 1), count: 4096) }

    init() async throws {
        repository = try await Repository.written(on: store, ambient: store.ambient())
        try await repository.snapshot(1, Self.old)
        store.advance(100)
    }

    private func run(_ session: WriterSession, _ body: (RepositoryWriter) async throws -> Void = { _ in }) async throws {
        try await repository.withWriter(
            cache: nil, journal: nil, width: 1, session: session, renewing: nil
        ) { try await body($0) }
    }

    @discardableResult
    private func prune() async throws -> PrunePlan {
        var options = Prune.Options()
        options.grace = 0
        return try await Prune.run(repository, options) { _, _, _ in }
    }

    private var looks: Int { store.calls.count { $0.operation == "list" && $0.name == "v1/packs/" } }

    @Test func `packs are listed once, as long as nothing is marked`() async throws {
        let session = WriterSession()
        store.restart()
        for _ in 0..<5 {
            try await run(session)
            store.advance(60)
        }
        #expect(looks == 1 && store.names(Intent.prefix).count == 1)
        await session.end()
        #expect(store.names(Intent.prefix).isEmpty)
    }

    @Test func `what was marked is held until the next run, which does not use it`() async throws {
        let session = WriterSession()
        let packs = Set(try await repository.storedPacks().keys)
        try await run(session) { writer in #expect(packs.allSatisfy { writer.mayUse(pack: $0) }) }
        for name in store.names("v1/snapshots/") { store.remove(name) }
        store.advance(100)
        #expect(try await prune().held.packs == packs.count)
        try await run(session) { writer in #expect(!packs.contains { writer.mayUse(pack: $0) }) }
        // The session knows the tombstone now.
        #expect(try await prune().free.packs == packs.count)
        await session.end()
    }

    @Test func `a session that was given up begins anew, and one whose run fails ends`() async throws {
        let session = WriterSession()
        try await run(session)
        store.advance(Intent.life + 10)
        #expect(try await prune().givenUp.count == 1)
        store.restart()
        try await run(session) { writer in try await writer.intent.confirm() }
        #expect(looks == 1)
        #expect(await failure { try await run(session) { _ in throw MemoryStore.Stopped() } } is MemoryStore.Stopped)
        #expect(store.names(Intent.prefix).isEmpty)
    }
}
