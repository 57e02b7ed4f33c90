import BackupBase
import CLinux
import Glibc

/// A small file with keys, profiles or a token in it, read whole.
enum CredentialFile {
    /// Bytes of a file at the most: far more than any such file has.
    static let limit = 1 << 20

    /// Nil where there is no such file.
    /// - Parameter what: what the file is, for errors: "the key file", a variable's name
    static func read(_ path: String, what: String) throws -> [UInt8]? {
        // Without O_NONBLOCK a named pipe would hold a thread for ever.
        let file = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK)
        if file < 0 {
            if errno == ENOENT || errno == ENOTDIR { return nil }
            throw unreadable(path, what, String(cString: strerror(errno)))
        }
        defer { close(file) }
        var status = stat()
        guard fstat(file, &status) == 0 else { throw unreadable(path, what, String(cString: strerror(errno))) }
        // /dev/null is how AWS tools are told to use no file.
        if status.st_mode & S_IFMT == S_IFCHR, path == "/dev/null" { return [] }
        guard status.st_mode & S_IFMT == S_IFREG else { throw unreadable(path, what, "it is no regular file") }
        return try contents(file, path, what)
    }

    /// Whether the file's directory can be looked into.
    static func isReachable(_ path: String) -> Bool {
        guard let slash = path.lastIndex(of: "/") else { return true }
        return access(slash == path.startIndex ? "/" : String(path[..<slash]), X_OK) == 0
    }

    /// The file's bytes; a file that is not there is an error.
    static func require(_ path: String, what: String) throws -> [UInt8] {
        guard let bytes = try read(path, what: what) else { throw unreadable(path, what, String(cString: strerror(ENOENT))) }
        return bytes
    }

    /// The file's only line, without the white space around it.
    static func requireToken(_ path: String, what: String) throws -> SecretText {
        let bytes = try require(path, what: what)
        let token = String(decoding: bytes, as: UTF8.self).trimmingSpace()
        guard Credentials.isHeaderSafe(token) else {
            throw CredentialError(
                "\(what), '\(path)', does not hold a token of printable characters in one line",
                hint: "Check what writes this file.")
        }
        return SecretText(token)
    }

    private static func contents(_ file: Int32, _ path: String, _ what: String) throws -> [UInt8] {
        var bytes: [UInt8] = []
        var piece = [UInt8](repeating: 0, count: 16384)
        while true {
            let count = Glibc.read(file, &piece, piece.count)
            if count < 0 && errno == EINTR { continue }
            if count < 0 { throw unreadable(path, what, String(cString: strerror(errno))) }
            if count == 0 { return bytes }
            bytes += piece[..<count]
            if bytes.count > limit { throw unreadable(path, what, "it is larger than \(limit >> 20) MiB") }
        }
    }

    private static func unreadable(_ path: String, _ what: String, _ why: String) -> CredentialError {
        CredentialError(
            "cannot read \(what), '\(path)': \(why)",
            hint: "Check the path, and that the user who runs bgbackup may read the file.")
    }
}

extension StringProtocol {
    /// Without spaces, tabs and line ends around it. By scalars: "\r\n" is one `Character`.
    func trimmingSpace() -> String {
        let isSpace: (Unicode.Scalar) -> Bool = { $0 == " " || (0x09...0x0d).contains($0.value) }
        let start = unicodeScalars.drop(while: isSpace)
        guard let last = start.lastIndex(where: { !isSpace($0) }) else { return "" }
        return String(String.UnicodeScalarView(start[...last]))
    }
}
