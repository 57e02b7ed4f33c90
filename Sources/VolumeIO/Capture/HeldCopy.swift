import BackupBase
import Dispatch
import Glibc

/// The end of a copy in two phases: writes are held, and what is not known yet
/// is put aside. What is known was read while the database wrote, and has been
/// left alone since.
public final class HeldCopy: Capture {
    public let view: any VolumeView
    public let moment: Int64
    public let held: Double
    /// Where files differ from the blocks that were known of them: only that is
    /// in the view, the rest of such a file reads as zeros.
    public let changed: [[UInt8]: [Range<Int64>]]

    /// - Parameters:
    ///   - spool: a directory with room for what changed
    ///   - known: attributes of files as an earlier pass found them
    ///   - isKnown: whether a file's content was read already, and its stat then
    ///     says that it is still the same
    ///   - blocks: what was read of a file that changed since
    /// - Returns: nil where nobody writes to the volume: then nobody can be paused
    public static func take(
        _ parts: VolumeParts, _ tree: SourceTree, _ settings: CaptureSettings, spool: String,
        remembering known: KnownAttributes, isKnown: (ScannedNode) -> Bool,
        blocks: @escaping @Sendable (ScannedNode) -> KnownBlocks?
    ) throws -> HeldCopy? {
        let file = try SpoolFile(directory: spool)
        let (copy, held) = try withWritersPaused(parts, settings) { isHeld in
            isHeld ? try Copied(parts, tree, settings, file, known, isKnown, blocks) : nil
        }
        return copy.map { HeldCopy($0, held) }
    }

    private struct Copied {
        let listing: VolumeListing
        /// Without files that could not be put aside: those are problems.
        let nodes: [ScannedNode]
        let noticesMappedWrites: Bool
        let files: [[UInt8]: SourceFile]
        let changed: [[UInt8]: [Range<Int64>]]
        let problems: [SourceError]

        init(
            _ parts: VolumeParts, _ tree: SourceTree, _ settings: CaptureSettings, _ spool: SpoolFile,
            _ known: KnownAttributes, _ isKnown: (ScannedNode) -> Bool,
            _ blocks: @escaping @Sendable (ScannedNode) -> KnownBlocks?
        ) throws {
            // Pages were cleaned by the pass before: a store since then moved the time.
            listing = VolumeListing(tree, settle: false, remembering: known, exclude: settings.exclude)
            noticesMappedWrites = tree.noticesMappedWrites
            let copying = Copying(tree, spool, blocks)
            try copying.copy(listing.files.filter { !isKnown($0) })
            let found = copying.found.withLock { $0 }
            nodes = listing.nodes.filter { !found.unread.contains($0.path) }
            files = found.files
            changed = found.changed
            problems = listing.problems + parts.refused + found.problems
        }
    }

    private init(_ copied: Copied, _ held: Double) {
        self.held = held
        moment = copied.listing.span.from
        changed = copied.changed
        let files = copied.files
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

/// Copies files while somebody waits for it: several at once.
private final class Copying: Sendable {
    struct Found {
        var files: [[UInt8]: SourceFile] = [:]
        var changed: [[UInt8]: [Range<Int64>]] = [:]
        var unread: Set<[UInt8]> = []
        var problems: [SourceError] = []
        var failure: (any Error)?
    }

    let found = Locked(Found())
    private let tree: SourceTree
    private let spool: SpoolFile
    private let blocks: @Sendable (ScannedNode) -> KnownBlocks?
    private let buffers = BufferPool(size: 1 << 20, keep: Copying.width)

    /// As many as keep a disk busy while two cores hash.
    private static let width = 6

    init(_ tree: SourceTree, _ spool: SpoolFile, _ blocks: @escaping @Sendable (ScannedNode) -> KnownBlocks?) {
        (self.tree, self.spool, self.blocks) = (tree, spool, blocks)
    }

    func copy(_ nodes: [ScannedNode]) throws {
        let next = Locked(0)
        DispatchQueue.concurrentPerform(iterations: min(Self.width, nodes.count)) { _ in
            while found.withLock({ $0.failure == nil }) {
                let index = next.withLock { value in
                    defer { value += 1 }
                    return value
                }
                guard index < nodes.count else { return }
                copy(nodes[index])
            }
        }
        if let failure = found.withLock({ $0.failure }) { throw failure }
    }

    private func copy(_ node: ScannedNode) {
        do {
            let source = try tree.open(node.path)
            if let known = blocks(node) {
                let (file, changed) = try spool.takeChanges(source, known, buffers: buffers)
                found.withLock { ($0.files[node.path], $0.changed[node.path]) = (file, changed) }
            } else {
                let file = try spool.take(source, buffers: buffers)
                found.withLock { $0.files[node.path] = file }
            }
        } catch let error as SourceError {
            found.withLock {
                $0.problems.append(error)
                $0.unread.insert(node.path)
            }
        } catch {
            found.withLock { $0.failure = $0.failure ?? error }
        }
    }
}
