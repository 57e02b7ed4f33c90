import BackupBase
import BackupRepository
import CLinux
import Glibc
import QdrantStorage
import VolumeIO

/// A volume as the scan found it: a directory tree, or a device or image that
/// counts as a tree of one file.
struct VolumeScan {
    let kind: SnapshotRecord.Kind
    private(set) var nodes: [ScannedNode] = []
    private(set) var excluded = 0
    private(set) var totalBytes: Int64 = 0
    /// Reads a file of the scan.
    let opener: @Sendable (FileToRead) throws(SourceError) -> SourceFile
    /// False where an equal stat proves nothing: block devices, memory file systems.
    let canBeUnchanged: Bool
    /// Nodes that are another name of an earlier one, and which.
    private var links: [Int: Int] = [:]
    private let scanStart: Int64
    private var scanEnd: Int64 = 0

    /// Nanoseconds: a file that moved later than this before the scan is read
    /// again next time. Kernel time stamps advance in steps of 1 to 10 ms, of a
    /// second or two on older file systems.
    private static let racyWindow: Int64 = 2_000_000_000

    /// A directory, device or image, as `view` shows it.
    ///
    /// - Parameters:
    ///   - moment: nanoseconds since 1970, not later than what the view shows; nil: now
    ///   - problem: gets what could not be read
    init(_ view: any VolumeView, moment: Int64? = nil, problem: (SourceError) -> Void) throws {
        scanStart = moment ?? Ambient.system.now()
        kind = view.isDevice ? .device : .tree
        canBeUnchanged = view.noticesMappedWrites
        opener = { file throws(SourceError) in try view.open(file.path) }
        if (try? view.open(Array(RestoreMarker.name.utf8))) != nil {
            throw BackupError(
                .sourceUnreadable, "the volume is a restore that did not end",
                hint: "Finish it with 'bgbackup restore --resume' before it is backed up.")
        }
        try scan(view, problem)
    }

    private mutating func scan(_ view: any VolumeView, _ problem: (SourceError) -> Void) throws {
        var excluded = 0
        var found: [ScannedNode] = []
        var special: [[UInt8]] = []
        try view.scan(
            exclude: { path, _ in
                let scratch = ScratchPath.matches(path)
                if scratch { excluded += 1 }
                return scratch
            },
            problem: problem,
            visit: { node in
                WorkPulse.beat()
                if node.kind == .special { special.append(node.path) } else { found.append(node) }
            })
        for path in special { problem(SourceError(path: path, operation: "back up a socket, pipe or device", errno: EINVAL)) }
        self.excluded = excluded
        nodes = found
        scanEnd = Ambient.system.now()
        findLinks()
    }

    private mutating func findLinks() {
        struct Identity: Hashable { let device, inode: UInt64 }
        var first: [Identity: Int] = [:]
        for (index, node) in nodes.enumerated() where node.kind == .file {
            if node.stat.links > 1 {
                let identity = Identity(device: node.stat.device, inode: node.stat.inode)
                if let earlier = first[identity] {
                    links[index] = earlier
                    continue
                }
                first[identity] = index
            }
            totalBytes += node.stat.size
        }
    }

    /// Whether a node is a file that is not another name of an earlier one.
    func holdsContent(_ index: Int) -> Bool { nodes[index].kind == .file && links[index] == nil }

    /// Of another pass over the same volume: whether nothing happened in between.
    func isUnchanged(since earlier: VolumeScan) -> Bool {
        nodes.count == earlier.nodes.count
            && zip(nodes, earlier.nodes).allSatisfy { now, before in
                now.isUnchanged(since: before) && !earlier.isFresh(before.stat)
            }
    }

    /// Whether a file may have changed right after it was looked at, and show nothing of it.
    func isFresh(_ stat: FileStat) -> Bool { span.isFresh(stat) }

    private var span: LookSpan { LookSpan(from: scanStart, to: scanEnd) }

    /// Attributes of its files, for a pass that comes after.
    var attributes: KnownAttributes { KnownAttributes(nodes, span) }

    /// Whether anything of the volume changed in this time, or may have.
    func holdsChange(in span: LookSpan) -> Bool { nodes.contains { span.isFresh($0.stat) } }

    func isRacy(_ stat: FileStat) -> Bool { max(stat.modified, stat.changed) >= scanStart - Self.racyWindow }

    /// The files to read, put together by cohort, each cohort in path order:
    /// one pack is open at a time, and a restore finds neighbours together.
    /// - Parameter parent: what is known of a file's blocks
    func filesToRead(except known: (Int) -> Bool, parent: (Int) -> TrackedParent? = { _ in nil }) -> [FileToRead] {
        var byCohort: [Cohort: [FileToRead]] = [:]
        for (index, node) in nodes.enumerated() where holdsContent(index) && !known(index) {
            let file = FileToRead(
                node: index, path: node.path, size: node.stat.size, kind: fileClass(node.path), parent: parent(index))
            byCohort[file.cohort, default: []].append(file)
        }
        return [Cohort.writtenOnce, .mutable, .log].flatMap { byCohort[$0] ?? [] }
    }

    /// Inodes of the files for which this holds; none where they are on several
    /// file systems, where an inode alone names no file.
    func inodes(where isMeant: (Int) -> Bool) -> Set<UInt64> {
        guard nodes.allSatisfy({ $0.stat.device == nodes[0].stat.device }) else { return [] }
        return Set(nodes.indices.filter { holdsContent($0) && isMeant($0) }.map { nodes[$0].stat.inode })
    }

    func fileClass(_ path: [UInt8]) -> FileClass { kind == .device ? .device : .of(path) }

    /// A node's line in the manifest; nil for a file that could not be read,
    /// and for its other names.
    func entry(_ index: Int, _ node: ScannedNode, _ contents: BackupRun.Contents) throws -> Entry? {
        let metadata = Entry.Metadata(
            mode: node.stat.mode, owner: node.stat.owner, group: node.stat.group, modified: node.stat.modified,
            attributes: node.attributes.map { Entry.Attribute(name: $0.name, value: $0.value) })
        switch node.kind {
        case .directory: return Entry(path: node.path, kind: .directory(metadata))
        case .symlink: return Entry(path: node.path, kind: .symlink(metadata, target: node.linkTarget))
        case .file:
            if let earlier = links[index] {
                return contents[earlier] == nil ? nil : Entry(path: node.path, kind: .hardLink(to: nodes[earlier].path))
            }
            return try contents[index].map {
                Entry(path: node.path, kind: .file(metadata, try Content(decoding: $0[...])))
            }
        case .special: return nil
        }
    }
}
