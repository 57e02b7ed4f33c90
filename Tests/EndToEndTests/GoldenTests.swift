import BackupBase
import Foundation
import TestSupport
import Testing

/// What an earlier version wrote restores for ever. `scripts/make-golden` made
/// it once; it is never made again for this version of the format.
@Suite("The golden repository", .enabled(if: Golden.exists, "there is no golden repository"))
struct GoldenTests {
    let workspace: Workspace

    init() throws {
        workspace = try Workspace("golden", initialize: false)
        try Data("golden\n".utf8).write(to: URL(filePath: workspace.passwordFile))
        let unpacked = try Program.tool("tar", ["-xf", Golden.folder + "repository.tar", "-C", workspace.directory.path])
        guard unpacked.status == 0 else { throw BackupError(.failed, unpacked.errors) }
        if workspace.server != nil { try workspace.store.upload(from: workspace.repository) }
        try Program.tool("chmod", ["600", workspace.path("writer-key")])
    }

    @Test func `Every snapshot restores to what it was made of`() throws {
        let documents = try #require(try workspace.expect(0, ["snapshots", "--json"]).document as? [[String: Any]])
        let ids = documents.compactMap { $0["id"] as? String }
        #expect(try Set(ids) == Set(FileManager.default.contentsOfDirectory(atPath: Golden.folder + "hashes")))
        #expect(Set(documents.compactMap { $0["kind"] as? String }) == ["tree", "device"])
        for id in ids {
            let expected = try String(contentsOfFile: Golden.folder + "hashes/" + id, encoding: .utf8)
            // Only root can give files away.
            let owner = Program.isRoot ? [] : ["--owner", "\(getuid()):\(getgid())"]
            try workspace.expect(0, ["restore", id, "--target", workspace.path(id)] + owner)
            try expectSame(expected, id)
        }
    }

    @Test func `Nothing in it is damaged, and its writer key still makes backups`() throws {
        let check = Summary(fields: try workspace.expect(0, ["check", "--read-data", "--json"]).summary)
        #expect(check.fields["damaged"] as? Bool == false)
        #expect((check.fields["findings"] as? [Any])?.isEmpty == true)
        let volume = try Volume.small(workspace.path("volume"))
        let snapshot = try workspace.backup(volume)
        try workspace.restore(snapshot.id)
        try expectIdentical(volume.path, workspace.path("restored"))
    }

    @Test(.enabled(if: Reader.python != nil, "needs Python with the cryptography module"))
    func `The independent reader makes the same of it`() throws {
        for record in try Reader.list(workspace) {
            let id = try #require(record["id"] as? String)
            let result = try Reader.run(workspace, id, workspace.path("read-\(id)"))
            #expect(result.status == 0, "\(result.errors)")
            let expected = try String(contentsOfFile: Golden.folder + "hashes/" + id, encoding: .utf8)
            try expectSame(expected, record["kind"] as? String == "tree" ? "read-\(id)" : "read-\(id)/image")
        }
    }

    private func expectSame(_ expected: String, _ name: String, sourceLocation: SourceLocation = #_sourceLocation) throws {
        if expected.hasPrefix("{") {
            let found = try Fixture.hash(workspace.path(name))
            #expect(differences(Golden.comparable(expected), Golden.comparable(found)) == [], sourceLocation: sourceLocation)
        } else {
            let found = try Program.run("/bin/sh", ["-ec", "sha256sum < '\(workspace.path(name))'"]).output
            #expect(found == expected, sourceLocation: sourceLocation)
        }
    }
}

private enum Golden {
    static let folder = Program.root + "Tests/EndToEndTests/Golden/"
    static let exists = FileManager.default.fileExists(atPath: folder + "repository.tar")

    /// Without the owners, which only root can restore.
    static func comparable(_ hash: String) -> String {
        Program.isRoot ? hash : hash.replacing(/"[ug]id":\d+,/, with: "")
    }
}
