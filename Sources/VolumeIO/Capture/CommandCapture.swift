import BackupBase
import CLinux
import Glibc

/// A snapshot that other programs make, mount and take away: ZFS, LVM, or a
/// hook for whatever else makes snapshots of a block device.
public final class CommandCapture: Capture {
    public var view: any VolumeView { open }
    private let open: ClosableView
    public let moment: Int64
    public let held: Double
    private let area: CaptureArea
    private let undo: [SnapshotCommand]

    private init(
        _ area: CaptureArea, _ directory: String, grafts: [[UInt8]: String] = [:], moment: Int64, held: Double,
        undo: [SnapshotCommand]
    ) throws {
        self.area = area
        self.moment = moment
        self.held = held
        self.undo = undo
        open = ClosableView(try SourceTree(path: directory, isLive: false, grafts: grafts))
    }

    /// Commands run to the end before this returns: what was made must not outlive the run.
    public func release() {
        // What is open there cannot be unmounted.
        open.close()
        Self.run(undo)
    }

    private static func run(_ commands: [SnapshotCommand]) {
        let done = DoneSignal()
        Task.detached {
            // Not cancelled with the run: each has to have its chance.
            for command in commands { _ = try? await command.run() }
            done.set()
        }
        done.wait()
    }

    /// A name that only one run uses.
    private static func newName() -> String {
        prefix
            + Ambient.system.random(6).map { byte in
                let text = String(byte, radix: 16)
                return text.count == 1 ? "0" + text : text
            }.joined()
    }

    /// Snapshots of this name were made by us: those of a run that was killed are removed by the next.
    static let prefix = "bgbackup-"

    private static func onlyPart(_ parts: VolumeParts, _ method: CaptureMethod) throws -> VolumePart {
        guard parts.all.count == 1 else {
            let other = parts.elsewhere[0]
            throw CaptureError(
                "\(method.rawValue) captures one file system, and \(printable(other.path)) is on another",
                hint: "Use --capture pause, which holds writes to all of them.")
        }
        return parts.root
    }

    // MARK: - ZFS

    /// A snapshot of the dataset, read where ZFS shows it.
    public static func zfs(_ parts: VolumeParts) async throws -> CommandCapture {
        let part = try onlyPart(parts, .zfs)
        let area = try CaptureArea(of: part)
        let fields = try await SnapshotCommand("zfs", "list", "-H", "-o", "name,mountpoint", part.directory).run()
            .trimmed.split(separator: "\t").map(String.init)
        guard fields.count == 2, isBeneath(part.directory, fields[1]) else {
            throw CaptureError("no mounted dataset of ZFS holds \(part.directory)")
        }
        let (dataset, mountPoint) = (fields[0], fields[1])
        let old = try await SnapshotCommand("zfs", "list", "-H", "-t", "snapshot", "-d", "1", "-o", "name", dataset).run()
        for name in old.split(separator: "\n") where name.hasPrefix("\(dataset)@\(prefix)") {
            try await SnapshotCommand("zfs", "destroy", String(name)).run()
        }
        let name = newName()
        let undo = [SnapshotCommand("zfs", "destroy", "\(dataset)@\(name)")]
        let (moment, begin) = (Ambient.system.now(), monotonicSeconds())
        do {
            try await SnapshotCommand("zfs", "snapshot", "\(dataset)@\(name)").run()
            let held = monotonicSeconds() - begin
            let rest = part.directory.dropFirst(mountPoint.count)
            return try CommandCapture(
                area, "\(mountPoint)/.zfs/snapshot/\(name)\(rest)", moment: moment, held: held, undo: undo)
        } catch {
            run(undo)
            throw error
        }
    }

    // MARK: - LVM

    /// A snapshot of the logical volume, mounted read-only. LVM itself freezes
    /// the file system while it makes one.
    public static func lvm(_ parts: VolumeParts) async throws -> CommandCapture {
        let part = try onlyPart(parts, .lvm)
        let area = try CaptureArea(of: part)
        guard let mount = MountEntry(of: part.directory) else {
            throw CaptureError("nobody knows what \(part.directory) is mounted from")
        }
        let fields = try await SnapshotCommand(
            "lvs", "--noheadings", "--separator", ",", "-o", "vg_name,lv_name,pool_lv", mount.source
        ).run().trimmed.split(separator: ",", omittingEmptySubsequences: false).map(String.init)
        guard fields.count == 3 else { throw CaptureError("\(mount.source) is no logical volume") }
        let (group, origin, isThin) = (fields[0], fields[1], !fields[2].isEmpty)
        let place = "\(area.path)/mount"
        try await removeLeftovers(group, origin, place)

        let name = newName()
        // A thick snapshot needs room for what is written while it lives.
        let size = isThin ? ["--setactivationskip", "n"] : ["--extents", "10%ORIGIN"]
        var create = SnapshotCommand("lvcreate", "--yes", "--snapshot", "--name", name)
        create.arguments += size + ["\(group)/\(origin)"]
        var undo = [SnapshotCommand("lvremove", "--yes", "\(group)/\(name)")]
        let (moment, begin) = (Ambient.system.now(), monotonicSeconds())
        do {
            try await create.run()
            let held = monotonicSeconds() - begin
            let device = try await SnapshotCommand("lvs", "--noheadings", "-o", "lv_path", "\(group)/\(name)").run().trimmed
            _ = mkdir(place, 0o700)
            let options = mount.type == "xfs" ? "ro,nouuid" : "ro"
            undo.insert(SnapshotCommand("umount", place), at: 0)
            try await SnapshotCommand("mount", "-o", options, device, place).run()
            let rest = mount.rest(of: part.directory)
            return try CommandCapture(area, place + rest, moment: moment, held: held, undo: undo)
        } catch {
            run(undo)
            throw error
        }
    }

    private static func removeLeftovers(_ group: String, _ origin: String, _ place: String) async throws {
        if MountEntry(of: place)?.point == place { try await SnapshotCommand("umount", place).run() }
        let volumes = try await SnapshotCommand(
            "lvs", "--noheadings", "--separator", ",", "-o", "lv_name,origin", group
        ).run()
        for line in volumes.split(separator: "\n") {
            let fields = String(line).trimmed.split(separator: ",", omittingEmptySubsequences: false)
            guard fields.count == 2, fields[0].hasPrefix(prefix), fields[1] == origin else { continue }
            try await SnapshotCommand("lvremove", "--yes", "\(group)/\(fields[0])").run()
        }
    }

    // MARK: - Hook

    /// Freezes the file systems of the volume, has `hook create` make a block
    /// snapshot, thaws, and reads where `hook open` says that the snapshot is.
    ///
    /// `open` prints the directory that shows the volume, and for each part of
    /// it that is mounted or linked elsewhere a line `PART=DIRECTORY`.
    public static func hook(_ hook: String, _ parts: VolumeParts, _ settings: CaptureSettings) async throws -> CommandCapture {
        let area = try CaptureArea(of: parts.root)
        let marker = FreezeMarker(directory: area.path)
        let id = newName()
        func command(_ verb: String) -> SnapshotCommand {
            var command = SnapshotCommand(hook, verb, parts.root.directory)
            command.environment = ["BGBACKUP_VOLUME": parts.root.directory, "BGBACKUP_CAPTURE_ID": id]
            return command
        }
        let undo = [command("release")]
        do {
            let (moment, held) = try await frozen(parts, settings, marker) {
                var create = command("create")
                create.timeout = settings.maxFreeze
                try await create.run()
            }
            let lines = try await command("open").run().split(separator: "\n").map { String($0).trimmed }
            guard let directory = lines.first, directory.hasPrefix("/") else {
                throw CaptureError("\(hook) open printed no directory")
            }
            var grafts: [[UInt8]: String] = [:]
            for line in lines.dropFirst() {
                guard let mark = line.firstIndex(of: "=") else { continue }
                grafts[Array(line[..<mark].utf8)] = String(line[line.index(after: mark)...])
            }
            if let missing = parts.elsewhere.first(where: { grafts[$0.path] == nil }) {
                throw CaptureError(
                    "\(hook) open did not say where \(printable(missing.path)) is, which is on a file system of its own",
                    hint: "It prints a line PART=DIRECTORY for each.")
            }
            return try CommandCapture(area, directory, grafts: grafts, moment: moment, held: held, undo: undo)
        } catch {
            run(undo)
            throw error
        }
    }

    private static func frozen(
        _ parts: VolumeParts, _ settings: CaptureSettings, _ marker: FreezeMarker, _ body: () async throws -> Void
    ) async throws -> (moment: Int64, held: Double) {
        var seen: Set<UInt64> = []
        var directories: [String] = []
        for part in parts.all {
            var value = stat()
            guard stat(part.directory, &value) == 0, seen.insert(UInt64(value.st_dev)).inserted else { continue }
            directories.append(part.directory)
            // What is dirty is written out before anybody has to wait for it.
            if let directory = try? Descriptor(system("open", { Glibc.open(part.directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC) }))
            {
                _ = try? directory.call("sync") { bgb_syncfs($0) }
            }
        }
        let hold = try WriteHold(limit: settings.maxFreeze, program: settings.program)
        try marker.set(directories)
        defer { marker.clear() }
        let moment = Ambient.system.now()
        do {
            for directory in directories { try hold.freeze(directory) }
            try await body()
        } catch {
            _ = try? hold.release()
            throw error
        }
        return (moment, try hold.release())
    }
}

/// The line of /proc/self/mountinfo that a path is under.
struct MountEntry {
    let root: String
    let point: String
    let type: String
    let source: String

    init?(of path: String) {
        guard let text = smallFile("/proc/self/mountinfo") else { return nil }
        var best: MountEntry?
        for line in text.split(separator: "\n") {
            guard let entry = MountEntry(line: line), isBeneath(path, entry.point) else { continue }
            // Of two on one place the later hides the earlier.
            if entry.point.count >= best?.point.count ?? 0 { best = entry }
        }
        guard let best else { return nil }
        self = best
    }

    private init?(line: Substring) {
        let halves = line.split(separator: " - ", maxSplits: 1)
        guard halves.count == 2 else { return nil }
        let (left, right) = (halves[0].split(separator: " "), halves[1].split(separator: " "))
        guard left.count >= 5, right.count >= 2 else { return nil }
        (root, point) = (Self.unescaped(left[3]), Self.unescaped(left[4]))
        (type, source) = (String(right[0]), Self.unescaped(right[1]))
    }

    /// Where in the file system itself a path beneath the mount point is.
    func rest(of path: String) -> String {
        let inside = path.dropFirst(point == "/" ? 0 : point.count)
        return (root == "/" ? "" : root) + inside
    }

    /// Space, tab, newline and backslash are octal there.
    private static func unescaped(_ text: Substring) -> String {
        var bytes: [UInt8] = []
        var rest = Array(text.utf8)[...]
        while let byte = rest.popFirst() {
            if byte == UInt8(ascii: "\\"), rest.count >= 3,
                let code = UInt8(String(decoding: rest.prefix(3), as: UTF8.self), radix: 8)
            {
                bytes.append(code)
                rest = rest.dropFirst(3)
            } else {
                bytes.append(byte)
            }
        }
        return String(decoding: bytes, as: UTF8.self)
    }
}

/// Lets a thread wait for a task.
private final class DoneSignal: Sendable {
    private let ends: (read: Int32, write: Int32)

    init() {
        var pair: [Int32] = [-1, -1]
        _ = socketpair(AF_UNIX, Int32(SOCK_STREAM.rawValue | SOCK_CLOEXEC.rawValue), 0, &pair)
        ends = (pair[0], pair[1])
    }

    func set() { close(ends.write) }

    func wait() {
        var byte: UInt8 = 0
        while read(ends.read, &byte, 1) < 0, errno == EINTR {}
        close(ends.read)
    }
}
