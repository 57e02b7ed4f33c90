import BackupBase
import CLinux
import Glibc

/// How the database is started on a restored volume.
public struct EngineCommand: Sendable {
    /// With `{storage}`, `{port}` and `{grpc_port}` where the drill puts its own; never given to a shell.
    public let arguments: [String]
    /// Beside the few variables that a drill passes on.
    public let environment: [String: String]

    public init(_ arguments: [String], environment: [String: String] = [:]) {
        self.arguments = arguments
        self.environment = environment
    }

    /// Qdrant itself, alone: it joins no cluster, and takes no configuration but this.
    public static func qdrant(_ program: String) -> EngineCommand {
        EngineCommand(
            [program, "--disable-telemetry"],
            environment: [
                "QDRANT__STORAGE__STORAGE_PATH": "{storage}", "QDRANT__STORAGE__SNAPSHOTS_PATH": "./snapshots",
                "QDRANT__SERVICE__HOST": "127.0.0.1", "QDRANT__SERVICE__HTTP_PORT": "{port}",
                "QDRANT__SERVICE__GRPC_PORT": "{grpc_port}", "QDRANT__CLUSTER__ENABLED": "false",
            ])
    }

    /// The same environment for another command line.
    public func with(arguments: [String]) -> EngineCommand { EngineCommand(arguments, environment: environment) }

    func filled(_ values: [String: String]) -> EngineCommand {
        func fill(_ text: String) -> String {
            values.reduce(text) { $0.replacing("{\($1.key)}", with: $1.value) }
        }
        return EngineCommand(arguments.map(fill), environment: environment.mapValues(fill))
    }

    /// Everything the engine sees of our environment: none of it holds a secret.
    fileprivate var variables: [String] {
        var all: [String: String] = [:]
        for name in ["PATH", "HOME", "LANG", "TMPDIR", "XDG_CACHE_HOME", "BGBACKUP_VENV"] {
            if let value = getenv(name) { all[name] = String(cString: value) }
        }
        return all.merging(environment) { $1 }.map { "\($0)=\($1)" }
    }

    /// The path of a program, as a shell would find it.
    public static func find(_ name: String) -> String? {
        if name.contains("/") { return access(name, X_OK) == 0 ? name : nil }
        let path = getenv("PATH").map { String(cString: $0) } ?? "/usr/sbin:/usr/bin:/sbin:/bin"
        return path.split(separator: ":").map { "\($0)/\(name)" }.first { access($0, X_OK) == 0 }
    }
}

/// A database that runs until it is stopped, and no longer than this process.
///
/// Started by the calling thread, so that it has that thread's network; it is to
/// outlive neither the thread nor the process, however they end.
final class EngineProcess {
    private let pid: pid_t
    private let log: String

    /// - Parameters:
    ///   - directory: where it runs
    ///   - log: file for what it writes
    /// - Throws: `.failed` where it cannot be started
    init(_ command: EngineCommand, in directory: String, log: String) throws {
        self.log = log
        guard let name = command.arguments.first, let program = EngineCommand.find(name) else {
            throw BackupError(
                .failed, "there is no program \(command.arguments.first ?? "")", hint: "Give --boot a program that is installed.")
        }
        var arguments = [program] + command.arguments.dropFirst()
        // The kernel kills it when the thread ends that started it.
        if let keeper = EngineCommand.find("setpriv") { arguments = [keeper, "--pdeathsig", "KILL", "--"] + arguments }
        pid = try Self.spawn(arguments, command.variables, directory, log)
    }

    private static func spawn(_ arguments: [String], _ environment: [String], _ directory: String, _ log: String) throws -> pid_t
    {
        var actions = posix_spawn_file_actions_t()
        posix_spawn_file_actions_init(&actions)
        defer { posix_spawn_file_actions_destroy(&actions) }
        posix_spawn_file_actions_addopen(&actions, STDIN_FILENO, "/dev/null", O_RDONLY, 0)
        posix_spawn_file_actions_addopen(&actions, STDOUT_FILENO, log, O_WRONLY | O_CREAT | O_APPEND, 0o600)
        posix_spawn_file_actions_adddup2(&actions, STDOUT_FILENO, STDERR_FILENO)
        bgb_spawn_in(&actions, directory)
        var attributes = posix_spawnattr_t()
        posix_spawnattr_init(&attributes)
        defer { posix_spawnattr_destroy(&attributes) }
        // Ours blocks and ignores signals; a database that is stopped must hear of it.
        var (none, all) = (sigset_t(), sigset_t())
        sigemptyset(&none)
        sigfillset(&all)
        posix_spawnattr_setsigmask(&attributes, &none)
        posix_spawnattr_setsigdefault(&attributes, &all)
        posix_spawnattr_setpgroup(&attributes, 0)
        posix_spawnattr_setflags(
            &attributes, Int16(POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF | POSIX_SPAWN_SETPGROUP))
        var (words, variables) = (arguments.map { strdup($0) } + [nil], environment.map { strdup($0) } + [nil])
        defer { (words + variables).forEach { free($0) } }
        var child: pid_t = 0
        let code = posix_spawn(&child, arguments[0], &actions, &attributes, &words, &variables)
        guard code == 0 else {
            throw BackupError(.failed, "\(arguments[0]) cannot be started: \(String(cString: strerror(code)))")
        }
        return child
    }

    /// How it ended; nil while it runs. It is not reaped yet: as long as its
    /// number is its own, so is that of its group.
    var end: String? {
        var info = siginfo_t()
        guard waitid(P_PID, id_t(pid), &info, WEXITED | WNOHANG | WNOWAIT) == 0, info.si_signo == SIGCHLD else { return nil }
        let number = info._sifields._sigchld.si_status
        return info.si_code == CLD_EXITED ? "with status \(number)" : "by signal \(number)"
    }

    /// Seconds that it has to end by itself: fewer where the drill itself was told to end, which then has 10 for all.
    private static var patience: Double { Task.isCancelled ? 2 : 10 }

    /// Ends it and everything that it started.
    func stop() {
        if end == nil { kill(-pid, SIGTERM) }
        let limit = monotonicSeconds() + Self.patience
        while end == nil, monotonicSeconds() < limit { usleep(10_000) }
        kill(-pid, SIGKILL)
        var status: Int32 = 0
        while waitpid(pid, &status, 0) < 0, errno == EINTR {}
    }

    /// The last lines that it wrote, for people.
    var lastWords: String {
        let file = open(log, O_RDONLY | O_CLOEXEC)
        guard file >= 0 else { return "" }
        defer { close(file) }
        let size = lseek(file, 0, SEEK_END)
        var bytes = [UInt8](repeating: 0, count: 2000)
        let got = pread(file, &bytes, bytes.count, max(0, size - off_t(bytes.count)))
        let lines = bytes.prefix(max(got, 0)).split(separator: UInt8(ascii: "\n")).suffix(4)
        return lines.map { printable($0) }.joined(separator: " / ")
    }
}
