import BackupBase

/// The kinds of single values, and how a text becomes one.
///
/// The text is what stands in the file: YAML 1.1 would make `no` false, `22:00`
/// the number 1320 and `010` eight.
public enum PolicyScalar: Sendable {
    /// Lower case, digits and hyphens: fit for file and unit names.
    case name
    /// One line of printable text.
    case word
    /// A word of a command line.
    case argument
    case choice([String])
    case boolean
    case integer(ClosedRange<Int>)
    /// 0…1
    case ratio
    /// Seconds.
    case duration(ClosedRange<Double>)
    /// Bytes.
    case size
    /// Bytes a second.
    case rate
    /// Above 0, up to 100.
    case percent
    /// "22:00": minutes since midnight.
    case timeOfDay
    case calendar
    /// Absolute.
    case path
    /// http:// or https://
    case address
    case repository
    /// Name of a systemd credential.
    case credential

    /// - Parameter isPlain: whether it stands there without quotes
    func value(of text: String, isPlain: Bool) throws(PolicyComplaint) -> PolicyNode.Value {
        guard text.utf8.count <= 4096 else { throw PolicyComplaint("is longer than 4096 bytes") }
        switch self {
        case .name: return .text(try Self.name(text))
        case .word: return .text(try Self.word(text, most: 256))
        case .argument: return .text(try Self.word(text, most: 4096))
        case .choice(let names):
            guard names.contains(text) else {
                let near = nearest(text, among: names).map { "did you mean '\($0)'?" }
                throw PolicyComplaint("\(shown(text)) is not known", near ?? "valid: \(names.joined(separator: ", "))")
            }
            return .text(text)
        case .boolean: return .boolean(try Self.boolean(text, isPlain: isPlain))
        case .integer(let range): return .integer(try Self.integer(text, range))
        case .ratio: return .number(try Self.ratio(text))
        case .duration(let range): return .quantity(text, try Self.duration(text, range))
        case .size: return .quantity(text, try Self.size(text, isRate: false))
        case .rate: return .quantity(text, try Self.size(text, isRate: true))
        case .percent: return .quantity(text, try Self.percent(text))
        case .timeOfDay: return .quantity(text, try Self.timeOfDay(text))
        case .calendar:
            _ = try CalendarExpression(text)
            return .text(text)
        case .path: return .text(try Self.path(text))
        case .address: return .text(try Self.address(text))
        case .repository: return .text(try Self.repository(text))
        case .credential:
            let name = try Self.word(text, most: 200)
            guard !name.contains("/"), name != ".", name != ".." else {
                throw PolicyComplaint("\(shown(text)) is no name of a credential", "for a file write {file: /path}")
            }
            return .text(name)
        }
    }

    /// What belongs there, in words.
    var expectation: String {
        switch self {
        case .name: "a name of a-z, 0-9 and '-'"
        case .word, .argument: "a text"
        case .choice(let names): names.count == 1 ? "'\(names[0])'" : "one of \(names.joined(separator: ", "))"
        case .boolean: "true or false"
        case .integer(let range): "a whole number from \(range.lowerBound) to \(range.upperBound)"
        case .ratio: "a number from 0 to 1"
        case .duration: "a duration such as 90s, 48h, 14d, 2w or 1y"
        case .size: "a size such as 512MiB"
        case .rate: "a rate such as 80MiB/s"
        case .percent: "a share such as 5%"
        case .timeOfDay: "a time such as \"22:00\""
        case .calendar: "a calendar expression such as \"daily\" or \"*-*-* 02:00:00\""
        case .path: "an absolute path"
        case .address: "an address such as http://127.0.0.1:6333"
        case .repository: "a path, file:///path or s3://BUCKET/PREFIX"
        case .credential: "a name of a systemd credential"
        }
    }

    // MARK: - Texts

    private static func name(_ text: String) throws(PolicyComplaint) -> String {
        func isFit(_ byte: UInt8) -> Bool {
            (UInt8(ascii: "a")...UInt8(ascii: "z")).contains(byte) || (UInt8(ascii: "0")...UInt8(ascii: "9")).contains(byte)
        }
        guard !text.isEmpty, text.utf8.count <= 63, text.utf8.allSatisfy({ isFit($0) || $0 == UInt8(ascii: "-") }),
            text.first != "-", text.last != "-"
        else {
            let kept = text.lowercased().utf8.map { isFit($0) ? $0 : UInt8(ascii: "-") }
            let better = String(decoding: kept, as: UTF8.self).split(separator: "-").joined(separator: "-")
            let isUsable = !better.isEmpty && better.utf8.count <= 63
            throw PolicyComplaint(
                "\(shown(text)) is no name: a-z, 0-9 and '-' inside, at most 63",
                isUsable ? "did you mean '\(better)'?" : nil)
        }
        return text
    }

    private static func word(_ text: String, most: Int) throws(PolicyComplaint) -> String {
        guard !text.isEmpty else { throw PolicyComplaint("is an empty text") }
        guard text.utf8.count <= most else { throw PolicyComplaint("is longer than \(most) bytes") }
        guard !text.unicodeScalars.contains(where: { $0.value < 0x20 || (0x7f...0x9f).contains($0.value) }) else {
            throw PolicyComplaint("\(shown(text)) has control characters or several lines", "give one line")
        }
        return text
    }

    private static func path(_ text: String) throws(PolicyComplaint) -> String {
        _ = try word(text, most: 4096)
        if text.hasPrefix("~") {
            throw PolicyComplaint("\(shown(text)) begins with '~', which nothing expands", "write the path in full")
        }
        if text.contains("$") {
            throw PolicyComplaint("\(shown(text)) has a variable, which nothing expands", "write the path in full")
        }
        guard text.hasPrefix("/") else {
            throw PolicyComplaint("\(shown(text)) is not absolute", "did you mean '/\(printable(text.utf8))'?")
        }
        let parts = text.split(separator: "/")
        guard !parts.contains(".."), !parts.contains(".") else {
            throw PolicyComplaint("\(shown(text)) has a '.' or '..' in it", "write the path that it leads to")
        }
        return "/" + parts.joined(separator: "/")
    }

    private static func address(_ text: String) throws(PolicyComplaint) -> String {
        _ = try word(text, most: 2048)
        let scheme = text.hasPrefix("http://") ? "http://" : text.hasPrefix("https://") ? "https://" : nil
        guard let scheme else {
            let hasOther = text.contains("://") || text.contains("@")
            throw PolicyComplaint(
                "is no http:// or https:// address", hasOther ? nil : "did you mean 'http://\(printable(text.utf8))'?")
        }
        let host = text.dropFirst(scheme.count).prefix { $0 != "/" && $0 != "?" && $0 != "#" }
        // Not repeated: somebody put a password there.
        guard !host.contains("@") else {
            throw PolicyComplaint("an address must not hold user and password", "give the key with apiKey: {file: /path}")
        }
        guard !host.isEmpty, !text.contains(" ") else { throw PolicyComplaint("\(shown(text)) names no host") }
        return text
    }

    private static func repository(_ text: String) throws(PolicyComplaint) -> String {
        _ = try word(text, most: 2048)
        if text.hasPrefix("s3://") {
            guard !text.contains("?") else {
                throw PolicyComplaint(
                    "carries options of the URL", "write them as keys, for example s3: {region: eu-central-1}")
            }
            return text
        }
        if text.hasPrefix("file://") { return "file://" + (try path(String(text.dropFirst("file://".count)))) }
        if text.contains("://") {
            throw PolicyComplaint("is no store that bgbackup knows", "valid: a path, file:///path or s3://BUCKET/PREFIX")
        }
        return try path(text)
    }

    // MARK: - Numbers

    private static func boolean(_ text: String, isPlain: Bool) throws(PolicyComplaint) -> Bool {
        switch text {
        case "true" where isPlain: return true
        case "false" where isPlain: return false
        default:
            let meant: String? =
                switch text.lowercased() {
                case "true", "yes", "on", "y", "1": "true"
                case "false", "no", "off", "n", "0": "false"
                default: nil
                }
            throw PolicyComplaint(
                "\(shown(text)) is not true or false", meant.map { "did you mean \($0), without quotes?" } ?? "valid: true, false"
            )
        }
    }

    private static func integer(_ text: String, _ range: ClosedRange<Int>) throws(PolicyComplaint) -> Int {
        let digits = text.hasPrefix("-") ? text.dropFirst() : text[...]
        guard !digits.isEmpty, digits.utf8.allSatisfy({ (0x30...0x39).contains($0) }) else {
            let plain = text.filter { $0 != "_" && $0 != "," && $0 != "." && $0 != " " }
            let meant = text.contains(".") || text.contains(",") ? nil : Int(plain)
            throw PolicyComplaint("\(shown(text)) is no whole number", meant.map { "did you mean \($0)?" })
        }
        // 1.1 reads it as octal, people as decimal.
        guard digits.count == 1 || digits.first != "0" else {
            throw PolicyComplaint(
                "\(shown(text)) begins with a zero", "did you mean \(Int(digits).map { "\($0)" } ?? "0")?")
        }
        guard let number = Int(text), range.contains(number) else {
            throw PolicyComplaint("\(shown(text)) is out of range", "valid: \(range.lowerBound) to \(range.upperBound)")
        }
        return number
    }

    /// "1.5": digits, and digits after a point.
    private static func decimal(_ text: some StringProtocol) -> Double? {
        let parts = text.split(separator: ".", omittingEmptySubsequences: false)
        guard (1...2).contains(parts.count),
            parts.allSatisfy({ !$0.isEmpty && $0.utf8.allSatisfy { (0x30...0x39).contains($0) } }),
            text.utf8.count <= 18
        else { return nil }
        return Double(String(text))
    }

    private static func ratio(_ text: String) throws(PolicyComplaint) -> Double {
        if text.hasSuffix("%"), let percent = decimal(text.dropLast()) {
            throw PolicyComplaint("\(shown(text)) is a percentage, not a number from 0 to 1", "did you mean \(percent / 100)?")
        }
        guard let number = decimal(text) else {
            let meant = text.hasPrefix(".") ? decimal("0\(text)") : nil
            throw PolicyComplaint("\(shown(text)) is no number from 0 to 1", meant.map { "did you mean \($0)?" })
        }
        guard number <= 1 else { throw PolicyComplaint("\(shown(text)) is out of range", "valid: 0 to 1") }
        return number
    }

    private static func percent(_ text: String) throws(PolicyComplaint) -> Double {
        guard text.hasSuffix("%"), let number = decimal(text.dropLast()) else {
            throw PolicyComplaint(
                "\(shown(text)) is no share in percent", decimal(text).map { _ in "did you mean '\(text)%'?" } ?? "write it as 5%"
            )
        }
        guard number > 0, number <= 100 else {
            throw PolicyComplaint("\(shown(text)) is out of range", "valid: above 0% to 100%")
        }
        return number
    }

    private static func timeOfDay(_ text: String) throws(PolicyComplaint) -> Double {
        let parts = text.split(separator: ":", omittingEmptySubsequences: false).map { decimal($0).map { Int($0) } }
        if parts.count == 2, let hour = parts[0], let minute = parts[1], (0..<24).contains(hour), (0..<60).contains(minute),
            text.utf8.count == 5, !text.contains(".")
        {
            return Double(hour * 60 + minute)
        }
        func two(_ number: Int) -> String { number < 10 ? "0\(number)" : "\(number)" }
        var meant: String?
        if let hour = parts.first ?? nil, (0...24).contains(hour), parts.count <= 3 {
            let minute = parts.count > 1 ? parts[1] : 0
            meant = minute.flatMap { (0..<60).contains($0) ? "did you mean \"\(two(hour % 24)):\(two($0))\"?" : nil }
        }
        throw PolicyComplaint("\(shown(text)) is no time of day", meant ?? "write it as \"22:00\"")
    }
}
