import BackupBase
import BackupRepository
import CLinux
import Glibc
import VolumeIO

/// What the node remembers of a volume's last snapshot: for each file its stat
/// and the content it had, so that an unchanged file is not read again.
///
/// Disposable: lost, torn or stale, the next backup reads everything and finds
/// the blocks known. Names are kept as keyed hashes only, and the whole file is
/// authenticated, because a wrong content here would become a wrong snapshot.
/// The segments of a `ReadJournal` have the same format.
struct LocalState {
    /// A path, as a keyed hash.
    struct Key: Hashable, Comparable {
        let high, low: UInt64

        init(_ path: [UInt8], _ hasher: BlockHasher) {
            self.init(path.withUnsafeBytes { hasher.id(of: $0).bytes }, at: 0)
        }

        fileprivate init(_ bytes: [UInt8], at offset: Int) {
            (high, low) = bytes.withUnsafeBytes { raw in
                func word(_ offset: Int) -> UInt64 {
                    UInt64(bigEndian: raw.loadUnaligned(fromByteOffset: offset, as: UInt64.self))
                }
                return (word(offset), word(offset + 8))
            }
        }

        fileprivate var bytes: [UInt8] { [high, low].flatMap { word in withUnsafeBytes(of: word.bigEndian, Array.init) } }

        static func < (left: Self, right: Self) -> Bool { (left.high, left.low) < (right.high, right.low) }
    }

    /// The stat fields of which any change means that a file must be read.
    struct Stamp: Equatable {
        var inode: UInt64
        var size: Int64
        var modified: Int64
        var changed: Int64

        init(_ stat: FileStat) {
            inode = stat.inode
            size = stat.size
            modified = stat.modified
            changed = stat.changed
        }

        fileprivate init(inode: UInt64, size: Int64, modified: Int64, changed: Int64) {
            self.inode = inode
            self.size = size
            self.modified = modified
            self.changed = changed
        }
    }

    struct Found {
        let stamp: Stamp
        /// Read again however the stat looks: it moved too close to the reading.
        let racy: Bool
        let content: ArraySlice<UInt8>
        /// Packs that hold the content and its parts, where they were noted.
        var packs: [ObjectID] {
            stride(from: packBytes.startIndex, to: packBytes.endIndex, by: 16).map { ObjectID(bytes: packBytes[$0..<$0 + 16]) }
        }
        fileprivate let packBytes: ArraySlice<UInt8>
    }

    /// The snapshot that the state describes.
    let snapshot: ObjectID
    private let hasher: BlockHasher
    private let bytes: [UInt8]
    private let table: Int
    let count: Int

    private static let magic = Array("BGBSTAT2".utf8)
    private static let recordSize = 16 + 8 + 1 + 32
    private static let headerSize = 8 + 16 + 16 + 8 + 8

    /// Opens the state; nil when there is none that can be trusted.
    init?(path: String, repository: ObjectID, hasher: BlockHasher) {
        guard let bytes = LocalFile.read(path, limit: 4 << 30), bytes.count >= Self.headerSize + 32 else { return nil }
        let body = bytes[..<(bytes.count - 32)]
        guard body.withUnsafeBytes({ hasher.id(of: $0).bytes }) == Array(bytes.suffix(32)),
            Array(bytes[..<8]) == Self.magic, ObjectID(bytes: bytes[8..<24]) == repository
        else { return nil }
        snapshot = ObjectID(bytes: bytes[24..<40])
        let count = Self.number(bytes, 40)
        let table = Self.number(bytes, 48)
        guard count >= 0, table >= Self.headerSize, count <= bytes.count / Self.recordSize,
            table + count * Self.recordSize + 32 == bytes.count
        else { return nil }
        self.hasher = hasher
        self.bytes = bytes
        self.count = count
        self.table = table
    }

    /// What is known of a path, or nil.
    func find(_ path: [UInt8]) -> Found? {
        let key = Key(path, hasher)
        var low = 0
        var high = count
        while low < high {
            let middle = (low + high) / 2
            let found = self.key(middle)
            if found == key { return record(middle)?.found }
            if found < key { low = middle + 1 } else { high = middle }
        }
        return nil
    }

    private func key(_ index: Int) -> Key { Key(bytes, at: table + index * Self.recordSize) }

    /// One of `count` records, in the order of their keys.
    func record(_ index: Int) -> (key: Key, found: Found)? {
        let start = table + index * Self.recordSize
        let offset = Self.number(bytes, start + 16)
        guard offset >= Self.headerSize, offset + 8 <= table else { return nil }
        let content = offset + 8..<offset + 8 + length(offset)
        let packs = content.upperBound..<content.upperBound + length(offset + 4) * 16
        guard packs.upperBound <= table else { return nil }
        let stamp = Stamp(
            inode: UInt64(bitPattern: Int64(Self.number(bytes, start + 25))), size: Int64(Self.number(bytes, start + 33)),
            modified: Int64(Self.number(bytes, start + 41)), changed: Int64(Self.number(bytes, start + 49)))
        let found = Found(stamp: stamp, racy: bytes[start + 24] != 0, content: bytes[content], packBytes: bytes[packs])
        return (key(index), found)
    }

    private func length(_ offset: Int) -> Int { (0..<4).reduce(0) { $0 | Int(bytes[offset + $1]) << (8 * $1) } }

    private static func number(_ bytes: [UInt8], _ offset: Int) -> Int {
        bytes.withUnsafeBytes { Int(Int64(littleEndian: $0.loadUnaligned(fromByteOffset: offset, as: Int64.self))) }
    }

    /// Collects the next state while a backup runs.
    struct Builder {
        private let hasher: BlockHasher
        private var heap: [UInt8] = []
        private var records: [(key: Key, offset: Int, racy: Bool, stamp: Stamp)] = []

        init(hasher: BlockHasher) { self.hasher = hasher }

        var isEmpty: Bool { records.isEmpty }

        mutating func add(_ path: [UInt8], _ stamp: Stamp, racy: Bool, content: [UInt8], packs: Set<ObjectID> = []) {
            let offset = LocalState.headerSize + heap.count
            for count in [content.count, packs.count] {
                withUnsafeBytes(of: UInt32(count).littleEndian) { heap.append(contentsOf: $0) }
            }
            heap.append(contentsOf: content)
            for pack in packs { heap.append(contentsOf: pack.bytes) }
            records.append((Key(path, hasher), offset, racy, stamp))
        }

        /// Writes the state of `snapshot` in place of the last one.
        /// - Returns: false when the disk did not take it: the next backup is slower.
        func write(to path: String, repository: ObjectID, snapshot: ObjectID) -> Bool {
            var bytes = LocalState.magic + repository.bytes + snapshot.bytes
            func append(_ value: Int64) { withUnsafeBytes(of: value.littleEndian) { bytes.append(contentsOf: $0) } }
            append(Int64(records.count))
            append(Int64(LocalState.headerSize + heap.count))
            bytes += heap
            for record in records.sorted(by: { $0.key < $1.key }) {
                bytes += record.key.bytes
                append(Int64(record.offset))
                bytes.append(record.racy ? 1 : 0)
                append(Int64(bitPattern: record.stamp.inode))
                append(record.stamp.size)
                append(record.stamp.modified)
                append(record.stamp.changed)
            }
            bytes += bytes.withUnsafeBytes { hasher.id(of: $0).bytes }
            return LocalFile.replace(path, with: bytes)
        }
    }
}

/// Keeps a second backup of the same volume on this node out.
final class VolumeLock {
    private let descriptor: Int32

    /// Throws `.busy` while another process holds it.
    init(path: String) throws {
        descriptor = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0o600)
        guard descriptor >= 0 else {
            throw BackupError(
                .failed, "cannot open the lock \(path): \(String(cString: strerror(errno)))",
                hint: "Set BGBACKUP_STATE_DIR to a directory that this user may write.")
        }
        guard bgb_flock(descriptor, LOCK_EX | LOCK_NB) == 0 else {
            close(descriptor)
            throw BackupError(
                .busy, "another backup of this volume is running on this node",
                hint: "Wait for it to end; the lock is gone when its process is.")
        }
    }

    deinit { close(descriptor) }
}
