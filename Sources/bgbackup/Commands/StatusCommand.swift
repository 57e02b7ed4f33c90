import ArgumentParser
import BackupBase
import Glibc
import Operations

struct StatusCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "status", abstract: "Show on one screen how the backups of this node are doing.",
        discussion: """
            For each policy a light (ok, late, failed, held, never, paused), the age of the last good backup against its \
            objective, the last drill and its recovery time, the days and bytes of a month, the next runs, and everything that \
            is wrong: a failed run, a missing timer, a missing credential, a store that does not answer, a full disk.

            It is told by what runs left in the state directory; the store is asked once for the names of snapshots, and not \
            with --offline. No password is needed. Without a policy it shows what was done by hand, and with -r one \
            repository. Exit status 0: all is well; 1: something is wrong.
            """)

    @OptionGroup var global: GlobalOptions
    @Argument(help: "Policies: names or paths (default: all).") var policies: [String] = []
    @Flag(help: "Ask no store.") var offline = false

    mutating func run() async throws {
        let session = Session(options: global)
        let history = session.stateDirectory.map { RunHistory(stateDirectory: $0) }
        let now = Double(Ambient.system.now()) / 1e9
        var problems = PlaceLook.disks(session)
        let found = try chosen(&problems)
        let month = history?.read(since: now - Double(StatusDays.count + 1) * 86_400) { $0.kind == .backup || $0.kind == .watch }
        let latest = history?.latest() ?? RunHistory.Reading()
        for name in Set(latest.damaged + (month?.damaged ?? [])).sorted() {
            problems.append(
                Problem(Problem.Code.historyDamaged.rawValue, "the record \(printable(name.utf8)) of a run cannot be read"))
        }

        var entries: [StatusEntry] = []
        for (health, look) in await healths(found, latest.records, history, session, now) {
            let own = (month?.records ?? []).filter {
                $0.policy == health.policy && (health.policy != nil || $0.repository == health.repository)
            }
            entries.append(StatusEntry(health: health, look: look, days: StatusDays(own, now: now)))
        }
        if entries.isEmpty, problems.isEmpty {
            problems.append(
                Problem(Problem.Code.neverRan.rawValue, "there is no policy, no run is known here, and -r names no repository"))
        }
        let isWell = problems.isEmpty && entries.allSatisfy { [.ok, .paused].contains($0.health.light) }
        if global.json {
            try Output.document(
                StatusDocument(
                    ok: isWell, node: Session.hostName, time: formatTime(Ambient.system.now()),
                    policies: entries.map(StatusDocument.Policy.init), problems: problems), snakeCase: true)
        } else if !global.quiet || !isWell {
            let colours = Colours(isOn: isatty(STDOUT_FILENO) == 1 && Session.environment("NO_COLOR") == nil)
            let shown = global.quiet ? entries.filter { ![.ok, .paused].contains($0.health.light) } : entries
            let screen = StatusScreen(
                node: Session.hostName, now: now, offset: Session.zoneOffset, entries: shown, problems: problems, colours: colours
            )
            for line in screen.lines { Output.line(line) }
        }
        if !isWell { throw ExitCode(1) }
    }

    /// The policies to show; what is wrong with a file is a problem, and only of a policy that is named the end.
    private func chosen(_ problems: inout [Problem]) throws -> [Policy] {
        guard policies.isEmpty else {
            return try policies.map { try PolicyCommand.library.load($0, report: PolicyCommand.tell).policy }
        }
        guard global.repository == nil else { return [] }
        var found: [Policy] = []
        for path in PolicyCommand.library.files {
            do {
                let file = try PolicyFile(path: path)
                guard let policy = file.policy else { throw file.failure }
                found.append(policy)
            } catch {
                let known = ErrorMapping.backupError(error) ?? BackupError(.failed, "\(error)")
                problems.append(Problem(Problem.Code.wrongPolicy.rawValue, "\(known): bgbackup policy validate"))
            }
        }
        return found
    }

    private func healths(
        _ policies: [Policy], _ records: [RunRecord], _ history: RunHistory?, _ session: Session, _ now: Double
    ) async -> [(PolicyHealth, PlaceLook?)] {
        let place = policies.isEmpty ? global.repository ?? Session.environment("BGBACKUP_REPOSITORY") : nil
        let shown = place.map { RunRecord.publicPlace($0) }
        let wanted = records.filter { record in
            if !policies.isEmpty { return policies.contains { $0.name == record.policy } }
            return shown == nil || record.repository == shown
        }
        var all = PolicyHealth.all(
            policies, wanted, names: history?.names ?? [], timers: await TimerStates.ask(policies),
            plans: PlanLook.times(policies), looks: records, now: now, offset: Session.zoneOffset, isSourceHere: Session.isHere)
        if let shown, all.isEmpty { all = [PolicyHealth(repository: shown, now: now)] }
        guard !offline else { return all.map { ($0, nil) } }
        // Side by side: one that does not answer costs its time once.
        let looks = await withTaskGroup(of: (Int, PlaceLook).self) { group in
            for (index, health) in all.enumerated() {
                let policy = policies.first { $0.name == health.policy }
                guard policy != nil || health.repository == shown && shown != nil else { continue }
                group.addTask { (index, await PlaceLook.at(policy, session)) }
            }
            return await group.reduce(into: [Int: PlaceLook]()) { $0[$1.0] = $1.1 }
        }
        return all.enumerated().map { index, health in
            var health = health
            let look = looks[index]
            health.seen = look?.problems ?? []
            if look?.snapshots == 0, let age = health.age {
                health.seen.append(
                    Problem(
                        BackupError.Code.noSnapshot.rawValue,
                        "the repository holds no snapshot, although one was made \(PolicyHealth.span(age)) ago"))
            }
            health.newestStored = look?.newest
            return (health, look)
        }
    }
}
