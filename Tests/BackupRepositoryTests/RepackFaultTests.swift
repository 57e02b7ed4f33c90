import BackupBase
import Foundation
import ObjectStorage
import Testing

@testable import BackupRepository

/// Killed, lied to, given up.
extension RepackTests {
    @Test(arguments: MemoryStore.Moment.allCases)
    func `killed at any call it loses nothing, and the next runs end it`(_ moment: MemoryStore.Moment) async throws {
        let whole = store.copy()
        try await prune(seen(whole))
        let left = whole.names("v1/packs/").count
        for number in 1...whole.calls.count {
            let memory = store.copy()
            let view = memory.another()
            view.fail(at: number, moment, dies: true)
            _ = await failure { try await prune(repository.seen(on: view, ambient: memory.ambient())) }
            memory.advance(Intent.life + 1)
            try await expectWhole(memory, "call \(number)")
            for _ in 0..<3 { try await prune(seen(memory)) }
            #expect(memory.names("v1/packs/").count == left, "call \(number)")
            #expect(memory.names("v1/notes/").count == memory.names(Succession.topic.prefix).count, "call \(number)")
            try await expectWhole(memory, "call \(number)")
        }
    }

    @Test func `a block that cannot be read keeps its pack, and is told`() async throws {
        store.damage(FinishedPack.name(old)) { $0[ObjectHeader.size + 40] ^= 1 }
        let done = try await prune()
        #expect(done.unreadable.count == 1 && done.unreadable[0].contains("\(old)"))
        #expect(store.bytes(FinishedPack.name(old)) != nil && store.bytes(Succession.topic.object(old)) == nil)
    }

    @Test func `what took a pack's place is read whole before the pack goes, whatever the note says`() async throws {
        let (packs, index, notes, after) = try await repacked()
        for name in packs + index + notes { store.set(name, after.bytes(name)!) }
        let all = try await successors()
        let successor = FinishedPack.name(try #require(all[old]?.pack))
        store.damage(successor) { $0[ObjectHeader.size + 40] ^= 1 }
        let plan = try await prune(nil, with { $0.maxUnused = 1 })
        #expect(plan.unreadable.count == 1 && plan.unreadable[0].contains(successor))
        #expect(store.bytes(FinishedPack.name(old)) != nil)
        // Nor on the word of one of the same name that holds other blocks.
        let other = FinishedPack.name(try await seen().store([Self.blocks[1]], cohort: .mutable)[0].pack)
        store.set(successor, store.bytes(other)!)
        #expect(try await prune(nil, with { $0.maxUnused = 1 }).unreadable.count == 1)
        #expect(store.bytes(FinishedPack.name(old)) != nil)
    }

    @Test func `where a needed pack is missing nothing goes: another one may be all that is left of it`() async throws {
        try await prune()
        let all = try await successors()
        let (note, successor) = (Succession.topic.object(old), try #require(all[old]?.pack))
        let bytes = store.bytes(note)!
        store.remove(note)
        let before = store.names("v1/packs/")
        for _ in 0..<2 { #expect(await code { try await prune() } == .damaged) }
        #expect(store.names("v1/packs/") == before && before.contains(FinishedPack.name(successor)))
        store.set(note, bytes)
        try await prune()
        try await expectWhole()
    }

    @Test func `what the store has is read back before the old pack goes on its word`() async throws {
        let view = store.another()
        let (store, old) = (store, FinishedPack.name(old))
        let known = Locked(Set(store.names))
        // The answer was 200; a bit of what is there is another one.
        view.onCall { call in
            guard call.operation == "get", call.name.hasPrefix("v1/packs/"),
                known.withLock({ $0.insert(call.name).inserted })
            else { return }
            store.damage(call.name) { $0[ObjectHeader.size + 20] ^= 1 }
        }
        let done = try await prune(repository.seen(on: view, ambient: store.ambient()))
        view.onCall(nil)
        #expect(done.repacked.packs == 0 && !done.unreadable.isEmpty)
        #expect(store.bytes(old) != nil && store.names(Succession.topic.prefix).isEmpty)
    }

    @Test func `given up while it stood still it says so, and its notes stay`() async throws {
        let view = store.another()
        let store = store
        view.onCall { call in
            guard call.operation == "put", call.name.hasPrefix(Succession.topic.prefix) else { return }
            for name in store.names("tmp/intent-") { store.remove(name) }
        }
        #expect(await code { try await prune(repository.seen(on: view, ambient: store.ambient())) } == .busy)
        view.onCall(nil)
        // Another prune may have acted on them.
        #expect(!store.names(Succession.topic.prefix).isEmpty)
        try await expectWhole()
        for _ in 0..<3 { try await prune() }
        try await expectWhole()
    }
}
