import Foundation
import TestSupport
import Testing

@Suite("A green cluster of blue's snapshots", .enabled(if: Fixture.engineIsAvailable, "qdrant-edge-py cannot be installed"))
struct SeedTests {
    let workspace: Workspace
    let cluster: ClusterFixture
    /// For volumes: forty copies of 770 MiB, mostly holes.
    let volumes: TemporaryDirectory

    private static let greens = (0..<3).flatMap { ["--green", "http://green-\($0):6335"] }

    init() throws {
        workspace = try Workspace.ready("seed")
        cluster = try #require(ClusterFixture.shared)
        volumes = try TemporaryDirectory("volumes", inMemory: true)
    }

    /// Backs the nodes of a cluster up as one set.
    private func backUp(
        _ kind: ClusterFixture.Kind = .all, nodes: [Int] = [0, 1, 2], breaking node: Int? = nil, by trap: String? = nil
    ) throws {
        for number in nodes {
            let path = volumes("blue-\(number)")
            try cluster.copy(kind, node: number, to: path)
            if number == node, let trap { try Fixture.run("trap", trap, path) }
            try workspace.backup(path, "--node", "blue-\(number)", "--set", "night", "--cluster", "prod")
        }
    }

    private func plan(_ more: String..., status: Int32 = 0) throws -> [String: Any] {
        let file = workspace.path("plan.json")
        let result = try workspace.expect(
            status, ["seed", "--plan", "--set", "night", "--json", "-o", file] + Self.greens + more)
        let document = try #require(result.document as? [String: Any])
        #expect(
            try JSONSerialization.jsonObject(with: Data(contentsOf: URL(filePath: file))) as? NSDictionary == document
                as NSDictionary)
        return document
    }

    private func objections(_ plan: [String: Any], _ severity: String = "refuses") -> [String] {
        let all = plan["objections"] as? [[String: Any]] ?? []
        return all.filter { $0["severity"] as? String == severity }.compactMap { $0["message"] as? String }
    }

    private func state(_ path: String) throws -> [String: Any] {
        let data = try Data(contentsOf: URL(filePath: path + "/raft_state.json"))
        return try #require(try JSONSerialization.jsonObject(with: data) as? [String: Any])
    }

    @Test(arguments: [ClusterFixture.Kind.all, .sharded])
    func `three volumes are seeded, keep their ids and their points, and know nobody`(_ kind: ClusterFixture.Kind) throws {
        try backUp(kind)
        let plan = try plan("--target-version", "1.19.3")
        #expect(objections(plan) == [])
        let nodes = try #require(plan["nodes"] as? [[String: Any]])
        #expect(nodes.map { $0["isFirst"] as? Bool } == [true, false, false])
        #expect(nodes[0]["firstStart"] as? String == "qdrant --uri http://green-0:6335 --reinit")
        #expect(
            nodes[1]["firstStart"] as? String == "qdrant --bootstrap http://green-0:6335 --uri http://green-1:6335 --reinit")
        #expect(nodes.allSatisfy { ($0["laterStart"] as? String).map { !$0.contains("reinit") } ?? false })
        for number in 0..<3 {
            let target = volumes("green-\(number)")
            try workspace.expect(
                0, ["seed", "--apply", workspace.path("plan.json"), "--as", "http://green-\(number):6335/", "--target", target])
            let (before, after) = (try state(volumes("blue-\(number)")), try state(target))
            #expect(before["this_peer_id"] as? UInt64 == after["this_peer_id"] as? UInt64)
            let own = "\(try #require(after["this_peer_id"] as? UInt64))"
            #expect(after["peer_address_by_id"] as? [String: String] == [own: "http://green-\(number):6335"])
            #expect(Set((after["peer_metadata_by_id"] as? [String: Any] ?? [:]).keys) == [own])
            #expect(after["state"] as? NSDictionary == before["state"] as? NSDictionary)
            #expect(try Program.run("/bin/sh", ["-c", "grep -rl 'blue-' --include='*.json' '\(target)'"]).output == "")
            #expect(
                differences(
                    try Fixture.hash(volumes("blue-\(number)")), try Fixture.hash(target)
                ).allSatisfy { $0.contains("raft_state.json") })
            #expect(
                try Fixture.run("fingerprint", target).output
                    == Fixture.run("fingerprint", volumes("blue-\(number)")).output)
        }
        #expect(
            try state(volumes("green-0"))["first_voter"] as? UInt64 == state(volumes("green-0"))["this_peer_id"]
                as? UInt64)
    }

    /// Of one node's volume, and what the plan says against it.
    private static let refused: [(trap: String, words: String)] = [
        ("uuid-differs", "the UUID of the collection"), ("config-differs", "the configuration of the collection"),
        ("collection-missing", "is not on blue-1"), ("shard-missing", "directory is missing"),
        ("replica-dead", "is Dead: --reinit would call it Active"), ("replica-partial", "is Partial"),
        ("open-transfer", "was being transferred"), ("resharding", "resharded"), ("wal-older", "silently lost"),
        ("no-version-info", "deletes the whole segment"), ("versions-differ", "ran"), ("initializing", "being made"),
        ("commit-beyond-log", "panics at start"), ("raft-missing", "no raft state"),
    ]

    @Test(arguments: refused)
    func `volumes that do not fit together are refused, with the reason`(_ one: (trap: String, words: String)) throws {
        try backUp(breaking: 1, by: one.trap)
        let refused = objections(try plan(status: 17))
        #expect(refused.contains { $0.contains(one.words) }, "\(refused)")
        let target = volumes("green-0")
        let applied = try workspace.expect(
            17, ["seed", "--apply", workspace.path("plan.json"), "--as", "http://green-0:6335", "--target", target])
        #expect(applied.errors.contains("the plan was refused"))
        #expect(!FileManager.default.fileExists(atPath: target))
    }

    @Test(arguments: ["joint-consensus", "pending-entries", "learner", "commit-behind"])
    func `the cluster does not begin with a node that is behind or in the midst of something`(_ trap: String) throws {
        try backUp(breaking: 0, by: trap)
        let nodes = try #require(try plan()["nodes"] as? [[String: Any]])
        #expect(nodes.first?["blue"] as? String != "blue-0" && nodes.first?["isFirst"] as? Bool == true)
        // Each still gets the address in whose place it stands.
        #expect(nodes.first { $0["blue"] as? String == "blue-0" }?["uri"] as? String == "http://green-0:6335")
        if trap != "commit-behind" {
            #expect(objections(try plan("--first", "blue-0", status: 17)).contains { $0.contains("cannot be first") })
        }
    }

    @Test(arguments: ["skewed", "ahead"])
    func `replicas that differ are named, and which has seen most`(_ trap: String) throws {
        try backUp(breaking: 2, by: trap)
        let skews = try #require(try plan()["skews"] as? [[String: Any]])
        let replicas = try #require(skews.first?["replicas"] as? [[String: Any]])
        let newest = replicas.filter { $0["isNewest"] as? Bool == true }.compactMap { $0["node"] as? String }
        #expect(
            trap == "ahead"
                ? newest == ["blue-2"] : !newest.isEmpty && Set(replicas.compactMap { $0["points"] as? Int }).count == 2)
    }

    @Test func `fewer and more nodes, other versions and blue's own addresses`() throws {
        try backUp(.sharded, nodes: [0, 1])
        let two = try plan()
        #expect(objections(two) == [] && objections(two, "warns").contains { $0.contains("no snapshot of it is here") })
        let nodes = try #require(two["nodes"] as? [[String: Any]])
        #expect(nodes.last?["firstStart"] as? String == "qdrant --bootstrap http://green-0:6335 --uri http://green-2:6335")
        #expect((two["notes"] as? [String] ?? []).contains { $0.contains("DELETE /cluster/peer/") })

        #expect(objections(try plan("--target-version", "1.21.0", status: 17)).contains { $0.contains("1.19.0") })
        #expect(objections(try plan("--target-version", "1.18.0", status: 17)).count == 1)
        #expect(
            objections(try plan("--green", "http://blue-0.qdrant-headless:6335/", status: 17)).contains {
                $0.contains("address of blue")
            })
        #expect(objections(try plan("--green", "http://green-1:6335", status: 17)).contains { $0.contains("the same address") })
        #expect(
            objections(try plan("--green", "http://x:6335/$(id)", status: 17)).contains { $0.contains("no address of a node") })
    }

    @Test func `the version that the server itself told counts before what its volume tells`() throws {
        let volume = Volume(existing: volumes("told"))
        try cluster.copy(to: volume.path)
        try volume.shell("grep -q 1.19.0 raft_state.json && sed -i 's/1[.]19[.]0/1.17.0/g' raft_state.json")
        func plan(_ target: String, _ status: Int32) throws -> [String: Any] {
            let plan = try workspace.expect(
                status,
                [
                    "seed", "--plan", "--json", "--snapshot", "latest", "--green", "http://green-0:6335", "--target-version",
                    target,
                ])
            return try #require(plan.document as? [String: Any])
        }
        try workspace.backup(volume)
        #expect(objections(try plan("1.20.0", 17)).contains { $0.contains("blue ran 1.17.0") })
        try workspace.backup(volume, "--qdrant-url", try SharedQdrant.url)
        #expect(objections(try plan("1.20.0", 0)) == [])
        #expect(objections(try plan("1.18.0", 17)).contains { $0.contains("blue ran 1.19.0") })
        try volume.shell("sed -i 's/1[.]17[.]0/unknown/g' raft_state.json")
        try workspace.backup(volume)
        #expect(objections(try plan("1.20.0", 0), "warns").contains { $0.contains("or later, green is to run") })
        #expect(objections(try plan("1.16.0", 17)).contains { $0.contains("or later, green is to run") })
    }

    @Test(.enabled(if: OtherMachine.isAvailable && FuseMount.isAvailable, "needs setarch, root and FUSE"))
    func `another kind of machine and a file system that Qdrant rejects are warned of`() throws {
        try backUp(.sharded, nodes: [0, 2])
        try cluster.copy(.sharded, node: 1, to: volumes("blue-1"))
        _ = try OtherMachine.backup(workspace, volumes("blue-1"), "--node", "blue-1", "--set", "night", "--cluster", "prod")
        let warned = objections(try plan(), "warns")
        #expect(warned.contains { $0 == "blue-1 ran on \(OtherMachine.name), this machine is \(OtherMachine.own)" }, "\(warned)")
        let mount = try FuseMount()
        let result = try workspace.expect(
            0,
            [
                "seed", "--apply", workspace.path("plan.json"), "--as", "http://green-1:6335", "--target", mount.path,
                "--dry-run", "--json",
            ])
        let warnings = result.summary["warnings"] as? [String] ?? []
        #expect(warnings.contains { $0.contains("is on FUSE") } && warnings.contains { $0.contains("backed up on") })
        #expect(result.errors.contains("warning: the target \(mount.path) is on FUSE"))
    }

    @Test func `a shard of which no snapshot has an active replica is refused`() throws {
        try backUp(.sharded, nodes: [0])
        #expect(objections(try plan(status: 17)).contains { $0.contains("Active replica of shard") })
    }

    @Test func `a plan that was tampered with starts nothing of the attacker's`() throws {
        try backUp()
        _ = try plan()
        let file = workspace.path("plan.json")
        let text = try String(contentsOfFile: file, encoding: .utf8)
        try Data(text.replacing("http://green-0:6335", with: "http://green-0:6335;reboot").utf8).write(to: URL(filePath: file))
        let result = try workspace.expect(
            64, ["seed", "--apply", file, "--as", "http://green-0:6335;reboot", "--target", workspace.path("out")])
        #expect(result.errors.contains("is no address of a node"))
        try Data("{}".utf8).write(to: URL(filePath: file))
        try workspace.expect(64, ["seed", "--apply", file, "--as", "http://green-0:6335", "--target", workspace.path("out")])
    }

    @Test func `a restore makes the raft state harmless unless it is told otherwise`() throws {
        try backUp(nodes: [0])
        let blue = try state(volumes("blue-0"))
        try workspace.restore("latest", onto: "alone")
        let alone = try state(workspace.path("alone"))
        #expect((alone["peer_address_by_id"] as? [String: Any])?.isEmpty == true)
        #expect(alone["this_peer_id"] as? UInt64 == blue["this_peer_id"] as? UInt64)
        try workspace.restore("latest", onto: "kept", "--keep-identity")
        #expect(try state(workspace.path("kept")) as NSDictionary == blue as NSDictionary)
        try workspace.restore("latest", onto: "seeded", "--seed", "https://green-7.example:6335", "--first-peer")
        #expect(
            (try state(workspace.path("seeded"))["peer_address_by_id"] as? [String: String])?.values.sorted() == [
                "https://green-7.example:6335"
            ])
        let modes = try [volumes("blue-0"), workspace.path("seeded")].map {
            try FileManager.default.attributesOfItem(atPath: "\($0)/raft_state.json")[.posixPermissions] as? Int
        }
        #expect(modes[0] == modes[1])
        for wrong in [["--seed", "green"], ["--seed", "http://g:1", "--keep-identity"], ["--first-peer"]] {
            #expect(try workspace.run(["restore", "latest", "--target", workspace.path("w")] + wrong).status == 64, "\(wrong)")
        }
    }

    @Test func `a refresh keeps the identity, or asks for it`() throws {
        try backUp(nodes: [0])
        let green = workspace.path("green")
        try workspace.restore("latest", onto: green, "--seed", "http://green-0:6335", "--first-peer")
        try Fixture.run("overwrite", volumes("blue-0"), "--points", "20")
        let newer = try workspace.backup(volumes("blue-0"), "--node", "blue-0")
        let asked = try workspace.expect(64, ["restore", newer.id, "--target", green, "--refresh"])
        #expect(asked.errors.contains("http://green-0:6335"))
        try workspace.restore(newer.id, onto: green, "--refresh", "--seed", "http://green-0:6335", "--first-peer")
        #expect((try state(green)["peer_address_by_id"] as? [String: String])?.values.sorted() == ["http://green-0:6335"])
        #expect(try Fixture.run("fingerprint", green).output == Fixture.run("fingerprint", volumes("blue-0")).output)
    }

    @Test func `a raft state that cannot be read is not handed over with addresses in it`() throws {
        try backUp(nodes: [0])
        let volume = Volume(existing: volumes("blue-0"))
        try volume.write("raft_state.json", "{\"peers\": [\"http://blue-1:6335\"]}")
        try workspace.backup(volume)
        let result = try workspace.expect(1, ["restore", "latest", "--target", workspace.path("out")])
        #expect(result.errors.contains("cannot be made harmless"))
        #expect(FileManager.default.fileExists(atPath: workspace.path("out/.bgbackup-incomplete")))
        try workspace.restore("latest", onto: "out", "--resume", "--keep-identity")
        try volume.shell("mv raft_state.json raft_state")
        try workspace.backup(volume)
        try workspace.expect(1, ["restore", "latest", "--target", workspace.path("legacy")])
    }

    @Test func `sets tell who is missing and how far apart they were captured`() throws {
        try backUp(nodes: [0, 1])
        func sets() throws -> [String: Any] {
            try #require((try workspace.expect(0, ["snapshots", "--sets", "--json"]).document as? [[String: Any]])?.first)
        }
        #expect(try sets()["complete"] as? Bool == false)
        #expect((try sets()["missing_peers"] as? [Any])?.count == 1)
        try backUp(nodes: [2])
        #expect(try sets()["complete"] as? Bool == true)
        #expect(try sets()["spread_seconds"] as? Double ?? 0 > 0)
        #expect(try workspace.expect(0, ["snapshots", "--sets"]).output.contains("night"))

        let path = volumes("blue-0")
        let named = try workspace.backup(path, "--cluster", "prod", "--set-every", "1h")
        #expect(try workspace.show(named.id).text("set").wholeMatch(of: /prod@20\d\d-\d\d-\d\dT\d\d:00:00Z/) != nil)
        for wrong in [
            ["--set-every", "1h"], ["--cluster", "c", "--set-every", "5"], ["--cluster", "c", "--set", "s", "--set-every", "1h"],
        ] {
            #expect(try workspace.run(["backup", path] + wrong).status == 64, "\(wrong)")
        }
    }
}
