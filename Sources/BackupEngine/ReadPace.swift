import BackupBase
import Glibc

/// Keeps reading below a rate, and lets it rest while the database waits for
/// the disk or for memory.
///
/// Pressure is looked up where it is the database's own: in its control group.
/// The machine's would count our own waiting too.
final class ReadPace: Sendable {
    private struct State {
        /// When the next read may begin: monotonic seconds.
        var next = 0.0
        var pressureFiles: [String] = []
        var checked = 0.0
        var isPressed = false
    }

    private let limit: Double?
    private let state = Locked(State())

    /// Share of the last ten seconds in which some of the database's threads
    /// waited, in percent, from which on reading rests.
    static let pressureLimit = 10.0
    /// Seconds between two looks, and for which a read waits while there is pressure.
    private static let interval = 1.0
    private static let rest = 0.25

    /// - Parameter limit: bytes a second
    init(limit: Int?) { self.limit = limit.map(Double.init) }

    /// Files of pressure stall information (kernel: psi.rst) to look at.
    func watch(_ files: [String]) { state.withLock { $0.pressureFiles = files } }

    /// Whether the last look found pressure.
    var isResting: Bool { state.withLock { $0.isPressed } }

    /// Returns when so many bytes may be read.
    /// - Throws: `CancellationError`
    func wait(for bytes: Int) async throws {
        let now = monotonicSeconds()
        let start = state.withLock { state in
            if !state.pressureFiles.isEmpty, now - state.checked >= Self.interval {
                state.checked = now
                state.isPressed = state.pressureFiles.contains { Self.pressure($0) >= Self.pressureLimit }
            }
            var start = max(state.next, now)
            if let limit { state.next = start + Double(bytes) / limit }
            if state.isPressed {
                start += Self.rest
                state.next = max(state.next, start)
            }
            return start
        }
        if start > now { try await Task.sleep(for: .seconds(start - now)) }
    }

    /// "some avg10" in percent; 0 where nobody tells.
    static func pressure(_ path: String) -> Double {
        guard let bytes = LocalFile.readText(path), let line = bytes.split(separator: "\n").first,
            line.hasPrefix("some "), let field = line.split(separator: " ").first(where: { $0.hasPrefix("avg10=") })
        else { return 0 }
        return Double(field.dropFirst(6)) ?? 0
    }

    /// The pressure files of a process's control group; none where it is the
    /// root, or ours as well.
    static func files(of pid: Int32, mount: String = "/sys/fs/cgroup") -> [String] {
        func group(_ process: String) -> String? {
            LocalFile.readText("/proc/\(process)/cgroup")?.split(separator: "\n").first { $0.hasPrefix("0::") }
                .map { String($0.dropFirst(3)) }
        }
        guard let theirs = group("\(pid)"), theirs != "/", let ours = group("self"),
            ours != theirs, !ours.hasPrefix(theirs + "/")
        else { return [] }
        for root in [mount, "\(mount)/unified"] where access("\(root)\(theirs)/io.pressure", R_OK) == 0 {
            return ["io", "memory"].map { "\(root)\(theirs)/\($0).pressure" }
        }
        return []
    }
}
