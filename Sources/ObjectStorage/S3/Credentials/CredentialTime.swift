/// The times at which keys end, as AWS services and programs write them.
enum CredentialTime {
    /// Nanoseconds since 1970 of an RFC 3339 time, with "Z" or an offset (its
    /// colon may be missing, as in ISO 8601's basic form) and any fraction; nil
    /// for anything else. A time beyond 2262 is `Int64.max`: programs write
    /// 9999-12-31 for "never". One before 1970 is 0.
    static func parse(_ text: String) -> Int64? {
        var scanner = Scanner(rest: Array(text.utf8)[...])
        guard let year = scanner.number(4), scanner.skip("-"), let month = scanner.number(2), scanner.skip("-"),
            let day = scanner.number(2), scanner.skip("Tt "),
            let hour = scanner.number(2), scanner.skip(":"), let minute = scanner.number(2), scanner.skip(":"),
            let second = scanner.number(2), let fraction = scanner.fraction(), let offset = scanner.offset(),
            scanner.rest.isEmpty
        else { return nil }
        guard (1...12).contains(month), day >= 1, day <= days(of: month, in: year), hour <= 23, minute <= 59, second <= 60
        else { return nil }
        let seconds = dayNumber(year, month, day) * 86400 + hour * 3600 + minute * 60 + second - offset
        return nanoseconds(seconds, fraction)
    }

    /// Nanoseconds since 1970 of seconds since then, as STS writes times in JSON.
    static func nanoseconds(seconds: Double) -> Int64 {
        seconds >= 9.2e9 ? .max : Int64(max(0, seconds) * 1e9)
    }

    private static func nanoseconds(_ seconds: Int, _ fraction: Int) -> Int64 {
        if seconds < 0 { return 0 }
        return seconds >= 9_200_000_000 ? .max : Int64(seconds) * 1_000_000_000 + Int64(fraction)
    }

    private static func days(of month: Int, in year: Int) -> Int {
        let isLeap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0)
        return [31, isLeap ? 29 : 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31][month - 1]
    }

    /// Days since 1970-01-01 in the Gregorian calendar (Hinnant, "chrono-Compatible
    /// Low-Level Date Algorithms": years begin in March, so that a leap day is the last).
    private static func dayNumber(_ year: Int, _ month: Int, _ day: Int) -> Int {
        let shifted = month > 2 ? year : year - 1
        let era = (shifted >= 0 ? shifted : shifted - 399) / 400
        let yearOfEra = shifted - era * 400
        let dayOfYear = (153 * (month > 2 ? month - 3 : month + 9) + 2) / 5 + day - 1
        return era * 146_097 + yearOfEra * 365 + yearOfEra / 4 - yearOfEra / 100 + dayOfYear - 719_468
    }

    private struct Scanner {
        var rest: ArraySlice<UInt8>

        /// Exactly `digits` digits.
        mutating func number(_ digits: Int) -> Int? {
            guard rest.count >= digits else { return nil }
            var value = 0
            for byte in rest.prefix(digits) {
                guard (0x30...0x39).contains(byte) else { return nil }
                value = value * 10 + Int(byte - 0x30)
            }
            rest = rest.dropFirst(digits)
            return value
        }

        mutating func skip(_ any: String) -> Bool {
            guard let byte = rest.first, any.utf8.contains(byte) else { return false }
            rest = rest.dropFirst()
            return true
        }

        /// Nanoseconds of ".123"; 0 where there is none; nil for a point without digits.
        mutating func fraction() -> Int? {
            guard skip(".") else { return 0 }
            let digits = rest.prefix { (0x30...0x39).contains($0) }
            rest = rest.dropFirst(digits.count)
            let nine = digits.prefix(9).map { Int($0 - 0x30) } + Array(repeating: 0, count: max(0, 9 - digits.count))
            return digits.isEmpty ? nil : nine.reduce(0) { $0 * 10 + $1 }
        }

        /// Seconds east of Greenwich.
        mutating func offset() -> Int? {
            if skip("Zz") { return 0 }
            let sign = rest.first == UInt8(ascii: "-") ? -1 : 1
            guard skip("+-"), let hours = number(2) else { return nil }
            _ = skip(":")
            guard let minutes = number(2), hours <= 23, minutes <= 59 else { return nil }
            return sign * (hours * 3600 + minutes * 60)
        }
    }
}
