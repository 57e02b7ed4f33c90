import BackupBase
import Foundation
import Glibc
import TestSupport
import Testing

/// What every drill test has: a repository, a real volume backed up with a fingerprint, and the engine to start.
struct DrillStage {
    let workspace: Workspace
    static let boot = "\(Program.root)scripts/boot-edge {storage} {port}"

    init(_ label: String = "drill") throws { workspace = try Workspace.ready(label) }

    @discardableResult
    func backUp(_ more: String...) throws -> Summary {
        try workspace.backup(try SharedQdrant.volume, "--qdrant-url", SharedQdrant.url)
    }

    /// Runs a drill and gives its JSON.
    @discardableResult
    func drill(
        _ more: String..., status: Int32 = 0, boot: String? = DrillStage.boot, sourceLocation: SourceLocation = #_sourceLocation
    ) throws -> [String: Any] {
        let arguments = ["drill", "--json", "--no-progress", "--scratch", scratch] + (boot.map { ["--boot", $0] } ?? []) + more
        let result = try workspace.expect(status, arguments, sourceLocation: sourceLocation)
        #expect(leftovers == [], sourceLocation: sourceLocation)
        return result.summary
    }

    var scratch: String { workspace.path("scratch") }
    var reports: String { workspace.path("state") + "/drills" }

    /// What is left in the scratch directory.
    var leftovers: [String] { (try? FileManager.default.contentsOfDirectory(atPath: scratch)) ?? [] }

    func report(_ name: String = "drill.html") throws -> String {
        try String(contentsOfFile: "\(reports)/\(name)", encoding: .utf8)
    }

    /// Whether a process runs that has this among its arguments.
    static func runs(_ words: String) throws -> Bool {
        try Program.tool("pgrep", ["-f", words]).output.split(separator: "\n").contains { Int32($0) != getpid() }
    }
}

/// A drill's JSON.
extension [String: Any] {
    fileprivate var nodes: [[String: Any]] { self["nodes"] as? [[String: Any]] ?? [] }
    /// Verdicts by stage; of several nodes the worst.
    fileprivate var stages: [String: String] {
        var found = Dictionary<String, String>()
        for stage in nodes.flatMap({ $0["stages"] as? [[String: Any]] ?? [] }) {
            guard let name = stage["name"] as? String, found[name] != "fail" else { continue }
            found[name] = stage["verdict"] as? String
        }
        return found
    }
    fileprivate var checks: [[String: Any]] {
        (self["checks"] as? [[String: Any]] ?? []) + nodes.flatMap { $0["checks"] as? [[String: Any]] ?? [] }
    }
    fileprivate func number(_ name: String) -> Double? { (self[name] as? NSNumber)?.doubleValue }
}

@Suite(
    "A drill proves that a snapshot can be restored",
    .enabled(if: Fixture.engineIsAvailable && Requirement.root, "needs the engine and root"))
struct DrillTests {
    let stage: DrillStage
    var workspace: Workspace { stage.workspace }

    init() throws { stage = try DrillStage() }

    @Test func `A good snapshot is restored, started, and answers as at the backup`() throws {
        let snapshot = try stage.backUp()
        let report = try stage.drill("--rto", "5m", "--rpo", "1h", "--warm")
        #expect(report["verdict"] as? String == "pass", "\(report)")
        #expect(report["reason"] == nil && report["isolated"] as? Bool == true)
        let node = try #require(report.nodes.first)
        #expect(node["snapshot_id"] as? String == snapshot.id && node["engine"] as? String == "1.19.0")
        #expect(
            report.stages == [
                "restore": "pass", "verify": "pass", "inspect": "pass", "boot": "pass", "compare": "pass", "cleanup": "pass",
            ])
        #expect("\(node["stages"] ?? "")".contains("brought into memory"))
        #expect(report.checks.allSatisfy { $0["verdict"] as? String == "pass" })
        for (name, count) in [
            ("exact search", 2), ("points", 2), ("shards", 2), ("payload", 2), ("vectors", 2), ("recovery time", 1),
        ] {
            #expect(report.checks.filter { $0["name"] as? String == name }.count == count, "\(name)")
        }
        let recovery = try #require(report.number("recovery_seconds"))
        #expect(recovery > 0 && recovery < (report.number("duration_seconds") ?? 0))
        #expect((0..<3600).contains(try #require(report.number("recovery_point_seconds"))))
        #expect((node["throughput"] as? [[String: Any]])?.isEmpty == false)
        // The report as files is what was printed, and the page needs nothing else.
        let kept = try JSONSerialization.jsonObject(with: Data(stage.report("drill.json").utf8))
        #expect(kept as? NSDictionary == report as NSDictionary)
        let page = try stage.report()
        #expect(page.contains("The drill passed") && !page.contains("http://") && !page.contains("<script"))
        #expect(try FileManager.default.contentsOfDirectory(atPath: stage.reports).count == 4)
    }

    @Test(arguments: Requirement.mountable)
    func `It restores onto a fresh file system, which is gone afterwards`(_ kind: String) throws {
        try stage.backUp()
        // By way of a link: the kernel names mounts without.
        let real = workspace.path("real")
        try FileManager.default.createDirectory(atPath: real, withIntermediateDirectories: true)
        try FileManager.default.createSymbolicLink(atPath: stage.scratch, withDestinationPath: real)
        let report = try stage.drill("--image", kind)
        #expect(report.stages["cleanup"] == "pass")
        #expect(report["verdict"] as? String == "pass", "\(report)")
        #expect(try !String(contentsOfFile: "/proc/self/mountinfo", encoding: .utf8).contains(real))
        #expect(try !Program.tool("losetup", ["--list"]).output.contains(real))
    }

    @Test func `Damage in the repository fails the drill and says where`() throws {
        try stage.backUp()
        // Name, size and tag of each.
        let packs = try workspace.store.fingerprint("v1/packs/").split(separator: "\n").map { $0.split(separator: " ") }
        let largest = String(try #require(packs.max { Int($0[1]) ?? 0 < Int($1[1]) ?? 0 })[0])
        try workspace.store.flip(largest)
        let report = try stage.drill(status: 16)
        #expect(report["verdict"] as? String == "fail" && report.stages["restore"] == "fail" && report.stages["boot"] == nil)
        let reason = try #require(report["reason"] as? String)
        #expect(reason.hasPrefix("restore: ") && reason.contains(largest.split(separator: "/").last!.prefix(16)), "\(reason)")
        #expect(try stage.report().contains("The drill failed"))
        // Nothing that reads less than all of it may find it good.
        try workspace.store.remove(largest)
        #expect(try stage.drill(status: 16).stages["restore"] == "fail")
    }

    @Test func `Other data than the fingerprint tells of fails`() throws {
        let other = workspace.path("other")
        try SharedQdrant.copy(to: other)
        try Fixture.run("delete", other, "--points", "20", "--seed", "4")
        try workspace.backup(other, "--qdrant-url", SharedQdrant.url)
        let report = try stage.drill(status: 16)
        #expect((report["reason"] as? String)?.hasPrefix("points of ") == true, "\(report)")
        let documents = report.checks.first { $0["name"] as? String == "points" && $0["collection"] as? String == "documents" }
        #expect(documents?["expected"] as? String == "200" && documents?["verdict"] as? String == "fail")
        #expect(report.stages["compare"] == "fail" && report.nodes.first?["engine"] != nil)
    }

    @Test func `Without a fingerprint it counts what the files say, and vectors that are lost are seen`() throws {
        try workspace.backup(try SharedQdrant.volume)
        let good = try stage.drill()
        #expect(good["verdict"] as? String == "warn", "\(good)")
        let looks = good.checks.filter { $0["verdict"] as? String != "pass" }.compactMap { $0["name"] as? String }
        #expect(looks == ["fingerprint"])
        #expect(good.number("recovery_seconds") != nil)

        let torn = workspace.path("torn")
        try SharedQdrant.copy(to: torn)
        let files = try Program.run("/bin/sh", ["-c", "find '\(torn)' -name '*.mmap' -path '*vector*' -size +0"]).output
        for file in files.split(separator: "\n") { try Program.tool("truncate", ["-s", "0", String(file)]) }
        try workspace.backup(torn, "--node", "torn")
        let report = try stage.drill("latest@torn", status: 16)
        #expect(report["verdict"] as? String == "fail", "\(report)")
    }

    @Test func `A volume on which a start is forbidden is not started`() throws {
        let broken = workspace.path("broken")
        try SharedQdrant.copy(to: broken)
        try Fixture.run("trap", "no-version-info", broken)
        try workspace.backup(broken)
        let report = try stage.drill(status: 16)
        #expect(report.stages["inspect"] == "fail" && report.stages["boot"] == nil)
        let findings = report.nodes.first?["findings"] as? [[String: Any]]
        #expect(findings?.first?["code"] as? String == "segmentWithoutVersion")
    }

    @Test func `Objectives that are missed fail it`() throws {
        try stage.backUp()
        usleep(1_100_000)
        let late = try stage.drill("--rpo", "1s", status: 16)
        #expect((late["reason"] as? String)?.hasPrefix("recovery point: ≤ 1.00s expected") == true, "\(late)")
        let slow = try stage.drill("--rto", "0.001s", status: 16)
        #expect((slow["reason"] as? String)?.hasPrefix("recovery time: ") == true)
        let page = try stage.report()
        #expect(page.contains("missed") && page.contains("0 of 2 passed"))
    }

    @Test func `Oldest and random ones are picked, and only restored where that is asked`() throws {
        let first = try stage.backUp()
        try workspace.backup(try SharedQdrant.volume, "--node", "other")
        func drilled(_ more: String...) throws -> [String: Any] {
            let words = ["drill", "--json", "--no-boot", "--scratch", stage.scratch] + more
            return try workspace.expect(0, words).summary
        }
        let oldest = try drilled("--pick", "oldest")
        #expect(oldest.nodes.first?["snapshot_id"] as? String == first.id && oldest["pick"] as? String == "oldest of 2")
        #expect(oldest["engine"] == nil && oldest["recovery_seconds"] == nil && oldest.stages["boot"] == nil)
        #expect(try drilled("--pick", "random", "--node", "other").nodes.first?["node"] as? String == "other")
        #expect(try drilled("--pick", "latest").nodes.first?["node"] as? String == "other")
        try workspace.expect(1, ["drill", "--no-boot", "--pick", "oldest", "--node", "nobody"])
        try workspace.expect(64, ["drill", "latest", "--pick", "oldest"])
        try workspace.expect(64, ["drill", "--node", "other"])
        #expect(try stage.report().contains("the database was not started"))
        try workspace.expect(64, ["drill", "--no-boot", "--rto", "1h"])
        try workspace.expect(64, ["drill", "--rpo", "soon"])
        try workspace.expect(64, ["drill", "--boot", "/no/such/program {port}"])
    }

    @Test func `All nodes of a set are drilled, and one that is missing fails it`() throws {
        let cluster = try #require(ClusterFixture.shared)
        let volumes = try TemporaryDirectory("volumes", inMemory: true)
        for node in 0..<3 {
            try cluster.copy(.all, node: node, to: volumes("blue-\(node)"))
            for set in node < 2 ? ["night", "torn"] : ["night"] {
                try workspace.backup(volumes("blue-\(node)"), "--node", "blue-\(node)", "--set", set)
            }
        }
        let report = try stage.drill("--set", "night")
        #expect(
            report.nodes.map { $0["node"] as? String } == ["blue-0", "blue-1", "blue-2"] && report["set"] as? String == "night")
        #expect(report.checks.contains { $0["name"] as? String == "cluster" && $0["verdict"] as? String == "pass" }, "\(report)")
        let torn = try stage.drill("--set", "torn", status: 16)
        #expect((torn["reason"] as? String)?.hasPrefix("set: a snapshot of each peer expected, 1 missing") == true, "\(torn)")
    }

    @Test func `Names that a page would run stay text`() throws {
        try workspace.backup(try SharedQdrant.volume, "--node", "<script>alert(1)</script>")
        try stage.drill()
        let page = try stage.report()
        #expect(page.contains("&lt;script&gt;alert(1)") && !page.contains("<script>"))
    }
}
