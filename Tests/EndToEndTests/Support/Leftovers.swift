import BackupBase
import Glibc
import TestSupport

/// Directories that tests share, which no reference keeps track of: they go
/// when the process ends.
enum Leftovers {
    private static let paths = Locked<[String]>([])
    private static let registered: Void = {
        atexit { Leftovers.remove() }
    }()

    static func removeAtExit(_ directory: TemporaryDirectory) {
        _ = registered
        paths.withLock { $0.append(directory.path) }
    }

    private static func remove() {
        for path in paths.withLock({ $0 }) { _ = try? Program.run("/bin/rm", ["-rf", path]) }
    }
}
