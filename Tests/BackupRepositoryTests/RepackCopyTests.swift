import BackupBase
import Foundation
import ObjectStorage
import Testing

@testable import BackupRepository

/// What copies, locks and repairs make of packs whose places others took.
extension RepackTests {
    @Test func `a copy has what took the place of a pack, and the note that says so`() async throws {
        try await prune()
        let place = MemoryStore()
        let report = try await Replication(from: seen(), to: place, dryRun: false) { _ in }.run(nil, renewing: nil)
        #expect(report.damaged.isEmpty && report.snapshots == 1)
        #expect(
            place.names(Succession.topic.prefix) == store.names(Succession.topic.prefix)
                && place.bytes(FinishedPack.name(old)) == nil)
        try await expectWhole(place)
        for _ in 0..<2 { try await prune(seen(place)) }
        try await expectWhole(place)
        // Also by who cannot read.
        let blind = MemoryStore()
        let writer = seen().seen(keys: repository.keys.writer)
        #expect(try await Replication(from: writer, to: blind, dryRun: false) { _ in }.run(nil, renewing: nil).snapshots == 1)
        try await expectWhole(blind)
    }

    @Test func `where both places repacked a pack, a copy needs what the place has of it`() async throws {
        // The place has of it what only it needs: block 5.
        let place = store.copy()
        try await seen(place).snapshot(4, [Self.blocks[5]])
        let names = try await seen(place).snapshotNames()
        for name in names where name.sequence == 2 { try await place.delete(name.object) }
        place.advance(100)
        for _ in 0..<3 { try await prune(seen(place)) }
        try await prune()
        let before = place.names("v1/snapshots/")
        let report = try await Replication(from: seen(), to: place, dryRun: false) { _ in }.run(nil, renewing: nil)
        #expect(report.damaged.count == 1 && report.damaged[0].contains("repacked pack"))
        #expect(place.names("v1/snapshots/") == before)
        try await expectWhole(place)
        // One that needs no more than the place has is copied.
        let other = store.copy()
        let more = try await seen(other).snapshotNames()
        for name in more { try await other.delete(name.object) }
        try await seen(other).snapshot(2, [Self.blocks[3], Self.blocks[7]])
        other.advance(100)
        for _ in 0..<3 { try await prune(seen(other)) }
        let second = try await Replication(from: seen(), to: other, dryRun: false) { _ in }.run(nil, renewing: nil)
        #expect(second.damaged.isEmpty && second.snapshots == 1)
        try await expectWhole(other)
    }

    @Test func `a copy does not rely on what a prune of the place is about to take away`() async throws {
        // The place has what it needs of the pack, and nobody there needs it any more.
        let place = store.copy()
        for _ in 0..<3 { try await prune(seen(place)) }
        try await prune()
        let names = try await seen(place).snapshotNames()
        for name in names { try await place.delete(name.object) }
        place.advance(100)
        try await prune(
            seen(place),
            with {
                $0.grace = 1000; $0.sparesYoung = false
            })
        #expect(
            await code { _ = try await Replication(from: seen(), to: place, dryRun: false) { _ in }.run(nil, renewing: nil) }
                == .busy)
        #expect(place.names("v1/snapshots/").isEmpty)
    }

    @Test func `a copy takes no other note of the same name for its own`() async throws {
        try await prune()
        let place = store.copy()
        for name in place.names("v1/snapshots/") { place.remove(name) }
        let writer = seen(place).seen(keys: repository.keys.writer)
        let note = Succession.topic.object(old)
        let bytes = store.bytes(note)!
        place.set(note, bytes.dropLast() + [bytes.last! ^ 1])
        func copy(_ source: Repository) async throws -> Replication.Report {
            try await Replication(from: source, to: place, dryRun: false) { _ in }.run(nil, renewing: nil)
        }
        #expect(try await copy(seen()).damaged.count == 1)
        #expect(await code { _ = try await copy(seen().seen(keys: repository.keys.writer)) } == .damaged)
        #expect(place.names("v1/snapshots/").isEmpty)
        // One that the owner did not make goes with a prune that is alone.
        place.remove(note)
        try await writer.put(note: Succession(successor: "\(old)", kept: "", seal: "00"), Succession.topic, as: old)
        try await prune(seen(place))
        #expect(place.bytes(note) == nil)
    }

    @Test func `a note that cannot be read keeps no lock from being extended, and is told`() async throws {
        let day: Int64 = 86_400_000_000_000
        try await prune()
        let place = MemoryStore(MemoryStore.Rules(lockDuration: 30 * day))
        _ = try await Replication(from: seen(), to: place, dryRun: false) { _ in }.run(nil, renewing: nil)
        place.damage(Succession.topic.object(old)) { $0[70] ^= 1 }
        place.advance(86_400)
        #expect(await code { _ = try await LockExtension(seen(place)).run(dryRun: false) { _, _ in } } == .damaged)
        for name in place.names("v1/packs/") + place.names("v1/snapshots/") {
            #expect(place.lock(of: name) == place.now + 30 * day, "\(name)")
        }
        // Nor is the pack that it tells of lost.
        #expect(await code { _ = try await Repair.run(seen(place), from: nil, Repair.Options()) { _, _ in } } == .damaged)
    }

    @Test func `a copy that brings notes waits for prunes of the place`() async throws {
        try await prune()
        let place = MemoryStore()
        for name in store.names where !name.hasPrefix("v1/snapshots/") && !name.hasPrefix("v1/notes/") {
            place.set(name, store.bytes(name)!)
        }
        func copy() async throws {
            _ = try await Replication(from: seen(), to: place, dryRun: false) { _ in }.run(nil, renewing: nil)
        }
        let prune = try await Intent.begin(.prune, seen(place))
        #expect(await code { try await copy() } == .busy)
        #expect(place.names("v1/snapshots/").isEmpty)
        await prune.end()
        try await copy()
        try await expectWhole(place)
    }

    @Test func `where objects are locked nothing is repacked, and what a copy brought stays locked`() async throws {
        let day: Int64 = 86_400_000_000_000
        let locked = MemoryStore(MemoryStore.Rules(lockDuration: 30 * day))
        for name in store.names { locked.set(name, store.bytes(name)!) }
        locked.advance(1000)
        #expect(try await prune(seen(locked)).repacked.packs == 0)
        try await prune()
        let place = MemoryStore(MemoryStore.Rules(lockDuration: 30 * day))
        _ = try await Replication(from: seen(), to: place, dryRun: false) { _ in }.run(nil, renewing: nil)
        place.advance(86_400)
        _ = try await LockExtension(seen(place)).run(dryRun: false) { _, _ in }
        for name in place.names("v1/packs/") + place.names(Succession.topic.prefix) {
            #expect(place.lock(of: name) == place.now + 30 * day, "\(name)")
        }
    }

    @Test func `a repair takes a pack that another one took the place of for neither missing nor damaged`() async throws {
        try await prune()
        var options = Repair.Options()
        options.readData = true
        let before = store.names("v1/")
        let report = try await Repair.run(seen(), from: nil, options) { _, _ in }
        #expect(report.packs.isEmpty && report.snapshots.isEmpty && report.unreadable.isEmpty, "\(report)")
        #expect(store.names("v1/") == before)
        // Where that one is damaged, what is left of it is saved.
        let all = try await successors()
        store.damage(FinishedPack.name(try #require(all[old]?.pack))) { $0[ObjectHeader.size + 40] ^= 1 }
        let damaged = try await Repair.run(seen(), from: nil, options) { _, _ in }
        #expect(damaged.packs.count == 1 && damaged.snapshots.map(\.isLossy) == [true])
        #expect(damaged.snapshots.first?.filesLost.first?.ranges == [0..<8192])
    }
}
