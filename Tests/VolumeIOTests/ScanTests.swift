import Glibc
import Testing

@testable import VolumeIO

@Suite struct ScanTests {
    @Test func `order is by component, a directory before its content`() throws {
        let directory = TestDirectory()
        for path in ["a", "a/z", "a.b", "a-", "B"] { directory.makeDirectory(path) }
        for path in ["a/b", "a/z/1", "a0", "B/x", "é", "a.b/c"] { directory.write(path, []) }
        let paths = ["", "B", "B/x", "a", "a/b", "a/z", "a/z/1", "a-", "a.b", "a.b/c", "a0", "é"]
        #expect(try Scan(directory.path).paths == paths)
        #expect(try Scan(directory.path, settle: false).paths == paths)
    }

    @Test func `twenty thousand files come in order and are described alike`() throws {
        let directory = TestDirectory()
        for part in 0..<4 { directory.makeDirectory("d\(part)") }
        for index in 0..<20_000 {
            must(close(open(directory.name("d\(index % 4)/f\(index)"), O_CREAT | O_WRONLY, 0o600)))
        }
        let (settled, plain) = (try Scan(directory.path), try Scan(directory.path, settle: false))
        #expect(settled.nodes.count == 20_005)
        #expect(settled.problems.isEmpty)
        #expect(settled.nodes.map(\.path) == plain.nodes.map(\.path))
        #expect(settled.nodes.map(\.stat) == plain.nodes.map(\.stat))
        let parts = settled.nodes.map { $0.path.split(separator: UInt8(ascii: "/")).map(Array.init) }
        let inOrder = zip(parts, parts.dropFirst()).allSatisfy { left, right in
            left.lexicographicallyPrecedes(right) { $0.lexicographicallyPrecedes($1) }
        }
        #expect(inOrder)
    }

    @Test func `excluded things are neither visited nor descended into`() throws {
        let directory = TestDirectory()
        directory.makeDirectory("tmp")
        directory.makeDirectory("keep")
        for (index, path) in ["tmp/a", "keep/a", "keep/b", "keep/c", "tmp2"].enumerated() {
            directory.write(path, noise(100 + index))
        }
        var asked: [String] = []
        let scan = try Scan(directory.path) { path, isDirectory in
            let text = String(decoding: path, as: UTF8.self)
            asked.append(text + (isDirectory ? "/" : ""))
            return text == "tmp" || text == "keep/b"
        }
        #expect(scan.paths == ["", "keep", "keep/a", "keep/c", "tmp2"])
        // Files are opened ahead: none may be taken for the one passed over.
        #expect(scan.nodes.filter { $0.kind == .file }.map(\.stat.size) == [101, 103, 104])
        #expect(asked == ["keep/", "keep/a", "keep/b", "keep/c", "tmp/", "tmp2"])
    }

    @Test func `kinds, links and targets`() throws {
        let directory = TestDirectory()
        directory.write("file", noise(5000))
        must(link(directory.name("file"), directory.name("second")))
        must(symlink("file", directory.name("link")))
        must(mkfifo(directory.name("fifo"), 0o600))
        let scan = try Scan(directory.path)
        #expect(scan["file"]?.stat.links == 2)
        #expect(scan["file"]?.stat.inode == scan["second"]?.stat.inode)
        #expect(scan["file"]?.stat.size == 5000)
        #expect(scan["file"]?.stat.allocated == 8192)
        #expect(scan["link"]?.kind == .symlink)
        #expect(scan["link"]?.linkTarget == Array("file".utf8))
        #expect(scan["fifo"]?.kind == .special)
        #expect(scan[""]?.kind == .directory)
    }

    @Test func `a file deeper than a path may be long is found`() throws {
        let directory = TestDirectory()
        let part = String(repeating: "d", count: 200)
        var parent = open(directory.path, O_RDONLY)
        for _ in 0..<30 {
            must(mkdirat(parent, part, 0o755))
            let child = openat(parent, part, O_RDONLY)
            close(parent)
            parent = child
        }
        let file = openat(parent, "end", O_CREAT | O_WRONLY, 0o600)
        must(write(file, [1, 2], 2))
        close(file)
        close(parent)
        let scan = try Scan(directory.path)
        #expect(scan.problems.isEmpty)
        #expect(scan.nodes.last?.path.count == 30 * 201 + 3)
        #expect(scan.nodes.last?.stat.size == 2)
    }

    @Test(.enabled(if: isRoot, "needs root, to take rights away from itself"))
    func `what cannot be read is named, and the rest is found`() throws {
        let directory = TestDirectory()
        must(chmod(directory.path, 0o755))
        for path in ["closed", "open"] { directory.makeDirectory(path) }
        for path in ["closed/a", "open/a", "secret", "z"] { directory.write(path, [1]) }
        must(chmod(directory.name("closed"), 0o700))
        must(chmod(directory.name("secret"), 0o600))
        let scan = try asNobody { try Scan(directory.path) }
        #expect(scan.paths == ["", "closed", "open", "open/a", "z"])
        #expect(scan.problems.map { String(decoding: $0.path, as: UTF8.self) } == ["closed", "secret"])
        #expect(scan.problems.allSatisfy { $0.errno == EACCES && !$0.isGone })
        #expect(scan.problems[0].description == "cannot open closed: Permission denied")
        let error = #expect(throws: SourceError.self) {
            try asNobody { _ = try SourceTree(path: directory.path).open(Array("secret".utf8)) }
        }
        #expect(error?.errno == EACCES)
    }

    @Test func `an entry that vanishes is named`() throws {
        let directory = TestDirectory()
        for path in ["a", "c"] { directory.write(path, [1]) }
        directory.makeDirectory("b")
        let scan = try Scan(directory.path) { path, _ in
            if path == Array("b".utf8) { must(rmdir(directory.name("b"))) }
            return false
        }
        #expect(scan.paths == ["", "a", "c"])
        #expect(scan.problems.map(\.isGone) == [true])
    }

    @Test func `an error of the visitor stops the scan`() throws {
        struct Enough: Error {}
        let directory = TestDirectory()
        for path in ["a", "b", "c"] { directory.write(path, [1]) }
        var seen = 0
        let tree = try SourceTree(path: directory.path)
        #expect(throws: Enough.self) {
            try tree.scan(
                settle: true, exclude: { _, _ in false }, problem: { _ in },
                visit: { _ in
                    seen += 1
                    if seen == 2 { throw Enough() }
                })
        }
        #expect(seen == 2)
    }

    @Test func `a root that is missing or no directory is an error`() {
        let directory = TestDirectory()
        directory.write("file", [])
        #expect(throws: SourceError.self) { try SourceTree(path: directory.path + "/missing") }
        #expect(throws: SourceError.self) { try SourceTree(path: directory.path + "/file") }
    }

    @Test func `no descriptor stays open`() throws {
        let directory = TestDirectory()
        directory.makeDirectory("d")
        for index in 0..<100 { directory.write("d/\(index)", [1]) }
        _ = try Scan(directory.path)
        // Other tests open files meanwhile, but none of this directory.
        let prefix = Array(directory.path.utf8)
        #expect(try !Scan("/proc/self/fd", settle: false).nodes.contains { $0.linkTarget.starts(with: prefix) })
    }
}
