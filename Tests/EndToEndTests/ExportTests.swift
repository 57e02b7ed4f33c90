import Foundation
import Glibc
import TestSupport
import Testing

@Suite("Export as tar")
struct ExportTests {
    let workspace: Workspace
    let volume: Volume

    init() throws {
        workspace = try Workspace.ready("export")
        volume = try Volume.small(workspace.path("volume"))
    }

    enum Unpacker: String, CaseIterable, CustomTestStringConvertible {
        case gnu, bsd
        var testDescription: String { self == .gnu ? "GNU tar" : "bsdtar" }

        static let present = allCases.filter { Program.hasTool($0 == .gnu ? "tar" : "bsdtar") }

        /// Unpacks onto a new directory; requires success.
        func unpack(_ archive: String, onto path: String) throws {
            try FileManager.default.createDirectory(atPath: path, withIntermediateDirectories: true)
            let result =
                switch self {
                case .gnu:
                    try Program.tool(
                        "tar", ["--xattrs", "--xattrs-include=*", "--acls", "--numeric-owner", "-C", path, "-xpf", archive])
                case .bsd: try Program.tool("bsdtar", ["--numeric-owner", "-C", path, "-xpf", archive])
                }
            try #require(result.status == 0, "\(self): \(result.errors)")
        }
    }

    /// What a volume of Qdrant has, and all else that a manifest can hold.
    private func makeOdd() throws {
        try volume.write("collections/c/0/wal/open-1", noise(5_000, seed: 3), at: 70_000, size: 32 << 20)
        try volume.write("collections/c/0/only-a-hole", [], size: 5 << 20)
        try volume.write("collections/c/0/ends-with-a-hole", noise(4096, seed: 4), size: 1 << 20)
        try volume.write("collections/c/0/empty", [])
        try volume.write([0x66, 0xff, 0xe9], [1, 2, 3])
        try volume.write("schön e\u{301} 🦀 \(String(repeating: "long", count: 40))", [4])
        try volume.write("new\nline", [5])
        try volume.makeDirectory("empty/in/empty")
        try volume.link("collections/c/config.json", "a-second-name")
        try volume.link("collections/c/config.json", "collections/third")
        try volume.symlink("../outside", "collections/link")
        try volume.symlink(String(repeating: "far/", count: 60), "long-link")
        try volume.setMode("empty", 0o1751)
        try volume.setMode("collections/c/0/empty", 0o000)
        try volume.setTime("collections/c/config.json", 1_700_000_000_123_456_789)
        try volume.setTime("collections/link", 1_234_567_890_987_654_321)
        try volume.shell(
            """
            python3 -c '
            import os
            os.setxattr("collections/c/config.json", "user.binary", bytes(range(256)))
            os.setxattr("collections", "user.text", b"value")
            os.setxattr("collections", "user.empty", b"")'
            """)
        if Requirement.accessLists {
            try volume.shell(
                """
                setfacl -m u:1234:rw,g:4321:r,m::rwx a-second-name
                setfacl -m u:1234:rwx,d:u:1234:rwx,d:g:77:rx empty
                """)
        }
        if Requirement.root {
            try volume.shell("chown 3000000000:77 empty; chown -h 5:6 collections/link long-link; chown 1000:1001 .")
        }
    }

    /// bsdtar sets everything of the directory it unpacks into but its time.
    private func expectUnpacked(_ unpacker: Unpacker) throws {
        let trees = try [volume.path, workspace.path("unpacked")].map { path in
            try Fixture.hash(path).split(separator: "\n").map { line in
                unpacker == .bsd && line.contains("\"path\":\".\"")
                    ? String(line.replacing(/"mtime_ns":\d+/, with: "")) : String(line)
            }.joined(separator: "\n")
        }
        #expect(differences(trees[0], trees[1]) == [])
    }

    @Test(arguments: Unpacker.present) func `An archive unpacks as the volume was`(unpacker: Unpacker) throws {
        try makeOdd()
        try workspace.backup(volume)
        let archive = workspace.path("volume.tar")
        let summary = try workspace.expect(0, ["export", "latest", "-o", archive, "--json"]).summary
        #expect(summary["format"] as? String == "tar")
        try unpacker.unpack(archive, onto: workspace.path("unpacked"))
        try expectUnpacked(unpacker)
        // Holes are no bytes of the archive.
        #expect(try Volume(workspace.directory.path).stat("volume.tar").st_size < 1 << 20)
    }

    @Test(
        arguments: [("a.tar.gz", []), ("a.tgz", []), ("a.tar.zst", []), ("odd", ["--format", "tar.zst"])] as [(String, [String])])
    func `The name or --format says how it is compressed`(name: String, more: [String]) throws {
        try workspace.backup(volume)
        let archive = workspace.path(name)
        try workspace.expect(0, ["export", "latest", "-o", archive] + more)
        let magic = try Volume(workspace.directory.path).read(name).prefix(4)
        let wanted: [UInt8] = name.hasSuffix("gz") ? [0x1f, 0x8b] : [0x28, 0xb5, 0x2f, 0xfd]
        #expect(magic.starts(with: wanted))
        try Unpacker.present.last!.unpack(archive, onto: workspace.path("unpacked"))
        try expectUnpacked(Unpacker.present.last!)
    }

    @Test func `Without -o the archive goes to standard output, twice the same`() throws {
        try workspace.backup(volume)
        let first = try workspace.expect(0, ["export", "latest"])
        let second = try workspace.expect(0, ["export", "latest", "--format", "tar"])
        #expect(first.outputBytes.count > 340 << 10)
        #expect(first.outputBytes == second.outputBytes)
        #expect(first.errors == "")
        try workspace.expect(64, ["export", "latest", "--json"])
    }

    @Test func `Parts come with the way to them, and a link whose file stays behind is the file`() throws {
        try volume.link("collections/c/config.json", "z-name")
        try volume.write("collections/d/config.json", "{}")
        try workspace.backup(volume)
        let archive = workspace.path("part.tar")
        try workspace.expect(0, ["export", "latest", "z-name", "collections/d", "-o", archive])
        #expect(
            try Program.tool("tar", ["-tf", archive]).output.split(separator: "\n") == [
                "./", "collections/", "collections/d/", "collections/d/config.json", "z-name",
            ])
        try Unpacker.gnu.unpack(archive, onto: workspace.path("unpacked"))
        #expect(try Volume(workspace.path("unpacked")).read("z-name") == volume.read("collections/c/config.json"))
        let missing = try workspace.run(["export", "latest", "collections", "nowhere", "-o", workspace.path("none.tar")])
        #expect(missing.status == 1)
        #expect(missing.errors.contains("nowhere"))
        #expect(try Volume(workspace.directory.path).shell("ls | grep none.tar || true") == "")
    }

    @Test(.enabled(if: TestStore.kind == nil, "damages files of a local repository"))
    func `Damage in the midst leaves no file, and on a pipe what tar calls damaged`() throws {
        try volume.write("collections/c/0/segments/s/vector_storage/zz.dat", noise(3 << 20, seed: 8))
        try workspace.backup(volume)
        // The last frames of the packs of data: not their trailers.
        try volume.shell(
            """
            python3 -c '
            import pathlib
            for pack in pathlib.Path("\(workspace.repository)/v1/packs").rglob("*"):
                if pack.is_file() and pack.stat().st_size > 2 << 20:
                    with open(pack, "r+b") as f:
                        f.seek(pack.stat().st_size // 2); f.write(bytes(64))'
            """)
        let kept = workspace.path("kept.tar")
        try Data("earlier".utf8).write(to: URL(filePath: kept))
        let result = try workspace.run(["export", "latest", "-o", kept])
        #expect(result.status == 17)
        #expect(result.errors.contains("collections/c/0/segments/s/vector_storage/zz.dat"))
        #expect(try Volume(workspace.directory.path).read("kept.tar") == Array("earlier".utf8))
        #expect(try Volume(workspace.directory.path).shell("ls | grep partial || true") == "")

        for format in ["tar", "tar.gz"] {
            let cut = workspace.path("cut.tar")
            let piped = try workspace.run(["export", "latest", "--format", format])
            #expect(piped.status == 17)
            try piped.outputBytes.write(to: URL(filePath: cut))
            for tool in ["tar", "bsdtar"] where Program.hasTool(tool) {
                #expect(try Program.tool(tool, ["-tf", cut]).status != 0, "\(tool) took \(format) for whole")
            }
            // And so does the import.
            #expect(try workspace.run(["import", cut, "--node", "n"]).status == 17)
        }
    }

    @Test func `Metadata that tar has no place for is named, with exit 3`() throws {
        try volume.shell("python3 -c 'import os; os.setxattr(\"collections\", \"user.odd name\", b\"x\")'")
        try workspace.backup(volume)
        let result = try workspace.expect(3, ["export", "latest", "-o", workspace.path("a.tar"), "--json"])
        #expect((result.summary["problems"] as? [String])?.count == 1)
    }

    @Test func `A file that cannot be written is an error`() throws {
        try workspace.backup(volume)
        #expect(try workspace.run(["export", "latest", "-o", workspace.path("no/such/place.tar")]).status == 1)
        let full = try workspace.run(["export", "latest", "-o", "/dev/full"])
        #expect(full.status == 1)
        #expect(full.errors.contains("no space left"))
    }
}
