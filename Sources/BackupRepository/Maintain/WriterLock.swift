import BackupBase
import CLinux
import Glibc

/// Keeps the processes of one node apart where the store cannot: a lock on a
/// file of the node's, held until `release` or the end of the process.
struct WriterLock {
    private let file: Int32

    /// Throws `.busy` where another process of this node holds it. Nil where
    /// the node has no place for it.
    init?(_ identity: WriterIdentity?) throws {
        guard let path = identity?.lockPath else { return nil }
        file = Glibc.open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0o600)
        guard file >= 0 else {
            throw BackupError(
                .busy, "cannot lock \(path): \(String(cString: strerror(errno)))",
                hint:
                    "The store lets one process write at a time, and this file tells which. Set BGBACKUP_STATE_DIR to a directory that can be written."
            )
        }
        while bgb_flock(file, LOCK_EX | LOCK_NB) != 0 {
            let code = errno
            if code == EINTR { continue }
            close(file)
            throw BackupError(
                .busy, "another process of this node is at work: it holds \(path)",
                hint: code == EWOULDBLOCK ? "Wait for that run to end." : String(cString: strerror(code)))
        }
    }

    /// Unlocks by itself: a child that was forked a moment ago may hold the file too.
    func release() {
        _ = bgb_flock(file, LOCK_UN)
        close(file)
    }
}
