import BackupBase
import CLinux
import Glibc
import Testing

@testable import VolumeIO

@Suite struct VolumeListingTests {
    private func listing(_ directory: TestDirectory, after earlier: VolumeListing? = nil) throws -> VolumeListing {
        VolumeListing(
            try SourceTree(path: directory.path), settle: earlier == nil,
            remembering: earlier.map { KnownAttributes($0.nodes, $0.span) }, exclude: { _, _ in false })
    }

    private func names(_ nodes: [ScannedNode]) -> [String] { nodes.map { String(decoding: $0.path, as: UTF8.self) } }

    @Test func `a pass that remembers finds what one that opens everything finds`() throws {
        let directory = TestDirectory()
        directory.makeDirectory("d")
        for name in ["a", "d/b", "d/c"] { directory.write(name, noise(5000)) }
        #expect(shell("setfattr -n user.one -v 1 '\(directory.path)/a'"))
        usleep(50_000)
        let first = try listing(directory)
        #expect(shell("setfattr -n user.two -v 2 '\(directory.path)/d/b'; chmod 600 '\(directory.path)/d/c'"))
        let (quick, whole) = (try listing(directory, after: first), try listing(directory))
        #expect(zip(quick.nodes, whole.nodes).allSatisfy { $0.isUnchanged(since: $1) })
        #expect(quick.nodes.first { names([$0]) == ["d/b"] }?.attributes.count == 1)
        #expect(names(quick.changed(since: first)) == ["d/b", "d/c"])
        #expect(!quick.isUnchanged(since: first))
        usleep(50_000)
        let settled = try listing(directory)
        #expect(try listing(directory, after: settled).isUnchanged(since: settled))
    }

    @Test func `what changed a moment ago may have changed again`() throws {
        let directory = TestDirectory()
        directory.write("a", noise(100))
        let first = try listing(directory)
        // Nothing happened, but a second change within the clock's step would not show.
        #expect(names(try listing(directory).changed(since: first)) == ["a"])
        usleep(50_000)
        let later = try listing(directory)
        #expect(try listing(directory).changed(since: later).isEmpty)
        #expect(try listing(directory).isUnchanged(since: later))
    }

    @Test func `what disappears, appears or moves is a change`() throws {
        let directory = TestDirectory()
        for name in ["a", "b"] { directory.write(name, noise(100)) }
        usleep(50_000)
        let first = try listing(directory)
        #expect(shell("mv '\(directory.path)/a' '\(directory.path)/c'"))
        #expect(try !listing(directory).isUnchanged(since: first))
        #expect(try names(listing(directory).changed(since: first)) == ["c"])
    }

    @Test func `times of a future that the clock went back from are no reason to wait`() {
        let span = LookSpan(from: 1_000_000_000_000, to: 1_000_500_000_000)
        func stat(_ changed: Int64) -> FileStat {
            FileStat(mode: 0o100644, owner: 0, group: 0, size: 1, modified: changed, changed: changed)
        }
        #expect(span.isFresh(stat(1_000_000_000_001)))
        #expect(span.isFresh(stat(999_990_000_001)))
        #expect(!span.isFresh(stat(999_900_000_001)))
        #expect(!span.isFresh(stat(2_000_000_000_001)))
        #expect(span.isFresh(stat(999_000_000_000)), "whole seconds")
    }
}

@Suite(LoopVolume.condition) struct MappedHoleTests {
    /// ext4 answers a direct read with EIO where a mapped store fills a hole meanwhile.
    @Test func `a file whose holes are being filled can be read`() throws {
        let volume = try #require(LoopVolume("ext4"))
        let path = volume.path + "/open-1"
        let script = """
            import mmap, os, random
            file = os.open('\(path)', os.O_RDWR | os.O_CREAT)
            os.ftruncate(file, 64 << 20)
            memory = mmap.mmap(file, 64 << 20)
            open('\(volume.path)/ready', 'w').close()
            while True:
                for page in random.sample(range(16384), 4000): memory[page * 4096] = 1
                memory.madvise(mmap.MADV_REMOVE, 0, 64 << 20)
            """
        var writer = pid_t()
        var arguments: [UnsafeMutablePointer<CChar>?] = (["python3", "-c", script] as [String]).map { strdup($0) } + [nil]
        defer { arguments.forEach { free($0) } }
        try #require(posix_spawnp(&writer, "python3", nil, nil, &arguments, environ) == 0)
        defer {
            kill(writer, SIGKILL)
            waitpid(writer, nil, 0)
        }
        while access(volume.path + "/ready", F_OK) != 0 { usleep(1000) }
        let tree = try SourceTree(path: volume.path)
        let end = monotonicSeconds() + 4
        let buffer = AlignedBuffer(capacity: 1 << 20)
        while monotonicSeconds() < end {
            let file = try tree.open(Array("open-1".utf8))
            for offset in stride(from: Int64(0), to: 64 << 20, by: 1 << 20) {
                _ = try file.read(at: offset, count: 1 << 20, into: buffer)
            }
        }
    }
}
