import BackupBase
import Glibc
import Testing

@testable import VolumeIO

/// Everything a scan said.
struct Scan {
    var nodes: [ScannedNode] = []
    var problems: [SourceError] = []

    init(_ path: String, settle: Bool = true, exclude: ([UInt8], Bool) -> Bool = { _, _ in false }) throws {
        var nodes: [ScannedNode] = []
        var problems: [SourceError] = []
        try SourceTree(path: path).scan(
            settle: settle, exclude: exclude, problem: { problems.append($0) }, visit: { nodes.append($0) })
        (self.nodes, self.problems) = (nodes, problems)
    }

    subscript(path: String) -> ScannedNode? { nodes.first { $0.path == Array(path.utf8) } }
    var paths: [String] { nodes.map { String(decoding: $0.path, as: UTF8.self) } }
}

/// A node without what a copy cannot share with its source.
struct Portable: Hashable, CustomStringConvertible {
    var path: [UInt8]
    var kind: NodeKind
    var mode: UInt32
    var owner: UInt32
    var group: UInt32
    var size: Int64
    var links: UInt64
    var modified: Int64
    var linkTarget: [UInt8]
    var attributes: [ExtendedAttribute]

    init(_ node: ScannedNode) {
        path = node.path
        kind = node.kind
        mode = node.stat.mode
        owner = node.stat.owner
        group = node.stat.group
        size = node.kind == .directory ? 0 : node.stat.size
        links = node.kind == .directory ? 0 : node.stat.links
        modified = node.stat.modified
        linkTarget = node.linkTarget
        attributes = node.attributes
    }

    var description: String {
        "\(printable(path)) \(kind) 0\(String(mode, radix: 8)) \(owner):\(group) \(size) B ×\(links) \(modified) "
            + attributes.map { printable($0.name) }.joined(separator: ",")
    }
}

/// Copies a tree the way a restore does: everything made first, then the data,
/// metadata last and from the inside out.
func copyTree(from source: String, to target: String, chunk: Int = 1 << 20) throws -> [String] {
    let scan = try Scan(source)
    let (from, to) = (try SourceTree(path: source), try TargetTree(path: target, create: true))
    var known: [UInt64: [UInt8]] = [:]
    for node in scan.nodes {
        switch node.kind {
        case .directory: try to.makeDirectory(node.path)
        case .symlink: try to.makeSymlink(node.path, target: node.linkTarget)
        case .file:
            if let first = known[node.stat.inode] {
                try to.makeHardLink(node.path, to: first)
                continue
            }
            if node.stat.links > 1 { known[node.stat.inode] = node.path }
            try to.makeFile(node.path, size: node.stat.size, links: node.stat.links)
            try copyData(from.open(node.path), to.openForWriting(node.path), chunk)
        case .special: continue
        }
    }
    var problems: [String] = []
    for node in scan.nodes.reversed() where node.kind != .special {
        problems += to.setMetadata(
            node.path, kind: node.kind, stat: node.stat, attributes: node.attributes, owner: nil)
    }
    try to.synchronize()
    return problems
}

func copyData(_ from: SourceFile, _ to: TargetFile, _ chunk: Int) throws {
    let buffer = AlignedBuffer(capacity: chunk)
    let ranges = try from.dataRanges(size: to.size)
    // Holes that are taken for data must fail the test, not fill the disk with 100 GiB.
    try #require(ranges.reduce(0) { $0 + $1.count } <= 64 << 20, "too much data in \(printable(from.path))")
    for range in ranges {
        to.preallocate(range)
        var offset = range.lowerBound
        while offset < range.upperBound {
            let count = try from.read(at: offset, count: min(chunk, Int(range.upperBound - offset)), into: buffer)
            try #require(count > 0)
            try to.write(buffer.bytes, at: offset)
            offset += Int64(count)
        }
    }
}
