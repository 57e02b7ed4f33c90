import Foundation
import Glibc
import TestSupport

/// A program that runs beside the test, on a thread of its own: the
/// cooperative pool has as many threads as cores and must not wait.
final class Running: @unchecked Sendable {
    // Unchecked: `result` is touched with `done` held or waited for.
    private let done = DispatchSemaphore(value: 0)
    private var result: Result<Program.Result, any Error>?

    init(_ body: @escaping @Sendable () throws -> Program.Result) {
        let thread = Thread { [self] in
            result = Result { try body() }
            done.signal()
        }
        thread.stackSize = 4 << 20
        thread.start()
    }

    /// The result; fails after `seconds`.
    func wait(seconds: Double = 120) throws -> Program.Result {
        guard done.wait(timeout: .now() + seconds) == .success else { throw Late() }
        defer { done.signal() }
        return try result!.get()
    }

    struct Late: Error {}
}

/// Waits until there is a file; fails after a minute.
func waitForFile(_ path: String) throws {
    for _ in 0..<12000 {
        if access(path, F_OK) == 0 { return }
        usleep(5000)
    }
    throw Running.Late()
}

extension Workspace {
    /// Runs `bgbackup` under a small parent that tells the peak of its resident
    /// memory. (The test process's own would taint it: a child's peak counts
    /// from before exec.)
    /// - Returns: the result, and KiB
    func measured(_ arguments: [String], extra: [String: String] = [:]) throws -> (result: Program.Result, peak: Int) {
        let report = path("peak-\(UUID().uuidString)")
        let script = """
            import resource, subprocess, sys
            status = subprocess.run(sys.argv[2:]).returncode
            open(sys.argv[1], "w").write(str(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss))
            sys.exit(status if status >= 0 else 128 - status)
            """
        let result = try Program.run(
            "/usr/bin/env", ["python3", "-c", script, report, Program.binary] + arguments,
            environment: environment.merging(extra) { $1 }, directory: directory.path)
        return (result, Int(try String(contentsOfFile: report, encoding: .utf8)) ?? .max)
    }

    /// The same repository, state and cache in a place of their own.
    func copy(_ label: String) throws -> Workspace {
        var other = try Workspace(label, initialize: false)
        for name in ["repository", "state", "cache", "writer.key"] where access(path(name), F_OK) == 0 {
            try Program.run("/bin/cp", ["-a", path(name), other.path(name)])
        }
        if access(other.path("writer.key"), F_OK) == 0 {
            other.environment["BGBACKUP_WRITER_KEY_FILE"] = other.path("writer.key")
        }
        return other
    }

    /// Restores a snapshot and returns its tree as text.
    func restored(_ snapshot: String, to target: String, _ more: String...) throws -> String {
        let result = try run(["restore", snapshot, "--target", path(target)] + more)
        guard result.status == 0 else { return "restore ended with \(result.status): \(result.errors)" }
        return try Fixture.hash(path(target))
    }

    var packBytes: Int {
        objects("packs").reduce(0) { sum, name in
            let size = try? FileManager.default.attributesOfItem(atPath: "\(repository)/\(name)")[.size] as? NSNumber
            return sum + (size?.intValue ?? 0)
        }
    }

    /// Names of the repository's objects, below `v1/`.
    func objects(_ kind: String) -> [String] {
        let folder = "\(repository)/v1/\(kind)"
        let all = FileManager.default.subpaths(atPath: folder) ?? []
        var isDirectory: ObjCBool = false
        return all.filter {
            FileManager.default.fileExists(atPath: "\(folder)/\($0)", isDirectory: &isDirectory) && !isDirectory.boolValue
        }.sorted().map { "v1/\(kind)/\($0)" }
    }
}

enum LoopDevices {
    static let areAvailable: Bool = {
        guard Program.isRoot, Program.hasTool("mkfs.ext4"), let folder = try? TemporaryDirectory("mount") else { return false }
        return (try? LoopMount("ext4", megabytes: 8, in: folder)) != nil
    }()
}
