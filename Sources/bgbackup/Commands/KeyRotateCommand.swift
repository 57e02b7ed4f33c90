import ArgumentParser
import BackupBase
import BackupRepository

extension KeyCommand {
    struct Rotate: AsyncParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "Give the repository a new key pair: writer keys from before are worthless for new snapshots.",
            discussion: """
                What is stored stays readable, and is found again by the next backup; what comes is sealed for the new \
                pair. Slots are written anew for your password and those of --also; other passwords open only what is \
                older, until they are added again. --new-password-file changes your password with it. Then every node \
                needs a new writer key ('key export-writer'), and a new export or sheet should be made. A rotation that was \
                stopped is finished by the next one. While backups run that began before, the old pair stays open: run it \
                again after them, or --force. Revoke a stolen node's access to the store first: see docs/keys.md.
                """)
        @OptionGroup var global: GlobalOptions
        @OptionGroup var dry: DryRunOption
        @Option(help: ArgumentHelp("File with another password that is to open what is new; may be repeated.", valueName: "file"))
        var also: [String] = []
        @Option(
            help: ArgumentHelp(
                "File with a password that opens the repository from now on, in place of yours.", valueName: "file"))
        var newPasswordFile: String?
        @Flag(help: "Close the old pair at once: snapshots of backups that run now are then refused.") var force = false

        struct Summary: Encodable {
            let message_type = "summary"
            let schema = 1
            let key_pair: Int
            let resumed: Bool
            let keys_added: [String]
            let keys_removed: [String]
            let keys_locked: [String]
            let keys_outdated: [String]
            let closed: Bool
            let waiting_for: [String]
            let dry_run: Bool
        }

        mutating func run() async throws {
            let session = Session(options: global)
            if try session.holdsWriterKeyOnly { throw KeyCommand.writerKey("rotate the key pair") }
            let password = try await session.password()
            let new = try newPasswordFile.map { try session.newPassword($0) }
            let repository = try await open(session, password, new)
            let own = new.map { KeyRotation.Password($0, isNew: true) } ?? KeyRotation.Password(password)
            let rotation = try await KeyRotation.run(
                repository, try [own] + also.map { .init(try session.newPassword($0)) }, retired: new == nil ? [] : [password],
                by: HoldCommand.operator, force: force, dryRun: dry.dryRun)
            if global.json { try document(rotation) } else if !global.quiet { print(rotation) }
            if !rotation.waitingFor.isEmpty { throw ExitCode(BackupError.Code.busy.exitStatus) }
            if !rotation.locked.isEmpty { throw ExitCode(BackupError.Code.immutable.exitStatus) }
        }

        /// With the new password where the old one opens nothing more, or only what is older: a rotation that was stopped is
        /// given the same words again.
        private func open(_ session: Session, _ old: [UInt8], _ new: [UInt8]?) async throws -> Repository {
            guard let new else { return try await session.open(with: old) }
            do {
                let repository = try await Repository.open(
                    store: try session.store(), password: old, executor: Session.executor, identity: session.identity)
                if !repository.isOutdated { return repository }
            } catch let error as BackupError where error.code == .wrongPassword {
                do { return try await session.open(with: new) } catch let other as BackupError where other.code == .wrongPassword
                {
                    throw error
                }
            }
            return try await session.open(with: new)
        }

        private func document(_ rotation: KeyRotation) throws {
            try Output.document(
                Summary(
                    key_pair: rotation.generation, resumed: rotation.wasResumed, keys_added: rotation.added,
                    keys_removed: rotation.removed, keys_locked: rotation.locked.keys.sorted(),
                    keys_outdated: rotation.outdated, closed: !dry.dryRun && rotation.waitingFor.isEmpty,
                    waiting_for: rotation.waitingFor, dry_run: dry.dryRun), lines: true)
        }

        private func print(_ rotation: KeyRotation) {
            let others = rotation.outdated.joined(separator: ", ")
            if dry.dryRun {
                Output.line(
                    rotation.wasResumed
                        ? "would finish the rotation to key pair \(rotation.generation)"
                        : "would rotate to key pair \(rotation.generation)")
                if !others.isEmpty { Output.line("these keys would open only what is older: \(others)") }
                return
            }
            Output.line(
                rotation.wasResumed
                    ? "the rotation to key pair \(rotation.generation), which was begun before, goes on"
                    : "the repository has key pair \(rotation.generation)")
            for id in rotation.added { Output.line("key \(id) added") }
            for id in rotation.removed { Output.line("key \(id) removed") }
            for (_, problem) in rotation.locked.sorted(by: { $0.key < $1.key }) {
                Output.line("\(problem): it opens what is older")
            }
            if !others.isEmpty {
                Output.line("these keys open only what is older, until their passwords are added again: \(others)")
            }
            guard rotation.waitingFor.isEmpty else {
                Output.line(
                    "the old pair is not closed yet: a backup is at work (\(rotation.waitingFor.joined(separator: "; ")))")
                return Output.line("Run 'bgbackup key rotate' again when it has ended.")
            }
            Output.line("Writer keys from before make nothing more: 'bgbackup key export-writer FILE' for each node.")
            Output.line("Make a new sheet: 'bgbackup key sheet FILE.html'.")
        }
    }
}
