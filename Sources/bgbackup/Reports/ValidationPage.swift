import BackupBase
import QdrantStorage

extension ValidationReport {
    /// One page that needs nothing else: no script, no other file, light and dark.
    var page: String {
        HTMLPage(
            title: "Validation \(verdict == "fail" ? "failed" : "passed"): \(blue.url) to \(green.url)",
            body: """
                \(banner)
                <dl class="facts">
                \(server("Blue, serves now", blue))\(server("Green, to take over", green))
                <div><dt>Compared</dt><dd>\(escaped(started))<span>in \(escaped(formatDuration(duration_seconds)))</span></dd></div>
                </dl>
                \(latencyTable)
                <section><h2>Checks</h2>
                \(CheckTable(checks, asExpected: "as on blue").html)</section>
                """
        ).html
    }

    private var banner: String {
        let isFailed = verdict == "fail"
        let title = isFailed ? "Green must not take over" : "Green can take over"
        let first = checks.first { $0.verdict == .fail }
        let line =
            first.map { "First reason: \($0.reason)" }
            ?? (count(.warn) > 0 ? "Nothing differs that matters; \(count(.warn)) checks are worth a look." : "Nothing differs.")
        return """
            <header class="banner \(verdict)">
            <h1>\(title)</h1>
            <p>\(escaped(line))</p>
            <p class="counts">\(count(.fail)) failed · \(count(.warn)) to look at · \(count(.pass)) passed</p>
            </header>
            """
    }

    private func server(_ title: String, _ server: ValidatedServer) -> String {
        "<div><dt>\(title)</dt><dd>\(escaped(server.url))<span>Qdrant \(server.version)</span></dd></div>\n"
    }

    // MARK: - Latency

    /// Collections that are shown with their latency; the slowest of green come first.
    private static let mostLatencies = 8

    private var latencyTable: String {
        guard !latency.isEmpty else { return "" }
        let shown = latency.sorted { $0.green_p95_ms > $1.green_p95_ms }.prefix(Self.mostLatencies)
        let scale = max(shown.map { max($0.blue_p95_ms, $0.green_p95_ms) }.max() ?? 1, 0.001)
        func bar(_ side: String, _ p50: Double, _ p95: Double) -> String {
            func width(_ value: Double) -> String { fixed(max(value / scale * 100, 0.5), 1) }
            return """
                <div class="row"><span class="name">\(side)</span><span class="track"><i class="\(side) wide" style="width:\(width(p95))%"></i>\
                <i class="\(side)" style="width:\(width(p50))%"></i></span>\
                <span class="value">\(fixed(p50, 1)) / \(fixed(p95, 1)) ms</span></div>
                """
        }
        let groups = shown.map { item in
            """
            <div class="group"><h3>\(escaped(item.collection)) <small>\(item.searches) searches</small></h3>
            \(bar("blue", item.blue_p50_ms, item.blue_p95_ms))
            \(bar("green", item.green_p50_ms, item.green_p95_ms))</div>
            """
        }.joined(separator: "\n")
        let rest = latency.count > shown.count ? "<p>and \(latency.count - shown.count) faster collections</p>" : ""
        return "<section><h2>Latency, median / 95th percentile</h2><div class=\"latency\">\(groups)</div>\(rest)</section>"
    }
}
