import BackupBase
import BackupRepository
import CLinux
import Glibc
import QdrantStorage

extension RestoreRun {
    /// What a start on the restored volume may not survive, and a restore does not mind.
    func findWarnings(_ snapshot: Snapshot) {
        if let warning = CPUArchitecture.warning(of: snapshot.record.architecture) { report.warnings.append(warning) }
        // Of a device or image the file system is inside.
        guard snapshot.record.kind == .tree, let unfit = Self.fileSystem(of: options.target) else { return }
        report.warnings.append(
            "the target \(printable(options.target.utf8)) is on \(unfit.rawValue), \(unfit.objection). "
                + "Use ext4, XFS or btrfs for a Qdrant volume.")
    }

    /// Of the directory that is there, or of the one in which it will be made.
    private static func fileSystem(of path: String) -> UnfitFileSystem? {
        var path = path
        var system = statfs()
        while statfs(path, &system) != 0 {
            guard errno == ENOENT, let slash = path.lastIndex(of: "/"), path != "/" else { return nil }
            path = slash == path.startIndex ? "/" : String(path[..<slash])
        }
        return UnfitFileSystem(magic: UInt32(truncatingIfNeeded: system.f_type))
    }
}
