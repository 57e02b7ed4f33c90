import BackupBase
import Glibc

/// Where policies are: a directory of YAML files.
public struct PolicyLibrary: Sendable {
    public let directory: String

    /// - Parameter configuration: BGBACKUP_CONFIG; nil: /etc/bgbackup
    public init(configuration: String?) { directory = "\(configuration ?? "/etc/bgbackup")/policies" }

    static let endings = [".yaml", ".yml"]

    /// Paths of all of them, by name.
    public var files: [String] {
        LocalFile.names(in: directory).filter { name in !name.hasPrefix(".") && Self.endings.contains { name.hasSuffix($0) } }
            .sorted().map { "\(directory)/\($0)" }
    }

    /// The file that a name or a path means.
    /// - Throws: `BackupError` where there is none
    public func path(of name: String) throws -> String {
        if name.contains("/") || Self.endings.contains(where: { name.hasSuffix($0) }) { return name }
        for ending in Self.endings where access("\(directory)/\(name)\(ending)", F_OK) == 0 {
            return "\(directory)/\(name)\(ending)"
        }
        // A file may be called otherwise than the policy in it.
        for file in files where (try? PolicyFile(path: file))?.policy?.name == name { return file }
        let names = files.map { file in String(file.dropFirst(directory.count + 1).prefix { $0 != "." }) }
        let near = nearest(name, among: names).map { "Did you mean '\($0)'?" }
        throw BackupError(
            .usage, "there is no policy '\(printable(name.utf8))' in \(directory)",
            hint: near ?? (names.isEmpty ? "Put it there, or give its path." : "There are: \(names.joined(separator: ", "))."))
    }

    /// The policy of a name or a path.
    /// - Parameter report: gets each error and warning
    /// - Throws: `BackupError` of code `wrong-policy` where it has errors
    public func load(_ name: String, report: (PolicyIssue) -> Void) throws -> (policy: Policy, file: PolicyFile) {
        let file = try PolicyFile(path: try path(of: name))
        for issue in file.warnings { report(issue) }
        guard let policy = file.policy else {
            for issue in file.errors.prefix(PolicyIssue.most) { report(issue) }
            throw file.failure
        }
        return (policy, file)
    }
}

extension PolicyFile {
    /// That it has errors, as one error.
    public var failure: BackupError {
        let count = errors.count == 1 ? "1 error" : "\(errors.count) errors"
        return BackupError(
            .wrongPolicy, "the policy \(printable(path.utf8)) has \(count)",
            hint: errors.count > PolicyIssue.most ? "The first \(PolicyIssue.most) are listed." : nil)
    }
}
