import BackupBase
import QdrantStorage

extension RepositoryReport {
    /// One self-contained page.
    var page: String {
        let now = parseTime(written) ?? 0
        return HTMLPage(
            title: "Backups in \(repository)",
            body: """
                \(banner(now))
                \(facts)
                <section><h2>Snapshots that are kept</h2>
                <p class="soft">A square is a day, in UTC; the darker, the more snapshots; with a frame: one is held; yellow: one is incomplete.</p>
                \(volumes.map { calendar($0, now) }.joined(separator: "\n"))</section>
                \(storageSection)
                \(volumes.map(changes).joined(separator: "\n"))
                \(costs)
                \(drillSection)
                \(problemSection)
                """
        ).html
    }

    private var all: [Entry] { volumes.flatMap(\.snapshots) }

    private func name(_ volume: Volume) -> String { "\(volume.node): \(volume.volume)" }

    // MARK: - Head

    /// The newest snapshot of each volume is what a restore would bring back today.
    private func banner(_ now: Double) -> String {
        let newest = volumes.compactMap { $0.snapshots.map(\.moment).max() }
        let wrong = volumes.filter { $0.snapshots.last.map { !$0.complete || $0.starts == false } ?? false }
        let failed = drills?.last.map { !$0.passed } ?? false
        let state = !problems.isEmpty ? "fail" : !wrong.isEmpty || failed || all.isEmpty ? "warn" : "pass"
        let title =
            all.isEmpty
            ? "No snapshots yet"
            : "\(all.count) snapshot\(all.count == 1 ? "" : "s") of \(volumes.count) volume\(volumes.count == 1 ? "" : "s")"
        var words: [String] = []
        if let oldest = newest.min() {
            words.append(
                volumes.count == 1
                    ? "The newest is \(formatDuration(max(0, now - oldest))) old."
                    : "The newest of every volume is at most \(formatDuration(max(0, now - oldest))) old.")
        }
        words += wrong.map { "The newest of \(name($0)) is not one to start from." }
        if failed { words.append("The last drill failed.") }
        words += problems.isEmpty ? [] : ["\(problems.count) thing\(problems.count == 1 ? "" : "s") cannot be read."]
        return """
            <header class="banner \(state)"><h1>\(title)</h1>
            <p>\(escaped(words.joined(separator: " ")))</p>
            <p class="counts">\(escaped(repository)) · written \(escaped(written))</p></header>
            """
    }

    private var facts: String {
        func fact(_ title: String, _ value: String, _ more: String) -> String {
            "<div><dt>\(title)</dt><dd>\(escaped(value))<span>\(escaped(more))</span></dd></div>"
        }
        let bytes = stored.reduce(0) { $0 + $1.bytes }
        let latest = volumes.compactMap(\.snapshots.last).reduce(0) { $0 + $1.bytes_total }
        let protected = all.reduce(Int64(0)) { $0 + $1.bytes_total }
        let kinds = stored.filter { $0.bytes > 0 }.map { "\($0.kind) \(formatBytes($0.bytes))" }.joined(separator: ", ")
        let last = drills?.last
        let recovered = drills?.last(where: \.passed).flatMap(\.recovery_seconds).map(formatDuration)
        let drilled = drills == nil ? "unreadable" : last.map { shortTime($0.drilled) } ?? "never"
        let result =
            drills == nil
            ? "the notes of drills"
            : last?.passed == false ? "it failed" : recovered.map { "recovered in \($0)" } ?? "see 'bgbackup drill'"
        return """
            <dl class="facts">
            \(fact("In the store", formatBytes(bytes), kinds))
            \(fact("The volumes today", formatBytes(latest), "as the newest snapshots have them"))
            \(fact("All snapshots whole", formatBytes(protected), bytes > 0 ? "\(fixed(Double(protected) / Double(bytes), 1)) × what is stored" : ""))
            \(fact("Last drill", drilled, result))
            </dl>
            """
    }

    private func calendar(_ volume: Volume, _ now: Double) -> String {
        YearCalendar(
            name(volume), volume.snapshots.map { ($0.moment, $0.held == true, $0.complete) }, now: now
        ).html
    }

    // MARK: - Over time

    private var storageSection: String {
        guard storage.count > 1 else {
            let text = "Prunes that run on this node note it; \(storage.isEmpty ? "none has" : "only one has") here."
            return "<section><h2>Stored bytes over time</h2><p class=\"soft\">\(text)</p></section>"
        }
        let chart = Chart(
            label: "Stored bytes over time",
            series: [
                .init(name: "live", color: "green", opacity: 0.9),
                .init(name: "unused, goes after the grace", color: "warn", opacity: 0.8),
                .init(name: "locked", color: "blue", opacity: 0.7),
            ],
            points: storage.map { ($0.moment, [$0.bytes_live, $0.bytes_unused, $0.bytes_locked]) })
        return "<section><h2>Stored bytes over time</h2>\(chart.areas)</section>"
    }

    private static let roles: [(role: FileRole, color: String, opacity: Double)] = [
        (.vectors, "blue", 0.95), (.indexes, "blue", 0.5), (.payload, "green", 0.9), (.ids, "green", 0.45), (.log, "warn", 0.8),
        (.other, "soft", 0.6),
    ]

    private func changes(_ volume: Volume) -> String {
        let shown = volume.snapshots.suffix(Self.most)
        guard !shown.isEmpty else { return "" }
        let chart = Chart(
            label: "New bytes of each snapshot",
            series: Self.roles.map { .init(name: $0.role.rawValue, color: $0.color, opacity: $0.opacity) }
                + [.init(name: "metadata and unknown", color: "soft", opacity: 0.3)],
            points: shown.map { entry in
                let parts = Self.roles.map { entry.bytes_new_by_role[$0.role.rawValue] ?? 0 }
                return (entry.moment, parts + [max(0, entry.bytes_new - parts.reduce(0, +))])
            })
        let more = shown.count < volume.snapshots.count ? ", the newest \(shown.count)" : ""
        return """
            <section><h2>Change of each snapshot <small>\(escaped(name(volume)))\(more): bytes that no pack held before</small></h2>
            \(chart.columns)</section>
            """
    }

    /// What each kind of file cost: its new bytes in all snapshots that are kept.
    private var costs: String {
        let sums = Self.roles.map { role in
            (role.role, all.reduce(Int64(0)) { $0 + ($1.bytes_new_by_role[role.role.rawValue] ?? 0) })
        }
        let total = sums.reduce(0) { $0 + $1.1 }
        guard total > 0 else { return "" }
        let last = volumes.compactMap(\.snapshots.last)
        let rows = sums.filter { $0.1 > 0 }.sorted { $0.1 > $1.1 }.map { role, bytes in
            let share = Double(bytes) / Double(total) * 100
            let newest = last.reduce(Int64(0)) { $0 + ($1.bytes_new_by_role[role.rawValue] ?? 0) }
            return """
                <tr><th scope="row">\(role.rawValue)</th><td>\(formatBytes(bytes))</td><td>\(fixed(share, 1)) %\
                <div class="meter none"><i style="width:\(fixed(share, 1))%"></i></div></td><td>\(formatBytes(newest))</td></tr>
                """
        }.joined(separator: "\n")
        return """
            <section><h2>What each kind of file cost <small>new bytes of all snapshots that are kept, before compression</small></h2>
            <table><thead><tr><th>Files</th><th>In all</th><th>Share</th><th>In the newest</th></tr></thead><tbody>
            \(rows)
            </tbody></table></section>
            """
    }

    // MARK: - Drills

    private var drillSection: String {
        guard let drills else {
            return
                "<section><h2>Drills</h2><p class=\"soft\">The notes of drills cannot be read: nobody knows what was proven.</p></section>"
        }
        guard !drills.isEmpty else {
            return """
                <section><h2>Drills</h2><p class="soft">No snapshot here has been proven by a drill. 'bgbackup drill' restores one, starts \
                Qdrant on it and compares.</p></section>
                """
        }
        let rows = drills.suffix(20).reversed().map { drill in
            """
            <tr class="\(drill.passed ? "pass" : "fail")"><td><b>\(drill.passed ? "passed" : "failed")</b></td>\
            <th scope="row">\(escaped(shortTime(drill.drilled)))</th><td data-label="Snapshot">\(escaped(String(drill.snapshot_id.prefix(8)))) of \
            \(escaped(drill.node ?? "?"))</td><td data-label="Recovery">\(drill.recovery_seconds.map(formatDuration) ?? "not measured")</td>\
            <td data-label="Reason">\(escaped(drill.reason ?? ""))</td></tr>
            """
        }.joined(separator: "\n")
        return """
            <section><h2>Drills</h2><table class="checks"><thead><tr><th></th><th>When (UTC)</th><th>Snapshot</th><th>Recovery</th>\
            <th>Reason</th></tr></thead><tbody>
            \(rows)
            </tbody></table></section>
            """
    }

    private var problemSection: String {
        guard !problems.isEmpty else { return "" }
        let rows = problems.prefix(20).map { "<li>\(escaped($0))</li>" }.joined()
        return "<section><h2>Cannot be read</h2><ul>\(rows)</ul><p class=\"soft\">'bgbackup check' tells more.</p></section>"
    }
}
