/// Which snapshots stay: a snapshot stays when any of these keeps it.
///
/// Nothing is said about a snapshot that none keeps but one of an empty policy,
/// which keeps everything.
public struct RetentionPolicy: Sendable, Codable, Equatable {
    /// The newest ones, whatever their age.
    public var keepLast: Int?
    /// The newest of each of so many hours, days, weeks (ISO), months and years that have one, in UTC.
    public var keepHourly: Int?
    public var keepDaily: Int?
    public var keepWeekly: Int?
    public var keepMonthly: Int?
    public var keepYearly: Int?
    /// Seconds: all that are younger.
    public var keepWithin: Double?
    /// Snapshots that stay at least, the newest ones, of each volume.
    public var minSnapshots = 1
    /// Share of a volume's snapshots that one run may take away.
    public var maxDeleteRatio = 0.5

    public init() {}

    /// Whether it names no rule that lets anything go.
    public var isEmpty: Bool {
        [keepLast, keepHourly, keepDaily, keepWeekly, keepMonthly, keepYearly].allSatisfy { $0 == nil } && keepWithin == nil
    }
}
