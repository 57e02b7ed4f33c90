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
    /// Throws `.usage` where the URL names no lock.
    public func run(dryRun: Bool, progress: (_ done: Int, _ total: Int) -> Void) async throws -> Report {
        let store = repository.store
        guard let duration = store.lockDuration else {
            throw BackupError(
                .usage, "the repository's URL names no lock",
                hint: "Give s3://BUCKET/PREFIX?lock=compliance&lock-for=30d, with a bucket that has Object Lock.")
        }
        let names = try await needed()
        let until = repository.ambient.now() + duration
        var rest = names[...]
        var report = Report(needed: names.count)
        var work = OrderedMap<String, (Int64, Bool)>(
            width: 8, on: repository.executor, from: { rest.popFirst() },
            transform: { name in
                guard let info = try await store.info(name) else {
                    throw BackupError(.damaged, "\(name) is missing", hint: "Run 'bgbackup check'.")
                }
                let now = info.lockedUntil ?? 0
                guard now < until - Self.slack else { return (now, false) }
                if !dryRun { try await store.extendLock(name, until: until) }
                return (dryRun ? now : until, true)
            })
        var done = 0
        while let (end, extended) = try await work.next() {
            done += 1
            report.extended += extended ? 1 : 0
            report.horizon = min(report.horizon, end)
            progress(done, names.count)
        }
        return report
    }

    /// Configuration, keys, indexes, snapshots, and the packs they need.
    private func needed() async throws -> [String] {
        var names = Set(Configuration.names)
        for prefix in ["v1/keys/", IndexObject.prefix] {
            for info in try await repository.store.list(prefix) { names.insert(info.name) }
        }
        for name in try await repository.snapshotNames() {
            names.insert(name.object)
            for pack in try await repository.packs(of: repository.snapshot(name)) { names.insert(FinishedPack.name(pack)) }
        }
        return names.sorted()
    }
}
