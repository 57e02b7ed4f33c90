import Foundation
import TestSupport
import Testing

@Suite("Exit statuses and messages")
struct CommandTests {
    let workspace: Workspace

    init() throws { workspace = try Workspace("command", initialize: false) }

    @Test(arguments: [
        ["snapshots"], ["ls", "latest"], ["check"], ["backup", "."], ["key", "list"], ["restore", "latest", "--target", "x"],
    ])
    func `Where there is no repository every command ends with 10`(command: [String]) throws {
        try Volume(workspace.directory.path).makeDirectory("empty")
        for place in [workspace.path("missing"), workspace.path("empty")] {
            let result = try workspace.expect(10, command + ["--json", "--repository", place])
            #expect(result.summary["code"] as? String == "no-repository")
            #expect(result.errors.contains(place))
        }
        #expect(try Volume(workspace.directory.path).shell("ls -A empty; ls -d x missing 2>/dev/null || true") == "")
    }

    @Test(arguments: [
        ["backup"], ["nonsense"], ["backup", ".", "--nonsense"], ["restore", "latest"], ["check", "--read-data=200%"],
        ["check", "--read-data=0"], ["check", "--read-data=x"], ["completions", "tcsh"], ["man", "nonsense"], ["dump", "latest"],
        ["backup", ".", "--capture", "magic"], ["key", "nonsense"], ["backup", ".", "other"],
    ])
    func `A wrong command line ends with 64 and says what is wrong`(arguments: [String]) throws {
        let result = try workspace.expect(64, arguments)
        #expect(!result.errors.isEmpty)
        #expect(result.output == "")
    }

    @Test func `No repository named, or one of a kind unknown, ends with 64`() throws {
        let unnamed = try workspace.expect(64, ["snapshots", "--json"], extra: ["BGBACKUP_REPOSITORY": ""])
        #expect(unnamed.summary["code"] as? String == "usage")
        #expect(unnamed.errors.contains("BGBACKUP_REPOSITORY"))
        try workspace.expect(64, ["snapshots", "--repository", "file://relative/path"])
    }

    @Test func `An error is one JSON line, and text for people beside it`() throws {
        let result = try workspace.expect(10, ["snapshots", "--json"])
        let lines = result.output.split(separator: "\n")
        #expect(lines.count == 1)
        let error = result.summary
        #expect(error["message_type"] as? String == "error")
        #expect(error["schema"] as? Int == 1)
        #expect(error["code"] as? String == "no-repository")
        #expect(error["exit_status"] as? Int == 10)
        #expect((error["message"] as? String)?.contains(workspace.location) == true)
        #expect(result.errors.hasPrefix("bgbackup: "))
        #expect(try workspace.expect(10, ["snapshots"]).output == "")
    }

    @Test func `A repository is made once, at a path or a file URL`() throws {
        let made = try workspace.expect(0, ["init", "--json", "--repository", "file://\(workspace.path("made"))"])
        #expect((made.summary["repository"] as? String)?.count == 32)
        #expect(made.summary["location"] as? String == workspace.path("made"))
        let before = try Volume(workspace.path("made")).shell("find v1 -type f | sort | xargs sha256sum")
        for place in [workspace.path("made"), "file://\(workspace.path("made"))"] {
            let again = try workspace.expect(1, ["init", "--json", "--repository", place])
            #expect(again.summary["code"] as? String == "repository-exists")
        }
        #expect(try Volume(workspace.path("made")).shell("find v1 -type f | sort | xargs sha256sum") == before)
        try workspace.expect(0, ["snapshots", "-r", workspace.path("made")])
        let orphan = try workspace.expect(1, ["init", "--repository", workspace.path("no/parent")])
        #expect(orphan.errors.contains("parent"))
    }

    @Test func `--quiet prints nothing when all is well`() throws {
        // Not one that looks like Qdrant's and would not start: that is said.
        let volume = try Volume(workspace.path("volume"))
        try volume.write("file", "content")
        for command in [
            ["init"], ["backup", volume.path], ["check"], ["snapshots", "--node", "none"],
            ["restore", "latest", "--target", workspace.path("restored")],
        ] {
            let result = try workspace.expect(0, command + ["--quiet"])
            #expect(result.output == "" && result.errors == "", "\(command)")
        }
    }

    @Test func `--version and --help`() throws {
        let version = try workspace.expect(0, ["--version"]).output
        #expect(version.wholeMatch(of: /(bgbackup )?\d+\.\d+\.\d+\n/) != nil)
        let help = try workspace.expect(0, ["--help"]).output
        for command in HelpTests.commands { #expect(help.contains("  \(command) "), "\(command)") }
    }
}
