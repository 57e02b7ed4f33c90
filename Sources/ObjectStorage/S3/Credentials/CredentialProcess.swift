import BackupBase
import Glibc

/// A program that prints keys as JSON (AWS SDKs and Tools Reference Guide,
/// "Process credential provider"). It is started without a shell, with the
/// environment of this process; what it says on standard error is not shown,
/// since nobody knows what is in it.
struct CredentialProcess: Sendable {
    private static let outputLimit = 64 << 10

    var command: String
    var profile: String
    /// Seconds it may take.
    var timeLimit: Double

    func credentials() async throws -> Credentials {
        let arguments = try words()
        // Of the command only its first word is ever shown: the others may be secrets.
        let name = "the credential_process of profile '\(profile)' ('\(arguments[0].safeToShow(limit: 200))')"
        let output = try await run(arguments, name)
        guard let fields = KeyFields(json: output) else {
            throw CredentialError("\(name) printed no JSON object with keys", hint: Self.hint)
        }
        guard fields.version == 1 else {
            throw CredentialError("\(name) printed keys whose Version is not 1", hint: Self.hint)
        }
        return try fields.credentials(source: "profile '\(profile)' (credential_process)", origin: "the output of \(name)")
    }

    private static let hint = "Run the command in a terminal as the user who runs bgbackup."

    private func words() throws -> [String] {
        let what = "the credential_process of profile '\(profile)'"
        do {
            let words = try ShellWords.split(command)
            guard let first = words.first, !first.isEmpty, !command.utf8.contains(0) else {
                throw CredentialError("\(what) names no program", hint: "Write the program's path first.")
            }
            return words
        } catch let error as ShellWords.Malformed {
            throw CredentialError("\(what) \(error.rawValue)", hint: "It is split into words as a shell does it.")
        }
    }

    private func run(_ arguments: [String], _ name: String) async throws -> [UInt8] {
        let cancelled = Locked(false)
        let ending = try await withTaskCancellationHandler {
            try await Self.onOwnThread { resume in
                switch ChildProcess.start(arguments) {
                case .failure(let error): resume(.notStarted(error.number))
                case .success(let child):
                    let limit = ChildProcess.Limit(seconds: timeLimit, bytes: Self.outputLimit)
                    resume(child.watch(limit) { cancelled.withLock { $0 } })
                    child.reap()
                }
            }
        } onCancel: {
            cancelled.withLock { $0 = true }
        }
        switch ending {
        case .exited(0, let output): return output
        case .exited(let status, _): throw CredentialError("\(name) ended with status \(status)", hint: Self.hint)
        case .signalled(let signal): throw CredentialError("\(name) was ended by signal \(signal)", hint: Self.hint)
        case .notStarted(let number):
            throw CredentialError("\(name) cannot be started: \(String(cString: strerror(number)))", hint: Self.hint)
        case .tooSlow:
            throw CredentialError("\(name) did not end within \(formatDuration(timeLimit))", hint: Self.hint)
        case .tooMuch:
            throw CredentialError("\(name) printed more than \(formatBytes(Int64(Self.outputLimit)))", hint: Self.hint)
        case .cancelled: throw CancellationError()
        }
    }

    /// Runs `body` on a thread that ends with it: waiting for a program must not
    /// hold one of the few threads that tasks share.
    private static func onOwnThread(
        _ body: @escaping @Sendable (_ resume: (ChildProcess.Ending) -> Void) -> Void
    ) async throws -> ChildProcess.Ending {
        try await withCheckedThrowingContinuation { (continuation: CheckedContinuation<ChildProcess.Ending, any Error>) in
            let work = Unmanaged.passRetained(ThreadBody { body { continuation.resume(returning: $0) } })
            var thread = pthread_t()
            let status = pthread_create(
                &thread, nil,
                { argument in
                    Unmanaged<ThreadBody>.fromOpaque(argument!).takeRetainedValue().run()
                    return nil
                }, work.toOpaque())
            if status == 0 {
                pthread_detach(thread)
            } else {
                work.release()
                continuation.resume(returning: .notStarted(status))
            }
        }
    }

    private final class ThreadBody: Sendable {
        let run: @Sendable () -> Void
        init(_ run: @escaping @Sendable () -> Void) { self.run = run }
    }
}
