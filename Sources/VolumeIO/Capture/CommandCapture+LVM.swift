import BackupBase
import Glibc

extension CommandCapture {
    /// A snapshot of the logical volume, mounted read-only. LVM itself freezes
    /// the file system while it makes one. A thin snapshot is kept for the next
    /// run, which asks the pool where the two differ.
    public static func lvm(_ parts: VolumeParts, _ settings: CaptureSettings) async throws -> CommandCapture {
        let part = try onlyPart(parts, .lvm)
        let area = try CaptureArea(of: part)
        guard let mount = MountEntry(of: part.directory) else {
            throw CaptureError("nobody knows what \(part.directory) is mounted from")
        }
        let fields = try await SnapshotCommand(
            "lvs", "--noheadings", "--separator", ",", "-o", "vg_name,lv_name,pool_lv", mount.source
        ).run().trimmed.split(separator: ",", omittingEmptySubsequences: false).map(String.init)
        guard fields.count == 3 else { throw CaptureError("\(mount.source) is no logical volume") }
        let (group, origin, pool) = (fields[0], fields[1], fields[2])
        let kept = settings.previous.map(ThinTracking.name)
        let (place, earlierPlace) = ("\(area.path)/mount", "\(area.path)/earlier")
        let hasKept = try await removeLeftovers(group, origin, [place, earlierPlace], except: pool.isEmpty ? nil : kept)

        let name = newName()
        // A thick snapshot needs room for what is written while it lives.
        let size = pool.isEmpty ? ["--extents", "10%ORIGIN"] : ["--setactivationskip", "n"]
        var create = SnapshotCommand("lvcreate", "--yes", "--snapshot", "--name", name)
        create.arguments += size + ["\(group)/\(origin)"]
        var undo = [SnapshotCommand("lvremove", "--yes", "\(group)/\(name)")]
        let (moment, begin) = (Ambient.system.now(), monotonicSeconds())
        do {
            try await create.run()
            let held = monotonicSeconds() - begin
            undo.insert(SnapshotCommand("umount", place), at: 0)
            try await show("\(group)/\(name)", at: place, mount.type)
            let rest = mount.rest(of: part.directory)
            var tracking: ThinTracking?
            if !pool.isEmpty {
                tracking = ThinTracking(group: group, pool: pool, name: name, place: place)
                if hasKept, let kept {
                    undo.insert(SnapshotCommand("umount", earlierPlace), at: 0)
                    await tracking?.compare(kept, at: earlierPlace, rest: rest, mount.type)
                }
            }
            return try CommandCapture(area, place + rest, moment: moment, held: held, undo: undo, tracking: tracking)
        } catch {
            run(undo)
            throw error
        }
    }

    /// Mounts a snapshot read-only.
    fileprivate static func show(_ volume: String, at place: String, _ type: String) async throws {
        let device = try await SnapshotCommand("lvs", "--noheadings", "-o", "lv_path", volume).run().trimmed
        _ = mkdir(place, 0o700)
        try await SnapshotCommand("mount", "-o", type == "xfs" ? "ro,nouuid" : "ro", device, place).run()
    }

    /// - Returns: whether there is a snapshot named `kept`
    private static func removeLeftovers(
        _ group: String, _ origin: String, _ places: [String], except kept: String?
    ) async throws -> Bool {
        for place in places where MountEntry(of: place)?.point == place { try await SnapshotCommand("umount", place).run() }
        let volumes = try await SnapshotCommand(
            "lvs", "--noheadings", "--separator", ",", "-o", "lv_name,origin", group
        ).run()
        var hasKept = false
        for line in volumes.split(separator: "\n") {
            let fields = String(line).trimmed.split(separator: ",", omittingEmptySubsequences: false)
            guard fields.count == 2, fields[0].hasPrefix(prefix), fields[1] == origin else { continue }
            if String(fields[0]) == kept {
                hasKept = true
            } else {
                try await SnapshotCommand("lvremove", "--yes", "\(group)/\(fields[0])").run()
            }
        }
        return hasKept
    }
}

/// A thin snapshot, and the one that the run before kept.
struct ThinTracking: Sendable {
    let group: String
    let pool: String
    let name: String
    let place: String
    /// What the kept one shows of the volume, while it is mounted.
    private(set) var earlier: ClosableView?
    private(set) var delta: ThinDelta?
    private(set) var warnings: [String] = []
    private var kept: (name: String, place: String)?

    init(group: String, pool: String, name: String, place: String) {
        (self.group, self.pool, self.name, self.place) = (group, pool, name, place)
    }

    /// - Parameter token: of the backup's snapshot
    static func name(_ token: String) -> String { "\(CommandCapture.prefix)kept-\(token)" }

    /// Asks where the two differ. Both are mounted before, because mounting may
    /// write to a snapshot: a journal is replayed. Where a file is on the device
    /// is asked of both too, because a file can change without a write: a part
    /// is cut out of it, or another file's place becomes its own.
    mutating func compare(_ kept: String, at earlierPlace: String, rest: String, _ type: String) async {
        self.kept = (kept, earlierPlace)
        do {
            // Only these are known to tell places on the device itself; btrfs has addresses of its own.
            guard ["ext4", "xfs"].contains(type) else { throw CaptureError("\(type) does not say where its files are") }
            try await CommandCapture.show("\(group)/\(kept)", at: earlierPlace, type)
            delta = try await ThinDelta.ask(group, pool: pool, earlier: kept, later: name)
            earlier = ClosableView(try SourceTree(path: earlierPlace + rest, isLive: false))
        } catch {
            delta = nil
            warnings.append("changed files are read whole, because the kept snapshot cannot be compared with: \(error)")
        }
    }

    /// Fullness of the pool, in per cent, from which on nothing is kept in it.
    private static let fullness = 90.0

    /// Keeps the snapshot in place of the one kept before.
    func keep(as token: String) async throws {
        let text = try await SnapshotCommand("lvs", "--noheadings", "-o", "data_percent", "\(group)/\(pool)").run().trimmed
        guard let used = Double(text), used < Self.fullness else {
            throw CaptureError("less than a tenth of the pool \(group)/\(pool) is free: the capture is not kept")
        }
        for place in [kept?.place, place].compactMap({ $0 }) where MountEntry(of: place)?.point == place {
            try await SnapshotCommand("umount", place).run()
        }
        try await SnapshotCommand("lvrename", group, name, Self.name(token)).run()
        if let kept { try await SnapshotCommand("lvremove", "--yes", "\(group)/\(kept.name)").run() }
    }
}
