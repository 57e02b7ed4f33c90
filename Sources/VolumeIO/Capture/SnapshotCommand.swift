import BackupBase
import Glibc
import Subprocess
import SystemPackage

/// A command of somebody else's: an argument list, never a shell, with a bound
/// on time and output and none of our environment but the path.
struct SnapshotCommand {
    var arguments: [String]
    var environment: [String: String] = [:]
    /// Seconds; then it gets SIGTERM, and a second later SIGKILL.
    var timeout = 120.0

    /// Bytes; more is an error.
    var outputLimit = 64 << 10

    init(_ arguments: String...) { self.arguments = arguments }

    /// What it wrote to its standard output.
    /// - Throws: `CaptureError` with the last line of its standard error
    @discardableResult
    func run() async throws -> String {
        var all = environment
        all["PATH"] = getenv("PATH").map { String(cString: $0) } ?? "/usr/sbin:/usr/bin:/sbin:/bin"
        all["LC_ALL"] = "C"
        let name = arguments[0]
        let executable: Executable = name.contains("/") ? .path(FilePath(name)) : .name(name)
        let settings = Dictionary(
            all.map { (Subprocess.Environment.Key(stringLiteral: $0), $1) }, uniquingKeysWith: { $1 })
        let (rest, seconds, limit) = (Array(arguments.dropFirst()), timeout, outputLimit)
        let outcome = try await withThrowingTaskGroup(of: (TerminationStatus, String, String)?.self) { group in
            group.addTask {
                var options = PlatformOptions()
                options.teardownSequence = [.gracefulShutDown(allowedDurationToNextStep: .seconds(1))]
                let result = try await Subprocess.run(
                    executable, arguments: Arguments(rest), environment: .custom(settings), platformOptions: options,
                    output: .string(limit: limit), error: .string(limit: limit))
                return (result.terminationStatus, result.standardOutput, result.standardError)
            }
            group.addTask {
                try await Task.sleep(for: .seconds(seconds))
                return nil
            }
            defer { group.cancelAll() }
            do {
                return try await group.next() ?? nil
            } catch let error as SubprocessError {
                throw CaptureError("\(name) cannot be run: \(error)", hint: "Is it installed, and on the PATH?")
            }
        }
        guard let (status, output, errors) = outcome else {
            throw CaptureError("\(name) took longer than \(formatDuration(timeout))")
        }
        guard status.isSuccess else {
            let last = errors.split(separator: "\n").last.map { ": \(printable($0.utf8))" } ?? ""
            throw CaptureError("\(name) failed (\(status))\(last)")
        }
        return output
    }
}

extension String {
    var trimmed: String {
        var text = self[...]
        while let last = text.last, last.isWhitespace { text.removeLast() }
        return String(text.drop { $0.isWhitespace })
    }
}
