/// When what a policy plans was written down, in seconds since 1970: a job that is new is not late.
public struct PlanTimes: Sendable {
    /// Of the policy's file; nil where it is not known.
    public var policy: Double?
    /// Of what systemd was told of a job, by its title: that file is written anew where the calendar is another one.
    public var timers: [String: Double] = [:]

    public init() {}

    /// From when on a job is waited for: its last run, or since anything is known of the policy, but not from before it
    /// was planned so.
    /// - Parameter first: since when the node remembers the policy; nil: it never ran anything, which is told by itself
    func expected(_ job: JobHealth, _ first: Double?) -> Double? {
        let told = timers[job.title]
        if let done = job.done { return max(done, told ?? 0) }
        return first.map { max($0, told ?? policy ?? 0) }
    }
}
