import Foundation
import TestSupport
import Testing

@Suite("A volume that the real engine wrote", .enabled(if: Fixture.engineIsAvailable, "qdrant-edge-py cannot be installed"))
struct QdrantVolumeTests {
    let workspace: Workspace
    let volume: String

    init() throws {
        workspace = try Workspace.ready("qdrant")
        volume = workspace.path("volume")
        try Fixture.run("create", volume, "--points", "600", "--dim", "32")
    }

    @Test func `Both snapshots restore to what the volume was at their time`() throws {
        let first = try workspace.backup(volume)
        let firstHash = try Fixture.hash(volume)
        let firstPoints = try Fixture.run("fingerprint", volume).output
        try Fixture.run("grow", volume, "--points", "100", "--seed", "2")
        try Fixture.run("overwrite", volume, "--points", "50", "--seed", "3")
        try Fixture.run("delete", volume, "--points", "40", "--seed", "4")
        try Fixture.run("optimize", volume)
        let second = try workspace.backup(volume)
        let secondHash = try Fixture.hash(volume)
        let secondPoints = try Fixture.run("fingerprint", volume).output
        #expect(firstPoints != secondPoints)

        try workspace.restore(first.id, onto: "first", "--keep-identity")
        try workspace.restore(second.id, onto: "second", "--keep-identity")
        #expect(differences(firstHash, try Fixture.hash(workspace.path("first"))) == [])
        #expect(differences(secondHash, try Fixture.hash(workspace.path("second"))) == [])
        #expect(try Fixture.run("fingerprint", workspace.path("first")).output == firstPoints)
        #expect(try Fixture.run("fingerprint", workspace.path("second")).output == secondPoints)
        #expect(try second.number("bytes_new") < second.number("bytes_total") / 2)
    }

    @Test func `Scratch paths are left out and everything else is kept`() throws {
        try workspace.backup(volume)
        let kept = try Set(workspace.list("latest"))
        let all = Set(paths(try Fixture.hash(volume, scratch: true)))
        let scratch = all.subtracting(paths(try Fixture.hash(volume)))
        #expect(scratch.count > 4)
        #expect(kept.isDisjoint(with: scratch))
        #expect(kept == all.subtracting(scratch).subtracting(["."]))
    }

    @Test func `A second backup of the unchanged volume reads nothing and stores no data`() async throws {
        try await settle()
        let first = try workspace.backup(volume)
        let second = try workspace.backup(volume)
        #expect(try first.number("bytes_read") > 1 << 20)
        #expect(try second.number("bytes_read") == 0)
        #expect(try second.number("files_changed") == 0)
        #expect(try second.number("files_unmodified") == first.number("files_new"))
        #expect(try second.number("bytes_stored") < 16 << 10)
        try workspace.restore(second.id, onto: "restored", "--keep-identity")
        try expectIdentical(volume, workspace.path("restored"))
    }

    @Test(.enabled(if: Requirement.ext4, "needs root and loop mounts"))
    func `It restores onto a fresh ext4 volume that holds lost+found`() throws {
        let snapshot = try workspace.backup(volume)
        let mount = try LoopMount("ext4", megabytes: 300, in: workspace.directory)
        #expect(FileManager.default.fileExists(atPath: mount.path + "/lost+found"))
        try workspace.restore(snapshot.id, onto: mount.path, "--keep-identity")
        let restored = try Fixture.hash(mount.path).split(separator: "\n").filter { !$0.contains("\"lost+found\"") }
        #expect(differences(try Fixture.hash(volume), restored.joined(separator: "\n")) == [])
        let points = try Fixture.run("fingerprint", volume).output
        #expect(try Fixture.run("fingerprint", mount.path).output == points)
    }

    private func paths(_ hash: String) -> [String] {
        hash.split(separator: "\n").compactMap {
            (try? JSONSerialization.jsonObject(with: Data($0.utf8)) as? [String: Any])?["path"] as? String
        }
    }
}
