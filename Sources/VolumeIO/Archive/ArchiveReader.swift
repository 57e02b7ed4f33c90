import BackupBase
import CArchive
import Glibc

/// Reads a tar archive (ustar, pax, GNU) member by member, through libarchive.
///
/// Memory is bounded whatever the archive says: names and attributes by
/// libarchive's 1 MiB for each header, the map of a sparse file by `mapLimit`.
public final class ArchiveReader: ByteSource {
    private let input: ArchiveInput
    /// Bytes of the member's data that came last.
    private var end: Int64 = 0
    private var size: Int64 = 0
    /// Bytes of data that the member has still to give; nil of what is no file.
    private var owed: Int64?

    /// Bytes of archive that may describe one member: a map of 400 000 ranges.
    private static let mapLimit = 8 << 20

    public init(_ source: any ByteSource) throws {
        input = try ArchiveInput(source, limit: Self.mapLimit) { _ = archive_read_support_format_tar($0) }
    }

    /// The next member, or nil at the end of the archive. What was not read of
    /// the last one has to be passed over by `skip` before.
    public func next() throws -> ArchiveMember? {
        var found: OpaquePointer?
        let status = try input.check(archive_read_next_header(input.handle, &found))
        guard status != ARCHIVE_EOF, let entry = found else {
            // An archive ends with blocks of zeros. One that just stops was cut
            // off between two members, and libarchive does not mind.
            guard !input.isAtEnd || archive_read_header_position(input.handle) < input.given else {
                throw ArchiveError("the archive was cut off: its end is missing")
            }
            return nil
        }
        end = 0
        size = max(archive_entry_size(entry), 0)
        let member = try member(entry)
        owed = nil
        if case .file(_, let ranges) = member.kind { owed = ranges.reduce(0) { $0 + $1.upperBound - $1.lowerBound } }
        return member
    }

    /// What a sparse file's map calls data, or all of the file.
    private func dataRanges(_ entry: OpaquePointer) -> [Range<Int64>] {
        guard archive_entry_sparse_reset(entry) > 0 else { return size > 0 ? [0..<size] : [] }
        var ranges: [Range<Int64>] = []
        var (offset, length) = (Int64(0), Int64(0))
        while archive_entry_sparse_next(entry, &offset, &length) == ARCHIVE_OK {
            if length > 0 { ranges.append(offset..<offset + length) }
        }
        return ranges
    }

    private func member(_ entry: OpaquePointer) throws -> ArchiveMember {
        guard let path = archive_entry_pathname(entry).map(Self.bytes), !path.isEmpty else {
            throw ArchiveError("a member has no name")
        }
        let name = printable(path)
        func number(_ value: Int64, _ what: String) throws -> UInt32 {
            guard let number = UInt32(exactly: value) else { throw ArchiveError("\(name) has no sensible \(what)") }
            return number
        }
        let (seconds, overflow) = Int64(archive_entry_mtime(entry)).multipliedReportingOverflow(by: 1_000_000_000)
        guard !overflow, seconds < .max - 1_000_000_000 else { throw ArchiveError("\(name) has no sensible time") }
        var mode = UInt32(archive_entry_perm(entry)) & 0o7777
        let attributes = try attributes(entry, name)
        if let list = attributes.first(where: { $0.name == AccessList.access }), let mask = AccessList.mask(list.value) {
            mode = mode & ~0o070 | mask << 3
        }
        return ArchiveMember(
            path: path, kind: try kind(entry, name), mode: mode, owner: try number(archive_entry_uid(entry), "owner"),
            group: try number(archive_entry_gid(entry), "group"), modified: seconds + Int64(archive_entry_mtime_nsec(entry)),
            attributes: attributes)
    }

    private func kind(_ entry: OpaquePointer, _ name: String) throws -> ArchiveMember.Kind {
        if let target = archive_entry_hardlink(entry) { return .hardLink(to: Self.bytes(target)) }
        switch UInt32(archive_entry_filetype(entry)) {
        case MemberType.file:
            guard archive_entry_size(entry) >= 0, archive_entry_size(entry) <= 1 << 60 else {
                throw ArchiveError("\(name) is larger than a file can be")
            }
            return .file(size: size, dataRanges: dataRanges(entry))
        case MemberType.directory: return .directory
        case MemberType.symlink:
            guard let target = archive_entry_symlink(entry).map(Self.bytes), !target.isEmpty else {
                throw ArchiveError("the symbolic link \(name) leads to no path")
            }
            return .symlink(target: target)
        default: return .special
        }
    }

    private func attributes(_ entry: OpaquePointer, _ name: String) throws -> [ExtendedAttribute] {
        var found: [[UInt8]: [UInt8]] = [:]
        archive_entry_xattr_reset(entry)
        var (key, value, count) = (UnsafePointer<CChar>?.none, UnsafeRawPointer?.none, 0)
        while archive_entry_xattr_next(entry, &key, &value, &count) == ARCHIVE_OK, let text = key {
            let attribute = Self.bytes(text)
            guard (1...255).contains(attribute.count), count <= 65536 else {
                throw ArchiveError("an attribute of \(name) is larger than one can be")
            }
            found[attribute] = Array(UnsafeRawBufferPointer(start: value, count: count))
        }
        for (name, type) in [
            (AccessList.access, ARCHIVE_ENTRY_ACL_TYPE_ACCESS), (AccessList.inherited, ARCHIVE_ENTRY_ACL_TYPE_DEFAULT),
        ] {
            if let list = AccessList.bytes(type, of: entry) { found[name] = list }
        }
        return found.map { ExtendedAttribute(name: $0.key, value: $0.value) }
            .sorted { $0.name.lexicographicallyPrecedes($1.name) }
    }

    private static func bytes(_ text: UnsafePointer<CChar>) -> [UInt8] {
        Array(UnsafeRawBufferPointer(start: text, count: strlen(text)))
    }

    // MARK: - Data

    /// The next stretch of the member's data and where it stands in the file,
    /// valid until the next call; nil at the end. What lies between is a hole.
    public func data() throws -> (offset: Int64, bytes: UnsafeRawBufferPointer)? {
        while true {
            var (start, count, offset) = (UnsafeRawPointer?.none, 0, Int64(0))
            guard try input.check(archive_read_data_block(input.handle, &start, &count, &offset)) != ARCHIVE_EOF else {
                // libarchive ends early where a map names more than there is.
                guard owed ?? 0 == 0 else { throw ArchiveError("a file has less data than it should") }
                return nil
            }
            owed = owed.map { $0 - Int64(count) }
            guard offset >= end, offset <= size, Int64(count) <= size - offset else {
                throw ArchiveError("the data of a sparse file stands out of order or behind its end")
            }
            end = offset + Int64(count)
            if count > 0 { return (offset, UnsafeRawBufferPointer(start: start, count: count)) }
        }
    }

    /// Passes over what was not read of the member.
    /// - Returns: bytes passed over
    @discardableResult
    public func skip() throws -> Int64 {
        var skipped: Int64 = 0
        while let (_, bytes) = try data() { skipped += Int64(bytes.count) }
        return skipped
    }

    /// The member as an archive of its own: its data, which must have no holes.
    public func nextBytes() throws -> UnsafeRawBufferPointer {
        let before = end
        guard let (offset, bytes) = try data() else { return UnsafeRawBufferPointer(start: nil, count: 0) }
        guard offset == before else { throw ArchiveError("an archive in the archive has holes") }
        return bytes
    }
}
