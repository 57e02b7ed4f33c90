import BackupBase
import Foundation
import TestSupport
import Testing

/// Every command of CLI.md against every S3 server that runs here.
@Suite("Every command on an S3 store")
struct S3CommandTests {
    @Test(arguments: S3Server.available)
    func `init makes a repository once`(kind: S3Server.Kind) throws {
        let workspace = try Workspace("init", initialize: false, kind: kind)
        try workspace.expect(10, ["snapshots"])
        let made = try workspace.expect(0, ["init", "--json"])
        #expect(made.summary["location"] as? String == workspace.location)
        let before = try workspace.store.fingerprint("v1/")
        #expect(try Set(workspace.store.names("v1/")).isSuperset(of: ["v1/config.a", "v1/config.b"]))
        let again = try workspace.expect(1, ["init", "--json"])
        #expect(again.summary["code"] as? String == "repository-exists")
        #expect(try workspace.store.fingerprint("v1/") == before)
        // Nothing of the probe is left; rclone lists for a while what is gone.
        let end = monotonicSeconds() + (kind == .rclone ? 30 : 0)
        while try !workspace.store.names("tmp/probe").isEmpty, monotonicSeconds() < end { usleep(500_000) }
        #expect(try workspace.store.names("tmp/probe").isEmpty)
        #expect(try workspace.expect(0, ["snapshots"]).output == "no snapshots\n")
    }

    @Test(arguments: S3Server.available)
    func `backup stores what is new, and nothing of what is not`(kind: S3Server.Kind) throws {
        let stage = try S3Stage.on(kind)
        #expect(try stage.snapshots[0].number("bytes_new") > 2_800_000)
        #expect(try stage.snapshots[1].text("parent") == stage.first)
        #expect(try stage.snapshots[1].number("bytes_read") == 0)
        #expect(try stage.snapshots[1].number("bytes_new") == 0)
        #expect(try stage.snapshots[2].number("bytes_read") == 17)
        #expect(try stage.snapshots[2].number("bytes_new") < 64 << 10)
    }

    @Test(arguments: S3Server.available)
    func `snapshots, show, ls, diff and dump tell what is there`(kind: S3Server.Kind) throws {
        let stage = try S3Stage.on(kind)
        let workspace = stage.workspace
        let listed = try #require(try workspace.expect(0, ["snapshots", "--json"]).document as? [[String: Any]])
        #expect(listed.compactMap { $0["id"] as? String } == stage.snapshots.map(\.id))
        #expect(try workspace.expect(0, ["snapshots", "--tag", "one"]).output.split(separator: "\n").count == 2)
        let shown = try workspace.show(String(stage.last.prefix(8)))
        #expect(shown.fields["set"] as? String == "night")
        #expect(shown.fields["complete"] as? Bool == true)
        let names = try workspace.list("latest@green")
        #expect(names.contains("added") && names.contains(S3Stage.sparse))
        #expect(try !workspace.list(stage.first).contains("added"))
        let below = try workspace.expect(0, ["ls", "-l", "latest", "collections/c/config.json"]).output
        #expect(below.contains("14") && below.split(separator: "\n").count == 1)
        let lines = try workspace.expect(0, ["diff", stage.first, stage.last]).output.split(separator: "\n")
        #expect(lines.contains("+  added") && lines.contains("M  collections/c/config.json"), "\(lines)")
        #expect(try workspace.dump(stage.last, "added") == Array("new".utf8))
        #expect(try workspace.dump(stage.first, "second-name") == Array("{\"params\": 1}\n".utf8))
        #expect(try workspace.dump("latest", S3Stage.sparse) == stage.volume.read(S3Stage.sparse))
    }

    @Test(.enabled(if: S3Server.available.contains(.strict), "needs the strict server"))
    func `A list whose cache is warm asks for seven things, whatever there is, and status for one`() throws {
        let workspace = try Workspace.ready("requests", kind: .strict)
        let server = try #require(workspace.server)
        let volume = try Volume.small(workspace.path("volume"))
        for number in 0..<3 {
            try volume.write("added", "\(number)")
            try workspace.backup(volume)
        }
        try workspace.expect(0, ["hold", "latest"])
        let place = String(workspace.location.dropFirst("s3://".count).prefix { $0 != "?" })
        func requests(_ command: String...) throws -> [String] {
            // Others use the server too.
            let before = try server.log().count
            try workspace.run(command)
            return try server.log().dropFirst(before).compactMap { entry in
                let text = "\(entry["path"] ?? "") \(entry["query"] ?? "")".replacing("%2F", with: "/")
                let own =
                    text.contains(place)
                    || text.contains("prefix=\(place.split(separator: "/").dropFirst().joined(separator: "/"))/")
                return own ? "\(entry["method"] ?? "") \(text)" : nil
            }
        }
        #expect(try requests("snapshots").count == 7 + 3 + 1)
        #expect(try requests("snapshots").count == 7)
        #expect(try requests("show", "latest").count == 7)
        #expect(try requests("status").count == 1)
    }

    @Test(arguments: S3Server.available)
    func `restore gives every byte and every hole, or only what is asked for`(kind: S3Server.Kind) throws {
        let stage = try S3Stage.on(kind)
        let workspace = stage.workspace
        try workspace.restore(stage.first, onto: "first")
        try expectIdentical(stage.before, workspace.path("first"))
        try workspace.restore("latest", onto: "latest")
        try expectIdentical(stage.volume.path, workspace.path("latest"))
        try workspace.restore("latest", onto: "part", "--include", S3Stage.sparse)
        let part = try Volume(workspace.path("part"))
        #expect(try part.shell("find . -type f") == "./\(S3Stage.sparse)\n")
        #expect(try part.read(S3Stage.sparse) == stage.volume.read(S3Stage.sparse))
        try workspace.restore("latest", onto: "part", status: 15)
        try workspace.restore("latest", onto: "none", "--dry-run")
        #expect(!part.exists("../none"))
    }

    @Test(arguments: S3Server.available)
    func `A restore that was killed goes on with --resume`(kind: S3Server.Kind) throws {
        let workspace = try Workspace.ready("resume", kind: kind)
        let volume = try Volume(workspace.path("volume"))
        for name in ["a/matrix.dat", "b/matrix.dat", "c/matrix.dat"] { try volume.writeRandom(name, megabytes: 20) }
        try workspace.backup(volume)
        // Three reads, seconds apart: what the first one brought is there long before the last one ends.
        let slow = ["restore", "latest", "--target", workspace.path("target"), "--limit-download", "5MiB"]
        let restore = try workspace.start(slow)
        try restore.wait {
            try Int(volume.shell("du -sk ../target 2>/dev/null | cut -f1 | grep . || echo 0").dropLast())! > 4 << 10
        }
        #expect(restore.end() == 137)
        let target = try Volume(workspace.path("target"))
        #expect(target.exists(".bgbackup-incomplete"))
        try workspace.restore("latest", onto: "target", status: 15)
        let resumed = try workspace.restore("latest", onto: "target", "--resume")
        #expect(try resumed.number("bytes_kept") + resumed.number("bytes_written") == resumed.number("bytes_total"))
        try expectIdentical(volume.path, target.path)
    }

    @Test(arguments: S3Server.available)
    func `check finds nothing; repair makes indexes anew`(kind: S3Server.Kind) throws {
        let workspace = try Workspace.ready("repair", kind: kind)
        let volume = try Volume.small(workspace.path("volume"))
        try workspace.backup(volume)
        try workspace.expect(0, ["check"])
        let full = Summary(fields: try workspace.expect(0, ["check", "--read-data", "--json"]).summary)
        #expect(full.fields["damaged"] as? Bool == false)
        try workspace.store.remove("v1/index/")
        try Program.run("/bin/rm", ["-rf", workspace.path("cache")])
        let repaired = Summary(fields: try workspace.expect(0, ["repair", "--json"]).summary)
        #expect(try repaired.number("packs_indexed") > 0)
        #expect(try !workspace.store.names("v1/index/").isEmpty)
        #expect(try workspace.backup(volume, "--rescan").number("bytes_new") == 0)

        let pack = try #require(try workspace.store.names("v1/packs/").first)
        try workspace.store.flip(pack)
        let damaged = try workspace.expect(17, ["check", "--read-data", "--json"])
        #expect(damaged.output.contains(pack))
    }

    @Test(arguments: S3Server.available)
    func `Passwords come and go, and a writer key makes backups`(kind: S3Server.Kind) throws {
        let workspace = try Workspace.ready("keys", kind: kind)
        let volume = try Volume.small(workspace.path("volume"))
        let new = workspace.path("new-password")
        try volume.write("../new-password", "battery staple\n")
        let added = try workspace.expect(0, ["key", "add", "--new-password-file", new, "--label", "second", "--json"])
        let id = try #require((added.document as? [String: Any])?["key"] as? String)
        #expect(try workspace.expect(0, ["key", "list", "--password-file", new]).output.contains("second"))
        try workspace.expect(0, ["key", "remove", id])
        #expect(try !workspace.store.names("v1/keys/").contains { $0.contains(id) })
        try workspace.expect(12, ["snapshots", "--password-file", new])

        let key = workspace.path("exported")
        try workspace.expect(0, ["key", "export-writer", key])
        var node = workspace
        node.environment["BGBACKUP_PASSWORD_FILE"] = nil
        let backup = try node.expect(0, ["backup", volume.path, "--writer-key", key, "--json"])
        try node.expect(12, ["snapshots"], extra: ["BGBACKUP_WRITER_KEY_FILE": key])
        try workspace.restore(Summary(fields: backup.summary).id)
        try expectIdentical(volume.path, workspace.path("restored"))
    }

    @Test(arguments: S3Server.available)
    func `repo looks after the store`(kind: S3Server.Kind) throws {
        let workspace = try S3Stage.on(kind).workspace
        let probe = Summary(fields: try workspace.expect(0, ["repo", "probe", "--json"]).summary)
        #expect(probe.fields["usable"] as? Bool == true)
        #expect(probe.fields["shared"] as? Bool == (kind != .rclone))
        // rclone's server lists for a second what is gone.
        for _ in 0..<20 where try !workspace.store.names("tmp/probe").isEmpty { usleep(250_000) }
        #expect(try workspace.store.names("tmp/probe").isEmpty)

        let objects = try workspace.store.names("v1/")
        let kinds = try #require(try workspace.expect(0, ["repo", "stats", "--json"]).document as? [[String: Any]])
        for (name, prefix) in [("packs", "v1/packs/"), ("snapshots", "v1/snapshots/")] {
            let line = try #require(kinds.first { $0["kind"] as? String == name }, "\(kinds)")
            #expect(line["objects"] as? Int == objects.filter { $0.hasPrefix(prefix) }.count)
        }

        let claims = try #require(try workspace.expect(0, ["repo", "claim", "--json"]).document as? [String: Any])
        #expect(claims["shared"] as? Bool == (kind != .rclone))
        #expect((claims["claims"] as? [String])?.count == (kind == .rclone ? 1 : 0))

        let locks = try workspace.expect(64, ["repo", "extend-locks", "--json"])
        #expect(locks.errors.contains("names no lock"))
        for role in ["writer", "keeper", "restorer"] {
            let policy = try workspace.expect(0, ["repo", "iam-policy", "--role", role])
            let document = try #require(policy.document as? [String: Any])
            #expect(document["Version"] as? String == "2012-10-17")
            #expect(policy.output.contains("arn:aws:s3:::bucket"))
        }
        try workspace.expect(64, ["repo", "iam-policy", "--role", "king"])
    }

    @Test(arguments: S3Server.available)
    func `doctor finds nothing wrong, and shows no key`(kind: S3Server.Kind) throws {
        let workspace = try S3Stage.on(kind).workspace
        let result = try workspace.expect(0, ["doctor", "--json"])
        let document = try #require(result.document as? [String: Any])
        #expect(document["ok"] as? Bool == true)
        let names = (document["checks"] as? [[String: Any]] ?? []).compactMap { $0["check"] as? String }
        #expect(Set(names).isSuperset(of: ["keys", "bucket", "repository", "writers", "snapshots"]))
        #expect(!result.output.contains(try #require(workspace.server).secretKey))
        let wrong = try workspace.expect(1, ["doctor"], extra: ["AWS_ACCESS_KEY_ID": "", "AWS_SECRET_ACCESS_KEY": ""])
        #expect(wrong.output.contains("✗ keys") && wrong.output.contains("FIX: "))
    }
}
