import CLinux
import Glibc

/// Remembers in a capture's area that file systems are being frozen, for a run
/// that comes after one that was killed together with its guard.
struct FreezeMarker {
    private let path: String

    init(directory: String) { path = "\(directory)/frozen" }

    func set(_ directories: [String]) throws(CaptureError) {
        let file = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0o600)
        guard file >= 0 else { throw CaptureError(path, SystemError(operation: "write", errno: errno)) }
        defer { close(file) }
        let bytes = Array(directories.joined(separator: "\n").utf8)
        guard write(file, bytes, bytes.count) == bytes.count, fsync(file) == 0 else {
            throw CaptureError(path, SystemError(operation: "write", errno: errno))
        }
    }

    func clear() { unlink(path) }

    /// Thaws what it names.
    /// - Returns: the directories whose file systems were frozen
    func thaw() -> [String] {
        guard let text = smallFile(path) else { return [] }
        var thawed: [String] = []
        for line in text.split(separator: "\n").map(String.init) {
            let directory = open(line, O_RDONLY | O_DIRECTORY | O_CLOEXEC)
            guard directory >= 0 else { continue }
            if bgb_thaw(directory) == 0 { thawed.append(line) }
            close(directory)
        }
        clear()
        return thawed
    }
}
