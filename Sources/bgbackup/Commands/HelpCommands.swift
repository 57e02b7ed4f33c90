import ArgumentParser
import BackupBase

struct CompletionsCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "completions", abstract: "Print the completion script of a shell.",
        discussion: "For example: bgbackup completions bash > /etc/bash_completion.d/bgbackup")

    enum Shell: String, ExpressibleByArgument, CaseIterable { case bash, zsh, fish }

    @Argument(help: "bash, zsh or fish.") var shell: Shell

    mutating func run() throws {
        let shells: [Shell: CompletionShell] = [.bash: .bash, .zsh: .zsh, .fish: .fish]
        Output.line(BGBackup.completionScript(for: shells[shell]!))
    }
}

struct ManCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "man", abstract: "Print the manual page of bgbackup, or of one of its commands.",
        discussion: "For example: bgbackup man restore | man -l -")

    @Argument(help: "Command; none for the overview.") var command: String?

    mutating func run() throws { Output.line(try ManualPage.render(command)) }
}
