import BackupBase
import BackupRepository
import Glibc
import ObjectStorage
import VolumeIO

public struct RestoreOptions: Sendable {
    public var target: String
    /// Paths, relative to the volume's root, of which only what is below is restored.
    public var include: [[UInt8]] = []
    public var resume = false
    /// Bring a target that holds another snapshot to this one.
    public var refresh = false
    /// Where the node keeps its notes of targets; nil keeps none.
    public var stateDirectory: String?
    public var force = false
    public var dryRun = false
    /// Owner and group for everything, instead of the stored numbers.
    public var owner: (user: UInt32, group: UInt32)?
    public var identity = RestoreIdentity.alone
    /// Bring the volume into the page cache at the end, for a database that is started at once.
    public var warm = false
    /// Begin only where this many bytes stay free on the file system of this path; nil begins in any case.
    public var keepFree: (bytes: Int64, at: String)?

    public init(target: String) { self.target = target }
}

public struct RestoreReport: Sendable {
    public var snapshot: ObjectID
    public var files = 0
    public var directories = 0
    public var bytesTotal: Int64 = 0
    public var bytesWritten: Int64 = 0
    /// Bytes that a resumed restore found in place.
    public var bytesKept: Int64 = 0
    public var bytesFetched: Int64 = 0
    /// Bytes that were read into the page cache.
    public var bytesWarmed: Int64 = 0
    /// Bytes of files that a refresh had neither to read nor to write.
    public var bytesUnchanged: Int64 = 0
    /// The snapshot that a refresh began with.
    public var refreshedFrom: ObjectID?
    /// Of a refresh: files whose content is written, and names that go.
    public var changedFiles: [[UInt8]] = []
    public var removed: [[UInt8]] = []
    public var duration = 0.0
    public var stages = RestoreStages()
    /// Bytes that came to be in their place, in each second.
    public var bytesPerSecond: Int64 { Int64(Double(bytesWritten + bytesKept) / max(duration, 0.001)) }
    /// Nil where the volume has no raft state, or it was kept.
    public var identity: RestoreRun.Identity?
    /// What is worth knowing before a start on the target, and takes nothing from the restore.
    public var warnings: [String] = []
    /// Metadata that could not be set. Not empty: exit 3.
    public var problems: [String] = []
}

/// One restore onto an empty directory: plan by pack → get → open → verify →
/// write → metadata → durable → marker away.
public final class RestoreRun {
    let repository: Repository
    let options: RestoreOptions
    let board: ProgressBoard
    var report: RestoreReport

    /// Bytes written between two journal lines.
    private static let journalEvery: Int64 = 512 << 20

    public init(repository: Repository, options: RestoreOptions, board: ProgressBoard) {
        self.repository = repository
        self.options = options
        self.board = board
        report = RestoreReport(snapshot: repository.id)
    }

    public func run(_ snapshot: Snapshot) async throws -> RestoreReport {
        let clock = monotonicSeconds()
        report.snapshot = snapshot.id
        findWarnings(snapshot)
        if snapshot.record.kind == .device, !options.refresh {
            try await DeviceRestore(repository: repository, options: options, board: board).run(snapshot, &report)
            report.duration = monotonicSeconds() - clock
            return report
        }
        if try options.refresh || options.resume && holdsUnfinishedRefresh() {
            try await refresh(snapshot)
            if options.warm, !options.dryRun { try await warm() }
            report.duration = monotonicSeconds() - clock
            return report
        }
        let start = try startingPoint(snapshot)
        let plan = try await timed(.plan) {
            try await RestorePlan.make(repository, snapshot, include: include)
        }
        try checkIncludes(plan)
        try checkSpace(plan)
        report.files = plan.files.count + plan.hardLinks.count + plan.symlinks.count
        report.directories = plan.directories.count
        report.bytesTotal = plan.bytesTotal
        board.update {
            $0.phase = .write
            $0.bytesTotal = plan.bytesTotal
            $0.filesTotal = plan.files.count
        }
        if !options.dryRun {
            try await write(plan, start)
            if options.warm { try await warm() }
        }
        report.duration = monotonicSeconds() - clock
        return report
    }

    private func warm() async throws {
        board.update { $0.phase = .finish }
        let clock = monotonicSeconds()
        let outcome = try await VolumeWarmth(on: repository.executor).run(options.target)
        report.stages.add(.warm, monotonicSeconds() - clock)
        report.bytesWarmed = outcome.bytes
        if let warning = outcome.warning { report.warnings.append(warning) }
    }

    // MARK: - Where to start

    private enum Start {
        case fresh(RestoreMarker.Header)
        case resumed(RestoreMarker.Header, done: Int)
    }

    func header(_ snapshot: Snapshot, refreshes old: ObjectID? = nil) -> RestoreMarker.Header {
        let asked = Array(options.include.sorted { $0.lexicographicallyPrecedes($1) }.joined(separator: [0]))
        return RestoreMarker.Header(
            snapshot: "\(snapshot.id)", repository: "\(repository.id)",
            plan: asked.withUnsafeBytes { repository.keys.blockHasher.id(of: $0).bytes.prefix(8).hex },
            refreshes: old.map { "\($0)" })
    }

    /// Throws `.targetNotEmpty` unless the target is empty, or is this very
    /// restore, unfinished, and `--resume` was given.
    private func startingPoint(_ snapshot: Snapshot) throws -> Start {
        let header = header(snapshot)
        do throws(any Error) {
            if try TargetTree.isEmpty(path: options.target) { return .fresh(header) }
            let tree = try TargetTree(path: options.target, create: false)
            guard let marker = try tree.readSmallFile(RestoreMarker.name, limit: RestoreMarker.sizeLimit) else {
                // Killed while the marker was written aside: nothing else was made yet.
                let aside = RestoreMarker.name + ".new"
                if !options.dryRun, try tree.readSmallFile(aside, limit: RestoreMarker.sizeLimit) != nil {
                    try tree.remove(Array(aside.utf8))
                    if try TargetTree.isEmpty(path: options.target) { return .fresh(header) }
                }
                throw BackupError(
                    .targetNotEmpty, "the target \(options.target) is not empty",
                    hint: "Restore onto an empty directory or a fresh volume.")
            }
            guard options.resume else {
                throw BackupError(
                    .targetNotEmpty, "the target \(options.target) holds an unfinished restore",
                    hint: "Go on with it by --resume, or empty it first.")
            }
            guard var (found, done) = RestoreMarker.parse(marker) else {
                // Killed while the marker itself was made: nothing else is there yet.
                return .resumed(header, done: 0)
            }
            if found.order != header.order {
                found.order = header.order
                done = 0
            }
            guard found == header else {
                throw BackupError(
                    .targetNotEmpty,
                    "the target \(options.target) holds an unfinished restore of \(found.snapshot == header.snapshot ? "other paths of this snapshot" : "snapshot \(found.snapshot)")",
                    hint: "Resume with the same snapshot and paths, or empty it first.")
            }
            return .resumed(header, done: done)
        } catch let error as TargetError {
            throw Self.failed(error)
        }
    }

    private var include: (([UInt8]) -> Bool)? {
        guard !options.include.isEmpty else { return nil }
        let wanted = options.include
        return { path in
            wanted.contains { path == $0 || path.starts(with: $0 + [UInt8(ascii: "/")]) || $0.isEmpty }
        }
    }

    private func checkIncludes(_ plan: RestorePlan) throws {
        guard let include else { return }
        let paths = plan.files.map(\.path) + plan.directories.map(\.path) + plan.symlinks.map(\.path) + plan.hardLinks.map(\.path)
        guard paths.contains(where: include) else {
            throw BackupError(
                .noSuchPath, "the snapshot holds none of the paths asked for",
                hint: "Paths are relative to the volume's root; see 'bgbackup ls'.")
        }
    }

    private func checkSpace(_ plan: RestorePlan) throws {
        var system = statvfs()
        guard let spare = options.keepFree, statvfs(spare.at, &system) == 0 else { return }
        let free = Int64(clamping: UInt64(system.f_bavail) * UInt64(system.f_frsize))
        let needed = plan.files.reduce(0) { sum, file in sum + file.dataRanges.reduce(0) { $0 + Int64($1.count) } }
        guard free - needed >= spare.bytes else {
            throw BackupError(
                .targetFull,
                "\(spare.at) has \(formatBytes(free)) free, where \(formatBytes(needed)) are needed and "
                    + "\(formatBytes(spare.bytes)) are to stay free", hint: "Choose another place.")
        }
    }

    // MARK: - Writing

    private func write(_ plan: RestorePlan, _ start: Start) async throws {
        do {
            let tree = try TargetTree(path: options.target, create: true)
            let journal = try RestoreJournal(tree)
            let done: Int
            switch start {
            case .fresh(let header):
                try journal.begin(try RestoreMarker.firstLine(header))
                done = 0
            case .resumed(let header, let before):
                if before == 0 { try journal.begin(try RestoreMarker.firstLine(header)) }
                done = min(before, plan.reads.count)
            }
            let resumed = if case .resumed = start { true } else { false }
            try timed(.write) {
                try makeNames(plan, tree)
                try writeZeros(plan, tree)
            }
            try await writeData(plan, tree, journal, from: done, compare: resumed)
            board.update { $0.phase = .finish }
            try takeIdentity(tree)
            try timed(.sync) { try tree.synchronize() }
            try finish(plan, tree, journal, names: options.include.isEmpty ? plan.names : nil)
        } catch let error as TargetError {
            throw Self.failed(error)
        }
    }

    /// Metadata, and when all is on the disk the marker away.
    /// - Parameter names: all of the target's in the end, to be noted for a
    ///   later refresh; nil where parts only were restored
    func finish(_ plan: RestorePlan, _ tree: TargetTree, _ journal: RestoreJournal, names: Set<[UInt8]>?) throws {
        timed(.metadata) { setMetadata(plan, tree) }
        try timed(.sync) { try tree.synchronize() }
        // Before the marker goes: a target without one is never without its note.
        if let names, let place = TargetNote.place(of: options.target, in: options.stateDirectory, repository) {
            timed(.metadata) {
                let manner = TargetNote.manner(owner: options.owner, hasProblems: !report.problems.isEmpty)
                _ = TargetNote.write(place, tree, names, plan.snapshot.id, manner: manner, repository)
            }
        }
        try timed(.sync) {
            try journal.end()
            // Taking the marker away moved the root's time once more.
            if let root = plan.directories.first(where: { $0.path.isEmpty }) { setTime(root.metadata, tree) }
            try tree.synchronize()
        }
    }

    func makeNames(_ plan: RestorePlan, _ tree: TargetTree) throws {
        for directory in plan.directories where !directory.path.isEmpty { try tree.makeDirectory(directory.path) }
        // A resumed restore finds the files with the names it gave them.
        let names = plan.hardLinks.reduce(into: [[UInt8]: UInt64]()) { $0[$1.target, default: 0] += 1 }
        for file in plan.files { try tree.makeFile(file.path, size: file.size, links: 1 + (names[file.path] ?? 0)) }
        for link in plan.hardLinks { try tree.makeHardLink(link.path, to: link.target) }
        for link in plan.symlinks { try tree.makeSymlink(link.path, target: link.target) }
    }

    /// Zeros that are allocated in the source are allocated here: the hole map
    /// is part of what is restored.
    func writeZeros(_ plan: RestorePlan, _ tree: TargetTree) throws {
        let zeros = AlignedBuffer(capacity: 1 << 20)
        zeros.memory.initializeMemory(as: UInt8.self, repeating: 0)
        for file in plan.files where !file.zeroRanges.isEmpty {
            let output = try tree.openForWriting(file.path)
            for range in file.zeroRanges {
                var offset = range.lowerBound
                while offset < range.upperBound {
                    let count = min(Int(range.upperBound - offset), zeros.capacity)
                    try output.write(UnsafeRawBufferPointer(start: zeros.pointer, count: count), at: offset)
                    offset += Int64(count)
                }
                report.bytesWritten += range.upperBound - range.lowerBound
            }
        }
    }

    func writeData(
        _ plan: RestorePlan, _ tree: TargetTree, _ journal: RestoreJournal?, from start: Int, compare: Bool
    ) async throws {
        let clock = monotonicSeconds()
        let synced = report.stages.seconds[.sync] ?? 0
        var busy = BusyTimes()
        var next = start
        let outputs = OutputFiles(tree, plan)
        let writer = FrameWriter(repository: repository, plan: plan, outputs: outputs, compare: compare, board: board)
        var reads = OrderedMap<Int, FrameWriter.Outcome>(
            width: repository.store.parallelGets, on: repository.executor,
            from: {
                defer { next += 1 }
                return next < plan.reads.count ? next : nil
            },
            transform: { try await writer.perform(plan.reads[$0]) })
        board.update { $0.bytesDone += plan.reads[..<start].reduce(0) { $0 + plan.bytes(of: $1) } }
        var done = start
        var unsafe: Int64 = 0
        while let outcome = try await reads.next() {
            done += 1
            report.bytesWritten += outcome.written
            report.bytesKept += outcome.kept
            report.bytesFetched += outcome.fetched
            busy += outcome.busy
            unsafe += outcome.written
            if let journal, unsafe >= Self.journalEvery {
                try timed(.sync) {
                    try tree.synchronize()
                    try journal.note(done: done)
                }
                unsafe = 0
            }
        }
        let waited = (report.stages.seconds[.sync] ?? 0) - synced
        report.stages.add(monotonicSeconds() - clock - waited, dividedAs: busy)
        report.bytesKept += plan.reads[..<start].reduce(0) { $0 + plan.bytes(of: $1) }
    }

    // MARK: - Metadata

    private func setMetadata(_ plan: RestorePlan, _ tree: TargetTree) {
        for file in plan.files { set(file.path, .file, file.metadata, tree) }
        for link in plan.symlinks { set(link.path, .symlink, link.metadata, tree) }
        // A directory's time moves when something is made in it: from the inside out.
        for directory in plan.directories.reversed() {
            set(directory.path, .directory, directory.metadata, tree)
        }
    }

    private func setTime(_ root: Entry.Metadata, _ tree: TargetTree) {
        let problems = report.problems
        set([], .directory, root, tree)
        // What could not be set was named the first time.
        report.problems = problems
    }

    private func set(_ path: [UInt8], _ kind: NodeKind, _ metadata: Entry.Metadata, _ tree: TargetTree) {
        let stat = FileStat(
            device: 0, inode: 0, mode: metadata.mode, links: 1, owner: metadata.owner, group: metadata.group, size: 0,
            modified: metadata.modified, changed: 0, allocated: 0)
        let attributes = metadata.attributes.map { ExtendedAttribute(name: $0.name, value: $0.value) }
        let owner = options.owner.map { ($0.user, $0.group) }
        report.problems += tree.setMetadata(path, kind: kind, stat: stat, attributes: attributes, owner: owner)
            .map { "\(path.isEmpty ? "." : printable(path)): \($0)" }
    }

    static func failed(_ error: TargetError) -> BackupError {
        error.isFull
            ? BackupError(
                .targetFull, "the restore target has no space left",
                hint: "Make room, then go on with --resume.", cause: error)
            : BackupError(
                .targetFailed, "the restore target could not be written",
                hint: "The target is marked unfinished; go on with --resume once its cause is gone.", cause: error)
    }
}
