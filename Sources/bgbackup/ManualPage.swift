import ArgumentParser
import BackupBase
import FoundationEssentials

/// Manual pages out of what the argument parser knows of itself, so that page
/// and program cannot differ.
enum ManualPage {
    private struct Dump: Decodable { let command: Command }
    private struct Command: Decodable {
        let commandName: String
        let abstract: String?
        let discussion: String?
        let subcommands: [Command]?
        let arguments: [Argument]?
    }
    private struct Argument: Decodable {
        struct Name: Decodable {
            let kind: String
            let name: String
        }
        let kind: String
        let shouldDisplay: Bool
        let isOptional: Bool
        let isRepeating: Bool
        let names: [Name]?
        let valueName: String?
        let abstract: String?
        let discussion: String?
    }

    /// The page in roff. Throws `.usage` for a command there is none of.
    static func render(_ name: String?) throws -> String {
        let root = try JSONDecoder().decode(Dump.self, from: Data(BGBackup._dumpHelp().utf8)).command
        guard let name else { return page(root, title: "bgbackup", all: root.subcommands ?? []) }
        guard let command = root.subcommands?.first(where: { $0.commandName == name }) else {
            throw BackupError(.usage, "there is no command '\(name)'", hint: "See 'bgbackup --help'.")
        }
        return page(command, title: "bgbackup-\(name)", all: command.subcommands ?? [])
    }

    private static func page(_ command: Command, title: String, all: [Command]) -> String {
        var lines = [
            ".TH \(title.uppercased().replacing("-", with: "\\-")) 8 \"\" \"bgbackup \(BGBackup.version)\" \"bgbackup\"",
            ".SH NAME",
            "\(escaped(title)) \\- \(escaped(command.abstract ?? ""))", ".SH SYNOPSIS", synopsis(command, title),
        ]
        if let discussion = command.discussion {
            lines += [".SH DESCRIPTION"] + discussion.split(separator: "\n\n").flatMap { [".PP", escaped(String($0))] }
        }
        let visible = (command.arguments ?? []).filter(\.shouldDisplay)
        if !visible.isEmpty { lines += [".SH OPTIONS"] + visible.flatMap { option($0) } }
        let commands = all.filter { $0.commandName != "help" }
        if !commands.isEmpty { lines.append(".SH COMMANDS") }
        for command in commands {
            lines += [".TP", ".B \(escaped(command.commandName))", escaped(command.abstract ?? "")]
            for argument in (command.arguments ?? []) where argument.shouldDisplay && title != "bgbackup" {
                lines += [".RS"] + option(argument) + [".RE"]
            }
        }
        lines += [
            ".SH EXIT STATUS",
            "0 done, 1 failed, 3 incomplete, 10 no repository, 11 busy, 12 wrong password, 13 blocked by a lock, 14 capture failed, 15 target not empty, 17 damage found, 64 usage, 128+N ended by signal N.",
            ".SH SEE ALSO",
        ]
        lines.append(title == "bgbackup" ? "\\fBbgbackup-backup\\fR(8), \\fBbgbackup-restore\\fR(8)" : "\\fBbgbackup\\fR(8)")
        return lines.joined(separator: "\n")
    }

    private static func synopsis(_ command: Command, _ title: String) -> String {
        var words = ["\\fB\(escaped(title.replacing("-", with: " ", maxReplacements: 1)))\\fR"]
        if command.subcommands?.contains(where: { $0.commandName != "help" }) == true { words.append("\\fIcommand\\fR") }
        words.append("[\\fIoptions\\fR]")
        for argument in command.arguments ?? [] where argument.kind == "positional" {
            let name = "\\fI\(escaped(argument.valueName ?? "value"))\\fR"
            words.append(argument.isOptional ? "[\(name)]" : name)
        }
        return words.joined(separator: " ")
    }

    private static func option(_ argument: Argument) -> [String] {
        let names = (argument.names ?? []).map { ($0.kind == "short" ? "-" : "--") + $0.name }
        let value = argument.kind == "option" || names.isEmpty ? " \\fI\(escaped(argument.valueName ?? ""))\\fR" : ""
        let head = names.map { "\\fB\(escaped($0))\\fR" }.joined(separator: ", ") + value
        return [
            ".TP", head.isEmpty ? " " : head,
            escaped([argument.abstract, argument.discussion].compactMap { $0 }.joined(separator: " ")),
        ]
    }

    private static func escaped(_ text: String) -> String {
        var result = text.replacing("\\", with: "\\e").replacing("-", with: "\\-")
        if result.hasPrefix(".") || result.hasPrefix("'") { result = "\\&" + result }
        return result
    }
}
