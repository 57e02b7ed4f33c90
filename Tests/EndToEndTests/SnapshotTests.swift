import Foundation
import TestSupport
import Testing

@Suite("Snapshots: naming, listing and showing them")
struct SnapshotTests {
    let catalog: Catalog
    var workspace: Workspace { catalog.workspace }

    init() throws { catalog = try Catalog.shared.get() }

    private func id(_ name: String, sourceLocation: SourceLocation = #_sourceLocation) throws -> String {
        try workspace.show(name, sourceLocation: sourceLocation).text("id", sourceLocation: sourceLocation)
    }

    @Test func `An id, its prefixes, latest and latest@NODE name a snapshot`() throws {
        #expect(try id(catalog.first) == catalog.first)
        #expect(try id(String(catalog.other.prefix(8))) == catalog.other)
        #expect(try id(catalog.first.prefix(12).uppercased()) == catalog.first)
        #expect(try id("latest") == catalog.second)
        #expect(try id("latest@blue") == catalog.other)
        #expect(try id("latest@green") == catalog.second)
    }

    @Test(arguments: [
        ("abc", "too short"), ("", "too short"), ("fffffffffffffffffffffffffffffffff", "begins with"), ("latest@red", "node red"),
        ("latest@", "node"), ("Latest", "begins with"),
    ])
    func `A name that matches nothing says what was wrong`(name: String, reason: String) throws {
        let result = try workspace.expect(1, ["show", name, "--json"])
        #expect(result.summary["code"] as? String == "no-snapshot")
        #expect(result.errors.contains(reason), "\(result.errors)")
    }

    @Test func `A prefix of two snapshots names neither`() throws {
        let workspace = try Workspace.ready("ambiguous")
        try workspace.backup(try Volume.small(workspace.path("volume")))
        let id = try self.id(in: workspace)
        let twin = String(id.dropLast()) + (id.hasSuffix("0") ? "1" : "0")
        // The name alone is looked at; what is in it does not matter.
        let name = try #require(try workspace.store.names("v1/snapshots/").first)
        try workspace.store.copy(name, as: name.replacing(id, with: twin))
        let result = try workspace.expect(1, ["show", String(id.prefix(10)), "--json"])
        #expect(result.summary["code"] as? String == "no-snapshot")
        #expect(result.errors.contains("2 snapshots"))
        #expect(try workspace.show(id).text("id") == id)
    }

    private func id(in workspace: Workspace) throws -> String { try workspace.show("latest").text("id") }

    @Test func `An empty repository has no latest snapshot, and says so in its list`() throws {
        let workspace = try Workspace.ready("empty")
        #expect(try workspace.expect(1, ["ls", "latest"]).errors.contains("holds no snapshot"))
        #expect(try workspace.expect(0, ["snapshots"]).output == "no snapshots\n")
        #expect(try workspace.expect(0, ["snapshots", "--json"]).document as? [String] == [])
    }

    @Test(arguments: [
        ([], [0, 1, 2]), (["--node", "green"], [0, 2]), (["--node", "blue"], [1]), (["--node", "red"], []),
        (["--tag", "both"], [0, 1]), (["--tag", "first"], [0]), (["--set", "night"], [1]),
        (["--tag", "both", "--node", "green"], [0]), (["--set", "night", "--tag", "first"], []),
    ])
    func `The list is oldest first and can be narrowed`(filters: [String], expected: [Int]) throws {
        let documents = try #require(
            try workspace.expect(0, ["snapshots", "--json"] + filters).document as? [[String: Any]])
        let ids = [catalog.first, catalog.other, catalog.second]
        #expect(documents.compactMap { $0["id"] as? String } == expected.map { ids[$0] })
    }

    @Test func `The list as a table has a line for each`() throws {
        let lines = try workspace.expect(0, ["snapshots"]).output.split(separator: "\n").map(String.init)
        #expect(lines.count == 4)
        #expect(lines[0].hasPrefix("ID "))
        #expect(lines[1].hasPrefix(catalog.first.prefix(8)) && lines[1].contains(" green ") && lines[1].contains("first,both"))
        #expect(lines[2].hasSuffix(workspace.path("lesser")))
    }

    @Test func `show tells all that the snapshot says of itself`() throws {
        let shown = try workspace.show(catalog.second)
        #expect(try shown.text("id") == catalog.second)
        #expect(try shown.text("short_id") == String(catalog.second.prefix(8)))
        #expect(try shown.text("parent") == catalog.first)
        #expect(try shown.text("volume") == catalog.after)
        #expect(try shown.text("kind") == "tree")
        #expect(try shown.text("node") == "green")
        #expect(try shown.text("consistency") == "atomic")
        #expect(try ["quiet", "btrfs", "reflink"].contains(shown.text("capture")), "as the file system here allows")
        #expect(try shown.text("agent").hasPrefix("bgbackup "))
        #expect(shown.fields["complete"] as? Bool == true)
        #expect(shown.problems == [])
        #expect(try shown.text("started") < shown.text("finished"))
        #expect(try workspace.show(catalog.first).fields["tags"] as? [String] == ["first", "both"])
        #expect(try workspace.show(catalog.other).text("set") == "night")
        let text = try workspace.expect(0, ["show", catalog.second]).output
        for word in [catalog.second, catalog.first, catalog.after, "green", "atomic"] { #expect(text.contains(word)) }
    }
}
