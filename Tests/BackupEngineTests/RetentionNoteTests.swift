import BackupBase
import BackupRepository
import ObjectStorage
import TestSupport
import Testing

@testable import BackupEngine

/// What is held, proven and accepted: whose word counts.
@Suite struct RetentionNoteTests {
    private let directory: TemporaryDirectory
    private let owner: Repository
    /// With a writer key.
    private let writer: Repository
    private static let executor = BlockingExecutor(threads: 4)

    init() async throws {
        directory = try TemporaryDirectory("notes")
        let store = LocalStore(path: directory.path)
        owner = try await Repository.create(
            store: store, password: [1], label: "l", probe: [:], executor: Self.executor)
        writer = try await Repository.open(
            store: store, writer: KeyRing(writerKeyFile: owner.keys.writerKeyFile), executor: Self.executor)
    }

    private func drill(_ number: Int, passed: Bool = true, _ drilled: String = "2026-11-01T00:00:00Z", seal: String? = nil) throws
        -> DrillNote
    {
        var note = DrillNote(snapshot: "\(id(number))", passed: passed, answered: passed, drilled: drilled)
        note.seal = try seal ?? owner.keys.ownerSeal(of: note.sealed)
        return note
    }

    @Test func `a proof is the owner's or none`() async throws {
        var forged = try drill(1, seal: "")
        try await writer.put(note: forged, .drill)
        // With the seal of another snapshot, and of a failure.
        forged.seal = try drill(2).seal
        try await writer.put(note: forged, .drill)
        forged.seal = try drill(1, passed: false).seal
        try await writer.put(note: forged, .drill)
        #expect(try await owner.retentionEvidence().drills.isEmpty)
        try await owner.put(note: drill(1), .drill)
        #expect(try await owner.retentionEvidence().isProven(id(1)))
        #expect { _ = try writer.keys.ownerSeal(of: "x") } throws: { ($0 as? BackupError)?.code == .writeOnlyKey }
        #expect(try await writer.retentionEvidence().drills.isEmpty, "who cannot tell believes nothing")
    }

    @Test func `an old proof that is put once more does not hide a later failure`() async throws {
        let passed = try drill(1)
        try await owner.put(note: passed, .drill)
        try await owner.put(note: drill(1, passed: false, "2026-11-02T00:00:00Z"), .drill)
        try await writer.put(note: passed, .drill)
        let evidence = try await owner.retentionEvidence()
        #expect(!evidence.isProven(id(1)) && evidence.drills[id(1)]?.count == 3)
    }

    @Test func `what was odd is accepted by the owner or by nobody`() async throws {
        var note = AcceptanceNote(snapshot: id(1), by: "w", accepted: "2026-11-01T00:00:00Z")
        try await writer.put(note: note, .acceptance)
        note.seal = try owner.keys.ownerSeal(of: AcceptanceNote(snapshot: id(2), by: "w", accepted: note.accepted).sealed)
        try await writer.put(note: note, .acceptance)
        #expect(try await owner.retentionEvidence().accepted.isEmpty)
        try await owner.accept(id(1), by: "me")
        #expect(try await owner.retentionEvidence().accepted == [id(1)])
    }

    @Test func `a password from before a rotation says nothing`() async throws {
        _ = try await owner.addKeySlot(password: [2], label: "other")
        let held = try await owner.put(
            note: HoldNote(snapshot: id(1), reason: "", until: nil, by: "w", held: "2026-11-01T00:00:00Z"), .hold)
        _ = try await KeyRotation.run(owner, [.init([1])], by: nil)
        let outdated = try await Repository.open(
            store: LocalStore(path: directory.path), password: [2], executor: Self.executor)
        for body in [
            { _ = try await outdated.hold(id(1), reason: "", until: nil, by: "me") }, { _ = try await outdated.release(id(1)) },
            { try await outdated.accept(id(1), by: "me") },
        ] as [() async throws -> Void] {
            await #expect { try await body() } throws: { ($0 as? BackupError)?.code == .wrongPassword }
        }
        #expect(try await outdated.noteIDs(.hold) == [held])
        #expect(try await outdated.noteIDs(.acceptance).isEmpty)
    }

    @Test func `a hold of a snapshot that is gone is taken back`() async throws {
        await #expect { _ = try await owner.hold(id(1), reason: "", until: nil, by: "me") } throws: {
            ($0 as? BackupError)?.code == .noSnapshot
        }
        #expect(try await owner.noteIDs(.hold).isEmpty)
    }

    @Test func `a damaged note stops a forget`() async throws {
        let note = try await writer.put(
            note: HoldNote(snapshot: id(1), reason: "", until: nil, by: "w", held: "2026-11-01T00:00:00Z"), .hold)
        #expect(LocalFile.replace("\(directory.path)/v1/notes/hold/\(note)", with: [1, 2, 3]))
        var request = ForgetRequest()
        request.policy.keepLast = 1
        let run = ForgetRun(repository: owner, request: request)
        await #expect { _ = try await run.run() } throws: { ($0 as? BackupError)?.code == .damaged }
    }
}
