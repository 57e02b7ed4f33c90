import ArgumentParser
import BackupBase
import BackupRepository
import Glibc

struct KeyCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "key", abstract: "Manage passwords and the writer key.",
        subcommands: [Add.self, List.self, Remove.self, ExportWriter.self])

    struct Add: AsyncParsableCommand {
        static let configuration = CommandConfiguration(abstract: "Add a password.")
        @OptionGroup var global: GlobalOptions
        @Option(help: ArgumentHelp("File that holds the new password.", valueName: "file")) var newPasswordFile: String
        @Option(help: "What to call it.") var label = ""

        mutating func run() async throws {
            let session = Session(options: global)
            let repository = try await session.open()
            var options = global
            options.passwordFile = newPasswordFile
            let password = try await Session(options: options).password()
            let id = try await repository.addKeySlot(password: password, label: label)
            if global.json { try Output.document(["key": id]) } else if !global.quiet { Output.line("key \(id) added") }
        }
    }

    struct List: AsyncParsableCommand {
        static let configuration = CommandConfiguration(abstract: "List the key slots.")
        @OptionGroup var global: GlobalOptions

        struct Line: Encodable {
            let id: String
            let label: String
            let created: String
        }

        mutating func run() async throws {
            let slots = try await Session(options: global).open().keySlots()
            if global.json {
                return try Output.document(slots.map { Line(id: $0.id, label: $0.label, created: $0.created) })
            }
            Output.table(["ID", "CREATED", "LABEL"], slots.map { [$0.id, $0.created, $0.label] })
        }
    }

    struct Remove: AsyncParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "Remove a password.",
            discussion: "Who knew it and copied the key slot keeps the keys: removing is no revocation.")
        @OptionGroup var global: GlobalOptions
        @OptionGroup var dry: DryRunOption
        @Argument(help: "Id of the key slot, or a unique prefix.") var id: String

        mutating func run() async throws {
            let repository = try await Session(options: global).open()
            guard repository.keys.canRead else {
                throw BackupError(.writeOnlyKey, "a writer key cannot remove passwords")
            }
            if !dry.dryRun { try await repository.removeKeySlot(id) }
            if global.json {
                try Output.document(["key": id, "removed": dry.dryRun ? "no" : "yes"])
            } else if !global.quiet {
                Output.line(dry.dryRun ? "would remove key \(id)" : "key \(id) removed")
            }
        }
    }

    struct ExportWriter: AsyncParsableCommand {
        static let configuration = CommandConfiguration(
            commandName: "export-writer", abstract: "Write a key file that can back up and read nothing.",
            discussion: "Give it to the node; keep the password elsewhere. The file is made with mode 0600.")
        @OptionGroup var global: GlobalOptions
        @Argument(help: "File to make.") var file: String

        mutating func run() async throws {
            let repository = try await Session(options: global).open()
            let descriptor = open(file, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0o600)
            guard descriptor >= 0 else {
                throw BackupError(
                    .failed, "cannot make \(file): \(String(cString: strerror(errno)))",
                    hint: errno == EEXIST ? "Name a file that does not exist." : nil)
            }
            defer { close(descriptor) }
            let text = Array(repository.keys.writerKeyFile.utf8)
            guard write(descriptor, text, text.count) == text.count, fsync(descriptor) == 0 else {
                unlink(file)
                throw BackupError(.failed, "cannot write \(file): \(String(cString: strerror(errno)))")
            }
            if global.json {
                try Output.document(["file": file])
            } else if !global.quiet {
                Output.line("writer key of repository \(repository.id) written to \(file)")
            }
        }
    }
}
