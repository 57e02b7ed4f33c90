import Foundation
import TestSupport
import Testing

/// A repository in a directory with snapshots of other days: what a store's
/// clock says is the time of a file.
struct ForgetStage {
    let workspace: Workspace
    let volume: Volume

    init(_ label: String = "forget") throws {
        workspace = try Workspace.ready(label, kind: nil)
        // Nothing of Qdrant's, so that nothing forbids a start.
        volume = try Volume(workspace.path("volume"))
        try volume.write("data/matrix.dat", noise(300 << 10, seed: 1))
    }

    /// One snapshot as if it had been committed so many days ago, at noon.
    @discardableResult
    func snapshot(daysAgo days: Int, _ more: String..., of other: Volume? = nil) throws -> String {
        try volume.write("data/days.json", "{\"days\": \(days)}\n")
        let key = try workspace.writerKey()
        let path = (other ?? volume).path
        let made = try workspace.expect(0, ["backup", path, "--json", "--writer-key", key] + more)
        let id = Summary(fields: made.summary).id
        try commit(id, daysAgo: days)
        return id
    }

    func commit(_ id: String, daysAgo days: Int) throws {
        let name = try #require(try object(id))
        let now = Date().timeIntervalSince1970
        let noon = ((now / 86_400).rounded(.down) - Double(days)) * 86_400 + 43_200
        let moment = days < 0 ? noon : min(noon, now - 60)
        try Program.tool("touch", ["-d", "@\(Int(moment))", "\(workspace.repository)/\(name)"])
    }

    /// The name of a snapshot's object; nil where it is gone.
    func object(_ id: String) throws -> String? { try workspace.store.names("v1/snapshots/").first { $0.hasSuffix(id) } }

    var ids: [String] { get throws { try workspace.store.names("v1/snapshots/").map { String($0.suffix(32)) } } }

    /// The document of a forget.
    @discardableResult
    func forget(_ arguments: String..., status: Int32 = 0, sourceLocation: SourceLocation = #_sourceLocation) throws -> [String:
        Any]
    {
        let result = try workspace.expect(status, ["forget", "--json"] + arguments, sourceLocation: sourceLocation)
        let line = result.output.split(separator: "\n").first { $0.contains("\"summary\"") } ?? "{}"
        return try JSONSerialization.jsonObject(with: Data(line.utf8)) as? [String: Any] ?? [:]
    }
}

extension [String: Any] {
    /// Why each snapshot of a plan stays; those that go have no entry.
    fileprivate var kept: [String: [String]] {
        let snapshots = self["snapshots"] as? [[String: Any]] ?? []
        return snapshots.reduce(into: [:]) {
            if $1["keep"] as? Bool == true { $0[$1["id"] as? String ?? ""] = $1["reasons"] as? [String] }
        }
    }
}

@Suite("Forgetting snapshots")
struct ForgetTests {
    let stage: ForgetStage
    var workspace: Workspace { stage.workspace }

    init() throws { stage = try ForgetStage() }

    @Test func `A dry run says what stays and why, and changes nothing; then it is done; then there is nothing to do`() throws {
        let ids = try [40, 33, 9, 8, 2, 1].map { try stage.snapshot(daysAgo: $0) }
        let before = try workspace.store.fingerprint("v1/")
        let rules = ["--keep-last", "1", "--keep-daily", "2", "--keep-within", "10d"]
        let dry = try workspace.expect(0, ["forget", "--dry-run"] + rules)
        #expect(try workspace.store.fingerprint("v1/") == before)
        let lines = dry.output.split(separator: "\n").map(String.init)
        #expect(lines.filter { $0.contains("  forget  no rule keeps it") }.count == 2)
        #expect(
            lines.contains { $0.contains(ids[5].prefix(8)) && $0.contains("last 1 of 1; newest 1 of 1 that always stay; daily ") }
        )
        #expect(lines.last == "would forget 2 of 6 snapshots")
        #expect(dry.output.contains("# kept   x forgotten"))
        // The calendar: as many marks as days.
        let calendar = lines.filter { $0.wholeMatch(of: /\d{4}-\d\d  [·#x\/ ]+/) != nil }
        let marks = calendar.joined()
        #expect(marks.filter { $0 == "#" }.count == 4 && marks.filter { $0 == "x" }.count == 2, "\(dry.output)")
        #expect(calendar.allSatisfy { $0.count <= 80 })

        let report = try stage.forget("--keep-last", "1", "--keep-daily", "2", "--keep-within", "10d")
        #expect(Set(report.kept.keys) == Set(ids[2...]) && report["snapshots_forgotten"] as? Int == 2)
        #expect(try Set(stage.ids) == Set(ids[2...]))
        let again = try workspace.expect(0, ["forget"] + rules)
        #expect(again.output == "forgot 0 of 4 snapshots\n")
        try workspace.expect(0, ["check", "--read-data"])
        try workspace.restore("latest")
        try expectIdentical(stage.volume.path, workspace.path("restored"))
        // Packs are not its business.
        #expect(
            try workspace.store.names("v1/packs/").count
                == before.split(separator: "\n").filter { $0.hasPrefix("v1/packs/") }.count)
    }

    @Test func `Named ones go, but not while they are held`() throws {
        let ids = try [3, 2, 1].map { try stage.snapshot(daysAgo: $0) }
        try workspace.expect(0, ["hold", String(ids[0].prefix(8)), "--reason", "audit", "--until", "90d"])
        let refused = try workspace.expect(1, ["forget", ids[0], ids[1], "--force", "--json"])
        #expect(refused.summary["code"] as? String == "held" && refused.errors.contains("held: audit, until "))
        #expect(try stage.ids.count == 3)
        let list = try workspace.expect(0, ["snapshots"]).output.split(separator: "\n")
        #expect(list.map { $0.contains("HELD") } == [false, true, false, false])
        let shown = try workspace.expect(0, ["show", ids[0]])
        #expect(shown.output.contains(#/\nheld +since .* by .*@.*: audit, until /#))
        #expect(try workspace.show(ids[0]).fields["held"] as? Bool == true)
        #expect(try workspace.show(ids[1]).fields["held"] as? Bool == false)

        try workspace.expect(0, ["hold", ids[0], "--quiet"])
        let released = try workspace.expect(0, ["release", ids[0], "--json"])
        #expect(released.summary["released"] as? Int == 2)
        #expect(try workspace.expect(0, ["release", ids[0]]).output.contains("was not held"))
        let many = try workspace.expect(1, ["forget", ids[0], ids[1]])
        #expect(many.errors.contains("2 of 3 snapshots") && many.errors.contains("use --force"))
        #expect(try stage.ids.count == 3)
        try stage.forget(ids[0], ids[1], "--force")
        #expect(try stage.ids == [ids[2]])
        #expect(try workspace.expect(1, ["forget", ids[0]]).errors.contains("no snapshot's id begins with"))
        // The last good one goes by name alone, with a word of warning.
        let last = try workspace.expect(0, ["forget", "latest"])
        #expect(last.errors.contains("is the newest that is complete") && last.output.hasPrefix("forgot 1 of 1"))
        #expect(try stage.ids == [])
    }

    @Test func `A hold outlives the rules and ends at its time`() throws {
        let ids = try [5, 4, 3, 2].map { try stage.snapshot(daysAgo: $0) }
        try workspace.expect(0, ["hold", ids[1], "--until", "1s"])
        try workspace.expect(0, ["hold", ids[2]])
        usleep(1_100_000)
        #expect(try Set(stage.forget("--keep-last", "1").kept.keys) == [ids[2], ids[3]])
        #expect(try workspace.store.names("v1/notes/hold/").count == 1, "notes of what is gone go too, and no others")
    }

    @Test func `A backup whose parent was forgotten is a good one`() async throws {
        try await settle()
        let first = try stage.snapshot(daysAgo: 1)
        let second = try stage.snapshot(daysAgo: 0)
        #expect(try workspace.show(second).text("parent") == first)
        try stage.forget(first, second, "--force")
        let third = try workspace.backup(stage.volume)
        #expect(third.fields["parent"] is NSNull)
        try workspace.expect(0, ["check", "--read-data"])
        try workspace.restore(third.id)
        try expectIdentical(stage.volume.path, workspace.path("restored"))
    }

    @Test func `Too much at once is refused as a whole`() throws {
        for days in (1...6).reversed() { try stage.snapshot(daysAgo: days) }
        for dry in [["--dry-run"], []] {
            let refused = try workspace.expect(1, ["forget", "--keep-last", "2", "--json"] + dry)
            #expect(refused.summary["code"] as? String == "retention-refused" && refused.errors.contains("4 of 6 snapshots of"))
        }
        #expect(try stage.ids.count == 6)
        try stage.forget("--keep-last", "2", "--max-delete-ratio", "0.7")
        #expect(try stage.ids.count == 2)
        for _ in 0..<4 { try stage.snapshot(daysAgo: 0) }
        try stage.forget("--keep-last", "1", "--force")
        #expect(try stage.ids.count == 1)
    }

    @Test func `What cannot be read stays until it is named`() throws {
        let ids = try [3, 2, 1].map { try stage.snapshot(daysAgo: $0) }
        try workspace.store.flip(try #require(try stage.object(ids[0])))
        let result = try workspace.expect(0, ["forget", "--keep-last", "1"])
        #expect(result.errors.contains("is damaged") && result.errors.contains("it stays until it is named"))
        #expect(try stage.ids == [ids[0], ids[2]])
        #expect(try workspace.expect(0, ["forget", ids[0]]).output.hasPrefix("forgot 1 of 2"))
        #expect(try stage.ids == [ids[2]])
    }

    @Test func `Sets go as a whole, and a node by itself tears none`() throws {
        let other = try Volume.small(workspace.path("other"))
        var sets: [[String]] = []
        for days in [3, 2, 1] {
            sets.append([
                try stage.snapshot(daysAgo: days, "--node", "a", "--set", "s\(days)"),
                try stage.snapshot(daysAgo: days, "--node", "b", "--set", "s\(days)", of: other),
            ])
        }
        try workspace.expect(0, ["hold", sets[0][0]])
        #expect(try stage.forget("--keep-last", "1", "--node", "a").kept.count == 6)
        let kept = try stage.forget("--keep-last", "1").kept
        #expect(Set(kept.keys) == Set(sets[0] + sets[2]))
        #expect(kept[sets[0][1]] == ["only complete one of b in set s3, of which \(sets[0][0].prefix(8)) stays"])
    }

    @Test func `A store whose clock is behind its snapshots is said, and nothing goes for its age`() throws {
        let ids = try [3, 2, 1].map { try stage.snapshot(daysAgo: $0) }
        for id in ids { try stage.commit(id, daysAgo: -2) }
        let dry = try workspace.expect(0, ["forget", "--keep-within", "1d", "--dry-run"])
        #expect(dry.errors.contains("the store's clock says") && dry.output.contains("would forget 0 of 3"))
    }

    // MARK: - Who may, and when

    @Test func `A writer key is told that it may not`() throws {
        let id = try stage.snapshot(daysAgo: 1)
        let node = workspace.node("node", writerKey: try workspace.writerKey())
        for arguments in [
            ["forget", "--keep-last", "1"], ["forget", id], ["hold", id], ["release", id], ["forget", "--keep-last", "1", "-n"],
        ] {
            let refused = try node.expect(12, arguments + ["--json"])
            #expect(
                refused.summary["code"] as? String == "write-only-key"
                    && refused.errors.contains("HINT: Use the repository's password"))
        }
        #expect(try stage.ids == [id])
        #expect(try !FileManager.default.fileExists(atPath: workspace.repository + "/tmp/lock-maintenance"))
    }

    @Test func `Nothing goes while another run has the lease`() throws {
        for days in [2, 1] { try stage.snapshot(daysAgo: days) }
        let lock = workspace.repository + "/tmp/lock-maintenance"
        let command = [Program.binary, "forget", "--keep-last", "1", "--json"]
        let refused = try Program.run(
            "/usr/bin/env", ["flock", lock] + command, environment: workspace.environment)
        #expect(refused.status == 11 && refused.summary["code"] as? String == "busy", "\(refused.errors)")
        #expect(try stage.ids.count == 2)
        // A look needs no lease.
        let look = try Program.run("/usr/bin/env", ["flock", lock] + command + ["-n"], environment: workspace.environment)
        #expect(look.status == 0, "\(look.errors)")
        try stage.forget("--keep-last", "1")
        #expect(try stage.ids.count == 1)
    }

    @Test(arguments: [
        [], ["--keep-last", "0"], ["--keep-daily", "-1"], ["--keep-last", "x"], ["--keep-within", "soon"],
        ["--keep-within", "0d"],
        ["--min-snapshots", "0", "--keep-last", "1"], ["--max-delete-ratio", "0", "--keep-last", "1"],
        ["--max-delete-ratio", "1.5", "--keep-last", "1"], ["latest", "--keep-last", "1"], ["latest", "--node", "a"],
        ["--node", "a"],
        ["--min-snapshots", "3"], ["--keep-fortnightly", "2"],
    ])
    func `What makes no sense is an error of usage`(arguments: [String]) throws {
        try workspace.expect(64, ["forget"] + arguments)
    }

    @Test(arguments: ["soon", "2026-02-30", "-3d", "2026", "0d", "2001-01-01"])
    func `A hold until no time, or one that is over, is an error of usage`(until: String) throws {
        try stage.snapshot(daysAgo: 0)
        try workspace.expect(64, ["hold", "latest", "--until=\(until)"])
        #expect(try workspace.store.names("v1/notes/") == [])
    }
}

@Suite("A volume that changed as if somebody had encrypted it")
struct AnomalyTests {
    let stage: ForgetStage
    var workspace: Workspace { stage.workspace }

    init() throws { stage = try ForgetStage("anomaly") }

    @Test func `Backups go on and warn, nothing of it is forgotten until it is accepted, other volumes are`() throws {
        let other = try Volume.small(workspace.path("other"))
        // 8 MiB of what compresses, and a little of it new each time.
        for round in 1...6 {
            try stage.volume.shell(round == 1 ? "seq 1000000 2200000 > big" : "seq \(round)00000 \(round)50000 > more")
            try stage.snapshot(daysAgo: 10 - round)
            try stage.snapshot(daysAgo: 10 - round, of: other)
        }
        try stage.volume.shell("head -c 9M /dev/urandom > big; rm more")
        let key = try workspace.writerKey()
        let warned = try workspace.expect(0, ["backup", stage.volume.path, "--json", "--writer-key", key])
        let anomaly = try #require(warned.summary["anomaly"] as? [String: Any], "\(warned.output)")
        #expect(
            try #require(anomaly["changed_ratio"] as? Double) > 0.9 && warned.errors.contains("as if somebody had encrypted it"))
        let attacked = Summary(fields: warned.summary).id
        // Only the once: what follows is as usual again.
        #expect(try workspace.backup(stage.volume).fields["anomaly"] is NSNull)
        try stage.snapshot(daysAgo: 0, of: other)

        let refused = try workspace.expect(1, ["forget", "--keep-last", "3", "--force", "--json"])
        #expect(refused.errors.contains("nothing of") && refused.errors.contains("--accept-anomaly \(attacked.prefix(8))"))
        #expect(try stage.ids.count == 8 + 3)
        #expect(try workspace.expect(1, ["forget", "--keep-last", "3", "-n"]).output.contains("changed unlike those before"))
        try workspace.expect(0, ["forget", "--accept-anomaly", attacked])
        try stage.forget("--keep-last", "3", "--force")
        #expect(try stage.ids.count == 3 + 3)
    }
}

@Suite("Object Lock and forgetting", .enabled(if: S3Server.available.contains(.strict), "needs the strict S3 server"))
struct ForgetLockTests {
    private static let locked =
        #"{"buckets": [{"name": "bucket", "region": "us-east-1", "objectLock": true, "versioning": true}]}"#

    private func backup(_ workspace: Workspace, _ volume: Volume, _ more: String...) throws -> String {
        let key = try workspace.writerKey()
        return Summary(fields: try workspace.expect(0, ["backup", volume.path, "--json", "--writer-key", key] + more).summary).id
    }

    @Test func `What is locked stays and is named, all else goes, and sets are not torn`() throws {
        let server = try S3Server(.strict, configuration: Self.locked)
        let workspace = try Workspace("forget-lock", server: server)
        var locking = workspace
        locking.environment["BGBACKUP_REPOSITORY"] = workspace.url + "&lock=compliance&lock-for=2d"
        let volume = try Volume.small(workspace.path("volume"))
        let other = try Volume.small(workspace.path("other"))
        let free = try backup(workspace, volume)
        let kept = try backup(locking, volume)
        // Of one set, the one locked and the other not.
        let (one, two) = (try backup(locking, volume, "--set", "s"), try backup(workspace, other, "--set", "s"))
        let newest = [try backup(locking, volume), try backup(locking, other)]
        try locking.expect(0, ["hold", newest[0]])

        let result = try workspace.expect(13, ["forget", "--keep-last", "1", "--force", "--json"])
        #expect(
            result.errors.contains("\(kept.prefix(8)) until 20") && result.errors.contains("with them stay 1 of the same sets"))
        let line = try #require(result.output.split(separator: "\n").first { $0.contains("\"summary\"") })
        let report = try #require(try JSONSerialization.jsonObject(with: Data(line.utf8)) as? [String: Any])
        #expect(report["snapshots_forgotten"] as? Int == 1 && report["snapshots_locked"] as? Int == 2)
        let left = try workspace.store.names("v1/snapshots/").map { String($0.suffix(32)) }
        #expect(Set(left) == Set([kept, one, two] + newest) && !left.contains(free))
        // Holds are not locked themselves.
        #expect(try locking.expect(0, ["release", newest[0], "--json"]).summary["released"] as? Int == 1)
        try workspace.expect(0, ["check"])
    }

    @Test func `A lease of another run stands in the way for as long as it lasts`() throws {
        let server = try S3Server(.strict)
        let workspace = try Workspace.ready("forget-lease", server: server)
        let volume = try Volume.small(workspace.path("volume"))
        for _ in 0..<2 { _ = try backup(workspace, volume) }
        let lease = #"{"format":1,"fence":4,"owner":"00","holder":"another run","released":false,"nonce":"00"}"#
        try workspace.store.write("tmp/lease-maintenance", Data(lease.utf8))
        let refused = try workspace.expect(11, ["forget", "--keep-last", "1", "--json"])
        #expect(refused.errors.contains("held by another run") && refused.errors.contains("runs out in"))
        #expect(try workspace.store.names("v1/snapshots/").count == 2)
        try workspace.store.remove("tmp/lease-maintenance")
        try workspace.expect(0, ["forget", "--keep-last", "1"])
        #expect(try workspace.store.names("v1/snapshots/").count == 1)
    }
}

@Suite(
    "What a drill proved is kept", .enabled(if: Fixture.engineIsAvailable && Requirement.root, "needs the engine and root"))
struct ForgetProofTests {
    @Test func `The last snapshot that answered right stays, and the list says so`() throws {
        let stage = try DrillStage("proof")
        let workspace = stage.workspace
        let first = try stage.backUp()
        try stage.drill()
        let (second, third) = (try stage.backUp(), try stage.backUp())
        // A rehearsal without the database does not take its place.
        try stage.drill(second.id, "--no-boot", boot: nil)
        let list = try #require(try workspace.expect(0, ["snapshots", "--json"]).document as? [[String: Any]])
        #expect(list.map { $0["proven"] as? Bool } == [true, true, false])
        #expect(try workspace.expect(0, ["show", first.id]).output.contains(#/drilled +20.*: passed, recovered in /#))
        let fourth = try stage.backUp()
        let plan = try workspace.expect(0, ["forget", "--keep-last", "1", "--dry-run"]).output
        #expect(plan.contains("last proven by a drill") && plan.contains("last that a drill read back"))
        try workspace.expect(0, ["forget", "--keep-last", "1"])
        let left = try workspace.store.names("v1/snapshots/").map { String($0.suffix(32)) }
        #expect(Set(left) == [first.id, second.id, fourth.id] && !left.contains(third.id))
    }

    @Test(.enabled(if: TestStore.kind == nil, "needs a directory"))
    func `A store that may only be read is said, and the drill passes all the same`() throws {
        let stage = try DrillStage("proof-read")
        let snapshot = try stage.backUp()
        // Root writes whatever the modes say: a file is in the way.
        try Data().write(to: URL(filePath: stage.workspace.repository + "/v1/notes"))
        let arguments = ["drill", snapshot.id, "--no-boot", "--scratch", stage.scratch]
        let result = try stage.workspace.expect(0, arguments)
        #expect(result.errors.contains("takes no note of this drill"), "\(result.errors)")
    }
}
