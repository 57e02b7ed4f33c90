import BackupBase
import CLinux
import Glibc

/// What a service tells systemd: that it is ready, how far it is, that it works, that it stops
/// (sd_notify(3)). The protocol is a datagram of `NAME=value` lines to `$NOTIFY_SOCKET`; for
/// that no library is needed. Nobody waits for the other side: a message that does not fit into
/// its queue is lost, and the next one tells more.
final class ServiceNotice: Sendable {
    private let descriptor: Int32
    private let address: [UInt8]
    /// Seconds after which systemd kills a service that sent no ping; nil where it does not watch.
    let patience: Double?
    private let lastStatus = Locked<(text: String, sent: Double)>(("", 0))

    /// Bytes of a status at the most; systemd takes 4096 for a whole message.
    private static let statusLimit = 200

    /// Nil where nobody wants to be told. Takes the variables out of the environment, so that no
    /// program that is started speaks for this one: call it before there is a second thread.
    static func fromEnvironment() -> ServiceNotice? {
        let names = ["NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"]
        let values = names.map { Session.environment($0) }
        for name in names { unsetenv(name) }
        guard let place = values[0] else { return nil }
        // WATCHDOG_PID says whom it is meant for (sd_watchdog_enabled(3)).
        let isMeant = values[2].map { $0 == "\(getpid())" } ?? true
        return ServiceNotice(place, watchdog: isMeant ? values[1].flatMap(UInt64.init) : nil)
    }

    /// - Parameters:
    ///   - place: an absolute path, or `@` and a name in the abstract namespace
    ///   - watchdog: microseconds
    init?(_ place: String, watchdog: UInt64?) {
        var name = Array(place.utf8)
        guard let first = name.first, first == UInt8(ascii: "/") || first == UInt8(ascii: "@"),
            (2...107).contains(name.count), !name.contains(0)
        else { return nil }
        if first == UInt8(ascii: "@") { name[0] = 0 }
        let family = sa_family_t(AF_UNIX)
        // As the kernel has it: the family, then the name; an abstract one is as long as the address says.
        address = withUnsafeBytes(of: family, Array.init) + name + (name[0] == 0 ? [] : [0])
        descriptor = socket(AF_UNIX, Int32(SOCK_DGRAM.rawValue | SOCK_CLOEXEC.rawValue), 0)
        guard descriptor >= 0 else { return nil }
        // For what must arrive; a status and a ping do not wait at all.
        var wait = timeval(tv_sec: 2, tv_usec: 0)
        setsockopt(descriptor, SOL_SOCKET, SO_SNDTIMEO, &wait, socklen_t(MemoryLayout<timeval>.size))
        patience = watchdog.flatMap { $0 > 0 ? Double($0) / 1e6 : nil }
    }

    deinit { close(descriptor) }

    /// The work begins: from now on it is to get on.
    func ready(_ command: String) {
        send("READY=1\nSTATUS=\(Self.line(command))", waits: true)
        guard let patience else { return }
        // Sent by the thread that has done a piece of work, and by no other: while the loop
        // hangs nobody pings. A quarter, so that three may be lost.
        WorkPulse.listen(every: patience / 4) { [self] in send("WATCHDOG=1", waits: false) }
    }

    func stopping() { send("STOPPING=1\nSTATUS=stopping", waits: true) }

    /// What `systemctl status` shows; a text that changes often is sent once a second.
    func status(_ text: String) {
        let line = Self.line(text)
        let now = monotonicSeconds()
        let isDue = lastStatus.withLock { last in
            guard last.text != line, now - last.sent >= 1 else { return false }
            last = (line, now)
            return true
        }
        if isDue { send("STATUS=\(line)", waits: false) }
    }

    /// One line, printable, of bearable length.
    private static func line(_ text: String) -> String { String(printable(text.utf8).prefix(statusLimit)) }

    private func send(_ message: String, waits: Bool) {
        let bytes = Array(message.utf8)
        address.withUnsafeBytes { address in
            let flags = Int32(MSG_NOSIGNAL) | (waits ? 0 : Int32(MSG_DONTWAIT))
            while sendto(
                descriptor, bytes, bytes.count, flags, address.bindMemory(to: sockaddr.self).baseAddress,
                socklen_t(address.count)) < 0, errno == EINTR
            {}
        }
    }
}

/// The journal as the place of standard error.
enum Journal {
    /// Priorities of syslog(3), as sd-daemon(3) has them at the beginning of a line.
    enum Priority: Int { case error = 3, warning, notice, information }

    /// Whether standard error is the stream that systemd made: a redirected one is not.
    static let isStandardError: Bool = {
        guard let text = Session.environment("JOURNAL_STREAM") else { return false }
        let parts = text.split(separator: ":").compactMap { UInt64($0) }
        var value = stat()
        guard parts.count == 2, fstat(STDERR_FILENO, &value) == 0 else { return false }
        return UInt64(value.st_dev) == parts[0] && UInt64(value.st_ino) == parts[1]
    }()

    /// Each line of a text with its priority.
    static func marked(_ text: String, _ priority: Priority) -> String {
        text.split(separator: "\n", omittingEmptySubsequences: false).map { "<\(priority.rawValue)>\($0)" }
            .joined(separator: "\n")
    }
}
