import BackupBase

/// Names of units and of their instances (systemd.unit(5)).
enum UnitName {
    /// Characters of a whole name at the most.
    static let limit = 255

    /// What `systemd-escape TEXT` prints: `/` as `-`, and all but letters, digits, `:`, `_` and
    /// `.` as `\xNN`, a `.` at the beginning too.
    static func escaped(_ text: String) -> String {
        text.utf8.enumerated().map { index, byte in
            switch byte {
            case UInt8(ascii: "/"): "-"
            case UInt8(ascii: ".") where index == 0: hexadecimal(byte)
            case UInt8(ascii: ":"), UInt8(ascii: "_"), UInt8(ascii: "."): String(UnicodeScalar(byte))
            case _ where isAlphanumeric(byte): String(UnicodeScalar(byte))
            default: hexadecimal(byte)
            }
        }.joined()
    }

    /// The instance for a policy and one of its schedules: `qdrant-prod:hourly`.
    ///
    /// Letters, digits, `_`, `.` and `-` stand for themselves, because people type these names;
    /// a part that holds anything else is escaped as a whole. Two names are never one: an
    /// escaped part holds a backslash, and no part holds a `:`.
    /// - Throws: `.usage` for what can be no name
    static func instance(_ policy: String, _ schedule: String?) throws -> String {
        try ([policy] + (schedule.map { [$0] } ?? [])).map(part).joined(separator: ":")
    }

    /// `bgbackup-backup@qdrant-prod:hourly.timer`
    static func unit(_ template: String, _ instance: String, _ type: String) throws -> String {
        let name = "\(template)@\(instance).\(type)"
        guard name.utf8.count <= limit else {
            throw BackupError(
                .usage, "'\(printable(name.utf8))' is too long for a unit's name",
                hint: "Give the policy or its schedule a shorter name.")
        }
        return name
    }

    private static func part(_ text: String) throws -> String {
        guard !text.isEmpty, !text.utf8.contains(where: { $0 < 0x20 || $0 == 0x7f || $0 == UInt8(ascii: "/") }) else {
            throw BackupError(
                .usage, "'\(printable(text.utf8))' cannot name a unit",
                hint: "Use letters, digits, '-', '_' and '.' in the names of policies and schedules.")
        }
        let isPlain =
            !text.hasPrefix(".")
            && text.utf8.allSatisfy {
                isAlphanumeric($0) || [UInt8(ascii: "_"), UInt8(ascii: "."), UInt8(ascii: "-")].contains($0)
            }
        return isPlain ? text : escaped(text).replacing(":", with: "\\x3a")
    }

    private static func isAlphanumeric(_ byte: UInt8) -> Bool {
        switch byte {
        case UInt8(ascii: "a")...UInt8(ascii: "z"), UInt8(ascii: "A")...UInt8(ascii: "Z"), UInt8(ascii: "0")...UInt8(ascii: "9"):
            true
        default: false
        }
    }

    private static func hexadecimal(_ byte: UInt8) -> String { "\\x" + [byte].hex }
}
