import BackupBase
import Glibc

/// A program that was started for its output. Whoever holds it waits for it
/// with a thread of its own.
struct ChildProcess: Sendable {
    enum Ending: Sendable {
        case exited(status: Int32, output: [UInt8])
        case signalled(Int32)
        case notStarted(Int32)
        case tooSlow
        case tooMuch
        case cancelled
    }

    struct Limit: Sendable {
        var seconds: Double
        var bytes: Int
    }

    struct StartError: Error {
        var number: Int32
    }

    private let process: pid_t
    /// The reading end of its standard output.
    private let output: Int32

    /// Starts it in a process group of its own, so that whatever it starts can be
    /// ended with it, with no signal blocked or ignored, without input, and with
    /// its errors thrown away.
    static func start(_ arguments: [String]) -> Result<ChildProcess, StartError> {
        var ends: [Int32] = [-1, -1]
        guard pipe(&ends) == 0 else { return .failure(StartError(number: errno)) }
        // Another thread that starts a program just now may hand both ends on to it.
        // That is why `watch` looks at the process and not only for the pipe's end.
        for end in ends { _ = fcntl(end, F_SETFD, FD_CLOEXEC) }
        var actions = posix_spawn_file_actions_t()
        posix_spawn_file_actions_init(&actions)
        defer { posix_spawn_file_actions_destroy(&actions) }
        // First of all: in a process without standard files the pipe may be number 0 or 2.
        posix_spawn_file_actions_adddup2(&actions, ends[1], STDOUT_FILENO)
        posix_spawn_file_actions_addopen(&actions, STDIN_FILENO, "/dev/null", O_RDONLY, 0)
        posix_spawn_file_actions_addopen(&actions, STDERR_FILENO, "/dev/null", O_WRONLY, 0)
        var attributes = attributes()
        defer { posix_spawnattr_destroy(&attributes) }
        var words: [UnsafeMutablePointer<CChar>?] = arguments.map { strdup($0) } + [nil]
        defer { for word in words { free(word) } }
        var process = pid_t()
        let number = posix_spawnp(&process, words[0]!, &actions, &attributes, &words, environ)
        close(ends[1])
        guard number == 0 else {
            close(ends[0])
            return .failure(StartError(number: number))
        }
        return .success(ChildProcess(process: process, output: ends[0]))
    }

    private static func attributes() -> posix_spawnattr_t {
        var attributes = posix_spawnattr_t()
        posix_spawnattr_init(&attributes)
        var signals = sigset_t()
        sigemptyset(&signals)
        posix_spawnattr_setsigmask(&attributes, &signals)
        sigfillset(&signals)
        posix_spawnattr_setsigdefault(&attributes, &signals)
        posix_spawnattr_setpgroup(&attributes, 0)
        let flags = POSIX_SPAWN_SETPGROUP | POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF
        posix_spawnattr_setflags(&attributes, Int16(flags))
        return attributes
    }

    /// Reads what it prints until it has ended, or ends it. It counts as ended when
    /// the process is gone: a helper that it left behind may hold the pipe for ever.
    func watch(_ limit: Limit, isCancelled: () -> Bool) -> Ending {
        let deadline = monotonicSeconds() + limit.seconds
        var bytes: [UInt8] = []
        var isOpen = true
        var ending: Ending?
        while true {
            if isOpen, let piece = read(waiting: ending == nil ? 50 : 0) {
                isOpen = !piece.isEmpty
                bytes += piece
                if bytes.count > limit.bytes { return stop(.tooMuch) }
            } else if let ending {
                if case .exited(let status, _) = ending { return .exited(status: status, output: bytes) }
                return ending
            } else {
                ending = poll()
                if ending == nil && !isOpen { usleep(5000) }
            }
            if isCancelled() { return stop(.cancelled) }
            if ending == nil && monotonicSeconds() > deadline { return stop(.tooSlow) }
        }
    }

    /// Frees what is left. Waits for a process that was ended just now.
    func reap() {
        close(output)
        var status: Int32 = 0
        while waitpid(process, &status, 0) < 0 && errno == EINTR {}
    }

    private func stop(_ ending: Ending) -> Ending {
        kill(-process, SIGKILL)
        return ending
    }

    /// What it printed; empty at the pipe's end; nil when nothing came for some milliseconds.
    private func read(waiting milliseconds: Int32) -> [UInt8]? {
        var entry = pollfd(fd: output, events: Int16(POLLIN), revents: 0)
        guard Glibc.poll(&entry, 1, milliseconds) > 0 else { return nil }
        var piece = [UInt8](repeating: 0, count: 16384)
        let count = Glibc.read(output, &piece, piece.count)
        return count < 0 && errno == EINTR ? nil : Array(piece[..<max(count, 0)])
    }

    /// How it ended, when it has. Its status stays with the system until `reap`, and
    /// so does its number: no other group can be hit by `stop`.
    private func poll() -> Ending? {
        var information = siginfo_t()
        guard waitid(P_PID, id_t(process), &information, WEXITED | WNOHANG | WNOWAIT) == 0 else {
            // Somebody ignores SIGCHLD, and the status is lost: the output must speak for itself.
            return errno == EINTR ? nil : .exited(status: 0, output: [])
        }
        guard information.si_signo == SIGCHLD else { return nil }
        let status = information._sifields._sigchld.si_status
        return information.si_code == CLD_EXITED ? .exited(status: status, output: []) : .signalled(status)
    }
}
