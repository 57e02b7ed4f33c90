import BackupBase
import BackupRepository
import Glibc
import QdrantStorage
import VolumeIO

/// Reads an archive from front to end and hands out its files' data, stretch
/// by stretch; everything else goes into the tree.
final class ArchiveQueue {
    /// A part of a file, as it comes out of the archive.
    struct Stretch: Sendable {
        let file: FileToRead
        /// Bytes from the file's start, at a border of stretches.
        let offset: Int64
        /// Nil where there is no data left: the file ends.
        let buffer: AlignedBuffer?
        /// Where data is, of all the file; set at its end.
        let dataRanges: [Range<Int64>]
    }

    private(set) var tree = ArchiveTree()
    /// Small files that a snapshot file explains itself with, by path.
    private(set) var notes: [[UInt8]: [UInt8]] = [:]
    private let buffers: BufferPool
    /// Gives a small file its content anew; nil for a file that is taken as it is.
    private let rewrite: ([UInt8], [UInt8]) throws -> [UInt8]
    /// The archive, and the archives in it that are being read, with what stands for them.
    private var readers: [(reader: ArchiveReader, folder: [UInt8])]
    private var current: Current?

    private struct Current {
        let file: FileToRead
        var ranges: [Range<Int64>] = []
        /// Data that came and did not fit into the stretch before: valid until the reader is asked again.
        var left: (offset: Int64, bytes: UnsafeRawBufferPointer)?
        /// The rest of the content, where it is in memory.
        var note: [UInt8]?
    }

    /// Bytes of a file that is kept in memory.
    private static let noteLimit = 1 << 20

    /// - Parameter rewrite: gets a note's path and content and returns what to store
    init(_ reader: ArchiveReader, _ buffers: BufferPool, rewrite: @escaping ([UInt8], [UInt8]) throws -> [UInt8]) {
        readers = [(reader, [])]
        self.buffers = buffers
        self.rewrite = rewrite
    }

    private var reader: ArchiveReader { readers[readers.count - 1].reader }

    func take() throws -> Stretch? {
        while true {
            if let stretch = try continueCurrent() { return stretch }
            guard let member = try reader.next() else {
                if readers.count == 1 { return nil }
                readers.removeLast()
                // What stands behind the inner archive's end.
                try reader.skip()
                continue
            }
            let folder = readers[readers.count - 1].folder
            let name = folder + (try ArchiveTree.path(member.path))
            if case .file(let size, _) = member.kind, SnapshotArchive.isArchive(name), readers.count < 3, size > 0 {
                readers.append((try ArchiveReader(reader), SnapshotArchive.folder(name) + [UInt8(ascii: "/")]))
                continue
            }
            try take(member, name, folder)
        }
    }

    private func take(_ member: ArchiveMember, _ name: [UInt8], _ folder: [UInt8]) throws {
        var path = name.last == UInt8(ascii: "/") ? Array(name.dropLast()) : name
        switch SnapshotArchive.place(path) {
        case .keep(let place): path = place
        case .drop:
            guard case .directory = member.kind else { break }
            return
        case .refuse(let why): throw BackupError(.failed, "the archive holds \(printable(path)), which \(why)")
        }
        let number = try tree.add(member, at: path) { folder + (try ArchiveTree.path($0)) }
        guard let number, case .file(let size, _) = member.kind else {
            guard try reader.skip() == 0 else {
                throw BackupError(.damaged, "the archive holds \(printable(path)), which is no file, with content")
            }
            return
        }
        guard SnapshotArchive.isNote(path) else {
            current = Current(file: FileToRead(node: number, path: path, size: size, kind: .of(path), parent: nil))
            return
        }
        guard size <= Self.noteLimit else {
            throw BackupError(
                .damaged, "the archive holds \(printable(path)), which is larger than \(formatBytes(Int64(Self.noteLimit)))")
        }
        var bytes = [UInt8](repeating: 0, count: Int(size))
        while let (offset, data) = try reader.data() { bytes.replaceSubrange(Int(offset)..<Int(offset) + data.count, with: data) }
        bytes = try rewrite(path, bytes)
        notes[path] = bytes
        let file = FileToRead(node: number, path: path, size: Int64(bytes.count), kind: .of(path), parent: nil)
        current = Current(file: file, ranges: bytes.isEmpty ? [] : [0..<Int64(bytes.count)], note: bytes)
    }

    /// The next stretch of the current file that holds data, or its end.
    private func continueCurrent() throws -> Stretch? {
        guard var current else { return nil }
        if let note = current.note {
            current.note = nil
            self.current = current
            if !note.isEmpty {
                let buffer = buffers.take()
                buffer.memory.copyBytes(from: note)
                buffer.count = note.count
                return Stretch(file: current.file, offset: 0, buffer: buffer, dataRanges: [])
            }
        }
        guard let (offset, bytes) = try current.left ?? (isNote(current) ? nil : reader.data()) else {
            self.current = nil
            return Stretch(file: current.file, offset: current.file.size, buffer: nil, dataRanges: current.ranges)
        }
        let start = offset / ReadQueue.stretch * ReadQueue.stretch
        let window = start..<min(start + ReadQueue.stretch, current.file.size)
        let buffer = buffers.take()
        buffer.count = window.count
        memset(buffer.pointer, 0, window.count)
        var next: (offset: Int64, bytes: UnsafeRawBufferPointer)? = (offset, bytes)
        while let (offset, bytes) = next, offset < window.upperBound {
            let count = Int(min(Int64(bytes.count), window.upperBound - offset))
            (buffer.pointer + Int(offset - start)).copyMemory(from: bytes.baseAddress!, byteCount: count)
            Self.add(offset..<offset + Int64(count), to: &current.ranges)
            if count < bytes.count {
                next = (offset + Int64(count), UnsafeRawBufferPointer(rebasing: bytes[count...]))
            } else {
                next = try reader.data()
            }
        }
        current.left = next
        self.current = current
        // At the end the reader says so once more.
        return Stretch(file: current.file, offset: start, buffer: buffer, dataRanges: [])
    }

    private func isNote(_ current: Current) -> Bool { SnapshotArchive.isNote(current.file.path) }

    private static func add(_ range: Range<Int64>, to ranges: inout [Range<Int64>]) {
        if let last = ranges.last, last.upperBound == range.lowerBound {
            ranges[ranges.count - 1] = last.lowerBound..<range.upperBound
        } else {
            ranges.append(range)
        }
    }
}
