import BackupBase
import BackupRepository
import Glibc
import VolumeIO

extension RestoreRun {
    /// Share of the memory that is available which a volume may take.
    private static let memoryShare = 0.8

    /// Brings what was restored into the page cache, as far as memory is there for
    /// it. What goes wrong takes nothing from the restore.
    func warm() async throws {
        board.update { $0.phase = .finish }
        let clock = monotonicSeconds()
        defer { report.stages.add(.warm, monotonicSeconds() - clock) }
        do {
            let tree = try SourceTree(path: options.target, isLive: false)
            var files: [ScannedNode] = []
            try tree.scan(settle: false, exclude: { _, _ in false }, problem: { _ in }) { node in
                if node.stat.kind == .file { files.append(node) }
            }
            let needed = files.reduce(0) { $0 + $1.stat.allocated }
            let available = Self.memoryAvailable
            guard Double(needed) <= Double(available) * Self.memoryShare else {
                report.warnings.append(
                    "the volume takes \(formatBytes(needed)) and \(formatBytes(available)) of memory are available: it is not "
                        + "brought into memory")
                return
            }
            try await warm(files, of: tree)
        } catch let error as SourceError {
            report.warnings.append("not all of the volume is in memory: \(error)")
        }
    }

    private func warm(_ files: [ScannedNode], of tree: SourceTree) async throws {
        let buffers = BufferPool(size: 1 << 20, keep: 2)
        var rest = files[...]
        var results = OrderedMap<ScannedNode, Int64>(
            width: 2, on: repository.executor, from: { rest.popFirst() },
            transform: { node in
                try Task.checkCancellation()
                let buffer = buffers.take()
                defer { buffers.give(buffer) }
                return try tree.open(node.path).warm(through: buffer)
            })
        while let bytes = try await results.next() { report.bytesWarmed += bytes }
    }

    /// Bytes that can be had without swapping: `MemAvailable` of /proc/meminfo (proc(5)); 0 where it cannot be read.
    private static var memoryAvailable: Int64 {
        guard let text = LocalFile.readText("/proc/meminfo") else { return 0 }
        let line = text.split(separator: "\n").first { $0.hasPrefix("MemAvailable:") }
        let kibibytes = line?.split(whereSeparator: { $0 == " " || $0 == "\t" }).dropFirst().first.flatMap { Int64($0) }
        return (kibibytes ?? 0) << 10
    }
}
