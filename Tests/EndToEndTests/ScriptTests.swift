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

    @Test(arguments: ["demo", "install-deps", "make-golden", "test-s3"])
    func `Scripts explain themselves, and refuse what they do not know`(
        name: String
    ) throws {
        let script = Program.root + "scripts/" + name
        let help = try Program.run(script, ["--help"])
        #expect(help.status == 0)
        #expect(help.output.hasPrefix("usage: scripts/\(name)"))
        #expect(try Program.run(script, ["--nonsense"]).status == 64)
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
