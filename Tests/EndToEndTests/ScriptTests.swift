import Foundation
import TestSupport
import Testing

@Suite("Scripts of the project")
struct ScriptTests {
    private static let layers = Program.root + "scripts/check-layers"

    @Test func `check-layers passes on the sources as they are`() throws {
        let result = try Program.run(Self.layers, [Program.root + "Sources"])
        #expect(result.status == 0, "\(result.errors)")
        #expect(result.output.contains("ok"))
    }

    @Test(arguments: [
        ("BackupBase", "import VolumeIO"), ("VolumeIO", "import BackupEngine"),
        ("ObjectStorage", "@testable import BackupRepository"),
        ("QdrantStorage", "internal import CLinux"), ("BackupRepository", "public import VolumeIO"),
        ("BackupEngine", "import bgbackup"),
        ("BackupRepository", "import struct QdrantStorage.FileClass"), ("BackupEngine", "import Foundation"),
        ("BackupEngine", "@preconcurrency import ArgumentParser"), ("bgbackup", "import TestSupport"),
        ("BackupBase", "@_exported public import Crypto"),
    ])
    func `check-layers fails where an import leaves its layer`(module: String, statement: String) throws {
        let directory = try TemporaryDirectory("layers")
        // The folder's content, never the folder: a link to it would be copied as one, and the plant land in the sources.
        try FileManager.default.createDirectory(atPath: directory("Sources"), withIntermediateDirectories: true)
        try Program.tool("cp", ["-aL", Program.root + "Sources/.", directory("Sources")])
        let file = directory("Sources/\(module)/Planted.swift")
        try Data("// A file.\n\(statement)\n".utf8).write(to: URL(filePath: file))
        let result = try Program.run(Self.layers, [directory("Sources")])
        #expect(result.status == 1)
        #expect(result.errors.contains("Planted.swift:2: \(module) must not import"), "\(result.errors)")
    }

    @Test func `check-layers fails for a module that has no layer`() throws {
        let directory = try TemporaryDirectory("layers")
        try FileManager.default.createDirectory(atPath: directory("Sources/Newcomer"), withIntermediateDirectories: true)
        let result = try Program.run(Self.layers, [directory("Sources")])
        #expect(result.status == 1)
        #expect(result.errors.contains("Newcomer"))
    }

    @Test(arguments: [
        "check-units", "debian-root", "demo", "install-deps", "install-tree", "make-deb", "make-golden", "test-boot", "test-deb",
        "test-s3",
    ])
    func `Scripts explain themselves, and refuse what they do not know`(
        name: String
    ) throws {
        let script = Program.root + "scripts/" + name
        let help = try Program.run(script, ["--help"])
        #expect(help.status == 0)
        #expect(help.output.hasPrefix("usage: scripts/\(name)"))
        #expect(try Program.run(script, ["--nonsense"]).status == 64)
    }

    private static let hasSystemd = Program.hasTool("systemd-analyze")

    @Test(.enabled(if: hasSystemd, "needs systemd-analyze"))
    func `The units are what systemd understands, and as little exposed as they promise`() throws {
        let result = try Program.run(Program.root + "scripts/check-units", [])
        #expect(result.status == 0 && result.output == "check-units: ok\n", "\(result.errors)")
    }

    @Test(
        .enabled(if: hasSystemd, "needs systemd-analyze"),
        arguments: [
            ("bgbackup-check@.service", "s/^PrivateTmp=/PrivatTmp=/", "PrivatTmp"),
            ("bgbackup-prune@.timer", "s/^OnCalendar=.*/OnCalendar=hourlyy/", "hourlyy"),
            ("bgbackup-backup@.service", "/^Protect/d", "more exposed"),
            ("bgbackup-drill@.service", "/^WatchdogSec=/d", "lacks WatchdogSec="),
            ("bgbackup-watch@.service", "s/^KillMode=.*/KillMode=mixed/", "lacks KillMode=control-group"),
            ("bgbackup-backup@.service", "/^OnFailure=/d", "nobody hears of it"),
            ("dropins/lvm.conf", "s/@mount/@mounts/", "@mounts"),
        ])
    func `check-units finds what is wrong with a unit`(unit: String, change: String, words: String) throws {
        let directory = try TemporaryDirectory("units")
        try Program.tool("cp", ["-r", Program.root + "systemd", directory("systemd")])
        try Program.tool("sed", ["-i", change, directory("systemd/\(unit)")])
        let result = try Program.run(Program.root + "scripts/check-units", [directory("systemd")])
        #expect(result.status == 1)
        #expect(result.errors.contains(words), "\(result.errors)")
    }

    @Test func `Shell scripts are sound`() throws {
        for name in try FileManager.default.contentsOfDirectory(atPath: Program.root + "scripts") {
            let script = Program.root + "scripts/" + name
            guard let first = try? String(contentsOfFile: script, encoding: .utf8).prefix(40), first.hasPrefix("#!"),
                first.contains("bash")
            else { continue }
            let result = try Program.tool("bash", ["-n", script])
            #expect(result.status == 0, "\(name): \(result.errors)")
        }
    }
}
