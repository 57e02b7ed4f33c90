import Glibc
import Testing

@testable import VolumeIO

@Suite struct TargetTreeTests {
    private let directory = TestDirectory()
    private var outside: String { directory.path + "/outside" }
    private let tree: TargetTree

    init() throws {
        directory.makeDirectory("outside")
        directory.write("outside/victim", [1, 2, 3])
        tree = try TargetTree(path: directory.path + "/target", create: true)
    }

    private func path(_ text: String) -> [UInt8] { Array(text.utf8) }

    @Test(arguments: [
        "..", "../outside/new", "/etc/new", "a/../../outside/new", "a//b", ".", "a/.", "a/", "\0", "a\0b",
    ])
    func `a path that leads outside or nowhere is refused`(_ text: String) throws {
        try tree.makeDirectory(path("a"))
        let bytes = path(text)
        #expect(throws: TargetError.self) { try tree.makeDirectory(bytes) }
        #expect(throws: TargetError.self) { try tree.makeFile(bytes, size: 1) }
        #expect(throws: TargetError.self) { try tree.makeSymlink(bytes, target: path("x")) }
        #expect(throws: TargetError.self) { try tree.makeHardLink(bytes, to: path("a")) }
        #expect(throws: TargetError.self) { try tree.makeHardLink(path("b"), to: bytes) }
        #expect(throws: TargetError.self) { try tree.openForWriting(bytes) }
        #expect(throws: TargetError.self) { try tree.remove(bytes) }
        let stat = FileStat(mode: S_IFDIR | 0o777, owner: 0, group: 0, size: 0, modified: 0)
        #expect(!tree.setMetadata(bytes, kind: .directory, stat: stat, attributes: [], owner: nil).isEmpty)
        try expectUntouched()
    }

    @Test(arguments: ["../outside", "outside link"])
    func `a link swapped in for a directory is not passed`(_ link: String) throws {
        let target = link == "outside link" ? outside : link
        must(symlink(target, directory.name("target/a")))
        #expect(throws: TargetError.self) { try tree.makeDirectory(path("a")) }
        try expectLoop { try tree.makeDirectory(path("a/new")) }
        try expectLoop { try tree.makeFile(path("a/new"), size: 1) }
        try expectLoop { try tree.makeFile(path("a/victim"), size: 0) }
        try expectLoop { try tree.makeSymlink(path("a/new"), target: path("x")) }
        try expectLoop { try tree.makeHardLink(path("stolen"), to: path("a/victim")) }
        try expectLoop { _ = try tree.openForWriting(path("a/victim")) }
        try expectLoop { try tree.remove(path("a/victim")) }
        let stat = FileStat(mode: S_IFREG | 0o777, owner: 0, group: 0, size: 0, modified: 0)
        #expect(!tree.setMetadata(path("a/victim"), kind: .file, stat: stat, attributes: [], owner: nil).isEmpty)
        #expect(!tree.setMetadata(path("a"), kind: .directory, stat: stat, attributes: [], owner: nil).isEmpty)
        try expectUntouched()
    }

    @Test func `a link, FIFO, directory or shared file at a file's place is refused`() throws {
        must(symlink(outside + "/victim", directory.name("target/link")))
        must(symlink(outside + "/new", directory.name("target/dangling")))
        must(link(directory.name("outside/victim"), directory.name("target/shared")))
        must(mkfifo(directory.name("target/fifo"), 0o600))
        must(mkdir(directory.name("target/d"), 0o700))
        for name in ["link", "dangling", "shared", "fifo", "d"] {
            #expect(throws: TargetError.self) { try tree.makeFile(path(name), size: 0) }
        }
        for name in ["link", "dangling", "fifo", "d"] {
            #expect(throws: TargetError.self) { try tree.openForWriting(path(name)) }
        }
        for name in ["link", "shared", "fifo"] {
            #expect(throws: TargetError.self) { try tree.makeDirectory(path(name)) }
        }
        #expect(throws: TargetError.self) { try tree.makeSymlink(path("link"), target: path("elsewhere")) }
        #expect(throws: TargetError.self) { try tree.makeHardLink(path("fifo"), to: path("shared")) }
        try expectUntouched()
    }

    @Test func `small files at the root are not led astray`() throws {
        for name in ["marker", "marker.new", "journal"] {
            must(symlink(outside + "/victim", directory.name("target/" + name)))
        }
        #expect(throws: TargetError.self) { try tree.writeSmallFile("marker", [9]) }
        #expect(throws: TargetError.self) { try tree.appendToFile("journal", [9]) }
        #expect(throws: TargetError.self) { try tree.readSmallFile("journal", limit: 100) }
        try expectUntouched()
    }

    @Test func `small files`() throws {
        #expect(try tree.readSmallFile("marker", limit: 10) == nil)
        try tree.writeSmallFile("marker", [1, 2, 3])
        try tree.writeSmallFile("marker", [4, 5])
        #expect(try tree.readSmallFile("marker", limit: 2) == [4, 5])
        let error = #expect(throws: TargetError.self) { try tree.readSmallFile("marker", limit: 1) }
        #expect(error?.errno == EFBIG)
        for byte in 0..<5 { try tree.appendToFile("journal", [UInt8(byte), 7]) }
        #expect(try tree.readSmallFile("journal", limit: 100) == [0, 7, 1, 7, 2, 7, 3, 7, 4, 7])
        #expect(!directory.exists("target/marker.new"))
        try tree.remove(path("marker"))
        try tree.remove(path("marker"))
        #expect(try tree.readSmallFile("marker", limit: 2) == nil)
    }

    @Test func `a file that is there keeps its content and gets its size`() throws {
        try tree.makeFile(path("f"), size: 10_000)
        #expect(directory.content("target/f") == [UInt8](repeating: 0, count: 10_000))
        let bytes = noise(10_000)
        try bytes.withUnsafeBytes { try tree.openForWriting(path("f")).write($0, at: 0) }
        try tree.makeFile(path("f"), size: 10_000)
        #expect(directory.content("target/f") == bytes)
        try tree.makeHardLink(path("g"), to: path("f"))
        try tree.makeHardLink(path("g"), to: path("f"))
        #expect(throws: TargetError.self) { try tree.makeFile(path("f"), size: 5) }
        try tree.makeFile(path("f"), size: 5, links: 2)
        #expect(directory.content("target/g") == Array(bytes[..<5]))
    }

    @Test func `hard links to links name the link`() throws {
        try tree.makeSymlink(path("link"), target: path("/etc/passwd"))
        try tree.makeHardLink(path("second"), to: path("link"))
        let scan = try Scan(directory.path + "/target")
        #expect(scan["second"]?.kind == .symlink)
        #expect(scan["second"]?.stat.inode == scan["link"]?.stat.inode)
    }

    @Test func `removing takes files, links and empty directories only`() throws {
        try tree.makeDirectory(path("d"))
        try tree.makeFile(path("d/f"), size: 1)
        must(symlink(outside, directory.name("target/link")))
        let error = #expect(throws: TargetError.self) { try tree.remove(path("d")) }
        #expect(error?.errno == ENOTEMPTY)
        for name in ["d/f", "d", "link", "missing", "missing/too"] { try tree.remove(path(name)) }
        #expect(try TargetTree.isEmpty(path: directory.path + "/target"))
        try expectUntouched()
    }

    @Test func `what counts as empty`() throws {
        let target = directory.path + "/target"
        func isEmpty() throws -> Bool { try TargetTree.isEmpty(path: target) }
        #expect(try TargetTree.isEmpty(path: directory.path + "/missing"))
        #expect(try isEmpty())
        must(mkdir(directory.name("target/lost+found"), 0o700))
        #expect(try isEmpty())
        directory.write("target/lost+found/#12", [1])
        #expect(try !isEmpty())
        must(unlink(directory.name("target/lost+found/#12")))
        directory.write("target/.hidden", [])
        #expect(try !isEmpty())
        must(unlink(directory.name("target/.hidden")))
        must(rmdir(directory.name("target/lost+found")))
        directory.write("target/lost+found", [])
        #expect(try !isEmpty())
        must(unlink(directory.name("target/lost+found")))
        must(symlink(outside, directory.name("target/lost+found")))
        #expect(try !isEmpty())
        #expect(throws: TargetError.self) { try TargetTree.isEmpty(path: outside + "/victim") }
    }

    @Test func `parents of the target are made, and only when asked`() throws {
        let deep = directory.path + "/x/y/z"
        #expect(throws: TargetError.self) { try TargetTree(path: deep, create: false) }
        _ = try TargetTree(path: deep, create: true)
        _ = try TargetTree(path: deep + "/", create: true)
        #expect(try Scan(directory.path)["x/y/z"]?.stat.permissions == 0o700)
        #expect(throws: TargetError.self) { try TargetTree(path: outside + "/victim", create: true) }
    }

    @Test func `owners can be replaced`() throws {
        try tree.makeFile(path("f"), size: 0)
        let stat = FileStat(mode: S_IFREG | 0o640, owner: 99_999, group: 99_999, size: 0, modified: 1)
        let problems = tree.setMetadata(
            path("f"), kind: .file, stat: stat, attributes: [], owner: (geteuid(), getegid()))
        #expect(problems == [])
    }

    @Test(.enabled(if: isRoot, "needs root, to take rights away from itself"))
    func `an owner that cannot be set is reported, the rest is set`() throws {
        must(chmod(directory.path, 0o755))
        must(chown(directory.name("target"), 65534, 65534))
        let stat = FileStat(mode: S_IFREG | 0o640, owner: 1234, group: 99_999, size: 0, modified: 1)
        let problems = try asNobody {
            let tree = try TargetTree(path: directory.path + "/target", create: false)
            try tree.makeFile(path("f"), size: 0)
            return tree.setMetadata(path("f"), kind: .file, stat: stat, attributes: [], owner: nil)
        }
        #expect(problems == ["owner 1234:99999 not set: Operation not permitted"])
        let node = try #require(try Scan(directory.path + "/target")["f"])
        #expect(node.stat.permissions == 0o640 && node.stat.modified == 1 && node.stat.owner == 65534)
    }

    @Test(LoopVolume.condition)
    func `a full target says so`() throws {
        let volume = try #require(LoopVolume("ext4"))
        let tree = try TargetTree(path: volume.path, create: false)
        try tree.makeFile(path("f"), size: 900 << 20)
        let file = try tree.openForWriting(path("f"))
        let bytes = [UInt8](repeating: 1, count: 4 << 20)
        let error = #expect(throws: TargetError.self) {
            for offset in stride(from: 0, to: 900 << 20, by: bytes.count) {
                try bytes.withUnsafeBytes { try file.write($0, at: Int64(offset)) }
            }
        }
        #expect(error?.isFull == true)
    }

    /// Refused because of the link, and not for another reason.
    private func expectLoop(_ body: () throws -> Void) throws {
        #expect(throws: TargetError.self, performing: body)
        do { try body() } catch let error as TargetError { #expect(error.errno == ELOOP) }
    }

    private func expectUntouched() throws {
        #expect(directory.content("outside/victim") == [1, 2, 3])
        let scan = try Scan(outside)
        #expect(scan.paths == ["", "victim"])
        #expect(scan["victim"]?.stat.permissions == 0o644)
    }
}
