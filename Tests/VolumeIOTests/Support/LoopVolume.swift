import Glibc
import Testing

/// A file system of a given type in an image file, mounted.
final class LoopVolume: Sendable {
    private let image: TestDirectory
    var path: String { image.path + "/mount" }

    /// - Parameter type: of mkfs; "ext4 -b 1024" is ext4 with blocks smaller than a page
    init?(_ type: String) {
        image = TestDirectory()
        let quiet = type.hasPrefix("ext4") ? "-q -F" : "-q -f"
        guard
            shell(
                """
                cd '\(image.path)' && mkdir mount && truncate -s 600M image &&
                /sbin/mkfs.\(type) \(quiet) image && mount -o loop image mount
                """)
        else { return nil }
    }

    deinit { shell("umount '\(path)' || umount -l '\(path)'") }

    /// The types that can be made and mounted here.
    static let available: [String] =
        isRoot ? ["ext4", "ext4 -b 1024", "xfs", "btrfs"].filter { LoopVolume($0) != nil } : []
    static let condition = ConditionTrait.enabled(if: !available.isEmpty, "needs root, loop mounts and mkfs")
}
