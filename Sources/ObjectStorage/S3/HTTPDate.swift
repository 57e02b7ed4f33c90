import CCurl
import Glibc

/// "Sun, 06 Nov 1994 08:49:37 GMT" (RFC 9110) as nanoseconds since 1970.
func parseHTTPDate(_ text: String) -> Int64? {
    guard text.utf8.count < 64 else { return nil }
    let seconds = curl_getdate(text, nil)
    return seconds >= 0 ? nanoseconds(Int64(seconds)) : nil
}

/// "2009-10-12T17:50:30.000Z", as S3 lists it, as nanoseconds since 1970.
func parseListDate(_ text: String) -> Int64? {
    guard text.utf8.count < 40, text.hasSuffix("Z") else { return nil }
    let halves = text.dropLast().split(separator: ".", maxSplits: 1, omittingEmptySubsequences: false)
    let numbers = halves[0].split(omittingEmptySubsequences: false, whereSeparator: { "-T:".contains($0) }).map {
        Int32($0) ?? -1
    }
    guard numbers.count == 6, numbers.allSatisfy({ $0 >= 0 }), (1970...9999).contains(numbers[0]),
        (1...12).contains(numbers[1]), (1...31).contains(numbers[2]), numbers[3] < 24, numbers[4] < 60, numbers[5] <= 60
    else { return nil }
    var parts = tm()
    (parts.tm_year, parts.tm_mon, parts.tm_mday) = (numbers[0] - 1900, numbers[1] - 1, numbers[2])
    (parts.tm_hour, parts.tm_min, parts.tm_sec) = (numbers[3], numbers[4], numbers[5])
    let digits = halves.count > 1 ? halves[1].prefix(9) : "0"
    guard digits.utf8.allSatisfy({ (0x30...0x39).contains($0) }),
        let part = Int64(digits + String(repeating: "0", count: 9 - digits.count))
    else { return nil }
    return nanoseconds(Int64(timegm(&parts))) + part
}

/// Locks until 9999 are as good as those until 2255, and nothing that is added to them overflows.
private func nanoseconds(_ seconds: Int64) -> Int64 { min(seconds, 9_000_000_000) * 1_000_000_000 }
