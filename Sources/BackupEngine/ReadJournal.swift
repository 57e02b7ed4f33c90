import BackupBase
import BackupRepository
import Glibc

/// What a backup has read so far, on the node: segments in the local state's
/// format, one for each time files were finished. A run that is interrupted
/// leaves them, and the next one need not read those files again.
///
/// Disposable, as the state is. A file counts only while its stat is the same
/// and every pack that holds it is listed in the repository: the journal may be
/// ahead of what was stored.
struct ReadJournal {
    private let directory: String
    private let repository: ObjectID
    private let hasher: BlockHasher
    private var segments: [LocalState] = []
    private var places: [LocalState.Key: (segment: Int, record: Int)] = [:]
    private var next = 0

    /// Bytes read between two segments: at 1 GB/s every quarter of a second,
    /// which is what an interruption costs, for one small file forced to the disk.
    static let interval: Int64 = 256 << 20
    /// Files at which a segment is written before that: some 20 MB of memory.
    static let mostFiles = 1 << 16

    /// A segment is of no snapshot.
    private static let noSnapshot = ObjectID(bytes: [UInt8](repeating: 0, count: 16))

    init(directory: String, repository: ObjectID, hasher: BlockHasher) {
        (self.directory, self.repository, self.hasher) = (directory, repository, hasher)
    }

    // MARK: - What an interrupted run left

    /// Loads what can be used, later segments before earlier ones; what is torn goes away.
    /// - Parameter isListed: whether the repository lists a pack
    mutating func load(isListed: (ObjectID) -> Bool) {
        for (number, name) in LocalFile.names(in: directory).map({ (Int($0), $0) }).sorted(by: { $0.0 ?? -1 < $1.0 ?? -1 }) {
            next = max(next, (number ?? -1) + 1)
            let path = "\(directory)/\(name)"
            guard number != nil, let segment = LocalState(path: path, repository: repository, hasher: hasher),
                segment.snapshot == Self.noSnapshot
            else {
                unlink(path)
                continue
            }
            for record in 0..<segment.count {
                guard let (key, found) = segment.record(record), found.packs.allSatisfy(isListed) else { continue }
                places[key] = (segments.count, record)
            }
            segments.append(segment)
        }
    }

    func find(_ path: [UInt8]) -> LocalState.Found? {
        guard !places.isEmpty, let place = places[LocalState.Key(path, hasher)] else { return nil }
        return segments[place.segment].record(place.record)?.found
    }

    // MARK: - What this run leaves

    /// - Parameter segment: a disk that does not take it only costs time
    mutating func append(_ segment: LocalState.Builder) {
        guard !segment.isEmpty, LocalFile.makeDirectory(directory) else { return }
        _ = segment.write(to: "\(directory)/\(next)", repository: repository, snapshot: Self.noSnapshot)
        next += 1
    }

    /// Forgets all of it.
    mutating func remove() {
        (segments, places) = ([], [:])
        for name in LocalFile.names(in: directory) { unlink("\(directory)/\(name)") }
        rmdir(directory)
    }
}
