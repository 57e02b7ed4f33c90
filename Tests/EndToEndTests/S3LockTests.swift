import BackupBase
import Foundation
import TestSupport
import Testing

/// Stores that keep objects whatever is asked of them, and stores that only say so.
@Suite("Object Lock and conditional writes", .enabled(if: S3Server.available.contains(.strict), "needs the strict S3 server"))
struct S3LockTests {
    private static let locked =
        #"{"buckets": [{"name": "bucket", "region": "us-east-1", "objectLock": true, "versioning": true}]}"#
    private static let days = "lock=compliance&lock-for=2d"

    /// When an object may go, by the store.
    private func end(_ server: S3Server, _ workspace: Workspace, _ name: String) throws -> Date? {
        let prefix = workspace.location.dropFirst("s3://bucket/".count)
        let lock = try server.object("\(prefix)/\(name)")["lock"] as? [String: Any]
        return try (lock?["until"] as? String).map {
            try Date($0, strategy: Date.ISO8601FormatStyle(includingFractionalSeconds: $0.contains(".")))
        }
    }

    @Test func `What is under a lock stays, and its end moves when it is told to`() throws {
        let server = try S3Server(.strict, configuration: Self.locked)
        let workspace = try Workspace("lock", server: server, options: Self.days)
        let volume = try Volume.small(workspace.path("volume"))
        let snapshot = try workspace.backup(volume)
        let names = try workspace.store.names("v1/")
        #expect(names.contains { $0.hasPrefix("v1/packs/") } && names.contains { $0.hasPrefix("v1/snapshots/") })
        for name in names {
            let until = try #require(try end(server, workspace, name), "\(name) is not locked")
            #expect(until > Date(timeIntervalSinceNow: 1.9 * 86_400) && until < Date(timeIntervalSinceNow: 2.1 * 86_400))
        }
        for name in try workspace.store.names("tmp/") { #expect(try end(server, workspace, name) == nil, "\(name)") }

        try volume.write("../second", "battery staple\n")
        let added = try workspace.expect(0, ["key", "add", "--new-password-file", workspace.path("second"), "--json"])
        let slot = try #require((added.document as? [String: Any])?["key"] as? String)
        let removed = try workspace.expect(13, ["key", "remove", slot, "--json"])
        #expect(removed.summary["code"] as? String == "immutable")
        #expect(removed.errors.contains("locked until") && removed.errors.contains("HINT: "))
        try workspace.expect(0, ["snapshots", "--password-file", workspace.path("second")])

        // Nothing to do for the same time; more for a longer one.
        let same = try workspace.expect(0, ["repo", "extend-locks", "--json"])
        #expect(same.summary["locks_extended"] as? Int == 0)
        var longer = workspace
        longer.environment["BGBACKUP_REPOSITORY"] = workspace.url.replacing("lock-for=2d", with: "lock-for=9d")
        let dry = try longer.expect(0, ["repo", "extend-locks", "--dry-run", "--json"])
        let needed = try #require(dry.summary["objects_needed"] as? Int)
        #expect(needed == dry.summary["locks_extended"] as? Int && needed >= 8)
        let first = try #require(try end(server, workspace, "v1/config.a"))
        #expect(first < Date(timeIntervalSinceNow: 2.1 * 86_400))
        let extended = try longer.expect(0, ["repo", "extend-locks", "--json"])
        #expect(extended.summary["locks_extended"] as? Int == needed)
        for name in try workspace.store.names("v1/") {
            #expect(try #require(try end(server, workspace, name)) > Date(timeIntervalSinceNow: 8.9 * 86_400), "\(name)")
        }
        try workspace.restore(snapshot.id)
        try expectIdentical(volume.path, workspace.path("restored"))
        try workspace.expect(0, ["check", "--read-data"])
    }

    /// As long as the longest that needs it is kept, and no longer than the policy's lockFor.
    @Test func `Under a policy each object is locked for as long as what needs it is kept`() throws {
        let server = try S3Server(.strict, configuration: Self.locked)
        let workspace = try Workspace("keeper", server: server, options: "lock=compliance&lock-for=9d")
        let volume = try Volume.small(workspace.path("volume"))
        try volume.write("collections/c/0/segments/s/matrix.dat", noise(2 << 20, seed: 7))
        let folder = workspace.path("config/policies")
        try FileManager.default.createDirectory(atPath: folder, withIntermediateDirectories: true)
        let policy = """
            apiVersion: bgbackup.io/v1
            kind: BackupPolicy
            metadata: {name: demo}
            spec:
              node: node-7
              source: {path: "\(volume.path)"}
              capture: {method: none, acceptFuzzy: true}
              repository:
                url: "\(workspace.location)"
                s3: {endpoint: "\(server.endpoint)"}
                password: {file: "\(workspace.passwordFile)"}
              schedules:
                - {name: hourly, onCalendar: hourly, keepFor: 2d}
                - {name: monthly, onCalendar: monthly, keepFor: 60d}
              retention: {keepLast: 1}
              immutability: {mode: compliance, lockFor: 9d}
              prune: {onCalendar: daily, grace: 1h}
            """
        try Data(policy.utf8).write(to: URL(filePath: "\(folder)/demo.yaml"))
        let extra = ["BGBACKUP_CONFIG": workspace.path("config"), "BGBACKUP_REPOSITORY": "", "BGBACKUP_PASSWORD_FILE": ""]
        func backup(_ schedule: String) throws -> Set<String> {
            let before = Set(try workspace.store.names("v1/"))
            try workspace.expect(0, ["backup", "--policy", "demo", "--schedule", schedule], extra: extra)
            return Set(try workspace.store.names("v1/")).subtracting(before)
        }
        func days(_ name: String) throws -> Double {
            try #require(try end(server, workspace, name), "\(name)").timeIntervalSinceNow / 86_400
        }
        func expect(_ names: Set<String>, _ prefix: String, _ wanted: Double) throws {
            let found = names.filter { $0.hasPrefix(prefix) }
            #expect(!found.isEmpty)
            for name in found {
                let locked = try days(name)
                #expect(abs(locked - wanted) < 0.1, "\(name): \(locked), not \(wanted)")
            }
        }
        let first = try backup("hourly")
        try expect(first, "v1/", 2)
        // The second shares what the first stored; its own state is another node's.
        try volume.write("collections/c/config.json", "{}")
        let second = try backup("monthly")
        try expect(second, "v1/", 9)
        let third = try backup("hourly")
        try expect(third, "v1/snapshots/", 2)

        let dry = try workspace.expect(0, ["prune", "--policy", "demo", "--dry-run"], extra: extra)
        #expect(dry.output.contains("locks would be extended"))
        try expect(first, "v1/packs/", 2)
        let done = try workspace.expect(0, ["prune", "--policy", "demo"], extra: extra)
        #expect(done.output.contains("locks were extended; everything that is needed is locked until"), "\(done.output)")
        // Shared with the monthly one, and the repository's own.
        try expect(first, "v1/index/", 9)
        #expect(try first.filter { $0.hasPrefix("v1/packs/") }.contains { try days($0) > 8.9 })
        try expect(second, "v1/snapshots/", 9)
        // Not kept for so long: the first hourly one; keepLast keeps the third for ever.
        try expect(first, "v1/snapshots/", 2)
        try expect(third, "v1/snapshots/", 9)
        #expect(try workspace.expect(0, ["prune", "--policy", "demo"], extra: extra).output.contains("0 of "))
        let status = try workspace.run(["status", "--json", "--offline"], extra: extra)
        #expect(status.output.contains("lock_horizon"), "\(status.output)")
    }

    @Test func `A store that accepts locks and keeps none is refused at init`() throws {
        let server = try S3Server(.strict, configuration: Self.locked)
        try server.configure(#"{"personality": {"lockIgnored": true}}"#)
        let workspace = try Workspace("lock", initialize: false, server: server, options: Self.days)
        let result = try workspace.expect(1, ["init", "--json"])
        #expect(result.summary["code"] as? String == "store-failed")
        #expect(result.errors.contains("keeps none") && result.errors.contains("HINT: "))
    }

    @Test func `A snapshot that somebody hid behind a delete marker is not pruned as forgotten`() throws {
        let server = try S3Server(.strict, configuration: Self.locked)
        let workspace = try Workspace("hidden", server: server, options: Self.days)
        let volume = try Volume.small(workspace.path("volume"))
        let snapshot = try workspace.backup(volume)
        try workspace.expect(0, ["prune", "--dry-run", "--grace", "0", "--json"])
        let prefix = workspace.location.dropFirst("s3://bucket/".count)
        try server.objects("remove", ["prefix": "\(prefix)/v1/snapshots/"])
        #expect(try workspace.store.names("v1/snapshots/").isEmpty)
        for more in [["--dry-run"], []] {
            let refused = try workspace.expect(17, ["prune", "--grace", "0", "--json"] + more)
            #expect(refused.errors.contains("delete marker") && refused.errors.contains(snapshot.id))
        }
    }

    @Test func `A bucket without Object Lock is refused at init`() throws {
        let server = try S3Server(.strict)
        let workspace = try Workspace("lock", initialize: false, server: server, options: Self.days)
        let result = try workspace.run(["init", "--json"])
        #expect(result.status == 1 || result.status == 64, "\(result.errors)")
        #expect(result.errors.contains("HINT: ") || result.errors.contains("Object Lock"), "\(result.errors)")
    }

    @Test(arguments: ["ignoreConditions", "claimConditions"])
    func `Where conditions do not hold one node writes, and another takes over when told to`(personality: String) throws {
        let server = try S3Server(.strict)
        try server.configure("{\"personality\": {\"\(personality)\": true}}")
        let workspace = try Workspace("claim", server: server)
        let configuration = try String(decoding: workspace.store.read("v1/config.a"), as: UTF8.self)
        #expect(configuration.contains(#""conditionalCreate":"no""#), "\(configuration)")
        let volume = try Volume.small(workspace.path("volume"))
        try workspace.backup(volume)

        let key = try workspace.writerKey()
        let node = workspace.node("second")
        let refused = try node.expect(11, ["backup", volume.path, "--writer-key", key, "--json"])
        #expect(refused.summary["code"] as? String == "busy")
        #expect(refused.errors.contains("--take-over"))
        // Reading is nobody's privilege.
        var reader = node
        reader.environment["BGBACKUP_PASSWORD_FILE"] = workspace.passwordFile
        try reader.expect(0, ["check"])

        try reader.expect(0, ["repo", "claim", "--take-over", "--dry-run"])
        try reader.expect(11, ["backup", volume.path])
        let taken = try reader.expect(0, ["repo", "claim", "--take-over", "--json"])
        #expect(((taken.document as? [String: Any])?["removed"] as? [String])?.count == 1)
        let snapshot = try Summary(fields: reader.expect(0, ["backup", volume.path, "--json"]).summary)
        try workspace.expect(11, ["backup", volume.path])
        try workspace.restore(snapshot.id)
        try expectIdentical(volume.path, workspace.path("restored"))
    }
}
