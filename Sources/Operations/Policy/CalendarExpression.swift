import BackupBase

/// A moment that comes back, as systemd.time(7) writes it. `systemd-analyze`
/// has the last word where there is one; this says what is wrong with a text in
/// a file, and how far apart two moments can be.
public struct CalendarExpression: Sendable, Equatable {
    public let text: String
    /// Seconds between one moment and the next at the most; nil where it ends some day, or has only one.
    public let longestGap: Double?
    /// Nil of a single moment, and of a zone that only systemd knows.
    private let fields: Fields?
    private let isUTC: Bool

    fileprivate struct Fields: Equatable {
        var weekdays: Set<Int>?
        var isYearly = true
        var months: Set<Int>?
        var days: Set<Int>?
        var daysFromEnd: Set<Int>?
        var hours: [Int] = [0]
        var minutes: [Int] = [0]
        var seconds: [Int] = [0]
    }

    private static let shorthands: [String: String] = [
        "minutely": "*-*-* *:*:00", "hourly": "*-*-* *:00:00", "daily": "*-*-* 00:00:00", "monthly": "*-*-01 00:00:00",
        "weekly": "Mon *-*-* 00:00:00", "yearly": "*-01-01 00:00:00", "annually": "*-01-01 00:00:00",
        "quarterly": "*-01,04,07,10-01 00:00:00", "semiannually": "*-01,07-01 00:00:00", "semi-annually": "*-01,07-01 00:00:00",
        "biannually": "*-01,07-01 00:00:00", "bi-annually": "*-01,07-01 00:00:00",
    ]
    private static let dayNames = ["monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday"]

    init(_ text: String) throws(PolicyComplaint) {
        self.text = text
        if let meant = Self.cron(text) {
            throw PolicyComplaint("\(shown(text)) is in cron's form, not in systemd's", meant)
        }
        var words = text.split(separator: " ").map(String.init)
        guard !words.isEmpty else { throw PolicyComplaint("is an empty text", Self.help) }
        let zone = words.count > 1 && Self.isZone(words[words.count - 1]) ? words.removeLast() : nil
        isUTC = zone?.uppercased() == "UTC"
        if words.count == 1, words[0].hasPrefix("@"), let moment = Int64(words[0].dropFirst()), moment >= 0 {
            self.longestGap = nil
            self.fields = nil
            return
        }
        if words.count == 1, let full = Self.shorthands[words[0].lowercased()] {
            words = full.split(separator: " ").map(String.init)
        }
        guard let found = Self.fields(words) else {
            let near = nearest(text, among: Self.shorthands.keys.sorted()).map { "did you mean '\($0)'?" }
            throw PolicyComplaint("\(shown(text)) is no calendar expression", near ?? Self.help)
        }
        longestGap = Self.gap(found)
        fields = zone == nil || isUTC ? found : nil
    }

    /// The moment nearest to another one, if it is not further away than an hour and than half of what lies between two.
    /// - Parameters:
    ///   - now: seconds since 1970
    ///   - offset: seconds by which local time is ahead of UTC
    public func moment(near now: Double, offset: Double) -> Double? {
        guard let fields, let longestGap else { return nil }
        let ahead = isUTC ? 0 : offset
        let today = Int(((now + ahead) / 86_400).rounded(.down))
        var nearest: Double?
        for day in today - 1...today + 1 where fields.isOn(day) {
            for time in fields.times {
                let moment = Double(day * 86_400 + time) - ahead
                if abs(moment - now) < abs((nearest ?? -.infinity) - now) { nearest = moment }
            }
        }
        return nearest.flatMap { abs($0 - now) <= min(3600, longestGap / 2) ? $0 : nil }
    }

    /// The first moment after another one, within four years; nil where only systemd can tell.
    /// - Parameters as of `moment(near:offset:)`
    public func next(after now: Double, offset: Double) -> Double? {
        guard let fields else { return nil }
        let ahead = isUTC ? 0 : offset
        let today = Int(((now + ahead) / 86_400).rounded(.down))
        let times = fields.times
        for day in today...today + 1461 where fields.isOn(day) {
            for time in times {
                let moment = Double(day * 86_400 + time) - ahead
                if moment > now { return moment }
            }
        }
        return nil
    }

    private static let help = "see systemd.time(7); for example daily, \"*-*-* 02:00:00\", \"Sun *-*-* 04:00\", \"*:0/15\""

    /// "UTC", "Europe/Berlin"
    private static func isZone(_ word: String) -> Bool {
        word.uppercased() == "UTC"
            || word.contains("/") && word.first!.isLetter
                && word.utf8.allSatisfy {
                    $0 == UInt8(ascii: "/") || $0 == UInt8(ascii: "_") || $0 == UInt8(ascii: "-") || $0 == UInt8(ascii: "+")
                        || Character(UnicodeScalar($0)).isLetter || (0x30...0x39).contains($0)
                }
    }

    // MARK: - Parts

    private static func fields(_ words: [String]) -> Fields? {
        var fields = Fields()
        var rest = words[...]
        if let first = rest.first, first.first?.isLetter == true {
            guard let days = weekdays(first) else { return nil }
            fields.weekdays = days
            rest = rest.dropFirst()
        }
        guard rest.count <= 2 else { return nil }
        if let date = rest.first, !date.contains(":") {
            guard Self.date(date, &fields) else { return nil }
            rest = rest.dropFirst()
        }
        if let time = rest.first {
            guard Self.time(time, &fields) else { return nil }
            rest = rest.dropFirst()
        }
        return rest.isEmpty && !words.isEmpty ? fields : nil
    }

    /// "Mon..Fri,Sun": 0 is Monday.
    private static func weekdays(_ text: String) -> Set<Int>? {
        func number(_ name: Substring) -> Int? {
            let lowered = name.lowercased()
            return dayNames.firstIndex { $0 == lowered || $0.prefix(3) == lowered }
        }
        var result: Set<Int> = []
        for part in text.split(separator: ",") {
            let between = part.firstRange(of: "..") ?? part.firstRange(of: "-")
            let ends = between.map { [part[..<$0.lowerBound], part[$0.upperBound...]] } ?? [part]
            let numbers = ends.compactMap(number)
            guard numbers.count == ends.count, let first = numbers.first, let last = numbers.last, first <= last else {
                return nil
            }
            result.formUnion(first...last)
        }
        return result.isEmpty ? nil : result
    }

    /// "2026-01-02", "*-*-01", "01-02", "*-02~01"
    private static func date(_ text: String, _ fields: inout Fields) -> Bool {
        var parts: [Substring] = []
        var isFromEnd = false
        var current = text[...]
        while let cut = current.firstIndex(where: { $0 == "-" || $0 == "~" }) {
            if isFromEnd { return false }
            isFromEnd = current[cut] == "~"
            parts.append(current[..<cut])
            current = current[current.index(after: cut)...]
        }
        parts.append(current)
        guard (2...3).contains(parts.count) else { return false }
        if parts.count == 3 {
            guard let years = set(parts[0], 0...2199) else { return false }
            fields.isYearly = years == nil
        }
        guard let months = set(parts[parts.count - 2], 1...12), let days = set(parts[parts.count - 1], 1...31) else {
            return false
        }
        fields.months = months
        if isFromEnd { fields.daysFromEnd = days ?? Set(1...31) } else { fields.days = days }
        return true
    }

    /// "02:00", "*:0/15", "10:00:30.5"
    private static func time(_ text: String, _ fields: inout Fields) -> Bool {
        let parts = text.split(separator: ":", omittingEmptySubsequences: false)
        guard (2...3).contains(parts.count), let hours = set(parts[0], 0...23), let minutes = set(parts[1], 0...59) else {
            return false
        }
        fields.hours = hours?.sorted() ?? Array(0...23)
        fields.minutes = minutes?.sorted() ?? Array(0...59)
        guard parts.count == 3 else { return true }
        // Fractions of a second matter to nobody here.
        let whole = parts[2].split(separator: ",", omittingEmptySubsequences: false).map { part in
            let halves = part.split(separator: ".", omittingEmptySubsequences: false)
            let isFraction = halves.count == 2 && !halves[1].isEmpty && halves[1].utf8.allSatisfy { (0x30...0x39).contains($0) }
            return isFraction ? halves[0] : part
        }
        guard let seconds = set(Substring(whole.joined(separator: ",")), 0...59) else { return false }
        fields.seconds = seconds?.sorted() ?? Array(0...59)
        return true
    }

    /// Some(nil) for "*": all of them. Nil for what is none.
    private static func set(_ text: Substring, _ range: ClosedRange<Int>) -> Set<Int>?? {
        if text == "*" { return .some(nil) }
        func number(_ text: Substring) -> Int? {
            guard !text.isEmpty, text.utf8.count <= 4, text.utf8.allSatisfy({ (0x30...0x39).contains($0) }) else { return nil }
            return Int(text).flatMap { range.contains($0) ? $0 : nil }
        }
        var result: Set<Int> = []
        for part in text.split(separator: ",", omittingEmptySubsequences: false) {
            let slash = part.split(separator: "/", omittingEmptySubsequences: false)
            guard (1...2).contains(slash.count) else { return nil }
            var (first, last) = (range.lowerBound, slash.count == 2 ? range.upperBound : range.lowerBound)
            if let dots = slash[0].firstRange(of: "..") {
                guard let from = number(slash[0][..<dots.lowerBound]), let to = number(slash[0][dots.upperBound...]), from <= to
                else { return nil }
                (first, last) = (from, to)
            } else {
                guard let only = number(slash[0]) else { return nil }
                (first, last) = (only, slash.count == 2 ? range.upperBound : only)
            }
            var step = 1
            if slash.count == 2 {
                guard slash[1].utf8.count <= 4, let given = Int(slash[1]), given > 0 else { return nil }
                step = given
            }
            result.formUnion(stride(from: first, through: last, by: step))
        }
        return .some(result)
    }

    // MARK: - Gap

    /// Walks the days of 28 years, after which weekdays and leap years come back.
    private static func gap(_ fields: Fields) -> Double? {
        let times = fields.times
        guard fields.isYearly, let first = times.first, let last = times.last else { return nil }
        var inner = 0
        for (one, next) in zip(times, times.dropFirst()) { inner = max(inner, next - one) }
        let overnight = 86_400 - last + first
        var (earlier, longest) = (Int?.none, 0)
        // From 2001 on.
        for day in 11_323..<11_323 + 28 * 1461 / 4 where fields.isOn(day) {
            if let earlier { longest = max(longest, day - earlier) }
            earlier = day
        }
        guard longest > 0 else { return nil }
        return Double(max(inner, (longest - 1) * 86_400 + overnight))
    }

    // MARK: - cron

    /// What to write instead of five fields of cron's; nil where it is none.
    private static func cron(_ text: String) -> String? {
        let fields = text.split(separator: " ")
        let isCron =
            fields.count == 5
            && fields.allSatisfy { $0.utf8.allSatisfy { (0x30...0x39).contains($0) || "*/,-".utf8.contains($0) } }
        guard isCron else { return nil }
        let other = "see systemd.time(7); for example \"*-*-* 02:00:00\""
        guard fields[2] == "*", fields[3] == "*", let hour = cronField(fields[1]), let minute = cronField(fields[0])
        else { return other }
        let time = "\(hour):\(minute)\(minute.contains("/") ? "" : ":00")"
        if fields[4] == "*" { return "did you mean \"*-*-* \(time)\"?" }
        guard let day = Int(fields[4]), (0...7).contains(day) else { return other }
        return "did you mean \"\(dayNames[(day + 6) % 7].prefix(3).capitalizedFirst) *-*-* \(time)\"?"
    }

    private static func cronField(_ field: Substring) -> String? {
        if field == "*" { return "*" }
        if field.hasPrefix("*/"), let step = Int(field.dropFirst(2)) { return "0/\(step)" }
        guard let number = Int(field) else { return nil }
        return number < 10 ? "0\(number)" : "\(number)"
    }
}

extension CalendarExpression.Fields {
    /// Seconds since midnight, in order.
    fileprivate var times: [Int] {
        hours.flatMap { hour in minutes.flatMap { minute in seconds.map { hour * 3600 + minute * 60 + $0 } } }
    }

    /// - Parameter day: since 1970
    fileprivate func isOn(_ day: Int) -> Bool {
        // 1970 began on a Thursday.
        guard weekdays?.contains((day + 3) % 7) ?? true else { return false }
        let (year, month, date) = Self.civil(day)
        let isLeap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0)
        let count = [31, isLeap ? 29 : 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31][month - 1]
        return isYearly && (months?.contains(month) ?? true) && (days?.contains(date) ?? true)
            && (daysFromEnd?.contains(count - date + 1) ?? true)
    }

    /// Year, month and day (Hinnant, "chrono-compatible low-level date algorithms", civil_from_days; from 1970 on).
    private static func civil(_ day: Int) -> (Int, Int, Int) {
        let shifted = day + 719_468
        let era = shifted / 146_097
        let ofEra = shifted - era * 146_097
        let year = (ofEra - ofEra / 1460 + ofEra / 36_524 - ofEra / 146_096) / 365
        let ofYear = ofEra - (365 * year + year / 4 - year / 100)
        let part = (5 * ofYear + 2) / 153
        let month = part < 10 ? part + 3 : part - 9
        return (year + era * 400 + (month <= 2 ? 1 : 0), month, ofYear - (153 * part + 2) / 5 + 1)
    }
}

extension Substring {
    fileprivate var capitalizedFirst: String { prefix(1).uppercased() + dropFirst() }
}
