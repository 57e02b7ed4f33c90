import Testing

@testable import QdrantStorage

@Suite("File systems that no volume should be on")
struct UnfitFileSystemTests {
    private static let known: [(UInt32, UnfitFileSystem)] = [
        (0x6969, .nfs), (0xff53_4d42, .smb), (0xfe53_4d42, .smb), (0x6573_5546, .fuse), (0x0102_1997, .plan9),
        (0x00c3_6400, .ceph), (0x794c_7630, .overlay),
    ]

    @Test(arguments: known)
    func `Each is known by its number`(magic: UInt32, kind: UnfitFileSystem) {
        #expect(UnfitFileSystem(magic: magic) == kind)
    }

    @Test(arguments: [UInt32(0xef53), 0x5846_5342, 0x9123_683e, 0x2fc1_2fc1, 0x0102_1994, 0])
    func `ext4, XFS, btrfs, ZFS and memory are not warned of`(magic: UInt32) {
        #expect(UnfitFileSystem(magic: magic) == nil)
    }
}
