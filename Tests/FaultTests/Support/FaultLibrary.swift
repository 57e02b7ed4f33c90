import Foundation
import TestSupport

/// A library that stands between a program and its system calls (LD_PRELOAD):
/// it counts those that change something, and kills, tears, fails or pauses at
/// the one a test asks for.
///
/// strace counts injections per thread; this counts per process, so that "the
/// n-th change" means one moment and a loop over n meets every one of them.
/// `FaultLibraryTests` holds it against strace's own list.
struct Faults: Sendable {
    /// A call that changed something, or was about to.
    struct Call: Sendable, CustomStringConvertible {
        let number: Int
        let kind: String
        let path: String
        var description: String { "\(number) \(kind) \(path.split(separator: "/").suffix(2).joined(separator: "/"))" }
    }

    private(set) var environment: [String: String]

    /// - Parameter root: only calls on paths below it count.
    init(below root: String) throws {
        environment = ["LD_PRELOAD": try Self.library.get(), "FAULT_ROOT": root]
    }

    /// Ends the process in place of the n-th change; a write is done by half first when `torn`.
    func killing(at number: Int, torn: Bool = false) -> Faults {
        with(["FAULT_KILL": "\(number)", "FAULT_TEAR": torn ? "1" : "0"])
    }

    /// Fails the n-th matching call and all after it; `kinds` and parts of paths are joined by "|".
    func failing(_ kinds: String, on path: String, from number: Int = 1, with code: Int32) -> Faults {
        with(["FAULT_FAIL": "\(kinds),\(number),\(code),\(path)"])
    }

    /// Makes `file` at the n-th matching call, and waits there until it is removed.
    func pausing(_ kinds: String, on path: String, at number: Int = 1, file: String) -> Faults {
        with(["FAULT_PAUSE": "\(kinds),\(number),0,\(path)", "FAULT_PAUSE_FILE": file])
    }

    func logging(to file: String) -> Faults { with(["FAULT_LOG": file]) }

    private func with(_ more: [String: String]) -> Faults {
        var copy = self
        copy.environment.merge(more) { $1 }
        return copy
    }

    /// The calls of a run that logged to `file`.
    static func calls(_ file: String) throws -> [Call] {
        try String(contentsOfFile: file, encoding: .utf8).split(separator: "\n").compactMap { line in
            let words = line.split(separator: " ", maxSplits: 2).map(String.init)
            guard words.count == 3, let number = Int(words[0]) else { return nil }
            return Call(number: number, kind: words[1], path: words[2])
        }.sorted { $0.number < $1.number }
    }

    static let isAvailable: Bool = {
        if case .success = library { return true }
        return false
    }()

    /// Built once, with the C compiler that comes with the toolchain.
    private static let library: Result<String, any Error> = Result {
        let folder = try TemporaryDirectory("faults")
        folder.keep = true
        AtExit.remove(folder)
        let (source, library) = (folder("faults.c"), folder("faults.so"))
        try Data(faultSource.utf8).write(to: URL(filePath: source))
        for compiler in ["cc", "clang", "gcc"] where Program.hasTool(compiler) {
            let result = try Program.tool(compiler, ["-shared", "-fPIC", "-O1", "-o", library, source, "-ldl"])
            if result.status == 0 { return library }
            print("SKIPPED: \(compiler) cannot build the fault library: \(result.errors)")
        }
        throw CocoaError(.executableNotLoadable)
    }
}
