import Foundation
import TestSupport
import Testing

@Suite("Lists of what a snapshot holds")
struct ListTests {
    let catalog: Catalog
    var workspace: Workspace { catalog.workspace }

    init() throws { catalog = try Catalog.shared.get() }

    @Test func `ls names every path once, parents first`() throws {
        let paths = try workspace.list(catalog.first)
        let found = try Volume(catalog.before).shell("find . -mindepth 1 | wc -l")
        // One name holds a line feed: find prints it as two lines, ls escapes it.
        #expect(paths.count == Int(found.trimmingCharacters(in: .whitespacesAndNewlines))! - 1)
        #expect(Set(paths).count == paths.count)
        #expect(paths.contains("b\\xff\\x0a"))
        for (index, path) in paths.enumerated() {
            guard let slash = path.lastIndex(of: "/") else { continue }
            #expect(paths[..<index].contains(String(path[..<slash])), "\(path)")
        }
    }

    @Test func `ls PATH names the path and what is below it, not its namesakes`() throws {
        let paths = try workspace.expect(0, ["ls", catalog.first, "collections/c/0/wal"]).output
        #expect(paths == "collections/c/0/wal\ncollections/c/0/wal/open-1\n")
        let below = try workspace.expect(0, ["ls", catalog.first, "/collections/c/"]).output
        #expect(below.hasPrefix("collections/c\n"))
        #expect(!below.contains("c2"))
        #expect(try workspace.expect(0, ["ls", catalog.first, "empty"]).output == "empty\n")
    }

    @Test func `ls of a path that is not there is an error`() throws {
        for path in ["missing", "collections/c/conf", "empty/below"] {
            let result = try workspace.expect(1, ["ls", catalog.first, path, "--json"])
            #expect(result.summary["code"] as? String == "no-such-path", "\(path)")
            #expect(result.errors.contains(path))
        }
    }

    @Test func `ls --long says mode, owner, size and time`() throws {
        let lines = try workspace.expect(0, ["ls", "--long", catalog.first]).output.split(separator: "\n").map(String.init)
        let stat = try Volume(catalog.before).stat("collections/c2/config.json")
        let file = try #require(lines.first { $0.hasSuffix("collections/c2/config.json") })
        let words = file.split(separator: " ").map(String.init)
        #expect(
            words == ["-rw-r-----", "\(stat.st_uid):\(stat.st_gid)", "2", "2024-05-06", "07:08:09", "collections/c2/config.json"])
        #expect(lines.contains { $0.hasPrefix("drwx") && $0.hasSuffix(" collections") })
        #expect(lines.contains { $0.hasPrefix("lrwx") && $0.hasSuffix(" pointer -> collections/c/config.json") })
        #expect(lines.contains { $0.hasPrefix("h") && $0.hasSuffix(" name-two -> collections/c/config.json") })
        #expect(lines.contains { $0.contains(" 900001 ") && $0.hasSuffix(Catalog.sparse) })
    }

    @Test func `ls --json is one document a line, with the root first`() throws {
        let lines = try workspace.expect(0, ["ls", catalog.first, "--json"]).output.split(separator: "\n")
        let entries = try lines.map { try #require(try JSONSerialization.jsonObject(with: Data($0.utf8)) as? [String: Any]) }
        #expect(entries.first?["path"] as? String == "")
        #expect(entries.first?["type"] as? String == "directory")
        func entry(_ path: String) throws -> [String: Any] { try #require(entries.first { $0["path"] as? String == path }) }
        let file = try entry("collections/c2/config.json")
        #expect(file["type"] as? String == "file")
        #expect(file["mode"] as? Int == 0o640)
        #expect(file["size"] as? Int == 2)
        #expect((file["mtime"] as? String)?.hasPrefix("2024-05-06T07:08:09.123456789") == true)
        #expect(try entry("name-two")["target"] as? String == "collections/c/config.json")
        #expect(try entry("name-two")["type"] as? String == "hardlink")
        #expect(try entry("pointer")["type"] as? String == "symlink")
        #expect(try entry("b\\xff\\x0a")["path_hex"] as? String == "62ff0a")
    }

    @Test func `diff marks what was added, removed and changed, in order`() throws {
        let result = try workspace.expect(0, ["diff", catalog.first, catalog.second])
        let lines = result.output.split(separator: "\n").map(String.init)
        let expected = [
            "m  .", "+  added", "+  added/file", "M  collections/c/0/wal/open-1", "m  mode-changes", "M  pointer", "-  removed",
            "-  removed/later",
        ]
        #expect(lines == expected)
        #expect(result.errors.contains("2 added, 2 removed, 2 changed, 2 with other metadata"))
        #expect(try workspace.expect(0, ["diff", catalog.first, catalog.first]).output == "")
        let back = try workspace.expect(0, ["diff", catalog.second, catalog.first, "--quiet"])
        #expect(back.output.contains("+  removed/later\n"))
        #expect(back.errors == "")
    }

    @Test func `diff --json is one document with sizes`() throws {
        let result = try workspace.expect(0, ["diff", catalog.first, catalog.second, "--json"])
        let changes = try #require(result.document as? [[String: Any]])
        let added = try #require(changes.first { $0["path"] as? String == "added/file" })
        #expect(added["change"] as? String == "added")
        #expect(added["size_before"] as? Int == 0)
        #expect(added["size_after"] as? Int == 3)
        let removed = try #require(changes.first { $0["path"] as? String == "removed/later" })
        #expect(removed["change"] as? String == "removed")
        #expect(removed["size_before"] as? Int == 4)
        #expect(Set(changes.compactMap { $0["change"] as? String }) == ["added", "removed", "changed", "metadata"])
    }
}
