import BackupBase
import Glibc

/// The end of a copy in two phases: writes are held, and what is not known yet
/// is put aside. What is known was read while the database wrote, and has been
/// left alone since.
public final class HeldCopy: Capture {
    public let view: any VolumeView
    public let moment: Int64
    public let held: Double
    /// Bytes put aside while writes were held.
    public let bytes: Int64

    /// - Parameters:
    ///   - spool: a directory with room for what changed
    ///   - known: attributes of files as an earlier pass found them
    ///   - isKnown: whether a file's content was read already, and its stat then
    ///     says that it is still the same
    /// - Returns: nil where nobody writes to the volume: then nobody can be paused
    public static func take(
        _ parts: VolumeParts, _ tree: SourceTree, _ settings: CaptureSettings, spool: String,
        remembering known: KnownAttributes, isKnown: (ScannedNode) -> Bool
    ) throws -> HeldCopy? {
        let file = try SpoolFile(directory: spool)
        let (copy, held) = try withWritersPaused(parts, settings) { isHeld in
            isHeld ? try Copied(parts, tree, settings, file, known, isKnown) : nil
        }
        return copy.map { HeldCopy($0, held) }
    }

    private struct Copied {
        let listing: VolumeListing
        /// Without files that could not be put aside: those are problems.
        let nodes: [ScannedNode]
        let noticesMappedWrites: Bool
        let files: [Int: SourceFile]
        let problems: [SourceError]

        init(
            _ parts: VolumeParts, _ tree: SourceTree, _ settings: CaptureSettings, _ spool: SpoolFile,
            _ known: KnownAttributes, _ isKnown: (ScannedNode) -> Bool
        ) throws {
            // Pages were cleaned by the pass before: a store since then moved the time.
            listing = VolumeListing(tree, settle: false, remembering: known, exclude: settings.exclude)
            let buffers = BufferPool(size: 4 << 20, keep: 1)
            var files: [Int: SourceFile] = [:]
            var problems = listing.problems + parts.refused
            var unread: Set<Int> = []
            noticesMappedWrites = tree.noticesMappedWrites
            for (index, node) in listing.nodes.enumerated() where node.kind == .file && !isKnown(node) {
                do {
                    files[index] = try spool.take(try tree.open(node.path), buffers: buffers)
                } catch let error as SourceError {
                    problems.append(error)
                    unread.insert(index)
                }
            }
            let listing = listing
            nodes = listing.nodes.indices.filter { !unread.contains($0) }.map { listing.nodes[$0] }
            self.files = files
            self.problems = problems
        }
    }

    private init(_ copied: Copied, _ held: Double) {
        self.held = held
        moment = copied.listing.span.from
        var byPath: [[UInt8]: SourceFile] = [:]
        for (index, file) in copied.files { byPath[copied.listing.nodes[index].path] = file }
        bytes = copied.files.reduce(0) { $0 + copied.listing.nodes[$1.key].stat.size }
        let files = byPath
        view = RecordedView(
            nodes: copied.nodes, problems: copied.problems, noticesMappedWrites: copied.noticesMappedWrites,
            opener: { node throws(SourceError) in
                guard let file = files[node.path] else {
                    throw SourceError(path: node.path, operation: "open", errno: ENOENT)
                }
                return file
            })
    }
}
