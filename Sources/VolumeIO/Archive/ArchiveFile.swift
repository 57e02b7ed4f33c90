import BackupBase
import Glibc

/// Where an archive is written: a file that gets its name when it is whole, or
/// what is there and no file (a pipe, a tape), or standard output.
public final class ArchiveFile {
    private let descriptor: Int32
    private let path: String?
    private let aside: String?
    private var isKept = false

    /// - Parameter path: nil for standard output
    public init(path: String?) throws(TargetError) {
        self.path = path
        guard let path else {
            (descriptor, aside) = (STDOUT_FILENO, nil)
            return
        }
        var status = stat()
        if stat(path, &status) == 0, status.st_mode & S_IFMT != S_IFREG {
            (descriptor, aside) = (open(path, O_WRONLY | O_CLOEXEC), nil)
        } else {
            let name = "\(path).partial-\(getpid())"
            // Its content left the repository's seal: for the owner only.
            (descriptor, aside) = (open(name, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0o600), name)
        }
        guard descriptor >= 0 else { throw TargetError(path: Array(path.utf8), operation: "create", errno: errno) }
    }

    deinit {
        if path != nil { close(descriptor) }
        if let aside, !isKept { unlink(aside) }
    }

    public func write(_ bytes: UnsafeRawBufferPointer) throws(TargetError) {
        var done = 0
        while done < bytes.count {
            let written = Glibc.write(descriptor, bytes.baseAddress! + done, bytes.count - done)
            if written < 0, errno == EINTR { continue }
            guard written > 0 else { throw failure("write") }
            done += written
        }
    }

    /// Forces everything to the disk and gives the file its name.
    public func keep() throws(TargetError) {
        guard let aside, let path else { return }
        guard fsync(descriptor) == 0 else { throw failure("force to the disk") }
        guard rename(aside, path) == 0 else { throw failure("rename") }
        isKept = true
        let folder = path.lastIndex(of: "/").map { path[..<$0].isEmpty ? "/" : String(path[..<$0]) } ?? "."
        let directory = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC)
        if directory >= 0 {
            fsync(directory)
            close(directory)
        }
    }

    /// Where nothing can be taken back: writes what no tar takes for the end of
    /// an archive, so that one that was cut off between two members is noticed too.
    public func spoil() {
        guard aside == nil else { return }
        var block = Array("bgbackup: the export failed; this archive is not whole\n".utf8)
        block += [UInt8](repeating: 0x21, count: 512 - block.count)
        block.withUnsafeBytes { try? write($0) }
    }

    private func failure(_ operation: String) -> TargetError {
        TargetError(path: Array((path ?? "standard output").utf8), operation: operation, errno: errno)
    }
}
