import BackupBase
import CLinux
import Glibc

/// A clone of an image file, beside it, that shares its extents (FICLONE).
///
/// XFS and btrfs clone under the lock that write(2) takes, and write dirty
/// pages out before: a clone stands between two writes, but maybe amid stores
/// through a mapping. So who has the image open for writing is held meanwhile;
/// where that is nobody, or a loop device, the image must not change.
public final class ImageCapture: Capture {
    public let view: any VolumeView
    public let moment: Int64
    public let held: Double
    private let area: CaptureArea
    private let token: String?
    private var isKept = false

    /// - Parameter path: of the image; links are followed
    public static func take(_ path: String, _ settings: CaptureSettings) throws -> ImageCapture {
        guard let place = resolve(path) else { throw CaptureError(path, SystemError(operation: "open", errno: errno)) }
        let parent = place.split(separator: "/").dropLast().map { "/" + $0 }.joined()
        try WriteHold.requireWritable(VolumeParts(only: parent.isEmpty ? "/" : parent), program: settings.program)
        let parts = VolumeParts(only: place)
        let area = try CaptureArea(ofImage: parts.root)
        try area.clean(except: settings.previous)
        do {
            return ImageCapture(path, try Taken(parts, area, settings), area, settings)
        } catch {
            try? area.remove(CaptureArea.takenName)
            throw error
        }
    }

    private init(_ path: String, _ taken: Taken, _ area: CaptureArea, _ settings: CaptureSettings) {
        self.area = area
        token = settings.previous
        (moment, held) = (taken.moment, taken.held)
        let (directory, stat) = (area.directory, taken.stat)
        view = DeviceView(path: path, stat, moment: moment) { () throws(SourceError) in
            try Self.open(CaptureArea.takenName, stat, in: directory, Array(path.utf8))
        }
    }

    /// As `CloneCapture` names its clones.
    fileprivate static func name(_ directory: String, _ stat: FileStat) -> [UInt8] {
        Array("\(directory)/\(String(stat.inode, radix: 16))".utf8)
    }

    private static func open(
        _ name: String, _ stat: FileStat, in area: Descriptor, _ path: [UInt8]
    ) throws(SourceError) -> SourceFile {
        do throws(SystemError) {
            let file = try area.openBeneath(Self.name(name, stat), O_RDONLY | O_NOFOLLOW | BGB_O_NOATIME)
            return SourceFile(path: path, reader: BlockReader(file, size: try file.stat().size))
        } catch {
            throw SourceError(path, error)
        }
    }

    public func previous(of node: ScannedNode) -> SourceFile? {
        token.flatMap { try? Self.open("kept-\($0)", node.stat, in: area.directory, node.path) }
    }

    public func bytesPinned(except unchanged: Set<UInt64>) -> Int64 { area.bytesPinned(token, except: unchanged) }

    public func keep(as token: String) throws(CaptureError) {
        isKept = true
        try area.keep(as: token)
    }

    public func release() {
        guard !isKept else { return }
        try? area.remove(CaptureArea.takenName)
    }
}

/// The making of the clone.
private struct Taken {
    /// Of the image, with the content that the clone has.
    private(set) var stat = FileStat(mode: 0, owner: 0, group: 0, size: 0, modified: 0)
    private(set) var moment: Int64 = 0
    private(set) var held = 0.0
    private let source: Descriptor
    private let area: CaptureArea

    init(_ parts: VolumeParts, _ area: CaptureArea, _ settings: CaptureSettings) throws {
        self.area = area
        do throws(SystemError) {
            source = try Descriptor.withoutAccessTime { noatime throws(SystemError) in
                try Descriptor(
                    system("open") { open(parts.root.directory, O_RDONLY | O_NONBLOCK | O_CLOEXEC | noatime) })
            }
            try area.directory.call("make directory") { mkdirat($0, CaptureArea.takenName, 0o700) }
        } catch {
            throw CaptureError("there is no room for a clone in \(area.path)", error)
        }
        var loops: [BoundLoop] = []
        for _ in 0..<CloneCapture.attempts {
            loops = BoundLoop.writing(to: try source.stat())
            for loop in loops { loop.sync() }
            if try isOneMoment(parts, settings, isHeldAtAll: loops.isEmpty) { return }
            usleep(30_000)
        }
        guard let loop = loops.first else { throw CaptureError.restless }
        throw CaptureError(
            "the image keeps changing, and is written to through \(loop.path), which nobody can pause",
            hint: "Unmount what is on it, or back up the directory that is mounted; or accept a fuzzy copy with --capture none.",
            isRestless: true)
    }

    /// Clones once; whether that is surely of one moment.
    /// - Parameter isHeldAtAll: false where somebody writes whom pausing processes does not hold
    private mutating func isOneMoment(
        _ parts: VolumeParts, _ settings: CaptureSettings, isHeldAtAll: Bool
    ) throws -> Bool {
        // From here on a store through a mapping shows in the stat.
        try source.clean()
        moment = Ambient.system.now()
        let before = try source.stat()
        let (isHeld, held) = try withWritersPaused(parts, settings) { isHeld in
            try clone(before)
            return isHeld
        }
        self.held = held
        stat = try source.stat()
        if isHeld, isHeldAtAll { return true }
        return stat.isSame(as: before) && !LookSpan(from: moment, to: Ambient.system.now()).isFresh(stat)
    }

    private func clone(_ stat: FileStat) throws(CaptureError) {
        let name = ImageCapture.name(CaptureArea.takenName, stat)
        do throws(SystemError) {
            _ = try? terminated(name) { name throws(SystemError) in
                try area.directory.call("remove") { unlinkat($0, name, 0) }
            }
            let target = try area.directory.openBeneath(name, O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW, mode: 0o600)
            _ = try source.call("clone") { from in (try? target.call("clone") { bgb_clone($0, from) }) ?? -1 }
        } catch {
            throw CaptureError(
                "the image cannot be cloned", error,
                hint: error.errno == ENOSPC || error.errno == EDQUOT
                    ? "Make room on the image's file system." : "Only XFS and btrfs have clones.")
        }
    }
}

/// A loop device that writes into a file. The kernel does that itself: no
/// process has the file open.
private struct BoundLoop {
    let path: String
    private let device: Descriptor

    /// By device and inode, because the path that /sys tells may be of another mount namespace.
    static func writing(to stat: FileStat) -> [BoundLoop] {
        names(of: "/sys/block").compactMap { name in
            guard name.hasPrefix("loop"), access("/sys/block/\(name)/loop/backing_file", F_OK) == 0,
                let device = try? Descriptor(
                    system("open", { open("/dev/\(name)", O_RDONLY | O_NONBLOCK | O_CLOEXEC) }))
            else { return nil }
            var (backingDevice, inode, isReadOnly): (UInt64, UInt64, Int32) = (0, 0, 0)
            guard (try? device.call("look at", { bgb_loop_backing($0, &backingDevice, &inode, &isReadOnly) })) != nil,
                backingDevice == stat.device, inode == stat.inode, isReadOnly == 0
            else { return nil }
            return BoundLoop(path: "/dev/\(name)", device: device)
        }
    }

    /// What its cache has for the file is in the file then.
    func sync() { _ = try? device.call("sync") { fsync($0) } }
}
