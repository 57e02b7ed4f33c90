import BackupBase
import CArchive
import Glibc

/// Writes a tar archive member by member, through libarchive.
///
/// In pax form it keeps holes (GNU.sparse 1.0), attributes (SCHILY.xattr),
/// access lists (SCHILY.acl) and times to the nanosecond; names that are not
/// UTF-8 are marked as binary. That wants the process in the "C" locale, which
/// is how a program starts that sets none: libarchive then converts no name.
public final class ArchiveWriter {
    public enum Format: Sendable {
        case pax
        /// The old GNU form, which the server's own reader takes: no holes, attributes or parts of seconds.
        case gnu
    }

    public enum Filter: Sendable { case none, gzip, zstd }

    private final class Sink {
        let write: (UnsafeRawBufferPointer) throws -> Void
        var failure: (any Error)?
        init(_ write: @escaping (UnsafeRawBufferPointer) throws -> Void) { self.write = write }
    }

    private let handle: OpaquePointer
    private let entry: OpaquePointer
    private let sink: Sink
    private let format: Format

    /// - Parameter sink: takes the archive's bytes in order; what it throws comes out of the call that made it
    public init(_ format: Format, _ filter: Filter, to sink: @escaping (UnsafeRawBufferPointer) throws -> Void) throws {
        guard let handle = archive_write_new(), let entry = archive_entry_new() else {
            preconditionFailure("no memory for an archive")
        }
        self.handle = handle
        self.entry = entry
        self.format = format
        self.sink = Sink(sink)
        switch format {
        case .pax:
            try check(archive_write_set_format_pax(handle))
            // LIBARCHIVE.xattr says the same once more, and GNU tar warns of it.
            try check(archive_write_set_options(handle, "pax:xattrheader=SCHILY"))
        case .gnu: try check(archive_write_set_format_gnutar(handle))
        }
        switch filter {
        case .none: break
        case .gzip:
            try check(archive_write_add_filter_gzip(handle))
            try check(archive_write_set_options(handle, "gzip:!timestamp"))
        case .zstd: try check(archive_write_add_filter_zstd(handle))
        }
        try check(archive_write_set_bytes_per_block(handle, 1 << 20))
        // Zeros behind compressed bytes are damage to zstd.
        try check(archive_write_set_bytes_in_last_block(handle, filter == .none ? 10240 : 1))
        let open = archive_write_open(
            handle, Unmanaged.passUnretained(self.sink).toOpaque(), nil,
            { _, context, bytes, count in
                let sink = Unmanaged<Sink>.fromOpaque(context!).takeUnretainedValue()
                do {
                    try sink.write(UnsafeRawBufferPointer(start: bytes, count: count))
                    return count
                } catch {
                    sink.failure = error
                    return -1
                }
            }, nil)
        try check(open)
    }

    deinit {
        // Without this, freeing would write an end, and what is not whole would look whole.
        archive_write_fail(handle)
        archive_entry_free(entry)
        archive_write_free(handle)
    }

    /// Begins a member. A file's bytes, holes included, follow by `write`.
    /// - Returns: what of its metadata the form cannot hold, one text each
    public func begin(_ member: ArchiveMember) throws -> [String] {
        var problems: [String] = []
        archive_entry_clear(entry)
        (member.path + [0]).withUnsafeBytes {
            archive_entry_copy_pathname(entry, $0.baseAddress!.assumingMemoryBound(to: CChar.self))
        }
        setKind(member.kind)
        archive_entry_set_perm(entry, member.mode)
        archive_entry_set_uid(entry, Int64(member.owner))
        archive_entry_set_gid(entry, Int64(member.group))
        setTime(member.modified)
        if format == .pax { problems += setAttributes(member.attributes) }
        let status = archive_write_header(handle, entry)
        // A name that is not ASCII: it is stored as the bytes it is.
        if status == ARCHIVE_WARN, errorText.hasPrefix("Can't translate ") { return problems }
        try check(status)
        return problems
    }

    private func setKind(_ kind: ArchiveMember.Kind) {
        func text(_ bytes: [UInt8], _ body: (UnsafePointer<CChar>) -> Void) {
            (bytes + [0]).withUnsafeBytes { body($0.baseAddress!.assumingMemoryBound(to: CChar.self)) }
        }
        switch kind {
        case .file(let size, let ranges):
            archive_entry_set_filetype(entry, MemberType.file)
            archive_entry_set_size(entry, size)
            guard format == .pax, ranges != [0..<size], size > 0 else { return }
            // An empty range says that there is nothing but a hole.
            for range in ranges.isEmpty ? [0..<0] : ranges {
                archive_entry_sparse_add_entry(entry, range.lowerBound, range.upperBound - range.lowerBound)
            }
        case .directory: archive_entry_set_filetype(entry, MemberType.directory)
        case .symlink(let target):
            archive_entry_set_filetype(entry, MemberType.symlink)
            text(target) { archive_entry_copy_symlink(entry, $0) }
        case .hardLink(let target):
            archive_entry_set_filetype(entry, MemberType.file)
            text(target) { archive_entry_copy_hardlink(entry, $0) }
        case .special: preconditionFailure("a device is no member of an archive that is written")
        }
    }

    /// Times before 1970 to the second: GNU tar and libarchive read parts of
    /// seconds below zero in different ways.
    private func setTime(_ nanoseconds: Int64) {
        let (seconds, part) = nanoseconds.quotientAndRemainder(dividingBy: 1_000_000_000)
        if nanoseconds < 0 {
            archive_entry_set_mtime(entry, Int(part == 0 ? seconds : seconds - 1), 0)
        } else {
            archive_entry_set_mtime(entry, Int(seconds), format == .pax ? Int(part) : 0)
        }
    }

    private func setAttributes(_ attributes: [ExtendedAttribute]) -> [String] {
        var problems: [String] = []
        for attribute in attributes {
            if let type = AccessList.type(of: attribute.name) {
                if !AccessList.add(attribute.value, type, to: entry) {
                    problems.append("attribute \(printable(attribute.name)) is no access list: left out")
                }
            } else if attribute.name.contains(where: { $0 < 33 || $0 > 126 || $0 == 0x25 || $0 == 0x3d }) {
                // libarchive writes these as %XX, and nobody reads them back.
                problems.append("attribute \(printable(attribute.name)) has a name that tar cannot hold: left out")
            } else {
                (attribute.name + [0]).withUnsafeBytes { name in
                    attribute.value.withUnsafeBytes { value in
                        archive_entry_xattr_add_entry(
                            entry, name.baseAddress!.assumingMemoryBound(to: CChar.self), value.baseAddress, value.count)
                    }
                }
            }
        }
        return problems
    }

    /// The next bytes of the member.
    public func write(_ bytes: UnsafeRawBufferPointer) throws {
        var done = 0
        while done < bytes.count {
            let written = archive_write_data(handle, bytes.baseAddress! + done, bytes.count - done)
            if written < 0 { try check(Int32(written)) }
            guard written > 0 else { throw ArchiveError("more bytes than a member's size") }
            done += written
        }
    }

    /// Writes the end of the archive.
    public func finish() throws {
        try check(archive_write_finish_entry(handle))
        try check(archive_write_close(handle))
    }

    private var errorText: String { archive_error_string(handle).map { String(cString: $0) } ?? "no reason given" }

    private func check(_ status: Int32) throws {
        if let failure = sink.failure { throw failure }
        guard status == ARCHIVE_OK else { throw ArchiveError(errorText) }
    }

    /// Bytes of the archive that `body` writes, found by writing it to nowhere.
    public static func measure(_ format: Format, _ body: (ArchiveWriter) throws -> Void) throws -> Int64 {
        let count = Counter()
        let writer = try ArchiveWriter(format, .none) { count.bytes += Int64($0.count) }
        try body(writer)
        try writer.finish()
        return count.bytes
    }

    private final class Counter { var bytes: Int64 = 0 }
}
