import BackupBase
import Foundation
import ObjectStorage
import Testing

@testable import BackupRepository

/// What a rotation and those beside it must not believe: a store that denies for a moment, keys that are older than what
/// they look at, slots that were altered.
@Suite(CheapPasswords()) struct KeyRotationGuardTests {
    private let stage: RotationStage
    private var store: MemoryStore { stage.store }
    private var repository: Repository { stage.repository }
    private var first: SnapshotName { stage.first }
    private static let (mine, theirs, blocks) = (RotationStage.mine, RotationStage.theirs, RotationStage.blocks)

    init() async throws { stage = try await RotationStage() }

    private static func open(_ store: MemoryStore, _ password: [UInt8] = mine) async throws -> Repository {
        try await RotationStage.open(store, password)
    }

    @discardableResult
    private func rotate(_ repository: Repository, finishing: Bool = false) async throws -> KeyRotation {
        try await KeyRotation.run(repository, [.init(Self.mine)], by: nil, finishing: finishing)
    }

    private func copy(_ source: Repository, to place: MemoryStore) async throws -> Replication.Report {
        try await Replication(from: source, to: place, dryRun: false) { _ in }.run(nil, renewing: nil)
    }

    private func slot(_ label: String) async throws -> String {
        try #require(try await repository.keySlots().first { $0.label == label }).id
    }

    // MARK: - Closing

    @Test func `a snapshot that the store denies for a moment is not left out of a closing`() async throws {
        let (store, name) = (store, first.object)
        let bytes = store.bytes(name)!
        let view = store.another()
        view.onCall { call in
            let isDenied = call == .init(operation: "get", name: name)
            if isDenied { store.remove(name) } else if store.bytes(name) == nil { store.set(name, bytes) }
        }
        #expect(await code { try await rotate(repository.seen(on: view)) } == .storeFailed)
        #expect(store.names("v1/pairs/").isEmpty)
        // Nor one of which it cannot be told whether it is of the pair.
        store.damage(name) { $0[0] ^= 1 }
        let error = await failure { try await rotate(Self.open(store)) } as? BackupError
        #expect(error?.code == .damaged && error?.message.contains(name) == true)
        #expect(store.names("v1/pairs/").isEmpty)
        store.set(name, bytes)
        #expect(try await rotate(Self.open(store)).wasResumed)
        _ = try await Self.open(store).snapshot(first)
    }

    @Test func `only finishing makes no pair where none waits`() async throws {
        #expect(await code { try await rotate(repository, finishing: true) } == .usage)
        #expect(store.names("v1/keys/").count == 4)
        try await rotate(repository)
        for name in PairClosing.names(1) { store.remove(name) }
        let finished = try await rotate(Self.open(store), finishing: true)
        #expect(finished.wasResumed && finished.generation == 2 && store.names("v1/pairs/").count == 2)
        #expect(await code { try await rotate(Self.open(store), finishing: true) } == .usage)
    }

    @Test func `that no pair is closed is not believed later, whoever asked`() async throws {
        try await rotate(repository)
        let second = try await Self.open(store)
        try await rotate(second)
        let closings = store.names("v1/pairs/").map { ($0, store.bytes($0)!) }
        for (name, _) in closings { store.remove(name) }
        let watching = try await Self.open(store)
        // The answer for pair 2 comes with this one, and nobody takes it.
        _ = try await watching.snapshot(first)
        let forged = try await second.seen(keys: second.keys.writer).put(body: [1])
        for (name, bytes) in closings { store.set(name, bytes) }
        store.advance(3600)
        let error = await failure { _ = try await watching.snapshot(forged) } as? BackupError
        #expect(error?.message.contains("was not there") == true)
    }

    // MARK: - Newer than the keys

    @Test func `what is newer than a password is neither damaged nor lost`() async throws {
        try await rotate(repository)
        let newer = try await Self.open(store).snapshot(2, Self.blocks)
        let outdated = try await Self.open(store, Self.theirs)
        #expect(await code { _ = try await outdated.snapshot(newer) } == .wrongPassword)
        #expect(await code { _ = try await outdated.check() } == .wrongPassword)
        var options = Repair.Options()
        options.dryRun = true
        #expect(await code { _ = try await Repair.run(outdated, from: nil, options) { _, _ in } } == .wrongPassword)
        // With keys that have the newest pair a number beyond it is damage.
        store.damage(newer.object) { $0[11] = 7 }
        #expect(await code { _ = try await Self.open(store).snapshot(newer) } == .damaged)
    }

    @Test(arguments: ["v1/packs/", "v1/snapshots/"]) func `a repair that a rotation overtakes calls nothing lost`(
        _ moment: String
    ) async throws {
        let (store, later) = (store, store.copy())
        try await rotate(Self.open(later))
        _ = try await Self.open(later).snapshot(2, [[UInt8](repeating: 2, count: 4096)])
        let view = store.another()
        view.onCall { call in
            guard call == .init(operation: "list", name: moment) else { return }
            for name in later.names("v1/") where store.bytes(name) != later.bytes(name) {
                store.set(name, later.bytes(name)!)
            }
        }
        var options = Repair.Options()
        options.dryRun = true
        let overtaken = repository.seen(on: view)
        #expect(await code { _ = try await Repair.run(overtaken, from: nil, options) { _, _ in } } == .wrongPassword)
    }

    // MARK: - Slots

    @Test func `what a repair does not mend it says`() async throws {
        let (mine, theirs) = ("v1/keys/\(try await slot("mine"))", "v1/keys/\(try await slot("theirs"))")
        #expect(try await repository.repairCopies(dryRun: false).unmended.isEmpty)
        // One hex digit: both copies are slots.
        let text = String(decoding: store.bytes(theirs + ".b")!, as: UTF8.self)
        let start = text.range(of: "\"sealed\":\"")!.upperBound
        let digit = text[start] == "0" ? "1" : "0"
        store.set(theirs + ".b", Array(text.replacingCharacters(in: start...start, with: digit).utf8))
        for dryRun in [true, false] {
            let (written, unmended) = try await repository.repairCopies(dryRun: dryRun)
            #expect(written.isEmpty && unmended.count == 1 && unmended.allSatisfy { $0.hasPrefix(theirs) })
        }
        for copy in [".a", ".b"] { store.set(theirs + copy, [1, 2, 3]) }
        store.remove(mine + ".b")
        let (written, unmended) = try await repository.repairCopies(dryRun: false)
        #expect(written == [mine + ".b"] && unmended.count == 1 && unmended.allSatisfy { $0.hasPrefix(theirs) })
        for copy in [".a", ".b"] { store.remove(theirs + copy) }
        try await rotate(repository)
        for name in PairClosing.names(1) { store.damage(name) { $0[0] ^= 1 } }
        let report = try await Repair.run(Self.open(store), from: nil, Repair.Options()) { _, _ in }
        #expect(report.unmended.count == 1 && report.unmended[0].hasPrefix("v1/pairs/1.a") && report.isLossy)
    }

    @Test func `a copy replaces no slot that is whole at the second place`() async throws {
        let place = MemoryStore()
        _ = try await copy(repository, to: place)
        let names = KeySlot.names(try await slot("theirs"))
        let good = store.bytes(names[0])!
        for name in names { store.damage(name) { $0[$0.count / 2] ^= 1 } }
        try await rotate(repository)
        let report = try await copy(Self.open(store), to: place)
        #expect(report.damaged.count == 1 && report.damaged[0].contains(names[0].dropLast(2)))
        for name in names { #expect(place.bytes(name) == good) }
        // One that rotted there comes back.
        for name in names { store.set(name, good) }
        place.damage(names[1]) { $0[5] ^= 1 }
        try await rotate(Self.open(store))
        #expect(try await copy(Self.open(store), to: place).damaged.isEmpty)
        for name in names { #expect(place.bytes(name) == good) }
    }

    // MARK: - At the second place

    @Test func `a copy closes no pair at the place while a backup to it runs`() async throws {
        let place = MemoryStore()
        _ = try await copy(repository, to: place)
        let there = try await Self.open(place)
        let made = try await there.withWriter(cache: nil, journal: nil, width: 1, renewing: nil) { writer in
            try await rotate(repository)
            let report = try await copy(Self.open(store), to: place)
            #expect(report.damaged.isEmpty && place.names("v1/pairs/").isEmpty)
            let manifest = try await there.snapshot(first).manifest
            return try await writer.commit(there.record(2), manifest: manifest).name
        }
        _ = try await copy(Self.open(store), to: place)
        #expect(place.names("v1/pairs/").count == 2)
        for name in [first, made] { _ = try await Self.open(place).snapshot(name) }
    }

    @Test func `a copy sees a rotation at the place that comes before its intent`() async throws {
        let place = MemoryStore()
        _ = try await copy(repository, to: place)
        _ = try await repository.snapshot(2, Self.blocks)
        let rotated = place.copy()
        try await rotate(Self.open(rotated))
        let view = place.another()
        view.onCall { call in
            guard call.operation == "put", call.name.hasPrefix(Intent.prefix) else { return }
            for name in Configuration.names { place.set(name, rotated.bytes(name)!) }
        }
        #expect(await code { _ = try await copy(repository, to: view) } == .wrongPassword)
        #expect(place.names("v1/snapshots/").count == 1)
    }
}
