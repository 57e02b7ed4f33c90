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
    public let canBeKept: Bool
    public private(set) var warnings: [String] = []
    private let area: CaptureArea
    private var undo: [SnapshotCommand]
    private let tracking: ThinTracking?

    init(
        _ area: CaptureArea, _ directory: String, grafts: [[UInt8]: String] = [:], moment: Int64, held: Double,
        undo: [SnapshotCommand], tracking: ThinTracking? = nil
    ) throws {
        self.area = area
        self.moment = moment
        self.held = held
        self.undo = undo
        self.tracking = tracking
        canBeKept = tracking != nil
        warnings = tracking?.warnings ?? []
        open = ClosableView(try SourceTree(path: directory, isLive: false, grafts: grafts))
    }

    public func previous(of node: ScannedNode) -> SourceFile? { try? tracking?.earlier?.open(node.path) }

    public func changedRanges(of node: ScannedNode, since size: Int64) -> [Range<Int64>]? {
        guard let delta = tracking?.delta, let earlier = previous(of: node), (try? earlier.stat().size) == size,
            let file = try? open.open(node.path)
        else { return nil }
        return ExtentComparison.changedRanges(of: file, since: earlier, written: delta.changed)
    }

    public func bytesPinned(except unchanged: Set<UInt64>) -> Int64 { tracking?.delta?.onlyEarlier ?? 0 }

    public func keep(as token: String) throws(CaptureError) {
        guard let tracking else { return }
        close()
        do { try Self.wait { try await tracking.keep(as: token) } } catch {
            throw error as? CaptureError ?? CaptureError("the capture cannot be kept for the next backup: \(error)")
        }
        undo = []
    }

    /// What is open there cannot be unmounted.
    private func close() {
        open.close()
        tracking?.earlier?.close()
    }

    /// Commands run to the end before this returns: what was made must not outlive the run.
    public func release() {
        close()
        Self.run(undo)
    }

    static func run(_ commands: [SnapshotCommand]) {
        // Each has to have its chance.
        try? wait { for command in commands { _ = try? await command.run() } }
    }

    /// Not cancelled with the run.
    private static func wait(_ body: @escaping @Sendable () async throws -> Void) throws {
        let (done, failure) = (DoneSignal(), Locked<(any Error)?>(nil))
        Task.detached {
            do { try await body() } catch { failure.withLock { $0 = error } }
            done.set()
        }
        done.wait()
        if let error = failure.withLock({ $0 }) { throw error }
    }

    /// A name that only one run uses.
    static func newName() -> String {
        prefix
            + Ambient.system.random(6).map { byte in
                let text = String(byte, radix: 16)
                return text.count == 1 ? "0" + text : text
            }.joined()
    }

    /// Snapshots of this name were made by us: those of a run that was killed are removed by the next.
    static let prefix = "bgbackup-"

    static func onlyPart(_ parts: VolumeParts, _ method: CaptureMethod) throws -> VolumePart {
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
