import BackupBase

/// Weeks as columns, days as squares: on which days a volume has snapshots, how many, and whether one is held.
struct YearCalendar {
    let title: String
    private let days: [Int: (count: Int, isHeld: Bool, isIncomplete: Bool)]
    /// Days since 1970.
    private let today: Int

    private static let weeks = 53
    private static let cell = 18.0

    /// - Parameters:
    ///   - snapshots: moments in seconds since 1970, UTC
    ///   - now: seconds since 1970
    init(_ title: String, _ snapshots: [(moment: Double, isHeld: Bool, isComplete: Bool)], now: Double) {
        self.title = title
        today = Int(now / 86400)
        days = snapshots.reduce(into: [:]) { days, snapshot in
            let day = Int((snapshot.moment / 86400).rounded(.down))
            let before = days[day] ?? (0, false, false)
            days[day] = (
                before.count + 1, before.isHeld || snapshot.isHeld, before.isIncomplete || !snapshot.isComplete
            )
        }
    }

    /// Monday is 0; 1970-01-01 was a Thursday.
    private static func weekday(_ day: Int) -> Int { (day % 7 + 7 + 3) % 7 }

    var html: String {
        let (cell, side, head) = (Self.cell, 34.0, 16.0)
        let firstDay = today - Self.weekday(today) - (Self.weeks - 1) * 7
        var squares = ""
        var months = ""
        var lastMonth = ""
        for day in firstDay...today {
            let (week, weekday) = ((day - firstDay) / 7, Self.weekday(day))
            let date = formatTime(Double(day) * 86400, "%Y-%m-%d")
            let found = days[day]
            let color = found.map { $0.isIncomplete ? "warn" : "pass" } ?? "line"
            let opacity = found.map { min(1, 0.45 + 0.12 * Double($0.count)) } ?? 0.55
            let words =
                found.map { "\($0.count) snapshot\($0.count == 1 ? "" : "s")\($0.isHeld ? ", held" : "")" } ?? "none"
            let edge = found?.isHeld == true ? " stroke=\"var(--ink)\" stroke-width=\"2\"" : ""
            squares += """
                <rect x="\(fixed(side + Double(week) * cell, 0))" y="\(fixed(head + Double(weekday) * cell, 0))" width="\(fixed(cell - 3, 0))" \
                height="\(fixed(cell - 3, 0))" rx="2" fill="var(--\(color))" opacity="\(fixed(opacity, 2))"\(edge)><title>\(date): \(words)</title></rect>

                """
            let month = String(date.prefix(7))
            guard weekday == 0, month != lastMonth else { continue }
            // Not two labels on top of each other where the first month has a week or two.
            let isShort = lastMonth.isEmpty && formatTime(Double(day + 20) * 86400, "%Y-%m") != month
            lastMonth = month
            if !isShort {
                let label = months.isEmpty || month.hasSuffix("-01") ? month : String(month.suffix(2))
                months += "<text x=\"\(fixed(side + Double(week) * cell, 0))\" y=\"11\">\(label)</text>"
            }
        }
        let names = [(0, "Mon"), (2, "Wed"), (4, "Fri")].map {
            "<text x=\"0\" y=\"\(fixed(head + Double($0.0) * cell + 12, 0))\">\($0.1)</text>"
        }.joined()
        let (width, height) = (side + Double(Self.weeks) * cell, head + 7 * cell)
        let older = days.keys.filter { $0 < firstDay }.count
        let more = older > 0 ? "<p class=\"soft\">and on \(older) days before</p>" : ""
        return """
            <h3>\(escaped(title))</h3>
            <div class="scroll"><svg viewBox="0 0 \(fixed(width, 0)) \(fixed(height, 0))" role="img" aria-label="Days with snapshots of \(escaped(title))">
            \(months)\(names)
            \(squares)</svg></div>\(more)
            """
    }
}
