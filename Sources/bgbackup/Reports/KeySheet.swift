import BackupBase
import BackupRepository
import ObjectStorage

/// The recovery sheet: what somebody needs who finds the repository and not its
/// keys. One page of A4, also after some rotations; nothing on it opens anything
/// without the password.
struct KeySheet {
    private let repository: String
    private let location: String
    private let created: String
    private let fingerprint: String
    private let pair: Int
    private let password: String
    /// Something else that a restore needs; nil for nothing.
    private let also: String?
    private let lines: [String]

    init(_ export: KeyExport, _ repository: Repository, hasOwnPassword: Bool) {
        self.repository = export.repository
        location = export.location
        created = String(export.created.prefix(10))
        fingerprint = repository.keys.fingerprint
        pair = export.generation
        password =
            hasOwnPassword
            ? "a password of its own, given when it was made" : "the repository's password of \(created)"
        let keyFile: String? =
            if case .customer(let file)? = (repository.store as? S3Store)?.place.encryption { file } else { nil }
        also = keyFile.map { "the key file of the store's own encryption ('sse-c-key', then in \($0)), which is not on it" }
        lines = RecoveryText.lines(export)
    }

    private var facts: [(String, String)] {
        [
            ("Repository", repository), ("Fingerprint", fingerprint), ("Place", location),
            ("Made", "\(created), key pair \(pair)"), ("Opens with", password),
        ] + (also.map { [("Also needed", $0)] } ?? [])
    }

    private static let purpose =
        "With this sheet, its password and access to the place, a repository of bgbackup can be read whose own keys are lost."
        + " The sheet alone opens nothing. Keep it where the repository is not, and the password somewhere else."

    private static let typing =
        "Type the lines into a file, with their numbers. Capitals, blanks and dashes do not matter; O is read as 0, I and L"
        + " as 1. The last group checks its line: a line that is mistyped is named."

    /// What to do, with the command of each step.
    private var steps: [(String, String?)] {
        let url = Self.quoted(location)
        return [
            (
                "Install bgbackup, and put the sheet's password into a file that only you can read."
                    + (location.hasPrefix("s3://") ? " Give it access to the place, by the AWS variables or files." : ""), nil
            ),
            (
                "Check what you typed, and compare the fingerprint. This changes nothing.",
                "bgbackup key import --sheet typed.txt --password-file password.txt -n"
            ),
            (
                "Give the repository a key slot again. The password then opens it.",
                "bgbackup key import --sheet typed.txt --password-file password.txt \\\n  -r \(url)"
            ),
            (
                "See what is there, and restore the newest snapshot into an empty directory.",
                "bgbackup snapshots --password-file password.txt \\\n  -r \(url)\n"
                    + "bgbackup restore latest --target /srv/restored --password-file password.txt \\\n  -r \(url)"
            ),
        ]
    }

    private static func quoted(_ text: String) -> String {
        text.allSatisfy { $0.isLetter || $0.isNumber || "/:._-".contains($0) } ? text : "'\(text.replacing("'", with: "'\\''"))'"
    }

    private func number(_ index: Int) -> String { index < 9 ? " \(index + 1)" : "\(index + 1)" }

    // MARK: - Text

    var text: String {
        var result = "bgbackup recovery sheet\n=======================\n\n\(Self.wrapped(Self.purpose))\n\n"
        for (name, value) in facts {
            result += name + String(repeating: " ", count: 13 - name.count) + printable(value.utf8) + "\n"
        }
        result += "The password is kept at: ______________________________________________\n\nThe key\n-------\n"
        for (index, line) in lines.enumerated() {
            let cut = line.index(line.endIndex, offsetBy: -4)
            result += "\(number(index))  \(line[..<cut]) \(line[cut...])\n"
        }
        result += "\n\(Self.wrapped(Self.typing))\n\nWhat to do\n----------\n"
        for (index, step) in steps.enumerated() {
            result += Self.wrapped("Step \(index + 1). \(step.0)") + "\n"
            for line in (step.1 ?? "").split(separator: "\n") { result += "    \(Self.shown(line))\n" }
        }
        return result
    }

    /// `printable` would show a backslash as an escape.
    private static func shown(_ text: Substring) -> String {
        String(String.UnicodeScalarView(text.unicodeScalars.filter { $0.value >= 0x20 && !(0x7f...0x9f).contains($0.value) }))
    }

    private static func wrapped(_ text: String) -> String {
        var lines: [String] = [""]
        for word in text.split(separator: " ") {
            if lines[lines.count - 1].count + word.count > 78 { lines.append("") }
            lines[lines.count - 1] += (lines[lines.count - 1].isEmpty ? "" : " ") + word
        }
        return lines.joined(separator: "\n")
    }

    // MARK: - HTML

    var html: String {
        """
        <!DOCTYPE html>
        <html lang="en">
        <head>
        <meta charset="utf-8">
        <meta name="viewport" content="width=device-width, initial-scale=1">
        <meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
        <meta name="color-scheme" content="light">
        <title>bgbackup recovery sheet \(escaped(repository))</title>
        <style>\(Self.style)</style>
        </head>
        <body>
        <main>
        <h1>bgbackup recovery sheet</h1>
        <p>\(escaped(Self.purpose))</p>
        <dl>
        \(facts.map { "<dt>\(escaped($0.0))</dt><dd>\(escaped($0.1))</dd>" }.joined(separator: "\n"))
        <dt>Password kept at</dt><dd class="blank"></dd>
        </dl>
        <h2>The key</h2>
        <table><tbody>
        \(lines.enumerated().map { row($0, $1) }.joined(separator: "\n"))
        </tbody></table>
        <p>\(escaped(Self.typing))</p>
        <h2>What to do</h2>
        <ol>
        \(steps.map { item($0.0, $0.1) }.joined(separator: "\n"))
        </ol>
        </main>
        </body>
        </html>

        """
    }

    private func item(_ what: String, _ command: String?) -> String {
        let lines = (command ?? "").split(separator: "\n").map { escaped(String($0)) }
        return "<li>\(escaped(what))\(lines.isEmpty ? "" : "<pre>\(lines.joined(separator: "\n"))</pre>")</li>"
    }

    private func row(_ index: Int, _ line: String) -> String {
        let groups = line.split(separator: " ")
        let cells = groups.dropLast().map { "<td>\($0)</td>" }.joined()
        return "<tr><th>\(index + 1)</th>\(cells)<td class=\"check\">\(groups.last ?? "")</td></tr>"
    }

    /// Black on white also on a dark screen: it is made for paper.
    private static let style = """

        *{box-sizing:border-box}
        body{margin:0;background:#fff;color:#000;font:14px/1.4 system-ui,sans-serif}
        main{max-width:760px;margin:0 auto;padding:24px 16px}
        h1{font-size:22px;margin:0 0 6px;border-bottom:2px solid #000;padding-bottom:6px}
        h2{font-size:15px;margin:16px 0 6px}
        p{margin:0 0 8px}
        dl{display:grid;grid-template-columns:130px 1fr;gap:2px 10px;margin:10px 0 0}
        dt{color:#444}dd{margin:0;overflow-wrap:anywhere;font-weight:600}
        .blank{border-bottom:1px solid #000;height:22px}
        table{border-collapse:collapse;margin:0 0 8px}
        td,th{font:15px/1 ui-monospace,"DejaVu Sans Mono",monospace;padding:4px 7px;text-align:left;letter-spacing:.06em}
        th{color:#444;text-align:right;padding-right:14px;font-size:12px}
        tr:nth-child(even) td,tr:nth-child(even) th{background:#f1f1f1}
        .check{border-left:1px solid #000;font-weight:700}
        ol{margin:0;padding-left:20px}li{margin:0 0 4px}
        pre{margin:3px 0 6px;padding:6px 8px;background:#f1f1f1;font:12px/1.45 ui-monospace,"DejaVu Sans Mono",monospace;white-space:pre-wrap;overflow-wrap:anywhere}
        @media screen and (max-width:560px){dl{grid-template-columns:1fr}dd{margin:0 0 6px}td,th{font-size:11px;padding:4px 2px;letter-spacing:0}th{padding-right:5px}}
        @media print{@page{size:A4;margin:14mm}body{font-size:11.5px}main{padding:0;max-width:none}h1{font-size:18px}h2{font-size:13px;margin:10px 0 4px}
        td,th{font-size:12.5px;padding:2.5px 7px}pre{font-size:10px;padding:4px 6px}*{print-color-adjust:exact;-webkit-print-color-adjust:exact}tr,li{break-inside:avoid}}

        """
}
