import Foundation
import TestSupport
import Testing

@Suite("What backup says it did")
struct SummaryTests {
    let workspace: Workspace
    let volume: Volume

    /// Of CLI.md: scripts rely on them.
    private static let promised = [
        "snapshot_id", "parent", "capture", "consistency", "files_new", "files_changed", "files_unmodified", "bytes_total",
        "bytes_read", "bytes_new", "bytes_stored", "duration_seconds", "capture_seconds",
    ]
    /// What is there besides; a new name is added here and to CLI.md.
    private static let more = [
        "message_type", "schema", "files_excluded", "dry_run", "problems", "warnings",
        "bytes_audited", "bytes_pinned", "bytes_resumed", "capture_reason", "starts", "points", "fingerprint_seconds",
        "anomaly",
    ]

    init() throws {
        workspace = try Workspace.ready("summary")
        volume = try Volume.small(workspace.path("volume"))
    }

    @Test func `The summary has the fields of CLI-md, of a first backup and of a later one`() throws {
        for parent in [false, true] {
            let summary = try workspace.backup(volume)
            #expect(Set(Self.promised).subtracting(summary.fields.keys) == [], "missing; with a parent: \(parent)")
            #expect(Set(summary.fields.keys).subtracting(Self.promised + Self.more) == [])
            #expect(try summary.text("message_type") == "summary")
            #expect(try summary.number("schema") == 1)
            #expect(summary.id.wholeMatch(of: /[0-9a-f]{32}/) != nil)
            #expect((summary.fields["parent"] as? String != nil) == parent)
            #expect(try ["quiet", "btrfs", "reflink"].contains(summary.text("capture")), "as the file system here allows")
            #expect(try summary.text("consistency") == "atomic")
            #expect(try summary.number("bytes_total") == 14 + 340 << 10)
            #expect(try #require(summary.fields["duration_seconds"] as? Double) > 0)
            #expect(summary.problems == [])
        }
    }

    @Test func `Reading keeps below the rate that is given`() throws {
        try volume.writeRandom("collections/c/0/segments/s/payload_storage/page_1.dat", megabytes: 6)
        let summary = try workspace.backup(volume, "--limit-read", "4MiB")
        #expect(try #require(summary.fields["duration_seconds"] as? Double) > 1.2)
        #expect(try workspace.expect(64, ["backup", volume.path, "--limit-read", "fast"]).errors.contains("--limit-read"))
    }

    @Test(arguments: [("background", "SCHED_IDLE"), ("normal", "SCHED_OTHER")])
    func `The database has the processors first, unless it is told otherwise`(_ priority: String, _ policy: String) throws {
        try volume.writeRandom("collections/c/0/segments/s/payload_storage/page_1.dat", megabytes: 8)
        let run = try workspace.start(["backup", volume.path, "--priority", priority, "--limit-read", "3MiB"])
        // The threads that read, hash and compress are started with the first work.
        try run.wait { try Program.tool("chrt", ["--all-tasks", "--pid", "\(run.pid)"]).output.contains(policy) }
        let tasks = try Program.tool("chrt", ["--all-tasks", "--pid", "\(run.pid)"]).output
        #expect(tasks.components(separatedBy: "SCHED_IDLE").count - 1 >= (priority == "background" ? 18 : 0), "\(tasks)")
        #expect(priority == "background" || !tasks.contains("SCHED_IDLE"), "\(tasks)")
        run.end()
    }

    @Test func `Every line of the output is JSON of a known kind`() throws {
        try volume.writeRandom("large", megabytes: 150)
        let output = try workspace.expect(0, ["backup", volume.path, "--json"]).output
        let kinds = try output.split(separator: "\n").map { line in
            let document = try #require(try JSONSerialization.jsonObject(with: Data(line.utf8)) as? [String: Any])
            #expect(document["schema"] as? Int == 1)
            return try #require(document["message_type"] as? String)
        }
        #expect(kinds.last == "summary")
        #expect(kinds.dropLast().allSatisfy { $0 == "status" })
    }

    @Test func `The numbers are those of the repository and of the volume`() throws {
        let before = try workspace.storedBytes()
        let summary = try workspace.backup(volume)
        let grown = try workspace.storedBytes() - before
        #expect(try summary.number("files_new") == 3)
        #expect(try summary.number("bytes_read") == summary.number("bytes_total"))
        #expect(try summary.number("bytes_new") >= summary.number("bytes_total"))
        // Nothing else is in the repository but a claim, where one node may write.
        #expect(try abs(grown - summary.number("bytes_stored")) < 1 << 10)
        #expect(try workspace.show(summary.id).fields["parent"] is String == false)
    }

    @Test func `A dry run stores nothing, remembers nothing and says what it would read`() async throws {
        try await settle()
        let before = try tree()
        let dry = try workspace.backup(volume, "--dry-run")
        #expect(dry.fields["dry_run"] as? Bool == true)
        #expect(dry.fields["snapshot_id"] as? String == nil)
        #expect(try dry.number("files_new") == 3)
        #expect(try dry.number("bytes_read") == 14 + 340 << 10)
        #expect(try dry.number("bytes_stored") == 0)
        #expect(try tree() == before)
        try workspace.backup(volume)
        let stored = try tree()
        try volume.write("collections/c/config.json", "{\"params\": 2}\n")
        let second = try workspace.backup(volume, "-n")
        #expect(try second.number("files_changed") == 1)
        #expect(try second.number("bytes_read") == 14)
        #expect(try tree() == stored)
        #expect(try workspace.expect(0, ["backup", volume.path, "-n"]).output.contains("would read"))
        // And the next real one takes the change.
        #expect(try workspace.backup(volume).number("bytes_read") == 14)
    }

    /// Every object of the repository and every file of the state, with its
    /// content; but not the node's name for itself.
    private func tree() throws -> String {
        let find = "find state -type f ! -name '*.lock' ! -name writer-id 2>/dev/null"
        return try workspace.store.fingerprint()
            + Volume(workspace.directory.path).shell("\(find) | sort | xargs -r sha256sum")
    }
}
