import CLinux
import Glibc

/// Finds out whether anything was written to a block device or image file while
/// it was read. A device has no time stamps; the kernel counts its writes.
public struct DeviceWatch {
    private let file: Descriptor
    private let before: Mark

    private enum Mark: Equatable {
        case file(FileStat)
        /// Sectors written and discarded since boot.
        case device(written: UInt64, discarded: UInt64)
    }

    /// Nil where it cannot be watched.
    public init?(path: String) {
        guard let file = try? Descriptor(system("open", { open(path, O_RDONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC) })),
            let mark = Self.mark(file)
        else { return nil }
        self.file = file
        before = mark
    }

    /// What was written before is on the device first, so that it is counted before.
    private static func mark(_ file: Descriptor) -> Mark? {
        guard let stat = try? file.stat() else { return nil }
        if stat.kind == .file {
            guard (try? file.clean()) != nil, let stat = try? file.stat() else { return nil }
            return .file(stat)
        }
        var value = Glibc.stat()
        guard (try? file.call("sync", { fsync($0) })) != nil, (try? file.call("stat", { fstat($0, &value) })) != nil,
            let text = smallFile(
                "/sys/dev/block/\(bgb_device_major(UInt64(value.st_rdev))):\(bgb_device_minor(UInt64(value.st_rdev)))/stat")
        else { return nil }
        let fields = text.split(separator: " ").compactMap { UInt64($0.filter(\.isNumber)) }
        guard fields.count >= 11 else { return nil }
        return .device(written: fields[6], discarded: fields.count > 13 ? fields[13] : 0)
    }

    /// Whether nothing was written since the watch began.
    public var sawNoWrite: Bool { Self.mark(file) == before }
}
