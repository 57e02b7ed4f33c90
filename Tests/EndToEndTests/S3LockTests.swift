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
