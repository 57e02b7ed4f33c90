import BackupBase
import CLinux
import Glibc

/// A lock on a file, held until `release` or the end of the process.
public final class ProcessLock: Sendable {
    private let file: Int32

    /// - Parameter waits: wait for whoever holds it, instead of throwing `.exists`
    init(path: String, waits: Bool) throws {
        // Made only where it is missing: opening is no change of the directory.
        var file = open(path, O_RDWR | O_CLOEXEC)
        if file < 0, errno == ENOENT { file = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0o600) }
        guard file >= 0 else {
            let code = errno
            // A backup's first write is the lock of its intent.
            throw StoreError(
                code == ENOSPC || code == EDQUOT ? .full : .failed, "lock", path, String(cString: strerror(code)))
        }
        self.file = file
        while bgb_flock(file, waits ? LOCK_EX : LOCK_EX | LOCK_NB) != 0 {
            let code = errno
            if code == EINTR { continue }
            close(file)
            throw StoreError(code == EWOULDBLOCK ? .exists : .failed, "lock", path, String(cString: strerror(code)))
        }
    }

    /// Whether some process holds the lock of a file; a file that is not there nobody holds. Makes none.
    static func isHeld(path: String) throws -> Bool {
        guard access(path, F_OK) == 0 else {
            if errno == ENOENT { return false }
            throw StoreError(.failed, "look at", path, String(cString: strerror(errno)))
        }
        do {
            try ProcessLock(path: path, waits: false).release()
            return false
        } catch let error as StoreError where error.kind == .exists {
            return true
        }
    }

    /// Unlocks by itself: a child that was forked a moment ago may hold the file too.
    public func release() {
        _ = bgb_flock(file, LOCK_UN)
        close(file)
    }
}
