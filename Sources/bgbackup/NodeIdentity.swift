import BackupBase
import Glibc

/// 16 random bytes that a node keeps for itself, in its state directory. Not the
/// host's name: hosts that share a name once cost kopia's users their lock (#1087).
enum NodeIdentity {
    /// The identity in hexadecimal, made at the first call; nil where it cannot be kept.
    static func id(in directory: String, ambient: Ambient = .system) -> String? {
        let path = "\(directory)/writer-id"
        if let known = read(path) { return known }
        var made = ""
        for part in directory.split(separator: "/") {
            made += (made.isEmpty && !directory.hasPrefix("/") ? "" : "/") + part
            mkdir(made, 0o700)
        }
        let aside = "\(path).\(ambient.random(8).hex)"
        let text = Array("\(ambient.random(16).hex)\n".utf8)
        let file = open(aside, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0o600)
        guard file >= 0 else { return nil }
        let whole = write(file, text, text.count) == text.count && fsync(file) == 0
        close(file)
        // Linked, not renamed: of two runs that make one, the first one's stays.
        if whole { link(aside, path) }
        unlink(aside)
        return read(path)
    }

    private static func read(_ path: String) -> String? {
        let file = open(path, O_RDONLY | O_CLOEXEC)
        guard file >= 0 else { return nil }
        defer { close(file) }
        var bytes = [UInt8](repeating: 0, count: 64)
        let count = Glibc.read(file, &bytes, bytes.count)
        let text = String(decoding: bytes.prefix(max(count, 0)), as: UTF8.self).filter { !$0.isWhitespace }
        return bytesFromHex(text)?.count == 16 ? text : nil
    }
}
