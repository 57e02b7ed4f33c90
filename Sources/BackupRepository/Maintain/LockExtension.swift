import BackupBase
import ObjectStorage

/// Keeps what is still needed locked: an object's lock is set when it is
/// written, and runs out while snapshots go on referring to it. No longer than
/// the last of these is kept: what nobody needs any more is not to be paid for.
///
/// Needs the right to extend locks, which a writer must not have: a keeper runs it.
public struct LockExtension: Sendable {
    public struct Report: Sendable {
        /// Objects that snapshots, or the repository itself, need.
        public var needed = 0
        public var extended = 0
        /// Nanoseconds since 1970: until then everything is locked that is needed then.
        public var horizon: Int64 = .max
    }

    private let repository: Repository
    /// Locks that end this close before the wanted time are left: an hour.
    private static let slack: Int64 = 3_600_000_000_000

    public init(_ repository: Repository) { self.repository = repository }

    /// Extends the lock of each needed object to now + the store's duration, or to the end of the
    /// last snapshot that needs it.
    ///
    /// - Parameter end: until when a snapshot is kept, nanoseconds since 1970; nil: nobody knows
    ///
    /// Throws `.usage` where the URL names no lock, and `.damaged` for what is
    /// missing or cannot be read: once all else is extended, because locks that
    /// run out meanwhile would add to the damage.
    public func run(
        dryRun: Bool, keptUntil end: (Snapshot) -> Int64? = { _ in nil }, progress: (_ done: Int, _ total: Int) -> Void
    ) async throws -> Report {
        let store = repository.store
        guard let duration = store.lockDuration else {
            throw BackupError(
                .usage, "the repository's URL names no lock",
                hint: "Give s3://BUCKET/PREFIX?lock=compliance&lock-for=30d, with a bucket that has Object Lock.")
        }
        let most = repository.ambient.now() + duration
        var (needed, problems) = try await needed(most, end)
        let names = needed.keys.sorted()
        var rest = names[...]
        var report = Report(needed: names.count)
        let ends = needed
        var work = OrderedMap<String, (end: Int64, extended: Bool)?>(
            width: 8, on: repository.executor, from: { rest.popFirst() },
            transform: { name in
                guard let info = try await store.info(name) else { return nil }
                let (now, until) = (info.lockedUntil ?? 0, ends[name] ?? most)
                // Locked for as long as anybody needs it: it is no part of the horizon.
                let enough = until < most ? Int64.max : now
                guard now < until - Self.slack else { return (enough, false) }
                if !dryRun { try await store.extendLock(name, until: until) }
                return (dryRun ? now : until < most ? .max : until, true)
            })
        var done = 0
        while let result = try await work.next() {
            if let result {
                report.extended += result.extended ? 1 : 0
                report.horizon = min(report.horizon, result.end)
            } else if !names[done].hasPrefix(IndexObject.prefix) {
                // An index object may be replaced meanwhile, by a prune.
                problems.append("\(names[done]) is missing")
            }
            done += 1
            progress(done, names.count)
        }
        guard problems.isEmpty else {
            throw BackupError(
                .damaged, problems.prefix(10).joined(separator: "; "),
                hint: "All else is locked\(dryRun ? "" : " anew"). Run 'bgbackup check'.")
        }
        return report
    }

    /// Configuration, keys, closed key pairs, indexes, snapshots, and the packs they need, each with the end of its lock.
    private func needed(
        _ most: Int64, _ end: (Snapshot) -> Int64?
    ) async throws -> (names: [String: Int64], problems: [String]) {
        var names = Dictionary(uniqueKeysWithValues: Configuration.names.map { ($0, most) })
        var problems: [String] = []
        for prefix in ["v1/keys/", PairClosing.prefix, IndexObject.prefix] {
            for info in try await repository.store.list(prefix) { names[info.name] = most }
        }
        let stored = try await repository.storedPacks()
        var successions = Successions()
        do { successions = try await Successions(repository) } catch let error as BackupError where error.code == .damaged {
            // Which packs took the places of others is not known: all are kept.
            problems.append("\(error)")
            for pack in stored.keys { names[FinishedPack.name(pack)] = most }
            for info in try await repository.store.list(Succession.topic.prefix) { names[info.name] = most }
        }
        for name in try await repository.snapshotNames() {
            names[name.object] = most
            do {
                let snapshot = try await repository.snapshot(name)
                let until = min(most, end(snapshot) ?? most)
                names[name.object] = until
                for pack in try await repository.packs(of: snapshot) {
                    for object in successions.objects(of: pack, isStored: { stored[$0] != nil }) {
                        names[object] = max(until, names[object] ?? until)
                    }
                }
            } catch let error as BackupError where error.code == .damaged {
                problems.append("\(error)")
            }
        }
        return (names, problems)
    }
}
