import BackupBase
import Operations

/// One policy on the screen: what `status` knows of it.
struct StatusEntry {
    let health: PolicyHealth
    let look: PlaceLook?
    let days: StatusDays
}

/// How everything is doing, on 80 columns.
struct StatusScreen {
    let node: String
    /// Seconds since 1970, and those by which local time is ahead of UTC.
    let now: Double
    let offset: Double
    let entries: [StatusEntry]
    /// What concerns no policy.
    let problems: [Problem]
    let colours: Colours

    static let width = 80

    var lines: [String] {
        var lines = [header]
        for entry in entries { lines += [""] + block(entry) }
        if !problems.isEmpty { lines += [""] + problems.flatMap { self.problem($0, indent: "") } }
        return lines
    }

    private var header: String {
        let left = "bgbackup on \(printable(node.utf8)), \(formatTime(now, "%Y-%m-%d %H:%M")) UTC"
        let ill = entries.filter { ![.ok, .paused].contains($0.health.light) }.count + problems.count
        let right = ill == 0 ? "all is well" : "\(ill) of \(entries.count + problems.count) to look at"
        let space = max(2, Self.width - left.count - right.count)
        return colours.bold(left) + String(repeating: " ", count: space) + (ill == 0 ? colours.green(right) : colours.red(right))
    }

    private func block(_ entry: StatusEntry) -> [String] {
        let health = entry.health
        var lines = [title(health)]
        func add(_ name: String, _ text: String?) {
            guard let text else { return }
            let label = name + String(repeating: " ", count: max(1, 9 - name.count))
            lines += Self.wrapped(text, first: "  " + label, rest: "           ")
        }
        add("store", store(entry))
        if !entry.days.isEmpty {
            add("30 days", entry.days.strip(colours) + colours.dim("  ▇ done ▄ some failed x failed"))
            add("stored", entry.days.sparkline + "  \(formatBytes(entry.days.bytes)) in 30 days")
        }
        add("drill", drill(health))
        add("locks", locks(health))
        add("next", next(health))
        for problem in health.problems { lines += self.problem(problem, indent: "  ") }
        return lines
    }

    // MARK: - Parts

    private func title(_ health: PolicyHealth) -> String {
        let name = health.policy.map { printable($0.utf8) } ?? "by hand"
        let words: String
        if let age = health.age {
            let objective = health.objective.map { " (objective \(PolicyHealth.span($0)))" } ?? ""
            let what = health.isNewestOfStore ? "newest in the store" : "last good backup"
            words = "\(what) \(PolicyHealth.span(age)) ago\(objective)"
        } else {
            words = "no backup of this node yet"
        }
        let (sign, word, colour) = Self.signs[health.light] ?? ("?", "unknown", 0)
        let light = paint("\(sign) ", colour) + colours.bold(padded(name, 20)) + " " + paint(padded(word, 7), colour)
        return "\(light) \(words)"
    }

    private static let signs: [PolicyHealth.Light: (String, String, Int)] = [
        .ok: ("●", "ok", 0), .paused: ("○", "paused", 3), .never: ("○", "never", 1), .late: ("▲", "late", 1),
        .held: ("■", "held", 1),
        .failed: ("✗", "failed", 2),
    ]

    private func paint(_ text: String, _ colour: Int) -> String {
        switch colour {
        case 0: colours.green(text)
        case 1: colours.yellow(text)
        case 2: colours.red(text)
        default: colours.dim(text)
        }
    }

    private func store(_ entry: StatusEntry) -> String? {
        let health = entry.health
        var parts = [health.repository ?? "unknown"]
        if let look = entry.look {
            if let count = look.snapshots { parts.append("\(count) snapshot\(count == 1 ? "" : "s")") }
            if health.newest == nil, let newest = look.newest {
                parts.append("the newest, of another node, \(PolicyHealth.span(max(0, now - newest))) old")
            }
            if let free = look.free { parts.append("\(Int(free * 100))% of the disk free") }
            if let note = look.note { parts.append(note) }
        }
        return parts.joined(separator: ", ")
    }

    private func drill(_ health: PolicyHealth) -> String? {
        guard let job = health.job(.drill) else { return health.policy == nil ? nil : "none is planned" }
        guard let last = job.last else { return job.isElsewhere ? "not on this host" : "never" }
        var text = "\(last.isDone ? "passed" : "failed") \(PolicyHealth.span(max(0, now - last.start))) ago"
        if let recovery = last.figures.recoverySeconds {
            text += ", recovery \(formatDuration(recovery))"
            if let objective = last.figures.recoveryObjectiveSeconds { text += " (objective \(PolicyHealth.span(objective)))" }
        } else {
            text += ", recovery time not measured"
        }
        if !last.isDone, let done = job.done { text += "; passed \(PolicyHealth.span(max(0, now - done))) ago" }
        return text
    }

    private func locks(_ health: PolicyHealth) -> String? {
        guard let horizon = health.lockHorizon else { return health.policy == nil ? nil : "horizon unknown" }
        return "until \(formatTime(horizon, "%Y-%m-%d"))" + (horizon < now ? ", which is over" : "")
    }

    private func next(_ health: PolicyHealth) -> String? {
        if health.isPaused { return "paused" }
        let parts = health.jobs.filter { $0.onCalendar != nil }.sorted { ($0.next ?? .infinity) < ($1.next ?? .infinity) }.map {
            job in
            if job.isElsewhere { return "\(job.title) elsewhere" }
            return "\(job.title) \(job.isRunning ? "now" : job.next.map(moment) ?? "?")"
        }
        return parts.isEmpty ? nil : parts.joined(separator: ", ")
    }

    /// In local time: "20:05" of today, "Sat 04:00" of this week, else the date.
    private func moment(_ seconds: Double) -> String {
        let local = seconds + offset
        let isToday = (local / 86_400).rounded(.down) == ((now + offset) / 86_400).rounded(.down)
        return formatTime(local, isToday ? "%H:%M" : seconds - now < 6 * 86_400 ? "%a %H:%M" : "%Y-%m-%d")
    }

    private func problem(_ problem: Problem, indent: String) -> [String] {
        let lines = Self.wrapped(
            "\(problem.code): \(printable(problem.text.utf8))", first: "\(indent)✗ ", rest: "\(indent)  ", most: 3)
        return lines.map { colours.red($0) }
    }

    // MARK: - Columns

    private func padded(_ text: String, _ width: Int) -> String {
        text.count > width ? text.prefix(width - 1) + "…" : text + String(repeating: " ", count: width - text.count)
    }

    /// Words over lines of `width`; beyond `most` lines the rest is left out.
    static func wrapped(_ text: String, first: String, rest: String, most: Int = 4) -> [String] {
        var lines: [String] = []
        var line = first
        var isEmpty = true
        for word in text.split(separator: " ", omittingEmptySubsequences: false) {
            if !isEmpty, visible(line) + 1 + visible(word) > width {
                lines.append(line)
                (line, isEmpty) = (rest, true)
            }
            line += (isEmpty ? "" : " ") + word
            isEmpty = false
        }
        lines.append(line)
        guard lines.count > most else { return lines }
        return lines.prefix(most - 1) + ["\(lines[most - 1].prefix(width - 2)) …"]
    }

    /// Columns, without what colours a text.
    private static func visible(_ text: some StringProtocol) -> Int {
        var count = 0
        var isEscape = false
        for character in text {
            if character == "\u{1b}" { isEscape = true }
            if !isEscape { count += 1 }
            if isEscape, character == "m" { isEscape = false }
        }
        return count
    }
}
