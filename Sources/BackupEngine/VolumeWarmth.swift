import BackupBase
import Glibc
import QdrantStorage
import VolumeIO

/// Brings a volume's files into the page cache, so that a database which maps
/// them need not wait for the disk: vectors first, the log last.
public struct VolumeWarmth: Sendable {
    public struct Outcome: Sendable {
        /// That are in memory now, holes left out.
        public var bytes: Int64 = 0
        /// Why not all of the volume is.
        public var warning: String?
    }

    /// Share of the memory that is available which a volume may take.
    private static let memoryShare = 0.8
    /// Files at once: while one waits for the disk, another one's pages are put in place.
    private static let width = 3
    private let executor: BlockingExecutor

    public init(on executor: BlockingExecutor) { self.executor = executor }

    /// - Parameter path: of a volume, which a database may be starting on
    /// - Throws: `CancellationError`; what goes wrong with a file is the outcome's warning
    public func run(_ path: String) async throws -> Outcome {
        do {
            let tree = try SourceTree(path: path)
            let files = try Self.files(of: tree)
            let needed = files.reduce(0) { $0 + $1.stat.allocated }
            let available = Self.memoryAvailable
            guard Double(needed) <= Double(available) * Self.memoryShare else {
                return Outcome(
                    warning: "the volume takes \(formatBytes(needed)) and \(formatBytes(available)) of memory are available: "
                        + "it is not brought into memory")
            }
            return try await warm(files, of: tree)
        } catch let error as SourceError {
            return Outcome(warning: "nothing is brought into memory: \(error)")
        }
    }

    /// In the order in which a start wants them.
    private static func files(of tree: SourceTree) throws -> [ScannedNode] {
        var files: [(rank: Int, node: ScannedNode)] = []
        try tree.scan(settle: false, exclude: { path, _ in ScratchPath.matches(path) }, problem: { _ in }) { node in
            guard node.stat.kind == .file, node.stat.size > 0 else { return }
            let rank =
                switch FileClass.of(node.path) {
                case .vectorChunk, .writtenOnce: 0
                case .log: 2
                default: 1
                }
            files.append((rank, node))
        }
        return files.sorted { ($0.rank, -$0.node.stat.size) < ($1.rank, -$1.node.stat.size) }.map(\.node)
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
                    return Outcome(warning: "not all of the volume is in memory: \(error)")
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
