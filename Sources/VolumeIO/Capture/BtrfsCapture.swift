import BackupBase
import CLinux
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
        let (isHeld, held) = try withWritersPaused(parts, settings) { isHeld in
            for (place, area) in zip(places, areas) { try Self.snapshot(place, area) }
            return isHeld
        }
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

    private static func snapshot(_ place: Place, _ area: CaptureArea) throws(CaptureError) {
        do throws(SystemError) {
            let source = try Descriptor(
                system("open") { open(place.subvolume, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW) })
            _ = try source.call("make the snapshot") { source in
                (try? area.directory.call("make the snapshot") { bgb_btrfs_snapshot($0, source, CaptureArea.takenName) })
                    ?? -1
            }
        } catch {
            throw CaptureError("there is no snapshot of \(place.subvolume)", error, hint: hint(error.errno))
        }
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

    public func previous(of node: ScannedNode) -> SourceFile? { try? previous?.open(node.path) }

    public func bytesPinned(except unchanged: Set<UInt64>) -> Int64 {
        zip(places, areas).reduce(0) { $0 + $1.1.bytesPinned(token, part: $1.0.path, except: unchanged) }
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
