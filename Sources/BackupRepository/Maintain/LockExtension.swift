import BackupBase
import ObjectStorage

/// Keeps what is still needed locked: an object's lock is set when it is
/// written, and runs out while snapshots go on referring to it.
///
/// Needs the right to extend locks, which a writer must not have: a keeper runs it.
public struct LockExtension: Sendable {
    public struct Report: Sendable {
        /// Objects that snapshots, or the repository itself, need.
        public var needed = 0
        public var extended = 0
        /// Nanoseconds since 1970: the earliest end of a lock among them, afterwards.
        public var horizon: Int64 = .max
    }

    private let repository: Repository
    /// Locks that end this close before the wanted time are left: an hour.
    private static let slack: Int64 = 3_600_000_000_000

    public init(_ repository: Repository) { self.repository = repository }

    /// Extends the lock of each needed object to now + the store's duration.
    /// Throws `.usage` where the URL names no lock, and `.damaged` for what is
    /// missing or cannot be read: once all else is extended, because locks that
    /// run out meanwhile would add to the damage.
    public func run(dryRun: Bool, progress: (_ done: Int, _ total: Int) -> Void) async throws -> Report {
        let store = repository.store
        guard let duration = store.lockDuration else {
            throw BackupError(
                .usage, "the repository's URL names no lock",
                hint: "Give s3://BUCKET/PREFIX?lock=compliance&lock-for=30d, with a bucket that has Object Lock.")
        }
        var (names, problems) = try await needed()
        let until = repository.ambient.now() + duration
        var rest = names[...]
        var report = Report(needed: names.count)
        var work = OrderedMap<String, (end: Int64, extended: Bool)?>(
            width: 8, on: repository.executor, from: { rest.popFirst() },
            transform: { name in
                guard let info = try await store.info(name) else { return nil }
                let now = info.lockedUntil ?? 0
                guard now < until - Self.slack else { return (now, false) }
                if !dryRun { try await store.extendLock(name, until: until) }
                return (dryRun ? now : until, true)
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

    /// Configuration, keys, indexes, snapshots, and the packs they need.
    private func needed() async throws -> (names: [String], problems: [String]) {
        var names = Set(Configuration.names)
        var problems: [String] = []
        for prefix in [KeySlot.prefix, PairClosing.prefix, IndexObject.prefix] {
            for info in try await repository.store.list(prefix) { names.insert(info.name) }
        }
        for name in try await repository.snapshotNames() {
            names.insert(name.object)
            do {
                let packs = try await repository.packs(of: repository.snapshot(name))
                for pack in packs { names.insert(FinishedPack.name(pack)) }
            } catch let error as BackupError where error.code == .damaged {
                problems.append("\(error)")
            }
        }
        return (names.sorted(), problems)
    }
}
