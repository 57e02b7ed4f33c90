import BackupBase
import QdrantStorage

extension ValidationReport {
    /// One page that needs nothing else: no script, no other file, light and dark.
    var page: String {
        """
        <!DOCTYPE html>
        <html lang="en">
        <head>
        <meta charset="utf-8">
        <meta name="viewport" content="width=device-width, initial-scale=1">
        <meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
        <meta name="color-scheme" content="light dark">
        <title>Validation \(verdict == "fail" ? "failed" : "passed"): \(escaped(blue.url)) to \(escaped(green.url))</title>
        <style>\(Self.style)</style>
        </head>
        <body>
        <main>
        \(banner)
        <dl class="servers">
        \(server("Blue, serves now", blue))\(server("Green, to take over", green))
        <div><dt>Compared</dt><dd>\(escaped(started))<span>in \(escaped(formatDuration(duration_seconds)))</span></dd></div>
        </dl>
        \(latencyTable)
        \(checkTable)
        </main>
        </body>
        </html>

        """
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

    // MARK: - Tables

    /// Rows of passed checks that are shown one by one; with more, one row stands for all of a name.
    private static let mostPassed = 60

    private var checkTable: String {
        let order: [ServerCheck.Verdict] = [.fail, .warn, .pass]
        var rows = order.flatMap { verdict in checks.filter { $0.verdict == verdict } }
        if count(.pass) > Self.mostPassed { rows = rows.filter { $0.verdict != .pass } + gathered }
        let words: [ServerCheck.Verdict: String] = [.fail: "failed", .warn: "look", .pass: "passed"]
        let body = rows.map { check in
            let detail = check.detail.isEmpty ? "" : "<p>\(escaped(check.detail))</p>"
            return """
                <tr class="\(check.verdict.rawValue)"><td><b>\(words[check.verdict]!)</b></td>\
                <th scope="row">\(escaped(check.name))</th><td data-label="Collection">\(escaped(check.collection ?? "–"))</td>\
                <td data-label="Expected">\(escaped(check.expected))</td><td data-label="Found">\(escaped(check.found))\(detail)</td></tr>
                """
        }.joined(separator: "\n")
        return """
            <section><h2>Checks</h2>
            <table class="checks">
            <thead><tr><th></th><th>Check</th><th>Collection</th><th>Expected</th><th>Found</th></tr></thead>
            <tbody>
            \(body)
            </tbody></table></section>
            """
    }

    private var gathered: [ServerCheck] {
        var names: [String] = []
        for check in checks where check.verdict == .pass && !names.contains(check.name) { names.append(check.name) }
        return names.map { name in
            let same = checks.filter { $0.verdict == .pass && $0.name == name }
            return same.count == 1
                ? same[0]
                : ServerCheck(name, of: "\(same.count) collections", .pass, expected: "as on blue", found: "as on blue")
        }
    }

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

    private static let style = """

        :root{--paper:#fff;--ink:#1b1f24;--soft:#5b6570;--line:#dde2e7;--panel:#f5f7f9;--fail:#b3261e;--warn:#8a5a00;--pass:#1b6e3c;--blue:#2563c9;--green:#1f8a4c}
        @media(prefers-color-scheme:dark){:root{--paper:#14171a;--ink:#e8ebee;--soft:#9aa5b1;--line:#30363d;--panel:#1d2125;--fail:#ff8a80;--warn:#f2b84b;--pass:#6fd394;--blue:#7aa9ff;--green:#5fcf8d}}
        *{box-sizing:border-box}
        body{margin:0;background:var(--paper);color:var(--ink);font:15px/1.45 system-ui,sans-serif}
        main{max-width:1180px;margin:0 auto;padding:20px}
        h1{font-size:1.6rem;margin:0}h2{font-size:1.05rem;margin:26px 0 10px}h3{font-size:.95rem;margin:0 0 4px}
        small{font-weight:400;color:var(--soft)}
        .banner{border-left:8px solid var(--pass);background:var(--panel);padding:16px 20px;border-radius:6px}
        .banner.fail{border-color:var(--fail)}.banner.warn{border-color:var(--warn)}
        .banner.pass h1,.banner.warn h1{color:var(--pass)}.banner.fail h1{color:var(--fail)}
        .banner p{margin:6px 0 0;overflow-wrap:anywhere}.counts{color:var(--soft)}
        .servers{display:grid;grid-template-columns:repeat(3,1fr);gap:12px;margin:14px 0 0}
        .servers dt{color:var(--soft);font-size:.85rem}.servers dd{margin:0;overflow-wrap:anywhere}.servers span{display:block;color:var(--soft)}
        table{width:100%;border-collapse:collapse;table-layout:fixed}
        thead th{text-align:left;color:var(--soft);font-weight:600;font-size:.85rem}
        th,td{padding:6px 8px;border-bottom:1px solid var(--line);vertical-align:top;overflow-wrap:anywhere}
        tbody th{text-align:left;font-weight:600}
        .checks th:nth-child(1),.checks td:nth-child(1){width:76px}.checks thead th:nth-child(2){width:15%}.checks thead th:nth-child(3){width:16%}
        td p{margin:2px 0 0;color:var(--soft);font-size:.9em}
        td b{font-size:.8rem}.fail b{color:var(--fail)}.warn b{color:var(--warn)}.pass b{color:var(--pass)}
        .latency{display:grid;grid-template-columns:repeat(auto-fit,minmax(320px,1fr));gap:14px 28px}
        .row{display:grid;grid-template-columns:46px 1fr 128px;gap:8px;align-items:center;font-size:.9rem}
        .track{position:relative;height:12px;background:var(--panel);border-radius:3px;overflow:hidden}
        .track i{position:absolute;left:0;top:0;bottom:0}.track .wide{opacity:.4}
        i.blue{background:var(--blue)}i.green{background:var(--green)}.value{text-align:right;color:var(--soft);white-space:nowrap}
        @media screen and (max-width:700px){
        main{padding:12px}h1{font-size:1.3rem}.servers{grid-template-columns:1fr}.latency{grid-template-columns:1fr}
        .checks thead{display:none}.checks,.checks tbody,.checks tr,.checks th,.checks td{display:block;width:auto}
        .checks tr{border-bottom:1px solid var(--line);padding:8px 0;position:relative}
        .checks th,.checks td{border:0;padding:1px 0}.checks td:nth-child(1){position:absolute;right:0;top:8px;width:auto}
        .checks td[data-label]{display:grid;grid-template-columns:88px 1fr}.checks td[data-label]::before{content:attr(data-label);color:var(--soft)}
        .checks td p{grid-column:2}}
        @media print{:root{--paper:#fff;--ink:#000;--soft:#444;--line:#ccc;--panel:#f4f4f4;--fail:#b3261e;--warn:#8a5a00;--pass:#1b6e3c;--blue:#2563c9;--green:#1f8a4c}
        @page{size:A4;margin:10mm}html{font-size:9px}body{font-size:8.5px;line-height:1.25}main{padding:0;max-width:none}h1{font-size:15px}h2{margin:8px 0 3px;font-size:10px}h3{font-size:9px}
        .banner{padding:6px 10px}.servers{margin:6px 0 0}th,td{padding:1.5px 4px}.checks th:nth-child(1),.checks td:nth-child(1){width:44px}
        .track{height:6px}.latency{gap:4px 20px}tr{break-inside:avoid}*{print-color-adjust:exact;-webkit-print-color-adjust:exact}}

        """
}
