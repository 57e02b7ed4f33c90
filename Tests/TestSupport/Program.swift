import BackupBase
import Foundation
import Glibc

/// Programs as tests run them: the built `bgbackup`, scripts, system tools.
public struct Program {
    public struct Result: Sendable {
        /// Exit status; 128 + N for a program ended by signal N.
        public let status: Int32
        public let output: String
        public let errors: String
        public let outputBytes: Data

        /// The last line of the output as JSON: a summary.
        public var summary: [String: Any] { json(output.split(separator: "\n").last.map(String.init) ?? "") }
        public var document: Any? { try? JSONSerialization.jsonObject(with: outputBytes) }

        private func json(_ text: String) -> [String: Any] {
            (try? JSONSerialization.jsonObject(with: Data(text.utf8))) as? [String: Any] ?? [:]
        }
    }

    /// The package's root directory.
    public static let root = URL(filePath: #filePath).deletingLastPathComponent().deletingLastPathComponent()
        .deletingLastPathComponent().path()

    /// `bgbackup` beside the test bundle that runs, or BGBACKUP_BIN.
    public static let binary: String = {
        if let given = ProcessInfo.processInfo.environment["BGBACKUP_BIN"] { return given }
        // …/debug/bgbackupPackageTests.xctest, or a helper of the toolchain with the bundle among its arguments.
        for argument in CommandLine.arguments {
            let folder = URL(filePath: argument).deletingLastPathComponent()
            let candidate = folder.appending(path: "bgbackup").path()
            if FileManager.default.isExecutableFile(atPath: candidate) { return candidate }
        }
        return root + ".build/debug/bgbackup"
    }()

    /// Runs a program to its end. Arguments are bytes as given, not a shell's words.
    @discardableResult
    public static func run(
        _ path: String, _ arguments: [String], environment: [String: String] = [:], input: Data? = nil,
        directory: String? = nil
    ) throws -> Result {
        let process = Process()
        process.executableURL = URL(filePath: path)
        process.arguments = arguments
        var full = ProcessInfo.processInfo.environment
        for name in full.keys where name.hasPrefix("BGBACKUP_") && name != "BGBACKUP_VENV" { full[name] = nil }
        for (name, value) in environment { full[name] = value }
        process.environment = full
        if let directory { process.currentDirectoryURL = URL(filePath: directory) }
        // Files, not pipes: nothing to drain, and no writer that waits.
        let folder = FileManager.default.temporaryDirectory.appending(path: "bgbackup-run-\(UUID().uuidString)")
        try FileManager.default.createDirectory(at: folder, withIntermediateDirectories: true)
        defer { try? FileManager.default.removeItem(at: folder) }
        let (output, errors, source) = (
            folder.appending(path: "out"), folder.appending(path: "err"), folder.appending(path: "in")
        )
        for (url, data) in [(output, Data()), (errors, Data()), (source, input ?? Data())] { try data.write(to: url) }
        process.standardInput = try FileHandle(forReadingFrom: source)
        process.standardOutput = try FileHandle(forWritingTo: output)
        process.standardError = try FileHandle(forWritingTo: errors)
        try process.run()
        process.waitUntilExit()
        let bytes = try Data(contentsOf: output)
        let status = process.terminationReason == .uncaughtSignal ? 128 + process.terminationStatus : process.terminationStatus
        return Result(
            status: status, output: String(decoding: bytes, as: UTF8.self),
            errors: String(decoding: try Data(contentsOf: errors), as: UTF8.self), outputBytes: bytes)
    }

    /// Runs a tool found on PATH, for example `strace`.
    @discardableResult
    public static func tool(_ name: String, _ arguments: [String], environment: [String: String] = [:]) throws -> Result {
        try run("/usr/bin/env", [name] + arguments, environment: environment)
    }

    public static func hasTool(_ name: String) -> Bool {
        (try? run("/bin/sh", ["-c", "command -v \(name)"]).status) == 0
    }

    public static var isRoot: Bool { geteuid() == 0 }
}

/// A directory that goes away with its last reference.
public final class TemporaryDirectory: @unchecked Sendable {
    // Unchecked: immutable but for `keep`, which a test sets for itself.
    public let path: String
    public var keep = false

    /// - Parameter inMemory: whether a memory file system will do, where there is one with room for much
    public init(_ label: String = "test", inMemory: Bool = false) throws {
        let environment = ProcessInfo.processInfo.environment["TMPDIR"]
        let base = environment ?? (inMemory && Self.hasRoomInMemory ? "/dev/shm" : "/var/tmp")
        path = "\(base)/bgbackup-\(label)-\(UUID().uuidString.prefix(8))"
        try FileManager.default.createDirectory(atPath: path, withIntermediateDirectories: true)
    }

    private static let hasRoomInMemory: Bool = {
        var info = statvfs()
        return statvfs("/dev/shm", &info) == 0 && UInt64(info.f_bavail) * UInt64(info.f_frsize) > 2 << 30
    }()

    deinit { if !keep { _ = try? Program.run("/bin/rm", ["-rf", path]) } }

    public func callAsFunction(_ name: String) -> String { "\(path)/\(name)" }
}

/// Volumes that the fixture script makes with the real engine.
public enum Fixture {
    public static let script = Program.root + "scripts/qdrant_volume.py"

    /// Whether `qdrant-edge-py` is there or can be installed; says so when not.
    public static let engineIsAvailable: Bool = {
        guard let result = try? Program.run("/usr/bin/env", ["python3", script, "create", "--help"]) else { return false }
        let probe = try? TemporaryDirectory("probe")
        guard result.status == 0, let probe,
            let made = try? Program.run(
                "/usr/bin/env", ["python3", script, "create", probe("v"), "--points", "10", "--dim", "8"])
        else { return false }
        if made.status != 0 { print("SKIPPED: no Qdrant engine: \(made.errors)") }
        return made.status == 0
    }()

    @discardableResult
    public static func run(_ arguments: String...) throws -> Program.Result {
        let result = try Program.run("/usr/bin/env", ["python3", script] + arguments)
        guard result.status == 0 else { throw BackupError(.failed, "\(arguments): \(result.errors)") }
        return result
    }

    /// The tree as text, for comparing byte for byte: every name, metadata, digest and hole.
    public static func hash(_ path: String, scratch: Bool = false, omitting fields: [String] = []) throws -> String {
        let result = try Program.run(
            "/usr/bin/env",
            ["python3", script, "hash", path] + (scratch ? [] : ["--no-scratch"]) + fields.flatMap { ["--omit", $0] })
        guard result.status == 0 else { throw BackupError(.failed, "hash \(path): \(result.errors)") }
        return result.output
    }
}

/// A file system of its own on a loop device; gone with its last reference.
public final class LoopMount: Sendable {
    public let path: String
    public let image: String

    /// Throws where this process may not mount or the tools are missing.
    public init(_ type: String, megabytes: Int, in directory: TemporaryDirectory, name: String = "mount") throws {
        image = directory("\(name).img")
        path = directory(name)
        try FileManager.default.createDirectory(atPath: path, withIntermediateDirectories: true)
        try Program.tool("truncate", ["-s", "\(megabytes)M", image])
        let quiet = ["ext4": ["-q", "-F"], "xfs": ["-q", "-f"], "btrfs": ["-q", "-f"]][type] ?? []
        for (tool, arguments) in [("mkfs.\(type)", quiet + [image]), ("mount", ["-o", "loop", image, path])] {
            let result = try Program.tool(tool, arguments)
            guard result.status == 0 else { throw BackupError(.failed, "\(tool): \(result.errors)") }
        }
    }

    deinit { _ = try? Program.tool("umount", ["-l", path]) }
}
