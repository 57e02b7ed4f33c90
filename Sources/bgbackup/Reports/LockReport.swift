import BackupBase
import BackupRepository

/// What was done to keep objects locked, in words.
struct LockReport {
    let report: LockExtension.Report
    let dryRun: Bool

    init(_ report: LockExtension.Report, dryRun: Bool) { (self.report, self.dryRun) = (report, dryRun) }

    /// Until when everything is locked that is needed then; nil where some of it is not, or nothing is needed for so long.
    var horizon: String? { report.horizon > 0 && report.horizon < .max ? formatTime(report.horizon) : nil }

    var text: String {
        let verb = dryRun ? "would be" : "were"
        let then = horizon.map { "everything that is needed is locked until \($0)" } ?? "some of it is not locked"
        return "\(report.extended) of \(report.needed) locks \(verb) extended; \(then)"
    }
}
