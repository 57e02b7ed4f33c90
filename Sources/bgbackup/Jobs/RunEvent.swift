import BackupBase
import CLinux
import Glibc
import Operations

/// A run's beginning and its end as one line each: in the journal with fields of their own, by which
/// `journalctl BGBACKUP_POLICY=demo` finds them; elsewhere, with -v, on standard error.
///
/// The journal's native protocol is a datagram of `NAME=value` lines (systemd, "Native Journal Protocol"); for that no
/// library is needed.
enum RunEvent {
    /// One kind of message each (`journalctl MESSAGE_ID=…`).
    private static let beganID = "5f1c1ad0c9e84a6c8f3b9a2f0a6d7e11"
    private static let endedID = "5f1c1ad0c9e84a6c8f3b9a2f0a6d7e12"

    static func began(_ record: RunRecord, isVerbose: Bool) {
        tell(record, beganID, "\(title(record)) begins", .information, isVerbose)
    }

    static func ended(_ record: RunRecord, isVerbose: Bool) {
        let priority: Journal.Priority =
            switch record.outcome {
            case .success, .running: .information
            case .busy, .interrupted: .notice
            case .warning: .warning
            case .failure, .killed: .error
            }
        tell(record, endedID, "\(title(record)): \(outcome(record))", priority, isVerbose)
    }

    private static func title(_ record: RunRecord) -> String {
        [record.kind.rawValue, record.schedule].compactMap { $0 }.joined(separator: " ")
            + (record.policy.map { " of \($0)" } ?? "")
    }

    private static func outcome(_ record: RunRecord) -> String {
        var parts = [record.outcome.rawValue]
        if let code = record.errorCode { parts.append("\(code), exit status \(record.exitStatus ?? 0)") }
        if let seconds = record.durationSeconds { parts.append("in \(formatDuration(seconds))") }
        if let id = record.figures.snapshot, record.kind == .backup { parts.append("snapshot \(id.prefix(8))") }
        if let stored = record.figures.bytesStored { parts.append("\(formatBytes(stored)) stored") }
        if let freed = record.figures.bytesFreed { parts.append("\(formatBytes(freed)) freed") }
        if let recovery = record.figures.recoverySeconds { parts.append("recovery \(formatDuration(recovery))") }
        return parts.joined(separator: ", ")
    }

    private static func tell(
        _ record: RunRecord, _ id: String, _ message: String, _ priority: Journal.Priority, _ isVerbose: Bool
    ) {
        guard Journal.isStandardError else {
            if isVerbose { Terminal.note("bgbackup: \(message)") }
            return
        }
        let figures = record.figures
        let fields: [(String, String?)] = [
            ("MESSAGE", message), ("PRIORITY", "\(priority.rawValue)"), ("SYSLOG_IDENTIFIER", "bgbackup"), ("MESSAGE_ID", id),
            ("BGBACKUP_RUN_ID", record.id), ("BGBACKUP_JOB", record.kind.rawValue), ("BGBACKUP_POLICY", record.policy),
            ("BGBACKUP_SCHEDULE", record.schedule), ("BGBACKUP_NODE", record.node), ("BGBACKUP_REPOSITORY", record.repository),
            ("BGBACKUP_OUTCOME", record.outcome.rawValue), ("BGBACKUP_EXIT_STATUS", record.exitStatus.map { "\($0)" }),
            ("BGBACKUP_ERROR_CODE", record.errorCode), ("BGBACKUP_ERROR", record.errorMessage),
            ("BGBACKUP_SNAPSHOT", figures.snapshot), ("BGBACKUP_DURATION_SECONDS", record.durationSeconds.map { "\($0)" }),
            ("BGBACKUP_BYTES_READ", figures.bytesRead.map { "\($0)" }),
            ("BGBACKUP_BYTES_STORED", figures.bytesStored.map { "\($0)" }),
        ]
        if !send(fields) { Terminal.note("bgbackup: \(message)", priority) }
    }

    /// - Returns: whether the journal took it
    private static func send(_ fields: [(String, String?)]) -> Bool {
        let text = fields.compactMap { name, value in value.map { "\(name)=\(printable($0.utf8))\n" } }.joined()
        let place = Session.environment("BGBACKUP_JOURNAL_SOCKET") ?? "/run/systemd/journal/socket"
        let name = Array(place.utf8)
        guard (1...107).contains(name.count) else { return false }
        let descriptor = socket(AF_UNIX, Int32(SOCK_DGRAM.rawValue | SOCK_CLOEXEC.rawValue), 0)
        guard descriptor >= 0 else { return false }
        defer { close(descriptor) }
        var wait = timeval(tv_sec: 1, tv_usec: 0)
        setsockopt(descriptor, SOL_SOCKET, SO_SNDTIMEO, &wait, socklen_t(MemoryLayout<timeval>.size))
        let address = withUnsafeBytes(of: sa_family_t(AF_UNIX), Array.init) + name + [0]
        let bytes = Array(text.utf8)
        return address.withUnsafeBytes { address in
            sendto(
                descriptor, bytes, bytes.count, Int32(MSG_NOSIGNAL), address.bindMemory(to: sockaddr.self).baseAddress,
                socklen_t(address.count)) == bytes.count
        }
    }
}
