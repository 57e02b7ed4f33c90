import BackupBase
import QdrantStorage

/// The comparison of two clusters as JSON, as a table, and as a page (`page`).
struct ValidationReport: Encodable {
    struct Latency: Encodable {
        let collection: String
        let searches: Int
        let blue_p50_ms: Double
        let blue_p95_ms: Double
        let green_p50_ms: Double
        let green_p95_ms: Double
    }

    let schema = 1
    let verdict: String
    let reason: Nullable<String>
    let blue: ValidatedServer
    let green: ValidatedServer
    let started: String
    let duration_seconds: Double
    let checks: [ServerCheck]
    let latency: [Latency]

    init(_ validation: Validation, started: String, seconds: Double) {
        verdict = validation.checks.verdict.rawValue
        reason = Nullable(validation.firstFailure?.reason)
        blue = validation.blue
        green = validation.green
        self.started = started
        duration_seconds = rounded(seconds)
        checks = validation.checks
        latency = validation.latencies.map {
            Latency(
                collection: $0.collection, searches: $0.searches, blue_p50_ms: rounded($0.blue.p50 * 1000),
                blue_p95_ms: rounded($0.blue.p95 * 1000), green_p50_ms: rounded($0.green.p50 * 1000),
                green_p95_ms: rounded($0.green.p95 * 1000))
        }
    }

    func count(_ verdict: ServerCheck.Verdict) -> Int { checks.filter { $0.verdict == verdict }.count }

    private static let signs: [ServerCheck.Verdict: String] = [.pass: "✓", .warn: "!", .fail: "✗"]

    func print(quiet: Bool, verbose: Bool) {
        func cell(_ text: String) -> String {
            let plain = printable(text.utf8)
            return !verbose && plain.count > 60 ? plain.prefix(59) + "…" : plain
        }
        let shown = checks.filter { !quiet || $0.verdict != .pass }
        if !quiet { Output.line("blue   \(blue.url)  Qdrant \(blue.version)\ngreen  \(green.url)  Qdrant \(green.version)\n") }
        if !shown.isEmpty {
            Output.table(
                ["", "CHECK", "COLLECTION", "EXPECTED", "FOUND"],
                shown.map {
                    [Self.signs[$0.verdict]!, $0.name, cell($0.collection ?? "-"), cell($0.expected), cell($0.found)]
                })
        }
        for check in shown where !check.detail.isEmpty && (check.verdict != .pass || verbose) {
            let place = check.collection.map { "\(check.name) of \(printable($0.utf8))" } ?? check.name
            Output.line("\(Self.signs[check.verdict]!) \(place): \(printable(check.detail.utf8))")
        }
        if quiet, shown.isEmpty { return }
        Output.line("")
        Output.line(
            verdict == "fail"
                ? "Green must not take over: \(count(.fail)) of \(checks.count) checks fail."
                : "Green can take over: \(count(.pass)) checks pass\(count(.warn) > 0 ? ", \(count(.warn)) are worth a look" : "")."
        )
    }
}
