import Foundation
import TestSupport
import Testing

@Suite("Passwords of a repository")
struct KeyTests {
    let workspace: Workspace

    init() throws { workspace = try Workspace.ready("key") }

    private func slots(sourceLocation: SourceLocation = #_sourceLocation) throws -> [[String: Any]] {
        try #require(
            try workspace.expect(0, ["key", "list", "--json"], sourceLocation: sourceLocation).document as? [[String: Any]],
            sourceLocation: sourceLocation)
    }

    private func file(_ name: String, _ bytes: [UInt8]) throws -> String {
        try Volume(workspace.directory.path).write(name, bytes, size: Int64(bytes.count))
        return workspace.path(name)
    }

    @Test func `A password can be added, used, listed and removed; the last one stays`() throws {
        let new = try file("new", Array("battery staple\n".utf8))
        let added = try workspace.expect(0, ["key", "add", "--new-password-file", new, "--label", "second", "--json"])
        let id = try #require(added.summary["key"] as? String ?? (added.document as? [String: Any])?["key"] as? String)
        #expect(try slots().compactMap { $0["label"] as? String }.sorted() == ["first", "second"])
        try workspace.expect(0, ["snapshots", "--password-file", new])
        try workspace.expect(0, ["snapshots"])

        try workspace.expect(0, ["key", "remove", id, "--dry-run"])
        #expect(try slots().count == 2)
        try workspace.expect(64, ["key", "remove", "0000"])
        let removed = try workspace.expect(0, ["key", "remove", String(id.prefix(6))])
        #expect(removed.output.contains(id.prefix(6)))
        try workspace.expect(12, ["snapshots", "--password-file", new])

        let last = try #require(try slots().first?["id"] as? String)
        let refused = try workspace.run(["key", "remove", last])
        #expect(refused.status == 1 || refused.status == 64)
        #expect(refused.errors.contains("last"))
        try workspace.expect(0, ["snapshots"])
        let table = try workspace.expect(0, ["key", "list"]).output
        #expect(table.hasPrefix("ID ") && table.contains(last) && table.contains("first"))
    }

    @Test func `key remove --json prints nothing that is not JSON`() throws {
        let new = try file("new", Array("battery staple".utf8))
        let added = try workspace.expect(0, ["key", "add", "--new-password-file", new, "--json"])
        let id = try #require((added.document as? [String: Any])?["key"] as? String)
        for more in [["--dry-run"], []] {
            let result = try workspace.expect(0, ["key", "remove", id, "--json"] + more)
            #expect(result.output.isEmpty || result.document != nil, "\(result.output)")
        }
    }

    @Test func `A password comes from a file, a command or a credentials directory`() throws {
        let other = workspace.node("other")
        let password = workspace.passwordFile
        try workspace.expect(0, ["snapshots", "--password-file", password], extra: ["BGBACKUP_PASSWORD_FILE": "/nonexistent"])
        func status(_ extra: [String: String]) throws -> Int32 { try other.run(["snapshots", "--json"], extra: extra).status }
        #expect(try status(["BGBACKUP_PASSWORD_FILE": password]) == 0)
        #expect(try status(["BGBACKUP_PASSWORD_COMMAND": "cat '\(password)'"]) == 0)
        #expect(try status(["BGBACKUP_PASSWORD_COMMAND": "printf 'correct horse'"]) == 0)
        let folder = workspace.path("credentials")
        try Volume(folder).shell("cp '\(password)' bgbackup.password")
        #expect(try status(["CREDENTIALS_DIRECTORY": folder]) == 0)
        #expect(try status([:]) == 12)
        #expect(try status(["BGBACKUP_PASSWORD_COMMAND": "false"]) == 12)
        #expect(try status(["BGBACKUP_PASSWORD_COMMAND": "true"]) == 12)
        #expect(try status(["BGBACKUP_PASSWORD_FILE": "/nonexistent"]) == 12)
        #expect(try status(["CREDENTIALS_DIRECTORY": workspace.path("none")]) == 12)
    }

    @Test func `A password is bytes, without one line feed at its end`() throws {
        let odd = try file("odd", [0xff, 0x00, 0xfe, 0x20, 0x0d, 0x0a, 0x0a])
        let place = workspace.path("odd-repository")
        try workspace.expect(0, ["init", "--repository", place, "--password-file", odd])
        func status(_ password: [UInt8]) throws -> Int32 {
            try workspace.run(["snapshots", "--repository", place, "--password-file", file("try", password)]).status
        }
        #expect(try status([0xff, 0x00, 0xfe, 0x20, 0x0d, 0x0a]) == 12, "two line feeds at the end, of which one counts")
        #expect(try status([0xff, 0x00, 0xfe, 0x20, 0x0d, 0x0a, 0x0a]) == 0)
        let command = try workspace.node("command").run(
            ["snapshots", "--repository", place], extra: ["BGBACKUP_PASSWORD_COMMAND": "cat '\(odd)'"])
        #expect(command.status == 0, "the command's bytes are the file's: \(command.errors)")
    }

    @Test func `A secret that everybody can read is remarked on`() throws {
        try Volume(workspace.directory.path).setMode("password", 0o644)
        #expect(try workspace.expect(0, ["snapshots"]).errors.contains("chmod 600"))
        try Volume(workspace.directory.path).setMode("password", 0o640)
        #expect(try workspace.expect(0, ["snapshots"]).errors == "")
    }
}
