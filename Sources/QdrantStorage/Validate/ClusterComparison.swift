import BackupBase

/// Compares a running cluster with the one that is to take over, through one node of each.
///
/// Reads only. What a server refuses is a check that fails; a server that does
/// not answer, or not as Qdrant does, ends it with an error: nothing was proved then.
public final class ClusterComparison {
    let blue: QdrantClient
    let green: QdrantClient
    let options: ValidationOptions
    private(set) var result: Validation

    private init(_ blue: QdrantClient, _ green: QdrantClient, _ options: ValidationOptions, _ result: Validation) {
        (self.blue, self.green, self.options, self.result) = (blue, green, options, result)
    }

    /// Both have to answer as Qdrant does.
    public static func run(blue: QdrantClient, green: QdrantClient, _ options: ValidationOptions) throws -> Validation {
        guard blue.address != green.address else {
            throw BackupError(.usage, "blue and green are the same server, \(blue.address)")
        }
        let result = Validation(
            blue: ValidatedServer(url: "\(blue.address)", version: try blue.version()),
            green: ValidatedServer(url: "\(green.address)", version: try green.version()))
        let comparison = ClusterComparison(blue, green, options, result)
        try comparison.run()
        return comparison.result
    }

    private func run() throws {
        // Asked first and without mercy: a key that is wrong proves nothing about data.
        let (blueNames, greenNames) = (try blue.collections(), try green.collections())
        let aliases = try blue.aliases()
        try requireKnown(Set(blueNames).union(aliases.keys))
        compareVersions()
        try check("ready") { try compareReadiness() }
        try check("cluster") { try compareClusters() }
        check(collections: blueNames, greenNames)
        try check("aliases") {
            let found = try green.aliases()
            let (expected, got) = (Self.described(aliases), Self.described(found))
            return [.equal("aliases", expected, got, detail: "clients that use an alias reach another collection, or none")]
        }
        for name in blueNames where greenNames.contains(name) {
            try compare(
                collection: name, queries: options.queries.filter { $0.collection == name || aliases[$0.collection] == name })
        }
    }

    private func requireKnown(_ names: Set<String>) throws {
        guard let unknown = options.queries.first(where: { !names.contains($0.collection) }) else { return }
        throw BackupError(
            .usage, "the queries name the collection '\(printable(unknown.collection.utf8))', which blue does not have")
    }

    func add(_ latency: LatencyComparison) { result.latencies.append(latency) }

    /// Adds what `body` finds; a refusal of a server is found too.
    func check(_ name: String, of collection: String? = nil, _ body: () throws -> [ServerCheck]) throws {
        do { result.checks += try body() } catch let error as BackupError where error.code == .serverRefused {
            result.checks.append(
                ServerCheck(name, of: collection, .fail, expected: "an answer", found: "\(error)", detail: error.hint ?? ""))
        }
    }

    // MARK: - Clusters

    private func compareVersions() {
        let (old, new) = (result.blue.version, result.green.version)
        let changes = BreakingChange.between(old, new)
        var notes = changes
        let steps = VersionGate(from: old, to: new, hasRocksDB: false)
        if new < old { notes.insert("green is older than blue", at: 0) }
        if case .steps = steps { notes.insert("data that was copied has to take each minor version: \(steps.advice)", at: 0) }
        result.checks.append(
            ServerCheck(
                "versions", notes.isEmpty ? .pass : .warn, expected: "\(old)", found: "\(new)",
                detail: notes.joined(separator: "; ")))
        for client in [blue, green] where client.hasKey && !client.address.isEncrypted && !client.address.isLoopback {
            result.checks.append(
                ServerCheck(
                    "transport", .warn, expected: "https", found: "http",
                    detail: "the API key of \(client.address) crosses the network in the clear"))
        }
    }

    private func compareReadiness() throws -> [ServerCheck] {
        let ready = try green.isReady()
        return [
            ServerCheck(
                "ready", ready ? .pass : .fail, expected: "ready", found: ready ? "ready" : "not ready",
                detail: ready ? "" : "green's /readyz says that some shards are not ready")
        ]
    }

    private func compareClusters() throws -> [ServerCheck] {
        let (old, new) = (try blue.cluster(), try green.cluster())
        var troubles: [String] = []
        if let error = new.consensusError { troubles.append("consensus \(error)") }
        if new.pendingOperations > 0 { troubles.append("\(new.pendingOperations) operations pending") }
        if !new.unreachable.isEmpty { troubles.append("no way to \(new.unreachable.listed())") }
        let shape = new.isEnabled ? "\(new.peers.count) peers" : "a single node"
        let expected = old.isEnabled ? "\(old.peers.count) peers" : "a single node"
        var checks = [
            ServerCheck(
                "consensus", troubles.isEmpty ? .pass : .fail, expected: "working",
                found: troubles.isEmpty ? "working" : troubles.joined(separator: ", ")),
            ServerCheck(
                "nodes", shape == expected ? .pass : .warn, expected: expected, found: shape,
                detail: shape == expected ? "" : "replicas and load are spread in another way"),
        ]
        checks.append(Self.addressCheck(old, new, blue.address, green.address))
        return checks
    }

    /// That neither knows an address of the other: by the peers' own, and by what the caller calls them.
    static func addressCheck(
        _ blue: ClusterInfo, _ green: ClusterInfo, _ blueAddress: QdrantAddress, _ greenAddress: QdrantAddress
    ) -> ServerCheck {
        func known(_ info: ClusterInfo) -> Set<String> {
            Set((Array(info.peers.values) + info.unreachable).map(QdrantAddress.endpoint))
        }
        func host(_ endpoint: String) -> String {
            String(endpoint.prefix(upTo: endpoint.lastIndex(of: ":") ?? endpoint.endIndex))
        }
        let (ofBlue, ofGreen) = (known(blue), known(green))
        var shared = ofBlue.intersection(ofGreen)
        // Two servers on one host are told apart by their ports only.
        if blueAddress.host != greenAddress.host {
            shared.formUnion(ofGreen.filter { host($0) == blueAddress.host })
            shared.formUnion(ofBlue.filter { host($0) == greenAddress.host })
        }
        return ServerCheck(
            "addresses", shared.isEmpty ? .pass : .fail, expected: "no address in common",
            found: shared.isEmpty ? "none" : shared.sorted().listed(),
            detail: shared.isEmpty
                ? "" : "a node of one cluster would call the other: isolate green from blue's network, and seed it anew")
    }

    private func check(collections old: [String], _ new: [String]) {
        let missing = old.filter { !new.contains($0) }
        let added = new.filter { !old.contains($0) }
        guard !old.isEmpty else {
            result.checks.append(
                ServerCheck(
                    "collections", .fail, expected: "some", found: "none",
                    detail: "blue has no collection, or none that this key may see: nothing was compared"))
            return
        }
        let detail =
            missing.isEmpty
            ? added.isEmpty ? "" : "only on green: \(added.listed())" : "missing on green: \(missing.listed())"
        result.checks.append(
            ServerCheck(
                "collections", !missing.isEmpty ? .fail : added.isEmpty ? .pass : .warn, expected: "\(old.count)",
                found: "\(new.count)", detail: detail))
    }

    private static func described(_ aliases: [String: String]) -> String {
        aliases.isEmpty ? "none" : aliases.sorted { $0.key < $1.key }.map { "\($0.key) → \($0.value)" }.listed(20)
    }
}
