/// Payload and vectors of points that chance took from blue, on both.
struct SampleComparison {
    let sampled: [StoredPoint]
    private(set) var checks: [ServerCheck] = []

    /// Points of one call: their vectors have to fit into one answer.
    private static let batch = 32

    /// - Parameter total: points that blue has
    init(
        _ blue: QdrantClient, _ green: QdrantClient, _ name: String, of total: UInt64, count: Int, tolerance: Double
    ) throws {
        guard count > 0, total > 0 else {
            sampled = []
            return
        }
        let ids = try blue.sample(name, count: count)
        var sampled: [StoredPoint] = []
        var missing: [PointID] = []
        var payloads: [PointID] = []
        var vectors: [PointID] = []
        var most = 0.0
        for start in stride(from: 0, to: ids.count, by: Self.batch) {
            let part = Array(ids[start..<min(start + Self.batch, ids.count)])
            let old = try blue.retrieve(name, part)
            let new = Dictionary(try green.retrieve(name, part).map { ($0.id, $0) }) { first, _ in first }
            sampled += old
            for point in old {
                guard let other = new[point.id] else {
                    missing.append(point.id)
                    continue
                }
                if !Self.hasSamePayload(point, other) { payloads.append(point.id) }
                let distance = Self.distance(point.vector, other.vector)
                most = max(most, distance)
                if distance > tolerance { vectors.append(point.id) }
            }
        }
        self.sampled = sampled
        guard !sampled.isEmpty else {
            checks = [ServerCheck("payload", of: name, .fail, expected: "some of \(total) points", found: "none was handed out")]
            return
        }
        let all = "\(sampled.count) sampled points the same"
        checks = [
            ServerCheck(
                "payload", of: name, missing.isEmpty && payloads.isEmpty ? .pass : .fail, expected: all,
                found: Self.found(sampled.count, missing, payloads), detail: Self.named(missing + payloads)),
            ServerCheck(
                "vectors", of: name, missing.isEmpty && vectors.isEmpty ? .pass : .fail, expected: all,
                found: Self.found(sampled.count, missing, vectors),
                detail: vectors.isEmpty && missing.isEmpty
                    ? most > 0 ? "up to rounding: they differ by \(scientific(most))" : "" : Self.named(missing + vectors)),
        ]
    }

    private static func found(_ count: Int, _ missing: [PointID], _ different: [PointID]) -> String {
        if missing.isEmpty, different.isEmpty { return "\(count) the same" }
        return [missing.isEmpty ? nil : "\(missing.count) missing", different.isEmpty ? nil : "\(different.count) different"]
            .compactMap { $0 }.joined(separator: ", ")
    }

    private static func named(_ ids: [PointID]) -> String { ids.isEmpty ? "" : "points \(ids.listed())" }

    private static func hasSamePayload(_ one: StoredPoint, _ other: StoredPoint) -> Bool {
        one.payload.isEmpty && other.payload.isEmpty || one.payload.isSame(as: other.payload)
    }

    static func distance(_ one: JSONValue, _ other: JSONValue) -> Double {
        let (old, new) = (StoredVector.named(one), StoredVector.named(other))
        guard Set(old.keys) == Set(new.keys) else { return .infinity }
        return old.map { name, value in
            guard let first = StoredVector(value), let second = StoredVector(new[name]!) else {
                // Of a kind that is not known here: the text has to be the same.
                return value.isSame(as: new[name]!) ? 0 : .infinity
            }
            return first.distance(to: second)
        }.max() ?? 0
    }
}

/// 0.0000123 → "1.2e-5"
func scientific(_ value: Double) -> String {
    guard value.isFinite, value > 0 else { return value == 0 ? "0" : "\(value)" }
    var (digits, exponent) = (value, 0)
    while digits < 1 { (digits, exponent) = (digits * 10, exponent - 1) }
    while digits >= 10 { (digits, exponent) = (digits / 10, exponent + 1) }
    let shown = (digits * 10).rounded() / 10
    let text = shown == shown.rounded() ? "\(Int(shown))" : "\(shown)"
    return exponent == 0 ? text : "\(text)e\(exponent)"
}
