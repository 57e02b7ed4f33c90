import Foundation
import TestSupport
import Testing

/// What each way to break a volume is found as. Nil: no single volume shows it,
/// only a comparison of nodes does (SeedTests).
private let found: [String: String?] = [
    "wal-older": "forbids segmentsNewerThanLog", "wal-reset": "forbids segmentsNewerThanLog",
    "wal-missing": "forbids logMissing", "wal-torn": "forbids logBrokenInTheMiddle",
    "first-index-empty": "forbids ackUnreadable", "no-version-info": "forbids segmentWithoutVersion",
    "missing-segment-file": "forbids segmentIncomplete", "torn-segment-file": "forbids segmentTorn",
    "torn-payload-page": "forbids segmentTorn", "segment-json-bad": "forbids segmentUnreadable",
    "segment-json-missing": "forbids segmentUnreadable", "rocksdb": "warning rocksDB",
    "initializing": "forbids shardInitializing", "replica-dead": "warning replicaNotActive",
    "replica-partial": "warning replicaNotActive", "replica-listener": "warning replicaNotActive",
    "remote-replica-dead": "note replicaPeerDead", "open-transfer": "warning openTransfer",
    "resharding": "forbids resharding", "uuid-differs": nil, "config-differs": nil,
    "collection-config-bad": "forbids collectionUnreadable", "collection-missing": nil,
    "shard-missing": "forbids shardMissing", "aliases-differ": nil, "skewed": nil, "ahead": nil,
    "commit-beyond-log": "forbids commitBeyondLog", "raft-missing": "warning raftStateMissing",
    "raft-bad": "forbids raftStateUnreadable", "meta-wal-missing": "forbids raftLogMissing",
    "meta-wal-torn": "forbids raftLogBroken", "joint-consensus": "warning jointConsensus",
    "pending-entries": "warning pendingEntries", "learner": nil, "stale-first-voter": nil,
    "versions-differ": "warning versionsDiffer", "changed-uri": nil, "term-ahead": nil, "commit-behind": nil,
]

@Suite("A volume that is looked into", .enabled(if: Fixture.engineIsAvailable, "qdrant-edge-py cannot be installed"))
struct InspectTests {
    let workspace: Workspace
    let cluster: ClusterFixture
    /// For volumes: forty copies of 770 MiB, mostly holes.
    let volumes: TemporaryDirectory

    init() throws {
        workspace = try Workspace.ready("inspect")
        cluster = try #require(ClusterFixture.shared)
        volumes = try TemporaryDirectory("volumes", inMemory: true)
    }

    /// What `inspect` says, and its exit status.
    private func inspect(_ source: String, _ more: String...) throws -> (document: [String: Any], status: Int32) {
        let result = try workspace.run(["inspect", source, "--json"] + more)
        return (try #require(result.document as? [String: Any], "\(result.errors)"), result.status)
    }

    private func findings(_ document: [String: Any]) -> Set<String> {
        let inspection = document["inspection"] as? [String: Any]
        let all = inspection?["findings"] as? [[String: Any]] ?? []
        return Set(all.map { "\($0["severity"] ?? "") \($0["code"] ?? "")" })
    }

    @Test func `what the table says is what the traps are`() {
        #expect(Set(ClusterFixture.traps) == Set(found.keys))
    }

    @Test(arguments: ClusterFixture.traps)
    func `every trap is found in the volume, and in its snapshot`(_ trap: String) throws {
        let volume = volumes("volume")
        try cluster.copy(to: volume)
        let before = findings(try inspect(volume).document)
        try Fixture.run("trap", trap, volume)
        let (document, status) = try inspect(volume)
        let added = findings(document).subtracting(before)
        guard let wanted = found[trap] ?? nil else {
            #expect(!added.contains { $0.hasPrefix("forbids") } && status == 0)
            return
        }
        #expect(added.contains(wanted), "\(added)")
        #expect(status == (added.contains { $0.hasPrefix("forbids") } ? 17 : 0))
        #expect(document["can_start"] as? Bool == (status == 0))

        let snapshot = try workspace.backup(volume)
        #expect(snapshot.fields["starts"] as? Bool == (status == 0), "the backup looked less closely")
        let again = try inspect(snapshot.id)
        #expect(findings(again.document) == findings(document) && again.status == status)
    }

    @Test func `what it shows of a sound volume is what the engine says`() throws {
        let volume = volumes("volume")
        try cluster.copy(to: volume)
        try Fixture.run("delete", volume, "--points", "30")
        try Fixture.run("overwrite", volume, "--points", "20")
        try Fixture.run("optimize", volume)
        let tree = try Fixture.hash(volume)
        let (document, status) = try inspect(volume)
        #expect(status == 0)
        #expect(try Fixture.hash(volume) == tree, "inspect wrote to it")
        let engine = try #require(
            try JSONSerialization.jsonObject(with: Data(try Fixture.run("fingerprint", volume).output.utf8)) as? [String: Any])
        let collections = try #require(engine["collections"] as? [String: [String: Any]])
        let inspection = try #require(document["inspection"] as? [String: Any])
        let seen = try #require(inspection["collections"] as? [[String: Any]])
        #expect(seen.count == collections.count)
        for collection in seen {
            let shards = try #require(collection["shards"] as? [[String: Any]])
            let points = shards.compactMap { $0["points"] as? Int }.reduce(0, +)
            #expect(
                points == collections[collection["name"] as? String ?? ""]?["points"] as? Int,
                "after the optimizer none stands twice")
        }
        let raft = try #require(inspection["raft"] as? [String: Any])
        let state = try #require(
            try JSONSerialization.jsonObject(with: Data(contentsOf: URL(filePath: volume + "/raft_state.json"))) as? [String: Any]
        )
        #expect(raft["peer"] as? UInt64 == state["this_peer_id"] as? UInt64)
        #expect((inspection["version"] as? [String: Any])?["told"] as? String == "1.19.0")
    }

    @Test func `a segment without its points is broken, an empty one is not`() throws {
        // Three shards for 200 points: some shard's appendable segment has none yet, and no id tracker.
        try cluster.copy(.sharded, to: volumes("sharded"))
        let trackers = "find collections -name '*id_tracker.versions'"
        let volume = Volume(existing: volumes("sharded"))
        let segments = try volume.shell("ls -d collections/*/*/segments/* | wc -l").trimmingCharacters(
            in: .whitespacesAndNewlines)
        let tracked = try volume.shell("\(trackers) | wc -l").trimmingCharacters(in: .whitespacesAndNewlines)
        #expect(Int(segments) ?? 0 > Int(tracked) ?? 0, "the fixture has no empty segment")
        #expect(try inspect(volume.path).status == 0)
        try volume.shell("rm $(\(trackers) | head -1)")
        let (document, status) = try inspect(volume.path)
        #expect(findings(document).contains("forbids segmentIncomplete") && status == 17)
    }

    @Test func `a fuzzy snapshot and one that does not start are told in the list`() throws {
        let volume = volumes("volume")
        try cluster.copy(.single, to: volume)
        let good = try workspace.backup(volume)
        try Fixture.run("trap", "no-version-info", volume)
        let result = try workspace.expect(0, ["backup", volume, "--capture", "none"])
        #expect(result.errors.contains("would not start on this volume") && result.errors.contains("segmentWithoutVersion"))
        let lines = try workspace.expect(0, ["snapshots"]).output.split(separator: "\n")
        #expect(lines.first { $0.hasPrefix(good.id.prefix(8)) }?.contains(" yes ") ?? false)
        #expect(lines.contains { $0.contains("fuzzy") && $0.contains(" no ") })
        #expect(
            findings(try inspect("latest").document).isSuperset(of: ["warning fuzzyCapture", "forbids segmentWithoutVersion"]))
        #expect(try workspace.expect(0, ["show", "latest"]).output.contains("segmentWithoutVersion"))
    }

    @Test func `the text is for people, and -v says more`() throws {
        let volume = volumes("volume")
        try cluster.copy(to: volume)
        let short = try workspace.expect(0, ["inspect", volume]).output
        #expect(short.contains("Nothing was found that would stop a start.") && short.contains("Qdrant 1.19.0"))
        let long = try workspace.expect(0, ["inspect", volume, "-v"]).output
        #expect(long.contains("blue-1") && long.contains("appendable") && !short.contains("appendable"))
    }

    @Test func `what is no volume, and hostile files, end in a finding and not in a crash`() throws {
        #expect(findings(try inspect(workspace.directory.path).document) == ["forbids noQdrantVolume"])
        let text = try workspace.expect(17, ["inspect", workspace.directory.path]).output
        #expect(text.hasPrefix("\(workspace.directory.path) is no Qdrant volume\n") && !text.contains("version"))
        #expect(try workspace.run(["inspect", workspace.path("nowhere")]).status == 1)
        let path = volumes("volume")
        try cluster.copy(.single, to: path)
        let volume = Volume(existing: path)
        let log = try volume.shell("ls -d collections/*/0/wal | head -1").trimmingCharacters(in: .whitespacesAndNewlines)
        // A length of 2^63 after a good header; a closed segment of nothing; names that are no numbers.
        try volume.write("\(log)/closed-99999999999999999999", "x")
        try volume.shell("cp \(log)/open-1 \(log)/closed-18446744073709551615")
        try volume.write("\(log)/open-9", Array("wal\0\0\0\0\0".utf8) + [UInt8](repeating: 0xff, count: 64))
        try volume.write("\(log)/open-8", "w")
        try volume.write("raft_state.json", String(repeating: "[", count: 200_000))
        let (document, status) = try inspect(path)
        #expect(status == 17)
        #expect(findings(document).isSuperset(of: ["forbids raftStateUnreadable", "forbids logBroken"]))
    }
}
