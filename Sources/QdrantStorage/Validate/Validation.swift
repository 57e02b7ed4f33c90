/// How closely two servers are compared.
public struct ValidationOptions: Sendable {
    /// The user's own; where there are none of a collection, sampled vectors are searched for.
    public var queries: [UserQuery] = []
    /// Points of each collection whose payload and vectors are compared.
    public var samples = 100
    /// Results of a search that are compared.
    public var top = 10
    /// Share of blue's results that an exact search on green has to find.
    public var minOverlap = 1.0
    /// By how much scores and vectors may differ, as a share of the value (of 1, where that is less).
    public var tolerance = 1e-5

    public init() {}
}

/// A server that takes part.
public struct ValidatedServer: Sendable, Codable {
    public let url: String
    public let version: ServerVersion
}

/// How fast both answer the same searches, seen from here; seconds.
public struct LatencyComparison: Sendable, Codable {
    public struct Side: Sendable, Codable {
        public let p50: Double
        public let p95: Double

        init(_ seconds: [Double]) {
            let sorted = seconds.sorted()
            func quantile(_ share: Double) -> Double {
                sorted.isEmpty ? 0 : sorted[min(sorted.count - 1, Int((Double(sorted.count) * share).rounded(.up)) - 1)]
            }
            p50 = quantile(0.5)
            p95 = quantile(0.95)
        }
    }

    public let collection: String
    public let searches: Int
    public let blue: Side
    public let green: Side
}

/// What the comparison of two servers found.
public struct Validation: Sendable {
    public let blue: ValidatedServer
    public let green: ValidatedServer
    public internal(set) var checks: [ServerCheck] = []
    public internal(set) var latencies: [LatencyComparison] = []

    public var hasPassed: Bool { checks.verdict != .fail }
    public var firstFailure: ServerCheck? { checks.first { $0.verdict == .fail } }
}
