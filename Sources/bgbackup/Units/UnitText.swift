import BackupBase

/// Values as unit files take them (systemd.syntax(7), systemd.service(5) "Command lines").
enum UnitText {
    /// Words of a command line: no variable of the environment, no specifier and no quote of a
    /// word means anything.
    static func command(_ words: [String]) -> String {
        words.map { quoted($0.replacing("$", with: "$$")) }.joined(separator: " ")
    }

    /// Paths, one after the other.
    static func paths(_ paths: [String]) -> String { paths.map(quoted).joined(separator: " ") }

    /// What stands for itself in a line that is no list: a description, a comment.
    static func line(_ text: String) -> String { printable(text.utf8).replacing("%", with: "%%") }

    private static func quoted(_ word: String) -> String {
        let text = word.replacing("%", with: "%%")
        let isPlain =
            !text.isEmpty
            && text.utf8.allSatisfy { byte in
                switch byte {
                case UInt8(ascii: "a")...UInt8(ascii: "z"), UInt8(ascii: "A")...UInt8(ascii: "Z"): true
                case UInt8(ascii: "0")...UInt8(ascii: "9"): true
                default: "%$-_./:=,@+".utf8.contains(byte)
                }
            }
        guard !isPlain else { return text }
        return "\""
            + text.utf8.map { byte in
                switch byte {
                case UInt8(ascii: "\\"): "\\\\"
                case UInt8(ascii: "\""): "\\\""
                case 0x20...0x7e: String(UnicodeScalar(byte))
                default: "\\x" + [byte].hex
                }
            }.joined() + "\""
    }
}
