import BackupBase
import CLinux
import Glibc

/// Which way a volume will be captured, and why.
public struct CapturePlan: Sendable {
    public let parts: VolumeParts
    /// What can be tried, the best first. `auto` may have several; a method that
    /// the operator named is alone.
    public let methods: [CaptureMethod]
    /// What was found, as text for the operator: one sentence for each method passed over.
    public let reasons: [String]

    /// - Parameter requested: nil chooses
    public init(path: String, requested: CaptureMethod?) throws {
        let parts: VolumeParts
        do throws(SourceError) { parts = try VolumeParts(path: path) } catch {
            throw CaptureError("the volume cannot be looked at", error)
        }
        self.parts = parts
        if let requested {
            methods = [requested]
            reasons = []
            return
        }
        var (methods, reasons): ([CaptureMethod], [String]) = ([], [])
        let kinds = parts.all.map { FileSystemKind($0.directory) }
        if kinds.allSatisfy({ $0 == .btrfs }) { methods.append(.btrfs) } else { reasons.append("not all of it is on btrfs") }
        if kinds.allSatisfy({ $0 == .zfs }), parts.all.count == 1 { methods.append(.zfs) }
        if kinds.allSatisfy({ $0 == .xfs || $0 == .btrfs }) {
            methods.append(.reflink)
        } else {
            reasons.append("not all of it is on a file system with reflinks")
        }
        methods.append(.pause)
        self.methods = methods
        self.reasons = reasons
    }
}

/// What a directory is on.
public enum FileSystemKind: Sendable {
    case btrfs, xfs, zfs, memory, other

    public init(_ path: String) {
        var info = statfs()
        guard statfs(path, &info) == 0 else {
            self = .other
            return
        }
        switch UInt32(truncatingIfNeeded: info.f_type) {
        case 0x9123_683e: self = .btrfs
        case 0x5846_5342: self = .xfs
        case 0x2fc1_2fc1: self = .zfs
        case 0x0102_1994, 0x8584_58f6: self = .memory
        default: self = .other
        }
    }
}
