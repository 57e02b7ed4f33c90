import Foundation

/// The four ways in which S3 writes a moment. By hand, for formatters are slow and not Sendable.
enum Timestamp {
    private static let days = ["Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat"]
    private static let months = [
        "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
    ]

    /// `Tue, 01 Dec 2026 10:11:12 GMT`
    static func http(_ date: Date) -> String {
        let t = parts(date)
        let day = "\(days[Int(t.tm_wday)]), \(pad(t.tm_mday)) \(months[Int(t.tm_mon)]) \(t.tm_year + 1900)"
        return "\(day) \(pad(t.tm_hour)):\(pad(t.tm_min)):\(pad(t.tm_sec)) GMT"
    }

    /// `2026-12-01T10:11:12.000Z`; S3 keeps whole seconds.
    static func iso(_ date: Date, milliseconds: Bool = true) -> String {
        let t = parts(date)
        let day = "\(t.tm_year + 1900)-\(pad(t.tm_mon + 1))-\(pad(t.tm_mday))"
        return "\(day)T\(pad(t.tm_hour)):\(pad(t.tm_min)):\(pad(t.tm_sec))\(milliseconds ? ".000" : "")Z"
    }

    /// `20261201T101112Z`, exactly, as x-amz-date has it.
    static func parseBasic(_ text: String) -> Date? {
        let bytes = Array(text.utf8)
        guard bytes.count == 16, bytes[8] == 0x54, bytes[15] == 0x5A else { return nil }
        let digits = bytes[0..<8] + bytes[9..<15]
        guard digits.allSatisfy({ (0x30...0x39).contains($0) }) else { return nil }
        let numbers = digits.map { Int32($0) - 0x30 }
        func number(_ range: Range<Int>) -> Int32 { numbers[range].reduce(0) { $0 * 10 + $1 } }
        return date(
            number(0..<4), number(4..<6), number(6..<8), number(8..<10), number(10..<12), number(12..<14))
    }

    /// `2026-12-01T10:11:12Z` with or without a fraction, `Z` or `+00:00`.
    static func parseISO(_ text: String) -> Date? {
        var text = text.trimmingCharacters(in: .whitespacesAndNewlines)
        if text.hasSuffix("+00:00") { text = text.dropLast(6) + "Z" }
        guard text.hasSuffix("Z") else { return nil }
        let body = text.dropLast()
        let halves = body.split(separator: ".", omittingEmptySubsequences: false)
        guard halves.count <= 2, let whole = halves.first, whole.utf8.count == 19 else { return nil }
        let basic = whole.filter { $0 != "-" && $0 != ":" } + "Z"
        guard let date = parseBasic(String(basic)) else { return nil }
        guard halves.count == 2 else { return date }
        return Double("0." + halves[1]).map { date.addingTimeInterval($0) }
    }

    private static func date(
        _ year: Int32, _ month: Int32, _ day: Int32, _ hour: Int32, _ minute: Int32, _ second: Int32
    ) -> Date? {
        guard (1...12).contains(month), (1...31).contains(day), hour < 24, minute < 60, second < 61 else { return nil }
        var t = tm()
        (t.tm_year, t.tm_mon, t.tm_mday) = (year - 1900, month - 1, day)
        (t.tm_hour, t.tm_min, t.tm_sec) = (hour, minute, second)
        return Date(timeIntervalSince1970: Double(timegm(&t)))
    }

    private static func parts(_ date: Date) -> tm {
        var seconds = time_t(date.timeIntervalSince1970.rounded(.down))
        var t = tm()
        gmtime_r(&seconds, &t)
        return t
    }

    private static func pad(_ number: Int32) -> String { number < 10 ? "0\(number)" : "\(number)" }
}
