import BackupBase
import Foundation
import ObjectStorage
import TestSupport
import Testing

@testable import BackupRepository

@Suite(.timeLimit(.minutes(20))) struct NoteTests {
    private struct Held: Codable, Sendable, Equatable {
        var snapshot: String
        var reason: String
    }
    private struct Test {
        let store = MemoryStore()
        let repository: Repository

        init() { repository = .unwritten(on: store, ambient: store.ambient()) }
    }
    private let topic = NoteTopic("hold")

    @Test func `notes come back, oldest first, and go one by one`() async throws {
        let test = Test()
        let first = try await test.repository.put(note: Held(snapshot: "a", reason: "audit"), topic)
        test.store.advance(5)
        try await test.repository.put(note: Held(snapshot: "b", reason: ""), topic)
        var notes = try await test.repository.notes(topic, of: Held.self)
        #expect(notes.map(\.body.snapshot) == ["a", "b"] && notes[0].modified < notes[1].modified)
        try await test.repository.remove(note: first, topic)
        try await test.repository.remove(note: first, topic)
        notes = try await test.repository.notes(topic)
        #expect(notes.map(\.body.snapshot) == ["b"])
        #expect(try await test.repository.notes(NoteTopic("drill"), of: Held.self).isEmpty)
    }

    @Test func `one that was altered, moved to another topic or renamed stops everything`() async throws {
        let test = Test()
        let id = try await test.repository.put(note: Held(snapshot: "a", reason: "audit"), topic)
        let good = try #require(test.store.bytes(topic.object(id)))
        func isRefused(_ name: String, _ bytes: [UInt8]) async throws -> Bool {
            try await test.store.put(name, AlignedBuffer(copying: bytes), ifAbsent: false)
            let error = await failure { _ = try await test.repository.notes(topic, of: Held.self) } as? BackupError
            if name != topic.object(id) { try await test.store.delete(name) }
            return error?.code == .damaged && error?.message.contains(name) == true
        }
        for position in [0, 12, 20, 40, 70, good.count - 1] {
            var bytes = good
            bytes[position] ^= 1
            #expect(try await isRefused(topic.object(id), bytes), "byte \(position)")
        }
        #expect(try await isRefused(topic.object(id), Array(good.prefix(70))))
        #expect(try await isRefused(topic.object(id), []))
        try await test.store.put(topic.object(id), AlignedBuffer(copying: good), ifAbsent: false)
        #expect(try await isRefused(topic.object(.random(.system)), good))
        #expect(try await isRefused("v1/notes/hold/x", good))
        try await test.store.put(NoteTopic("drill").object(id), AlignedBuffer(copying: good), ifAbsent: false)
        let other = await failure { _ = try await test.repository.notes(NoteTopic("drill"), of: Held.self) } as? BackupError
        #expect(other?.code == .damaged)
    }

    @Test func `from the cache of a node they are as right as from the store`() async throws {
        let (test, cache) = (Test(), try TemporaryDirectory("notes"))
        for number in 0..<3 { try await test.repository.put(note: Held(snapshot: "\(number)", reason: ""), topic) }
        func read() async throws -> (Set<String>, calls: [String]) {
            test.store.restart()
            let listing = try await SnapshotListing(test.store)
            let notes = try await test.repository.notes(topic, of: Held.self, listing: listing, cache: cache.path)
            return (Set(notes.map(\.body.snapshot)), test.store.calls.map(\.operation))
        }
        #expect(try await read() == (["0", "1", "2"], ["list", "list", "get", "get", "get"]))
        #expect(try await read() == (["0", "1", "2"], ["list", "list"]))
        let folder = cache("\(test.repository.id)/notes/hold")
        let names = try FileManager.default.contentsOfDirectory(atPath: folder).sorted()
        #expect(names == test.store.names("v1/notes/hold/").map { String($0.dropFirst(topic.prefix.count)) })
        // Another note under this one's name, and half a one.
        func bytes(_ index: Int) throws -> Data { try Data(contentsOf: URL(filePath: "\(folder)/\(names[index])")) }
        try (bytes(0).prefix(16) + bytes(1).dropFirst(16)).write(to: URL(filePath: "\(folder)/\(names[0])"))
        try bytes(2).prefix(90).write(to: URL(filePath: "\(folder)/\(names[2])"))
        #expect(try await read() == (["0", "1", "2"], ["list", "list", "get", "get"]))
        // What is taken back is gone here too; what somebody changed in the store is damage here too.
        test.store.remove(topic.prefix + names[1])
        #expect(try await read().0.count == 2)
        #expect(try FileManager.default.contentsOfDirectory(atPath: folder).count == 2)
        test.store.advance(1)
        test.store.set(topic.prefix + names[0], test.store.bytes(topic.prefix + names[0])!.map { $0 ^ 1 })
        #expect(await code { _ = try await read() } == .damaged)
    }

    @Test func `a writer key reads and makes them; another repository's are none`() async throws {
        let test = Test()
        let writer = test.repository.seen(keys: test.repository.keys.writer)
        try await writer.put(note: Held(snapshot: "a", reason: "w"), topic)
        #expect(try await test.repository.notes(topic, of: Held.self).map(\.body.reason) == ["w"])
        #expect(try await writer.notes(topic, of: Held.self).count == 1)
        let other = Test()
        let id = try await other.repository.put(note: Held(snapshot: "a", reason: "o"), topic)
        let bytes = try #require(other.store.bytes(topic.object(id)))
        try await test.store.put(topic.object(id), AlignedBuffer(copying: bytes), ifAbsent: true)
        #expect((await failure { _ = try await test.repository.notes(topic, of: Held.self) } as? BackupError)?.code == .damaged)
    }
}
