import BackupBase
import Operations

/// `status` as JSON. Moments are RFC 3339 in UTC, spans seconds.
struct StatusDocument: Encodable {
    struct Job: Encodable {
        let job: String
        let schedule: Nullable<String>
        let on_calendar: Nullable<String>
        let interval_seconds: Nullable<Double>
        let next: Nullable<String>
        let timer: TimerState
        let running: Bool
        let elsewhere: Bool
        let last: Nullable<RunRecord>
        let last_success: Nullable<String>
        let last_failure: Nullable<String>

        init(_ job: JobHealth) {
            self.job = job.kind.rawValue
            schedule = Nullable(job.schedule)
            on_calendar = Nullable(job.onCalendar)
            interval_seconds = Nullable(job.interval)
            next = Nullable(job.next.map(StatusDocument.time))
            timer = job.timer
            running = job.isRunning
            elsewhere = job.isElsewhere
            last = Nullable(job.last)
            last_success = Nullable(job.done.map(StatusDocument.time))
            last_failure = Nullable(job.lastFailed?.started)
        }
    }

    struct Policy: Encodable {
        let policy: Nullable<String>
        let repository: Nullable<String>
        let light: PolicyHealth.Light
        let newest: Nullable<String>
        let age_seconds: Nullable<Double>
        let objective_seconds: Nullable<Double>
        let anomaly: Nullable<String>
        let lock_horizon: Nullable<String>
        let snapshots: Nullable<Int>
        let store_note: Nullable<String>
        let problems: [Problem]
        let jobs: [Job]
        let days: [StatusDays.Day]

        init(_ entry: StatusEntry) {
            let health = entry.health
            policy = Nullable(health.policy)
            repository = Nullable(health.repository)
            light = health.light
            newest = Nullable(health.newest.map(StatusDocument.time))
            age_seconds = Nullable(health.age.map(rounded))
            objective_seconds = Nullable(health.objective)
            anomaly = Nullable(health.anomaly)
            lock_horizon = Nullable(health.lockHorizon.map(StatusDocument.time))
            snapshots = Nullable(entry.look?.snapshots)
            store_note = Nullable(entry.look?.note)
            problems = health.problems
            jobs = health.jobs.map(Job.init)
            days = entry.days.days
        }
    }

    let schema = 1
    let ok: Bool
    let node: String
    let time: String
    let policies: [Policy]
    /// What concerns no policy.
    let problems: [Problem]

    fileprivate static func time(_ seconds: Double) -> String { formatTime(seconds, "%Y-%m-%dT%H:%M:%SZ") }
}
