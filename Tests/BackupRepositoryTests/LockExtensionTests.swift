import BackupBase
import Foundation
import ObjectStorage
import Testing

@testable import BackupRepository

/// What is still needed stays locked.
@Suite(.timeLimit(.minutes(20))) struct LockExtensionTests {
    private static let day: Int64 = 86_400_000_000_000
    private let store = MemoryStore(MemoryStore.Rules(lockDuration: 30 * day))
    private let repository: Repository
    private let names: [SnapshotName]
    private let unreferenced: String

    init() async throws {
        repository = try await Repository.written(on: store, ambient: store.ambient())
        var random = Seeded(5)
        let first = try await repository.snapshot(1, [random.bytes(4096), random.bytes(4096)])
        unreferenced = FinishedPack.name(try await repository.store([random.bytes(4096)], cohort: .mutable)[0].pack)
        names = [first, try await repository.snapshot(2, [random.bytes(4096)])]
    }

    private func run(dryRun: Bool = false, _ other: Repository? = nil) async throws -> LockExtension.Report {
        try await LockExtension(other ?? repository.seen()).run(dryRun: dryRun) { _, _ in }
    }

    private var needed: [String] { store.names("v1/").filter { $0 != unreferenced } }

    @Test func `all that snapshots need is extended, and nothing else`() async throws {
        store.advance(20 * 86_400)
        let before = try #require(store.lock(of: unreferenced))
        store.set("v1/writers/" + String(repeating: "a", count: 32), [1], lockedUntil: before)
        let report = try await run()
        let until = store.now + 30 * Self.day
        #expect(report.needed == needed.count - 1 && report.extended == report.needed && report.horizon == until)
        for name in needed where !name.hasPrefix("v1/writers/") { #expect(store.lock(of: name) == until, "\(name)") }
        for prefix in ["v1/config.", "v1/keys/", "v1/index/", "v1/snapshots/", "v1/packs/"] {
            #expect(needed.contains { $0.hasPrefix(prefix) })
        }
        #expect(store.lock(of: unreferenced) == before)
        // Once more there is nothing to do.
        store.restart()
        let again = try await run()
        #expect(again.extended == 0 && again.horizon == until && !store.calls.contains { $0.operation == "lock" })
    }

    @Test func `nothing is ever shortened`() async throws {
        let far = store.now + 400 * Self.day
        store.setLock(names[0].object, far)
        store.setLock("v1/config.a", nil)
        store.advance(86_400)
        let report = try await run()
        #expect(store.lock(of: names[0].object) == far && report.extended == report.needed - 1)
        #expect(store.lock(of: "v1/config.a") == store.now + 30 * Self.day)
        #expect(report.horizon == store.now + 30 * Self.day)
        // Also by a keeper whose URL names a shorter time.
        let short = store.another(MemoryStore.Rules(lockDuration: 2 * Self.day))
        #expect(try await run(repository.seen(on: short)).extended == 0)
        #expect(!short.calls.contains { $0.operation == "lock" })
    }

    @Test func `a dry run extends nothing and tells what there is`() async throws {
        store.advance(20 * 86_400)
        let locks = store.names.map { store.lock(of: $0) }
        let report = try await run(dryRun: true)
        #expect(report.extended == needed.count && store.names.map { store.lock(of: $0) } == locks)
        #expect(report.horizon == store.now + 10 * Self.day)
        // An object without any lock is the nearest horizon there is.
        store.setLock("v1/config.b", nil)
        #expect(try await run(dryRun: true).horizon == 0)
    }

    @Test func `a missing object is named, and the others are extended all the same`() async throws {
        let packs = try await repository.packs(of: repository.snapshot(names[0])).map { FinishedPack.name($0) }
        let manifest = try await repository.snapshot(names[0]).manifest.packs.map { FinishedPack.name($0) }
        let lost = try #require(packs.first { !manifest.contains($0) })
        store.remove(lost)
        store.advance(20 * 86_400)
        let error = try #require(await failure { _ = try await run() } as? BackupError)
        #expect(error.code == .damaged && error.message.contains(lost))
        for name in needed { #expect(store.lock(of: name) == store.now + 30 * Self.day, "\(name)") }
    }

    @Test func `a snapshot that cannot be read is named, and the others keep their locks`() async throws {
        store.damage(names[0].object) { $0[70] ^= 1 }
        store.advance(20 * 86_400)
        let error = try #require(await failure { _ = try await run() } as? BackupError)
        #expect(error.code == .damaged && "\(error)".contains(names[0].object))
        let packs = try await repository.packs(of: repository.snapshot(names[1])).map { FinishedPack.name($0) }
        for name in packs + [names[0].object, names[1].object, "v1/config.a"] {
            #expect(store.lock(of: name) == store.now + 30 * Self.day, "\(name)")
        }
    }

    @Test func `a store without locks, and a writer, are told so`() async throws {
        #expect(await code { _ = try await run(repository.seen(on: store.another(MemoryStore.Rules()))) } == .usage)
        #expect(await code { _ = try await run(repository.seen(keys: repository.keys.writer)) } == .writeOnlyKey)
    }
}
