import Foundation
import Glibc
import TestSupport
import Testing

@Suite("What a restore takes, refuses and leaves")
struct RestoreTests {
    let workspace: Workspace
    let volume: Volume
    private static let page = "collections/c/0/segments/s/payload_storage/page_0.dat"

    init() throws {
        workspace = try Workspace.ready("restore")
        volume = try Volume.small(workspace.path("volume"))
    }

    @Test func `A target that holds anything is refused with exit 15 and left alone`() throws {
        try workspace.backup(volume)
        let target = try Volume(workspace.path("target"))
        for (make, name) in [
            ("echo x > file", "file"), ("mkdir folder", "folder"), ("ln -s nowhere link", "link"), ("echo > .hidden", ".hidden"),
        ] {
            try target.shell(make)
            let result = try workspace.expect(15, ["restore", "latest", "--target", target.path, "--json"])
            #expect(result.summary["code"] as? String == "target-not-empty")
            #expect(result.errors.contains(target.path))
            #expect(try target.shell("ls -A") == "\(name)\n")
            try target.shell("rm -r '\(name)'")
        }
        try workspace.restore("latest", onto: "target")
        try workspace.restore("latest", onto: "target", status: 15)
        try workspace.restore("latest", onto: "target", "--resume", status: 15)
        try expectIdentical(volume.path, target.path)
    }

    @Test func `Missing directories are made, and a target below a file is refused`() throws {
        try workspace.backup(volume)
        try workspace.restore("latest", onto: "not/yet/there")
        try expectIdentical(volume.path, workspace.path("not/yet/there"))
        let result = try workspace.run(["restore", "latest", "--target", volume("collections/c/config.json") + "/below"])
        #expect([1, 15].contains(result.status), "\(result.errors)")
    }

    @Test(.enabled(if: Requirement.ext4, "needs root and loop mounts"))
    func `A fresh ext4 volume counts as empty unless somebody used its lost+found`() throws {
        try workspace.backup(volume)
        let mount = try LoopMount("ext4", megabytes: 32, in: workspace.directory)
        let target = try Volume(mount.path)
        try #require(try target.stat("lost+found").st_mode & S_IFMT == S_IFDIR)
        try target.write("lost+found/#12", "found")
        try workspace.restore("latest", onto: mount.path, status: 15)
        try target.shell("rm 'lost+found/#12'")
        try workspace.restore("latest", onto: mount.path)
        let restored = try Fixture.hash(mount.path).split(separator: "\n").filter { !$0.contains("\"lost+found\"") }
        #expect(differences(try Fixture.hash(volume.path), restored.joined(separator: "\n")) == [])
    }

    @Test func `A dry run writes nothing and says what it would do`() throws {
        try workspace.backup(volume)
        let dry = try workspace.restore("latest", onto: "target", "--dry-run")
        #expect(dry.fields["dry_run"] as? Bool == true)
        #expect(try dry.number("files") == 3)
        #expect(try dry.number("bytes_written") == 0)
        #expect(try dry.number("bytes_total") == 14 + 340 << 10)
        #expect(!(try Volume(workspace.directory.path).exists("target")))
        let present = try Volume(workspace.path("present"))
        try workspace.restore("latest", onto: "present", "--dry-run")
        #expect(try present.shell("ls -A") == "")
        try present.write("file", "x")
        try workspace.restore("latest", onto: "present", "--dry-run", status: 15)
        #expect(
            try workspace.expect(0, ["restore", "latest", "--target", workspace.path("target"), "-n"]).output.contains(
                "would restore"))
    }

    @Test(.enabled(if: Requirement.root, "needs root")) func `--owner replaces every owner`() throws {
        try volume.symlink("x", "link")
        try volume.shell("chown -h 12:34 collections link")
        try workspace.backup(volume)
        for (owner, user, group) in [("4321:1234", 4321, 1234), ("daemon:root", 1, 0)] {
            try workspace.restore("latest", onto: "target", "--owner", owner)
            let target = try Volume(workspace.path("target"))
            let found = try target.shell("find . -printf '%U:%G\\n' | sort -u")
            #expect(found == "\(user):\(group)\n")
            try expectIdentical(volume.path, target.path, omitting: ["uid", "gid"])
            try target.shell("rm -rf '\(target.path)'")
        }
    }

    @Test(arguments: ["nobody-of-this-name:root", "root", "root:", "1:2:3", "-1:0", "4294967296:0"])
    func `An --owner that names nobody is a usage error and nothing is written`(owner: String) throws {
        try workspace.backup(volume)
        let result = try workspace.run(["restore", "latest", "--target", workspace.path("target"), "--owner=\(owner)"])
        #expect(result.status == 64, "\(result.errors)")
        #expect(!(try Volume(workspace.directory.path).exists("target")))
    }

    @Test func `With --warm the volume is in memory at the end, without it is not`() throws {
        try volume.write("collections/c/0/segments/s/matrix.dat", noise(4 << 20, seed: 9))
        try volume.shell("truncate -s 3M collections/c/0/segments/s/hole.dat && printf x >> collections/c/0/segments/s/hole.dat")
        try workspace.backup(volume)
        func cached(_ path: String) throws -> Int {
            let output = try Program.tool("fincore", ["-n", "-b", "-o", "PAGES", path]).output
            return (Int(output.filter { !$0.isWhitespace }) ?? -1) * 4096
        }
        let cold = try workspace.restore("latest", onto: "cold")
        #expect(try cold.number("bytes_warmed") == 0)
        #expect(try cached(workspace.path("cold/collections/c/0/segments/s/matrix.dat")) == 0)
        let warm = try workspace.restore("latest", onto: "warm", "--warm")
        #expect(try cached(workspace.path("warm/collections/c/0/segments/s/matrix.dat")) == 4 << 20)
        // Holes are not read.
        #expect(try cached(workspace.path("warm/collections/c/0/segments/s/hole.dat")) < 1 << 20)
        #expect(try (4 << 20..<8 << 20).contains(Int(warm.number("bytes_warmed"))))
        try expectIdentical(volume.path, workspace.path("warm"))
        let dry = try workspace.expect(0, ["restore", "latest", "--target", workspace.path("dry"), "--warm", "-n", "--json"])
        #expect(dry.summary["bytes_warmed"] as? Int == 0)

        let cool = workspace.path("cold")
        let later = try workspace.expect(0, ["warm", cool, "--json"])
        #expect(try cached(cool + "/collections/c/0/segments/s/matrix.dat") == 4 << 20)
        #expect((4 << 20..<8 << 20).contains((later.document as? [String: Any])?["bytes_warmed"] as? Int ?? 0))
        #expect(try workspace.expect(1, ["warm", cool + "/nowhere"]).errors.contains("nothing is brought into memory"))
    }
}

@Suite("Parts of a snapshot")
struct IncludeTests {
    let workspace: Workspace
    let volume: Volume
    let restored: Volume

    init() throws {
        workspace = try Workspace.ready("include")
        volume = try Volume.small(workspace.path("volume"))
        restored = try Volume(workspace.path("restored"))
        try volume.write("a/file", noise(40_000, seed: 5))
        try volume.makeDirectory("b/empty")
        try volume.link("a/file", "b/one")
        try volume.link("a/file", "b/two")
        try volume.link("a/file", "c")
        try volume.setMode("a/file", 0o640)
        try workspace.backup(volume)
    }

    private func names() throws -> [String] {
        try restored.shell("find . -mindepth 1 -printf '%P\\n' | LC_ALL=C sort").split(separator: "\n").map(String.init)
    }

    @Test func `A file comes with its parents and nothing else`() throws {
        try volume.setTime("collections", 1_000_000_000_000_000_001)
        try workspace.backup(volume)
        let summary = try workspace.restore("latest", "--include", "collections/c/config.json")
        #expect(try names() == ["collections", "collections/c", "collections/c/config.json"])
        #expect(try summary.number("bytes_total") == 14)
        #expect(try restored.stat("collections").st_mtim.tv_nsec == 1)
    }

    @Test func `Several paths come together, a directory with what is below it`() throws {
        try workspace.restore("latest", "--include", "/collections/c/0/", "--include", "a")
        #expect(
            try names().filter { !$0.hasPrefix("collections/c/0/") } == [
                "a", "a/file", "collections", "collections/c", "collections/c/0",
            ])
        try expectIdentical(volume("collections/c/0"), restored("collections/c/0"))
    }

    @Test func `A hard link whose file is not asked for becomes the file`() throws {
        try workspace.restore("latest", "--include", "c")
        #expect(try names() == ["c"])
        #expect(try restored.read("c") == noise(40_000, seed: 5))
        #expect(try restored.stat("c").st_nlink == 1)
        #expect(try restored.stat("c").st_mode & 0o7777 == 0o640)
        #expect(try restored.stat("c").st_mtim.tv_nsec == volume.stat("c").st_mtim.tv_nsec)
    }

    @Test func `Two hard links whose file is not asked for are links of each other`() throws {
        try workspace.restore("latest", "--include", "b")
        #expect(try names() == ["b", "b/empty", "b/one", "b/two"])
        #expect(try restored.read("b/two") == noise(40_000, seed: 5))
        #expect(try restored.stat("b/one").st_ino == restored.stat("b/two").st_ino)
        #expect(try restored.stat("b/one").st_nlink == 2)
    }

    @Test func `A path that is not there is an error, and nothing is made`() throws {
        let result = try workspace.expect(
            1, ["restore", "latest", "--target", workspace.path("other"), "--include", "collections/d", "--json"])
        #expect(result.summary["code"] as? String == "no-such-path")
        #expect(!(try Volume(workspace.directory.path).exists("other")))
    }
}
