import BackupBase
import Glibc

/// Why there is no fresh file system, or one does not go away.
public struct LoopError: Error, Sendable, CustomStringConvertible {
    public let description: String
    public let hint: String?

    init(_ description: String, hint: String? = nil) {
        self.description = description
        self.hint = hint
    }
}

/// A fresh file system in an image file, mounted: a volume that nobody else uses.
public struct LoopVolume: Sendable {
    public enum Kind: String, Sendable, CaseIterable { case ext4, xfs, btrfs }

    /// Where it is mounted.
    public let path: String

    /// Makes the image, sparse, and mounts it; what fails leaves nothing mounted.
    /// - Parameters:
    ///   - image: path of a file that is not there yet
    ///   - path: of an empty directory
    ///   - size: bytes
    /// - Throws: `LoopError` in the words of the command that failed
    public init(image: String, at path: String, kind: Kind, size: Int64) async throws(LoopError) {
        self.path = path
        let file = open(image, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0o600)
        guard file >= 0 else { throw LoopError("cannot make \(image): \(String(cString: strerror(errno)))") }
        let status = ftruncate(file, off_t(max(size, Self.least)))
        close(file)
        guard status == 0 else { throw LoopError("cannot make \(image) so large: \(String(cString: strerror(errno)))") }
        let quiet = kind == .ext4 ? ["-q", "-F", "-m", "0"] : ["-q", "-f"]
        var make = SnapshotCommand("mkfs.\(kind.rawValue)")
        make.arguments += quiet + [image]
        try await Self.run(make)
        try await Self.run(SnapshotCommand("mount", "-o", "loop,nosuid,nodev,noexec", image, path))
    }

    /// XFS takes no less.
    private static let least: Int64 = 320 << 20

    private static func run(_ command: SnapshotCommand) async throws(LoopError) {
        do { try await command.run() } catch {
            throw LoopError("\(error)", hint: (error as? CaptureError)?.hint)
        }
    }

    /// Unmounts whatever is mounted at a path; nothing where there is nothing.
    /// - Throws: `LoopError` where it is still in use
    public static func unmount(_ path: String) async throws(LoopError) {
        // The kernel gives back the loop device with the mount.
        while MountEntry(of: path)?.point == path { try await run(SnapshotCommand("umount", path)) }
    }
}
