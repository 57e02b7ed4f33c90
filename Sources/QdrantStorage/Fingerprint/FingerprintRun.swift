import BackupBase

extension ServerFingerprint {
    /// Points that are sampled of each collection, searches that are made, results that are kept.
    static let (samples, searches, top) = (5, 3, 10)
    /// Bytes of a query's vector at the most.
    private static let vectorLimit = 8 << 10

    /// Asks a running server; counts come first, because they age first.
    /// - Parameter seconds: after which no further collection is sampled
    /// - Throws: `.serverUnreachable`, `.serverRefused`, `.notQdrant`
    public static func take(from client: QdrantClient, seconds: Double = 30, digest: Digest) throws -> ServerFingerprint {
        let end = monotonicSeconds() + seconds
        var fingerprint = ServerFingerprint(version: try client.version())
        let names = try client.collections()
        var found: [Collection] = []
        for name in names {
            guard monotonicSeconds() < end else {
                fingerprint.omitted.append(name)
                continue
            }
            // One that is deleted meanwhile is left out like one for which there is no time.
            do { found.append(try counted(name, client, digest)) } catch let error as BackupError
                where error.code == .serverRefused
            {
                fingerprint.omitted.append(name)
            }
        }
        var room = sizeLimit - names.reduce(0) { $0 + $1.utf8.count + 8 } - 256
        for var collection in found {
            if monotonicSeconds() < end {
                do { try sample(&collection, client, digest) } catch let error as BackupError where error.code == .serverRefused {
                    fingerprint.omitted.append(collection.name)
                }
            }
            var size = try JSONValue.size(of: collection)
            if size > room, !collection.samples.isEmpty {
                (collection.samples, collection.searches) = ([], [])
                fingerprint.omitted.append(collection.name)
                size = try JSONValue.size(of: collection)
            }
            guard size <= room else {
                fingerprint.omitted.append(collection.name)
                continue
            }
            room -= size + 1
            fingerprint.collections.append(collection)
        }
        return fingerprint
    }

    private static func counted(_ name: String, _ client: QdrantClient, _ digest: Digest) throws -> Collection {
        let points = try client.count(name)
        let cluster = try client.cluster(of: name)
        let info = try client.info(name)
        return Collection(
            name: name, points: points,
            shards: cluster.localPoints.map { Shard(id: $0.key, points: $0.value) }.sorted { $0.id < $1.id },
            shardCount: cluster.shards, status: info.status, optimizer: info.optimizerError ?? "ok",
            indexedVectors: info.indexedVectors, configuration: try configurationDigest(info.config, digest))
    }

    private static func sample(_ collection: inout Collection, _ client: QdrantClient, _ digest: Digest) throws {
        let name = collection.name
        let points = try client.retrieve(name, try client.sample(name, count: samples))
        collection.samples = try points.map { try Sample($0, digest) }
        let vectors = points.flatMap { point in
            StoredVector.named(point.vector).sorted { $0.key < $1.key }.map { (point.id, $0.key, $0.value) }
        }
        // Of different points and, as far as there are, of different vectors.
        let kinds = max(Set(vectors.map(\.1)).count, 1)
        for number in 0..<min(searches, vectors.count) {
            let (id, using, vector) = vectors[(number * kinds + number % kinds) % vectors.count]
            let query = try vector.encoded.count <= vectorLimit ? vector : id.json
            let found = try client.found(name, body(query, using)).points
            collection.searches.append(
                Search(using: using, query: query, ids: found.map(\.id.json), scores: found.map(\.score)))
        }
        collection.wasWritten = try client.count(name) != collection.points
    }

    /// Asks once more for what it holds, and keeps what stayed the same: whatever
    /// was captured in between holds that too. What was queued by a writer that
    /// does not wait (`wait=false`) and not applied yet is not seen.
    /// - Parameter seconds: after which what is left counts as written to
    /// - Throws: `.serverUnreachable`, `.notQdrant`
    public mutating func confirm(with client: QdrantClient, seconds: Double = 30, digest: Digest) throws {
        let end = monotonicSeconds() + seconds
        for index in collections.indices {
            do { try Self.confirm(&collections[index], client, end, digest) } catch let error as BackupError
                where error.code == .serverRefused
            {
                // It was deleted meanwhile.
                collections[index].wasWritten = true
                (collections[index].samples, collections[index].searches) = ([], [])
            }
        }
    }

    private static func confirm(
        _ collection: inout Collection, _ client: QdrantClient, _ end: Double, _ digest: Digest
    ) throws {
        let (samples, searches) = (collection.samples, collection.searches)
        (collection.samples, collection.searches) = ([], [])
        if monotonicSeconds() < end {
            if try client.count(collection.name) != collection.points { collection.wasWritten = true }
            let points = try client.retrieve(collection.name, samples.compactMap { PointID($0.id) })
            let now = Set(try points.map { try Sample($0, digest) })
            collection.samples = samples.filter { now.contains($0) }
        }
        for search in searches where monotonicSeconds() < end {
            if try client.found(collection.name, body(search.query, search.using)).points.map(\.id.json) == search.ids {
                collection.searches.append(search)
            }
        }
        if collection.samples.count < samples.count || collection.searches.count < searches.count {
            collection.wasWritten = true
        }
    }

    static func body(_ query: JSONValue, _ using: String) -> [String: JSONValue] {
        UserQuery(collection: "", query: query, using: using).body(top: top, exact: true)
    }
}

extension ServerFingerprint {
    /// Collections of which it compares samples and searches, on a node that holds all of them.
    public var compared: Set<String> {
        Set(collections.filter { $0.isWhole && !$0.wasWritten && !$0.samples.isEmpty }.map(\.name))
    }

    /// What a running server has of it: for one that was started on restored data.
    ///
    /// A server that holds a part of the cluster's shards is compared by those
    /// shards, whose counts are estimates. Where the collection was written to
    /// while the fingerprint was made, another count is worth a look and no
    /// failure; points and searches are compared that stayed the same.
    /// - Parameters:
    ///   - tolerance: by how much scores may differ, as a share of their size
    ///   - each: called with the checks of each collection, while others are still to come
    /// - Throws: `.serverUnreachable`, `.notQdrant`
    public func checks(
        against client: QdrantClient, tolerance: Double = 1e-5, digest: Digest,
        each: (_ collection: String, [ServerCheck]) -> Void = { _, _ in }
    ) throws -> [ServerCheck] {
        let running = try client.version()
        var checks = [
            ServerCheck(
                "version", running == version ? .pass : .warn, expected: "\(version)", found: "\(running)",
                detail: running == version ? "" : BreakingChange.between(version, running).joined(separator: "; "))
        ]
        let names = Set(try client.collections())
        let expected = collections.map(\.name)
        let missing = expected.filter { !names.contains($0) }
        checks.append(
            ServerCheck(
                "collections", missing.isEmpty ? .pass : .fail, expected: "\(expected.count)",
                found: "\(expected.count - missing.count)", detail: missing.isEmpty ? "" : "missing: \(missing.listed())"))
        // The smallest is the first that can answer.
        for collection in collections.sorted(by: { $0.points < $1.points }) where names.contains(collection.name) {
            let found: [ServerCheck]
            do { found = try self.checks(of: collection, client, running, tolerance, digest) } catch let error as BackupError
                where error.code == .serverRefused
            {
                found = [ServerCheck("answers", of: collection.name, .fail, expected: "an answer", found: "\(error)")]
            }
            each(collection.name, found)
            checks += found
        }
        return checks
    }

    private func checks(
        of collection: Collection, _ client: QdrantClient, _ running: ServerVersion, _ tolerance: Double, _ digest: Digest
    ) throws -> [ServerCheck] {
        let name = collection.name
        let wrong: ServerCheck.Verdict = collection.wasWritten ? .warn : .fail
        let note = collection.wasWritten ? "it was written to while the fingerprint was made" : ""
        let count = try client.count(name)
        let isPart = !collection.isWhole && count != collection.points
        let expected = isPart ? collection.localPoints : collection.points
        // A part is compared with what a server estimated.
        let isNear = isPart && abs(Double(count) - Double(expected)) <= Double(expected) * Shard.tolerance
        let info = try client.info(name)
        let isSame = try Self.configurationDigest(info.config, digest) == collection.configuration
        var checks = [
            ServerCheck(
                "points", of: name, count == expected ? .pass : count == 0 ? .fail : isNear ? .warn : wrong,
                expected: "\(expected)", found: "\(count)", detail: isNear ? Shard.note : note),
            try shards(collection, client),
            ServerCheck(
                "configuration", of: name, isSame ? .pass : running == version ? .fail : .warn, expected: "the same",
                found: isSame ? "the same" : "another"),
            ServerCheck(
                "index", of: name,
                info.optimizerError != nil || info.status == "red" ? .fail : info.status == "green" ? .pass : .warn,
                expected: "green", found: info.status, detail: info.optimizerError ?? ""),
        ]
        checks += try sampled(collection, client, isPart, digest)
        if !isPart, !collection.searches.isEmpty { checks.append(try searched(collection, client, wrong, note, tolerance)) }
        return checks
    }

    /// "points" tells exactly what is there; here only what is gone fails.
    private func shards(_ collection: Collection, _ client: QdrantClient) throws -> ServerCheck {
        let found = try client.cluster(of: collection.name).localPoints
        let differ = collection.shards.filter { found[$0.id] != $0.points }
        // Written to or not: nothing is not what was there.
        let isLost = differ.contains { $0.points > 0 && found[$0.id] ?? 0 == 0 }
        let shown = differ.isEmpty ? collection.shards : differ
        return ServerCheck(
            "shards", of: collection.name, differ.isEmpty ? .pass : isLost ? .fail : .warn,
            expected: shown.map { "\($0.id): \($0.points)" }.listed(12),
            found: shown.map { "\($0.id): \(found[$0.id].map { "\($0)" } ?? "none")" }.listed(12),
            detail: differ.isEmpty || isLost ? "" : Shard.note)
    }

    private func sampled(
        _ collection: Collection, _ client: QdrantClient, _ isPart: Bool, _ digest: Digest
    ) throws -> [ServerCheck] {
        guard !collection.samples.isEmpty else { return [] }
        let points = try client.retrieve(collection.name, collection.samples.compactMap { PointID($0.id) })
        let byID = Dictionary(points.map { ($0.id.json, $0) }) { first, _ in first }
        var (missing, payloads, vectors) = (0, 0, 0)
        for sample in collection.samples {
            guard let point = byID[sample.id] else {
                missing += 1
                continue
            }
            if try Self.payloadDigest(point.payload, digest) != sample.payload { payloads += 1 }
            if try Self.vectorDigest(point.vector, digest) != sample.vectors { vectors += 1 }
        }
        // What another node holds is not lost.
        let lost = isPart ? 0 : missing
        let total = collection.samples.count
        func check(_ what: String, _ different: Int) -> ServerCheck {
            ServerCheck(
                what, of: collection.name, lost + different == 0 ? .pass : .fail,
                expected: "\(total) samples the same",
                found: "\(total - missing - different) the same, \(different) different, \(missing) "
                    + (isPart ? "on other nodes" : "missing"))
        }
        return [check("payload", payloads), check("vectors", vectors)]
    }

    private func searched(
        _ collection: Collection, _ client: QdrantClient, _ wrong: ServerCheck.Verdict, _ note: String, _ tolerance: Double
    ) throws -> ServerCheck {
        var (least, distance) = (1.0, 0.0)
        for search in collection.searches {
            let new = try client.found(collection.name, Self.body(search.query, search.using)).points
            let old = zip(search.ids, search.scores).compactMap { FoundPoint(.object(["id": $0, "score": .double($1)])) }
            least = min(least, SearchComparison.overlap(old, new, tolerance))
            for (one, other) in zip(old, new) { distance = max(distance, relativeDistance(one.score, other.score)) }
        }
        let isSame = least >= 1 && distance <= tolerance
        return ServerCheck(
            "exact search", of: collection.name, isSame ? .pass : wrong,
            expected: "the same \(Self.top) nearest",
            found: "overlap \(fixed(least, 2)), scores differ by \(scientific(distance))",
            detail: note)
    }
}
