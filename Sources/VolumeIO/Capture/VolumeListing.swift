import BackupBase
import Glibc

/// All names of a volume and what they were, as one pass found them.
public struct VolumeListing: Sendable {
    public private(set) var nodes: [ScannedNode] = []
    public private(set) var problems: [SourceError] = []
    /// When the names were looked at.
    public let span: LookSpan

    /// - Parameters:
    ///   - known: attributes of files that did not change since, which need not be opened
    ///   - exclude: as in `SourceTree.scan`
    public init(
        _ tree: SourceTree, settle: Bool, remembering known: KnownAttributes? = nil,
        exclude: (_ path: [UInt8], _ isDirectory: Bool) -> Bool
    ) {
        let started = Ambient.system.now()
        var nodes: [ScannedNode] = []
        var problems: [SourceError] = []
        // Nothing that is visited throws.
        try? tree.scan(
            settle: settle, remembering: known, exclude: exclude, problem: { problems.append($0) },
            visit: { nodes.append($0) })
        span = LookSpan(from: started, to: Ambient.system.now())
        self.nodes = nodes
        self.problems = problems
    }

    /// Whether nothing at all happened to the volume between the two passes.
    public func isUnchanged(since earlier: VolumeListing) -> Bool {
        nodes.count == earlier.nodes.count
            && zip(nodes, earlier.nodes).allSatisfy { now, before in
                now.isUnchanged(since: before) && !earlier.span.isFresh(before.stat)
            }
    }
}

/// Extended attributes of files as an earlier pass found them. Every change of
/// one moves the file's ctime, so that a stat tells whether they still hold;
/// looking them up costs an open, which is most of what a file costs a scan.
public struct KnownAttributes: Sendable {
    private struct Identity: Hashable { let device, inode: UInt64 }
    private let files: [Identity: (stat: FileStat, attributes: [ExtendedAttribute])]
    private let span: LookSpan

    public init(_ nodes: [ScannedNode], _ span: LookSpan) {
        self.span = span
        files = Dictionary(
            nodes.lazy.filter { $0.kind == .file }.map {
                (Identity(device: $0.stat.device, inode: $0.stat.inode), ($0.stat, $0.attributes))
            }, uniquingKeysWith: { $1 })
    }

    func attributes(of stat: FileStat) -> [ExtendedAttribute]? {
        guard let found = files[Identity(device: stat.device, inode: stat.inode)], stat.isSame(as: found.stat),
            !span.isFresh(found.stat)
        else { return nil }
        return found.attributes
    }
}

/// The time in which stats were taken: nanoseconds since 1970.
public struct LookSpan: Sendable {
    public let from: Int64
    public let to: Int64

    public init(from: Int64, to: Int64) { (self.from, self.to) = (from, to) }

    /// Whether a file changed so close to being looked at that one more change
    /// would not show: time stamps advance in steps. 20 ms are two steps of the
    /// slowest kernel clock; a file system that keeps whole seconds shows it by
    /// its zeros. What is older cannot, and neither can what is of a future
    /// that a clock has since gone back from.
    public func isFresh(_ stat: FileStat) -> Bool {
        let step: Int64 = stat.changed % 1_000_000_000 == 0 ? 2_000_000_000 : 20_000_000
        return stat.changed >= from - step && stat.changed - step <= to
    }
}

extension ScannedNode {
    /// Whether nothing happened to it between two passes, as far as a stat can tell.
    public func isUnchanged(since earlier: ScannedNode) -> Bool {
        path == earlier.path && stat.isSame(as: earlier.stat) && linkTarget == earlier.linkTarget
            && attributes == earlier.attributes
    }
}

extension FileStat {
    /// Whether content and metadata are what they were, as far as a stat can tell.
    public func isSame(as other: FileStat) -> Bool {
        device == other.device && inode == other.inode && size == other.size && modified == other.modified
            && changed == other.changed && mode == other.mode
    }
}
