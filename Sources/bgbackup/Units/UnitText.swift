import BackupBase

/// Values as unit files take them (systemd.syntax(7), systemd.service(5) "Command lines").
enum UnitText {
    /// A program and its arguments: no variable of the environment, no specifier and no quote of
    /// a word means anything. In the program's own path `$` is no variable's sign (systemd 252
    /// would look for `$$`).
    static func command(_ program: String, _ arguments: [String]) -> String {
        ([quoted(program)] + arguments.map { quoted($0.replacing("$", with: "$$")) }).joined(separator: " ")
    }

    /// Whether systemd takes a word as it is, wherever it stands.
    static func isPlain(_ word: String) -> Bool {
        !word.isEmpty
            && word.utf8.allSatisfy { byte in
                switch byte {
                case UInt8(ascii: "a")...UInt8(ascii: "z"), UInt8(ascii: "A")...UInt8(ascii: "Z"): true
                case UInt8(ascii: "0")...UInt8(ascii: "9"): true
                default: "-_./:=,@+".utf8.contains(byte)
                }
            }
    }

    /// Paths, one after the other.
    static func paths(_ paths: [String]) -> String { paths.map(quoted).joined(separator: " ") }

    /// What stands for itself in a line that is no list: a description, a comment.
    static func line(_ text: String) -> String { printable(text.utf8).replacing("%", with: "%%") }

    private static func quoted(_ word: String) -> String {
        let text = word.replacing("%", with: "%%")
        if isPlain(text.replacing("%", with: "").replacing("$", with: "")) { return text }
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
