import BackupBase
import BackupRepository
import Glibc
import QdrantStorage
import VolumeIO

public struct DrillOptions: Sendable {
    /// Directory in which scratch directories are made.
    public var scratch: String
    /// Restore onto a fresh file system of this kind; nil: into a directory.
    public var image: LoopVolume.Kind?
    /// How the database is started; nil: it is not.
    public var engine: EngineCommand?
    /// Bring the volume into memory while the database starts, as `bgbackup warm` beside it does.
    public var warm = false
    /// Start it on this machine's network.
    public var isNetworkShared = false
    /// Seconds until the database has to be ready.
    public var bootPatience = 300.0
    /// Seconds; nil is no objective.
    public var recoveryObjective: Double?
    public var recoveryPointObjective: Double?

    public init(scratch: String) { self.scratch = scratch }
}

/// One rehearsal of a restore: restore onto scratch → read back → inspect →
/// start the database, cut off from every network → compare → throw away.
///
/// What goes wrong with the snapshot ends in the outcome; thrown is only why
/// nothing could be tried.
public final class DrillRun {
    private let repository: Repository
    private let options: DrillOptions
    private let board: ProgressBoard
    private let onStage: @Sendable (Snapshot, DrillStage) -> Void
    private let room: IsolatedRoom
    private var volumes: [ClusterVolume] = []

    /// - Parameter onStage: called after each stage
    public init(
        repository: Repository, options: DrillOptions, board: ProgressBoard,
        onStage: @escaping @Sendable (Snapshot, DrillStage) -> Void = { _, _ in }
    ) {
        self.repository = repository
        self.options = options
        self.board = board
        self.onStage = onStage
        room = IsolatedRoom(shared: options.isNetworkShared)
    }

    /// - Parameters:
    ///   - snapshots: one, or those of a set, each of another node
    ///   - newest: moment of each node's newest snapshot, seconds since 1970
    ///   - missing: peers of the set's cluster that have no snapshot in it
    /// - Throws: `.usage` for the snapshot of a device; `.failed` where there is no scratch or no isolation
    public func run(_ snapshots: [Snapshot], newest: [String: Double], missing: [UInt64] = []) async throws -> DrillOutcome {
        if let device = snapshots.first(where: { $0.record.kind == .device }) {
            throw BackupError(
                .usage, "snapshot \(device.id) is of a device or image, on which no database can be started as it is",
                hint: "Restore it onto an image file, mount that, and look at it with 'bgbackup inspect'.")
        }
        // Before hours are spent on a restore.
        if options.engine != nil { try await room.run {} }
        let leftovers = await DrillScratch.removeLeftovers(in: options.scratch)
        let clock = monotonicSeconds()
        var outcome = DrillOutcome(started: Ambient.system.now())
        outcome.checks = leftovers.map {
            ServerCheck("scratch", .warn, expected: "nothing left of an earlier drill", found: "\($0)")
        }
        for snapshot in snapshots { outcome.nodes.append(try await drill(snapshot)) }
        if snapshots.count > 1 || !missing.isEmpty { outcome.checks += clusterChecks(missing) }
        measure(&outcome, newest)
        outcome.duration = monotonicSeconds() - clock
        return outcome
    }

    // MARK: - One node

    private func drill(_ snapshot: Snapshot) async throws -> NodeDrill {
        let clock = monotonicSeconds()
        var node = NodeDrill(snapshot)
        Self.checkRecord(&node)
        let scratch = try DrillScratch(in: options.scratch)
        do {
            try await rehearse(&node, scratch, clock)
        } catch {
            // Cancelled; what is mounted must go all the same.
            try? await Task.detached { try await scratch.remove() }.value
            throw error
        }
        _ = try await stage(.cleanup, &node, clock, failure: .warn) { _ in
            try await Task.detached { try await scratch.remove() }.value
            return ("scratch removed", .pass)
        }
        return node
    }

    private func rehearse(_ node: inout NodeDrill, _ scratch: DrillScratch, _ clock: Double) async throws {
        guard try await stage(.restore, &node, clock, { try await self.restore(&$0, scratch, clock) }) else { return }
        let restored = node.stages.last?.seconds ?? 0
        guard try await stage(.verify, &node, clock, { try await self.verify($0, scratch) }) else { return }
        var inspection: VolumeInspection?
        let canStart = try await stage(.inspect, &node, clock) { node in
            let found = try await VolumeInspection.ofDirectory(scratch.volume, deep: true)
            inspection = found
            return self.note(found, &node)
        }
        guard canStart, let inspection, let command = options.engine else { return }
        try await boot(command, &node, scratch, inspection, clock, restored)
    }

    /// Runs one step; what it throws is its outcome.
    /// - Returns: whether to go on
    private func stage(
        _ name: DrillStage.Name, _ node: inout NodeDrill, _ clock: Double, failure: ServerCheck.Verdict = .fail,
        _ body: (inout NodeDrill) async throws -> (detail: String, verdict: ServerCheck.Verdict)
    ) async throws -> Bool {
        let begin = monotonicSeconds()
        let result: (detail: String, verdict: ServerCheck.Verdict)
        do { result = try await body(&node) } catch { result = (try Self.words(error), failure) }
        add(
            DrillStage(
                name: name, start: begin - clock, seconds: monotonicSeconds() - begin, verdict: result.verdict,
                detail: result.detail), &node)
        return result.verdict != .fail
    }

    private func add(_ stage: DrillStage, _ node: inout NodeDrill) {
        node.stages.append(stage)
        onStage(node.snapshot, stage)
    }

    /// What went wrong as a stage's outcome; a cancellation is none.
    private static func words(_ error: any Error) throws -> String {
        try Task.checkCancellation()
        if error is CancellationError { throw error }
        let hint = (error as? BackupError)?.hint.map { ". \($0)" } ?? ""
        return "\(error)\(hint)"
    }

    private static func checkRecord(_ node: inout NodeDrill) {
        let record = node.snapshot.record
        if !record.complete {
            node.add(
                ServerCheck(
                    "snapshot", .warn, expected: "complete", found: "incomplete",
                    detail: "some files could not be read when it was made"))
        }
        if record.consistency == .fuzzy {
            node.add(
                ServerCheck(
                    "snapshot", .warn, expected: "atomic", found: "fuzzy",
                    detail: "its files are of different moments: what it restores to is chance"))
        }
    }

    // MARK: - Stages

    private func restore(
        _ node: inout NodeDrill, _ scratch: DrillScratch, _ clock: Double
    ) async throws -> (String, ServerCheck.Verdict) {
        // Of an earlier node.
        board.update { $0 = Progress() }
        if let kind = options.image {
            let size = node.snapshot.record.statistics["bytes_total"] ?? 0
            try await scratch.mount(kind, size: size + size / 8 + (1 << 30))
        }
        var settings = RestoreOptions(target: scratch.volume)
        settings.keepFree = (Self.spare(scratch.path), scratch.path)
        let curve = CurveRecorder(board, since: clock)
        defer { node.curve = curve.stop() }
        let report = try await RestoreRun(repository: repository, options: settings, board: board).run(node.snapshot)
        node.restore = report
        let what = "\(report.files) files, \(formatBytes(report.bytesTotal)), \(formatBytes(report.bytesPerSecond))/s"
        guard let problem = report.problems.first else { return (what, .pass) }
        return ("\(what); \(report.problems.count) pieces of metadata could not be set, first \(problem)", .warn)
    }

    /// Bytes that stay free where the scratch is, an image's file too: a drill must not fill a disk that others live on.
    private static func spare(_ path: String) -> Int64 {
        var system = statvfs()
        guard statvfs(path, &system) == 0 else { return 256 << 20 }
        return max(256 << 20, Int64(clamping: UInt64(system.f_blocks) * UInt64(system.f_frsize) / 20))
    }

    private func verify(_ node: NodeDrill, _ scratch: DrillScratch) async throws -> (String, ServerCheck.Verdict) {
        let result = try await RestoredBlocks(repository: repository, target: scratch.volume)
            .compare(node.snapshot, except: RefreshPlan.rewritten, board)
        guard let first = result.differences.first else {
            return (
                "\(result.blocks) blocks, \(formatBytes(result.bytes)), read back from the disk as they were backed up", .pass
            )
        }
        let more = result.differences.count > 1 ? ", and \(result.differences.count - 1) files more" : ""
        return ("\(first)\(more)", .fail)
    }

    private func note(_ inspection: VolumeInspection, _ node: inout NodeDrill) -> (String, ServerCheck.Verdict) {
        node.findings = inspection.findings.filter { $0.severity > .note }
        volumes.append(ClusterVolume(node.snapshot, inspection))
        let size = "\(inspection.collections.count) collections, \(inspection.segments.count) segments"
        if let worst = inspection.findings.first(where: { $0.severity == .forbids }) {
            return ((worst.path.isEmpty ? "" : "\(worst.path): ") + worst.message, .fail)
        }
        let warnings = node.findings.count
        return (
            warnings == 0 ? "\(size), nothing found that would stop a start" : "\(size), \(warnings) warnings",
            warnings == 0 ? .pass : .warn
        )
    }

    private func boot(
        _ command: EngineCommand, _ node: inout NodeDrill, _ scratch: DrillScratch, _ inspection: VolumeInspection,
        _ clock: Double, _ restored: Double
    ) async throws {
        board.update { $0.phase = .finish }
        let record = node.snapshot.record
        let begin = monotonicSeconds() - clock
        let result: DrillEngine.Result
        do {
            let engine = DrillEngine(
                command: command, patience: options.bootPatience, fingerprint: try record.fingerprint?.server,
                inspection: inspection)
            let (storage, place, log) = (scratch.volume, scratch.workplace, scratch.log)
            let warmth = options.warm ? VolumeWarmth(on: repository.executor) : nil
            async let warmed = warmth?.run(storage)
            result = try await room.run { try engine.prove(storage: storage, in: place, log: log) }
            if let outcome = try await warmed {
                node.bytesWarmed = outcome.bytes
                if let warning = outcome.warning { node.add(ServerCheck("warm", .warn, expected: "in memory", found: warning)) }
            }
        } catch {
            let seconds = monotonicSeconds() - clock - begin
            return add(
                DrillStage(name: .boot, start: begin, seconds: seconds, verdict: .fail, detail: try Self.words(error)), &node)
        }
        node.engine = result.version
        node.checks += result.checks
        if record.fingerprint == nil {
            node.add(
                ServerCheck(
                    "fingerprint", .warn, expected: "recorded at the backup", found: "none",
                    detail: "compared with what the files say only; 'bgbackup backup --qdrant-url' records one"))
        }
        if let first = result.firstAnswer ?? (inspection.points == 0 ? result.compare : nil) {
            node.recovery = restored + result.boot + first
            node.firstAnswer = first
        }
        let network = options.isNetworkShared ? "on this machine's network" : "in a network of its own"
        let memory = node.bytesWarmed > 0 ? ", \(formatBytes(node.bytesWarmed)) brought into memory beside it" : ""
        add(
            DrillStage(
                name: .boot, start: begin, seconds: result.boot, verdict: .pass,
                detail: "Qdrant \(result.version) \(network)\(memory)"),
            &node)
        let passed = result.checks.filter { $0.verdict == .pass }.count
        let wrong = result.checks.first { $0.verdict == .fail }
        add(
            DrillStage(
                name: .compare, start: begin + result.boot, seconds: result.compare, verdict: result.checks.verdict,
                detail: wrong?.reason
                    ?? "\(passed) of \(result.checks.count) checks are \(record.fingerprint == nil ? "as the files say" : "as at the backup")"
            ), &node)
    }

    // MARK: - The whole

    private func clusterChecks(_ missing: [UInt64]) -> [ServerCheck] {
        var checks: [ServerCheck] = []
        if !missing.isEmpty {
            checks.append(
                ServerCheck(
                    "set", .fail, expected: "a snapshot of each peer", found: "\(missing.count) missing",
                    detail: missing.map { "\($0)" }.joined(separator: ", ")))
        }
        let objections = TopologyGate(volumes).objections
        checks += objections.map {
            ServerCheck(
                "cluster", $0.severity == .refuses ? .fail : .warn, expected: "one cluster", found: $0.message, detail: $0.remedy)
        }
        if objections.isEmpty, volumes.count > 1 {
            checks.append(
                ServerCheck("cluster", .pass, expected: "one cluster", found: "the \(volumes.count) volumes fit together"))
        }
        return checks
    }

    private func measure(_ outcome: inout DrillOutcome, _ newest: [String: Double]) {
        let recoveries = outcome.nodes.map(\.recovery)
        if !recoveries.contains(nil) { outcome.recovery = recoveries.compactMap { $0 }.max() }
        let now = Double(outcome.started) / 1e9
        let ages = outcome.nodes.map { node in newest[node.snapshot.record.node].map { now - $0 } }
        if !ages.contains(nil), let oldest = ages.compactMap({ $0 }).max() {
            outcome.recoveryPoint = max(0, oldest)
            if oldest < -60 {
                outcome.checks.append(
                    ServerCheck(
                        "clock", .warn, expected: "later than the newest snapshot", found: "\(formatDuration(-oldest)) earlier",
                        detail: "this machine's clock or that of the node is wrong, so the recovery point is unknown"))
                outcome.recoveryPoint = nil
            }
        }
        for (name, objective, value) in [
            ("recovery time", options.recoveryObjective, outcome.recovery),
            ("recovery point", options.recoveryPointObjective, outcome.recoveryPoint),
        ] {
            guard let objective else { continue }
            outcome.checks.append(
                ServerCheck(
                    name, value.map { $0 <= objective } == true ? .pass : .fail, expected: "≤ \(formatDuration(objective))",
                    found: value.map(formatDuration) ?? "unknown"))
        }
    }
}

/// Notes now and then how many bytes are in place.
private final class CurveRecorder: Sendable {
    private typealias Point = (seconds: Double, bytes: Int64)
    private let points: Locked<[Point]>
    private let task: Task<Void, Never>
    private let board: ProgressBoard
    private let clock: Double

    /// Points that are kept; beyond, every second one goes and the next come half as often.
    private static let limit = 240

    init(_ board: ProgressBoard, since clock: Double) {
        let points = Locked<[Point]>([])
        (self.points, self.board, self.clock) = (points, board, clock)
        task = Task {
            var pause = 0.05
            while !Task.isCancelled {
                try? await Task.sleep(for: .seconds(pause))
                let isFull = points.withLock { points in
                    points.append((monotonicSeconds() - clock, board.current.bytesDone))
                    guard points.count > Self.limit else { return false }
                    points = points.enumerated().filter { $0.offset % 2 == 1 }.map(\.element)
                    return true
                }
                if isFull { pause *= 2 }
            }
        }
    }

    func stop() -> [(seconds: Double, bytes: Int64)] {
        task.cancel()
        return points.withLock { $0 } + [(monotonicSeconds() - clock, board.current.bytesDone)]
    }
}
