import Foundation
import Glibc
import Testing

@testable import VolumeIO

/// What two read-only snapshots on a real btrfs say of a file, read from the
/// file system's tree, against FIEMAP and against the bytes.
@Suite(.enabled(if: LoopVolume.available.contains("btrfs"), "needs root, loop mounts and btrfs"))
struct BtrfsExtentsTests {
    private let mount: LoopVolume

    init() throws {
        mount = try #require(LoopVolume("btrfs"))
        #expect(shell("cd '\(mount.path)' && btrfs -q subvolume create v && head -c 8M /dev/urandom > v/f && cp v/f v/other"))
    }

    private func snapshot(_ name: String) throws -> SourceFile {
        try #require(shell("cd '\(mount.path)' && btrfs -q subvolume snapshot -r v \(name)"))
        return try SourceTree(path: "\(mount.path)/\(name)").open(Array("f".utf8))
    }

    private func bytes(_ name: String) throws -> [UInt8] { Array(try Data(contentsOf: URL(filePath: "\(mount.path)/\(name)/f"))) }

    /// Ways to change a file; `$A` and `$N` are a random place and length in pages.
    private static let edits = [
        "dd if=/dev/urandom of=f bs=4k seek=$A count=$N conv=notrunc status=none",
        "fallocate -p -o ${A}000 -l $((N * 4096)) f",
        "fallocate -o $((A * 4096)) -l $((N * 4096)) f",
        "truncate -s $((A * 4096 + N)) f",
        "xfs_io -c \"reflink other $((A * 4096)) 0 $((N * 4096))\" f",
        "xfs_io -c \"reflink f 0 $((A * 4096)) $((N * 4096))\" f",
        "cp f g && mv g f",
        "for i in $(seq 0 2 1400); do printf x | dd of=f bs=1 seek=$((i * 4096)) conv=notrunc status=none; done",
        "head -c 900 /dev/urandom > f",
        "truncate -s 0 f && chattr +C f; head -c 4M /dev/urandom >> f",
        "btrfs property set f compression zstd; yes | head -c 1M | dd of=f bs=4k seek=$A conv=notrunc status=none",
        "true",
    ]

    @Test(arguments: 1...4 as ClosedRange<UInt64>)
    func `the tree tells what FIEMAP tells, and what it calls the same is the same`(_ seed: UInt64) throws {
        let rounds = 16
        var dice = noise(rounds * 12, seed: seed).map(Int.init)[...]
        func cast(_ sides: Int) -> Int { (0..<4).reduce(0) { sum, _ in sum << 8 | dice.removeFirst() } % sides }
        var (earlier, before) = (try snapshot("s0"), try bytes("s0"))
        for round in 1...rounds {
            let edit = Self.edits[cast(Self.edits.count)]
            let (place, length) = (cast(1900), 1 + cast(300))
            shell("cd '\(mount.path)/v' && A=\(place) N=\(length); \(edit); sync f")
            let (file, now) = (try snapshot("s\(round)"), try bytes("s\(round)"))
            let (told, onlyEarlier) = try #require(ExtentComparison.changes(ofSnapshot: file, since: earlier), "\(edit)")
            #expect(told == ExtentComparison.changedRanges(of: file, since: earlier), "\(edit) at \(place), \(length) pages")
            if told.isEmpty, now.count == before.count { #expect(onlyEarlier == 0, "\(edit)") }
            let common = min(now.count, before.count)
            for page in stride(from: 0, to: common, by: 4096) where !told.contains(where: { $0.contains(Int64(page)) }) {
                let end = told.first { $0.lowerBound > page }.map { min(Int($0.lowerBound), common) } ?? common
                let same = min(end, page + 4096) - page
                let isSame = now.withUnsafeBytes { one in
                    before.withUnsafeBytes { memcmp(one.baseAddress! + page, $0.baseAddress! + page, same) == 0 }
                }
                #expect(isSame, "\(edit): bytes at \(page) differ that were called the same")
            }
            (earlier, before) = (file, now)
        }
        withExtendedLifetime(mount) {}
    }

    @Test func `more extents than one answer holds are all told`() throws {
        // Every second page of 8 MiB: 2048 extents or more; an answer holds 512.
        #expect(shell("cd '\(mount.path)/v' && \(Self.edits[7]) && sync f"))
        let file = try snapshot("many")
        let descriptor = try #require(file.descriptor)
        let told = try descriptor.btrfsExtents()
        #expect(told.count > 1024)
        #expect(told.reduce(0) { $0 + $1.length } == 8 << 20)
        // FIEMAP puts neighbours together.
        #expect(try descriptor.extents().reduce(0) { $0 + $1.length } == 8 << 20)
        withExtendedLifetime(mount) {}
    }

    @Test func `other file systems have no such tree`() throws {
        let other = TestDirectory()
        other.write("f", Array("x".utf8))
        let file = try SourceTree(path: other.path).open(Array("f".utf8))
        #expect(ExtentComparison.changes(ofSnapshot: file, since: file) == nil)
    }
}
