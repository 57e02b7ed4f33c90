import BackupBase
import BackupRepository
import CLinux
import Glibc
import ObjectStorage
import VolumeIO

/// Restores a device or image snapshot onto a block device or image file of at
/// least its size. A new image stays sparse. The first MiB is written last: a
/// device that is not whole must not look like one.
struct DeviceRestore {
    let repository: Repository
    let options: RestoreOptions
    let board: ProgressBoard

    private static let head: Int64 = 1 << 20

    func run(_ snapshot: Snapshot, _ report: inout RestoreReport) async throws {
        var clock = monotonicSeconds()
        // Each counts what passed since the last.
        func lap() -> Double {
            let before = clock
            clock = monotonicSeconds()
            return clock - before
        }
        let plan = try await RestorePlan.make(repository, snapshot, include: nil)
        report.stages.add(.plan, lap())
        guard let file = plan.files.first, plan.files.count == 1 else {
            throw BackupError(.damaged, "the device snapshot \(snapshot.id) does not hold one device")
        }
        report.files = 1
        report.bytesTotal = plan.bytesTotal
        board.update {
            $0.phase = .write
            $0.bytesTotal = plan.bytesTotal
        }
        do {
            let target = try open(size: file.size)
            guard !options.dryRun, let target else { return }
            try clear(target, file)
            report.stages.add(.write, lap())
            var busy = BusyTimes()
            let writer = FrameWriter(
                repository: repository, plan: plan, outputs: OutputFiles(target), compare: options.resume, board: board,
                heldBack: Self.head)
            var reads = plan.reads[...]
            var outcomes = OrderedMap<RestorePlan.Read, FrameWriter.Outcome>(
                width: repository.store.parallelGets, on: repository.executor, from: { reads.popFirst() },
                transform: { try await writer.perform($0) })
            while let outcome = try await outcomes.next() {
                report.bytesWritten += outcome.written
                report.bytesKept += outcome.kept
                report.bytesFetched += outcome.fetched
                busy += outcome.busy
            }
            report.stages.add(lap(), dividedAs: busy)
            try target.synchronize()
            report.bytesWritten += try writer.writeHeldBack()
            try target.synchronize()
            report.stages.add(.sync, lap())
        } catch let error as TargetError {
            throw RestoreRun.failed(error)
        }
    }

    /// Opens the target, or makes an image file where there is nothing.
    /// Returns nil for a dry run that would make one.
    private func open(size: Int64) throws -> TargetFile? {
        var status = stat()
        if stat(options.target, &status) != 0, errno == ENOENT {
            if options.dryRun { return nil }
            try makeImage(size)
        } else if status.st_mode & S_IFMT == S_IFDIR {
            throw BackupError(
                .targetNotEmpty, "the target \(options.target) is a directory and the snapshot is of a device",
                hint: "Give a block device, or the name of an image file to make.")
        } else if status.st_mode & S_IFMT == S_IFREG, status.st_size == 0, !options.dryRun {
            try makeImage(size)
        }
        let target = try TargetFile.device(path: options.target)
        guard target.size >= size else {
            throw BackupError(
                .targetFailed,
                "the target \(options.target) has \(formatBytes(target.size)) and the snapshot \(formatBytes(size))",
                hint: "Give a device or image of at least that size.")
        }
        guard options.force || options.resume || looksEmpty(target) else {
            throw BackupError(
                .targetNotEmpty, "the target \(options.target) is not empty: its first MiB holds data",
                hint: "Make sure that it is the right device, then use --force, or --resume to finish an earlier restore.")
        }
        return target
    }

    private func makeImage(_ size: Int64) throws {
        let descriptor = Glibc.open(options.target, O_RDWR | O_CREAT | O_CLOEXEC, 0o600)
        guard descriptor >= 0 else { throw TargetError(path: Array(options.target.utf8), operation: "create", errno: errno) }
        defer { close(descriptor) }
        guard ftruncate(descriptor, off_t(size)) == 0 else {
            throw TargetError(path: Array(options.target.utf8), operation: "resize", errno: errno)
        }
    }

    private func looksEmpty(_ target: TargetFile) -> Bool {
        let buffer = AlignedBuffer(capacity: Int(Self.head))
        guard let got = try? target.read(at: 0, count: min(Int(Self.head), Int(target.size)), into: buffer) else { return false }
        return UnsafeRawBufferPointer(start: buffer.pointer, count: got).isZero
    }

    /// Makes zero what the snapshot says is zero, and the head.
    private func clear(_ target: TargetFile, _ file: RestorePlan.File) throws {
        try makeZero(0..<min(Self.head, target.size), target)
        var end: Int64 = 0
        for range in file.dataRanges {
            if end < range.lowerBound { try makeZero(end..<range.lowerBound, target) }
            end = range.upperBound
        }
        if end < file.size { try makeZero(end..<file.size, target) }
        for range in file.zeroRanges { try makeZero(range, target) }
    }

    /// Lets the device or file system forget a range, which then reads as zero;
    /// writes zeros where it cannot.
    private func makeZero(_ range: Range<Int64>, _ target: TargetFile) throws {
        let descriptor = Glibc.open(options.target, O_RDWR | O_CLOEXEC)
        defer { close(descriptor) }
        if descriptor >= 0, bgb_punch_hole(descriptor, off_t(range.lowerBound), off_t(range.count)) == 0 { return }
        let zeros = AlignedBuffer(capacity: 1 << 20)
        zeros.memory.initializeMemory(as: UInt8.self, repeating: 0)
        for start in stride(from: range.lowerBound, to: range.upperBound, by: zeros.capacity) {
            let count = min(Int(range.upperBound - start), zeros.capacity)
            try target.write(UnsafeRawBufferPointer(start: zeros.pointer, count: count), at: start)
        }
    }
}
