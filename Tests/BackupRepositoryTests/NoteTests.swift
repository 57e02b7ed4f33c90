import BackupBase
import ObjectStorage
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
