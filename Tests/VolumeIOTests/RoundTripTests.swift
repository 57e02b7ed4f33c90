import BackupBase
import Glibc
import Testing

@testable import VolumeIO

/// A tree with everything a volume may hold, copied and compared.
@Suite struct RoundTripTests {
    @Test func `everything comes back as it was`() throws {
        let directory = TestDirectory()
        directory.makeDirectory("source")
        try fillWithEverything(directory)
        let problems = try copyTree(from: directory.path + "/source", to: directory.path + "/target")
        #expect(problems == [])
        try expectSame(directory.path + "/source", directory.path + "/target")
        // Another program's opinion.
        for name in ["tail", "sparse", "zeros"] {
            #expect(shell("cmp '\(directory.path)/source/data/\(name)' '\(directory.path)/target/data/\(name)'"))
        }
        // Restoring over it once more, as a resumed run does.
        #expect(try copyTree(from: directory.path + "/source", to: directory.path + "/target") == [])
        try expectSame(directory.path + "/source", directory.path + "/target")
    }

    @Test(LoopVolume.condition, arguments: LoopVolume.available)
    func `everything comes back on`(_ type: String) throws {
        let volume = try #require(LoopVolume(type))
        let directory = TestDirectory(in: volume.path)
        if type == "ext4 -b 1024" {
            directory.makeDirectory("probe")
            directory.write(Array("probe/f".utf8), [(1024, [1]), (8192 + 3072, [1])], size: 1 << 20)
            let ranges = try SourceTree(path: directory.path).open(Array("probe/f".utf8)).dataRanges(size: 1 << 20)
            #expect(ranges == [1024..<2048, 11264..<12288])
        }
        directory.makeDirectory("source")
        try fillWithEverything(directory)
        #expect(try copyTree(from: directory.path + "/source", to: directory.path + "/target") == [])
        try expectSame(directory.path + "/source", directory.path + "/target")
    }

    @Test(.enabled(if: isRoot, "needs root"))
    func `access lists inherited from the target are removed`() throws {
        let directory = TestDirectory()
        try #require(shell("setfacl -d -m u:1234:rwx '\(directory.path)'"), "needs setfacl")
        directory.makeDirectory("source")
        try #require(shell("setfacl -b -k '\(directory.path)/source'"))
        directory.write("source/file", [1])
        #expect(try copyTree(from: directory.path + "/source", to: directory.path + "/target") == [])
        try expectSame(directory.path + "/source", directory.path + "/target")
    }

    @Test func `rights of programs are not restored but reported`() throws {
        let directory = TestDirectory()
        let tree = try TargetTree(path: directory.path, create: false)
        let path = Array("tool".utf8)
        try tree.makeFile(path, size: 0)
        let stat = FileStat(mode: S_IFREG | 0o6755, owner: geteuid(), group: getegid(), size: 0, modified: 5)
        let capability = ExtendedAttribute(name: Array("security.capability".utf8), value: [1])
        let problems = tree.setMetadata(path, kind: .file, stat: stat, attributes: [capability], owner: nil)
        #expect(problems.count == 2)
        let node = try #require(try Scan(directory.path)["tool"])
        #expect(node.stat.permissions == 0o755)
        #expect(node.attributes == [])
        #expect(node.stat.modified == 5)
    }

    @Test func `metadata is not put on a thing of another kind`() throws {
        let directory = TestDirectory()
        directory.write("file", [])
        must(symlink("file", directory.name("link")))
        let tree = try TargetTree(path: directory.path, create: false)
        let stat = FileStat(mode: S_IFREG | 0o777, owner: geteuid(), group: getegid(), size: 0, modified: 5)
        for (name, kind) in [("link", NodeKind.file), ("file", .directory), ("file", .symlink), ("file", .special)] {
            let problems = tree.setMetadata(Array(name.utf8), kind: kind, stat: stat, attributes: [], owner: nil)
            #expect(problems.count == 1)
        }
        #expect(try Scan(directory.path)["file"]?.stat.permissions == 0o644)
    }

    /// Nodes, content and holes of two trees.
    private func expectSame(_ one: String, _ other: String) throws {
        let (first, second) = (try Scan(one), try Scan(other))
        #expect(first.problems.isEmpty && second.problems.isEmpty)
        let left = first.nodes.filter { $0.kind != .special }.map(Portable.init)
        let right = second.nodes.map(Portable.init)
        #expect(left.count == right.count)
        for (left, right) in zip(left, right) { #expect(left == right) }
        let (source, target) = (try SourceTree(path: one), try SourceTree(path: other))
        for node in first.nodes where node.kind == .file {
            try expectSameData(source.open(node.path), target.open(node.path), size: node.stat.size)
        }
    }

    private func expectSameData(_ one: SourceFile, _ other: SourceFile, size: Int64) throws {
        let ranges = try one.dataRanges(size: size)
        try #require(try other.dataRanges(size: size) == ranges, "holes of \(printable(one.path))")
        let (left, right) = (AlignedBuffer(capacity: 1 << 20), AlignedBuffer(capacity: 1 << 20))
        for range in ranges {
            for offset in stride(from: range.lowerBound, to: range.upperBound, by: left.capacity) {
                let count = min(left.capacity, Int(range.upperBound - offset))
                #expect(try one.read(at: offset, count: count, into: left) == count)
                #expect(try other.read(at: offset, count: count, into: right) == count)
                #expect(left.bytes.elementsEqual(right.bytes), "\(printable(one.path)) at \(offset)")
            }
        }
    }
}

/// Fills `source` in the directory.
private func fillWithEverything(_ directory: TestDirectory) throws {
    func bytes(_ text: String) -> [UInt8] { Array(("source/" + text).utf8) }
    for name in ["data", "empty", "links", "odd", "locked"] { directory.makeDirectory("source/" + name) }
    directory.write("source/data/none", [])
    directory.write("source/data/one", [7])
    directory.write("source/data/page", noise(4096))
    directory.write("source/data/tail", noise(3_000_001, seed: 2))
    directory.write("source/data/zeros", [UInt8](repeating: 0, count: 300_000))
    directory.write(bytes("data/huge"), [(70 << 30, noise(8192, seed: 3))], size: 100 << 30)
    directory.write(
        bytes("data/sparse"), [(0, noise(70_000, seed: 4)), (1 << 20, noise(5000)), (9 << 20, [1])], size: 20 << 20)
    directory.write(bytes("data/hole at the end"), [(0, noise(10))], size: 1_000_001)
    directory.write(bytes("odd/") + [0xff, 0xfe, 0x0a, 0x80], [(0, noise(20))])
    directory.write(bytes("odd/") + Array(repeating: 0xc3, count: 255), [(0, noise(21))])
    directory.write("source/links/one", noise(200_000, seed: 5))
    must(link(directory.name("source/links/one"), directory.name("source/links/two")))
    must(symlink("../data/none", directory.name("source/links/relative")))
    must(symlink("/nowhere/" + String(repeating: "x", count: 300), directory.name("source/links/dangling")))
    must(mkfifo(directory.name("source/odd/fifo"), 0o600))

    try #require(shell("setfattr -n user.origin -v a '\(directory.path)/source/data/one'"), "needs setfattr")
    let big = String(repeating: "b", count: 600)
    try #require(shell("setfattr -n user.big -v \(big) '\(directory.path)/source/empty'"))
    try #require(shell("setfacl -m u:1234:rw,g:77:r '\(directory.path)/source/data/tail'"), "needs setfacl")
    try #require(shell("setfacl -m u:1234:rx -d -m u:1234:rx '\(directory.path)/source/data'"))
    if isRoot {
        must(chown(directory.name("source/data/one"), 1234, 77))
        must(lchown(directory.name("source/links/relative"), 4_000_000_000, 5))
        try #require(shell("setfattr -n trusted.mark -v t '\(directory.path)/source/data/page'"))
        try #require(shell("setfattr -n security.mark -v s '\(directory.path)/source/data/page'"))
    }
    must(chmod(directory.name("source/data/page"), 0o400))
    must(chmod(directory.name("source/empty"), 0o3755))
    must(chmod(directory.name("source/locked"), 0o500))
    directory.setTime(bytes("data/one"), 1_000_000_001)
    directory.setTime(bytes("links/relative"), 1_500_000_000_123_456_789)
    directory.setTime(bytes("data/huge"), 999_999_999)
    for path in ["data", "empty", "links", "odd"] { directory.setTime(bytes(path), 1_234_567_890_987_654_321) }
}
