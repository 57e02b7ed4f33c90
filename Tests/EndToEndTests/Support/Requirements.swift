import Foundation
import TestSupport
import Testing

/// What some tests need of the machine; where it is missing they are skipped and say so.
enum Requirement {
    /// Owners, devices and mounts need root.
    static let root = Program.isRoot

    /// Whether a file system of this type can be made and mounted here.
    static func mounts(_ type: String) -> Bool {
        guard root, Program.hasTool("mkfs.\(type)"), let directory = try? TemporaryDirectory("probe") else { return false }
        return (try? LoopMount(type, megabytes: 320, in: directory)) != nil
    }

    static let ext4 = mounts("ext4")
    static let mountable: [String] = ["ext4", "xfs", "btrfs"].filter { $0 == "ext4" ? ext4 : mounts($0) }

    /// Whether block devices can be made of files.
    static let loopDevices: Bool = {
        guard root, let directory = try? TemporaryDirectory("probe") else { return false }
        return (try? LoopDevice(directory("image"), megabytes: 1)) != nil
    }()

    static let accessLists = Program.hasTool("setfacl")
    static let pythonCryptography = (try? Program.tool("python3", ["-c", "import cryptography"]).status) == 0

    /// BGBACKUP_TEST_LONG=1 makes some tests as large as the real thing.
    static let long = ProcessInfo.processInfo.environment["BGBACKUP_TEST_LONG"] == "1"
}

extension Trait where Self == ConditionTrait {
    /// Skipped where only one node may write to a repository.
    static var severalWriters: Self {
        .enabled(if: TestStore.hasConditions, "rclone knows no conditional writes: one node writes to one prefix")
    }
}
