import Foundation
import Glibc
import TestSupport
import Testing

@Suite("Snapshots that other programs make", .enabled(if: Requirement.ext4, "needs loop mounts"))
struct CommandCaptureTests {
    let workspace: Workspace
    let mount: LoopMount
    let volume: Volume

    init() throws {
        workspace = try Workspace.ready("command")
        mount = try LoopMount("ext4", megabytes: 96, in: workspace.directory)
        volume = try Volume.small(mount.path + "/volume")
    }

    private func environment(_ fakes: SnapshotFakes) throws -> [String: String] {
        fakes.environment.merging(["BGBACKUP_WRITER_KEY_FILE": try workspace.writerKey()]) { $1 }
    }

    @Test(arguments: ["zfs", "lvm"])
    func `a snapshot is made, read and taken away`(_ method: String) throws {
        let fakes = try SnapshotFakes(workspace, mount: mount)
        let before = try Fixture.hash(volume.path)
        let result = try workspace.expect(
            0, ["backup", volume.path, "--capture", method, "--json"], extra: try environment(fakes))
        #expect(result.summary["capture"] as? String == method)
        #expect(result.summary["consistency"] as? String == "atomic")
        #expect((result.summary["capture_seconds"] as? Double ?? 0) > 0)
        #expect(try String(contentsOfFile: "\(fakes.directory)/state", encoding: .utf8) == "{}", "\(fakes.log)")
        #expect(
            try Program.tool("findmnt", ["-rno", "TARGET"]).output.contains("\(workspace.directory.path)/mount/.bgbackup")
                == false)
        try workspace.restore("latest")
        #expect(differences(before, try Fixture.hash(workspace.path("restored"))) == [])
        #expect(!fakes.log.contains { $0.contains("sh -c") || $0.contains(";") })
    }

    @Test(arguments: ["zfs", "lvm"])
    func `one that cannot be made is status 14 with its reason, and nothing stays`(_ method: String) throws {
        let fakes = try SnapshotFakes(workspace, mount: mount)
        try Data().write(to: URL(filePath: "\(fakes.directory)/full"))
        let result = try workspace.expect(14, ["backup", volume.path, "--capture", method], extra: try environment(fakes))
        #expect(result.errors.contains(method == "zfs" ? "out of space" : "insufficient free space"), "\(result.errors)")
        #expect(result.errors.contains("HINT"))
        #expect(try workspace.expect(0, ["snapshots"]).output.contains("command") == false)
    }

    @Test(arguments: ["zfs", "lvm"])
    func `what a killed run left is taken away by the next, and nothing of others`(_ method: String) throws {
        let fakes = try SnapshotFakes(workspace, mount: mount)
        let environment = try environment(fakes)
        func left() -> String { (try? String(contentsOfFile: "\(fakes.directory)/state", encoding: .utf8)) ?? "{}" }
        // Killed at ever later writes, until one is met behind the snapshot.
        for number in 1...20 where left() == "{}" {
            try Program.tool(
                "strace",
                ["-f", "-qq", "-o", "/dev/null", "-e", "trace=fsync,fdatasync", "-e"]
                    + ["inject=fsync,fdatasync:signal=KILL:when=\(number)", Program.binary, "backup", volume.path]
                    + ["--capture", method],
                environment: workspace.environment.merging(environment) { $1 })
        }
        #expect(left() != "{}", "it was never killed in time: \(fakes.log)")
        try workspace.expect(0, ["backup", volume.path, "--capture", method], extra: environment)
        #expect(try String(contentsOfFile: "\(fakes.directory)/state", encoding: .utf8) == "{}", "\(fakes.log)")
    }

    /// A hook that copies the device's image while the file system is frozen.
    private func hook(_ extra: String = "") throws -> String {
        let path = workspace.path("hook")
        let script = """
            #!/bin/sh
            set -e
            echo "$1 $2 $BGBACKUP_VOLUME $BGBACKUP_CAPTURE_ID" >> '\(workspace.path("hook.log"))'
            \(extra)
            cd '\(workspace.directory.path)'
            case "$1" in
            create) cp --sparse=always '\(mount.image)' shot.img ;;
            open) mkdir -p shot; mount -o ro,loop shot.img shot; echo "$PWD/shot/volume" ;;
            release) umount shot 2>/dev/null || true; rm -f shot.img ;;
            esac
            """
        try Data(script.utf8).write(to: URL(filePath: path))
        chmod(path, 0o755)
        return path
    }

    @Test func `a hook makes the snapshot while the file system is frozen`() throws {
        let hook = try hook()
        let writer = try TwinWriter(volume.path)
        for round in 0..<3 {
            let summary = try workspace.backup(volume, "--capture", "freeze", "--capture-hook", hook)
            #expect(try summary.text("consistency") == "atomic")
            #expect((summary.fields["capture_seconds"] as? Double ?? 0) > 0)
            try workspace.restore("latest", onto: "out\(round)")
            let (first, second) = try TwinWriter.counts(workspace.path("out\(round)"))
            #expect(second == first || second + 1 == first, "\(first) and \(second)")
            #expect(try writer.isWriting())
        }
        writer.stop()
        let calls = try String(contentsOfFile: workspace.path("hook.log"), encoding: .utf8).split(separator: "\n")
        #expect(
            calls.map { $0.prefix { $0 != " " } } == [
                "create", "open", "release", "create", "open", "release", "create", "open", "release",
            ])
        #expect(calls.allSatisfy { $0.contains(" \(volume.path) \(volume.path) bgbackup-") })
    }

    @Test(arguments: [("create", "is out of quota"), ("open", "cannot attach")])
    func `a hook that fails is status 14, and is told to release`(_ verb: String, _ words: String) throws {
        let hook = try hook("if [ $1 = \(verb) ]; then echo 'the cloud \(words)' >&2; exit 7; fi")
        let result = try workspace.expect(14, ["backup", volume.path, "--capture", "freeze", "--capture-hook", hook])
        #expect(result.errors.contains("the cloud \(words)"), "\(result.errors)")
        #expect(try String(contentsOfFile: workspace.path("hook.log"), encoding: .utf8).contains("release"))
        try volume.write("probe", "it is thawed")
    }
}
