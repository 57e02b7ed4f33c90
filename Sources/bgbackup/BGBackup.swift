import ArgumentParser
import BackupBase
import BackupEngine
import CLinux
import Glibc
import VolumeIO

struct BGBackup: AsyncParsableCommand {
    static let version = "0.1.0"
    static let agent = "bgbackup \(version)"

    static let configuration = CommandConfiguration(
        commandName: "bgbackup",
        abstract: "Incremental, encrypted, volume-level backup and restore for Qdrant.",
        discussion: """
            Start with 'bgbackup init', then 'bgbackup backup PATH'; 'bgbackup restore latest --target DIR' brings it \
            back. The repository comes from --repository or BGBACKUP_REPOSITORY, the password from --password-file, \
            BGBACKUP_PASSWORD_FILE, BGBACKUP_PASSWORD_COMMAND or the credential bgbackup.password.

            An object store is s3://BUCKET/PREFIX; 'bgbackup help init' lists the options that may follow. Its keys come \
            from the AWS variables, files and services, or the credential bgbackup.s3; 'bgbackup doctor' tells from where.

            Exit status: 0 done, 1 failed, 3 incomplete, 10 no repository, 11 busy, 12 wrong password, \
            13 blocked by a lock, 14 capture failed, 15 target not empty, 16 drill or validation failed, 17 damage found, 64 usage, 128+N ended by signal N.
            """,
        version: version,
        subcommands: [
            InitCommand.self, BackupCommand.self, SnapshotsCommand.self, ShowCommand.self, ListCommand.self,
            DiffCommand.self, InspectCommand.self, ValidateCommand.self, DrillCommand.self, RestoreCommand.self, SeedCommand.self,
            DumpCommand.self,
            ExportCommand.self, ImportCommand.self, CheckCommand.self, RepairCommand.self,
            ForgetCommand.self, PruneCommand.self, HoldCommand.self, ReleaseCommand.self,
            KeyCommand.self, CopyCommand.self, RepoCommand.self, PolicyCommand.self, StatusCommand.self, ReportCommand.self,
            DoctorCommand.self, CompletionsCommand.self, ManCommand.self,
        ])
}

/// Runs the command as one task that SIGINT and SIGTERM cancel, and turns every
/// error into a message and the exit status of CLI.md.
///
/// Not an async main: the signals have to be blocked before there is a second
/// thread, or the one that is not blocked dies of them.
@main
enum Main {
    /// Nil where no service manager wants to be told.
    static var service: ServiceNotice? { told }
    nonisolated(unsafe) private static var told: ServiceNotice?  // Set once, before there is a second thread.

    /// The signal that ends the run; nil where none came.
    static var signal: Int32? { watch?.received }
    nonisolated(unsafe) private static var watch: SignalWatch?  // Set once, before the command runs.

    static func main() {
        // Before there is a second thread: tracing belongs to one.
        if CommandLine.arguments.dropFirst().first == HoldGuard.argument { HoldGuard.run() }
        Glibc.signal(SIGPIPE, SIG_IGN)
        // No keys in a core file. The limit alone would not keep them from a
        // handler that the kernel pipes cores to (core(5)).
        bgb_no_core()
        told = .fromEnvironment()
        let signals = SignalWatch()
        watch = signals
        bgb_tame_malloc()
        do {
            let arguments = LeadingOptions.moved(Array(CommandLine.arguments.dropFirst()))
            let command = try BGBackup.parseAsRoot(arguments)
            if let backup = command as? BackupCommand, backup.priority == .background {
                Session.isBackground.withLock { $0 = true }
            }
            told?.ready(type(of: command).configuration.commandName ?? "starting")
            signals.run(command) { error in
                if let error { finish(error, signals) }
                exit(0)
            }
        } catch {
            finish(error, signals)
        }
        while true { pause() }
    }

    private static func finish(_ error: any Error, _ signals: SignalWatch) -> Never {
        if let number = signals.received {
            Terminal.note("bgbackup: ended by signal \(number); nothing that was committed is lost")
            exit(128 + number)
        }
        switch error {
        case let status as ExitCode: exit(status.rawValue)
        default:
            guard let failure = ErrorMapping.backupError(error) else { BGBackup.exit(withError: error) }
            Output.report(failure)
            exit(failure.code.exitStatus)
        }
    }
}

/// Waits for SIGINT and SIGTERM on a thread of its own. The first cancels the
/// command, which then starts no new write; the second ends the process, and so
/// does the end of the time that a service has (docs/systemd.md): what hangs in
/// a system call cannot be cancelled, and nothing that is committed needs an end.
///
/// Our threads have the signals blocked, so that no call of theirs is
/// interrupted. That alone is not enough: the thread with which swift-subprocess
/// watches programs waits with an empty mask (epoll_pwait), takes the signal and
/// dies of it with the whole process. So there is a handler, whoever runs it.
final class SignalWatch: Sendable {
    private let state = Locked<(task: Task<Void, any Error>?, received: Int32?)>((nil, nil))

    /// Milliseconds from the first signal to the end, however it is had.
    private static let patience: Int32 = 8000

    /// A pipe: the handler writes the signal's number, the watcher reads it.
    nonisolated(unsafe) private static var pipe: [Int32] = [-1, -1]  // Set once, before there is a handler.

    var received: Int32? { state.withLock { $0.received } }

    init() {
        precondition(Glibc.pipe(&Self.pipe) == 0, "no pipe: errno \(errno)")
        for end in Self.pipe { _ = fcntl(end, F_SETFD, FD_CLOEXEC) }
        for number in [SIGINT, SIGTERM] {
            signal(number) { number in
                let error = errno
                var byte = UInt8(truncatingIfNeeded: number)
                _ = write(SignalWatch.pipe[1], &byte, 1)
                errno = error
            }
        }
        var set = Self.watched
        // Threads made later inherit the mask.
        pthread_sigmask(SIG_BLOCK, &set, nil)
        let argument = Unmanaged.passRetained(self).toOpaque()
        var thread = pthread_t()
        pthread_create(
            &thread, nil,
            { argument in
                Unmanaged<SignalWatch>.fromOpaque(argument!).takeRetainedValue().wait()
            }, argument)
    }

    private static var watched: sigset_t {
        var set = sigset_t()
        sigemptyset(&set)
        sigaddset(&set, SIGINT)
        sigaddset(&set, SIGTERM)
        return set
    }

    private func wait() -> Never {
        // The one thread that surely takes them.
        var set = Self.watched
        pthread_sigmask(SIG_UNBLOCK, &set, nil)
        while true {
            var byte: UInt8 = 0
            guard read(Self.pipe[0], &byte, 1) == 1 else { continue }
            let number = Int32(byte)
            let (again, task) = state.withLock { state in
                defer { state.received = number }
                return (state.received != nil, state.task)
            }
            if again || task == nil { _exit(128 + number) }
            Main.service?.stopping()
            task?.cancel()
            var next = pollfd(fd: Self.pipe[0], events: Int16(POLLIN), revents: 0)
            if poll(&next, 1, Self.patience) == 0 {
                Terminal.note("bgbackup: something hangs and is given up; nothing that was committed is lost", .warning)
                _exit(128 + number)
            }
        }
    }

    /// Runs the command on the blocking executor: it waits in system calls.
    func run(_ command: sending any ParsableCommand, then end: @escaping @Sendable ((any Error)?) -> Void) {
        let task = Task(executorPreference: Session.executor) {
            if var asynchronous = command as? any AsyncParsableCommand {
                try await asynchronous.run()
            } else {
                var command = command
                try command.run()
            }
        }
        state.withLock { $0.task = task }
        Task(executorPreference: Session.executor) {
            do {
                try await task.value
                end(nil)
            } catch {
                end(error)
            }
        }
    }
}
