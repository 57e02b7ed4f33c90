import Foundation
import TestSupport
import Testing

@Suite("What a start on the restored volume may not survive")
struct TargetWarningTests {
    let workspace: Workspace
    let volume: Volume

    init() throws {
        workspace = try Workspace.ready("warnings")
        volume = try Volume.small(workspace.path("volume"))
    }

    private func warnings(_ result: Program.Result) -> [String] { result.summary["warnings"] as? [String] ?? [] }

    @Test(.enabled(if: FuseMount.isAvailable, "needs root and FUSE"))
    func `A target on a file system that Qdrant rejects is warned of, also where it is still to be made`() throws {
        try workspace.backup(volume)
        let mount = try FuseMount()
        for target in [mount.path, mount.path + "/not/yet"] {
            let result = try workspace.expect(0, ["restore", "latest", "--target", target, "--dry-run", "--json"])
            #expect(warnings(result).count == 1)
            #expect(warnings(result).first?.contains("is on FUSE, which Qdrant calls bad") == true, "\(result.output)")
            #expect(result.errors.contains("warning: the target \(target) is on FUSE"))
        }
        let beside = try workspace.expect(0, ["restore", "latest", "--target", mount.path + "-beside", "--dry-run", "--json"])
        #expect(!beside.output.contains("FUSE"))
    }

    @Test(.enabled(if: OtherMachine.isAvailable, "needs setarch"))
    func `A volume of another kind of machine is warned of, one of this kind and one of before are not`() throws {
        let own = try workspace.backup(volume)
        #expect(try workspace.show(own.id).text("architecture") == OtherMachine.own)
        let other = try OtherMachine.backup(workspace, volume.path)
        #expect(try workspace.show(other).text("architecture") == OtherMachine.name)
        let result = try workspace.expect(0, ["restore", other, "--target", workspace.path("other"), "--json"])
        #expect(
            warnings(result).contains { $0.contains("backed up on \(OtherMachine.name) and this machine is \(OtherMachine.own)") }
        )
        #expect(result.errors.contains("warning: the volume was backed up on"))
        #expect(
            warnings(try workspace.expect(0, ["restore", own.id, "--target", workspace.path("own"), "--json"])).allSatisfy {
                !$0.contains("machine")
            })
        try expectIdentical(volume.path, workspace.path("other"))
    }
}

/// bgbackup as it would be on a machine of another kind, as far as uname(2) goes.
enum OtherMachine {
    static let own = machine([])
    static let name = machine(["setarch", "linux32"])
    static let isAvailable = !name.isEmpty && name != own

    private static func machine(_ prefix: [String]) -> String {
        let result = try? Program.run("/usr/bin/env", prefix + ["uname", "-m"])
        return result?.status == 0 ? result!.output.trimmingCharacters(in: .whitespacesAndNewlines) : ""
    }

    /// - Returns: the snapshot's id
    static func backup(_ workspace: Workspace, _ path: String, _ more: String...) throws -> String {
        let result = try Program.tool(
            "setarch", ["linux32", Program.binary, "backup", path, "--json", "--writer-key", try workspace.writerKey()] + more,
            environment: workspace.environment)
        return try #require(result.summary["snapshot_id"] as? String, "\(result.errors)")
    }
}
