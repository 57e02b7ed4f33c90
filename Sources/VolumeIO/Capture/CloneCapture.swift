import BackupBase
import CLinux
import Dispatch
import Glibc

/// Clones of a volume's files that share their extents with them (FICLONE).
///
/// Everything is cloned while the database writes; then it is paused, and only
/// what changed since is cloned again. So the pause grows with the rate of
/// change and hardly with the number of files. Not under a frozen file system:
/// cloning writes, and would wait for the thaw.
public final class CloneCapture: Capture {
    public private(set) var view: any VolumeView
    public private(set) var moment: Int64
    public private(set) var held = 0.0
    private let parts: VolumeParts
    private let areas: [CaptureArea]
    /// By the device number that files of a part have.
    private let stores: [UInt64: CloneStore]
    private let settings: CaptureSettings
    private var isKept = false

    /// - Parameter isUnchanged: whether a file is what the kept capture has
    public static func take(
        _ parts: VolumeParts, _ settings: CaptureSettings, isUnchanged: (ScannedNode) -> Bool
    ) throws -> CloneCapture {
        var areas: [CaptureArea] = []
        for part in parts.all { areas.append(try CaptureArea(of: part)) }
        for area in areas { try area.clean(except: settings.previous) }
        do {
            let capture = try CloneCapture(parts, areas, settings)
            try capture.run(isUnchanged)
            return capture
        } catch {
            for area in areas { try? area.remove(CaptureArea.takenName) }
            throw error
        }
    }

    private init(_ parts: VolumeParts, _ areas: [CaptureArea], _ settings: CaptureSettings) throws {
        self.parts = parts
        self.areas = areas
        self.settings = settings
        var stores: [UInt64: CloneStore] = [:]
        for (part, area) in zip(parts.all, areas) {
            let store = try CloneStore(area, previous: settings.previous)
            var value = stat()
            guard stat(part.directory, &value) == 0 else {
                throw CaptureError(part.directory, SystemError(operation: "stat", errno: errno))
            }
            stores[UInt64(value.st_dev)] = store
        }
        self.stores = stores
        moment = Ambient.system.now()
        view = try SourceTree(path: parts.root.directory, grafts: parts.links)
    }

    private func run(_ isUnchanged: (ScannedNode) -> Bool) throws {
        let tree = try SourceTree(path: parts.root.directory, grafts: parts.links)
        var listing = VolumeListing(tree, settle: true, exclude: settings.exclude)
        let (old, new) = listing.files.partitioned(isUnchanged)
        try clone(new + old.filter { !link($0) }, tree, isFinal: false)
        listing = try catchUp(with: listing, tree)
        for _ in 0..<Self.attempts {
            let known = KnownAttributes(listing.nodes, listing.span)
            let (isDone, seconds) = try withWritersPaused(parts, settings) { isHeld in
                let now = VolumeListing(tree, settle: false, remembering: known, exclude: settings.exclude)
                let changed = now.changed(since: listing)
                try clone(changed, tree, isFinal: true)
                // Without anybody to pause it counts only if nothing happened between the passes.
                let isDone = isHeld || changed.isEmpty && now.isUnchanged(since: listing)
                listing = now
                return isDone
            }
            held = seconds
            if isDone {
                moment = listing.span.from
                return finish(listing)
            }
            usleep(30_000)
        }
        throw CaptureError.restless
    }

    /// Clones again what changed meanwhile, while each pass is shorter than the
    /// one before: the last of them is the one that writes are held for, and a
    /// clone writes out all that is dirty in its file.
    private func catchUp(with first: VolumeListing, _ tree: SourceTree) throws -> VolumeListing {
        var listing = first
        var before = Double.infinity
        for _ in 0..<Self.passes where !WriterSearch(parts).writers.isEmpty {
            let started = monotonicSeconds()
            let known = KnownAttributes(listing.nodes, listing.span)
            let now = VolumeListing(tree, settle: true, remembering: known, exclude: settings.exclude)
            try clone(now.changed(since: listing), tree, isFinal: false)
            listing = now
            let seconds = monotonicSeconds() - started
            if seconds > before * 0.7 { break }
            before = seconds
        }
        return listing
    }

    private static let passes = 6

    /// Passes over a volume that changes and that nobody is seen to write to.
    static let attempts = 5

    private func finish(_ listing: VolumeListing) {
        let stores = stores
        view = RecordedView(
            nodes: listing.nodes, problems: listing.problems + parts.refused, noticesMappedWrites: true,
            opener: { node throws(SourceError) in
                guard let store = stores[node.stat.device] else {
                    throw SourceError(path: node.path, operation: "open", errno: EXDEV)
                }
                return try store.open(node)
            })
    }

    private func link(_ node: ScannedNode) -> Bool { stores[node.stat.device]?.link(node) ?? false }

    /// - Parameter isFinal: a file that is gone is one that the listing should not have
    private func clone(_ nodes: [ScannedNode], _ tree: SourceTree, isFinal: Bool) throws {
        let failure = Locked<(any Error)?>(nil)
        let stores = stores
        // One file's clone waits for its write-out: two are on their way at once.
        let share = (nodes.count + 1) / 2
        DispatchQueue.concurrentPerform(iterations: 2) { worker in
            for node in nodes[min(worker * share, nodes.count)..<min((worker + 1) * share, nodes.count)] {
                do {
                    if failure.withLock({ $0 != nil }) { return }
                    guard let store = stores[node.stat.device] else {
                        throw CaptureError("\(printable(node.path)) is on a file system of its own")
                    }
                    try store.clone(node, tree)
                } catch let error as SourceError where error.isGone && !isFinal {
                    continue
                } catch {
                    failure.withLock { $0 = $0 ?? error }
                }
            }
        }
        if let error = failure.withLock({ $0 }) { throw error }
    }

    public func previous(of node: ScannedNode) -> SourceFile? { stores[node.stat.device]?.previous(of: node) }

    public func bytesPinned(except unchanged: Set<UInt64>) -> Int64 {
        areas.reduce(0) { $0 + $1.bytesPinned(settings.previous, except: unchanged) }
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

/// Clones in one area, each under its file's inode number: names of the volume
/// lead nowhere here, and a second name of a file is no second clone.
private final class CloneStore: Sendable {
    private let taken: Descriptor
    private let kept: Descriptor?

    init(_ area: CaptureArea, previous: String?) throws(CaptureError) {
        do throws(SystemError) {
            _ = try area.directory.call("make directory") { mkdirat($0, CaptureArea.takenName, 0o700) }
            taken = try area.directory.openBeneath(Array(CaptureArea.takenName.utf8), O_RDONLY | O_DIRECTORY | O_NOFOLLOW)
        } catch {
            throw CaptureError("there is no room for clones in \(area.path)", error)
        }
        if let previous, area.kept(previous) {
            kept = try? area.directory.openBeneath(Array("kept-\(previous)".utf8), O_RDONLY | O_DIRECTORY | O_NOFOLLOW)
        } else {
            kept = nil
        }
    }

    private static func name(_ node: ScannedNode) -> [UInt8] { Array(String(node.stat.inode, radix: 16).utf8) }

    /// Takes the kept clone of a file that did not change.
    func link(_ node: ScannedNode) -> Bool {
        guard let kept else { return false }
        return
            (try? terminated(Self.name(node)) { name throws(SystemError) in
                try kept.link(name, to: name, in: taken)
            }) != nil
    }

    func clone(_ node: ScannedNode, _ tree: SourceTree) throws {
        guard let source = try tree.open(node.path).descriptor else { return }
        do throws(SystemError) {
            let name = Self.name(node)
            // What is there may be linked into the kept capture, which stays as it is.
            _ = try? terminated(name) { name throws(SystemError) in try taken.call("remove") { unlinkat($0, name, 0) } }
            let target = try taken.openBeneath(name, O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW, mode: 0o600)
            _ = try source.call("clone") { from in (try? target.call("clone") { bgb_clone($0, from) }) ?? -1 }
        } catch {
            // Another name of the same file was cloned first.
            if error.errno == EEXIST { return }
            throw CaptureError(
                "\(printable(node.path)) cannot be cloned", error,
                hint: error.errno == ENOSPC || error.errno == EDQUOT
                    ? "Make room on the volume's file system." : "Give --capture pause, which needs no clones.")
        }
    }

    func open(_ node: ScannedNode) throws(SourceError) -> SourceFile { try open(node, in: taken) }

    func previous(of node: ScannedNode) -> SourceFile? { kept.flatMap { try? open(node, in: $0) } }

    private func open(_ node: ScannedNode, in directory: Descriptor) throws(SourceError) -> SourceFile {
        do throws(SystemError) {
            let file = try directory.openBeneath(Self.name(node), O_RDONLY | O_NOFOLLOW | BGB_O_NOATIME)
            let stat = try file.stat()
            guard stat.kind == .file else { throw SystemError(operation: "open", errno: EINVAL) }
            return SourceFile(path: node.path, reader: BlockReader(file, size: stat.size))
        } catch {
            throw SourceError(node.path, error)
        }
    }
}

extension CaptureError {
    /// Several passes in a row found that something had changed.
    public static var restless: CaptureError {
        CaptureError(
            "the volume keeps changing, and nobody is seen to have its files open for writing",
            hint: "Run as root, which sees the files of all processes; or accept a fuzzy copy with --capture none.",
            isRestless: true)
    }
}

extension VolumeListing {
    var files: [ScannedNode] { nodes.filter { $0.kind == .file } }

    /// Files that are new, or may have changed, since the earlier pass looked at them.
    public func changed(since earlier: VolumeListing) -> [ScannedNode] {
        var before: [UInt64: [UInt64: FileStat]] = [:]
        for node in earlier.nodes where node.kind == .file { before[node.stat.device, default: [:]][node.stat.inode] = node.stat }
        return files.filter { node in
            guard let stat = before[node.stat.device]?[node.stat.inode] else { return true }
            return !node.stat.isSame(as: stat) || earlier.span.isFresh(stat)
        }
    }
}

extension Array {
    fileprivate func partitioned(_ isFirst: (Element) -> Bool) -> (first: [Element], second: [Element]) {
        var (first, second): ([Element], [Element]) = ([], [])
        for element in self { if isFirst(element) { first.append(element) } else { second.append(element) } }
        return (first, second)
    }
}
