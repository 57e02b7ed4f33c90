import BackupBase
import BackupEngine

/// Days by months on which a volume has snapshots, and which of them stay: 72 columns, without colour.
struct SnapshotCalendar {
    private let title: String
    /// By month ("2026-11"), by day from 0.
    private let months: [String: [Mark]]

    private enum Mark: Character {
        case none = "·"
        case kept = "#"
        case mixed = "/"
        case forgotten = "x"
        case nowhere = " "

        func with(_ isKept: Bool) -> Mark {
            let mark: Mark = isKept ? .kept : .forgotten
            return self == .none || self == mark ? mark : .mixed
        }
    }

    static let legend = "# kept   x forgotten   / some of both   · no snapshot"

    /// Months that are shown at most, the newest: a screen.
    private static let mostMonths = 24

    static func ofVolumes(_ verdicts: [RetentionPlan.Verdict]) -> [SnapshotCalendar] {
        Dictionary(grouping: verdicts, by: \.snapshot.volume).sorted { $0.key < $1.key }.map { volume, members in
            SnapshotCalendar("\(volume)", members.map { ($0.snapshot.committed, $0.isKept) })
        }
    }

    /// - Parameter snapshots: seconds since 1970, and whether each stays
    init(_ title: String, _ snapshots: [(moment: Double, isKept: Bool)]) {
        self.title = title
        months = snapshots.reduce(into: [:]) { months, snapshot in
            let month = formatTime(snapshot.moment, "%Y-%m")
            guard let day = Int(formatTime(snapshot.moment, "%d")), (1...31).contains(day) else { return }
            var days = months[month] ?? Self.empty(month)
            days[day - 1] = days[day - 1].with(snapshot.isKept)
            months[month] = days
        }
    }

    private static func empty(_ month: String) -> [Mark] {
        (1...31).map { day in
            let text = "\(month)-\(day < 10 ? "0" : "")\(day)"
            // What is no day of the month is read as one of the next.
            let isDay = parseTime("\(text)T00:00:00Z").map { formatTime($0, "%Y-%m-%d") == text } ?? false
            return isDay ? .none : .nowhere
        }
    }

    var lines: [String] {
        let ruler = (1...30).map { $0 == 1 || $0 % 5 == 0 ? $0 < 10 ? "\($0) " : "\($0)" : "  " }.joined()
        let shown = months.keys.sorted().suffix(Self.mostMonths)
        var lines = [title, "         " + ruler]
        if shown.count < months.count { lines.append("  … \(months.count - shown.count) months before") }
        for month in shown {
            var line = "\(month)  " + (months[month] ?? []).map { "\($0.rawValue) " }.joined()
            while line.hasSuffix(" ") { line.removeLast() }
            lines.append(line)
        }
        return lines
    }
}
