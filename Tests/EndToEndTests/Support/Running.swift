import BackupBase
import Foundation
import Glibc
import TestSupport

/// A program that runs beside the test; killed with its last reference.
final class Running {
    private let process = Process()
    private let folder: TemporaryDirectory

    init(_ path: String, _ arguments: [String], environment: [String: String]) throws {
        folder = try TemporaryDirectory("running")
        for name in ["out", "err"] { try Data().write(to: URL(filePath: folder(name))) }
        process.executableURL = URL(filePath: path)
        process.arguments = arguments
        process.environment = ProcessInfo.processInfo.environment.merging(environment) { $1 }
        process.standardInput = FileHandle.nullDevice
        process.standardOutput = try FileHandle(forWritingTo: URL(filePath: folder("out")))
        process.standardError = try FileHandle(forWritingTo: URL(filePath: folder("err")))
        try process.run()
    }

    var isRunning: Bool { process.isRunning }
    var pid: Int32 { process.processIdentifier }

    /// Bytes that it had written to a disk so far.
    var bytesWritten: Int64 {
        guard let text = try? String(contentsOfFile: "/proc/\(process.processIdentifier)/io", encoding: .utf8) else { return 0 }
        let line = text.split(separator: "\n").first { $0.hasPrefix("write_bytes:") }
        return line.flatMap { Int64($0.split(separator: " ")[1]) } ?? 0
    }

    /// What it printed so far, to either place.
    var printed: String {
        get throws { try ["out", "err"].map { try String(contentsOfFile: folder($0), encoding: .utf8) }.joined() }
    }

    /// Sends a signal and waits for the end.
    /// - Returns: the exit status, 128 + N when a signal ended it
    @discardableResult
    func end(_ signal: Int32 = SIGKILL) -> Int32 {
        if process.isRunning { kill(process.processIdentifier, signal) }
        return wait()
    }

    func wait() -> Int32 {
        process.waitUntilExit()
        return process.terminationReason == .uncaughtSignal ? 128 + process.terminationStatus : process.terminationStatus
    }

    /// Waits until something is so, looking often; fails when the program ends before.
    func wait(until reached: () throws -> Bool) throws {
        while try !reached() {
            guard process.isRunning else { throw BackupError(.failed, "it ended before: \(try printed)") }
            usleep(2000)
        }
    }

    deinit { end() }
}

extension Workspace {
    func start(_ arguments: [String]) throws -> Running {
        try Running(Program.binary, arguments, environment: environment)
    }
}
