import BackupBase
import BackupEngine
import Glibc

/// Shows how far a run is: one line that rewrites itself on a terminal, status
/// lines with --json, nothing elsewhere.
final class ProgressLine: Sendable {
    private let task: Task<Void, Never>?

    private struct Status: Encodable {
        let message_type = "status"
        let schema = 1
        let phase: String
        let bytes_done: Int64
        let bytes_total: Int64
        let files_done: Int
        let files_total: Int
        let bytes_per_second: Int64
        let seconds_remaining: Int?
    }

    private static let shown = Locked(false)

    init(_ board: ProgressBoard, _ options: GlobalOptions) {
        let json = options.json
        guard !options.noProgress, !options.quiet, json || Terminal.isInteractive else {
            task = nil
            return
        }
        let start = monotonicSeconds()
        task = Task {
            while !Task.isCancelled {
                try? await Task.sleep(for: .milliseconds(json ? 1000 : 200))
                if Task.isCancelled { return }
                Self.show(board.current, since: start, json: json)
            }
        }
    }

    func stop() {
        task?.cancel()
        Self.clear()
    }

    static func clear() {
        let wasShown = shown.withLock { shown in
            defer { shown = false }
            return shown
        }
        if wasShown { Terminal.raw("\r\u{1b}[K") }
    }

    private static func show(_ progress: Progress, since start: Double, json: Bool) {
        let elapsed = max(monotonicSeconds() - start, 0.001)
        let rate = Double(progress.bytesDone) / elapsed
        let left = Double(max(progress.bytesTotal - progress.bytesDone, 0))
        let remaining = rate > 0 && progress.bytesDone > 0 ? left / rate : nil
        if json {
            try? Output.document(
                Status(
                    phase: progress.phase.rawValue, bytes_done: progress.bytesDone, bytes_total: progress.bytesTotal,
                    files_done: progress.filesDone, files_total: progress.filesTotal, bytes_per_second: Int64(rate),
                    seconds_remaining: remaining.map { Int($0.rounded()) }), lines: true)
            return
        }
        let share = progress.bytesTotal > 0 ? Double(progress.bytesDone) / Double(progress.bytesTotal) * 100 : 0
        let eta = remaining.map { ", \(formatDuration($0)) left" } ?? ""
        let text =
            progress.bytesTotal > 0
            ? "\(progress.phase.rawValue)  \(fixed(share, 0))%  \(formatBytes(progress.bytesDone)) of \(formatBytes(progress.bytesTotal))  \(formatBytes(Int64(rate)))/s\(eta)"
            : "\(progress.phase.rawValue)…"
        shown.withLock { $0 = true }
        Terminal.raw("\r\u{1b}[K\(text.prefix(width - 1))")
    }

    private static var width: Int {
        var size = winsize()
        return ioctl(STDERR_FILENO, UInt(TIOCGWINSZ), &size) == 0 && size.ws_col > 20 ? Int(size.ws_col) : 80
    }
}
