import BackupBase
import CLinux
import Dispatch
import Glibc

/// Read-only snapshots of the subvolumes that a volume is in.
public final class BtrfsCapture: Capture {
    public let view: any VolumeView
    public let moment: Int64
    public let held: Double
    /// Nil where writers were paused; else when nothing may have changed.
    public let span: LookSpan?
    private let parts: VolumeParts
    private let areas: [CaptureArea]
    private let places: [Place]
    private let token: String?
    private let previous: SourceTree?
    /// Of files that were compared, by inode: bytes that only the kept snapshot has in their place.
    private let onlyEarlier = Locked<[UInt64: Int64]>([:])
    private var isKept = false

    /// A subvolume, and where in it a part of the volume is.
    private struct Place {
        let subvolume: String
        let path: String
    }

    /// - Throws: `CaptureError`; nothing is left then
    public static func take(_ parts: VolumeParts, _ settings: CaptureSettings) throws -> BtrfsCapture {
        let places = try parts.all.map(Self.place)
        var areas: [CaptureArea] = []
        for part in parts.all { areas.append(try CaptureArea(of: part)) }
        for area in areas { try area.clean(except: settings.previous) }
        do {
            return try BtrfsCapture(parts, places, areas, settings)
        } catch {
            for area in areas { try? area.remove(CaptureArea.takenName) }
            throw error
        }
    }

    private init(
        _ parts: VolumeParts, _ places: [Place], _ areas: [CaptureArea], _ settings: CaptureSettings
    ) throws {
        self.parts = parts
        self.areas = areas
        self.places = places
        token = settings.previous
        for area in areas { _ = try? area.directory.call("sync") { bgb_syncfs($0) } }
        let from = Ambient.system.now()
        moment = from
        // A snapshot alone is no moment: it writes dirty pages out one by one,
        // while a database goes on to store into others. Measured: of five
        // snapshots of a process that counts in two mapped files, three had
        // counts that never stood beside each other.
        let ((isHeld, snapshots), held) = try withWritersPaused(parts, settings) { isHeld in
            (isHeld, try zip(places, areas).map { try PendingSnapshot(of: $0.subvolume, in: $1) })
        }
        for snapshot in snapshots { try snapshot.finish() }
        self.held = held
        span = isHeld ? nil : LookSpan(from: from, to: Ambient.system.now())
        view = try Self.tree(places, areas, CaptureArea.takenName, parts)
        let isKept = settings.previous.map { token in areas.allSatisfy { $0.kept(token) } } ?? false
        previous = isKept ? try? Self.tree(places, areas, "kept-\(settings.previous!)", parts) : nil
    }

    /// Opened beneath the area, through no link: the way from the subvolume's
    /// root to the volume is in the hands of whoever may write there.
    private static func tree(
        _ places: [Place], _ areas: [CaptureArea], _ name: String, _ parts: VolumeParts
    ) throws(CaptureError) -> SourceTree {
        do throws(SystemError) {
            var directories: [Descriptor] = []
            for (place, area) in zip(places, areas) {
                let path = Array((place.path.isEmpty ? name : "\(name)/\(place.path)").utf8)
                directories.append(try area.directory.openBeneath(path, O_RDONLY | O_DIRECTORY | BGB_O_NOATIME))
            }
            let grafts = zip(parts.all, directories).dropFirst().map { ($0.path, $1) }
            return try SourceTree(
                root: directories[0], isLive: false, grafts: Dictionary(grafts, uniquingKeysWith: { $1 }))
        } catch {
            throw CaptureError("the snapshot of \(parts.root.directory) cannot be opened", error)
        }
    }

    private static func place(_ part: VolumePart) throws(CaptureError) -> Place {
        guard FileSystemKind(part.directory) == .btrfs else {
            throw CaptureError(
                "\(part.directory) is not on btrfs: no subvolume of btrfs holds it", hint: "Give another --capture.")
        }
        var subvolume = part.directory
        while true {
            var value = stat()
            guard stat(subvolume, &value) == 0 else {
                throw CaptureError("no subvolume holds \(part.directory)", SystemError(operation: "stat", errno: errno))
            }
            if value.st_ino == 256 { break }
            guard subvolume != "/", let slash = subvolume.lastIndex(of: "/") else {
                throw CaptureError("no subvolume of btrfs holds \(part.directory)", hint: "Give another --capture.")
            }
            subvolume = slash == subvolume.startIndex ? "/" : String(subvolume[..<slash])
        }
        let rest = part.directory.dropFirst(subvolume.count).drop { $0 == "/" }
        return Place(subvolume: subvolume, path: String(rest))
    }

    public func previous(of node: ScannedNode) -> SourceFile? { try? previous?.open(node.path) }

    public func changedRanges(of node: ScannedNode, since size: Int64) -> [Range<Int64>]? {
        guard let earlier = previous(of: node), (try? earlier.stat().size) == size, let file = try? view.open(node.path)
        else { return nil }
        guard let changes = ExtentComparison.changes(ofSnapshot: file, since: earlier) else {
            return ExtentComparison.changedRanges(of: file, since: earlier)
        }
        // Of several subvolumes, inodes are told apart by nothing.
        if places.count == 1, let inode = try? earlier.descriptor?.stat().inode {
            onlyEarlier.withLock { $0[inode] = changes.onlyEarlier }
        }
        return changes.ranges
    }

    /// More than that where somebody else's snapshots or clones hold on to the same.
    public func bytesPinned(except unchanged: Set<UInt64>) -> Int64 {
        let compared = onlyEarlier.withLock { $0 }
        return zip(places, areas).reduce(compared.values.reduce(0, +)) {
            $0 + $1.1.bytesPinned(token, part: $1.0.path, except: unchanged.union(compared.keys))
        }
    }

    public func keep(as token: String) throws(CaptureError) {
        isKept = true
        for area in areas { try area.keep(as: token) }
    }

    public func release() {
        guard !isKept else { return }
        for area in areas { try? area.remove(CaptureArea.takenName) }
    }
}

/// A snapshot that is being made. What it holds is settled long before the call
/// returns, which then writes metadata and waits for the disk to flush (measured
/// beside 20 MB/s of change: 12 to 170 ms of 210 to 390).
private final class PendingSnapshot: Sendable {
    private let subvolume: String
    private let error = Locked<SystemError?>(nil)
    private let ended = DispatchSemaphore(value: 0)

    /// Begins it, and returns once nothing that is written from now on gets into it.
    init(of subvolume: String, in area: CaptureArea) throws(CaptureError) {
        self.subvolume = subvolume
        let source: Descriptor
        do throws(SystemError) {
            source = try Descriptor(
                system("open") { open(subvolume, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW) })
        } catch {
            throw Self.failure(subvolume, error)
        }
        let target = area.directory
        DispatchQueue.global().async { [error, ended] in
            do throws(SystemError) {
                _ = try source.call("make the snapshot") { source in
                    (try? target.call("make the snapshot") { bgb_btrfs_snapshot($0, source, CaptureArea.takenName) }) ?? -1
                }
            } catch let failed {
                error.withLock { $0 = failed }
            }
            ended.signal()
        }
        waitForMoment(target)
    }

    // Whoever gives up takes the snapshot away, and cannot before it is there.
    deinit { wait() }

    private func wait() {
        ended.wait()
        ended.signal()
    }

    /// The commit of the transaction copies the subvolume's root, and after it
    /// enters the copy into the tree of roots (create_pending_snapshot in
    /// fs/btrfs/transaction.c): where the entry is seen, the copy is made. Where
    /// it cannot be looked for, the end of the call is the moment.
    private func waitForMoment(_ target: Descriptor) {
        var next: UInt64 = 0
        while true {
            let isRooted = (try? target.call("look") { bgb_btrfs_is_rooted($0, CaptureArea.takenName, &next) }) ?? -1
            if isRooted > 0 { return }
            if isRooted < 0 { ended.wait() } else if ended.wait(timeout: .now() + .microseconds(500)) != .success { continue }
            ended.signal()
            return
        }
    }

    /// Waits until the snapshot is on the disk.
    func finish() throws(CaptureError) {
        wait()
        if let failed = error.withLock({ $0 }) { throw Self.failure(subvolume, failed) }
    }

    private static func failure(_ subvolume: String, _ error: SystemError) -> CaptureError {
        CaptureError("there is no snapshot of \(subvolume)", error, hint: hint(error.errno))
    }

    private static func hint(_ code: Int32) -> String? {
        switch code {
        case ENOSPC, EDQUOT: "Make room on the volume's file system."
        case EPERM, EACCES: "Run as root."
        case EINVAL, ENOTTY, EXDEV: "The volume has to be a btrfs subvolume, or be in one."
        case ETXTBSY: "A swap file is in the subvolume."
        default: nil
        }
    }
}
