import Glibc

/// Where time and chance come from, so that a test can put its own in place.
public struct Ambient: Sendable {
    /// Nanoseconds since 1970, UTC.
    public var now: @Sendable () -> Int64
    /// Fresh bytes that nobody can guess.
    public var random: @Sendable (_ count: Int) -> [UInt8]

    public init(now: @escaping @Sendable () -> Int64, random: @escaping @Sendable (Int) -> [UInt8]) {
        self.now = now
        self.random = random
    }

    /// The system's clock and generator (getrandom through the standard library).
    public static let system = Ambient(
        now: {
            var time = timespec()
            clock_gettime(CLOCK_REALTIME, &time)
            return Int64(time.tv_sec) * 1_000_000_000 + Int64(time.tv_nsec)
        },
        random: { count in
            var generator = SystemRandomNumberGenerator()
            return [UInt8](unsafeUninitializedCapacity: count) { bytes, filled in
                for start in stride(from: 0, to: count, by: 8) {
                    withUnsafeBytes(of: generator.next()) { word in
                        for (offset, byte) in word.prefix(count - start).enumerated() { bytes[start + offset] = byte }
                    }
                }
                filled = count
            }
        })
}

/// Seconds that only ever grow, for durations.
public func monotonicSeconds() -> Double {
    var time = timespec()
    clock_gettime(CLOCK_MONOTONIC, &time)
    return Double(time.tv_sec) + Double(time.tv_nsec) * 1e-9
}

/// Nanoseconds since 1970 as RFC 3339 in UTC with seconds: "2026-11-21T01:02:03Z".
public func formatTime(_ nanoseconds: Int64) -> String {
    formatTime(time_t(nanoseconds / 1_000_000_000), "%Y-%m-%dT%H:%M:%SZ")
}

/// Seconds since 1970 in UTC as strftime(3) writes them.
public func formatTime(_ seconds: Double, _ pattern: String) -> String {
    guard let whole = time_t(exactly: seconds.rounded(.down)) else { return "?" }
    return formatTime(whole, pattern)
}

private func formatTime(_ seconds: time_t, _ pattern: String) -> String {
    var seconds = seconds
    var parts = tm()
    guard gmtime_r(&seconds, &parts) != nil else { return "?" }
    var text = [CChar](repeating: 0, count: 40)
    let length = strftime(&text, text.count, pattern, &parts)
    return String(decoding: text[..<length].map { UInt8(bitPattern: $0) }, as: UTF8.self)
}

/// Nanoseconds since 1970 as RFC 3339 in UTC with nanoseconds.
public func formatTimeExact(_ nanoseconds: Int64) -> String {
    let part = nanoseconds % 1_000_000_000
    let digits = "\(part)"
    return formatTime(nanoseconds).dropLast() + "." + String(repeating: "0", count: max(0, 9 - digits.count)) + digits + "Z"
}

/// RFC 3339 in UTC as `formatTime` and `formatTimeExact` write it, as seconds since 1970; nil for anything else.
public func parseTime(_ text: String) -> Double? {
    let digits = Array(text.utf8)
    guard (20...40).contains(digits.count), digits.last == UInt8(ascii: "Z"), digits[10] == UInt8(ascii: "T") else { return nil }
    func number(_ from: Int, _ count: Int) -> Int32? { Int32(String(decoding: digits[from..<from + count], as: UTF8.self)) }
    guard let year = number(0, 4), let month = number(5, 2), let day = number(8, 2), let hour = number(11, 2),
        let minute = number(14, 2), let second = number(17, 2),
        let fraction = Double("0" + String(decoding: digits[19...].dropLast(), as: UTF8.self))
    else { return nil }
    var parts = tm()
    (parts.tm_year, parts.tm_mon, parts.tm_mday) = (year - 1900, month - 1, day)
    (parts.tm_hour, parts.tm_min, parts.tm_sec) = (hour, minute, second)
    return Double(timegm(&parts)) + fraction
}
