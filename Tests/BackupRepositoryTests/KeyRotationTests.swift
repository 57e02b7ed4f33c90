import BackupBase
import Crypto
import Glibc
import ObjectStorage
import Testing

@testable import BackupRepository

/// A repository with two key pairs: what each can do, and what a rotation leaves at each of its steps.
@Suite(CheapPasswords()) struct KeyRotationTests {
    private let store = MemoryStore()
    private let repository: Repository
    private let first: SnapshotName
    private static let password = Array("password".utf8)
    private static let other = Array("other".utf8)
    private static let blocks = (0..<3).map { [UInt8](repeating: UInt8($0 + 1), count: 4096) }

    init() async throws {
        _ = try await Repository.create(
            store: store, password: Self.password, label: "first", probe: [:], executor: TestRepository.executor,
            ambient: store.ambient())
        repository = try await Self.open(store)
        first = try await repository.snapshot(1, Self.blocks)
    }

    private static func open(_ store: MemoryStore, _ password: [UInt8] = password) async throws -> Repository {
        try await Repository.open(store: store, password: password, executor: TestRepository.executor, ambient: store.ambient())
    }

    @discardableResult
    private func rotate(
        _ repository: Repository, also: [[UInt8]] = [], force: Bool = false, dryRun: Bool = false
    ) async throws -> KeyRotation {
        let passwords = ([Self.password] + also).map { KeyRotation.Password($0) }
        return try await KeyRotation.run(repository, passwords, by: "me@here", force: force, dryRun: dryRun)
    }

    private func openWriter(_ ring: KeyRing, _ store: MemoryStore? = nil) async throws -> Repository {
        let store = store ?? self.store
        return try await Repository.open(
            store: store, writer: ring, executor: TestRepository.executor, ambient: store.ambient())
    }

    private func isReadable(_ name: SnapshotName, _ repository: Repository) async throws -> Bool {
        let snapshot = try await repository.snapshot(name)
        var files = 0
        try await repository.forEachEntry(of: snapshot) { if case .file = $0.kind { files += 1 } }
        return files == 1
    }

    // MARK: - What it does

    @Test func `the old stays readable, the new is sealed for the new pair, and blocks are found again`() async throws {
        let before = store.names("v1/packs/")
        #expect(try await rotate(repository, dryRun: true).generation == 2)
        #expect(store.names("v1/keys/").count == 2 && store.names("v1/pairs/").isEmpty)
        let rotation = try await rotate(repository)
        #expect(rotation.generation == 2 && !rotation.wasResumed && rotation.added.count == 1 && rotation.removed.count == 1)
        #expect(rotation.waitingFor.isEmpty && store.names("v1/keys/").count == 2 && store.names("v1/pairs/").count == 2)
        let now = try await Self.open(store)
        #expect(now.keys.generation == 2 && now.configuration.keyGeneration == 2 && now.configuration.format == 2)
        #expect(try await isReadable(first, now))
        let second = try await now.snapshot(2, Self.blocks)
        #expect(try await isReadable(second, now))
        #expect(store.bytes(first.object)?[11] == 0 && store.bytes(second.object)?[11] == 1)
        // The blocks of the file are those of before: one pack is new, with the chunk that says so.
        #expect(try await now.packs(of: now.snapshot(second)).intersection(now.packs(of: now.snapshot(first))).count >= 1)
        for name in Set(store.names("v1/packs/")).subtracting(before) { #expect(store.bytes(name)?[11] == 1) }
        let report = try await Self.open(store).check()
        #expect(report.findings.isEmpty, "\(report.findings)")
        // And once more.
        #expect(try await rotate(now).generation == 3)
        let third = try await Self.open(store)
        for name in [first, second] { #expect(try await isReadable(name, third)) }
        #expect(try await third.check().findings.isEmpty)
    }

    @Test func `a writer key from before is refused, and what it made meanwhile too`() async throws {
        let stolen = try KeyRing(writerKeyFile: repository.keys.writerKeyFile)
        try await rotate(repository)
        let error = await failure { _ = try await openWriter(stolen) } as? BackupError
        #expect(error?.code == .wrongPassword && error?.hint?.contains("export-writer") == true)
        let now = try await Self.open(store)
        let fresh = try KeyRing(writerKeyFile: now.keys.writerKeyFile)
        #expect(fresh.generation == 2 && !fresh.canRead)
        let made = try await openWriter(fresh).snapshot(2, Self.blocks)
        #expect(try await isReadable(made, Self.open(store)))
        // The thief does not ask whether it may.
        let thief = repository.seen(keys: stolen)
        let forged = try await thief.put(body: [1, 2, 3])
        #expect(await code { _ = try await Self.open(store).snapshot(forged) } == .damaged)
        // Nor under a name that was there, which the first check would let through.
        let (header, sealing) = try stolen.newObject(.snapshot, first.id)
        store.set(first.object, header.bytes + (try sealing.seal([1, 2, 3], position: Sealing.body)))
        let refused = await failure { _ = try await Self.open(store).snapshot(first) } as? BackupError
        #expect(refused?.code == .damaged && refused?.message.contains("before the rotation") == true)
        // An old configuration that somebody puts back opens nothing for those who have the new keys.
        let old = Configuration(
            repository: "\(repository.id)", created: "x", publicKey: Array(stolen.publicKey.rawRepresentation).hex, probe: [:])
        for name in Configuration.names { store.set(name, try old.encoded(stolen)) }
        #expect(await code { _ = try await openWriter(fresh) } == .damaged)
        let rolledBack = try await Self.open(store)
        #expect(rolledBack.keys.generation == 2)
        let after = try await rolledBack.snapshot(9, [[UInt8](repeating: 99, count: 4096)])
        #expect(store.bytes(after.object)?[11] == 1)
    }

    @Test func `a repair calls no snapshot lost of which only the closing is damaged`() async throws {
        try await rotate(repository)
        let closings = store.names("v1/pairs/")
        let good = store.copy()
        for name in closings { store.damage(name) { $0[5] ^= 1 } }
        let report = try await Repair.run(Self.open(store), from: nil, Repair.Options()) { _, _ in }
        #expect(report.unreadable.isEmpty && report.refused.map(\.name) == [first] && report.isLossy)
        #expect(report.snapshots.isEmpty && report.toForget.isEmpty && store.names("v1/snapshots/") == [first.object])
        good.damage(closings[0]) { $0[5] ^= 1 }
        let mended = try await Repair.run(Self.open(good), from: nil, Repair.Options()) { _, _ in }
        #expect(mended.copies == [closings[0]] && !mended.isLossy)
    }

    @Test func `other passwords open what is older and write nothing, unless they were given`() async throws {
        _ = try await repository.addKeySlot(password: Self.other, label: "second")
        let third = Array("third".utf8)
        _ = try await repository.addKeySlot(password: third, label: "third")
        let rotation = try await rotate(repository, also: [third])
        #expect(rotation.added.count == 2 && rotation.removed.count == 2 && rotation.outdated.count == 1)
        #expect(try await Self.open(store, third).keys.generation == 2)
        let new = try await Self.open(store).snapshot(2, Self.blocks)
        let outdated = try await Self.open(store, Self.other)
        #expect(outdated.isOutdated)
        #expect(try await isReadable(first, outdated))
        #expect(await code { _ = try await outdated.snapshot(new) } == .wrongPassword)
        for body in [
            { _ = try await outdated.snapshot(3, Self.blocks) }, { _ = try await outdated.addKeySlot(password: [1], label: "") },
            { try await outdated.removeKeySlot(rotation.added[0], force: true) }, { try await self.rotate(outdated) },
            { _ = try await outdated.repairCopies(dryRun: false) },
            { _ = try await Prune.run(outdated, Prune.Options()) { _, _, _ in } },
        ] as [() async throws -> Void] {
            #expect(await code(body) == .wrongPassword)
        }
        #expect(try await Self.open(store).check().findings.map(\.severity) == [.notice])
        // Out of date as it is, it may go; the last that opens everything may not.
        let owner = try await Self.open(store)
        try await owner.removeKeySlot(rotation.outdated[0])
        try await owner.removeKeySlot(rotation.added[1])
        #expect(await code { try await owner.removeKeySlot(rotation.added[0], force: true) } == .usage)
        #expect(await code { try await rotate(owner, also: [third]) } == .wrongPassword)
    }

    @Test func `prune and copy work across two pairs`() async throws {
        try await rotate(repository)
        let now = try await Self.open(store)
        let second = try await now.snapshot(2, Self.blocks + [[UInt8](repeating: 50, count: 4096)])
        let place = MemoryStore()
        let report = try await Replication(from: now, to: place, dryRun: false) { _ in }.run(nil)
        #expect(report.created && report.snapshots == 2 && report.damaged.isEmpty)
        let copy = try await Self.open(place)
        for name in [first, second] { #expect(try await isReadable(name, copy)) }
        #expect(try await copy.check().findings.isEmpty)
        try await store.delete(first.object)
        store.advance(100)
        var options = Prune.Options()
        options.grace = 0
        for _ in 0..<2 { _ = try await Prune.run(now, options) { _, _, _ in } }
        #expect(try await isReadable(second, now))
        #expect(try await !Self.open(store).check().isDamaged)
    }

    @Test func `a copy made before follows the rotation, and keeps what only it has`() async throws {
        let place = MemoryStore()
        _ = try await Replication(from: repository, to: place, dryRun: false) { _ in }.run(nil)
        try await store.delete(first.object)
        try await rotate(repository)
        let now = try await Self.open(store)
        let second = try await now.snapshot(2, Self.blocks)
        let report = try await Replication(from: now, to: place, dryRun: false) { _ in }.run(nil)
        #expect(report.snapshots == 1 && !report.created)
        let copy = try await Self.open(place)
        #expect(copy.configuration.keyGeneration == 2)
        for name in [first, second] { #expect(try await isReadable(name, copy)) }
        #expect(try await !copy.check().isDamaged)
        #expect(await code { _ = try await openWriter(repository.keys.writer, place) } == .wrongPassword)
    }

    @Test func `what names another key pair than there can be is damage, not memory`() throws {
        let ring = repository.keys
        let id = ObjectID.random(.system)
        var bytes = try ring.newObject(.pack, id).header.bytes
        for byte in [1, 63] as [UInt8] {
            bytes[11] = byte
            let header = try ObjectHeader(parsing: bytes, expecting: .pack, id)
            #expect(throws: FormatError.self) { try ring.openObject(header) }
        }
        bytes[11] = 64
        #expect(throws: FormatError.self) { try ObjectHeader(parsing: bytes, expecting: .pack, id) }
        let note = ObjectHeader(kind: .note, id: id, keying: [UInt8](repeating: 0, count: 32))
        var other = note.bytes
        other[11] = 1
        #expect(throws: FormatError.self) { try ObjectHeader(parsing: other, expecting: .note, id) }
    }

    // MARK: - Beside others

    @Test func `a backup that runs goes on, and the old pair is closed after it`() async throws {
        let made = try await repository.withWriter(cache: nil, journal: nil, width: 1, renewing: nil) { writer in
            let rotation = try await rotate(repository)
            #expect(rotation.generation == 2 && rotation.waitingFor.count == 1 && store.names("v1/pairs/").isEmpty)
            // Who begins now is refused, and leaves nothing behind.
            let late = await code { _ = try await repository.snapshot(5, Self.blocks) }
            #expect(late == .wrongPassword)
            return try await writer.commit(repository.record(2), manifest: try await Extents(repeating: first, in: repository))
                .name
        }
        let now = try await Self.open(store)
        #expect(try await isReadable(made, now))
        #expect(try await now.check().findings.map(\.severity) == [.notice])
        let again = try await rotate(now)
        #expect(again.wasResumed && again.generation == 2 && again.waitingFor.isEmpty && again.added.isEmpty)
        #expect(try await isReadable(made, Self.open(store)))
        #expect(try await Self.open(store).check().findings.isEmpty)
    }

    /// - Parameter silence: seconds for which the backup's host stands still
    @Test(arguments: [(true, 0.0), (false, Intent.life + 60)])
    func `a run that is given up, by force or for dead, commits nothing`(_ force: Bool, _ silence: Double) async throws {
        let before = store.names("v1/snapshots/")
        let result = await code {
            _ = try await repository.withWriter(cache: nil, journal: nil, width: 1, renewing: nil) { writer in
                store.advance(silence)
                let waiting = try await rotate(repository, force: force).waitingFor
                #expect(waiting.isEmpty)
                return try await writer.commit(
                    repository.record(2), manifest: try await Extents(repeating: first, in: repository))
            }
        }
        #expect(result == .busy && store.names("v1/snapshots/") == before)
        #expect(try await isReadable(first, Self.open(store)))
        #expect(try await Self.open(store).check().findings.isEmpty)
    }

    @Test func `two rotations at once, in any order, end as one or as two`() async throws {
        var (wins, losses) = (0, 0)
        for seed in 1...40 {
            let store = store.copy()
            let stage = Stage(store)
            let outcomes = Locked<[Int]>([])
            let passwords = [Self.password, Self.password]
            for (actor, password) in passwords.enumerated() {
                let view = store.another(turns: stage, actor: actor)
                stage.add {
                    await KeySlot.$cost.withValue((n: 1 << 10, r: 1, p: 1)) {
                        do {
                            let repository = try await Repository.open(
                                store: view, password: password, executor: stage.executor, ambient: store.ambient())
                            let rotation = try await KeyRotation.run(repository, [.init(password)], by: nil)
                            outcomes.withLock { $0.append(rotation.generation) }
                        } catch {
                            let isBusy = (error as? BackupError)?.code == .busy
                            if !isBusy { Issue.record("seed \(seed): \(error)") }
                            outcomes.withLock { $0.append(isBusy ? -1 : -2) }
                        }
                    }
                }
            }
            await Stage.alone {
                var random = Seeded(seed)
                // A lease's renewals end on a thread of their own: the stage stands empty for a moment.
                let end = monotonicSeconds() + 60
                while stage.play(&random) < 2, monotonicSeconds() < end { usleep(500) }
            }
            let ended = outcomes.withLock { $0 }
            // Who stood still for longer than a lease lasts gives way; at times both did.
            #expect(ended.count == 2 && !ended.contains(-2), "seed \(seed): \(ended)")
            wins += ended.count { $0 >= 2 }
            losses += ended.count { $0 < 0 }
            store.advance(5000)
            _ = try await rotate(Self.open(store))
            let now = try await Self.open(store)
            #expect(try await isReadable(first, now))
            let findings = try await now.check().findings
            #expect(findings.isEmpty, "seed \(seed): \(findings)")
        }
        // Else they never met.
        #expect(losses > 2 && wins > 10)
    }

    // MARK: - Killed

    @Test(arguments: MemoryStore.Moment.allCases)
    func `a rotation that is killed at any store call loses nothing and is finished by the next`(
        _ moment: MemoryStore.Moment
    ) async throws {
        let full = store.copy()
        let whole = try await Self.open(full)
        full.restart()
        try await rotate(whole)
        let calls = full.calls.count
        #expect(calls > 20)
        for number in 1...calls {
            for dies in [true, false] {
                let store = store.copy()
                let repository = try await Self.open(store)
                store.fail(at: number, moment, dies: dies, with: StoreError(.full, "write", "x"))
                _ = try? await rotate(repository)
                store.restart()
                let between = try await Self.open(store)
                #expect(try await isReadable(first, between), "call \(number)")
                let made = try await between.snapshot(2, [[UInt8](repeating: 77, count: 4096)])
                #expect(try await isReadable(made, Self.open(store)), "call \(number)")
                // Whoever was killed may have held the lease.
                store.advance(200)
                _ = try await Self.open(store).repairCopies(dryRun: false)
                let finished = try await rotate(Self.open(store))
                #expect((2...3).contains(finished.generation) && finished.waitingFor.isEmpty)
                let now = try await Self.open(store)
                for name in [first, made] { #expect(try await isReadable(name, now), "call \(number)") }
                #expect(await code { _ = try await openWriter(repository.keys.writer, store) } == .wrongPassword)
                let report = try await now.check()
                #expect(!report.isDamaged, "call \(number): \(report.findings)")
            }
        }
    }

    // MARK: - Import

    @Test(arguments: [false, true])
    func `exported keys open a repository that lost its own, and its configuration`(_ rotated: Bool) async throws {
        if rotated { try await rotate(repository) }
        let ring = try await Self.open(store).keys
        let export = try KeyExport(ring, password: Self.other, location: "x", by: nil)
        let typed = try RecoveryText.read(RecoveryText.lines(export).joined(separator: "\n"))
        for lost in [["v1/keys/"], ["v1/keys/", "v1/config"], ["v1/config"]] {
            for source in [export, typed] {
                let store = store.copy()
                for prefix in lost { for name in store.names(prefix) { store.remove(name) } }
                let third = Array("third".utf8)
                let (slot, repository) = try await Repository.importKeys(
                    source.open(password: Self.other), store: store, password: third, label: "i", by: nil,
                    executor: TestRepository.executor, ambient: store.ambient()
                ) { ["conditionalCreate": "yes"] }
                #expect(repository.slot == slot)
                let opened = try await Self.open(store, third)
                #expect(try await isReadable(first, opened))
                _ = try await opened.snapshot(2, Self.blocks)
                #expect(try await !opened.check().isDamaged)
            }
        }
        let empty = MemoryStore()
        let foreign = MemoryStore()
        _ = try await Repository.create(
            store: foreign, password: Self.other, label: "", probe: [:], executor: TestRepository.executor,
            ambient: foreign.ambient())
        for (place, expected) in [(empty, BackupError.Code.noRepository), (foreign, .wrongPassword)] {
            let names = place.names
            let found = await code {
                _ = try await Repository.importKeys(
                    ring, store: place, password: [1], label: "", by: nil, executor: TestRepository.executor,
                    ambient: place.ambient()
                ) { [:] }
            }
            #expect(found == expected && place.names == names)
        }
    }

    @Test func `an export from before a rotation opens what is older`() async throws {
        let export = try KeyExport(repository.keys, password: Self.other, location: "x", by: nil)
        try await rotate(repository)
        let new = try await Self.open(store).snapshot(2, Self.blocks)
        let (_, imported) = try await Repository.importKeys(
            export.open(password: Self.other), store: store, password: Self.other, label: "", by: nil,
            executor: TestRepository.executor, ambient: store.ambient()
        ) { [:] }
        #expect(imported.isOutdated)
        #expect(try await isReadable(first, imported))
        #expect(await code { _ = try await imported.snapshot(new) } == .wrongPassword)
    }
}

extension Extents {
    /// The manifest of a snapshot that is there, for another one.
    init(repeating name: SnapshotName, in repository: Repository) async throws {
        self = try await repository.snapshot(name).manifest
    }
}
