import BackupBase
import Crypto
import Foundation
import ObjectStorage
import Testing

@testable import BackupRepository

/// What a rotation meets that was stopped, what thieves left and what others do at the same moment.
@Suite(CheapPasswords()) struct KeyRotationFaultTests {
    private let stage: RotationStage
    private var store: MemoryStore { stage.store }
    private var repository: Repository { stage.repository }
    private var first: SnapshotName { stage.first }
    private static let (mine, theirs, blocks) = (RotationStage.mine, RotationStage.theirs, RotationStage.blocks)
    private static let new = Array("new".utf8)

    init() async throws { stage = try await RotationStage() }

    private static func open(_ store: MemoryStore, _ password: [UInt8] = mine) async throws -> Repository {
        try await RotationStage.open(store, password)
    }

    private func opens(_ store: MemoryStore, _ password: [UInt8]) async -> Bool {
        await code { _ = try await Self.open(store, password) } == nil
    }

    @discardableResult
    private func rotate(_ repository: Repository, _ passwords: [[UInt8]] = [mine]) async throws -> KeyRotation {
        try await KeyRotation.run(repository, passwords.map { .init($0) }, by: nil)
    }

    /// A rotation with my password that is killed before the first call that this fits.
    private func killedRotation(_ store: MemoryStore, before isLast: @escaping @Sendable (MemoryStore.Call) -> Bool) async throws
    {
        let repository = try await Self.open(store, Self.mine)
        let whole = store.copy()
        let other = try await Self.open(whole, Self.mine)
        whole.restart()
        try await rotate(other)
        let number = try #require(whole.calls.firstIndex(where: isLast))
        store.fail(at: number + 1, .before, dies: true, with: StoreError(.full, "write", "x"))
        #expect(await code { try await rotate(repository) } != nil)
        store.restart()
        // Whoever was killed had the lease.
        store.advance(200)
    }

    private func isReadable(_ name: SnapshotName, _ repository: Repository) async -> Bool {
        await code {
            let snapshot = try await repository.snapshot(name)
            try await repository.forEachEntry(of: snapshot) { _ in }
        } == nil
    }

    // MARK: - Stopped

    @Test func `between the new slot and the configuration all seal for the pair that everybody has`() async throws {
        try await killedRotation(store) { $0.name == "v1/config.a" && $0.changes }
        #expect(store.names("v1/keys/").count == 6)
        let me = try await Self.open(store, Self.mine)
        #expect(me.keys.generation == 1 && me.keys.heldGeneration == 2)
        let made = try await me.snapshot(2, [[UInt8](repeating: 2, count: 4096)])
        let id = try await me.addKeySlot(password: Self.new, label: "new")
        #expect(try await isReadable(made, Self.open(store, Self.theirs)))
        #expect(try KeyRing(writerKeyFile: me.keys.writerKeyFile).generation == 1)
        #expect(try await me.check().findings.contains { $0.object == "v1/config.a" && $0.severity == .notice })
        // Mine goes on, and who was added meanwhile has its pair.
        let resumed = store.copy()
        let rotation = try await rotate(Self.open(resumed, Self.mine))
        #expect(rotation.wasResumed && rotation.generation == 2 && !rotation.outdated.contains(id))
        for password in [Self.mine, Self.new] {
            let now = try await Self.open(resumed, password)
            #expect(now.keys.generation == 2 && !now.isOutdated)
            for name in [first, made] { #expect(await isReadable(name, now)) }
        }
        // Theirs comes between: nothing is lost, and mine opens what is older.
        let overtaking = try await rotate(Self.open(store, Self.theirs), [Self.theirs])
        #expect(!overtaking.wasResumed && overtaking.generation == 2)
        // One of the same number, but of the rotation that was stopped, opens nothing newer: both runs say so.
        #expect(overtaking.outdated.count == 3)
        let owner = try await Self.open(store, Self.theirs)
        #expect(try await owner.check().findings.count { $0.object.hasPrefix("v1/keys/") && $0.severity == .notice } == 3)
        let newer = try await owner.snapshot(3, Self.blocks)
        for name in [first, made, newer] { #expect(await isReadable(name, owner)) }
        for password in [Self.mine, Self.new] {
            let outdated = try await Self.open(store, password)
            #expect(outdated.isOutdated)
            for name in [first, made] { #expect(await isReadable(name, outdated)) }
            #expect(await !isReadable(newer, outdated))
            #expect(await code { try await rotate(outdated, [password]) } == .wrongPassword)
        }
    }

    @Test func `a slot of which only one copy was written is not taken for the new one`() async throws {
        try await killedRotation(store) { $0.name.hasPrefix("v1/keys/") && $0.name.hasSuffix(".b") && $0.operation == "put" }
        #expect(store.names("v1/keys/").count == 5)
        let rotation = try await rotate(Self.open(store, Self.mine))
        #expect(rotation.wasResumed && rotation.added.count == 1 && rotation.removed.count == 2)
        #expect(try await !Self.open(store, Self.mine).check().isDamaged)
    }

    @Test func `a closing of which only one copy was written is finished as it was`() async throws {
        try await killedRotation(store) { $0.name == "v1/pairs/1.b" && $0.changes }
        let (said, late) = (store.bytes("v1/pairs/1.a"), try await repository.seen(keys: repository.keys.writer).put(body: [1]))
        let rotation = try await rotate(Self.open(store, Self.mine))
        #expect(rotation.wasResumed && rotation.generation == 2)
        #expect(said != nil && store.bytes("v1/pairs/1.a") == said && store.bytes("v1/pairs/1.b") == said)
        let error = await failure { _ = try await Self.open(store, Self.mine).snapshot(late) } as? BackupError
        #expect(error?.message.contains("was not there") == true)
    }

    @Test func `an old configuration that is put back after the pair was closed is not believed`() async throws {
        let old = Configuration.names.map { ($0, store.bytes($0)!) }
        try await rotate(repository)
        for (name, bytes) in old { store.set(name, bytes) }
        #expect(try await Self.open(store, Self.mine).keys.generation == 2)
        for generation in [1] { for name in PairClosing.names(generation) { store.remove(name) } }
        // Without the closing it cannot be told from a rotation that was stopped, which goes on.
        let again = try await Self.open(store, Self.mine)
        #expect(again.keys.generation == 1 && again.keys.heldGeneration == 2)
        #expect(try await rotate(again).generation == 2)
        #expect(try await Self.open(store, Self.mine).check().findings.allSatisfy { $0.severity == .notice })
    }

    // MARK: - Changing the password with it

    @Test(arguments: MemoryStore.Moment.allCases)
    func `password and pair change at once: killed anywhere, one of the two opens everything`(
        _ moment: MemoryStore.Moment
    ) async throws {
        func rotate(_ store: MemoryStore, _ password: [UInt8]) async throws {
            _ = try await KeyRotation.run(
                Self.open(store, password), [.init(Self.new, isNew: true)], retired: [Self.mine], by: nil)
        }
        let full = store.copy()
        full.restart()
        try await rotate(full, Self.mine)
        #expect(await opens(full, Self.new))
        #expect(await !opens(full, Self.mine))
        #expect(try await Self.open(full, Self.new).keySlots().map(\.label).sorted() == ["mine", "theirs"])
        let calls = full.calls.count
        for number in 1...calls {
            let store = store.copy()
            store.fail(at: number, moment, dies: true, with: StoreError(.full, "write", "x"))
            try? await rotate(store, Self.mine)
            store.restart()
            store.advance(200)
            var isCurrent = false
            for password in [Self.mine, Self.new] where await opens(store, password) {
                let opened = try await Self.open(store, password)
                #expect(await isReadable(first, opened), "call \(number)")
                guard !opened.isOutdated, !isCurrent else { continue }
                isCurrent = true
                let made = try await opened.snapshot(2, Self.blocks)
                try await rotate(store, password)
                let now = try await Self.open(store, Self.new)
                for name in [first, made] { #expect(await isReadable(name, now), "call \(number)") }
                #expect(await !opens(store, Self.mine), "call \(number)")
                #expect(try await !now.check().isDamaged, "call \(number)")
            }
            #expect(isCurrent, "call \(number)")
        }
    }

    // MARK: - Thieves and damage

    @Test func `what lies where a closing comes is written over`() async throws {
        let thief = repository.seen(keys: repository.keys.writer)
        let forged = PairClosing(generation: 1, closed: "x", snapshots: [:])
        store.set("v1/pairs/1.a", try JSONEncoder().encode(forged) + Array("\n\(String(repeating: "00", count: 32))\n".utf8))
        store.set("v1/pairs/1.b", [1, 2, 3])
        #expect(try await rotate(repository).waitingFor.isEmpty)
        let now = try await Self.open(store, Self.mine)
        #expect(await isReadable(first, now))
        #expect(try await now.check().findings.allSatisfy { $0.object.hasPrefix("v1/keys/") })
        #expect(store.bytes("v1/pairs/1.a") == store.bytes("v1/pairs/1.b"))
        let late = try await thief.put(body: [1])
        #expect(await code { _ = try await Self.open(store, Self.mine).snapshot(late) } == .damaged)
        // Altered afterwards it is damage, until the owner closes the pair anew.
        store.remove(late.object)
        for name in PairClosing.names(1) { store.damage(name) { $0[0] ^= 1 } }
        #expect(await code { _ = try await Self.open(store, Self.mine).snapshot(first) } == .damaged)
        let again = try await rotate(Self.open(store, Self.mine))
        #expect(again.wasResumed && again.generation == 2)
        #expect(try await isReadable(first, Self.open(store, Self.mine)))
    }

    @Test func `a store that keeps another closing than was written is not believed`() async throws {
        let store = store
        let view = store.another()
        view.onCall { call in
            if call == .init(operation: "get", name: "v1/pairs/1.b") { store.damage(call.name) { $0[0] ^= 1 } }
        }
        #expect(await code { try await rotate(repository.seen(on: view)) } == .storeFailed)
    }

    @Test func `one damaged copy of the configuration that names a newer pair makes no keys outdated`() async throws {
        try await rotate(repository, [Self.mine, Self.theirs])
        for name in Configuration.names {
            let store = store.copy()
            let text = String(decoding: store.bytes(name)!, as: UTF8.self)
            store.set(name, Array(text.replacingOccurrences(of: "\"generation\":2", with: "\"generation\":3").utf8))
            let now = try await Self.open(store, Self.mine)
            #expect(!now.isOutdated)
            _ = try await now.snapshot(2, Self.blocks)
            let writer = try await Repository.open(
                store: store, writer: now.keys.writer, executor: TestRepository.executor, ambient: store.ambient())
            _ = try await writer.snapshot(3, Self.blocks)
            #expect(try await now.check().findings.map(\.object) == [name])
            #expect(try await now.repairCopies(dryRun: true).written == [name])
            #expect(try await now.repairCopies(dryRun: false).written == [name])
            #expect(try await now.check().findings.isEmpty)
        }
        // That of a rotation which is at work, or was stopped, counts.
        let old = try await Self.open(store, Self.theirs)
        try await killedRotation(store) { $0.name == "v1/config.b" && $0.changes }
        #expect(try await Self.open(store, Self.theirs).isOutdated)
        for body in [
            { _ = try await old.snapshot(4, Self.blocks) },
            { _ = try await self.openWriter(old.keys.writer) },
        ] as [() async throws -> Void] { #expect(await code(body) == .wrongPassword) }
        #expect(await code { _ = try await old.repairCopies(dryRun: false) } == .busy)
        #expect(await code { try await rotate(old, [Self.theirs]) } == .busy)
    }

    private func openWriter(_ ring: KeyRing) async throws -> Repository {
        try await Repository.open(store: store, writer: ring, executor: TestRepository.executor, ambient: store.ambient())
    }

    @Test func `more key slots than anybody has are refused, and no more are added than that`() async throws {
        let full = store.copy()
        let slot = full.bytes(full.names("v1/keys/")[0])!
        for number in 0..<Repository.mostSlots {
            for copy in ["a", "b"] { full.set("v1/keys/\([UInt8](repeating: UInt8(number), count: 8).hex).\(copy)", slot) }
        }
        #expect(await code { _ = try await Self.open(full, Self.mine).addKeySlot(password: [1], label: "") } == .usage)
        for number in 0..<8 * Repository.mostSlots { store.set("v1/keys/x\(number)", slot) }
        store.restart()
        let error = await failure { _ = try await Self.open(store, Self.mine) } as? BackupError
        #expect(error?.code == .damaged && error?.message.contains("v1/keys/") == true)
        #expect(store.calls.count == 3)
        #expect(try await repository.check().findings.contains { $0.object == "v1/keys/" && $0.severity == .damage })
    }

    @Test func `a slot that costs much time is tried after those that cost little`() throws {
        var costly = try KeySlot.make(repository.keys, password: [1], slot: [], label: "", ambient: .system)
        costly.n = 1 << 20
        costly.sealed = String(repeating: "0", count: 2 * (64 * 64 + 16))
        let cheap = try KeySlot.make(repository.keys, password: [1], slot: [0], label: "", ambient: .system)
        let copy = try UnverifiedConfiguration(parsing: repository.configuration.encoded(repository.keys))
        costly.r = 16
        // Out of bounds: it would be a problem, were it tried.
        let opened = Repository.unlock([([], costly), ([0], cheap)], [1], [copy]) { Issue.record("\($0)") }
        #expect(opened?.slot == [0])
    }

    @Test func `a closing that no reader would take is not written`() throws {
        let ring = repository.keys.rotated()
        let large = PairClosing(generation: 1, closed: String(repeating: "x", count: PairClosing.sizeLimit), snapshots: [:])
        #expect(throws: BackupError.self) { try large.encoded(ring) }
        let entry =
            try PairClosing(
                generation: 1, closed: "", snapshots: [first.object: PairClosing.digest([])]
            ).encoded(ring).count - PairClosing(generation: 1, closed: "", snapshots: [:]).encoded(ring).count
        #expect((entry + 1) * PairClosing.mostSnapshots + 1000 < PairClosing.sizeLimit)
    }

    // MARK: - Beside others

    @Test func `a process that lives longer sees a closing that comes`() async throws {
        try await repository.withWriter(cache: nil, journal: nil, width: 1, renewing: nil) { _ in
            let waiting = try await rotate(repository).waitingFor
            #expect(waiting.count == 1)
        }
        let watching = try await Self.open(store, Self.mine)
        #expect(await isReadable(first, watching))
        #expect(try await rotate(Self.open(store, Self.mine)).waitingFor.isEmpty)
        let forged = try await repository.seen(keys: repository.keys.writer).put(body: [1])
        store.advance(61)
        let error = await failure { _ = try await watching.snapshot(forged) } as? BackupError
        #expect(error?.message.contains("was not there") == true)
    }

    @Test func `who opened before a rotation changes no keys and no configuration after it`() async throws {
        let slots = try await repository.keySlots()
        try await rotate(Self.open(store, Self.mine), [Self.mine, Self.theirs])
        let before = store.names("v1/").map { ($0, store.bytes($0)) }
        let other = try #require(try await Self.open(store, Self.mine).keySlots().first { $0.label == "theirs" })
        for body in [
            { _ = try await self.repository.record(probe: ["ranges": "no"]) },
            { _ = try await self.repository.changePassword(from: Self.mine, to: Self.new, label: nil, by: nil) },
            { try await self.repository.removeKeySlot(other.id) },
            { _ = try await self.repository.repairCopies(dryRun: false) },
        ] as [() async throws -> Void] { #expect(await code(body) == .busy) }
        #expect(slots.count == 2 && before.elementsEqual(store.names("v1/").map { ($0, store.bytes($0)) }) { $0 == $1 })
        #expect(await code { _ = try await self.repository.addKeySlot(password: Self.new, label: "") } == .busy)
        // And who holds the new pair already, from a rotation that was finished by another process.
        let half = store.copy()
        try await killedRotation(half) { $0.name == "v1/config.a" && $0.changes }
        let pending = try await Self.open(half, Self.mine)
        try await rotate(Self.open(half, Self.mine))
        #expect(await code { _ = try await pending.snapshot(9, Self.blocks) } == .busy)
        #expect(
            await code { _ = try await pending.changePassword(from: Self.mine, to: Self.new, label: nil, by: nil) } == .busy)
        #expect(try await !Self.open(half, Self.mine).isOutdated)
    }

    // MARK: - Second copies and exports

    @Test func `a closing at the second place learns what the source's lists`() async throws {
        // The pair is closed at the place while a backup to the source runs on.
        let place = MemoryStore()
        let made = try await repository.withWriter(cache: nil, journal: nil, width: 1, renewing: nil) { writer in
            try await rotate(repository)
            let now = try await Self.open(store, Self.mine)
            _ = try await Replication(from: now, to: place, dryRun: false) { _ in }.run(nil)
            try await rotate(Self.open(place, Self.mine))
            return try await writer.commit(repository.record(2), manifest: try await Extents(repeating: first, in: repository))
                .name
        }
        let now = try await Self.open(store, Self.mine)
        #expect(try await rotate(now).waitingFor.isEmpty)
        _ = try await Replication(from: now, to: place, dryRun: false) { _ in }.run(nil)
        for name in [first, made] { #expect(try await isReadable(name, Self.open(place, Self.mine))) }
        // What was put there instead is not believed.
        for name in PairClosing.names(1) { place.damage(name) { $0[0] ^= 1 } }
        #expect(await code { _ = try await Replication(from: now, to: place, dryRun: false) { _ in }.run(nil) } == .damaged)
    }

    @Test func `a source whose rotation was stopped gives its second place the pair that it names`() async throws {
        let place = MemoryStore()
        _ = try await Replication(from: repository, to: place, dryRun: false) { _ in }.run(nil)
        try await killedRotation(store) { $0.name == "v1/config.a" && $0.changes }
        _ = try await Replication(from: Self.open(store, Self.mine), to: place, dryRun: false) { _ in }.run(nil)
        #expect(try await Self.open(place, Self.theirs).configuration.keyGeneration == 1)
        #expect(try await !Self.open(place, Self.theirs).isOutdated)
    }

    @Test func `who cannot read copies the closings too`() async throws {
        try await rotate(repository)
        let writer = try await openWriter(Self.open(store, Self.mine).keys.writer)
        let place = MemoryStore()
        #expect(try await Replication(from: writer, to: place, dryRun: false) { _ in }.run(nil).snapshots == 1)
        #expect(place.bytes("v1/pairs/1.b") == store.bytes("v1/pairs/1.b"))
        #expect(try await isReadable(first, Self.open(place, Self.mine)))
    }

    @Test func `an old export brings no old pair back, unless it is told to`() async throws {
        let export = try KeyExport(repository.keys, password: Self.new, location: "x", by: nil)
        try await rotate(repository)
        let newer = try await Self.open(store, Self.mine).snapshot(2, Self.blocks)
        for name in Configuration.names { store.remove(name) }
        func take(_ store: MemoryStore, force: Bool = false) async throws -> Repository {
            try await Repository.importKeys(
                export.open(password: Self.new), store: store, password: Self.new, label: "", by: nil, force: force,
                executor: TestRepository.executor, ambient: store.ambient()
            ) { [:] }.repository
        }
        // Each of these alone says that there was a rotation.
        for kept in ["v1/keys/", "v1/pairs/", "v1/snapshots/"] {
            let store = store.copy()
            for other in ["v1/keys/", "v1/pairs/", "v1/snapshots/"] where other != kept {
                for name in store.names(other) { store.remove(name) }
            }
            let before = store.names
            #expect(await code { _ = try await take(store) } == .wrongPassword, "\(kept)")
            #expect(store.names == before)
        }
        let back = try await take(store, force: true)
        #expect(back.keys.generation == 1)
        #expect(await isReadable(first, back))
        #expect(await !isReadable(newer, back))
    }
}
