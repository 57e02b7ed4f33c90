import Foundation
import TestSupport
import Testing

@Suite("Manual pages and shell completion")
struct HelpTests {
    static let commands = [
        "init", "backup", "snapshots", "show", "ls", "diff", "restore", "dump", "export", "import", "check", "repair", "key",
        "policy", "forget", "prune", "hold", "release", "warm", "completions", "man",
    ]

    private func run(_ arguments: [String], sourceLocation: SourceLocation = #_sourceLocation) throws -> String {
        let result = try Program.run(Program.binary, arguments)
        try #require(result.status == 0, "\(result.errors)", sourceLocation: sourceLocation)
        #expect(result.errors == "", sourceLocation: sourceLocation)
        return result.output
    }

    @Test func `The completions of bash are a script that completes commands and options`() throws {
        let script = try run(["completions", "bash"])
        let parsed = try Program.run("/bin/bash", ["-n"], input: Data(script.utf8))
        #expect(parsed.status == 0 && parsed.errors == "", "\(parsed.errors)")
        func complete(_ words: String...) throws -> [String] {
            let list = words.map { "'\($0)'" }.joined(separator: " ")
            let test = """
                \(script)
                COMP_WORDS=(\(list)); COMP_CWORD=\(words.count - 1); COMP_LINE="${COMP_WORDS[*]}"; COMP_POINT=${#COMP_LINE}
                handler=$(complete -p bgbackup | sed -E 's/.*-F ([^ ]+).*/\\1/')
                "$handler" bgbackup '\(words.last!)' '\(words.dropLast().last!)'
                printf '%s\\n' "${COMPREPLY[@]}"
                """
            let result = try Program.run("/bin/bash", ["-c", test])
            return result.output.split(separator: "\n").map { $0.trimmingCharacters(in: .whitespaces) }
        }
        #expect(try Set(complete("bgbackup", "")).isSuperset(of: Self.commands))
        #expect(try complete("bgbackup", "rest") == ["restore"])
        #expect(try complete("bgbackup", "restore", "--tar") == ["--target"])
    }

    @Test(arguments: [("zsh", "#compdef bgbackup"), ("fish", "complete -c 'bgbackup'")])
    func `The completions of other shells are for this program`(shell: String, mark: String) throws {
        let script = try run(["completions", shell])
        #expect(script.replacing("'", with: "").contains(mark.replacing("'", with: "")))
        for command in Self.commands { #expect(script.contains(command), "\(command)") }
        if Program.hasTool(shell) {
            #expect(try Program.run("/usr/bin/env", [shell, "-n"], input: Data(script.utf8)).status == 0)
        }
    }

    @Test func `There is a manual page of the program and of every command`() throws {
        for command in [nil] + Self.commands.map(Optional.some) {
            let page = try run(["man"] + (command.map { [$0] } ?? []))
            #expect(page.hasPrefix(".TH "))
            for section in ["NAME", "SYNOPSIS", "OPTIONS", "EXIT STATUS", "SEE ALSO"] {
                #expect(page.contains(".SH \(section)"), "\(command ?? "bgbackup"): \(section)")
            }
            #expect(page.contains("bgbackup"))
        }
    }

    @Test(.enabled(if: Program.hasTool("groff"), "needs groff"), arguments: [nil, "restore", "key", "backup"])
    func `The formatter has nothing to say about it, and the words arrive`(command: String?) throws {
        let page = try run(["man"] + (command.map { [$0] } ?? []))
        let result = try Program.run("/usr/bin/env", ["groff", "-man", "-Tutf8", "-ww", "-K", "utf8"], input: Data(page.utf8))
        #expect(result.status == 0 && result.errors == "", "\(result.errors)")
        let plain = result.output.replacing(/\u{1b}\[[0-9;]*m/, with: "").replacing(/.\u{8}/, with: "")
        let words = [
            nil: ["restore", "--version"], "restore": ["--target", "--resume", "bgbackup restore"], "key": ["export-writer"],
            "backup": ["--writer-key"],
        ]
        for word in words[command]! { #expect(plain.contains(word), "\(word)") }
    }
}
