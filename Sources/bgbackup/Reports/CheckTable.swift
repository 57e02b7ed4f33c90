import QdrantStorage

/// Checks as a table of a page: those that failed first.
struct CheckTable {
    private let checks: [ServerCheck]
    private let asExpected: String
    private let mostPassed: Int

    /// - Parameters:
    ///   - asExpected: what stands for many checks that passed
    ///   - mostPassed: rows of passed checks that are shown one by one; with more, one row stands for all of a name
    init(_ checks: [ServerCheck], asExpected: String, mostPassed: Int = 60) {
        self.checks = checks
        self.asExpected = asExpected
        self.mostPassed = mostPassed
    }

    var html: String {
        let order: [ServerCheck.Verdict] = [.fail, .warn, .pass]
        var rows = order.flatMap { verdict in checks.filter { $0.verdict == verdict } }
        if checks.filter({ $0.verdict == .pass }).count > mostPassed {
            rows = rows.filter { $0.verdict != .pass } + gathered
        }
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
            <table class="checks">
            <thead><tr><th></th><th>Check</th><th>Collection</th><th>Expected</th><th>Found</th></tr></thead>
            <tbody>
            \(body)
            </tbody></table>
            """
    }

    private var gathered: [ServerCheck] {
        var names: [String] = []
        for check in checks where check.verdict == .pass && !names.contains(check.name) { names.append(check.name) }
        return names.map { name in
            let same = checks.filter { $0.verdict == .pass && $0.name == name }
            return same.count == 1
                ? same[0]
                : ServerCheck(name, of: "\(same.count) collections", .pass, expected: asExpected, found: asExpected)
        }
    }
}
