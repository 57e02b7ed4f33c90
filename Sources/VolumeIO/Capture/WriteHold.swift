import BackupBase
import CLinux
import Glibc

/// Holds writes to a volume, through a guard process, until it is released,
/// lost or dropped.
public final class WriteHold {
    private let socket: Int32
    private let process: Int32
    private let limit: Double
    private var since: Double?
    private var frozen: [String] = []
    /// It waits for somebody else, and nothing can interrupt it.
    private var isStuck = false

    /// Starts the guard; nothing is held yet.
    ///
    /// - Parameters:
    ///   - limit: seconds after which the guard lets go by itself
    ///   - program: whose `hold-guard` it is; this one, unless a test says otherwise
    public init(limit: Double, program: String = "/proc/self/exe") throws(CaptureError) {
        self.limit = limit
        var ends: [Int32] = [-1, -1]
        guard socketpair(AF_UNIX, Int32(SOCK_SEQPACKET.rawValue | SOCK_CLOEXEC.rawValue), 0, &ends) == 0 else {
            throw CaptureError("writes cannot be held", SystemError(operation: "make a socket", errno: errno))
        }
        defer { close(ends[1]) }
        guard let child = Self.spawn(program, standardInput: ends[1]) else {
            let code = errno
            close(ends[0])
            throw CaptureError("writes cannot be held", SystemError(operation: "start the guard \(program)", errno: code))
        }
        socket = ends[0]
        process = child
        try ask("limit \(Int(limit * 1000))", "writes cannot be held")
    }

    deinit {
        close(socket)
        if isStuck { return }
        var status: Int32 = 0
        while waitpid(process, &status, 0) < 0, errno == EINTR {}
    }

    private static func spawn(_ program: String, standardInput: Int32) -> Int32? {
        var actions = posix_spawn_file_actions_t()
        posix_spawn_file_actions_init(&actions)
        defer { posix_spawn_file_actions_destroy(&actions) }
        posix_spawn_file_actions_adddup2(&actions, standardInput, STDIN_FILENO)
        var arguments: [UnsafeMutablePointer<CChar>?] = [strdup("bgbackup"), strdup(HoldGuard.argument), nil]
        var environment: [UnsafeMutablePointer<CChar>?] = [nil]
        defer { arguments.forEach { free($0) } }
        var child: pid_t = 0
        let status = posix_spawn(&child, program, &actions, nil, &arguments, &environment)
        errno = status
        return status == 0 ? child : nil
    }

    /// Seconds in which a file system answers that is not frozen.
    private static let patience = 5

    /// Makes sure that the file systems of the parts take writes: captures are
    /// made on them, and on a frozen one would wait for ever.
    public static func requireWritable(_ parts: VolumeParts, program: String = "/proc/self/exe") throws(CaptureError) {
        let hold = try WriteHold(limit: 1, program: program)
        for part in parts.all {
            var waiting = timeval(tv_sec: patience, tv_usec: 0)
            setsockopt(hold.socket, SOL_SOCKET, SO_RCVTIMEO, &waiting, socklen_t(MemoryLayout<timeval>.size))
            GuardSocket.send(hold.socket, "probe \(part.directory)")
            guard let answer = GuardSocket.receive(hold.socket) else {
                hold.isStuck = true
                throw CaptureError(
                    "the file system of \(part.directory) takes no writes: it is frozen, or does not answer",
                    hint: "'fsfreeze --unfreeze' thaws it, if nobody needs it frozen.")
            }
            guard answer == "ok" else {
                throw CaptureError(
                    "the file system of \(part.directory) cannot be written to, and a capture would stand there",
                    hint: "Give --capture pause, which writes nothing there.")
            }
        }
    }

    /// Stops all threads of the processes.
    public func pause(_ writers: [Writer]) throws(CaptureError) {
        since = since ?? monotonicSeconds()
        for writer in writers {
            try ask("pause \(writer.pid) \(writer.started)", "\(writer.name) (process \(writer.pid)) cannot be paused")
        }
    }

    /// Freezes the file system that a directory is on.
    public func freeze(_ directory: String) throws(CaptureError) {
        since = since ?? monotonicSeconds()
        frozen.append(directory)
        try ask("freeze \(directory)", "the file system of \(directory) cannot be frozen")
    }

    /// Lets writes go on.
    /// - Returns: seconds for which they were held
    /// - Throws: `CaptureError` where they were not held until now
    public func release() throws(CaptureError) -> Double {
        try ask("release", "writes were not held to the end")
        return since.map { monotonicSeconds() - $0 } ?? 0
    }

    private func ask(_ message: String, _ what: String) throws(CaptureError) {
        GuardSocket.send(socket, message)
        guard let answer = GuardSocket.receive(socket) else {
            thawAlone()
            throw CaptureError("\(what): the process that holds them was killed", hint: "Run the backup again.")
        }
        if answer == "ok" { return }
        if answer == "expired" {
            throw CaptureError(
                "\(what): that would have taken longer than \(formatDuration(limit))",
                hint: "Raise --max-freeze, or back up at a quieter time.")
        }
        let words = answer.split(separator: " ", maxSplits: 2)
        let code = words.count > 1 ? Int32(words[1]) ?? EIO : EIO
        throw CaptureError("\(what): \(explain(code))", hint: Self.hint(code))
    }

    private static func hint(_ code: Int32) -> String? {
        switch code {
        case EPERM, EACCES: "Run as root, or with the capabilities CAP_SYS_PTRACE and CAP_SYS_ADMIN."
        case EBUSY: "Somebody has frozen it already: 'fsfreeze --unfreeze' thaws it."
        case ESRCH: "It ended meanwhile: run the backup again."
        case ETIMEDOUT: "It did not come to rest in time: raise --max-freeze."
        case EOPNOTSUPP, ENOTTY: "This file system cannot be frozen."
        default: nil
        }
    }

    /// The guard is gone and, unlike a traced process, a frozen file system stays frozen.
    private func thawAlone() {
        for path in frozen {
            let directory = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC)
            guard directory >= 0 else { continue }
            _ = bgb_thaw(directory)
            close(directory)
        }
    }
}
