import BackupBase
import Yams

/// A policy file's text on its way to YAML nodes.
///
/// Yams builds what aliases name without copying it, but compares and hashes
/// keys whole: a few lines of aliases in a key would take for ever. So anchors
/// are refused before it sees them; nesting libyaml bounds itself (1000).
struct PolicySource {
    let file: String
    let text: String

    /// Bytes of a file.
    static let most = 1 << 20

    func issue(_ line: Int, _ column: Int, _ message: String, _ suggestion: String? = nil) -> PolicyIssue {
        PolicyIssue(
            file: file, severity: .error, origin: .file(line: line, column: column), message: message, suggestion: suggestion)
    }

    /// The document's root.
    func compose() throws(PolicyFault) -> Node {
        if let (line, column) = anchor {
            throw PolicyFault(
                issue(line, column, "anchors and aliases (&name, *name) are refused", "write the value out wherever it is needed")
            )
        }
        let node: Node?
        do {
            // Without rules of YAML 1.1 for plain texts: `yes` and `22:00` are what they are.
            node = try Yams.compose(yaml: text, .basic, .default, .utf8)
        } catch let error as YamlError {
            throw PolicyFault(issue(of: error))
        } catch {
            throw PolicyFault(issue(1, 1, "cannot be read: \(error)"))
        }
        guard let node else { throw PolicyFault(issue(1, 1, "the file is empty", "see the examples in policies/")) }
        return node
    }

    /// Where an anchor could be: '&' and a name, at a place where a token may begin. In a line that is a comment
    /// there is none; at the end of a line, or inside quotes, a '&' like that is refused too.
    private var anchor: (line: Int, column: Int)? {
        var (line, column) = (1, 0)
        var previous: Unicode.Scalar = "\n"
        var pending = false
        var isComment = false
        var isIndentation = true
        for scalar in text.unicodeScalars {
            if pending, isName(scalar) { return (line, column) }
            pending = false
            column += 1
            if isBreak(scalar) {
                // "\r\n" is one.
                if !(scalar == "\n" && previous == "\r") { line += 1 }
                column = 0
                isComment = false
                isIndentation = true
            } else if isIndentation {
                if scalar == "#" { isComment = true }
                isIndentation = scalar == " " || scalar == "\t"
            }
            if scalar == "&", !isComment { pending = !isInsideWord(previous) }
            previous = scalar
        }
        return nil
    }

    private func isName(_ scalar: Unicode.Scalar) -> Bool {
        scalar.isASCII && (scalar.properties.isAlphabetic || ("0"..."9").contains(scalar) || scalar == "-" || scalar == "_")
    }
    private func isInsideWord(_ scalar: Unicode.Scalar) -> Bool { isName(scalar) || "%=./+~&".unicodeScalars.contains(scalar) }
    private func isBreak(_ scalar: Unicode.Scalar) -> Bool { ["\n", "\r", "\u{85}", "\u{2028}", "\u{2029}"].contains(scalar) }

    // MARK: - What YAML says

    private func issue(of error: YamlError) -> PolicyIssue {
        switch error {
        case .scanner(let context, let problem, let mark, _), .parser(let context, let problem, let mark, _),
            .composer(let context, let problem, let mark, _):
            return syntax(context, problem, mark)
        case .duplicatedKeysInMapping(let keys, let context): return duplicate(keys.sorted().first ?? "", context.mark)
        case .reader(let problem, let offset, _, _):
            let (line, column) = place(offset ?? 0)
            return issue(line, column, "is not readable as text: \(problem)")
        default: return issue(1, 1, "cannot be read as YAML")
        }
    }

    private func syntax(_ context: YamlError.Context?, _ problem: String, _ mark: Mark) -> PolicyIssue {
        let isAlias = context?.text.contains("alias") == true || problem.contains("alias")
        if isAlias {
            let place = context?.mark ?? mark
            return issue(
                place.line, place.column, "a text that begins with '*' has to stand in quotes",
                "did you mean \"\(printable(rest(of: place).utf8))\"?")
        }
        if problem.contains("nesting") { return issue(mark.line, mark.column, "is nested too deeply") }
        if problem.contains("another document") {
            return issue(mark.line, mark.column, "a second document begins", "one file holds one policy")
        }
        let begin = rest(of: mark).unicodeScalars.first
        var suggestion: String?
        switch begin {
        case "\t": suggestion = "indent with spaces, not with tabs"
        case "@", "`", "%", "&", "!", "|", ">": suggestion = "a text that begins with '\(begin!)' has to stand in quotes"
        default:
            if problem.contains("mapping values are not allowed") {
                suggestion = "check the indentation, or put a text with ': ' in it in quotes"
            } else if problem.contains("could not find expected ':'") {
                suggestion = "a key ends with ':'"
            } else if problem.contains("expected <block end>") {
                suggestion = "check the indentation: keys of one mapping stand below each other"
            }
        }
        return issue(mark.line, mark.column, "is no YAML: \(context.map { "\($0.text), " } ?? "")\(problem)", suggestion)
    }

    /// Yams tells the first of the two: the second is looked for below it.
    private func duplicate(_ key: String, _ first: Mark) -> PolicyIssue {
        let message = "the key \(shown(key)) is there twice"
        for (number, line) in lines.enumerated().dropFirst(first.line) {
            let scalars = line.unicodeScalars
            let indent = scalars.prefix { $0 == " " }.count
            guard indent < scalars.count, scalars.dropFirst(indent).first != "#" else { continue }
            if indent < first.column - 1 { break }
            let text = String(scalars.dropFirst(indent)).replacing("\"", with: "").replacing("'", with: "")
            if indent == first.column - 1, text.hasPrefix("\(key):") {
                return issue(number + 1, first.column, message, "the first is in line \(first.line)")
            }
        }
        return issue(first.line, first.column, message, "remove one of them")
    }

    private var lines: [Substring] { text.split(separator: "\n", omittingEmptySubsequences: false) }

    /// The line's text from a place on, without a comment.
    private func rest(of mark: Mark) -> String {
        guard mark.line >= 1, mark.line <= lines.count else { return "" }
        var scalars = lines[mark.line - 1].unicodeScalars.dropFirst(mark.column - 1)
        while let last = scalars.last, last == " " || last == "\r" { scalars.removeLast() }
        return String(scalars)
    }

    private func place(_ offset: Int) -> (line: Int, column: Int) {
        var (line, column) = (1, 1)
        for character in text.prefix(offset) {
            column += 1
            if character.isNewline { (line, column) = (line + 1, 1) }
        }
        return (line, column)
    }
}

/// A file that cannot be read any further.
struct PolicyFault: Error {
    let issue: PolicyIssue

    init(_ issue: PolicyIssue) { self.issue = issue }
}
