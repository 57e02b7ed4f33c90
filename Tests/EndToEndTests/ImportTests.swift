import Foundation
import Glibc
import TestSupport
import Testing

@Suite("Import of a volume's tar")
struct ImportTests {
    let workspace: Workspace
    let volume: Volume

    init() throws {
        workspace = try Workspace.ready("import")
        volume = try Volume.small(workspace.path("volume"))
        try volume.write("collections/c/0/wal/open-1", noise(5_000, seed: 3), at: 70_000, size: 32 << 20)
        try volume.write("raft_state.json", "{}")
        try volume.link("raft_state.json", "a-name-before-its-file")
        try volume.symlink("nowhere", "collections/link")
        try volume.write([0x66, 0xff, 0xe9], [1, 2, 3])
        try volume.setTime("raft_state.json", 1_700_000_000_123_456_789)
    }

    @discardableResult
    private func take(_ archive: String, _ more: String...) throws -> Summary {
        Summary(fields: try workspace.expect(0, ["import", archive, "--node", "n", "--json"] + more).summary)
    }

    @Test func `What export writes, import takes, and stores no block twice`() throws {
        try workspace.backup(volume)
        let archive = workspace.path("a.tar.zst")
        try workspace.expect(0, ["export", "latest", "-o", archive])
        let taken = try take(archive, "--volume", "/storage", "--tag", "moved")
        #expect(try taken.number("bytes_new") < 4096, "only the manifest may be new")
        #expect(taken.fields["consistency"] as? String == "fuzzy")
        let shown = try workspace.show(taken.id)
        #expect(try shown.text("capture") == "import")
        #expect(try shown.text("volume") == "/storage")
        #expect(try shown.text("node") == "n")
        #expect(shown.fields["tags"] as? [String] == ["moved"])
        try workspace.restore(taken.id)
        try expectIdentical(volume.path, workspace.path("restored"))
        try workspace.expect(0, ["check", "--read-data"])
    }

    @Test(arguments: ["gnu", "pax", "ustar", "oldgnu"]) func `Tar of each form and filter is taken`(format: String) throws {
        try volume.shell("rm \"$(printf 'f\\377\\351')\"")
        for (flag, name) in [("-S", "a.tar"), ("-Sz", "a.tar.gz"), ("-SJ", "a.tar.xz"), ("-Sj", "a.tar.bz2")]
        where Program.hasTool(name.hasSuffix("xz") ? "xz" : name.hasSuffix("bz2") ? "bzip2" : "gzip") {
            let sparse = format == "ustar" ? String(flag.dropFirst(2)) : String(flag.dropFirst())
            let made = try Program.tool(
                "tar", ["-C", workspace.directory.path, "--format", format, "-\(sparse)cf", workspace.path(name), "volume"])
            try #require(made.status == 0, "\(made.errors)")
            let taken = try take(workspace.path(name))
            try workspace.restore(taken.id, onto: name + ".out")
            let lost = ["pax": [], "ustar": ["mtime_ns", "segments"]][format] ?? ["mtime_ns"]
            try expectIdentical(volume.path, workspace.path(name + ".out"), omitting: lost)
        }
    }

    @Test func `Zeros of an archive without holes come back as holes`() throws {
        let archive = workspace.path("a.tar")
        try #require(try Program.tool("tar", ["-C", volume.path, "--format=pax", "-cf", archive, "."]).status == 0)
        try workspace.restore(try take(archive).id)
        let restored = try Volume(workspace.path("restored"))
        try expectIdentical(volume.path, restored.path, omitting: ["segments"])
        #expect(try restored.stat("collections/c/0/wal/open-1").st_blocks < 1000)
    }

    @Test func `Standard input, a writer's key and no state will do`() throws {
        let node = workspace.node("far", writerKey: try workspace.writerKey())
        let archive = workspace.path("a.tar")
        try #require(try Program.tool("tar", ["-C", volume.path, "--format=pax", "-Scf", archive, "."]).status == 0)
        let result = try Program.run(
            Program.binary, ["import", "-", "--node", "far", "--consistency", "atomic", "--json"],
            environment: node.environment, input: try Data(contentsOf: URL(filePath: archive)))
        try #require(result.status == 0, "\(result.errors)")
        #expect(result.summary["consistency"] as? String == "atomic")
        try workspace.restore("latest@far")
        try expectIdentical(volume.path, workspace.path("restored"))
    }

    @Test func `A checksum is verified, given or beside the file`() throws {
        let archive = workspace.path("a.tar")
        try #require(try Program.tool("tar", ["-C", volume.path, "-cf", archive, "."]).status == 0)
        let digest = String(try Program.tool("sha256sum", [archive]).output.prefix(64))
        let wrong = String(digest.reversed())
        try take(archive, "--checksum", digest)
        try Data(digest.utf8).write(to: URL(filePath: archive + ".checksum"))
        try take(archive)
        try Data("\(wrong)\n".utf8).write(to: URL(filePath: archive + ".checksum"))
        #expect(try workspace.run(["import", archive, "--node", "n"]).status == 17)
        try Data("nothing".utf8).write(to: URL(filePath: archive + ".checksum"))
        #expect(try workspace.run(["import", archive, "--node", "n"]).status == 64)
        try take(archive, "--checksum", digest)
        #expect(try workspace.list("latest").contains("raft_state.json"))
        let snapshots = try workspace.expect(0, ["snapshots", "--json"]).document as? [Any]
        #expect(snapshots?.count == 3)
    }

    @Test func `Scratch paths are left out and a restore that did not end is refused`() throws {
        try volume.write("tmp/x", "x")
        try volume.write("collections/c/0/temp_segments/y", "y")
        let archive = workspace.path("a.tar")
        try #require(try Program.tool("tar", ["-C", volume.path, "-cf", archive, "."]).status == 0)
        #expect(try take(archive).number("files_excluded") == 2)
        #expect(try workspace.list("latest").allSatisfy { !$0.contains("tmp") && !$0.contains("temp_segments") })
        try volume.write(".bgbackup-incomplete", "x")
        try #require(try Program.tool("tar", ["-C", volume.path, "-cf", archive, "."]).status == 0)
        #expect(try workspace.run(["import", archive, "--node", "n"]).status == 1)
    }

    @Test func `A large file with ten thousand ranges comes back as it was`() throws {
        try volume.shell(
            """
            python3 -c '
            import os
            f = os.open("collections/c/0/many", os.O_RDWR | os.O_CREAT)
            for i in range(10000): os.pwrite(f, (b"%08d" % i) * 512, i * 16384 + i % 3 * 4096)
            os.ftruncate(f, 10001 * 16384)'
            """)
        let archive = workspace.path("a.tar")
        try #require(try Program.tool("tar", ["-C", volume.path, "--format=pax", "-Scf", archive, "."]).status == 0)
        try workspace.restore(try take(archive).id)
        try expectIdentical(volume.path, workspace.path("restored"))
        try workspace.expect(0, ["export", "latest", "-o", workspace.path("b.tar")])
        try ExportTests.Unpacker.gnu.unpack(workspace.path("b.tar"), onto: workspace.path("unpacked"))
        try expectIdentical(volume.path, workspace.path("unpacked"))
    }
}
