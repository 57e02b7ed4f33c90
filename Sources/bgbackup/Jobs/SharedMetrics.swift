import BackupBase
import Glibc
import Operations

/// A metrics file and the policies whose numbers go there.
struct SharedMetrics {
    let path: String
    let policies: [Policy]
    /// All policies there are, by name; what is gone is nobody's trouble any more.
    private let textfiles: [String: String?]
    /// Files that are there and no policies any more: what their last words were stays.
    private let broken: Set<String>
    private let history: RunHistory?
    private let session: Session

    /// Seconds that one run waits for another to have written; one that a signal ends has not so many.
    private static var patience: Double { Main.signal == nil ? 5 : 1 }

    /// - Parameter own: of the run that writes; nil by hand
    init(_ path: String, _ own: Policy?, _ history: RunHistory?, _ session: Session) {
        self.path = path
        self.history = history
        self.session = session
        var found = own.map { [$0] } ?? []
        var broken: Set<String> = []
        // Those that are in no library were named by their paths.
        for file in PolicyCommand.library.files + Set((history?.latest().records ?? []).compactMap(\.policyFile)).sorted() {
            if let policy = (try? PolicyFile(path: file))?.policy {
                if !found.contains(where: { $0.name == policy.name }) { found.append(policy) }
            } else if access(file, F_OK) == 0 {
                broken.insert(file)
            }
        }
        self.broken = broken
        textfiles = Dictionary(found.map { ($0.name, $0.textfile) }, uniquingKeysWith: { first, _ in first })
        policies = found.filter { $0.textfile == path }
    }

    /// Whether a run's numbers belong here: by what its policy says now, whatever it said then. A policy that is gone says
    /// nothing; one that is broken, what it said last.
    func holds(_ record: RunRecord) -> Bool {
        if let name = record.policy, let now = textfiles[name] { return now == path }
        let isGone = record.policy != nil && record.policyFile.map { !broken.contains($0) } ?? false
        return !isGone && record.textfile == path
    }

    /// Makes the file from the history, one run at a time: who writes last has seen what the others left.
    /// - Parameters:
    ///   - record: the run's own, which may not be in the history
    ///   - timers: of all `policies`
    func write(_ record: RunRecord?, timers: [String: [String: TimerState]]) {
        let lock = session.stateDirectory.map { Self.lock("\($0)/metrics.lock") } ?? -1
        defer { if lock >= 0 { close(lock) } }
        let earlier = (history?.latest().records ?? []).filter { $0.id != record?.id && holds($0) }
        var all = PolicyHealth.all(
            policies, (record.map { [$0] } ?? []) + earlier, names: history?.names ?? [], timers: timers,
            plans: PlanLook.times(policies), now: Double(Ambient.system.now()) / 1e9, offset: Session.zoneOffset,
            isSourceHere: Session.isHere)
        for index in all.indices { all[index].seen = PlaceLook.disks(session) }
        do { try MetricsFile(all, version: BGBackup.version).write(to: path) } catch {
            Terminal.note("bgbackup: warning: \(error)", .warning)
        }
    }

    /// - Returns: the descriptor that holds the lock; -1 where it cannot be had, which costs numbers until the next run
    private static func lock(_ path: String) -> Int32 {
        let file = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0o600)
        guard file >= 0 else { return -1 }
        let end = monotonicSeconds() + patience
        while !LocalFile.tryLock(file, shared: false), monotonicSeconds() < end { usleep(20_000) }
        return file
    }
}

/// When policies and their timers were written down.
enum PlanLook {
    static func times(_ policies: [Policy]) -> [String: PlanTimes] {
        var all: [String: PlanTimes] = [:]
        for policy in policies {
            var times = PlanTimes()
            times.policy = (try? PolicyCommand.library.path(of: policy.name)).flatMap(changed)
            for job in policy.jobs {
                guard let instance = try? UnitName.instance(policy.name, job.name),
                    let unit = try? UnitName.unit("bgbackup-\(job.kind.rawValue)", instance, "timer")
                else { continue }
                times.timers[TimerStates.title(job)] =
                    changed("/etc/systemd/system/\(unit).d/\(PolicyUnits.dropInName)")
            }
            all[policy.name] = times
        }
        return all
    }

    /// Seconds since 1970.
    private static func changed(_ path: String) -> Double? {
        var status = stat()
        guard stat(path, &status) == 0 else { return nil }
        return Double(status.st_mtim.tv_sec)
    }
}
