import BackupBase
import BackupRepository
import QdrantStorage

extension NoteTopic {
    public static let hold = NoteTopic("hold")
    public static let drill = NoteTopic("drill")
    public static let acceptance = NoteTopic("acceptance")
}

/// That a snapshot must stay. A writer can make one too: it only keeps.
public struct HoldNote: Codable, Sendable {
    /// Its id.
    public var snapshot: String
    public var reason: String
    /// RFC 3339; nil for ever.
    public var until: String?
    /// Who held it, and when (RFC 3339).
    public var by: String
    public var held: String

    public init(snapshot: ObjectID, reason: String, until: String?, by: String, held: String) {
        self.snapshot = "\(snapshot)"
        self.reason = reason
        self.until = until
        self.by = by
        self.held = held
    }

    /// - Parameter now: seconds since 1970
    public func isOver(_ now: Double) -> Bool {
        // What cannot be read as a time holds for ever.
        until.flatMap(parseTime).map { $0 <= now } ?? false
    }

    /// "audit, until 2027-01-31".
    public var words: String {
        let words = [reason, until.map { "until \($0.prefix(10))" } ?? ""].filter { !$0.isEmpty }.joined(separator: ", ")
        return printable(words.utf8)
    }
}

/// What came of a drill of one snapshot. `seal` is the owner's: proof moves
/// what is protected from one snapshot to another, so a writer must not make it.
public struct DrillNote: Codable, Sendable {
    public var snapshot: String
    /// Nothing failed; and the database was started and answered right.
    public var passed: Bool
    public var answered: Bool
    /// Seconds of restore, start and first right answer; and of that answer alone, once it had started.
    public var recoverySeconds: Double?
    public var firstAnswerSeconds: Double?
    public var points: UInt64?
    /// RFC 3339.
    public var drilled: String
    /// Why it failed.
    public var reason: String?
    var seal = ""
}

extension DrillNote {
    /// - Parameter drilled: nanoseconds since 1970
    init(_ drill: NodeDrill, drilled: Int64) {
        let passed = drill.verdict != .fail
        self.init(
            snapshot: "\(drill.snapshot.id)", passed: passed, answered: passed && drill.recovery != nil,
            recoverySeconds: drill.recovery, firstAnswerSeconds: drill.firstAnswer,
            points: drill.snapshot.record.inspection?.points, drilled: formatTime(drilled),
            reason: drill.reason.map { String($0.prefix(1000)) })
    }

    var sealed: String { "drill \(snapshot) \(passed) \(answered) \(drilled)" }
}

/// That somebody looked at a snapshot that changed unlike those before it, and found it right.
public struct AcceptanceNote: Codable, Sendable {
    public var snapshot: String
    public var by: String
    /// RFC 3339.
    public var accepted: String
    var seal = ""

    public init(snapshot: ObjectID, by: String, accepted: String) {
        self.snapshot = "\(snapshot)"
        self.by = by
        self.accepted = accepted
    }

    var sealed: String { "acceptance \(snapshot) \(accepted)" }
}

/// What the notes of a repository say of its snapshots.
public struct RetentionEvidence: Sendable {
    public var holds: [ObjectID: [HoldNote]] = [:]
    /// Oldest first.
    public var drills: [ObjectID: [DrillNote]] = [:]
    public var accepted: Set<ObjectID> = []

    public init() {}

    /// Whether its last drill passed; and whether the database answered in that one, or in an earlier one that passed.
    public func isProven(_ id: ObjectID) -> Bool { drills[id]?.last?.passed == true }
    public func hasAnswered(_ id: ObjectID) -> Bool {
        isProven(id) && drills[id]?.contains { $0.passed && $0.answered } == true
    }
    /// Whether any drill of it passed.
    public func wasProven(_ id: ObjectID) -> Bool { drills[id]?.contains(where: \.passed) == true }

    /// Holds that are not over.
    /// - Parameter now: seconds since 1970
    public func holds(of id: ObjectID, now: Double) -> [HoldNote] { (holds[id] ?? []).filter { !$0.isOver(now) } }
}

extension Repository {
    /// Reads the notes. Needs the private key, without which proofs are worth nothing.
    /// - Parameters:
    ///   - listing: of just now; nil lists
    ///   - cache: of this node; for commands that only show. Nil reads from the store
    public func retentionEvidence(listing: SnapshotListing? = nil, cache: String? = nil) async throws -> RetentionEvidence {
        var evidence = RetentionEvidence()
        async let holds = notes(.hold, of: HoldNote.self, listing: listing, cache: cache)
        async let drills = notes(.drill, of: DrillNote.self, listing: listing, cache: cache)
        async let acceptances = notes(.acceptance, of: AcceptanceNote.self, listing: listing, cache: cache)
        for note in try await holds {
            if let id = ObjectID(hex: note.body.snapshot) { evidence.holds[id, default: []].append(note.body) }
        }
        for note in try await drills where keys.isOwnerSeal(note.body.seal, of: note.body.sealed) {
            if let id = ObjectID(hex: note.body.snapshot) { evidence.drills[id, default: []].append(note.body) }
        }
        // By the time that is sealed: a writer can put an old note once more.
        for id in evidence.drills.keys { evidence.drills[id]?.sort { $0.drilled < $1.drilled } }
        for note in try await acceptances where keys.isOwnerSeal(note.body.seal, of: note.body.sealed) {
            if let id = ObjectID(hex: note.body.snapshot) { evidence.accepted.insert(id) }
        }
        return evidence
    }

    /// Holds a snapshot: it is not forgotten before `until` (seconds since 1970; nil: until it is released).
    /// - Throws: `.noSnapshot` when it was forgotten at this moment
    public func hold(_ id: ObjectID, reason: String, until: Double?, by: String) async throws -> HoldNote {
        try requireCurrent()
        let now = try await storeNow()
        let note = HoldNote(
            snapshot: id, reason: reason, until: until.map { formatTime(Int64($0 * 1e9)) }, by: by, held: formatTime(now))
        let key = try await put(note: note, .hold)
        guard try await snapshotNames().contains(where: { $0.id == id }) else {
            try await remove(note: key, .hold)
            throw BackupError(.noSnapshot, "snapshot \(id) was forgotten at this moment")
        }
        return note
    }

    /// Takes all holds of a snapshot back.
    /// - Returns: how many there were
    public func release(_ id: ObjectID) async throws -> Int {
        try requireCurrent()
        let held = try await notes(.hold, of: HoldNote.self).filter { $0.body.snapshot == "\(id)" }
        for note in held { try await remove(note: note.id, .hold) }
        return held.count
    }

    /// Keeps what a drill proved of a snapshot.
    public func record(_ drill: NodeDrill) async throws {
        try requireCurrent()
        var note = DrillNote(drill, drilled: try await storeNow())
        note.seal = try keys.ownerSeal(of: note.sealed)
        try await put(note: note, .drill)
    }

    /// Keeps that the change of a snapshot was right.
    public func accept(_ id: ObjectID, by: String) async throws {
        try requireCurrent()
        var note = AcceptanceNote(snapshot: id, by: by, accepted: formatTime(try await storeNow()))
        note.seal = try keys.ownerSeal(of: note.sealed)
        try await put(note: note, .acceptance)
    }
}
