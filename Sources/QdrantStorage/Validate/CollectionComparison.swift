import BackupBase

extension ClusterComparison {
    /// All checks of one collection that both have.
    func compare(collection name: String, queries: [UserQuery]) throws {
        try check("configuration", of: name) {
            let (old, new) = (try blue.info(name), try green.info(name))
            return [
                Self.configurationCheck(name, old.config, new.config, isSameVersion: result.blue.version == result.green.version),
                Self.schemaCheck(name, old.schema, new.schema), Self.indexCheck(name, old, new),
            ]
        }
        var total: UInt64 = 0
        try check("points", of: name) {
            total = try blue.count(name)
            return [
                .equal("points", of: name, total, try green.count(name), detail: "exact counts; stop writes to blue first")
            ]
        }
        try check("shards", of: name) {
            let (old, new) = (try blue.cluster(of: name), try green.cluster(of: name))
            return [Self.shardCheck(name, old, new), Self.replicaCheck(name, old, new)]
        }
        var sampled: [StoredPoint] = []
        try check("payload", of: name) {
            let comparison = try SampleComparison(
                blue, green, name, of: total, count: options.samples, tolerance: options.tolerance)
            sampled = comparison.sampled
            return comparison.checks
        }
        let searches = queries.isEmpty ? Self.searches(name, sampled) : queries
        guard !searches.isEmpty else { return }
        try check("search", of: name) {
            let comparison = try SearchComparison(blue, green, name, searches, options)
            if let latency = comparison.latency { add(latency) }
            return comparison.checks
        }
    }

    /// Searches for each kind of vector of the sampled points: 20 at the most.
    private static func searches(_ collection: String, _ points: [StoredPoint]) -> [UserQuery] {
        var byName: [String: [UserQuery]] = [:]
        for point in points {
            for (name, vector) in StoredVector.named(point.vector) where byName[name, default: []].count < 20 {
                byName[name, default: []].append(UserQuery(collection: collection, query: vector, using: name))
            }
        }
        return byName.sorted { $0.key < $1.key }.flatMap(\.value)
    }

    // MARK: - What it is

    /// Members that change how a collection is kept and not what it answers.
    private static let lenient = ["optimizer_config", "wal_config", "params.read_fan_out", "params.on_disk_payload"]

    static func configurationCheck(_ name: String, _ old: JSONValue, _ new: JSONValue, isSameVersion: Bool) -> ServerCheck {
        let differences = old.differences(from: new)
        let grave = differences.filter { difference in
            // A version may tell what another one does not know.
            let isTold = !difference.one.isNull && !difference.other.isNull
            return (isTold || isSameVersion) && !lenient.contains { difference.path.hasPrefix($0) }
        }
        let shown = grave.isEmpty ? differences : grave
        return ServerCheck(
            "configuration", of: name, !grave.isEmpty ? .fail : differences.isEmpty ? .pass : .warn,
            expected: shown.isEmpty ? "the same" : shown.map { "\($0.path) \($0.one.text)" }.listed(),
            found: shown.isEmpty ? "the same" : shown.map { "\($0.path) \($0.other.text)" }.listed())
    }

    /// Type and parameters of each indexed field; how many points have it is an estimate.
    static func schemaCheck(_ name: String, _ old: [String: JSONValue], _ new: [String: JSONValue]) -> ServerCheck {
        func kinds(_ schema: [String: JSONValue]) -> JSONValue {
            .object(schema.mapValues { .object(["data_type": $0["data_type"], "params": $0["params"]]) })
        }
        let differences = kinds(old).differences(from: kinds(new))
        return ServerCheck(
            "payload schema", of: name, differences.isEmpty ? .pass : .fail,
            expected: differences.isEmpty ? "\(old.count) fields" : differences.map { "\($0.path) \($0.one.text)" }.listed(),
            found: differences.isEmpty ? "\(new.count) fields" : differences.map { "\($0.path) \($0.other.text)" }.listed(),
            detail: differences.isEmpty ? "" : "filters on a field without its index are slow, or refused in strict mode")
    }

    /// Green has to be done with indexing.
    static func indexCheck(_ name: String, _ old: CollectionInfo, _ new: CollectionInfo) -> ServerCheck {
        var troubles: [String] = []
        if new.status != "green" { troubles.append("status \(new.status)") }
        if let error = new.optimizerError { troubles.append("optimizer: \(error)") }
        if let length = new.queueLength, length > 0 { troubles.append("\(length) updates waiting") }
        let fewer = new.indexedVectors < old.indexedVectors / 10 * 9
        var notes: [String] = []
        if fewer { notes.append("blue has \(old.indexedVectors) indexed vectors, green \(new.indexedVectors)") }
        if old.status != "green" { notes.append("blue's own status is \(old.status)") }
        if new.warnings > 0 { notes.append("green has \(new.warnings) warnings about it") }
        return ServerCheck(
            "index", of: name, !troubles.isEmpty ? .fail : notes.isEmpty ? .pass : .warn,
            expected: "green, nothing left to index",
            found: troubles.isEmpty ? "\(new.status), \(new.indexedVectors) vectors indexed" : troubles.joined(separator: ", "),
            detail: notes.joined(separator: "; "))
    }

    // MARK: - Where it is

    /// Points of the shards that both nodes hold themselves, as the servers
    /// estimate them: "points" is exact, here only what is gone fails.
    static func shardCheck(_ name: String, _ old: CollectionCluster, _ new: CollectionCluster) -> ServerCheck {
        func text(_ points: [UInt64: UInt64], _ shards: [UInt64]) -> String {
            shards.map { "\($0): \(points[$0].map { "\($0)" } ?? "elsewhere")" }.listed(12)
        }
        let (before, after) = (old.localPoints, new.localPoints)
        let both = before.keys.filter { after[$0] != nil }.sorted()
        let differ = both.filter { before[$0] != after[$0] }
        let isLost = differ.contains { before[$0] ?? 0 > 0 && after[$0] == 0 }
        guard old.shards == new.shards else {
            return ServerCheck("shards", of: name, .fail, expected: "\(old.shards) shards", found: "\(new.shards) shards")
        }
        guard !both.isEmpty || old.shards == 0 else {
            return ServerCheck(
                "shards", of: name, .warn, expected: text(before, before.keys.sorted()), found: text(after, after.keys.sorted()),
                detail: "the two nodes hold no shard in common: compare each node of blue with its counterpart")
        }
        let shown = differ.isEmpty ? both : differ
        return ServerCheck(
            "shards", of: name, differ.isEmpty ? .pass : isLost ? .fail : .warn, expected: text(before, shown),
            found: text(after, shown),
            detail: !differ.isEmpty
                ? ServerFingerprint.Shard.note
                : both.count < Int(clamping: old.shards)
                    ? "seen of \(both.count) of \(old.shards) shards; the others are on other nodes" : "")
    }

    /// Every replica of green is Active, each shard has one, and nothing is under way.
    static func replicaCheck(_ name: String, _ old: CollectionCluster, _ new: CollectionCluster) -> ServerCheck {
        var troubles = new.replicas.filter { $0.state != "Active" }
            .map { "shard \($0.shard) on peer \($0.peer) is \($0.state)" }
        let held = Set(new.replicas.map(\.shard))
        if UInt64(held.count) < new.shards { troubles.append("\(new.shards - UInt64(held.count)) shards have no replica") }
        if new.transfers > 0 { troubles.append("\(new.transfers) shard transfers under way") }
        if new.isResharding { troubles.append("resharding under way") }
        var notes: [String] = []
        let stale = old.replicas.filter { $0.state != "Active" }
        if !stale.isEmpty { notes.append("\(stale.count) of blue's own replicas are not active") }
        if old.transfers > 0 || old.isResharding { notes.append("blue moves shards") }
        let active = new.replicas.filter { $0.state == "Active" }.count
        if active < old.replicas.filter({ $0.state == "Active" }).count {
            notes.append("blue has \(old.replicas.count) replicas, green \(new.replicas.count)")
        }
        return ServerCheck(
            "replicas", of: name, !troubles.isEmpty ? .fail : notes.isEmpty ? .pass : .warn, expected: "all Active, no transfers",
            found: troubles.isEmpty ? "\(active) Active" : troubles.listed(), detail: notes.joined(separator: "; "))
    }
}
