import Foundation
import TestSupport
import Testing

@Suite("Repair mends a damaged repository, or says what is lost")
struct RepairTests {
    let workspace: Workspace
    let volume: Volume

    init() throws {
        workspace = try Workspace.ready("repair")
        volume = try Volume.small(workspace.path("volume"))
        try volume.writeRandom("large", megabytes: 5)
        try workspace.backup(volume)
    }

    /// The pack with the random bytes.
    private func largest() throws -> String {
        let folder = workspace.path("objects-\(UUID().uuidString)")
        try workspace.store.download(to: folder)
        let list = try Volume(folder).shell("find v1/packs -type f -printf '%s %p\\n' | sort -n | tail -1")
        return try #require(list.split(separator: " ").last.map { String($0).trimmingCharacters(in: .whitespacesAndNewlines) })
    }

    @Test func `A flipped byte is fetched from the copy, and after forget and prune nothing is left of it`() throws {
        try workspace.expect(0, ["copy", "--all", "--to", workspace.path("copy")])
        try workspace.store.flip(try largest())
        try workspace.expect(17, ["check", "--read-data"])
        let names = try workspace.store.names("v1/")
        let plan = try workspace.expect(17, ["repair", "--salvage", "--read-data", "--dry-run"])
        #expect(plan.output.contains("LOST    large: ") && plan.output.contains("Something is lost."))
        #expect(try workspace.store.names("v1/") == names)
        let whole = try workspace.expect(0, ["repair", "--salvage", "--read-data", "--from", workspace.path("copy"), "--json"])
            .summary
        #expect(whole["lost"] as? Bool == false)
        let gone = try #require((whole["to_forget"] as? [String])?.first)
        try workspace.restore("latest")
        try expectIdentical(volume.path, workspace.path("restored"))
        try workspace.expect(0, ["forget", gone, "--force"])
        for _ in 0..<3 { try workspace.expect(0, ["prune", "--grace", "0"]) }
        try workspace.expect(0, ["check", "--read-data"])
        #expect(try workspace.expect(0, ["repair", "--salvage", "--read-data"]).output.contains("Nothing lost was found."))
    }

    @Test func `Without a copy the file is named and left out, and the others come back`() throws {
        try workspace.store.flip(try largest())
        let result = try workspace.expect(17, ["repair", "--salvage", "--read-data"])
        #expect(result.output.contains("LOST    large: ") && result.output.contains("before you forget any"))
        try workspace.restore("latest")
        #expect(!FileManager.default.fileExists(atPath: workspace.path("restored/large")))
        try FileManager.default.removeItem(atPath: volume("large"))
        try expectIdentical(volume.path, workspace.path("restored"), omitting: ["mtime_ns"])
        #expect(try workspace.show("latest").problems.contains { $0.contains("large: lost") })
        // A second place that is another repository is none to fetch from.
        let other = try Workspace("other", kind: nil)
        try workspace.expect(64, ["repair", "--salvage", "--from", other.repository])
    }
}
