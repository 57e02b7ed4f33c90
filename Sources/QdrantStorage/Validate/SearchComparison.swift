import BackupBase

/// The same searches on both: what they find, with which scores, how fast.
struct SearchComparison {
    private(set) var checks: [ServerCheck] = []
    private(set) var latency: LatencyComparison?

    /// Of one kind of search.
    private struct Tally {
        var searches = 0
        var overlap = 0.0
        var worstOverlap = 1.0
        var scoreDistance = 0.0

        var mean: Double { searches == 0 ? 1 : overlap / Double(searches) }

        mutating func add(_ old: [FoundPoint], _ new: [FoundPoint], _ tolerance: Double) {
            let share = SearchComparison.overlap(old, new, tolerance)
            searches += 1
            overlap += share
            worstOverlap = min(worstOverlap, share)
            for (one, other) in zip(old, new) { scoreDistance = max(scoreDistance, relativeDistance(one.score, other.score)) }
        }
    }

    init(
        _ blue: QdrantClient, _ green: QdrantClient, _ name: String, _ queries: [UserQuery], _ options: ValidationOptions
    ) throws {
        var (exact, indexed) = (Tally(), Tally())
        var (blueSeconds, greenSeconds): ([Double], [Double]) = ([], [])
        for (number, query) in queries.enumerated() {
            let body = query.body(top: options.top, exact: true)
            exact.add(try blue.found(name, body).points, try green.found(name, body).points, options.tolerance)
            // As everybody searches, and timed: in turns, so that neither has the warmer machine.
            let usual = query.body(top: options.top, exact: false)
            let isBlueFirst = number % 2 == 0
            let first = try (isBlueFirst ? blue : green).found(name, usual)
            let second = try (isBlueFirst ? green : blue).found(name, usual)
            let (old, new) = isBlueFirst ? (first, second) : (second, first)
            indexed.add(old.points, new.points, options.tolerance)
            blueSeconds.append(old.seconds)
            greenSeconds.append(new.seconds)
        }
        let latency = LatencyComparison(
            collection: name, searches: queries.count, blue: .init(blueSeconds), green: .init(greenSeconds))
        self.latency = latency
        let found = exact.worstOverlap >= options.minOverlap
        let isNear = exact.scoreDistance <= options.tolerance
        checks = [
            ServerCheck(
                "exact search", of: name, found ? .pass : .fail,
                expected: "overlap@\(options.top) ≥ \(fixed(options.minOverlap, 2))",
                found: "\(fixed(exact.mean, 3)), least \(fixed(exact.worstOverlap, 3))", detail: "\(exact.searches) searches"),
            ServerCheck(
                "exact scores", of: name, isNear ? .pass : .fail, expected: "differ by ≤ \(scientific(options.tolerance))",
                found: scientific(exact.scoreDistance)),
            // A graph that was built anew finds other points, and no worse ones.
            ServerCheck(
                "index search", of: name, indexed.worstOverlap >= options.minOverlap ? .pass : .warn,
                expected: "overlap@\(options.top) ≥ \(fixed(options.minOverlap, 2))",
                found: "\(fixed(indexed.mean, 3)), least \(fixed(indexed.worstOverlap, 3))",
                detail: indexed.worstOverlap >= options.minOverlap
                    ? "" : "through the index, which finds near points and not surely the nearest"),
            Self.latencyCheck(name, latency),
        ]
    }

    /// Seconds below which a difference is noise.
    private static let noise = 0.02

    private static func latencyCheck(_ name: String, _ latency: LatencyComparison) -> ServerCheck {
        let isSlow = latency.green.p95 > latency.blue.p95 * 2 + noise
        func text(_ side: LatencyComparison.Side) -> String {
            "p50 \(fixed(side.p50 * 1000, 1)) ms, p95 \(fixed(side.p95 * 1000, 1)) ms"
        }
        return ServerCheck(
            "latency", of: name, isSlow ? .warn : .pass, expected: text(latency.blue), found: text(latency.green),
            detail: isSlow ? "green is slow, perhaps because nothing is in its memory yet" : "")
    }

    /// The share of blue's results that green has too. Points that tie with the
    /// last one may stand for each other: which of them is cut off is chance.
    static func overlap(_ old: [FoundPoint], _ new: [FoundPoint], _ tolerance: Double) -> Double {
        guard !old.isEmpty || !new.isEmpty else { return 1 }
        let found = Set(new.map(\.id))
        let hits = old.filter { point in
            if found.contains(point.id) { return true }
            guard new.count >= old.count, let last = new.last else { return false }
            return relativeDistance(point.score, last.score) <= tolerance
        }
        return Double(hits.count) / Double(max(old.count, new.count))
    }
}
