import BackupBase
import Foundation
import TestSupport

/// A block device whose bytes are a file's; gone with its last reference.
final class LoopDevice: Sendable {
    let path: String
    let image: String

    /// Makes the image, all zero, where it is missing.
    init(_ image: String, megabytes: Int) throws {
        self.image = image
        if !FileManager.default.fileExists(atPath: image) { try Program.tool("truncate", ["-s", "\(megabytes)M", image]) }
        let result = try Program.tool("losetup", ["--find", "--show", image])
        guard result.status == 0 else { throw BackupError(.failed, "losetup: \(result.errors)") }
        path = result.output.trimmingCharacters(in: .whitespacesAndNewlines)
    }

    deinit { _ = try? Program.tool("losetup", ["--detach", path]) }

    /// The SHA-256 of the device's first bytes.
    func digest(bytes: Int64) throws -> String {
        let result = try Program.run("/bin/sh", ["-ec", "head -c \(bytes) '\(path)' | sha256sum"])
        guard result.status == 0 else { throw BackupError(.failed, result.errors) }
        return String(result.output.prefix(64))
    }
}
