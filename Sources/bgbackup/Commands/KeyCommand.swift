import ArgumentParser
import BackupBase
import BackupRepository

struct KeyCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "key", abstract: "Manage passwords, the key pair and the writer key.",
        subcommands: [
            Add.self, List.self, Remove.self, Passwd.self, Rotate.self, Export.self, Import.self, Sheet.self,
            ExportWriter.self,
        ])

    struct Add: AsyncParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "Add a password.",
            discussion: "The new key slot is read back and opened before the command says that it is there.")
        @OptionGroup var global: GlobalOptions
        @OptionGroup var new: NewPasswordOption
        @Option(help: "What to call it.") var label = ""

        mutating func run() async throws {
            let session = Session(options: global)
            let repository = try await session.open()
            guard repository.keys.canRead else { throw KeyCommand.writerKey("add passwords") }
            let id = try await repository.addKeySlot(
                password: try session.newPassword(new.newPasswordFile), label: label, by: HoldCommand.operator)
            if global.json { try Output.document(["key": id]) } else if !global.quiet { Output.line("key \(id) added") }
        }
    }

    struct List: AsyncParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "List the key slots.",
            discussion: """
                IN USE marks the slot that your password opened just now. PAIRS is how many of the repository's key pairs \
                it opens: one with fewer than the newest opens only what was stored before a rotation. A repository's \
                fingerprint tells whether two places, or a sheet, have the same keys.
                """)
        @OptionGroup var global: GlobalOptions

        struct Line: Encodable {
            let id: String
            let label: String
            let created: String
            let by: Nullable<String>
            let kind: String
            let in_use: Bool
            let pairs: Int
            let locked_until: Nullable<String>

            init(_ slot: Repository.ListedSlot) {
                (id, label, created, kind, in_use, pairs) =
                    (slot.id, slot.label, slot.created, slot.kind, slot.isInUse, slot.generation)
                by = Nullable(slot.by)
                locked_until = Nullable(slot.lockedUntil.map { formatTime($0) })
            }
        }

        mutating func run() async throws {
            let repository = try await Session(options: global).open()
            let slots = try await repository.keySlots()
            if global.json { return try Output.document(slots.map(Line.init)) }
            let isLocked = slots.contains { $0.lockedUntil != nil }
            Output.table(
                ["ID", "CREATED", "BY", "KIND", "PAIRS", "IN USE", "LABEL"] + (isLocked ? ["LOCKED UNTIL"] : []),
                slots.map { slot in
                    [
                        slot.id, slot.created, slot.by.map { printable($0.utf8) } ?? "", printable(slot.kind.utf8),
                        "\(slot.generation)", slot.isInUse ? "yes" : "", printable(slot.label.utf8),
                    ] + (isLocked ? [slot.lockedUntil.map { formatTime($0) } ?? ""] : [])
                })
            guard !global.quiet else { return }
            Output.line("key pair \(repository.keys.generation), fingerprint \(repository.keys.fingerprint)")
        }
    }

    struct Remove: AsyncParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "Remove a password.",
            discussion: """
                Who knew it and copied the key slot keeps the keys: removing is no revocation, 'bgbackup key rotate' is. \
                The last slot stays whatever is asked. Exit status 13: the store keeps the slot until its lock ends.
                """)
        @OptionGroup var global: GlobalOptions
        @OptionGroup var dry: DryRunOption
        @Flag(help: "Also the slot that your own password opens.") var force = false
        @Argument(help: "Id of the key slot, or a unique prefix.") var id: String

        mutating func run() async throws {
            let repository = try await Session(options: global).open()
            guard repository.keys.canRead else { throw KeyCommand.writerKey("remove passwords") }
            let slot = try await repository.removableSlot(id, force: force).id
            if !dry.dryRun { try await repository.removeKeySlot(slot, force: force) }
            if global.json {
                try Output.document(["key": slot, "removed": dry.dryRun ? "no" : "yes"])
            } else if !global.quiet {
                Output.line(dry.dryRun ? "would remove key \(slot)" : "key \(slot) removed")
            }
        }
    }

    struct Passwd: AsyncParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "Change the password that opens the repository now.",
            discussion: """
                The slot of the new password is written, read back and opened before all slots of the old one are taken \
                away: whenever the command is stopped, one of the two opens; run it again. Other passwords stay as they are. \
                The keys stay the same: who copied the old slot and knows the old password keeps them ('bgbackup key rotate' \
                gives new ones).
                """)
        @OptionGroup var global: GlobalOptions
        @OptionGroup var new: NewPasswordOption
        @Option(help: "What to call it (default: as the old one).") var label: String?

        mutating func run() async throws {
            let session = Session(options: global)
            if try session.holdsWriterKeyOnly { throw KeyCommand.writerKey("change passwords") }
            let old = try await session.password()
            let repository = try await session.open(with: old)
            let (id, removed) = try await repository.changePassword(
                from: old, to: try session.newPassword(new.newPasswordFile), label: label, by: HoldCommand.operator)
            let gone = removed.joined(separator: ", ")
            if global.json {
                try Output.document(["key": id, "removed": gone])
            } else if !global.quiet {
                Output.line("key \(id) added, key \(gone) removed: the new password opens the repository")
            }
        }
    }

    static func writerKey(_ what: String) -> BackupError {
        BackupError(
            .writeOnlyKey, "a writer key cannot \(what)", hint: "Use the repository's password (--password-file).")
    }
}

/// The option of commands that make a password open something.
struct NewPasswordOption: ParsableArguments {
    @Option(help: ArgumentHelp("File that holds the new password (default: asked for on a terminal).", valueName: "file"))
    var newPasswordFile: String?
}
