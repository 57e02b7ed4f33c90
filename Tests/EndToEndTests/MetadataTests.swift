import Foundation
import Glibc
import TestSupport
import Testing

@Suite("Names, links and metadata")
struct MetadataTests {
    let workspace: Workspace
    let volume: Volume

    init() throws {
        workspace = try Workspace.ready("metadata")
        volume = try Volume(workspace.path("volume"))
    }

    private func roundTrip(sourceLocation: SourceLocation = #_sourceLocation) throws -> Volume {
        let snapshot = try workspace.backup(volume, sourceLocation: sourceLocation)
        try workspace.restore(snapshot.id, sourceLocation: sourceLocation)
        try expectIdentical(volume.path, workspace.path("restored"), sourceLocation: sourceLocation)
        return try Volume(workspace.path("restored"))
    }

    @Test func `Hard links stay hard links`() throws {
        try volume.write("b/file", noise(50_000, seed: 1))
        try volume.link("b/file", "a")
        try volume.link("b/file", "b/other")
        try volume.makeDirectory("c")
        try volume.link("b/file", "c/third")
        let restored = try roundTrip()
        #expect(try restored.stat("a").st_nlink == 4)
        #expect(try restored.stat("a").st_ino == restored.stat("c/third").st_ino)
    }

    @Test func `Symbolic links stay what they are, dangling ones too`() throws {
        try volume.write("dir/file", "x")
        try volume.symlink("dir/file", "link")
        try volume.symlink("dir", "link-to-directory")
        try volume.symlink("nowhere/at all", "dangling")
        try volume.symlink("/etc/passwd", "absolute")
        try volume.symlink("../../../outside", "dir/upwards")
        try volume.symlink("loop", "loop")
        try volume.symlink(String(repeating: "long/", count: 800), "long")
        try volume.setTime("dangling", 1_234_567_890_123_456_789)
        _ = try roundTrip()
    }

    @Test func `Empty directories, empty files and odd modes`() throws {
        try volume.makeDirectory("empty/in/empty")
        try volume.write("nothing", "")
        for mode: UInt32 in [0o000, 0o200, 0o444, 0o1644, 0o755, 0o777] {
            let name = "mode-" + String(mode, radix: 8)
            try volume.write(name, name)
            try volume.setMode(name, mode)
        }
        for mode: UInt32 in [0o000, 0o200, 0o1777, 0o2755, 0o3770, 0o555] {
            let name = "directory-" + String(mode, radix: 8)
            try volume.makeDirectory("\(name)/inside")
            try volume.setMode(name, Requirement.root ? mode : mode | 0o700)
        }
        if !Requirement.root { try volume.setMode("mode-0", 0o400); try volume.setMode("mode-200", 0o600) }
        try volume.setMode("", 0o1751)
        let restored = try roundTrip()
        #expect(try restored.stat("").st_mode & 0o7777 == 0o1751)
    }

    @Test(.enabled(if: Requirement.root, "needs root")) func `Owners come back as numbers`() throws {
        for (index, owner) in [(1, 2), (1000, 1001), (65534, 65534), (4_000_000_000, 3_000_000_000)].enumerated() {
            try volume.write("file-\(index)", "x")
            try volume.makeDirectory("directory-\(index)/in")
            try volume.symlink("x", "link-\(index)")
            try volume.shell("chown -h \(owner.0):\(owner.1) file-\(index) directory-\(index) link-\(index)")
        }
        try volume.shell("chown 77:78 .")
        let restored = try roundTrip()
        #expect(try restored.stat("file-3").st_uid == 4_000_000_000)
        #expect(try restored.stat("").st_gid == 78)
    }

    /// Nothing in a volume needs them, and a forged one would be a way to root.
    @Test func `Set-user-ID bits of files are kept, named and not restored`() throws {
        for (name, mode) in [("user", UInt32(0o4711)), ("group", 0o2755), ("plain", 0o755)] {
            try volume.write(name, name)
            try volume.setMode(name, mode)
        }
        try workspace.backup(volume)
        let restored = try workspace.restore("latest", status: 3)
        #expect(restored.problems.count == 2)
        #expect(restored.problems.contains { $0.hasPrefix("user: ") && $0.contains("4711") })
        let target = try Volume(workspace.path("restored"))
        #expect(try target.stat("user").st_mode & 0o7777 == 0o711)
        #expect(try target.stat("group").st_mode & 0o7777 == 0o755)
        #expect(try workspace.expect(0, ["ls", "latest", "--json"]).output.contains("\"mode\":\(0o4711)"))
    }

    @Test func `Times come back to the nanosecond, of directories and links too`() throws {
        let times = [1, 999_999_999, -1_500_000_000, -1, 1_700_000_000_123_456_789, 4_102_444_800_000_000_001]
        for (index, time) in times.enumerated() {
            try volume.write("directory-\(index)/file", "x")
            try volume.symlink("x", "link-\(index)")
            for name in ["directory-\(index)/file", "directory-\(index)", "link-\(index)"] { try volume.setTime(name, time) }
        }
        try volume.setTime("", 1_600_000_000_000_000_007)
        let restored = try roundTrip()
        #expect(try restored.stat("directory-0").st_mtim.tv_nsec == 1)
        #expect(try restored.stat("").st_mtim.tv_nsec == 7)
    }

    @Test func `Extended attributes come back, binary and empty ones too`() throws {
        try volume.write("collections/file", "x")
        try volume.shell(
            """
            python3 -c '
            import os
            for path in ["collections", "collections/file", "."]:
                os.setxattr(path, "user.text", b"value")
                os.setxattr(path, "user.binary", bytes(range(256)))
                os.setxattr(path, "user.empty", b"")
                os.setxattr(path, "user.long", b"x" * 3000)
                os.setxattr(path, "user.name \\xfc", b"y")
                if os.geteuid() == 0: os.setxattr(path, "trusted.mark", b"t")'
            """)
        try volume.setMode("collections/file", 0o444)
        let restored = try roundTrip()
        #expect(try restored.shell("getfattr --only-values -n user.text collections/file") == "value")
    }

    @Test(.enabled(if: Requirement.accessLists, "needs setfacl")) func `Access control lists come back`() throws {
        try volume.write("shared/file", "x")
        try volume.shell(
            """
            setfacl -m u:1234:rw,g:4321:r,m::rwx shared/file
            setfacl -m u:1234:rwx,d:u:1234:rwx,d:g:77:rx shared
            chmod 2770 shared
            """)
        let restored = try roundTrip()
        #expect(try restored.shell("getfacl -n shared/file").contains("user:1234:rw-"))
        #expect(try restored.shell("getfacl -n shared").contains("default:user:1234:rwx"))
    }

    @Test func `Names that are not UTF-8, or awkward, or long`() throws {
        let names: [[UInt8]] = [
            [0xff, 0xfe], Array("caf".utf8) + [0xe9], [0xc0, 0xaf], Array("new\nline".utf8), Array(" space ".utf8),
            Array("back\\slash".utf8), Array("\\xff".utf8), Array("-n".utf8), Array("quote'\"".utf8), [0x01, 0x7f],
            Array("schön 日本 🦀".utf8), Array("e\u{301}".utf8), Array("\u{e9}".utf8), Array("...".utf8),
            [UInt8](repeating: UInt8(ascii: "n"), count: 255),
            // In order between "a" and "a/b": components count, not bytes of the whole path.
            Array("a!".utf8), Array("a.".utf8), Array("a0".utf8),
        ]
        for (index, name) in names.enumerated() { try volume.write(name, noise(10 + index, seed: UInt64(index))) }
        try volume.write("a/b", "x")
        let restored = try roundTrip()
        #expect(try restored.shell("ls -A | wc -l") == volume.shell("ls -A | wc -l"))
        let listed = try workspace.list("latest")
        #expect(listed.contains("\\xff\\xfe"))
        #expect(listed.contains("new\\x0aline"))
    }

    @Test func `A name that is not UTF-8 has its bytes in the JSON list`() throws {
        try volume.write([0x66, 0xff], [1])
        try workspace.backup(volume)
        let lines = try workspace.expect(0, ["ls", "latest", "--json"]).output.split(separator: "\n")
        #expect(lines.contains { $0.contains("\"path_hex\":\"66ff\"") })
    }

    @Test func `Directories nested forty deep`() throws {
        let path = (0..<40).map { "level-\($0)" }.joined(separator: "/")
        try volume.write("\(path)/file", noise(1000, seed: 1))
        _ = try roundTrip()
    }
}
