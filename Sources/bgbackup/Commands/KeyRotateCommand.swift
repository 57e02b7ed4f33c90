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
                stopped, or had to wait, is finished by the next one, which then makes no new pair and exits with 1; with \
                --finish, where only that is wanted, with 0. While backups run that began before, the old pair stays open: \
                finish it after them, or --force, which gives them up. Revoke a stolen node's access to the store first: \
                see docs/keys.md.
                """)
        @OptionGroup var global: GlobalOptions
        @OptionGroup var dry: DryRunOption
        @Option(help: ArgumentHelp("File with another password that is to open what is new; may be repeated.", valueName: "file"))
        var also: [String] = []
        @Option(
            help: ArgumentHelp(
                "File with a password that opens the repository from now on, in place of yours.", valueName: "file"))
        var newPasswordFile: String?
        @Flag(help: "Close the old pair at once: backups that run now are given up.") var force = false
        @Flag(help: "Make no new pair: finish the rotation that was stopped, or had to wait for backups.") var finish = false

        struct Summary: Encodable {
            let message_type = "summary"
            let schema = 1
            let key_pair: Int
            let resumed: Bool
            /// Whether this run made the pair.
            let new_pair: Bool
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
                by: HoldCommand.operator, force: force, finishing: finish, dryRun: dry.dryRun)
            if global.json { try document(rotation) } else if !global.quiet { print(rotation) }
            if !rotation.waitingFor.isEmpty { throw ExitCode(BackupError.Code.busy.exitStatus) }
            if !rotation.locked.isEmpty { throw ExitCode(BackupError.Code.immutable.exitStatus) }
            // Somebody who rotates because something was stolen must not take the end of an older rotation for it.
            if rotation.wasResumed, !finish, !dry.dryRun { throw Self.noNewPair(rotation.generation) }
        }

        private static func noNewPair(_ generation: Int) -> BackupError {
            BackupError(
                .failed, "no new key pair was made: the rotation to pair \(generation), which was begun before, is finished",
                hint: "Run it again for a new pair. Where only this was wanted: 'bgbackup key rotate --finish'.")
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
                    key_pair: rotation.generation, resumed: rotation.wasResumed,
                    new_pair: !rotation.wasResumed && !dry.dryRun, keys_added: rotation.added,
                    keys_removed: rotation.removed, keys_locked: rotation.locked.keys.sorted(),
                    keys_outdated: rotation.outdated, closed: !dry.dryRun && rotation.waitingFor.isEmpty,
                    waiting_for: rotation.waitingFor, dry_run: dry.dryRun), lines: true)
        }

        private func print(_ rotation: KeyRotation) {
            let others = rotation.outdated.joined(separator: ", ")
            if dry.dryRun {
                Output.line(
                    rotation.wasResumed
                        ? "would finish the rotation to key pair \(rotation.generation), and make no new one"
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
                return Output.line("Run 'bgbackup key rotate --finish' when it has ended.")
            }
            Output.line(
                "Writer keys from before key pair \(rotation.generation) make nothing more:"
                    + " 'bgbackup key export-writer FILE' for each node."
            )
            Output.line("Make a new sheet: 'bgbackup key sheet FILE.html'.")
        }
    }
}
