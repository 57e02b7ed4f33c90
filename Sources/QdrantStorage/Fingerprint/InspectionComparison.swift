import BackupBase

extension VolumeInspection {
    /// Points of each collection that are asked for.
    private static let samples = 20

    /// What a running server has of the volume, where no fingerprint tells what was there at the backup.
    ///
    /// Points are counted in files before the start; a server that then plays its
    /// log may have more or fewer, so that a difference is worth a look, and
    /// nothing instead of something is a failure.
    /// - Parameters:
    ///   - names: collections to ask for; nil asks for all
    ///   - counting: whether points are counted too
    ///   - each: called with the checks of each collection
    /// - Throws: `.serverUnreachable`, `.notQdrant`
    public func checks(
        against client: QdrantClient, of wanted: Set<String>? = nil, counting: Bool = true,
        each: (_ collection: String, [ServerCheck]) -> Void = { _, _ in }
    ) throws -> [ServerCheck] {
        let names = Set(try client.collections())
        let asked = collections.filter { wanted?.contains($0.name) ?? true }
        let expected = asked.map(\.name)
        let missing = expected.filter { !names.contains($0) }
        var checks = [
            ServerCheck(
                "collections in files", missing.isEmpty ? .pass : .fail, expected: "\(expected.count)",
                found: "\(expected.count - missing.count)", detail: missing.isEmpty ? "" : "missing: \(missing.listed())")
        ]
        // The smallest is the first that can answer.
        for collection in asked.sorted(by: { $0.points < $1.points }) where names.contains(collection.name) {
            let found: [ServerCheck]
            do { found = try self.checks(of: collection, client, counting) } catch let error as BackupError
                where error.code == .serverRefused
            {
                found = [ServerCheck("answers", of: collection.name, .fail, expected: "an answer", found: "\(error)")]
            }
            each(collection.name, found)
            checks += found
        }
        return checks
    }

    private func checks(of collection: Collection, _ client: QdrantClient, _ counting: Bool) throws -> [ServerCheck] {
        let name = collection.name
        // Of what this node has: others may hold more.
        let local = try client.cluster(of: name).localPoints.values.reduce(0, +)
        let counted = collection.points
        var checks: [ServerCheck] = []
        if counting {
            checks.append(
                ServerCheck(
                    "points in files", of: name, local == counted ? .pass : local == 0 ? .fail : .warn, expected: "\(counted)",
                    found: "\(local)",
                    detail: local == counted ? "" : "as counted in the files; no fingerprint tells what was there at the backup"))
        }
        let ids = local == 0 ? [] : try client.sample(name, count: Self.samples)
        guard !ids.isEmpty else { return checks }
        let points = try client.retrieve(name, ids)
        let vectors = points.flatMap { point in StoredVector.named(point.vector).map { (point.id, $0.key, $0.value) } }
        // Torn vector files start, and show points without any.
        let isBare = vectors.isEmpty && !collection.vectors.isEmpty
        checks.append(
            ServerCheck(
                "sampled points", of: name, points.count == ids.count && !isBare ? .pass : .fail,
                expected: "\(ids.count) with vectors", found: "\(points.count) with \(vectors.count) vectors"))
        if let (id, using, _) = vectors.first {
            let body = ServerFingerprint.body(id.json, using)
            let found = try client.found(name, body).points
            checks.append(
                ServerCheck(
                    "exact search", of: name, found.isEmpty && local > 1 ? .fail : .pass, expected: "neighbours of a point",
                    found: "\(found.count)"))
        }
        return checks
    }
}
