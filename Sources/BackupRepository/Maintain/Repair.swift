import BackupBase
import ObjectStorage

/// Mends what can be mended (docs/repair.md). It writes new objects only, but
/// for second copies and index objects that cannot be read: a damaged snapshot
/// stays as it is, beside one that has all that is readable.
public final class Repair {
    public struct Options: Sendable {
        public var dryRun = false
        /// Read all frames, as 'check --read-data' does.
        public var readData = false

        public init() {}
    }

    private let repository: Repository
    private let copy: Repository?
    private let options: Options
    private let progress: (_ done: Int, _ total: Int) -> Void
    private var report = RepairReport()
    private var survey: PackSurvey
    /// Where blocks of damaged packs are now.
    private var moved: [Location: Location] = [:]

    /// - Parameter copy: the same repository at a second place, from which what is lost here is fetched
    public static func run(
        _ repository: Repository, from copy: Repository?, _ options: Options,
        progress: @escaping (_ done: Int, _ total: Int) -> Void
    ) async throws -> RepairReport {
        guard repository.keys.canRead else { throw KeyRing.writeOnly }
        if !options.dryRun { try repository.requireCurrent() }
        guard copy == nil || copy?.id == repository.id else {
            throw BackupError(
                .usage, "the second copy is another repository", hint: "Give the place that 'bgbackup copy' copied to.")
        }
        let survey = try await PackSurvey(repository, copy: copy, reading: options.readData, progress: progress)
        let repair = Repair(repository, copy, options, survey, progress)
        try await repair.run()
        return repair.report
    }

    private init(
        _ repository: Repository, _ copy: Repository?, _ options: Options, _ survey: PackSurvey,
        _ progress: @escaping (_ done: Int, _ total: Int) -> Void
    ) {
        (self.repository, self.copy, self.options, self.survey, self.progress) = (repository, copy, options, survey, progress)
    }

    private func run() async throws {
        report.copies = try await repository.repairCopies(dryRun: options.dryRun)
        var plans: [RepairedSnapshot] = []
        for name in try await repository.snapshotNames() {
            WorkPulse.beat()
            guard let (snapshot, isOriginal) = try await read(name) else { continue }
            try await noteMissing(snapshot)
            let plan = try await RepairedSnapshot(snapshot, name, repository, survey)
            if plan.isDamaged || !isOriginal { plans.append(plan) }
        }
        try await dropMended(&plans)
        let bad = survey.bad.filter { !$0.value.isMissing || known.contains($0.key) }
        if options.dryRun {
            for plan in plans { report.snapshots.append(plan.report) }
        } else {
            try await putBack()
            try await save(plans, bad)
        }
        notePacks(bad)
        let unlisted = Set(bad.filter { !$0.value.canBePutBack }.keys)
        report.index = try await repository.reindex(dryRun: options.dryRun, except: unlisted)
    }

    // MARK: - Snapshots

    /// The snapshot, from the second copy where it cannot be read here.
    private func read(_ name: SnapshotName) async throws -> (Snapshot, isOriginal: Bool)? {
        do {
            return (try await repository.snapshot(name), true)
        } catch let error as BackupError where error.code == .noSnapshot {
            return nil
        } catch let error as BackupError where error.code == .damaged {
            if let copy, let found = try? await copy.snapshot(name) { return (found, false) }
            report.unreadable.append((name, error.cause ?? error.message))
            return nil
        }
    }

    /// Packs that the manifest is in and that nothing else tells of.
    private func noteMissing(_ snapshot: Snapshot) async throws {
        for pack in snapshot.manifest.packs { try await note(pack) }
        for location in snapshot.manifest.locations {
            guard let bytes = try? await survey.bytes(location) else { continue }
            var contents: [Content] = []
            try? ManifestChunk.decode(bytes) { if case .file(_, let content) = $0.kind { contents.append(content) } }
            for content in contents {
                switch content.layout {
                case .inline(let part): for pack in part.extents.packs { try await note(pack) }
                case .indirect(let perPart, let parts):
                    for pack in parts.packs { try await note(pack) }
                    for (number, place) in parts.locations.enumerated() {
                        guard let bytes = try? await survey.bytes(place),
                            let part = try? content.part(number, perPart: perPart, bytes)
                        else { continue }
                        for pack in part.extents.packs { try await note(pack) }
                    }
                }
            }
        }
    }

    private func note(_ pack: ObjectID) async throws {
        guard known.insert(pack).inserted, !survey.isBad(pack) else { return }
        if try await repository.store.info(FinishedPack.name(pack)) == nil { try await survey.note(missing: pack) }
    }

    /// Packs that snapshots name.
    private var known: Set<ObjectID> = []

    /// Those for which an earlier run made as good a one.
    private func dropMended(_ plans: inout [RepairedSnapshot]) async throws {
        guard !plans.isEmpty || !report.unreadable.isEmpty else { return }
        let damaged = Set(plans.map(\.name))
        var existing: [String: Snapshot] = [:]
        for name in try await repository.snapshotNames() where !damaged.contains(name) {
            guard let found = try? await repository.snapshot(name), found.record.tags.contains(RepairedSnapshot.tag),
                let parent = found.record.parent
            else { continue }
            if existing[parent]?.record.complete != true { existing[parent] = found }
        }
        plans.removeAll { plan in
            guard let made = existing["\(plan.name.id)"], made.record.complete || plan.report.isLossy else { return false }
            var done = plan.report
            done.existing = made.name
            report.snapshots.append(done)
            return true
        }
        for (name, _) in report.unreadable {
            guard let made = existing["\(name.id)"] else { continue }
            report.unreadable.removeAll { $0.name == name }
            report.snapshots.append(RepairReport.Snapshot(damaged: name, node: made.record.node, existing: made.name))
        }
    }

    // MARK: - Packs

    /// Packs that are gone here and whole at the second copy: the same object again mends all that needs it.
    private func putBack() async throws {
        guard let copy else { return }
        for id in survey.bad.keys.sorted() where known.contains(id) && survey.bad[id]?.canBePutBack == true {
            guard let pack = try? await PackCopy.read(id, from: copy) else { continue }
            do { try await repository.store.put(FinishedPack.name(id), pack.buffer, ifAbsent: true) } catch let error
                as StoreError
                where error.kind == .exists
            {}
        }
    }

    /// Stores what is readable in other packs, and the snapshots that need it there.
    private func save(_ plans: [RepairedSnapshot], _ bad: [ObjectID: PackSurvey.BadPack]) async throws {
        let doomed = bad.filter { !$0.value.canBePutBack }.keys.sorted()
        guard !doomed.isEmpty || !plans.isEmpty else { return }
        try await entomb(doomed)
        try await repository.withWriter(cache: nil, width: 2) { writer in
            for id in doomed where known.contains(id) { try await save(id, writer) }
            try await writer.settleTickets()
            for (location, ticket) in tickets { moved[location] = writer.location(ofTicket: ticket) }
            for plan in plans {
                let (name, report) = try await plan.commit(repository, writer, survey) { self.moved[$0] }
                var done = report
                done.repaired = name
                self.report.snapshots.append(done)
            }
        }
    }

    /// From here on no backup relies on these packs: what they hold is stored again where it is met.
    private func entomb(_ packs: [ObjectID]) async throws {
        let there: [Note<Tombstone>] = try await repository.notes(Tombstone.topic)
        let named = Set(there.flatMap(\.body.packs))
        let new = packs.map { "\($0)" }.filter { !named.contains($0) }
        if !new.isEmpty { _ = try await repository.put(note: Tombstone(packs: new), Tombstone.topic) }
    }

    private var tickets: [Location: Int] = [:]

    private func save(_ id: ObjectID, _ writer: RepositoryWriter) async throws {
        guard let bad = survey.bad[id], let pack = bad.pack else { return }
        for (ordinal, source) in bad.sources.enumerated() {
            if case .elsewhere(let other)? = source { moved[Location(pack: id, ordinal: ordinal)] = other }
        }
        for number in pack.trailer.frames.indices {
            for (ordinal, bytes) in try await survey.blocksToSave(id, frame: number) {
                WorkPulse.beat()
                let location = Location(pack: id, ordinal: ordinal)
                switch try await writer.add(block: bytes, repository.keys.blockHasher, cohort: pack.trailer.cohort) {
                case .stored(let place): moved[location] = place
                case .new(let ticket): tickets[location] = ticket
                case .zero: break
                }
            }
        }
    }

    private func notePacks(_ bad: [ObjectID: PackSurvey.BadPack]) {
        for (id, bad) in bad.sorted(by: { $0.key < $1.key }) {
            var line = RepairReport.Pack(name: FinishedPack.name(id), problem: bad.problem)
            line.blocksLost = bad.sources.count { $0 == nil }
            line.blocksSaved = bad.sources.count - line.blocksLost
            line.isRestored = bad.canBePutBack
            report.packs.append(line)
        }
    }
}

extension Extents {
    /// Of the blocks that are stored somewhere, in order.
    var locations: [Location] {
        var found: [Location] = []
        forEachBlock { if let location = $0 { found.append(location) } }
        return found
    }
}

extension Content {
    /// A part of an indirect layout from its block.
    func part(_ number: Int, perPart: Int, _ bytes: [UInt8]) throws -> Part {
        let first = number * perPart
        let start = Int64(first) * Int64(blockSize)
        return try Part(
            decoding: bytes, size: min(Int64(perPart) * Int64(blockSize), size - start), blocks: min(perPart, blockCount - first))
    }
}

extension RepositoryWriter {
    /// Finds or stores one block.
    func add(block bytes: [UInt8], _ hasher: BlockHasher, cohort: Cohort) async throws -> Place {
        let buffer = buffers.take()
        buffer.memory.copyBytes(from: bytes)
        buffer.count = bytes.count
        let block = HashedRegion.Block(range: 0..<bytes.count, id: hasher.id(of: buffer.bytes))
        return try await add(HashedRegion(buffer: buffer, blocks: [block]), cohort: cohort)[0]
    }
}

extension Repository {
    /// The same repository at the place that it was copied to. Throws `.noRepository`, and `.usage` where it is another one.
    public func secondCopy(at place: any ObjectStore) async throws -> Repository {
        let found = try await Self.configurations(place)
        guard let ours = try await Self.counting(found, for: keys, place), ours.isGenuine(keys) else {
            throw BackupError(
                .usage, "at \(place.location) is another repository", hint: "Give the place that 'bgbackup copy' copied to.")
        }
        return Repository(
            store: place, keys: keys, configuration: ours.configuration, executor: executor, ambient: ambient, identity: identity)
    }
}
