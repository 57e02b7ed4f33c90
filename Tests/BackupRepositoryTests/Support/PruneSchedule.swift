import BackupBase
import Foundation
import ObjectStorage
import TestSupport

@testable import BackupRepository

/// One schedule of the prune simulator: nodes that back up, and hosts that
/// forget, prune, check and restore, all at once, on one store; processes die at
/// any call, their clocks are hours off, answers get lost.
struct PruneSchedule: Sendable {
    /// A guard of the protocol that is taken away, to see that the simulator finds it missing.
    enum Sabotage: String, Sendable, CaseIterable {
        /// Prunes see nobody at work.
        case blindToIntents
        /// Prunes look at the snapshots once.
        case marksOnce
        /// Writers see no tombstones.
        case blindToTombstones
        /// Writers believe that nobody gave them up.
        case confirmsNothing
    }

    struct Outcome: Sendable {
        var problems: [String] = []
        var steps = 0
        var commits = 0
        var freed = 0
        var revived = 0
        var busy = 0
        var held = 0
        var givenUp = 0
        var copied = 0
        var repacked = 0
        var repaired = 0
    }

    let seed: Int
    var sabotage: Sabotage?
    var trace = false
    /// In one schedule of three prunes meet prunes: they take everything at once, and repack what they can.
    private var isAboutRepacks: Bool { seed % 3 == 0 }

    private final class World: Sendable {
        let schedule: PruneSchedule
        let store: MemoryStore
        let stage: Stage
        let outcome = Locked(Outcome())
        let directory: String
        let offsets: [Double]

        init(_ schedule: PruneSchedule, _ random: inout Seeded, directory: String) {
            self.schedule = schedule
            let pieces = MemoryStore.Pieces(
                scratch: random.number(1...3), other: random.number(4...20), salt: random.number(0...1) == 0 ? random.next() : nil
            )
            store = MemoryStore(
                MemoryStore.Rules(ignoresConditions: random.number(0...1) == 0, pieces: random.number(0...2) > 0 ? pieces : nil))
            stage = Stage(store)
            self.directory = directory
            offsets = (0..<16).map { _ in Double(random.number(-36_000...36_000)) }
            SimulatedRepository.fill(store)
            // Made here, on a thread where no other stage plays.
            precondition(SimulatedRepository.origin.ended == 1)
        }

        func wrong(_ text: String) { outcome.withLock { $0.problems.append(text) } }
    }

    private static let directory: String = {
        let base = FileManager.default.isWritableFile(atPath: "/dev/shm") ? "/dev/shm" : NSTemporaryDirectory()
        let path = "\(base)/bgbackup-simulation-\(getpid())"
        try? FileManager.default.createDirectory(atPath: path, withIntermediateDirectories: true)
        return path
    }()

    static func removeDirectory() { try? FileManager.default.removeItem(atPath: directory) }

    func run() -> Outcome {
        var random = Seeded(seed)
        let directory = "\(Self.directory)/\(seed)-\(sabotage?.rawValue ?? "")"
        defer { try? FileManager.default.removeItem(atPath: directory) }
        let world = World(self, &random, directory: directory)
        var agents = 0
        func add(_ body: @escaping @Sendable (Int, Seeded) async -> Void) {
            let actor = agents
            let seeded = Seeded(seed * 1000 + actor)
            world.stage.add { await body(actor, seeded) }
            agents += 1
        }
        for _ in 0..<random.number(2...3) { add { await node($0, $1, world) } }
        if random.number(0...2) == 0 { add { await copier($0, $1, world) } }
        let writers = agents
        for _ in 0..<2 { add { await keeper($0, $1, world) } }
        add { await forgetter($0, $1, world) }
        if random.number(0...2) == 0 { add { await reader($0, $1, world) } }
        // A writer mostly: it relies for long on what it saw once.
        // Who is given up has to be slow.
        if sabotage == .confirmsNothing {
            world.stage.slow(random.number(0...writers - 1))
        } else if random.number(0...2) > 0 {
            world.stage.slow(random.number(0...3) > 0 && !isAboutRepacks ? random.number(0...writers - 1) : writers)
        }
        let ended = world.stage.play(&random, trace: trace)
        if ended != agents { world.wrong("\(agents - ended) of \(agents) actors wait for what never comes") }
        settle(world, &random)
        world.outcome.withLock { $0.steps = world.stage.steps }
        return world.outcome.withLock { $0 }
    }

    // MARK: - Actors

    /// One process: its own view of the store, its own clock; perhaps it dies, or an answer gets lost.
    private func process(
        _ actor: Int, _ number: Int, _ random: inout Seeded, _ world: World, _ distortion: MemoryStore.Distortion? = nil,
        isReader: Bool = false
    ) -> Repository {
        var rules = world.store.rules
        rules.distortion = distortion ?? MemoryStore.Distortion()
        let view = world.store.another(rules, turns: world.stage, actor: actor)
        let moment = MemoryStore.Moment.allCases.randomElement(using: &random)!
        switch random.number(0...6) {
        case 2 where isReader: break
        case 0, 1: view.fail(at: random.number(1...60), moment, dies: true)
        case 2:
            view.fail(at: random.number(1...60), moment, with: StoreError(.failed, "do", "it", "the answer was lost"))
        default: break
        }
        let ambient = world.store.ambient(offset: world.offsets[actor], seed: seed * 100_000 + actor * 1000 + number + 1)
        return SimulatedRepository.open(view, world.stage.executor, ambient)
    }

    private var writerDistortion: MemoryStore.Distortion? {
        switch sabotage {
        case .blindToTombstones: MemoryStore.Distortion(hidden: "v1/notes/tombstone/")
        case .confirmsNothing: MemoryStore.Distortion(eternal: Intent.prefix)
        default: nil
        }
    }

    private func node(_ actor: Int, _ seeded: Seeded, _ world: World) async {
        let random = Locked(seeded)
        let memory = Locked(SimulatedRepository.Memory())
        for number in 0..<random.withLock({ $0.number(1...3) }) {
            await world.stage.rest(actor)
            let repository = random.withLock { process(actor, number, &$0, world, writerDistortion) }
            do {
                // Some watch: run after run on the word of one look at the packs.
                let runs = random.withLock { $0.number(0...2) > 0 ? 1 : $0.number(2...3) }
                let session = runs > 1 ? WriterSession() : nil
                for run in 1...runs {
                    if run > 1 { await world.stage.rest(actor) }
                    try await SimulatedRepository.backup(
                        repository, memory, directory: "\(world.directory)/node-\(actor)", random, session: session)
                    world.outcome.withLock { $0.commits += 1 }
                }
                await session?.end()
            } catch let error as BackupError where error.code == .busy {
                world.outcome.withLock { $0.busy += 1 }
            } catch is MemoryStore.Stopped {
            } catch is StoreError {
            } catch let error as BackupError where error.message.contains("the store did not answer afterwards") {
                // It says which snapshot it is that may be there.
            } catch {
                world.wrong("a backup failed: \(error)")
            }
        }
    }

    /// Copies snapshots of another place, again and again the same ones: what was forgotten and is about to go comes back.
    private func copier(_ actor: Int, _ seeded: Seeded, _ world: World) async {
        var random = seeded
        let origin = SimulatedRepository.origin.store
        for number in 0..<random.number(2...4) {
            await world.stage.rest(actor)
            let target = process(actor, number, &random, world, writerDistortion)
            let source = SimulatedRepository.open(origin, world.stage.executor, target.ambient)
            do {
                let names = try await source.snapshotNames().filter { _ in random.number(0...1) == 0 }
                let report = try await Replication(from: source, to: target.store, dryRun: false) { _ in }.run(
                    names, renewing: nil)
                world.outcome.withLock { $0.copied += report.snapshots }
            } catch let error as BackupError where error.code == .busy {
                world.outcome.withLock { $0.busy += 1 }
            } catch is MemoryStore.Stopped {
            } catch is StoreError {
            } catch {
                world.wrong("a copy failed: \(error)")
            }
        }
    }

    private func keeper(_ actor: Int, _ seeded: Seeded, _ world: World) async {
        var random = seeded
        let distortion: MemoryStore.Distortion? =
            switch sabotage {
            case .blindToIntents: MemoryStore.Distortion(hidden: Intent.prefix)
            case .marksOnce: MemoryStore.Distortion(frozen: SnapshotName.prefix)
            default: nil
            }
        for number in 0..<random.number(2...(isAboutRepacks ? 5 : 3)) {
            await world.stage.rest(actor)
            let repository = process(actor, number, &random, world, distortion)
            var options = Prune.Options()
            options.grace = [0, 0, 30, 1200].randomElement(using: &random)!
            options.sparesYoung = random.number(0...2) == 0 && !isAboutRepacks
            options.maxUnused = random.number(0...3) == 0 && !isAboutRepacks ? 1 : 0
            options.leastUnused = 0
            do {
                let plan = try await Prune.run(repository, options, renewing: nil, progress: { _, _, _ in }, confirm: {})
                world.outcome.withLock {
                    $0.freed += plan.free.packs
                    $0.revived += plan.revived.packs
                    $0.held += plan.held.packs
                    $0.givenUp += plan.givenUp.count
                    $0.repacked += plan.repacked.packs
                }
            } catch let error as BackupError where error.code == .busy {
                world.outcome.withLock { $0.busy += 1 }
            } catch let error as BackupError where sabotage == .marksOnce && error.code == .damaged {
                // It noticed that its two lists say the same; what it takes away otherwise is the point.
            } catch is MemoryStore.Stopped {
            } catch is StoreError {
            } catch {
                world.wrong("a prune failed: \(error)")
            }
        }
    }

    private func forgetter(_ actor: Int, _ seeded: Seeded, _ world: World) async {
        var random = seeded
        for number in 0..<random.number(2...(isAboutRepacks ? 7 : 4)) {
            await world.stage.rest(actor)
            let repository = process(actor, number, &random, world, nil)
            guard let names = try? await repository.snapshotNames() else { continue }
            // Later ones go on using a part of what the oldest one brought.
            guard let name = isAboutRepacks ? names.first : names.randomElement(using: &random) else { continue }
            try? await repository.store.delete(name.object)
        }
    }

    private func reader(_ actor: Int, _ seeded: Seeded, _ world: World) async {
        var random = seeded
        for number in 0..<random.number(1...2) {
            await world.stage.rest(actor)
            let repository = process(actor, number, &random, world, isReader: true)
            do {
                // Only here: what a guard that is missing costs the schedules tell without it.
                if sabotage == nil, (seed + number) % 3 == 0 {
                    try await repair(repository, world)
                } else if random.number(0...1) == 0 {
                    let report = try await repository.check(readShare: 0)
                    if report.isDamaged { world.wrong("a check finds damage: \(Self.damages(report))") }
                } else if let name = try await repository.snapshotNames().randomElement(using: &random) {
                    do { try await SimulatedRepository.restore(name, from: repository) } catch let error as BackupError
                        where world.store.names.contains(name.object)
                    {
                        world.wrong("snapshot \(name.id) does not restore: \(error)")
                    }
                }
            } catch is MemoryStore.Stopped {
            } catch is StoreError {
            } catch let error as BackupError where error.code == .damaged || error.code == .noSnapshot {
                // Of a snapshot that was forgotten meanwhile.
            } catch {
                world.wrong("a reader failed: \(error)")
            }
        }
    }

    /// Nothing is damaged, so there is nothing to repair, whatever goes meanwhile.
    private func repair(_ repository: Repository, _ world: World) async throws {
        var options = Repair.Options()
        options.dryRun = seed % 2 == 0
        do {
            let report = try await Repair.run(repository, from: nil, options, renewing: nil) { _, _ in }
            let listed = Set(world.store.names)
            let lost = (report.snapshots.map(\.damaged) + report.unreadable.map(\.name)).filter { listed.contains($0.object) }
            if !lost.isEmpty { world.wrong("a repair finds damage: \(lost), \(report.packs)") }
            if report.packs.contains(where: { listed.contains($0.name) }) { world.wrong("a repair blames \(report.packs)") }
            world.outcome.withLock { $0.repaired += 1 }
        } catch let error as BackupError where error.code == .busy {
            world.outcome.withLock { $0.busy += 1 }
        }
    }

    private static func damages(_ report: CheckReport) -> String {
        report.findings.filter { $0.severity == .damage }.map { "\($0.object): \($0.message)" }.joined(separator: "; ")
    }

    // MARK: - At the end

    /// Everybody is gone. What is listed restores, a check finds nothing, and prunes leave nothing that nobody needs.
    private func settle(_ world: World, _ random: inout Seeded) {
        let store = world.store
        store.advance(7200)
        let repository = SimulatedRepository.open(store, world.stage.executor, store.ambient(seed: seed * 100_000 + 99_999))
        world.stage.add {
            do {
                try await verify(repository, "before the last prunes", world)
                var options = Prune.Options()
                options.grace = 0
                options.maxUnused = seed % 2 == 0 ? 0 : 1
                for _ in 0..<6 {
                    _ = try await Prune.run(repository, options, renewing: nil, progress: { _, _, _ in }, confirm: {})
                    store.advance(60)
                }
                try await verify(repository, "after the last prunes", world)
                // The data was read just now.
                let report = try await repository.seen(on: repository.store).check(readShare: 0)
                if report.isDamaged { world.wrong("a check finds damage: \(Self.damages(report))") }
                let left = try await unneeded(repository, store)
                if !left.isEmpty { world.wrong("left, and nobody needs it: \(left.joined(separator: ", "))") }
            } catch {
                world.wrong("at the end: \(error)")
            }
        }
        _ = world.stage.play(&random, trace: trace)
    }

    /// Packs, notes and intents.
    private func unneeded(_ repository: Repository, _ store: MemoryStore) async throws -> [String] {
        let (packs, successions) = (try await repository.storedPacks(), try await Successions(repository))
        var needed: Set<String> = []
        for name in try await repository.snapshotNames() {
            for pack in try await repository.packs(of: repository.snapshot(name)) {
                needed.insert(FinishedPack.name(pack))
                // Also where the pack is there still, because a snapshot needs what its successor has not.
                needed.formUnion(successions.objects(of: pack, isStored: { $0 != pack && packs[$0] != nil }))
            }
        }
        return (packs.keys.map { FinishedPack.name($0) } + store.names("v1/notes/") + store.names(Intent.prefix))
            .filter { !needed.contains($0) }.sorted()
    }

    private func verify(_ repository: Repository, _ when: String, _ world: World) async throws {
        // Nothing that was read before counts.
        let repository = repository.seen(on: repository.store)
        for name in try await repository.snapshotNames() {
            do { try await SimulatedRepository.restore(name, from: repository) } catch {
                world.wrong("\(when) snapshot \(name.id) does not restore: \(error)")
            }
        }
    }
}
