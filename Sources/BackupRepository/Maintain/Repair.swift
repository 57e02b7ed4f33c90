import BackupBase
import ObjectStorage

/// Mends what can be mended (docs/repair.md). It writes new objects only, but
/// for second copies and index objects that cannot be read: a damaged snapshot
/// stays as it is, beside one that has all that is readable.
///
/// It is a writer (docs/prune.md): its intent is there before it looks at
/// anything, so that no prune takes away what it relies on.
public final class Repair {
    public struct Options: Sendable {
        public var dryRun = false
        /// Read all frames, as 'check --read-data' does.
        public var readData = false
        /// Directory for the block index, or nil to keep it in memory.
        public var cacheDirectory: String?

        public init() {}
    }

    private let repository: Repository
    private let copy: Repository?
    private let options: Options
    private let progress: (_ done: Int, _ total: Int) -> Void
    private var report = RepairReport()
    /// What repairs made, by the id of the damaged snapshot; nil before anybody asked.
    private var earlier: [String: [Snapshot]]?

    /// - Parameter copy: the same repository at a second place, from which what is lost here is fetched
    /// - Throws: what a store that does not answer throws, here or at the second place: only what is definite counts as
    ///   lost. Run again, it goes on
    public static func run(
        _ repository: Repository, from copy: Repository?, _ options: Options,
        progress: @escaping (_ done: Int, _ total: Int) -> Void
    ) async throws -> RepairReport {
        try await run(repository, from: copy, options, renewing: Intent.renewal, progress: progress)
    }

    /// - Parameter pause: seconds between renewals of the run's intent; nil for none
    static func run(
        _ repository: Repository, from copy: Repository?, _ options: Options, renewing pause: Double?,
        progress: @escaping (_ done: Int, _ total: Int) -> Void
    ) async throws -> RepairReport {
        guard repository.keys.canRead else { throw KeyRing.writeOnly }
        // Also where nothing is written: to outdated keys what is newer looks damaged.
        try repository.requireCurrent()
        guard copy == nil || copy?.id == repository.id else {
            throw BackupError(
                .usage, "the second copy is another repository", hint: "Give the place that 'bgbackup copy' copied to.")
        }
        let repair = Repair(repository, copy, options, progress)
        try await repair.run(renewing: pause)
        return repair.report
    }

    private init(
        _ repository: Repository, _ copy: Repository?, _ options: Options,
        _ progress: @escaping (_ done: Int, _ total: Int) -> Void
    ) {
        (self.repository, self.copy, self.options, self.progress) = (repository, copy, options, progress)
    }

    private func run(renewing pause: Double?) async throws {
        (report.copies, report.unmended) = try await repository.repairCopies(dryRun: options.dryRun)
        // First: an index object that cannot be read keeps every writer from beginning, this one too.
        report.index = try await repository.reindex(dryRun: options.dryRun)
        guard !options.dryRun else { return try await work(nil) }
        try await repository.withWriter(cache: options.cacheDirectory, journal: nil, width: 2, renewing: pause) {
            try await work($0)
        }
    }

    private func work(_ writer: RepositoryWriter?) async throws {
        let survey = try await PackSurvey(repository, copy: copy, reading: options.readData, progress: progress)
        // What a rotation brought meanwhile is not damaged.
        if !survey.bad.isEmpty { try await repository.requireUnrotated() }
        let mover = writer.map { BlockMover($0, survey) }
        if writer != nil { try await mark(survey) }
        var needed: Set<ObjectID> = []
        for name in try await repository.snapshotNames() {
            try Task.checkCancellation()
            guard let (snapshot, isOriginal) = try await read(name) else { continue }
            let plan = try await RepairedSnapshot(snapshot, repository, survey)
            try await mover?.putBack(plan.packs, from: copy)
            needed.formUnion(plan.packs.filter { survey.isBad($0) })
            if plan.isDamaged || !isOriginal { try await mend(plan, mover) }
        }
        if !report.unreadable.isEmpty { try await repository.requireUnrotated() }
        try await noteEarlierOfUnreadable(survey)
        notePacks(survey, needed, mover)
        if mover?.restored.isEmpty == false {
            // What lists them may be gone as they were.
            let more = try await repository.reindex(dryRun: false)
            report.index.packs += more.packs
            report.index.written += more.written
        }
    }

    // MARK: - Snapshots

    /// The snapshot, from the second copy where it cannot be read here.
    private func read(_ name: SnapshotName) async throws -> (Snapshot, isOriginal: Bool)? {
        WorkPulse.beat()
        let problem: String
        var isRefused = false
        do {
            let bytes = try await repository.store.get(name.object, .all, limit: Snapshot.bodyLimit).array
            return (try await repository.verify(name, bytes), true)
        } catch let error as StoreError where error.kind == .notFound {
            guard try await !isThere(name) else { throw Repository.contradiction(name.object) }
            // Forgotten meanwhile.
            return nil
        } catch let error as StoreError where error.kind == .tooLarge {
            problem = "it is larger than a snapshot may be"
        } catch let error as FormatError {
            problem = "\(error)"
        } catch let error as BackupError where error.code == .damaged {
            // The closing's word, or that it has none any more: the snapshot itself may be whole.
            (problem, isRefused) = (error.description, true)
        }
        if let found = try await readCopy(name) { return (found, false) }
        if isRefused { report.refused.append((name, problem)) } else { report.unreadable.append((name, problem)) }
        return nil
    }

    /// Nil where the second copy has no such snapshot whole. Closings count as they are here.
    private func readCopy(_ name: SnapshotName) async throws -> Snapshot? {
        guard let copy else { return nil }
        do {
            let bytes = try await copy.store.get(name.object, .all, limit: Snapshot.bodyLimit).array
            return try await repository.verify(name, bytes)
        } catch let error as StoreError where error.kind == .notFound || error.kind == .tooLarge {
            return nil
        } catch let error as BackupError where error.code == .damaged {
            return nil
        } catch is FormatError {
            return nil
        }
    }

    private func isThere(_ name: SnapshotName) async throws -> Bool {
        if try await repository.store.info(name.object) != nil { return true }
        // Stores without conditions list for a while what is gone.
        guard repository.isShared else { return false }
        return try await repository.snapshotNames().contains(name)
    }

    /// Makes the new one, unless an earlier repair made as good a one.
    private func mend(_ plan: RepairedSnapshot, _ mover: BlockMover?) async throws {
        let earlier = try await madeOf(plan.name)
        for made in earlier.reversed() {
            let made = try await RepairedSnapshot(made, repository, plan.survey)
            guard let left = plan.lessWhatIsIn(made) else { continue }
            return report.snapshots.append(left)
        }
        // Forgotten meanwhile: nobody waits for it, and a prune may have taken away what it needed.
        guard try await isThere(plan.name) else { return }
        var done = plan.report
        if let mover, !done.isNothingLeft {
            // 'latest' is the newest of those that are made of it.
            done.repaired = try await plan.commit(mover, behind: earlier.map(\.id).reduce(plan.name.id) { max($0, $1) })
        }
        report.snapshots.append(done)
    }

    /// What earlier repairs made of a snapshot, oldest first: what bears the owner's seal.
    private func madeOf(_ name: SnapshotName) async throws -> [Snapshot] {
        if earlier == nil {
            var found: [String: [Snapshot]] = [:]
            for name in try await repository.snapshotNames() {
                WorkPulse.beat()
                let snapshot: Snapshot
                do { snapshot = try await repository.snapshot(name) } catch let error as BackupError
                    where error.code == .damaged || error.code == .noSnapshot
                {
                    continue
                }
                guard let mark = snapshot.record.repair, let parent = snapshot.record.parent, let damaged = ObjectID(hex: parent),
                    repository.keys.isOwnerSeal(mark.seal, of: RepairRecord.sealed(damaged, name.id, lost: mark.lost))
                else { continue }
                found[parent, default: []].append(snapshot)
            }
            earlier = found
        }
        return earlier?["\(name.id)"] ?? []
    }

    /// Of what cannot be read here nor at a second copy, the word that the owner sealed says what was lost.
    private func noteEarlierOfUnreadable(_ survey: PackSurvey) async throws {
        for (name, _) in report.unreadable {
            for made in try await madeOf(name).reversed() {
                guard try await !RepairedSnapshot(made, repository, survey).isDamaged else { continue }
                report.unreadable.removeAll { $0.name == name }
                var done = RepairReport.Snapshot(damaged: name, node: made.record.node, existing: made.name)
                if let lost = made.record.repair?.lost, lost > 0 {
                    done.otherLosses = ["\(lost) files or stretches of the manifest, named among that one's problems"]
                }
                report.snapshots.append(done)
                break
            }
        }
    }

    // MARK: - Packs

    /// From here on no backup that begins relies on damaged packs: what they hold is stored again where it is met.
    /// Missing ones need no mark, since writers look whether a pack is there.
    private func mark(_ survey: PackSurvey) async throws {
        let marks = try await Tombstones(repository).damaged
        let named = marks.reduce(into: Set<ObjectID>()) { $0.formUnion($1.packs) }
        try await put(marks: survey.bad.filter { !$0.value.isMissing && !named.contains($0.key) }.map(\.key))
        for mark in marks {
            // Somebody set the object right, or a writer said what is not so.
            let whole = mark.packs.intersection(survey.whole)
            guard !whole.isEmpty else { continue }
            report.wholeAgain += whole.count
            try await put(marks: Array(mark.packs.subtracting(whole)))
            try await repository.remove(note: mark.id, Tombstone.topic)
        }
    }

    private func put(marks packs: [ObjectID]) async throws {
        let packs = packs.sorted()
        for start in stride(from: 0, to: packs.count, by: Tombstone.most) {
            let part = packs[start..<min(start + Tombstone.most, packs.count)]
            try await repository.put(note: Tombstone(packs: part.map { "\($0)" }, damaged: true), Tombstone.topic)
        }
    }

    /// - Parameter needed: damaged and missing packs that snapshots name
    private func notePacks(_ survey: PackSurvey, _ needed: Set<ObjectID>, _ mover: BlockMover?) {
        for (id, bad) in survey.bad.sorted(by: { $0.key < $1.key }) where !bad.isMissing || needed.contains(id) {
            var line = RepairReport.Pack(name: FinishedPack.name(id), problem: bad.problem)
            line.blocksLost = bad.sources.count { $0 == nil }
            line.blocksSaved = bad.sources.count - line.blocksLost
            line.isRestored = mover?.restored.contains(id) ?? bad.canBePutBack
            report.packs.append(line)
        }
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
