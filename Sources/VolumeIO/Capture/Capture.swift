import BackupBase
import CLinux
import Glibc

/// How a volume is had at one moment: the words of `--capture` (CLI.md).
public enum CaptureMethod: String, Sendable, CaseIterable {
    /// A read-only snapshot of the subvolume.
    case btrfs
    /// Files that share their extents with the volume's, cloned while the database is paused.
    case reflink
    /// A block snapshot made by a hook while the file system is frozen.
    case freeze
    /// A snapshot of the logical volume.
    case lvm
    /// A snapshot of the dataset.
    case zfs
    /// A live copy, and what changed meanwhile copied again while the database is paused.
    case pause
    /// A plain copy of a live tree.
    case none
}

/// A frozen view of a volume. Releasing it takes away everything it made.
public protocol Capture: AnyObject {
    var view: any VolumeView { get }
    /// Nanoseconds since 1970: not later than the moment that the view shows.
    var moment: Int64 { get }
    /// Seconds for which writes were held, or could have been.
    var held: Double { get }
    /// A time in which nothing may have changed, for the view to be of one
    /// moment: nobody was held. Nil where the capture saw to that itself.
    var span: LookSpan? { get }
    /// A file as the capture kept by the previous run has it, where one was kept.
    func previous(of node: ScannedNode) -> SourceFile?
    /// The parts of a file that may differ from what the capture kept by the
    /// previous run has: ascending, disjoint. Nil where that is not known.
    /// - Parameter size: bytes that it had then
    func changedRanges(of node: ScannedNode, since size: Int64) -> [Range<Int64>]?
    /// Bytes on the disk that only the capture kept by the previous run has any more.
    /// - Parameter unchanged: inodes of files that need not be looked at
    func bytesPinned(except unchanged: Set<UInt64>) -> Int64
    /// What is worth knowing and takes nothing from the capture.
    var warnings: [String] { get }
    /// Whether the next run can compare with it.
    var canBeKept: Bool { get }
    /// Keeps the capture for the next run, in place of the one kept before.
    func keep(as token: String) throws(CaptureError)
    /// Takes away what was made and not kept.
    func release()
}

extension Capture {
    public var span: LookSpan? { nil }
    public func previous(of node: ScannedNode) -> SourceFile? { nil }
    public func changedRanges(of node: ScannedNode, since size: Int64) -> [Range<Int64>]? {
        guard let earlier = previous(of: node), (try? earlier.stat().size) == size, let file = try? view.open(node.path)
        else { return nil }
        return ExtentComparison.changedRanges(of: file, since: earlier)
    }
    public func bytesPinned(except unchanged: Set<UInt64>) -> Int64 { 0 }
    public var canBeKept: Bool { true }
    public var warnings: [String] { [] }
    public func keep(as token: String) throws(CaptureError) {}
    public func release() {}
}

/// What a capture needs to know.
public struct CaptureSettings: Sendable {
    /// Seconds for which writes may be held at the most.
    public var maxFreeze = 10.0
    /// Names the capture that the previous run kept; any other is removed.
    public var previous: String?
    /// Whose `hold-guard` holds writes.
    public var program = "/proc/self/exe"
    /// Never looked at.
    public var exclude: @Sendable (_ path: [UInt8], _ isDirectory: Bool) -> Bool = { _, _ in false }

    public init() {}
}

/// Runs `body` while everybody who writes to the volume is paused.
///
/// - Parameter body: what has to happen at one moment; gets whether anybody was paused
/// - Returns: what `body` returned, and the seconds
func withWritersPaused<Value>(
    _ parts: VolumeParts, _ settings: CaptureSettings, _ body: (_ isHeld: Bool) throws -> Value
) throws -> (Value, held: Double) {
    let search = WriterSearch(parts)
    guard !search.writers.isEmpty else { return (try body(false), 0) }
    return try BlockingExecutor.atNormalPriority {
        let hold = try WriteHold(limit: settings.maxFreeze, program: settings.program)
        writeOut(parts, search)
        try hold.pause(search.writers)
        let value = try body(true)
        return (value, try hold.release())
    }
}

/// Has written out what is dirty, because every way to capture waits for that
/// while writes are held: first everything and its metadata, then again and
/// again what came meanwhile, while that gets less. Changes nothing, and may fail.
private func writeOut(_ parts: VolumeParts, _ search: WriterSearch) {
    var since = Ambient.system.now()
    for part in parts.all {
        let directory = try? Descriptor(system("open") { open(part.directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC) })
        _ = try? directory?.call("sync") { bgb_syncfs($0) }
    }
    let files = search.openFiles()
    var before = Double.infinity
    for _ in 0..<8 {
        let started = monotonicSeconds()
        let look = LookSpan(from: since, to: .max)
        since = Ambient.system.now()
        for link in files { writeOut(link, changedIn: look) }
        let seconds = monotonicSeconds() - started
        if seconds < 0.01 || seconds > before * 0.7 { return }
        before = seconds
    }
}

/// Data only: a commit of metadata would take longer than what it makes shorter.
private func writeOut(_ link: String, changedIn span: LookSpan) {
    var value = stat()
    guard stat(link, &value) == 0, span.isFresh(FileStat(value)),
        let file = try? Descriptor(system("open") { open(link, O_RDONLY | O_CLOEXEC | O_NONBLOCK) })
    else { return }
    // SYNC_FILE_RANGE_WAIT_BEFORE, _WRITE and _WAIT_AFTER.
    _ = try? file.call("write out") { bgb_sync_range($0, 0, 0, 1 | 2 | 4) }
}
