import BackupBase
import Glibc

/// A policy file as it was read: the policy, where each of its values comes
/// from, and what is wrong with it.
public struct PolicyFile: Sendable {
    public let path: String
    /// Nil where there is an error.
    public let policy: Policy?
    /// Every effective value in the table's order.
    public let settings: [PolicySetting]
    /// The effective policy, defaults written out, as JSON text: itself a policy file, without secrets.
    public let document: String
    public let errors: [PolicyIssue]
    public let warnings: [PolicyIssue]

    /// Bytes of a document: it goes into every snapshot.
    public static let documentLimit = 64 << 10

    /// Reads a text.
    public init(path: String, text: String, warnings others: [PolicyIssue] = []) {
        self.path = path
        var reader = PolicyReader(file: path)
        var (policy, settings, document): (Policy?, [PolicySetting], String) = (nil, [], "")
        var issues: [PolicyIssue] = []
        do throws(PolicyFault) {
            let node = try PolicySource(file: path, text: text).compose()
            let root = reader.read(node, .mapping(PolicyKey.root), at: "")
            issues = reader.issues
            if let root {
                let read = Policy(root)
                var checks = PolicyChecks(read, root, file: path)
                checks.run()
                issues += checks.issues
                policy = read
                settings = root.flattened()
                document = root.json.compact
            }
        } catch {
            issues.append(error.issue)
        }
        if document.utf8.count > Self.documentLimit {
            issues.append(
                PolicyIssue(
                    file: path, severity: .error, origin: .file(line: 1, column: 1),
                    message: "the policy is longer than 64 KiB, and each snapshot stores it", suggestion: nil))
        }
        errors = issues.filter { $0.severity == .error }.sorted { Self.place($0) < Self.place($1) }
        warnings = others + issues.filter { $0.severity == .warning }
        self.policy = errors.isEmpty ? policy : nil
        self.settings = settings
        self.document = document
    }

    /// Reads a file. What is wrong with its content is in `errors`.
    /// - Throws: `BackupError` where there is no such file, or it cannot be read
    public init(path: String) throws {
        let file = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY)
        guard file >= 0 else {
            let isMissing = errno == ENOENT
            throw BackupError(
                isMissing ? .usage : .failed,
                "the policy \(printable(path.utf8)) cannot be read: \(String(cString: strerror(errno)))")
        }
        defer { close(file) }
        var status = stat()
        guard fstat(file, &status) == 0, status.st_mode & S_IFMT == S_IFREG else {
            throw BackupError(.usage, "the policy \(printable(path.utf8)) is no file")
        }
        func wrong(_ message: String) -> PolicyIssue {
            PolicyIssue(file: path, severity: .error, origin: .file(line: 1, column: 1), message: message, suggestion: nil)
        }
        guard let bytes = LocalFile.read(path, limit: PolicySource.most) else {
            self.init(path: path, wrong: wrong("the file is larger than 1 MiB"))
            return
        }
        guard let text = String(validating: bytes, as: UTF8.self) else {
            self.init(path: path, wrong: wrong("the file is no UTF-8 text"))
            return
        }
        self.init(path: path, text: text, warnings: Self.exposure(path, status))
    }

    private init(path: String, wrong: PolicyIssue) {
        self.path = path
        (policy, settings, document, errors, warnings) = (nil, [], "", [wrong], [])
    }

    private static func place(_ issue: PolicyIssue) -> (Int, Int) {
        if case .file(let line, let column) = issue.origin { (line, column) } else { (0, 0) }
    }

    /// Whoever may write a policy decides what root runs.
    private static func exposure(_ path: String, _ file: stat) -> [PolicyIssue] {
        func warning(_ what: String, _ fix: String) -> PolicyIssue {
            PolicyIssue(file: path, severity: .warning, origin: .byDefault, message: what, suggestion: fix)
        }
        var found: [PolicyIssue] = []
        if file.st_mode & 0o002 != 0 { found.append(warning("others may write this file", "chmod o-w")) }
        let cut = path.lastIndex(of: "/")
        let directory = cut.map { $0 == path.startIndex ? "/" : String(path[..<$0]) } ?? "."
        var status = stat()
        if stat(directory, &status) == 0, status.st_mode & 0o002 != 0, status.st_mode & S_ISVTX == 0 {
            found.append(warning("others may write to its directory", "chmod o-w \(printable(directory.utf8))"))
        }
        return found
    }
}
