import BackupBase
@testable import BackupEngine
@testable import BackupRepository
@testable import VolumeIO

/// What an import makes of an archive: members that the input describes, with
/// headers that hold, or bytes as they come. It may refuse, and must not trap,
/// nor let a path lead out of the volume.
@_cdecl("LLVMFuzzerTestOneInput")
public func fuzz(_ start: UnsafePointer<UInt8>, _ count: Int) -> CInt {
    guard count > 1 else { return 0 }
    let bytes = Array(UnsafeBufferPointer(start: start + 1, count: count - 1))
    var archive = bytes
    if start[0] % 4 != 0 {
        var builder = TarBuilder()
        var rest = bytes[...]
        builder.build(&rest)
        archive = builder.bytes
    }
    try? read(archive, isSingleNode: start[0] & 4 != 0, collection: start[0] & 8 != 0 ? "c" : nil)
    return 0
}

private func read(_ archive: [UInt8], isSingleNode: Bool, collection: String?) throws {
    let plain = try DecompressedSource(Pieces(archive))
    let volume = ImportedVolume(name: "a", collection: collection, isSingleNode: isSingleNode)
    let pool = BufferPool(size: PackLimits.frame, keep: 2)
    let queue = ArchiveQueue(try ArchiveReader(plain), pool, rewrite: volume.rewrite)
    var (file, end) = (-1, Int64(0))
    while let stretch = try queue.take() {
        if stretch.file.node != file { (file, end) = (stretch.file.node, 0) }
        precondition(stretch.offset >= end && stretch.offset <= stretch.file.size, "stretches come out of order")
        if let buffer = stretch.buffer {
            end = stretch.offset + Int64(buffer.count)
            precondition(end <= stretch.file.size && buffer.count <= PackLimits.frame, "a stretch is larger than its file")
        }
        var last: Int64 = 0
        for range in stretch.dataRanges {
            precondition(range.lowerBound >= last && range.upperBound <= stretch.file.size, "data out of order")
            last = range.upperBound
        }
    }
    let (tree, added, _) = try volume.tree(queue.tree, notes: queue.notes)
    var contents = Dictionary(uniqueKeysWithValues: added.map { ($0.0, empty) })
    for (_, item) in tree.items { if case .file(let number) = item { contents[number] = empty } }
    var validator = ManifestValidator()
    var chunker = ManifestChunker()
    for entry in try tree.entries(contents) {
        try validator.accept(entry)
        precondition(!entry.path.split(separator: 0x2f).contains { $0.elementsEqual("..".utf8) }, "a path leads outside")
        _ = try chunker.add(entry)
    }
    _ = chunker.finish()
}

/// Of a file of nothing: what is in files is not what is looked at.
private let empty = Content(
    size: 0, blockSize: 4096, digest: [UInt8](repeating: 0, count: 32),
    layout: .inline(Content.Part(dataRanges: [], extents: Extents()))
).encoded

/// Bytes in memory, as a source that gives them in pieces.
private final class Pieces: ByteSource {
    private let bytes: UnsafeMutableRawBufferPointer
    private var offset = 0

    init(_ content: [UInt8]) {
        bytes = .allocate(byteCount: max(content.count, 1), alignment: 1)
        bytes.copyBytes(from: content)
        count = content.count
    }

    private let count: Int

    deinit { bytes.deallocate() }

    func nextBytes() throws -> UnsafeRawBufferPointer {
        let start = offset
        offset = min(offset + 1000, count)
        return UnsafeRawBufferPointer(rebasing: bytes[start..<offset])
    }
}
