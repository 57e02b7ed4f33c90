import BackupBase
import Glibc
import QdrantStorage
import VolumeIO

/// Brings what Qdrant maps at its start into the page cache: vectors, graphs and
/// what else its optimizer wrote, not the log and the payloads.
///
/// Before the start, not beside it: a database that meets a page on its way waits
/// behind all that was asked for before (docs/benchmarks.md, "Drill").
struct VolumeWarmth: Sendable {
    struct Outcome: Sendable {
        /// That are in memory now, holes left out.
        var bytes: Int64 = 0
        /// Why not all of it is.
        var warning: String?
    }

    /// Share of the memory that is available which a volume may take.
    private static let memoryShare = 0.8
    /// Files at once: while one waits for the disk, another one's pages are put in place.
    private static let width = 3
    private let executor: BlockingExecutor

    init(on executor: BlockingExecutor) { self.executor = executor }

    /// - Parameter path: of a restored volume
    /// - Throws: `CancellationError`; what goes wrong with a file is the outcome's warning
    func run(_ path: String) async throws -> Outcome {
        do {
            let tree = try SourceTree(path: path, isLive: false)
            let files = try Self.files(of: tree)
            let needed = files.reduce(0) { $0 + $1.stat.allocated }
            let available = Self.memoryAvailable
            guard Double(needed) <= Double(available) * Self.memoryShare else {
                return Outcome(
                    warning:
                        "what a start maps takes \(formatBytes(needed)), and \(formatBytes(available)) of memory are available: "
                        + "it is not brought into memory")
            }
            return try await warm(files, of: tree)
        } catch let error as SourceError {
            return Outcome(warning: "nothing is brought into memory: \(error)")
        }
    }

    private static func files(of tree: SourceTree) throws -> [ScannedNode] {
        var files: [ScannedNode] = []
        try tree.scan(settle: false, exclude: { _, _ in false }, problem: { _ in }) { node in
            if node.stat.kind == .file, [.vectorChunk, .writtenOnce].contains(FileClass.of(node.path)) { files.append(node) }
        }
        return files
    }

    private func warm(_ files: [ScannedNode], of tree: SourceTree) async throws -> Outcome {
        var rest = files[...]
        var results = OrderedMap<ScannedNode, Outcome>(
            width: Self.width, on: executor, from: { rest.popFirst() },
            transform: { node in
                try Task.checkCancellation()
                do throws(SourceError) {
                    return Outcome(bytes: try tree.open(node.path).warm())
                } catch {
                    return Outcome(warning: "not all of what a start maps is in memory: \(error)")
                }
            })
        var outcome = Outcome()
        do {
            while let result = try await results.next() {
                outcome.bytes += result.bytes
                outcome.warning = outcome.warning ?? result.warning
            }
        } catch {
            await results.abandon()
            throw error
        }
        return outcome
    }

    /// Bytes that can be had without swapping: `MemAvailable` of /proc/meminfo (proc(5)); 0 where it cannot be read.
    private static var memoryAvailable: Int64 {
        guard let text = LocalFile.readText("/proc/meminfo") else { return 0 }
        let line = text.split(separator: "\n").first { $0.hasPrefix("MemAvailable:") }
        let kibibytes = line?.split(whereSeparator: { $0 == " " || $0 == "\t" }).dropFirst().first.flatMap { Int64($0) }
        return (kibibytes ?? 0) << 10
    }
}
