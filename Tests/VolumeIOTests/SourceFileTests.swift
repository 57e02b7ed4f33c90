import BackupBase
import CLinux
import Glibc
import Testing

@testable import VolumeIO

@Suite struct SourceFileTests {
    private let directory = TestDirectory()

    private func open(_ name: String) throws -> SourceFile {
        try SourceTree(path: directory.path).open(Array(name.utf8))
    }

    private func readAll(_ file: SourceFile, chunk: Int) throws -> [UInt8] {
        let buffer = AlignedBuffer(capacity: chunk)
        var bytes: [UInt8] = []
        while try file.read(at: Int64(bytes.count), count: chunk, into: buffer) > 0 {
            bytes += buffer.bytes
            if bytes.count % AlignedBuffer.alignment != 0 { break }
        }
        return bytes
    }

    @Test(arguments: [0, 1, 511, 4095, 4096, 4097, 131_072, 131_073, 1_000_000, 1 << 20, (3 << 20) + 5])
    func `any length is read whole, from the cache and from the disk`(_ count: Int) throws {
        let bytes = noise(count)
        directory.write("file", bytes)
        for _ in 0..<2 {
            #expect(try readAll(open("file"), chunk: 1 << 20) == bytes)
            #expect(try readAll(open("file"), chunk: 65536) == bytes)
            dropCache("file")
        }
    }

    @Test func `a count that is no multiple of a page is kept to`() throws {
        directory.write("file", noise(1 << 20))
        let buffer = AlignedBuffer(capacity: 8192)
        #expect(try open("file").read(at: 4096, count: 4097, into: buffer) == 4097)
        #expect(Array(buffer.bytes) == Array(noise(1 << 20)[4096..<8193]))
        #expect(try open("file").read(at: 1 << 20, count: 4096, into: buffer) == 0)
    }

    @Test(arguments: ["/var/tmp", "/dev/shm"])
    func `where direct I/O is refused, reading still works`(_ parent: String) throws {
        let directory = TestDirectory(in: parent)
        let bytes = noise(3_000_001)
        directory.write("file", bytes)
        let file = Descriptor(Glibc.open(directory.name("file"), O_RDONLY))
        let refused = SourceFile(path: [], reader: BlockReader(file, size: 3_000_001, direct: false))
        #expect(try readAll(refused, chunk: 1 << 20) == bytes)
        #expect(try readAll(SourceTree(path: directory.path).open(Array("file".utf8)), chunk: 1 << 20) == bytes)
    }

    @Test(arguments: [true, false])
    func `the page cache is left as it was`(direct: Bool) throws {
        try leavesCache(directory, direct: direct)
    }

    @Test(LoopVolume.condition, arguments: LoopVolume.available)
    func `the page cache is left as it was on`(_ type: String) throws {
        let volume = try #require(LoopVolume(type))
        // Compressed extents go through the cache even with direct I/O.
        if type == "btrfs" { try #require(shell("chattr +c '\(volume.path)'"), "needs chattr") }
        for direct in [true, false] { try leavesCache(TestDirectory(in: volume.path), direct: direct) }
    }

    /// 4 MiB, of which the second is cached before: after reading all, still
    /// that one only.
    private func leavesCache(_ directory: TestDirectory, direct: Bool) throws {
        // What compresses first: btrfs gives up on a file that does not begin so.
        let bytes = [UInt8](repeating: 65, count: 3 << 20) + noise(1 << 20)
        directory.write("file", bytes)
        let number = Glibc.open(directory.name("file"), O_RDWR)
        defer { close(number) }
        must(fsync(number))
        must(posix_fadvise(number, 0, 0, POSIX_FADV_DONTNEED))
        must(posix_fadvise(number, 0, 0, POSIX_FADV_RANDOM))
        var part = [UInt8](repeating: 0, count: 1 << 20)
        must(pread(number, &part, part.count, 1 << 20))
        let before = residentPages(number, bytes.count)
        try #require(before.contains(true) && before.contains(false), "this file system keeps all or nothing cached")

        let file = SourceFile(
            path: [], reader: BlockReader(Descriptor(dup(number)), size: Int64(bytes.count), direct: true))
        let plain = SourceFile(
            path: [],
            reader: BlockReader(
                Descriptor(Glibc.open(directory.name("file"), O_RDONLY)), size: Int64(bytes.count), direct: false))
        #expect(try readAll(direct ? file : plain, chunk: 1 << 20) == bytes)
        #expect(residentPages(number, bytes.count) == before)
    }

    @Test func `data ranges are exact, merged and clipped`() throws {
        let block: Int64 = 4096
        directory.write(
            Array("file".utf8), [(0, noise(4096)), (10 * block, noise(3 * 4096)), (1 << 30, [1])], size: 2 << 30)
        let file = try open("file")
        let all = [0..<block, 10 * block..<13 * block, 1 << 30..<(1 << 30) + block]
        #expect(try file.dataRanges(size: 2 << 30) == all)
        #expect(try file.dataRanges(size: 11 * block) == [0..<block, 10 * block..<11 * block])
        #expect(try file.dataRanges(size: 5 * block) == [0..<block])
        #expect(try file.dataRanges(size: 0) == [])
    }

    @Test func `a hundred GiB of nothing have no data`() throws {
        directory.write(Array("file".utf8), [], size: 100 << 30)
        #expect(try open("file").dataRanges(size: 100 << 30) == [])
    }

    @Test func `an image is opened by path, a directory or FIFO is not`() throws {
        directory.write("image", noise(10_000))
        directory.makeDirectory("d")
        must(mkfifo(directory.name("fifo"), 0o600))
        must(symlink("image", directory.name("link")))
        #expect(try SourceFile.device(path: directory.path + "/link").stat().size == 10_000)
        #expect(try readAll(SourceFile.device(path: directory.path + "/image"), chunk: 8192) == noise(10_000))
        for name in ["d", "fifo"] {
            #expect(throws: SourceError.self) { try SourceFile.device(path: directory.path + "/" + name) }
        }
    }

    @Test(arguments: ["../out", "/etc/passwd", "a/../../out", "link", "way/file", "fifo", "a//b", "./a", "a/", ""])
    func `a path that leads elsewhere or is no file is refused`(_ path: String) throws {
        directory.makeDirectory("a")
        directory.makeDirectory("real")
        directory.write("real/file", [1])
        must(symlink("real/file", directory.name("link")))
        must(symlink("real", directory.name("way")))
        must(mkfifo(directory.name("fifo"), 0o600))
        #expect(throws: SourceError.self) { try open(path) }
    }

    @Test func `a missing file is gone`() throws {
        let error = #expect(throws: SourceError.self) { try open("missing") }
        #expect(error?.isGone == true)
    }

    private static let noticesWrites = (try? SourceTree(path: "/var/tmp").noticesMappedWrites) == true

    @Test(.enabled(if: noticesWrites, "needs /var/tmp on a disk"))
    func `after settling, the next store through a mapping moves the time`() throws {
        try settlesMappedWrites(directory)
    }

    @Test(LoopVolume.condition, arguments: LoopVolume.available)
    func `after settling, the next store through a mapping moves the time on`(_ type: String) throws {
        let volume = try #require(LoopVolume(type))
        try settlesMappedWrites(TestDirectory(in: volume.path))
    }

    @Test func `a memory file system is known not to notice mapped writes`() throws {
        let directory = TestDirectory(in: "/dev/shm")
        #expect(try !SourceTree(path: directory.path).noticesMappedWrites)
    }

    /// By the scan, which settles what it looks at, and by the file itself.
    private func settlesMappedWrites(_ directory: TestDirectory) throws {
        for name in ["a", "b", "c"] { directory.write(name, [UInt8](repeating: 1, count: 1 << 20)) }
        let number = Glibc.open(directory.name("b"), O_RDWR)
        defer { close(number) }
        let map = try #require(mmap(nil, 1 << 20, PROT_READ | PROT_WRITE, MAP_SHARED, number, 0))
        defer { munmap(map, 1 << 20) }
        let tree = try SourceTree(path: directory.path)
        let file = try tree.open([UInt8(ascii: "b")])

        for round in 0..<6 {
            for page in 0..<256 { map.storeBytes(of: UInt8(round + 2), toByteOffset: page * 4096, as: UInt8.self) }
            usleep(12_000)
            let before: Int64
            if round % 2 == 0 {
                var found: Int64?
                try tree.scan(
                    settle: true, exclude: { _, _ in false }, problem: { _ in },
                    visit: { node in
                        // The write-out of "b" is under way when "a" is visited.
                        if node.path == [UInt8(ascii: "a")] { map.storeBytes(of: 98, as: UInt8.self) }
                        if node.path == [UInt8(ascii: "b")] { found = node.stat.modified }
                    })
                before = try #require(found)
            } else {
                try file.settle()
                before = try file.stat().modified
            }
            // Longer than the kernel's clock tick, so that equal times mean
            // that nothing was noticed.
            usleep(12_000)
            map.storeBytes(of: 99, toByteOffset: round, as: UInt8.self)
            #expect(try file.stat().modified > before)
        }
    }

    @Test(LoopVolume.condition)
    func `a block device is read and written whole`() throws {
        directory.write(Array("image".utf8), [], size: 8 << 20)
        let image = directory.path + "/image"
        try #require(shell("losetup -f --show '\(image)' > '\(directory.path)/device'"))
        let device = String(decoding: directory.content("device")!.dropLast(), as: UTF8.self)
        defer { shell("losetup -d \(device)") }

        let bytes = noise((1 << 20) + 1234)
        let target = try TargetFile.device(path: device)
        #expect(target.size == 8 << 20)
        try bytes.withUnsafeBytes { try target.write($0, at: 3 << 20) }
        try target.synchronize()
        let source = try SourceFile.device(path: device)
        #expect(try source.stat().size == 8 << 20)
        #expect(try source.dataRanges(size: 8 << 20) == [0..<(8 << 20)])
        let all = try readAll(source, chunk: 1 << 20)
        #expect(all.count == 8 << 20)
        #expect(Array(all[(3 << 20)..<((3 << 20) + bytes.count)]) == bytes)
    }

    @Test(.enabled(if: noticesWrites, "needs /var/tmp on a disk"))
    func `a small file is read from the cache, and not into it`() throws {
        for name in ["cached", "not"] { directory.write(name, noise(50_000)) }
        dropCache("not")
        for name in ["cached", "not"] {
            #expect(try readAll(open(name), chunk: 1 << 20) == noise(50_000))
            #expect(try readAll(open(name), chunk: 8192) == noise(50_000))
            let number = Glibc.open(directory.name(name), O_RDONLY)
            defer { close(number) }
            #expect(residentPages(number, 50_000) == [Bool](repeating: name == "cached", count: 13))
        }
    }

    private func dropCache(_ name: String) {
        let number = Glibc.open(directory.name(name), O_RDONLY)
        must(fsync(number))
        must(posix_fadvise(number, 0, 0, POSIX_FADV_DONTNEED))
        close(number)
    }

    private func residentPages(_ number: Int32, _ length: Int) -> [Bool] {
        let map = mmap(nil, length, PROT_READ, MAP_SHARED, number, 0)!
        defer { munmap(map, length) }
        var resident = [UInt8](repeating: 0, count: (length + 4095) / 4096)
        must(mincore(map, length, &resident))
        return resident.map { $0 & 1 == 1 }
    }
}
