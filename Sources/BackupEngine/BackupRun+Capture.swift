import BackupBase
import BackupRepository
import Glibc
import QdrantStorage
import VolumeIO

/// A volume that was captured and read.
struct Captured {
    let volume: VolumeScan
    let contents: BackupRun.Contents
    /// What stays until the snapshot is committed; nil where nothing was made.
    var capture: (any Capture)?
}

extension BackupRun {
    /// Has the volume at one moment, in the best way that works, and stores what it holds.
    /// - Throws: `.captureFailed`; never a fuzzy copy that nobody asked for
    func captureAndRead(_ writer: RepositoryWriter) async throws -> Captured {
        guard try isDirectory() else { return try await captureDevice(writer) }
        if options.capture == CaptureMethod.none { return try await readLive(writer) }
        let plan: CapturePlan
        do { plan = try CapturePlan(path: options.path, requested: options.capture) } catch let error as CaptureError {
            throw failure(error, [])
        }
        for directory in CaptureArea.thawLeftovers(plan.parts) {
            report.warnings.append("the file system of \(directory) was left frozen by a run that was killed: it is thawed")
        }
        // Wanted when reading begins; a capture looks for writers anew.
        let (pace, parts) = (pace, plan.parts)
        async let _ = pace.watch(WriterSearch(parts).writers.flatMap { ReadPace.files(of: $0.pid) })
        var reasons = plan.reasons
        for method in plan.methods {
            do {
                let captured = try await attempt(method, plan, writer)
                report.consistency = .atomic
                report.captureReason = reasons.isEmpty ? report.captureReason : reasons.joined(separator: "; ")
                return captured
            } catch let error as CaptureError {
                if error.isBusy || plan.methods.count == 1 || method == plan.methods.last { throw failure(error, reasons) }
                reasons.append("\(method.rawValue): \(error.reason)")
            }
        }
        preconditionFailure("a plan without a method")
    }

    func failure(_ error: CaptureError, _ reasons: [String]) -> BackupError {
        let others = reasons.isEmpty ? "" : " (\(reasons.joined(separator: "; ")))"
        return BackupError(
            error.isBusy ? .busy : .captureFailed, "the volume cannot be captured at one moment: \(error.reason)\(others)",
            hint: error.hint ?? "A copy that may mix several moments is made with --capture none; it is labelled fuzzy.")
    }

    private func isDirectory() throws -> Bool {
        var status = stat()
        guard stat(options.path, &status) == 0 else {
            throw BackupError(
                .sourceUnreadable, "cannot read \(options.path): \(String(cString: strerror(errno)))",
                hint: "Give the storage directory, block device or raw image to back up.")
        }
        return status.st_mode & S_IFMT == S_IFDIR
    }

    var settings: CaptureSettings {
        var settings = CaptureSettings()
        settings.maxFreeze = options.maxFreeze
        settings.previous = options.keepsCapture ? state.map { "\($0.snapshot)" } : nil
        settings.exclude = { path, _ in ScratchPath.matches(path) }
        return settings
    }

    private func attempt(_ method: CaptureMethod, _ plan: CapturePlan, _ writer: RepositoryWriter) async throws -> Captured {
        report.problems = []
        report.capture = method.rawValue
        let settings = settings
        if method != .pause {
            try WriteHold.requireWritable(plan.parts)
            beginFingerprint()
        }
        switch method {
        case .btrfs:
            for attempt in 0..<Self.attempts {
                if attempt > 0 { beginFingerprint() }
                if let captured = try await read(try BtrfsCapture.take(plan.parts, settings), writer) { return captured }
                usleep(30_000)
            }
            throw CaptureError.restless
        case .reflink:
            let capture = try CloneCapture.take(plan.parts, settings) { node in
                guard let found = state?.find(node.path) else { return false }
                return !found.racy && found.stamp == LocalState.Stamp(node.stat)
            }
            return try await readSurely(capture, writer)
        case .pause:
            return try await copyInPasses(plan, settings, writer)
        case .zfs:
            return try await readSurely(try await CommandCapture.zfs(plan.parts), writer)
        case .lvm:
            return try await readSurely(try await CommandCapture.lvm(plan.parts, settings), writer)
        case .freeze:
            guard let hook = options.captureHook else {
                throw CaptureError(
                    "--capture freeze needs a program that makes the snapshot", hint: "Name it with --capture-hook.")
            }
            return try await readSurely(try await CommandCapture.hook(hook, plan.parts, settings), writer)
        case .none:
            preconditionFailure("it is asked for before")
        }
    }

    // MARK: - Views

    /// Captures of a volume that is not held, until nothing changed meanwhile.
    private static let attempts = 5

    func readSurely(_ capture: any Capture, _ writer: RepositoryWriter) async throws -> Captured {
        guard let captured = try await read(capture, writer) else { throw CaptureError.restless }
        return captured
    }

    /// Reads a view that does not change. Nil where it may mix moments.
    func read(_ capture: any Capture, _ writer: RepositoryWriter) async throws -> Captured? {
        do {
            endFingerprint(of: capture.moment)
            report.captureDuration = capture.held
            report.warnings += capture.warnings
            if !options.keepsCapture || !capture.canBeKept { lists = nil }
            report.problems = []
            var captured = Captured(volume: try scan(capture), contents: [:], capture: capture)
            if let span = capture.span, captured.volume.holdsChange(in: span) {
                capture.release()
                return nil
            }
            do {
                captured = try await readFiles(captured, writer)
            } catch let lie as TrackingLie {
                report.problems.append(
                    "\(printable(lie.path)) changed where changed-block tracking saw no change: everything was read again")
                readsAll = true
                // What was finished before the lie came out may rest on another one.
                journal?.remove()
                captured = try await readFiles(captured, writer)
            }
            summarize(captured.volume, captured.contents)
            return captured
        } catch {
            capture.release()
            throw error
        }
    }

    private func scan(_ capture: any Capture) throws -> VolumeScan {
        try VolumeScan(capture.view, moment: capture.moment) { note($0) }
    }

    private func readFiles(_ captured: Captured, _ writer: RepositoryWriter) async throws -> Captured {
        var contents = takeUnchanged(captured.volume)
        var tracker = ChangeTracker(
            state: state, lists: readsAll ? nil : lists, capture: captured.capture,
            on: repository.executor, mayUse: mayUse)
        let parents = try await tracker.parents(of: captured.volume) { contents[$0] == nil }
        report.bytesPinned = captured.capture?.bytesPinned(except: captured.volume.inodes { contents[$0] != nil }) ?? 0
        let files = captured.volume.filesToRead(except: { contents[$0] != nil }, parent: { parents[$0] })
        try await read(files, of: captured.volume, into: writer, &contents)
        return Captured(volume: captured.volume, contents: contents, capture: captured.capture)
    }

    private func liveTree(_ parts: VolumeParts) throws -> SourceTree {
        for refused in parts.refused { note(refused) }
        do throws(SourceError) { return try SourceTree(path: parts.root.directory, grafts: parts.links) } catch {
            throw BackupError(.sourceUnreadable, "cannot read \(options.path)", cause: error)
        }
    }

    /// The live volume, as it is.
    func openVolume(problem: (SourceError) -> Void) throws -> VolumeScan {
        guard try isDirectory() else { return try openDevice() }
        let parts: VolumeParts
        do throws(SourceError) { parts = try VolumeParts(path: options.path) } catch {
            throw BackupError(.sourceUnreadable, "cannot read \(options.path)", cause: error)
        }
        return try VolumeScan(try liveTree(parts), problem: problem)
    }

    private func readLive(_ writer: RepositoryWriter) async throws -> Captured {
        lists = nil
        beginFingerprint()
        let moment = ambient.now()
        let volume = try openVolume { self.note($0) }
        var contents = takeUnchanged(volume)
        try await read(volume.filesToRead { contents[$0] != nil }, of: volume, into: writer, &contents)
        endFingerprint(of: moment)
        summarize(volume, contents)
        return Captured(volume: volume, contents: contents)
    }

    // MARK: - Two phases

    /// Content that was read in an earlier pass, by path.
    private struct Known {
        private let byPath: [[UInt8]: (stat: FileStat, content: [UInt8])]

        init(_ volume: VolumeScan, _ contents: Contents) {
            var byPath: [[UInt8]: (stat: FileStat, content: [UInt8])] = [:]
            guard volume.canBeUnchanged else {
                self.byPath = [:]
                return
            }
            for (index, content) in contents where !volume.isFresh(volume.nodes[index].stat) {
                byPath[volume.nodes[index].path] = (volume.nodes[index].stat, content)
            }
            self.byPath = byPath
        }

        func content(_ node: ScannedNode) -> [UInt8]? {
            byPath[node.path].flatMap { $0.stat.isSame(as: node.stat) ? $0.content : nil }
        }

        func contents(of volume: VolumeScan) -> Contents {
            var contents: Contents = [:]
            for (index, node) in volume.nodes.enumerated() where volume.holdsContent(index) {
                contents[index] = content(node)
            }
            return contents
        }
    }

    /// Live passes before writes are held, while each leaves less to do.
    private static let passes = 8
    /// Bytes that can be put aside in a moment.
    private static let shortCopy: Int64 = 32 << 20

    /// Copies the live volume, then once more what changed meanwhile, until
    /// that is little; the last pass is made while the database is paused. If
    /// nobody writes, a pass that finds nothing changed is the proof that all
    /// of it is of one moment.
    private func copyInPasses(
        _ plan: CapturePlan, _ settings: CaptureSettings, _ writer: RepositoryWriter
    ) async throws -> Captured {
        let tree = try liveTree(plan.parts)
        var volume = try VolumeScan(tree) { note($0) }
        var contents = takeUnchanged(volume)
        try await read(volume.filesToRead { contents[$0] != nil }, of: volume, into: writer, &contents)
        var before = Int64.max
        for _ in 0..<Self.passes {
            let known = Known(volume, contents)
            let isWritten = !WriterSearch(plan.parts).writers.isEmpty
            beginFingerprint()
            var problems: [SourceError] = []
            let moment = ambient.now()
            let next = try VolumeScan(tree) { problems.append($0) }
            let found = known.contents(of: next)
            let missing = next.filesToRead { found[$0] != nil }
            let bytes = missing.reduce(0) { $0 + $1.size }
            if !isWritten, next.isUnchanged(since: volume) {
                report.capture = "quiet"
                endFingerprint(of: moment)
                summarize(next, contents)
                return Captured(volume: next, contents: contents)
            }
            if isWritten, bytes <= Self.shortCopy || bytes > before / 10 * 7 {
                if let captured = try await holdAndCopy(plan, tree, settings, known, volume, contents, writer) {
                    return captured
                }
            }
            before = bytes
            report.problems = []
            for refused in plan.parts.refused { note(refused) }
            for problem in problems { note(problem) }
            (volume, contents) = (next, found)
            try await read(missing, of: volume, into: writer, &contents)
            if missing.isEmpty { usleep(30_000) }
        }
        throw CaptureError.restless
    }

    /// Nil where nobody writes any more.
    private func holdAndCopy(
        _ plan: CapturePlan, _ tree: SourceTree, _ settings: CaptureSettings, _ known: Known, _ before: VolumeScan,
        _ read: Contents, _ writer: RepositoryWriter
    ) async throws -> Captured? {
        let spool = options.cacheDirectory ?? "/var/tmp"
        _ = LocalFile.makeDirectory(spool)
        let earlier = blockLists(of: before, read)
        let hasher = contentHasher
        guard
            let copy = try HeldCopy.take(
                plan.parts, tree, settings, spool: spool, remembering: before.attributes,
                isKnown: { known.content($0) != nil },
                blocks: { node in earlier[node.path].map { $0.known(hasher) } })
        else { return nil }
        endFingerprint(of: copy.moment)
        report.captureDuration = copy.held
        report.problems = []
        let volume = try scan(copy)
        var contents = known.contents(of: volume)
        let files = volume.filesToRead(
            except: { contents[$0] != nil },
            parent: { index in
                let node = volume.nodes[index]
                guard let list = earlier[node.path], let changed = copy.changed[node.path] else { return nil }
                return TrackedParent(list, changed: changed, size: node.stat.size, isSampled: { false })
            })
        try await self.read(files, of: volume, into: writer, &contents)
        summarize(volume, contents)
        return Captured(volume: volume, contents: contents)
    }

    /// Blocks of the files that changed last, as they were read: 32 MiB of ids at the most.
    private func blockLists(of volume: VolumeScan, _ contents: Contents) -> [[UInt8]: BlockList] {
        guard let lists else { return [:] }
        var found: [[UInt8]: BlockList] = [:]
        var room = 1 << 20
        let large = contents.keys.filter { volume.nodes[$0].stat.size > ReadQueue.stretch }
        for index in large.sorted(by: { volume.nodes[$0].stat.changed > volume.nodes[$1].stat.changed }) {
            let path = volume.nodes[index].path
            guard let content = try? Content(decoding: contents[index]![...]), content.blockCount <= room,
                content.blockSize == FileClass.of(path).blockSize, let list = lists.find(path, content: content),
                list.packs.allSatisfy(mayUse)
            else { continue }
            room -= content.blockCount
            found[path] = list
        }
        return found
    }

    // MARK: - For the next run

    /// Share of the volume's file system that has to stay free of what a kept
    /// capture holds on to.
    private static let freeShare = 0.1

    func keep(_ captured: Captured, _ name: SnapshotName) {
        guard options.keepsCapture, lists != nil, let capture = captured.capture else { return }
        var info = statvfs()
        if statvfs(options.path, &info) == 0, Double(info.f_bavail) < Double(info.f_blocks) * Self.freeShare {
            report.warnings.append(
                "less than a tenth of the volume's file system is free: the capture is not kept, and the next backup "
                    + "reads whole files again")
            return
        }
        do throws(CaptureError) { try capture.keep(as: "\(name.id)") } catch { report.warnings.append("\(error)") }
    }
}
