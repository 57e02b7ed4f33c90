import BackupBase
import CArchive
import Glibc

/// Bytes one behind the other, of a file, a pipe, or something inside one.
public protocol ByteSource: AnyObject {
    /// The next bytes, valid until the next call; none at the end.
    func nextBytes() throws -> UnsafeRawBufferPointer
}

/// A file or pipe, from where it stands.
public final class FileSource: ByteSource {
    private let descriptor: Int32
    private let name: String
    private let owns: Bool
    private let buffer = AlignedBuffer(capacity: 1 << 20)
    /// Sees every byte that is handed out.
    private let observe: (UnsafeRawBufferPointer) -> Void

    /// - Parameter path: nil for standard input
    public init(path: String?, observe: @escaping (UnsafeRawBufferPointer) -> Void) throws(SourceError) {
        name = path ?? "standard input"
        owns = path != nil
        self.observe = observe
        descriptor = path.map { open($0, O_RDONLY | O_CLOEXEC) } ?? STDIN_FILENO
        guard descriptor >= 0 else { throw SourceError(path: Array(name.utf8), operation: "open", errno: errno) }
    }

    deinit { if owns { close(descriptor) } }

    public func nextBytes() throws -> UnsafeRawBufferPointer {
        try Task.checkCancellation()
        while true {
            let count = read(descriptor, buffer.pointer, buffer.capacity)
            if count < 0, errno == EINTR { continue }
            guard count >= 0 else { throw SourceError(path: Array(name.utf8), operation: "read", errno: errno) }
            buffer.count = count
            observe(buffer.bytes)
            return buffer.bytes
        }
    }
}

/// What another source holds, decompressed where it is compressed.
///
/// Of libarchive's filters those that it does itself: the others start a
/// program of the system, which no archive may decide.
public final class DecompressedSource: ByteSource {
    private let input: ArchiveInput
    private let buffer = AlignedBuffer(capacity: 1 << 20)

    public init(_ source: any ByteSource) throws {
        input = try ArchiveInput(source) { handle in
            for support in [
                archive_read_support_filter_gzip, archive_read_support_filter_bzip2, archive_read_support_filter_compress,
                archive_read_support_filter_xz, archive_read_support_filter_lzma, archive_read_support_filter_lzip,
                archive_read_support_filter_lz4, archive_read_support_filter_zstd,
            ] { _ = support(handle) }
            _ = archive_read_support_format_raw(handle)
            _ = archive_read_support_format_empty(handle)
        }
        var entry: OpaquePointer?
        input.isEmpty = try input.check(archive_read_next_header(input.handle, &entry)) == ARCHIVE_EOF
    }

    public func nextBytes() throws -> UnsafeRawBufferPointer {
        guard !input.isEmpty else { return UnsafeRawBufferPointer(start: nil, count: 0) }
        let count = archive_read_data(input.handle, buffer.pointer, buffer.capacity)
        if count < 0 { _ = try input.check(Int32(count)) }
        buffer.count = max(count, 0)
        return buffer.bytes
    }
}

/// libarchive's reading handle over a source.
final class ArchiveInput {
    let handle: OpaquePointer
    var isEmpty = false
    private let source: any ByteSource
    private var failure: (any Error)?
    /// Bytes handed over since the start, and since something came out.
    private(set) var given: Int64 = 0
    private(set) var isAtEnd = false
    private var unanswered = 0
    private let limit: Int

    /// - Parameter limit: bytes that may be asked for before anything comes out
    init(_ source: any ByteSource, limit: Int = .max, _ support: (OpaquePointer) -> Void) throws {
        guard let handle = archive_read_new() else { preconditionFailure("no memory for an archive") }
        self.handle = handle
        self.source = source
        self.limit = limit
        support(handle)
        let opened = archive_read_open(
            handle, Unmanaged.passUnretained(self).toOpaque(), nil,
            { _, context, bytes in
                Unmanaged<ArchiveInput>.fromOpaque(context!).takeUnretainedValue().hand(&bytes!.pointee)
            }, nil)
        _ = try check(opened)
    }

    deinit { archive_read_free(handle) }

    private func hand(_ bytes: inout UnsafeRawPointer?) -> Int {
        do {
            let next = try source.nextBytes()
            bytes = next.baseAddress
            given += Int64(next.count)
            unanswered += next.count
            isAtEnd = next.isEmpty
            guard unanswered <= limit else { throw ArchiveError("a header is larger than \(formatBytes(Int64(limit)))") }
            return next.count
        } catch {
            failure = error
            return -1
        }
    }

    /// - Returns: OK, WARN or EOF; everything else is thrown
    func check(_ status: Int32) throws -> Int32 {
        if let failure { throw failure }
        guard status == ARCHIVE_OK || status == ARCHIVE_EOF || status == ARCHIVE_WARN else {
            throw ArchiveError(archive_error_string(handle).map { String(cString: $0) } ?? "no reason given")
        }
        unanswered = 0
        return status
    }
}
