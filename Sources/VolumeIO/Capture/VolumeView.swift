import BackupBase
import Glibc

/// Something that a backup reads a volume from: the live directory, or what a
/// capture put in its place.
public protocol VolumeView: Sendable {
    /// Whether an equal stat proves equal content (`SourceTree.noticesMappedWrites`).
    var noticesMappedWrites: Bool { get }
    /// Whether this is a block device or image, and not a tree.
    var isDevice: Bool { get }

    /// Visits the root and everything beneath it, as `SourceTree.scan` does.
    func scan(
        exclude: (_ path: [UInt8], _ isDirectory: Bool) -> Bool,
        problem: (SourceError) -> Void,
        visit: (ScannedNode) throws -> Void
    ) throws

    /// Opens a regular file for reading.
    func open(_ path: [UInt8]) throws(SourceError) -> SourceFile
}

extension VolumeView {
    public var isDevice: Bool { false }
}

extension SourceTree: VolumeView {
    public func scan(
        exclude: (_ path: [UInt8], _ isDirectory: Bool) -> Bool,
        problem: (SourceError) -> Void,
        visit: (ScannedNode) throws -> Void
    ) throws {
        try scan(settle: isLive, exclude: exclude, problem: problem, visit: visit)
    }
}

/// A volume as it was listed while writes were held. Its names and stats are in
/// memory, its content somewhere else.
public struct RecordedView: VolumeView {
    public let noticesMappedWrites: Bool
    let nodes: [ScannedNode]
    let problems: [SourceError]
    let opener: @Sendable (ScannedNode) throws(SourceError) -> SourceFile
    private let byPath: [[UInt8]: Int]

    /// - Parameter opener: gives the content of one of the files among `nodes`
    init(
        nodes: [ScannedNode], problems: [SourceError], noticesMappedWrites: Bool,
        opener: @escaping @Sendable (ScannedNode) throws(SourceError) -> SourceFile
    ) {
        self.nodes = nodes
        self.problems = problems
        self.noticesMappedWrites = noticesMappedWrites
        self.opener = opener
        byPath = Dictionary(
            nodes.indices.filter { nodes[$0].kind == .file }.map { (nodes[$0].path, $0) }, uniquingKeysWith: { $1 })
    }

    public func scan(
        exclude: (_ path: [UInt8], _ isDirectory: Bool) -> Bool,
        problem: (SourceError) -> Void,
        visit: (ScannedNode) throws -> Void
    ) throws {
        problems.forEach(problem)
        // It was listed without what is excluded.
        for node in nodes { try visit(node) }
    }

    public func open(_ path: [UInt8]) throws(SourceError) -> SourceFile {
        guard let index = byPath[path] else { throw SourceError(path: path, operation: "open", errno: ENOENT) }
        return try opener(nodes[index])
    }
}

/// A tree that can be closed while others still have it.
final class ClosableView: VolumeView {
    private let tree: Locked<SourceTree?>
    let noticesMappedWrites: Bool

    init(_ tree: SourceTree) {
        noticesMappedWrites = tree.noticesMappedWrites
        self.tree = Locked(tree)
    }

    func close() { tree.withLock { $0 = nil } }

    func scan(
        exclude: (_ path: [UInt8], _ isDirectory: Bool) -> Bool,
        problem: (SourceError) -> Void,
        visit: (ScannedNode) throws -> Void
    ) throws {
        try tree.withLock { $0 }?.scan(exclude: exclude, problem: problem, visit: visit)
    }

    func open(_ path: [UInt8]) throws(SourceError) -> SourceFile {
        guard let tree = tree.withLock({ $0 }) else { throw SourceError(path: path, operation: "open", errno: EBADF) }
        return try tree.open(path)
    }
}
