import BackupBase
import FoundationEssentials
import ObjectStorage

/// Something small that is known of a repository beside its snapshots: what is
/// held, what a drill proved, what a prune is about to take away.
///
/// Sealed like an index, so that who holds a writer key can read and make it,
/// and nobody else; the topic is part of the key, so that none passes for
/// another. Unlike snapshots and packs a note may be taken back, so the store
/// does not lock it.
public struct Note<Body: Codable & Sendable>: Sendable {
    public let id: ObjectID
    public let body: Body
    /// Nanoseconds since 1970, by the store's clock.
    public let modified: Int64

    /// Throws `FormatError` for what is no note on the topic.
    static func open(_ bytes: [UInt8], _ info: ObjectInfo, _ topic: NoteTopic, _ keys: KeyRing) throws -> Note {
        guard let id = topic.id(info.name) else { throw FormatError("its name is none of a note") }
        let header = try ObjectHeader(parsing: bytes, expecting: .note, id)
        let plain = try bytes[ObjectHeader.size...].withUnsafeBytes {
            try keys.noteSealing(id, topic: topic.name, salt: header.keying).open($0, position: Sealing.body)
        }
        guard let body = try? JSONDecoder().decode(Body.self, from: plain) else {
            throw FormatError("it says nothing that is known")
        }
        return Note(id: id, body: body, modified: info.modified)
    }
}

/// What a note is about: lower-case letters, a folder of its own below `v1/notes/`.
public struct NoteTopic: Sendable, Hashable {
    public let name: String

    public init(_ name: String) {
        precondition(!name.isEmpty && name.utf8.allSatisfy { (0x61...0x7a).contains($0) })
        self.name = name
    }

    static let prefix = "v1/notes/"
    var prefix: String { "\(Self.prefix)\(name)/" }
    func object(_ id: ObjectID) -> String { "\(prefix)\(id)" }
    func id(_ object: String) -> ObjectID? { ObjectID(hex: object.dropFirst(prefix.count)) }
}

extension Repository {
    /// Bytes of a note's object at the most: a million packs' ids.
    static let noteLimit = 40 << 20

    /// Stores a note of its own: two of the same content are two.
    @discardableResult
    public func put(note body: some Codable & Sendable, _ topic: NoteTopic) async throws -> ObjectID {
        let id = ObjectID.random(ambient)
        try await put(note: body, topic, as: id)
        return id
    }

    /// Throws `StoreError` `.exists` where there is one of this id.
    func put(note body: some Codable & Sendable, _ topic: NoteTopic, as id: ObjectID) async throws {
        let encoder = JSONEncoder()
        encoder.outputFormatting = [.sortedKeys, .withoutEscapingSlashes]
        let plain = Array(try encoder.encode(body))
        let salt = ambient.random(32)
        let header = ObjectHeader(kind: .note, id: id, keying: salt)
        let object = header.bytes + (try keys.noteSealing(id, topic: topic.name, salt: salt).seal(plain, position: Sealing.body))
        guard object.count <= Self.noteLimit else { throw BackupError(.failed, "a note on \(topic.name) is too long") }
        try await store.put(topic.object(id), AlignedBuffer(copying: object), ifAbsent: true)
    }

    /// All notes on a topic, oldest first by the store's clock. One that is taken back meanwhile is left out.
    /// - Throws: `.damaged` for one that is none: what it held or announced is not known, and nothing may be taken
    ///   away before somebody looked
    /// - Parameters:
    ///   - listing: of just now; nil lists
    ///   - cache: of this node; for lists only. Nil reads everything from the store
    public func notes<Body>(
        _ topic: NoteTopic, of type: Body.Type = Body.self, listing: SnapshotListing? = nil, cache: String? = nil
    ) async throws -> [Note<Body>] {
        var notes: [Note<Body>] = []
        let cache = ObjectCache(cache, of: id, prefix: topic.prefix)
        try await forEachNote(topic, of: Body.self, listed: try listing?.notes(topic), cache: cache) { notes.append($0) }
        return notes.sorted { ($0.modified, $0.id) < ($1.modified, $1.id) }
    }

    /// All notes on a topic, in no order, few of them in memory at a time.
    /// - Parameters:
    ///   - limit: bytes of a note's object at the most
    ///   - listed: the topic's objects just now; nil lists them
    func forEachNote<Body>(
        _ topic: NoteTopic, of type: Body.Type, limit: Int = Repository.noteLimit, listed: [ObjectInfo]? = nil,
        cache: ObjectCache? = nil, _ body: (Note<Body>) throws -> Void
    ) async throws {
        var infos = listed ?? []
        if listed == nil { infos = try await store.list(topic.prefix) }
        let listed = infos
        cache?.sweep(listed)
        var rest = listed[...]
        var absent: Set<String> = []
        // Several at once: each is a round trip, and drills of years are many.
        let width = listed.allSatisfy { $0.size <= 64 << 10 } ? max(64, store.parallelGets) : store.parallelGets
        var reading = OrderedMap<ObjectInfo, Note<Body>?>(
            width: width, on: executor, from: { rest.popFirst() },
            transform: { try await self.note($0, topic, limit, cache) })
        var read = 0
        while let result = try await reading.next() {
            read += 1
            if let note = result { try body(note) } else { absent.insert(listed[read - 1].name) }
        }
        // A 404 of something on the way is no word of the store's; one without conditions lists for a while what is gone.
        if !absent.isEmpty, isShared, let still = try await store.list(topic.prefix).first(where: { absent.contains($0.name) }) {
            throw unreadable(still.name, StoreError(.notFound, "read", still.name))
        }
    }

    /// What the notes on a topic are called, without reading them.
    public func noteIDs(_ topic: NoteTopic) async throws -> Set<ObjectID> {
        Set(try await store.list(topic.prefix).compactMap { topic.id($0.name) })
    }

    private func note<Body>(
        _ info: ObjectInfo, _ topic: NoteTopic, _ limit: Int, _ cache: ObjectCache?
    ) async throws -> Note<Body>? {
        if let bytes = cache?.bytes(info), let note = try? Note<Body>.open(bytes, info, topic, keys) { return note }
        do {
            let bytes = try await store.get(info.name, .all, limit: limit).array
            let note = try Note<Body>.open(bytes, info, topic, keys)
            cache?.keep(bytes, of: info)
            return note
        } catch let error as StoreError where error.kind == .notFound {
            return nil
        } catch let error as StoreError where error.kind == .tooLarge {
            throw unreadable(info.name, error)
        } catch let error as FormatError {
            throw unreadable(info.name, error)
        }
    }

    private func unreadable(_ name: String, _ cause: any Error) -> BackupError {
        BackupError(
            .damaged, "the note \(name) is damaged",
            hint: "Nothing is taken away while it is there; delete the object once you know what it said.", cause: cause)
    }

    /// Takes a note back; one that is gone is taken back already.
    public func remove(note id: ObjectID, _ topic: NoteTopic) async throws { try await store.delete(topic.object(id)) }
}
