import BackupBase
import Foundation
import ObjectStorage
import Testing

@testable import BackupRepository

/// A second place: whole at every moment, complete in the end, and no place for damage.
@Suite(.timeLimit(.minutes(20))) struct ReplicationTests {
    private let source = MemoryStore()
    private let place = MemoryStore()
    private let repository: Repository
    private let names: [SnapshotName]
    private static let blocks: [[UInt8]] = {
        var random = Seeded(4)
        return (0..<8).map { _ in random.bytes(4096) }
    }()

    /// Three snapshots: the second one shares blocks with the first one.
    init() async throws {
        repository = try await Repository.written(on: source, ambient: source.ambient())
        var names: [SnapshotName] = []
        for (sequence, range) in [(1, 0..<3), (2, 1..<5), (3, 6..<8)] as [(UInt64, Range<Int>)] {
            names.append(try await repository.snapshot(sequence, Array(Self.blocks[range])))
        }
        self.names = names
    }

    @discardableResult
    private func copy(
        _ names: [SnapshotName]? = nil, from other: Repository? = nil, to place: (any ObjectStore)? = nil, dryRun: Bool = false
    ) async throws -> Replication.Report {
        try await Replication(from: other ?? repository, to: place ?? self.place, dryRun: dryRun) { _ in }.run(names)
    }

    /// The copy as a repository of its own.
    private func there(_ place: MemoryStore? = nil) -> Repository { repository.seen(on: (place ?? self.place).another()) }

    private func findings(_ place: MemoryStore? = nil) async throws -> [String] {
        try await there(place).check().findings.map { "\($0.severity) \($0.object): \($0.message)" }
    }

    /// Each snapshot that the place lists has its packs, and an index that tells of them.
    private func isWhole(_ place: MemoryStore) async throws -> Bool {
        let copy = there(place)
        let packs = Set(place.names("v1/packs/"))
        let listed = try await copy.listedPacks().packs
        guard listed.allSatisfy({ packs.contains(FinishedPack.name($0)) }) else { return false }
        for name in try await copy.snapshotNames() {
            for pack in try await copy.packs(of: copy.snapshot(name)) {
                guard packs.contains(FinishedPack.name(pack)), listed.contains(pack) else { return false }
            }
        }
        return true
    }

    // MARK: - The whole way

    @Test func `a copy is the same repository, and a second run has nothing to do`() async throws {
        let plan = try await copy(dryRun: true)
        #expect(place.names.isEmpty && plan.created)
        let report = try await copy()
        #expect(report.created && report.snapshots == 3 && report.damaged.isEmpty && report.present == 0)
        #expect(plan.snapshots == 3 && plan.packs == report.packs)
        #expect(place.names("v1/packs/") == source.names("v1/packs/"))
        #expect(place.names("v1/keys/") == source.names("v1/keys/"))
        for name in source.names("v1/packs/") + source.names("v1/snapshots/") + source.names("v1/keys/") {
            #expect(place.bytes(name) == source.bytes(name))
        }
        #expect(try await findings().isEmpty)
        let before = place.names
        let again = try await copy()
        #expect(again.present == 3 && again.packs == 0 && again.snapshots == 0 && !again.created && place.names == before)
    }

    @Test func `only what a chosen snapshot needs goes over, and is told before`() async throws {
        let plan = try await copy([names[0]], dryRun: true)
        let report = try await copy([names[0]])
        #expect(report.snapshots == 1 && plan.packs == report.packs)
        let needed = try await repository.packs(of: repository.snapshot(names[0]))
        #expect(Set(place.names("v1/packs/")) == Set(needed.map { FinishedPack.name($0) }))
        // Its index says nothing of packs that are not there.
        #expect(try await there().listedPacks().packs == needed)
        #expect(try await findings().isEmpty)
        #expect(try await copy([names[1]]).packsPresent > 0)
        #expect(try await findings().isEmpty)
    }

    @Test func `what the copy records about its store is found out there`() async throws {
        let bad = MemoryStore(MemoryStore.Rules(ignoresConditions: true))
        let identity = WriterIdentity(id: String(repeating: "a", count: 32), node: "alpha")
        try await copy(from: repository.seen(identity: identity), to: bad)
        let bytes = try #require(bad.bytes("v1/config.a"))
        let configuration = try UnverifiedConfiguration(parsing: bytes)
        #expect(configuration.isGenuine(repository.keys))
        #expect(configuration.configuration.probe["conditionalReplace"] == "no")
        #expect(configuration.configuration.probe["readBack"] == "yes")
        try await copy()
        let honest = try UnverifiedConfiguration(parsing: try #require(place.bytes("v1/config.b"))).configuration
        #expect(honest.probe["conditionalReplace"] == "yes" && honest.probe["conditionalCreate"] == "yes")
        #expect(place.names("tmp/").isEmpty)
    }

    @Test func `a writer copies all of it without the key that reads`() async throws {
        let writer = repository.seen(keys: repository.keys.writer)
        #expect(await code { try await copy([names[0]], from: writer) } == .writeOnlyKey)
        #expect(place.names.isEmpty)
        let report = try await copy(from: writer)
        #expect(report.snapshots == 3 && place.names("v1/packs/") == source.names("v1/packs/"))
        #expect(try await findings().isEmpty)
        // What it can see of damage it names, and lists no snapshot that may need it.
        source.damage(source.names("v1/packs/")[0]) { $0[$0.count - 20] ^= 1 }
        let other = MemoryStore()
        #expect(await code { try await copy(from: writer, to: other) } == .damaged)
        #expect(other.names("v1/snapshots/").isEmpty)
    }

    // MARK: - Stops

    @Test(arguments: MemoryStore.Moment.allCases, [true, false])
    func `stopped at any call, the copy is whole, and the next run completes it`(
        _ moment: MemoryStore.Moment, _ isSource: Bool
    ) async throws {
        let whole = (source.another(), MemoryStore())
        try await copy(from: repository.seen(on: whole.0), to: whole.1)
        let calls = isSource ? whole.0.calls : whole.1.calls
        // A probe below tmp/ does not concern the copy: every seventh call of it will do.
        // Before a call is mostly what after the last one is.
        let chosen = calls.indices.filter {
            (!calls[$0].name.hasPrefix("tmp/") || $0 % 7 == 0) && (moment == .after || $0 % 3 == 0)
        }
        #expect(chosen.count > (moment == .after ? 20 : 6))
        for number in chosen.map({ $0 + 1 }) {
            let target = MemoryStore()
            let from = source.another()
            let to = target.another()
            (isSource ? from : to).fail(at: number, moment, dies: number % 2 == 0)
            let stopped = await failure { try await copy(from: repository.seen(on: from), to: to) }
            // What only tidies up after a probe may fail, and what only looks ahead into packs.
            let call = calls[number - 1]
            let mayPass = call.name.hasPrefix("tmp/") || isSource && call.name.hasPrefix("v1/packs/")
            #expect(stopped is MemoryStore.Stopped || stopped == nil && mayPass, "\(call)")
            if target.bytes("v1/config.a") != nil || target.bytes("v1/config.b") != nil {
                #expect(try await isWhole(target), "call \(number)")
            } else {
                #expect(target.names("v1/snapshots/").isEmpty)
            }
            let report = try await copy(to: target)
            #expect(report.snapshots + report.present == 3 && report.damaged.isEmpty, "call \(number)")
            #expect(try await isWhole(target))
            let left = try await findings(target)
            #expect(left.isEmpty, "call \(number): \(left)")
            guard left.isEmpty else { break }
        }
    }

    @Test func `a backup into a copy that is not complete stores what is missing there`() async throws {
        // Borg 9748: trust in an index that lists what is not there.
        try await copy([names[2]])
        let backup = there()
        let name = try await backup.snapshot(4, Array(Self.blocks[0..<4]) + [Self.blocks[7]])
        #expect(try await isWhole(place))
        let readable = try await there().check()
        #expect(!readable.isDamaged, "\(readable.findings)")
        #expect(readable.snapshots == 2)
        let needed = try await backup.packs(of: backup.snapshot(name))
        // The block that was there is used, the others have new packs.
        #expect(needed.contains { source.bytes(FinishedPack.name($0)) != nil })
        #expect(needed.contains { source.bytes(FinishedPack.name($0)) == nil })
        // The rest comes afterwards.
        let report = try await copy()
        #expect(report.snapshots == 2 && report.present == 1)
        #expect(try await !there().check().isDamaged)
    }

    // MARK: - Damage at the source

    private static let damages: [(String, @Sendable (inout [UInt8]) -> Void)] = [
        ("flipped frame", { $0[ObjectHeader.size + FrameHeader.size + 100] ^= 1 }),
        ("flipped frame header", { $0[ObjectHeader.size + 4] ^= 1 }),
        ("flipped trailer", { $0[$0.count - PackFooter.size - 5] ^= 1 }),
        ("flipped footer", { $0[$0.count - 1] ^= 1 }),
        ("flipped header", { $0[40] ^= 1 }),
        ("truncated", { $0.removeLast(100) }),
        ("emptied", { $0 = [] }),
    ]

    /// A pack of blocks that only the third snapshot needs.
    private func victim() async throws -> ObjectID {
        let others = try await repository.packs(of: repository.snapshot(names[0]))
            .union(repository.packs(of: repository.snapshot(names[1])))
        let own = try await repository.packs(of: repository.snapshot(names[2])).subtracting(others)
        for id in own.sorted() where try await repository.reader.pack(id).trailer.cohort == .mutable { return id }
        throw BackupError(.failed, "no such pack")
    }

    private func expectRefused(_ pack: ObjectID, _ what: String) async throws {
        let target = MemoryStore()
        let report = try await copy(from: repository.seen(), to: target)
        #expect(report.snapshots == 2 && report.damaged.count == 1, "\(what): \(report.damaged)")
        #expect(report.damaged.first?.contains("\(names[2].id)".prefix(8)) == true, "\(what)")
        #expect(report.damaged.first?.contains(FinishedPack.name(pack)) == true, "\(what): \(report.damaged)")
        #expect(target.bytes(FinishedPack.name(pack)) == nil && target.bytes(names[2].object) == nil, "\(what)")
        #expect(target.names("v1/snapshots/") == [names[0].object, names[1].object])
        #expect(try await !there(target).check().isDamaged, "\(what)")
    }

    @Test func `a damaged pack is named and not copied, and other snapshots are`() async throws {
        let pack = try await victim()
        let name = FinishedPack.name(pack)
        let good = try #require(source.bytes(name))
        for (what, damage) in Self.damages {
            source.set(name, good)
            source.damage(name, damage)
            try await expectRefused(pack, what)
        }
        source.remove(name)
        try await expectRefused(pack, "missing")
        // Another whole pack under its name.
        let other = try #require(source.names("v1/packs/").first)
        source.set(name, try #require(source.bytes(other)))
        try await expectRefused(pack, "swapped")
        source.set(name, [UInt8](repeating: 0, count: PackLimits.pack + 1))
        try await expectRefused(pack, "too large")
    }

    @Test func `a damaged snapshot is named and not copied`() async throws {
        let good = try #require(source.bytes(names[1].object))
        for at in [3, 20, 40, 70, good.count - 1] {
            source.set(names[1].object, good)
            source.damage(names[1].object) { $0[at] ^= 1 }
            let target = MemoryStore()
            let report = try await copy(from: repository.seen(), to: target)
            #expect(report.snapshots == 2 && report.damaged.count == 1 && report.damaged[0].contains(names[1].object))
            #expect(target.names("v1/snapshots/") == [names[0].object, names[2].object])
            #expect(try await !there(target).check().isDamaged)
        }
    }

    // MARK: - What is at the place already

    @Test func `another repository's place is refused and left as it is`() async throws {
        let other = try await Repository.written(on: place, ambient: place.ambient())
        try await other.snapshot(1, [[1, 2, 3]])
        let before = place.copy()
        #expect(await code { try await copy() } == .repositoryExists)
        #expect(await code { try await copy(dryRun: true) } == .repositoryExists)
        #expect(place.names == before.names && place.names.allSatisfy { place.bytes($0) == before.bytes($0) })
    }

    @Test func `a damaged copy of the configuration leaves the other one, and two are refused`() async throws {
        try await copy([names[0]])
        for (bad, good) in [("v1/config.a", "v1/config.b"), ("v1/config.b", "v1/config.a")] {
            let bytes = try #require(place.bytes(good))
            place.damage(bad) { $0 = Array("garbage".utf8) }
            try await copy([names[1]])
            place.set(bad, bytes)
        }
        for name in Configuration.names { place.damage(name) { $0[10] ^= 1 } }
        let before = place.bytes("v1/config.a")
        #expect(await code { try await copy() } == .damaged)
        #expect(place.bytes("v1/config.a") == before)
    }

    @Test func `what has a pack's name and another size is not replaced and is named`() async throws {
        let name = FinishedPack.name(try await victim())
        place.set(name, [1, 2, 3])
        let report = try await copy()
        #expect(report.damaged.count == 1 && report.damaged[0].contains(name) && report.snapshots == 2)
        #expect(place.bytes(name) == [1, 2, 3] && place.bytes(names[2].object) == nil)
    }

    @Test func `what has a pack's name and its size is found by a check of the copy`() async throws {
        let name = FinishedPack.name(try await victim())
        var random = Seeded(9)
        place.set(name, random.bytes(try #require(source.bytes(name)).count))
        _ = try await copy()
        let report = try await there().check()
        #expect(report.findings.contains { $0.severity == .damage && $0.object == name })
    }
}
