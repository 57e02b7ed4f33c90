import ArgumentParser
import BackupBase
import BackupRepository
import Glibc
import ObjectStorage

extension KeyCommand {
    struct ExportWriter: AsyncParsableCommand {
        static let configuration = CommandConfiguration(
            commandName: "export-writer", abstract: "Write a key file that can back up and read nothing.",
            discussion: "Give it to the node; keep the password elsewhere. The file is made with mode 0600.")
        @OptionGroup var global: GlobalOptions
        @Argument(help: "File to make.") var file: String

        mutating func run() async throws {
            let repository = try await Session(options: global).open()
            if repository.isOutdated { throw KeyCommand.outdated }
            try SecretFile.make(file, Array(repository.keys.writerKeyFile.utf8))
            if global.json {
                try Output.document(["file": file])
            } else if !global.quiet {
                Output.line("writer key of repository \(repository.id) written to \(file)")
            }
        }
    }

    struct Export: AsyncParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "Write all keys to a file, under a password, for safekeeping outside the repository.",
            discussion: """
                With the file and its password 'bgbackup key import' makes a repository whose key slots, or configuration, \
                are lost open again. Without --new-password-file it is the password that opens the repository now; the \
                file goes on to open with it, whatever becomes of the repository's. The file is made with mode 0600.
                """)
        @OptionGroup var global: GlobalOptions
        @OptionGroup var new: ExportPasswordOption
        @Argument(help: "File to make.") var file: String

        mutating func run() async throws {
            let (repository, export) = try await KeyCommand.export(global, new)
            try SecretFile.make(file, try export.bytes)
            if global.json {
                try Output.document(["file": file, "repository": "\(repository.id)", "fingerprint": repository.keys.fingerprint])
            } else if !global.quiet {
                Output.line("keys of repository \(repository.id) (fingerprint \(repository.keys.fingerprint)) written to \(file)")
            }
        }
    }

    struct Sheet: AsyncParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "Make a sheet to print and put away: the keys as text, under a password, and what to do with it.",
            discussion: """
                FILE.html prints on one page of A4; any other name gives the same as text. The key on it is that of \
                'bgbackup key export', in lines that check themselves: 'bgbackup key import --sheet FILE' reads what was \
                typed from it and names the line with the typo. Keep the password elsewhere.
                """)
        @OptionGroup var global: GlobalOptions
        @OptionGroup var new: ExportPasswordOption
        @Argument(help: "File to make.") var file: String

        mutating func run() async throws {
            let (repository, export) = try await KeyCommand.export(global, new)
            let sheet = KeySheet(export, repository, hasOwnPassword: new.newPasswordFile != nil)
            try SecretFile.make(file, Array((file.hasSuffix(".html") ? sheet.html : sheet.text).utf8))
            if global.json {
                try Output.document(["file": file, "repository": "\(repository.id)", "fingerprint": repository.keys.fingerprint])
            } else if !global.quiet {
                Output.line("sheet of repository \(repository.id) written to \(file): print it, put it away, remove the file")
            }
        }
    }

    struct Import: AsyncParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "Make a key slot from exported keys, in a repository that lost its own.",
            discussion: """
                --password-file is the password of the export, --new-password-file the one of the new slot (default: the \
                same). A lost configuration is written anew. With --sheet the file is what was typed from a printed sheet: \
                case, blanks and dashes do not matter, and a mistyped line is named.
                """)
        @OptionGroup var global: GlobalOptions
        @OptionGroup var dry: DryRunOption
        @Option(help: ArgumentHelp("File that holds the password of the new key slot.", valueName: "file"))
        var newPasswordFile: String?
        @Option(help: "What to call the slot.") var label = "imported"
        @Flag(help: "The file is a sheet that was typed, or the text of one.") var sheet = false
        @Flag(help: "Write a lost configuration also with keys from before a rotation, which come back with it.")
        var force = false
        @Argument(help: "Exported file, or typed sheet.") var file: String

        struct Summary: Encodable {
            let message_type = "summary"
            let schema = 1
            let repository: String
            let fingerprint: String
            let key: Nullable<String>
            let key_pair: Int
            let outdated: Bool
        }

        mutating func run() async throws {
            let session = Session(options: global)
            let bytes = try session.secret(in: file)
            let export = sheet ? try RecoveryText.read(String(decoding: bytes, as: UTF8.self)) : try KeyExport(parsing: bytes)
            let password = try await session.password()
            let ring = try export.open(password: password)
            guard !dry.dryRun else { return try report(ring, nil, isOutdated: false) }
            let store = try session.store()
            let new = try newPasswordFile.map { try session.newPassword($0) } ?? password
            let (slot, repository) = try await Repository.importKeys(
                ring, store: store, password: new, label: label, by: HoldCommand.operator, force: force,
                executor: Session.executor,
                identity: session.identity
            ) {
                let probe = try await StoreProbe.run(store)
                try probe.requireUsable()
                return probe.record
            }
            try report(ring, slot, isOutdated: repository.isOutdated)
        }

        private func report(_ ring: KeyRing, _ slot: String?, isOutdated: Bool) throws {
            if global.json {
                return try Output.document(
                    Summary(
                        repository: "\(ring.repository)", fingerprint: ring.fingerprint, key: Nullable(slot),
                        key_pair: ring.generation, outdated: isOutdated), lines: true)
            }
            guard !global.quiet else { return }
            Output.line("the keys are those of repository \(ring.repository), fingerprint \(ring.fingerprint)")
            Output.line(slot.map { "key \($0) added: its password opens the repository" } ?? "would add a key slot")
            if isOutdated { Output.line("The export is from before a rotation: it opens what is older, and nothing newer.") }
        }
    }

    static let outdated = BackupError(
        .wrongPassword, "this password opens only what was stored before the key pair was rotated",
        hint: "Use a password that the rotation kept.")

    private static func export(
        _ global: GlobalOptions, _ new: ExportPasswordOption
    ) async throws -> (Repository, KeyExport) {
        let session = Session(options: global)
        let password = try await session.password()
        let repository = try await session.open(with: password)
        let own = try new.newPasswordFile.map { try session.newPassword($0) } ?? password
        let place = (repository.store as? S3Store)?.place.portable ?? repository.store.location
        return (repository, try KeyExport(repository.keys, password: own, location: place, by: HoldCommand.operator))
    }
}

struct ExportPasswordOption: ParsableArguments {
    @Option(
        help: ArgumentHelp(
            "File with a password for the export alone (default: the one that opens the repository now).", valueName: "file"))
    var newPasswordFile: String?
}

/// A file that only its owner reads, and that was not there before.
enum SecretFile {
    static func make(_ path: String, _ bytes: [UInt8]) throws {
        let descriptor = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0o600)
        guard descriptor >= 0 else {
            throw BackupError(
                .failed, "cannot make \(path): \(String(cString: strerror(errno)))",
                hint: errno == EEXIST ? "Name a file that does not exist." : nil)
        }
        defer { close(descriptor) }
        guard write(descriptor, bytes, bytes.count) == bytes.count, fsync(descriptor) == 0 else {
            let problem = String(cString: strerror(errno))
            unlink(path)
            throw BackupError(.failed, "cannot write \(path): \(problem)")
        }
    }
}
