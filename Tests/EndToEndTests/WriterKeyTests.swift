import Foundation
import Glibc
import TestSupport
import Testing

@Suite("The writer key makes backups and reads nothing")
struct WriterKeyTests {
    let workspace: Workspace
    let volume: Volume
    /// The node: no password anywhere around it.
    let node: Workspace
    let key: String

    init() throws {
        workspace = try Workspace.ready("writer")
        volume = try Volume.small(workspace.path("volume"))
        key = try workspace.writerKey()
        node = workspace.node("node")
    }

    @Test func `Its file is for the owner's eyes, whatever the umask, and is never overwritten`() throws {
        let open = workspace.path("open-umask")
        let result = try Program.run(
            "/bin/sh", ["-c", "umask 0; exec \"$0\" key export-writer \"$1\"", Program.binary, open],
            environment: workspace.environment)
        #expect(result.status == 0, "\(result.errors)")
        let files = try Volume(workspace.directory.path)
        for name in ["writer-key", "open-umask"] { #expect(try files.stat(name).st_mode == S_IFREG | 0o600) }
        let bytes = try files.read("writer-key")
        let again = try workspace.expect(1, ["key", "export-writer", key])
        #expect(again.errors.contains(key))
        #expect(try files.read("writer-key") == bytes)
    }

    @Test func `Backups with it alone are incremental and restore with the password`() async throws {
        try await settle()
        let first = try backup(["--writer-key", key])
        #expect(first.fields["parent"] is NSNull || first.fields["parent"] == nil)
        try volume.write("collections/c/config.json", "{\"params\": 2}\n")
        let second = try backup([], ["BGBACKUP_WRITER_KEY_FILE": key])
        #expect(try second.text("parent") == first.id)
        #expect(try second.number("files_unmodified") == 2)
        #expect(try second.number("bytes_read") == 14)
        let folder = workspace.path("credentials")
        try volume.shell("mkdir '\(folder)'; cp '\(key)' '\(folder)/bgbackup.writer-key'")
        let third = try backup([], ["CREDENTIALS_DIRECTORY": folder])
        #expect(try third.text("parent") == second.id)
        #expect(try third.number("bytes_new") == 0)
        try workspace.restore(third.id)
        try expectIdentical(volume.path, workspace.path("restored"))
        #expect(try workspace.dump(first.id, "collections/c/config.json") == Array("{\"params\": 1}\n".utf8))
    }

    @Test func `A password that is named counts more than a writer key that only lies about`() throws {
        // With keys of its own.
        let other = try Workspace("other", kind: nil)
        let folder = workspace.path("credentials")
        try volume.shell("mkdir '\(folder)'; cp '\(key)' '\(folder)/bgbackup.writer-key'")
        try other.expect(
            0, ["backup", volume.path, "--password-file", other.passwordFile],
            extra: ["CREDENTIALS_DIRECTORY": folder, "BGBACKUP_PASSWORD_FILE": ""])
    }

    @Test(.severalWriters) func `Without local state only what is new is stored, found by the index it may read`() throws {
        let first = try backup(["--writer-key", key])
        let other = try Summary(
            fields: workspace.node("another").expect(
                0, ["backup", volume.path, "--json", "--writer-key", key]
            ).summary)
        #expect(try first.number("bytes_new") > 300 << 10)
        #expect(try other.number("bytes_new") < 32 << 10)
    }

    @Test func `Whatever reads is refused with exit 12 and a sentence`() throws {
        try backup(["--writer-key", key])
        try backup(["--writer-key", key])
        let commands = [
            ["restore", "latest", "--target", workspace.path("restored")], ["ls", "latest"], ["show", "latest"],
            ["dump", "latest", "collections/c/config.json"], ["snapshots"], ["diff", "latest", "latest"],
            ["check"], ["check", "--read-data"],
        ]
        for command in commands {
            let result = try node.run(command + ["--json"], extra: ["BGBACKUP_WRITER_KEY_FILE": key])
            #expect(result.status == 12, "\(command): \(result.errors)")
            #expect(result.errors.contains("a writer key makes backups and cannot read them"), "\(command)")
            #expect(result.errors.contains("HINT: Use the repository's password"), "\(command)")
            #expect(result.summary["code"] as? String == "write-only-key", "\(command)")
        }
        #expect(access(workspace.path("restored"), F_OK) != 0)
        let folder = workspace.path("credentials")
        try volume.shell("mkdir '\(folder)'; cp '\(key)' '\(folder)/bgbackup.writer-key'")
        #expect(try node.bgbackup("ls", "latest", extra: ["CREDENTIALS_DIRECTORY": folder]).status == 12)
    }

    @Test func `It neither makes nor takes away passwords`() throws {
        try Data("other".utf8).write(to: URL(filePath: workspace.path("other-password")))
        let extra = ["BGBACKUP_WRITER_KEY_FILE": key]
        let added = try node.bgbackup("key", "add", "--new-password-file", workspace.path("other-password"), extra: extra)
        #expect(added.status == 12, "\(added.errors)")
        let slots = try #require(try workspace.expect(0, ["key", "list", "--json"]).document as? [[String: Any]])
        let slot = try #require(slots.first?["id"] as? String)
        #expect(slots.count == 1)
        #expect(try node.bgbackup("key", "remove", slot, extra: extra).status == 12)
    }

    @Test func `A node that has the password too reads with it`() throws {
        try backup(["--writer-key", key])
        let listed = try workspace.run(["ls", "latest"], extra: ["BGBACKUP_WRITER_KEY_FILE": key])
        #expect(listed.status == 0, "\(listed.errors)")
    }

    @Test func `The key of another repository, one that is none and one that is missing give exit 12`() throws {
        let other = try Workspace("other")
        let foreign = try node.bgbackup("backup", volume.path, "--json", "--writer-key", other.writerKey())
        #expect(foreign.status == 12)
        #expect(foreign.errors.contains("another repository"))
        for text in ["", "bgbackup-writer-key-1\n", "bgbackup-writer-key-1\nrepository: 00\npublic-key: 00\nwriter-secret: 00\n"]
        {
            try volume.write("../no-key", text)
            let result = try node.bgbackup("backup", volume.path, "--writer-key", workspace.path("no-key"))
            #expect(result.status == 12, "\(result.errors)")
            #expect(result.errors.contains("no writer key file"))
        }
        let missing = try node.bgbackup("backup", volume.path, "--writer-key", workspace.path("missing"))
        #expect(missing.status == 12)
        #expect(missing.errors.contains(workspace.path("missing")))
        #expect(try workspace.expect(0, ["snapshots", "--json"]).document as? [String] == [])
    }

    /// Its secret half, with which snapshots could be forged to another owner.
    @Test func `A key whose secret was altered makes no snapshot`() throws {
        let text = try String(contentsOfFile: key, encoding: .utf8)
        var lines = text.split(separator: "\n").map(String.init)
        let digit = lines[3].removeLast()
        lines[3].append(digit == "0" ? "1" : "0")
        try volume.write("../altered", lines.joined(separator: "\n") + "\n")
        let result = try node.bgbackup("backup", volume.path, "--writer-key", workspace.path("altered"))
        #expect([12, 17].contains(result.status), "\(result.errors)")
        #expect(try workspace.expect(0, ["snapshots", "--json"]).document as? [String] == [])
    }

    @discardableResult
    private func backup(
        _ more: [String], _ extra: [String: String] = [:], sourceLocation: SourceLocation = #_sourceLocation
    ) throws -> Summary {
        let result = try node.expect(
            0, ["backup", volume.path, "--json"] + more, extra: extra, sourceLocation: sourceLocation)
        return Summary(fields: result.summary)
    }
}
