import BackupBase

/// Numbers with a unit: the unit is never guessed.
extension PolicyScalar {
    static let durationUnits: [(name: String, seconds: Double)] = [
        ("s", 1), ("m", 60), ("h", 3600), ("d", 86_400), ("w", 7 * 86_400), ("y", 365 * 86_400),
    ]
    static let sizeUnits: [(name: String, bytes: Double)] = [
        ("B", 1), ("KB", 1e3), ("MB", 1e6), ("GB", 1e9), ("TB", 1e12), ("KiB", 1024), ("MiB", 1_048_576),
        ("GiB", 1_073_741_824), ("TiB", 1_099_511_627_776),
    ]

    /// Number and unit of "14d"; nil where there is no number in front.
    private static func parts(_ text: String) -> (number: String, unit: String)? {
        let number = text.prefix { $0.isASCII && $0.isNumber || $0 == "." }
        let halves = number.split(separator: ".", omittingEmptySubsequences: false)
        guard !number.isEmpty, halves.count <= 2, halves.allSatisfy({ !$0.isEmpty }), number.utf8.count <= 18 else { return nil }
        return (String(number), String(text.dropFirst(number.count)))
    }

    static func duration(_ text: String, _ range: ClosedRange<Double>) throws(PolicyComplaint) -> Double {
        let valid = "valid units: \(durationUnits.map(\.name).joined(separator: ", "))"
        if text.hasPrefix("-"), parts(String(text.dropFirst())) != nil {
            throw PolicyComplaint("\(shown(text)) is negative", "valid: \(words(range.lowerBound)) to \(words(range.upperBound))")
        }
        guard let (number, unit) = parts(text) else {
            throw PolicyComplaint("\(shown(text)) is no duration", "write one number and one unit, for example 48h; \(valid)")
        }
        guard !unit.isEmpty else {
            throw PolicyComplaint("\(shown(text)) has no unit", "did you mean '\(number)s' or '\(number)h'? \(valid)")
        }
        guard let found = durationUnits.first(where: { $0.name == unit }) else {
            let meant = durationWords[unit.filter { $0 != " " }.lowercased()]
            let several = unit.contains { $0.isNumber }
            throw PolicyComplaint(
                several ? "\(shown(text)) has several units" : "\(shown(text)) has the unit \(shown(unit)), which is not known",
                several
                    ? "write one number and one unit, for example 90m" : meant.map { "did you mean '\(number)\($0)'?" } ?? valid)
        }
        let seconds = (Double(number) ?? 0) * found.seconds
        guard range.contains(seconds) else {
            throw PolicyComplaint(
                "\(shown(text)) is out of range", "valid: \(words(range.lowerBound)) to \(words(range.upperBound))")
        }
        return seconds
    }

    private static let durationWords: [String: String] = [
        "s": "s", "sec": "s", "secs": "s", "second": "s", "seconds": "s", "m": "m", "min": "m", "mins": "m", "minute": "m",
        "minutes": "m", "h": "h", "hr": "h", "hrs": "h", "hour": "h", "hours": "h", "d": "d", "day": "d", "days": "d", "w": "w",
        "wk": "w", "week": "w", "weeks": "w", "y": "y", "yr": "y", "year": "y", "years": "y",
    ]

    static func size(_ text: String, isRate: Bool) throws(PolicyComplaint) -> Double {
        let noun = isRate ? "rate" : "size"
        let valid = "valid units: \(sizeUnits.map { $0.name + (isRate ? "/s" : "") }.joined(separator: ", "))"
        guard let (number, rest) = parts(text) else { throw PolicyComplaint("\(shown(text)) is no \(noun)", valid) }
        let perSecond = rest.hasSuffix("/s")
        let unit = perSecond ? String(rest.dropLast(2)) : rest
        guard let found = sizeUnits.first(where: { $0.name == unit }) else {
            guard !rest.isEmpty else {
                throw PolicyComplaint("\(shown(text)) has no unit", "did you mean '\(number)MiB\(isRate ? "/s" : "")'? \(valid)")
            }
            let meant = sizeWord(unit).map { "did you mean '\(number)\($0)\(isRate ? "/s" : "")'?" }
            throw PolicyComplaint("\(shown(text)) has the unit \(shown(rest)), which is not known", meant ?? valid)
        }
        guard perSecond == isRate else {
            throw PolicyComplaint(
                isRate ? "\(shown(text)) is a size, not a rate" : "\(shown(text)) is a rate, not a size",
                "did you mean '\(number)\(unit)\(isRate ? "/s" : "")'?")
        }
        let bytes = (Double(number) ?? 0) * found.bytes
        guard bytes >= 1024, bytes <= 1e15 else {
            throw PolicyComplaint(
                "\(shown(text)) is out of range", "valid: 1KiB\(isRate ? "/s" : "") to 1000TB\(isRate ? "/s" : "")")
        }
        return bytes
    }

    /// "mb", "M", "mib ": what was meant. Bits are not: a factor of eight is no detail.
    private static func sizeWord(_ unit: String) -> String? {
        let plain = unit.filter { $0 != " " }
        if plain.lowercased().hasSuffix("bit") || plain.lowercased().hasSuffix("bps") { return nil }
        return sizeUnits.first { $0.name.lowercased() == plain.lowercased() }?.name
            ?? sizeUnits.first { $0.name.count == 3 && $0.name.prefix(1).lowercased() == plain.lowercased() }?.name
    }

    /// 5400 → "90m"; the largest unit that needs no fraction.
    static func words(_ seconds: Double) -> String {
        for unit in durationUnits.reversed()
        where seconds >= unit.seconds && (seconds / unit.seconds).rounded() == seconds / unit.seconds {
            return "\(Int(seconds / unit.seconds))\(unit.name)"
        }
        return "\(seconds)s"
    }
}
