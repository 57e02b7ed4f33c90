import BackupBase
import BackupEngine
import Glibc

/// Shows how far a run is: one line that rewrites itself on a terminal, status
/// lines with --json, nothing elsewhere.
final class ProgressLine: Sendable {
    private let task: Task<Void, Never>?
    /// Held while a line is written: none comes after `stop`, the summary is the last one.
    private let isStopped = Locked(false)

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
        let isShown = !options.noProgress && !options.quiet && (json || Terminal.isInteractive)
        let service = Main.service
        guard isShown || service != nil else {
            task = nil
            return
        }
        let start = monotonicSeconds()
        let isStopped = isStopped
        task = Task {
            while !Task.isCancelled {
                try? await Task.sleep(for: .milliseconds(json || !isShown ? 1000 : 200))
                if Task.isCancelled { return }
                isStopped.withLock { if isShown, !$0 { Self.show(board.current, since: start, json: json) } }
                service?.status(Self.text(board.current, since: start))
            }
        }
    }

    func stop() {
        isStopped.withLock { $0 = true }
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
        if json {
            let (rate, remaining) = speed(progress, since: start)
            try? Output.document(
                Status(
                    phase: progress.phase.rawValue, bytes_done: progress.bytesDone, bytes_total: progress.bytesTotal,
                    files_done: progress.filesDone, files_total: progress.filesTotal, bytes_per_second: Int64(rate),
                    seconds_remaining: remaining.map { Int($0.rounded()) }), lines: true)
            return
        }
        shown.withLock { $0 = true }
        Terminal.raw("\r\u{1b}[K\(text(progress, since: start).prefix(width - 1))")
    }

    private static func speed(_ progress: Progress, since start: Double) -> (rate: Double, remaining: Double?) {
        let elapsed = max(monotonicSeconds() - start, 0.001)
        let rate = Double(progress.bytesDone) / elapsed
        let left = Double(max(progress.bytesTotal - progress.bytesDone, 0))
        return (rate, rate > 0 && progress.bytesDone > 0 ? left / rate : nil)
    }

    private static func text(_ progress: Progress, since start: Double) -> String {
        guard progress.bytesTotal > 0 else { return "\(progress.phase.rawValue)…" }
        let (rate, remaining) = speed(progress, since: start)
        let share = Double(progress.bytesDone) / Double(progress.bytesTotal) * 100
        let bytes = "\(formatBytes(progress.bytesDone)) of \(formatBytes(progress.bytesTotal))"
        let eta = remaining.map { ", \(formatDuration($0)) left" } ?? ""
        return "\(progress.phase.rawValue)  \(fixed(share, 0))%  \(bytes)  \(formatBytes(Int64(rate)))/s\(eta)"
    }

    private static var width: Int {
        var size = winsize()
        return ioctl(STDERR_FILENO, UInt(TIOCGWINSZ), &size) == 0 && size.ws_col > 20 ? Int(size.ws_col) : 80
    }
}
