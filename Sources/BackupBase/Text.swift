/// Bytes and durations as people read them, and bytes as hexadecimal.

extension Sequence where Element == UInt8 {
    public var hex: String {
        var text: [UInt8] = []
        let digits = Array("0123456789abcdef".utf8)
        for byte in self {
            text.append(digits[Int(byte >> 4)])
            text.append(digits[Int(byte & 15)])
        }
        return String(decoding: text, as: UTF8.self)
    }
}

/// The bytes of an even number of lower-case hexadecimal digits, or nil.
public func bytesFromHex(_ text: some StringProtocol) -> [UInt8]? {
    var result: [UInt8] = []
    var high: UInt8?
    for character in text.utf8 {
        let value: UInt8
        switch character {
        case UInt8(ascii: "0")...UInt8(ascii: "9"): value = character - UInt8(ascii: "0")
        case UInt8(ascii: "a")...UInt8(ascii: "f"): value = character - UInt8(ascii: "a") + 10
        default: return nil
        }
        if let first = high {
            result.append(first << 4 | value)
            high = nil
        } else {
            high = value
        }
    }
    return high == nil ? result : nil
}

/// 1536 → "1.5 KiB".
public func formatBytes(_ count: Int64) -> String {
    let units = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"]
    var value = Double(count)
    var unit = 0
    while value >= 1024, unit < units.count - 1 {
        value /= 1024
        unit += 1
    }
    return unit == 0 ? "\(count) B" : "\(fixed(value, value < 10 ? 2 : 1)) \(units[unit])"
}

/// 93.2 → "1m33s"; 0.41 → "0.41s".
public func formatDuration(_ seconds: Double) -> String {
    guard seconds.isFinite, seconds < 1e9 else { return "?" }
    if seconds < 60 { return "\(fixed(seconds, seconds < 10 ? 2 : 1))s" }
    let whole = Int(seconds.rounded())
    if whole < 3600 { return "\(whole / 60)m\(padded(whole % 60))s" }
    return "\(whole / 3600)h\(padded(whole % 3600 / 60))m"
}

/// `value` with `digits` places after the point (FoundationEssentials has no
/// String(format:), and ICU would cost 44 MB).
public func fixed(_ value: Double, _ digits: Int) -> String {
    var scale = 1.0
    for _ in 0..<digits { scale *= 10 }
    guard value.isFinite, abs(value) * scale < 9e18 else { return "\(value)" }
    let scaled = Int64((value * scale).rounded())
    guard digits > 0 else { return "\(scaled)" }
    let whole = abs(scaled) / Int64(scale)
    let part = "\(abs(scaled) % Int64(scale))"
    return (scaled < 0 ? "-" : "") + "\(whole)." + String(repeating: "0", count: digits - part.count) + part
}

private func padded(_ number: Int) -> String { number < 10 ? "0\(number)" : "\(number)" }

/// A path's bytes for a terminal: UTF-8 as it is, everything that could move a
/// cursor or is no UTF-8 as \xNN.
public func printable(_ path: some Sequence<UInt8>) -> String {
    let raw = Array(path)
    if let text = String(validating: raw, as: UTF8.self),
        !text.unicodeScalars.contains(where: { $0.value < 0x20 || (0x7f...0x9f).contains($0.value) || $0 == "\\" })
    {
        return text
    }
    return raw.map { byte in
        (0x20...0x7e).contains(byte) && byte != UInt8(ascii: "\\")
            ? String(UnicodeScalar(byte)) : "\\x" + [byte].hex
    }.joined()
}

extension RandomAccessCollection where Index == Int {
    /// The first index from which on `belongs` holds, found by halving: elements
    /// for which it does not hold must all stand before those for which it does.
    public func partitioningIndex(where belongs: (Element) -> Bool) -> Int {
        var low = startIndex
        var high = endIndex
        while low < high {
            let middle = (low + high) / 2
            if belongs(self[middle]) { high = middle } else { low = middle + 1 }
        }
        return low
    }
}

/// "20MiB", "1.5 GB", "4096": bytes; decimal units unless they say iB. Nil for what is no size.
public func parseBytes(_ text: String) -> Int? {
    let digits = text.prefix { $0.isNumber || $0 == "." }
    guard let number = Double(digits), let unit = byteUnits[text.dropFirst(digits.count).filter { $0 != " " }.lowercased()],
        number * unit < 9e18
    else { return nil }
    return Int(number * unit)
}

private let byteUnits: [String: Double] = [
    "": 1, "b": 1, "k": 1e3, "kb": 1e3, "m": 1e6, "mb": 1e6, "g": 1e9, "gb": 1e9, "t": 1e12, "tb": 1e12,
    "kib": 1024, "mib": 1_048_576, "gib": 1_073_741_824, "tib": 1_099_511_627_776,
]

/// "%2F" → "/"; nil for what is no percent-encoded UTF-8.
public func percentDecoded(_ text: some StringProtocol) -> String? {
    var bytes: [UInt8] = []
    var rest = Array(text.utf8)[...]
    while let byte = rest.popFirst() {
        guard byte == UInt8(ascii: "%") else {
            bytes.append(byte)
            continue
        }
        guard rest.count >= 2, let value = bytesFromHex(String(decoding: rest.prefix(2), as: UTF8.self).lowercased())
        else { return nil }
        bytes += value
        rest = rest.dropFirst(2)
    }
    return String(validating: bytes, as: UTF8.self)
}

/// "10s", "5m", "1.5h", "2d" or plain seconds as seconds; nil for anything else.
public func parseDuration(_ text: String) -> Double? {
    let units: [Character: Double] = ["s": 1, "m": 60, "h": 3600, "d": 86_400]
    let unit = text.last.flatMap { units[$0] }
    let digits = unit == nil ? text[...] : text.dropLast()
    guard digits.allSatisfy({ $0.isASCII && $0.isNumber || $0 == "." }), let value = Double(digits) else { return nil }
    return value * (unit ?? 1)
}
