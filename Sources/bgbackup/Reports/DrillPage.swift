import BackupBase
import QdrantStorage

extension DrillReport {
    /// One self-contained page, which prints on one sheet.
    /// - Parameter last: earlier drills, oldest first
    func page(last: [DrillReport]) -> String {
        HTMLPage(
            title: "Drill \(verdict == .fail ? "failed" : "passed"): \(subject)",
            body: """
                \(banner)
                \(facts)
                <section class="objectives">
                \(objective("Recovery time", recovery_seconds, recovery_objective_seconds, note: recoveryNote))
                \(objective("Recovery point", recovery_point_seconds, recovery_point_objective_seconds, note: "age of the newest snapshot when the drill began"))
                </section>
                \(nodes.map(timeline).joined(separator: "\n"))
                <div class="two">
                \(nodes.map(throughput).joined(separator: "\n"))
                \(lastDrills(last + [self]))
                </div>
                \(findings)
                <section><h2>Expected and found</h2>
                \(CheckTable(allChecks, asExpected: "as \(reference)", mostPassed: 24).html)</section>
                """
        ).html
    }

    /// What was compared with.
    private var reference: String { nodes.allSatisfy(\.has_fingerprint) ? "at the backup" : "the files say" }

    private var subject: String {
        if let set { return "set \(set)" }
        return nodes.map { "node \($0.node), snapshot \($0.snapshot_id.prefix(8))" }.joined(separator: "; ")
    }

    private var banner: String {
        let title = verdict == .fail ? "The drill failed" : "The drill passed"
        let warnings = count(.warn)
        let line =
            reason.map { "First reason: \($0)" }
            ?? (warnings > 0
                ? "Nothing failed; \(warnings) thing\(warnings == 1 ? " is" : "s are") worth a look."
                : engine == nil
                    ? "Restored, read back and inspected; the database was not started."
                    : "Restored, started, and everything that was compared is as \(reference).")
        return """
            <header class="banner \(verdict.rawValue)">
            <h1>\(title)</h1>
            <p>\(escaped(line))</p>
            <p class="counts">\(count(.fail)) failed · \(warnings) to look at · \(count(.pass)) passed</p>
            </header>
            """
    }

    private var facts: String {
        func fact(_ title: String, _ value: String, _ more: String) -> String {
            "<div><dt>\(title)</dt><dd>\(escaped(value))<span>\(escaped(more))</span></dd></div>"
        }
        let restored = nodes.map { node in
            fact(
                "Node \(escaped(node.node))", "snapshot \(node.snapshot_id.prefix(8)), \(node.consistency)",
                "captured \(shortTime(node.captured)) UTC, \(node.files) files, \(formatBytes(node.bytes_total))")
        }
        let version = nodes.compactMap(\.engine).first.map { "Qdrant \($0)" } ?? (engine == nil ? "nothing" : "not reached")
        let network = isolated ? "in a network of its own" : "on the machine's network"
        let how = engine == nil ? "restored, read back and inspected only" : wasStarted ? network : "the drill ended before"
        return """
            <dl class="facts">
            \(restored.joined(separator: "\n"))
            \(fact("Started on it", version, how))
            \(fact("Drill", started, "\(pick); took \(formatDuration(duration_seconds))"))
            </dl>
            """
    }

    private var recoveryNote: String {
        engine == nil
            ? "not measured: the database was not started"
            : "restore, boot and first right answer" + (nodes.count > 1 ? ", of the slowest node" : "")
    }

    // MARK: - Objectives

    private func objective(_ title: String, _ value: Double?, _ objective: Double?, note: String) -> String {
        let scale = max(value ?? 0, objective ?? 0) * 1.15
        func width(_ part: Double) -> String { fixed(scale > 0 ? part / scale * 100 : 0, 2) }
        let state = objective == nil ? "none" : value.map { $0 <= objective! } == true ? "met" : "fail"
        let mark = objective.map { "<u style=\"left:\(width($0))%\"></u>" } ?? ""
        let against = objective.map { "objective \(formatDuration($0)), \(state == "met" ? "met" : "missed")" } ?? "no objective"
        return """
            <div><h2>\(title)</h2>
            <span class="big">\(value.map(formatDuration) ?? "unknown")</span> <span class="soft">\(against)</span>
            <div class="meter \(state)"><i style="width:\(width(value ?? 0))%"></i>\(mark)</div>
            <span class="soft">\(escaped(note))</span></div>
            """
    }

    // MARK: - Timeline

    private func timeline(_ node: Node) -> String {
        let end = max(node.stages.map { $0.start_seconds + $0.seconds }.max() ?? 1, 0.001)
        let rows = node.stages.map { stage in
            let (left, width) = (stage.start_seconds / end * 100, stage.seconds / end * 100)
            return """
                <span>\(escaped(stage.name))</span><span class="track"><i class="\(stage.verdict.rawValue)" \
                style="left:\(fixed(left, 2))%;width:\(fixed(width, 2))%"></i></span><span class="value">\(formatDuration(stage.seconds))</span>
                <p>\(escaped(stage.detail))</p>
                """
        }.joined(separator: "\n")
        return "<section><h2>Stages\(of(node))</h2><div class=\"timeline\">\(rows)</div></section>"
    }

    private func of(_ node: Node) -> String { nodes.count > 1 ? " of \(escaped(node.node))" : "" }

    // MARK: - Throughput

    private static let (width, height, foot, side) = (560.0, 150.0, 18.0, 74.0)

    /// Bytes in place over time, and the rate as an area beneath.
    private func throughput(_ node: Node) -> String {
        let points = node.throughput
        guard let last = points.last, last.bytes > 0, last.seconds > 0 else { return "" }
        let (width, height, foot, side) = (Self.width, Self.height, Self.foot, Self.side)
        func x(_ seconds: Double) -> Double { side + seconds / last.seconds * (width - side - 6) }
        func y(_ share: Double) -> Double { (height - foot) - min(share, 1) * (height - foot - 8) }
        func place(_ x: Double, _ y: Double) -> String { "\(fixed(x, 1)),\(fixed(y, 1))" }
        let line = points.map { place(x($0.seconds), y(Double($0.bytes) / Double(last.bytes))) }.joined(separator: " ")
        return """
            <section><h2>Restore\(of(node)): bytes in place over time</h2>
            <svg viewBox="0 0 \(fixed(width, 0)) \(fixed(height, 0))" role="img" aria-label="Restored bytes over time">
            <line x1="\(side)" y1="\(fixed(y(0), 1))" x2="\(fixed(width, 0))" y2="\(fixed(y(0), 1))" stroke="var(--line)"/>
            <line x1="\(side)" y1="\(fixed(y(1), 1))" x2="\(fixed(width, 0))" y2="\(fixed(y(1), 1))" stroke="var(--line)" stroke-dasharray="3 3"/>
            <polygon points="\(place(x(0), y(0))) \(line) \(place(x(last.seconds), y(0)))" fill="var(--blue)" opacity=".15"/>
            <polyline points="\(place(x(0), y(0))) \(line)" fill="none" stroke="var(--blue)" stroke-width="2"/>
            <text x="0" y="\(fixed(y(1) + 4, 1))">\(formatBytes(last.bytes))</text><text x="0" y="\(fixed(y(0), 1))">0</text>
            <text x="\(side)" y="\(fixed(height - 4, 1))">0s</text>
            <text x="\(fixed(width - 4, 0))" y="\(fixed(height - 4, 1))" text-anchor="end">\(formatDuration(last.seconds)), \(formatBytes(node.bytes_per_second))/s</text>
            </svg></section>
            """
    }

    // MARK: - Last drills

    /// Each drill's recovery time as a column; one without a time is as high as the highest.
    private func lastDrills(_ drills: [DrillReport]) -> String {
        let most = max(drills.compactMap(\.recovery_seconds).max() ?? 1, 0.001)
        let columns = drills.map { drill in
            let height = 6 + (drill.recovery_seconds ?? most) / most * 48
            let words = "\(drill.started): \(drill.verdict == .fail ? "failed" : "passed")"
            return """
                <div title="\(escaped(words))">\(drill.recovery_seconds.map(formatDuration) ?? "–")\
                <i class="\(drill.verdict.rawValue)" style="height:\(fixed(height, 0))px"></i>\(escaped(String(drill.started.dropFirst(5).prefix(5))))</div>
                """
        }.joined(separator: "\n")
        let failed = drills.filter { $0.verdict == .fail }.count
        let text =
            drills.count == 1 ? "This is the first that is kept here" : "\(drills.count - failed) of \(drills.count) passed"
        return """
            <section><h2>Last drills: recovery time</h2><span class="soft">\(text)</span>
            <div class="last">\(columns)</div></section>
            """
    }

    // MARK: - Findings

    private var findings: String {
        let all = nodes.flatMap { node in node.findings.map { (node, $0) } }
        guard !all.isEmpty else { return "" }
        let rows = all.prefix(20).map { node, finding in
            """
            <tr class="\(finding.severity == .forbids ? "fail" : "warn")"><td><b>\(finding.severity == .forbids ? "failed" : "look")</b></td>\
            <th scope="row">\(escaped(finding.code.rawValue))</th><td data-label="Where">\(escaped(finding.path))</td>\
            <td data-label="What">\(escaped(finding.message))</td><td data-label="Remedy">\(escaped(finding.remedy))</td></tr>
            """
        }.joined(separator: "\n")
        let more = all.count > 20 ? "<p class=\"soft\">and \(all.count - 20) more</p>" : ""
        return """
            <section><h2>Found in the restored volume</h2><table class="checks">
            <thead><tr><th></th><th>Finding</th><th>Where</th><th>What</th><th>Remedy</th></tr></thead><tbody>
            \(rows)
            </tbody></table>\(more)</section>
            """
    }
}
