import BackupBase
import Operations

/// The backups of the last days, one character a day.
struct StatusDays {
    struct Day: Encodable {
        let date: String
        var done = 0
        var failed = 0
        var bytes_stored: Int64 = 0
    }

    /// Oldest first; the last is today (UTC).
    private(set) var days: [Day]

    static let count = 30

    init(_ records: [RunRecord], now: Double) {
        days = (0..<Self.count).reversed().map { Day(date: formatTime(now - Double($0) * 86_400, "%Y-%m-%d")) }
        let first = (now / 86_400).rounded(.down) - Double(Self.count - 1)
        for record in records where record.kind == .backup || record.kind == .watch {
            let index = Int((record.start / 86_400).rounded(.down) - first)
            guard days.indices.contains(index) else { continue }
            if record.moment != nil { days[index].done += 1 }
            if record.outcome == .failure || record.outcome == .killed { days[index].failed += 1 }
            days[index].bytes_stored += record.figures.bytesStored ?? 0
        }
    }

    var bytes: Int64 { days.reduce(0) { $0 + $1.bytes_stored } }
    var isEmpty: Bool { days.allSatisfy { $0.done + $0.failed == 0 } }

    func strip(_ colours: Colours) -> String {
        days.map { day in
            switch (day.done, day.failed) {
            case (0, 0): colours.dim("·")
            case (_, 0): colours.green("▇")
            case (0, _): colours.red("x")
            default: colours.yellow("▄")
            }
        }.joined()
    }

    /// What was stored on each day, against the day with the most.
    var sparkline: String {
        let most = days.map(\.bytes_stored).max() ?? 0
        let bars = Array("▁▂▃▄▅▆▇█")
        return String(
            days.map { day in
                guard day.done > 0, most > 0 else { return " " }
                return bars[min(7, Int(Double(day.bytes_stored) / Double(most) * 7.999))]
            })
    }
}

/// Colours of a terminal; none where stdout is no terminal or NO_COLOR is set.
struct Colours {
    let isOn: Bool

    func green(_ text: String) -> String { wrap(text, "32") }
    func yellow(_ text: String) -> String { wrap(text, "33") }
    func red(_ text: String) -> String { wrap(text, "31") }
    func bold(_ text: String) -> String { wrap(text, "1") }
    func dim(_ text: String) -> String { wrap(text, "2") }

    private func wrap(_ text: String, _ code: String) -> String { isOn ? "\u{1b}[\(code)m\(text)\u{1b}[0m" : text }
}
