import Foundation
import Glibc
import TestSupport
import Testing

@Suite("Keys live longer than passwords, and are kept outside too")
struct KeyLifeTests {
    let workspace: Workspace
    let volume: Volume

    init() throws {
        workspace = try Workspace.ready("keylife")
        volume = try Volume.small(workspace.path("volume"))
    }

    private func file(_ name: String, _ text: String) throws -> String {
        try Data(text.utf8).write(to: URL(filePath: workspace.path(name)))
        chmod(workspace.path(name), 0o600)
        return workspace.path(name)
    }

    @Test func `passwd changes the password in use, and the old one opens nothing more`() throws {
        let new = try file("new", "battery staple\n")
        try workspace.expect(0, ["key", "passwd", "--new-password-file", new])
        try workspace.expect(12, ["snapshots"])
        let listed = try workspace.expect(0, ["key", "list", "--json", "--password-file", new]).document as? [[String: Any]]
        #expect(listed?.count == 1 && listed?[0]["in_use"] as? Bool == true && listed?[0]["pairs"] as? Int == 1)
        #expect((listed?[0]["by"] as? String)?.contains("@") == true)
        let own = try #require(listed?[0]["id"] as? String)
        try workspace.expect(0, ["key", "add", "--new-password-file", workspace.passwordFile, "--password-file", new])
        let refused = try workspace.expect(64, ["key", "remove", own, "--password-file", new])
        #expect(refused.errors.contains("--force"))
        try workspace.expect(0, ["key", "remove", own, "--password-file", new, "--force"])
        try workspace.expect(0, ["snapshots"])
    }

    @Test func `After a rotation the old writer key is refused, the new one goes on where the old one was`() throws {
        let old = try workspace.writerKey()
        let first = try workspace.backup(volume)
        let plan = try workspace.expect(0, ["key", "rotate", "--dry-run"])
        #expect(plan.output.contains("would rotate to key pair 2"))
        let rotated = try workspace.expect(0, ["key", "rotate", "--json"]).summary
        #expect(rotated["key_pair"] as? Int == 2 && rotated["closed"] as? Bool == true)
        let refused = try workspace.expect(12, ["backup", volume.path, "--writer-key", old])
        #expect(refused.errors.contains("key pair 1") && refused.errors.contains("export-writer"))
        let new = workspace.path("new-key")
        try workspace.expect(0, ["key", "export-writer", new])
        let second = Summary(
            fields: try workspace.expect(0, ["backup", volume.path, "--json", "--writer-key", new]).summary)
        #expect(try second.text("parent") == first.id)
        #expect(try second.number("bytes_new") == 0)
        for id in [first.id, second.id] {
            try workspace.restore(id, onto: "restored-\(id)")
            try expectIdentical(volume.path, workspace.path("restored-\(id)"))
        }
        #expect(try workspace.expect(0, ["check", "--read-data"]).output.contains("No damage found."))
    }

    @Test func `A rotation changes the password too, and the same words finish one that was stopped`() throws {
        let first = try workspace.backup(volume)
        let new = try file("new", "battery staple\n")
        try workspace.expect(0, ["key", "rotate", "--new-password-file", new])
        try workspace.expect(12, ["snapshots"])
        let listed = try workspace.expect(0, ["key", "list", "--json", "--password-file", new]).document as? [[String: Any]]
        #expect(listed?.count == 1 && listed?[0]["pairs"] as? Int == 2)
        // As if it had been stopped at its end.
        try workspace.store.remove("v1/pairs/")
        // Who wants a new pair is told that there is none.
        let refused = try workspace.expect(1, ["key", "rotate", "--new-password-file", new])
        #expect(refused.errors.contains("no new key pair was made"))
        try workspace.store.remove("v1/pairs/")
        let again = try workspace.expect(0, ["key", "rotate", "--new-password-file", new, "--finish", "--json"]).summary
        #expect(again["resumed"] as? Bool == true && again["key_pair"] as? Int == 2 && again["closed"] as? Bool == true)
        #expect(again["new_pair"] as? Bool == false)
        try workspace.expect(64, ["key", "rotate", "--password-file", new, "--finish"])
        let third = try workspace.expect(0, ["key", "rotate", "--password-file", new, "--json"]).summary
        #expect(third["new_pair"] as? Bool == true && third["key_pair"] as? Int == 3)
        try workspace.restore(first.id, onto: "restored", "--password-file", new)
        try expectIdentical(volume.path, workspace.path("restored"))
    }

    @Test func `An exported key and a typed sheet open a repository without key slots`() throws {
        let first = try workspace.backup(volume)
        let own = try file("own", "sheet of paper\n")
        try workspace.expect(0, ["key", "export", workspace.path("export")])
        try workspace.expect(0, ["key", "sheet", workspace.path("sheet.txt"), "--new-password-file", own])
        try workspace.expect(0, ["key", "sheet", workspace.path("sheet.html"), "--new-password-file", own])
        try workspace.expect(1, ["key", "sheet", workspace.path("sheet.html")])
        var status = stat()
        #expect(stat(workspace.path("sheet.html"), &status) == 0 && status.st_mode & 0o777 == 0o600)
        let html = try String(contentsOfFile: workspace.path("sheet.html"), encoding: .utf8)
        let text = try String(contentsOfFile: workspace.path("sheet.txt"), encoding: .utf8)
        #expect(!html.contains("sheet of paper") && !html.contains("<script") && html.contains("bgbackup key import --sheet"))
        #expect(text.split(separator: "\n").allSatisfy { $0.count <= 100 })

        try workspace.store.remove("v1/keys/")
        #expect(try workspace.run(["snapshots"]).status == 17)
        let typed = text.lowercased()
        let sheet = try file("typed", typed)
        try workspace.expect(12, ["key", "import", "--sheet", sheet])
        let line = try #require(typed.split(separator: "\n").first { $0.hasPrefix(" 3 ") })
        let wrong = try file("wrong", typed.replacingOccurrences(of: line, with: line.dropLast(3) + "zz" + line.suffix(1)))
        let complaint = try workspace.expect(64, ["key", "import", "--sheet", wrong, "--password-file", own])
        #expect(complaint.errors.contains("line 3 does not fit"))
        try workspace.expect(0, ["key", "import", "--sheet", sheet, "--password-file", own, "--dry-run"])
        try workspace.expect(
            0, ["key", "import", "--sheet", sheet, "--password-file", own, "--new-password-file", workspace.passwordFile])
        try workspace.restore(first.id)
        try expectIdentical(volume.path, workspace.path("restored"))

        try workspace.store.remove("v1/keys/")
        try workspace.store.remove("v1/config")
        try workspace.expect(0, ["key", "import", workspace.path("export")])
        #expect(try workspace.expect(0, ["check"]).output.contains("No damage found."))
        try workspace.expect(64, ["key", "import", sheet])
    }
}
