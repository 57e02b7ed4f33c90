import BackupBase
import Glibc

/// What has to go when the test process ends, and no reference keeps track of.
public enum AtExit {
    private static let bodies = Locked<[@Sendable () -> Void]>([])
    private static let registered: Void = {
        atexit { AtExit.runAll() }
    }()

    public static func run(_ body: @escaping @Sendable () -> Void) {
        _ = registered
        bodies.withLock { $0.append(body) }
    }

    public static func remove(_ directory: TemporaryDirectory) {
        let path = directory.path
        run { _ = try? Program.run("/bin/rm", ["-rf", path]) }
    }

    /// The latest first.
    private static func runAll() {
        for body in bodies.withLock({ $0 }).reversed() { body() }
    }
}
