import BackupBase
import Glibc

/// A block device or image, as a tree of one file.
public struct DeviceView: VolumeView {
    /// An equal stat proves nothing of block devices, and on memory file systems.
    public let noticesMappedWrites: Bool
    public var isDevice: Bool { true }
    /// Nanoseconds since 1970: not later than what is known of it.
    public let moment: Int64
    private let file: ScannedNode
    private let opener: @Sendable () throws(SourceError) -> SourceFile

    /// As it is now.
    public init(path: String) throws(SourceError) {
        moment = Ambient.system.now()
        let source = try SourceFile.device(path: path)
        try source.settle()
        file = Self.node(path, try source.stat())
        noticesMappedWrites = file.stat.mode & S_IFMT == S_IFREG && FileSystemKind(path) != .memory
        opener = { () throws(SourceError) in try SourceFile.device(path: path) }
    }

    /// An image that was captured.
    init(
        path: String, _ stat: FileStat, moment: Int64, opener: @escaping @Sendable () throws(SourceError) -> SourceFile
    ) {
        self.moment = moment
        self.opener = opener
        file = Self.node(path, stat)
        noticesMappedWrites = true
    }

    private static func node(_ path: String, _ stat: FileStat) -> ScannedNode {
        ScannedNode(path: path.split(separator: "/").last.map { Array($0.utf8) } ?? Array("device".utf8), kind: .file, stat: stat)
    }

    public func scan(
        exclude: (_ path: [UInt8], _ isDirectory: Bool) -> Bool,
        problem: (SourceError) -> Void,
        visit: (ScannedNode) throws -> Void
    ) throws {
        var root = file.stat
        root.mode = 0o755
        try visit(ScannedNode(path: [], kind: .directory, stat: root))
        try visit(file)
    }

    public func open(_ path: [UInt8]) throws(SourceError) -> SourceFile {
        guard path == file.path else { throw SourceError(path: path, operation: "open", errno: ENOENT) }
        return try opener()
    }
}
