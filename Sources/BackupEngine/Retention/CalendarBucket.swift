import BackupBase
import Glibc

/// Stretches of the calendar, in UTC, of each of which one snapshot may be kept.
enum CalendarBucket: String, CaseIterable {
    case hourly, daily, weekly, monthly, yearly

    /// The name of the stretch that holds a moment: "2026-11-21T13", "2026-11-21",
    /// "2026-W47" (ISO 8601: the week, and the year, that its Thursday is in), "2026-11", "2026".
    /// - Parameter moment: seconds since 1970
    func name(_ moment: Double) -> String { formatTime(moment, pattern) }

    private var pattern: String {
        switch self {
        case .hourly: "%Y-%m-%dT%H"
        case .daily: "%Y-%m-%d"
        case .weekly: "%G-W%V"
        case .monthly: "%Y-%m"
        case .yearly: "%Y"
        }
    }

    func count(_ policy: RetentionPolicy) -> Int {
        switch self {
        case .hourly: policy.keepHourly ?? 0
        case .daily: policy.keepDaily ?? 0
        case .weekly: policy.keepWeekly ?? 0
        case .monthly: policy.keepMonthly ?? 0
        case .yearly: policy.keepYearly ?? 0
        }
    }
}
