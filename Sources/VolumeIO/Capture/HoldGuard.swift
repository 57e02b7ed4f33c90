import BackupBase
import CLinux
import Glibc

/// The process that holds writes, so that they go on whatever becomes of the
/// backup: it lets go when the backup says so, when the backup's end of their
/// socket closes, and when the time is over.
///
/// Processes are stopped by tracing them, because the kernel lets a tracer's
/// processes run on when the tracer dies: not even SIGKILL to backup and guard
/// together leaves a database stopped. A signal (SIGSTOP) or a cgroup's freezer
/// outlive whoever used them. Tracing belongs to one thread; this process has
/// no other.
public enum HoldGuard {
    /// The argument that makes a program its guard: nobody types it.
    public static let argument = "hold-guard"

    /// Serves the socket on standard input until it closes.
    public static func run() -> Never {
        // A Ctrl-C or a stop of the unit is for the backup to answer.
        signal(SIGINT, SIG_IGN)
        signal(SIGTERM, SIG_IGN)
        signal(SIGHUP, SIG_IGN)
        // systemd's watchdog sends it to the whole service: a file system may have to be thawed yet.
        signal(SIGABRT, SIG_IGN)
        // Whoever waits for the end of the backup's output must not wait for this.
        let nothing = open("/dev/null", O_RDWR | O_CLOEXEC)
        dup2(nothing, STDOUT_FILENO)
        dup2(nothing, STDERR_FILENO)
        bgb_close_from(3)
        var holding = Holding()
        while true {
            var waiting = pollfd(fd: STDIN_FILENO, events: Int16(POLLIN), revents: 0)
            let ready = poll(&waiting, 1, holding.milliseconds)
            if ready < 0, errno == EINTR { continue }
            guard ready > 0 else {
                holding.expire()
                continue
            }
            guard let message = GuardSocket.receive(STDIN_FILENO) else { break }
            GuardSocket.send(STDIN_FILENO, holding.answer(message))
        }
        holding.letGo()
        exit(0)
    }
}

/// One message is one packet of text.
enum GuardSocket {
    static func send(_ socket: Int32, _ message: String) {
        let bytes = Array(message.utf8)
        _ = Glibc.send(socket, bytes, bytes.count, Int32(MSG_NOSIGNAL))
    }

    /// Nil when the other side has gone.
    static func receive(_ socket: Int32) -> String? {
        var buffer = [UInt8](repeating: 0, count: 8192)
        while true {
            let count = recv(socket, &buffer, buffer.count, 0)
            if count < 0, errno == EINTR { continue }
            guard count > 0 else { return nil }
            return String(decoding: buffer[..<count], as: UTF8.self)
        }
    }
}

/// What the guard holds, and until when.
private struct Holding {
    private var processes: [TracedProcess] = []
    private var fileSystems: [Descriptor] = []
    private var limit = 0.0
    private var end = Double.infinity
    private var expired = false

    private var isHolding: Bool { !processes.isEmpty || !fileSystems.isEmpty }

    /// For poll: until the time is over, or -1.
    var milliseconds: Int32 {
        guard isHolding, end.isFinite else { return -1 }
        return Int32(clamping: Int(max(0, end - monotonicSeconds()) * 1000) + 1)
    }

    mutating func answer(_ message: String) -> String {
        let words = message.split(separator: " ", maxSplits: 1).map(String.init)
        let rest = words.count > 1 ? words[1] : ""
        if expired, words.first != "release" { return "expired" }
        do throws(SystemError) {
            switch words.first {
            case "limit":
                limit = (Double(rest) ?? 0) / 1000
                return "ok"
            case "probe":
                try probe(rest)
                return "ok"
            case "pause":
                begin()
                try pause(rest)
                return "ok"
            case "freeze":
                begin()
                try freeze(rest)
                return "ok"
            case "release":
                letGo()
                return expired ? "expired" : "ok"
            default: return "error \(EINVAL) understand"
            }
        } catch {
            letGo()
            return "error \(error.errno) \(error.operation)"
        }
    }

    private mutating func begin() {
        if !isHolding { end = monotonicSeconds() + limit }
    }

    private mutating func pause(_ words: String) throws(SystemError) {
        let numbers = words.split(separator: " ")
        guard numbers.count == 2, let pid = Int32(numbers[0]), let started = UInt64(numbers[1]) else {
            throw SystemError(operation: "understand", errno: EINVAL)
        }
        var process = TracedProcess(pid: pid)
        do throws(SystemError) {
            try process.stop(started: started, until: end)
            processes.append(process)
        } catch {
            process.letGo()
            throw error
        }
    }

    /// Makes an unnamed file. On a frozen file system that waits for the thaw,
    /// which is why it is the guard that tries: nothing can interrupt it.
    private func probe(_ path: String) throws(SystemError) {
        do throws(SystemError) {
            _ = try Descriptor(system("write to") { open(path, O_RDWR | BGB_O_TMPFILE | O_CLOEXEC, 0o600) })
        } catch {
            guard [EROFS, EACCES, EPERM].contains(error.errno) else { return }
            throw error
        }
    }

    private mutating func freeze(_ path: String) throws(SystemError) {
        let directory = try Descriptor(
            system("open") { open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW) })
        try directory.call("freeze") { bgb_freeze($0) }
        fileSystems.append(directory)
    }

    mutating func expire() {
        guard isHolding, monotonicSeconds() >= end else { return }
        letGo()
        expired = true
    }

    mutating func letGo() {
        for process in processes { process.letGo() }
        for directory in fileSystems { _ = try? directory.call("thaw") { bgb_thaw($0) } }
        processes = []
        fileSystems = []
    }
}

/// A process whose threads are all stopped.
private struct TracedProcess {
    let pid: Int32
    /// By thread: a signal that was on its way to it, or 0.
    private var threads: [Int32: Int32] = [:]

    init(pid: Int32) { self.pid = pid }

    mutating func stop(started: UInt64, until end: Double) throws(SystemError) {
        guard ProcessStat(pid)?.started == started else { throw SystemError(operation: "pause", errno: ESRCH) }
        // New threads may be made until every one that could make them is stopped.
        var isComplete = false
        while !isComplete {
            isComplete = true
            var waiting: [Int32] = []
            for thread in names(of: "/proc/\(pid)/task").compactMap({ Int32($0) }) where threads[thread] == nil {
                if try seize(thread) { waiting.append(thread) }
            }
            for thread in waiting {
                isComplete = false
                try wait(for: thread, until: end)
            }
        }
        guard !threads.isEmpty, ProcessStat(pid)?.started == started else {
            throw SystemError(operation: "pause", errno: ESRCH)
        }
    }

    /// False where the thread has ended.
    private mutating func seize(_ thread: Int32) throws(SystemError) -> Bool {
        if bgb_ptrace(Int(BGB_PTRACE_SEIZE), thread, 0) != 0 {
            let code = errno
            if code == ESRCH || isZombie(thread) { return false }
            throw SystemError(operation: "pause", errno: code)
        }
        threads[thread] = 0
        _ = bgb_ptrace(Int(BGB_PTRACE_INTERRUPT), thread, 0)
        return true
    }

    private func isZombie(_ thread: Int32) -> Bool {
        guard let text = smallFile("/proc/\(pid)/task/\(thread)/stat"), let close = text.lastIndex(of: ")") else {
            return true
        }
        return ["Z", "X"].contains(text[text.index(after: close)...].split(separator: " ").first)
    }

    private mutating func wait(for thread: Int32, until end: Double) throws(SystemError) {
        while true {
            var status: Int32 = 0
            let found = bgb_wait_thread(thread, &status)
            if found == thread {
                let isStopped = status & 0xff == 0x7f
                // A stop of ours says PTRACE_EVENT_STOP (128); another is a signal on its way.
                if isStopped { threads[thread] = status >> 16 == 128 ? 0 : status >> 8 & 0xff } else { threads[thread] = nil }
                return
            }
            if found < 0, errno != EINTR {
                threads[thread] = nil
                return
            }
            // In a long system call: it stops at its end.
            guard monotonicSeconds() < end else { throw SystemError(operation: "pause", errno: ETIMEDOUT) }
            usleep(50)
        }
    }

    func letGo() {
        for (thread, signal) in threads {
            if bgb_ptrace(Int(BGB_PTRACE_DETACH), thread, Int(signal)) == 0 { continue }
            // Seized and not stopped yet: a tracer's end lets it go; so does this, once it stops.
            var status: Int32 = 0
            for _ in 0..<2000 where bgb_wait_thread(thread, &status) == 0 { usleep(50) }
            let pending = status >> 16 == 128 ? 0 : status >> 8 & 0xff
            _ = bgb_ptrace(Int(BGB_PTRACE_DETACH), thread, Int(pending))
        }
    }
}
