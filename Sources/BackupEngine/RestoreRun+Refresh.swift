import BackupBase
import BackupRepository
import Glibc
import VolumeIO

/// A target that holds one snapshot is brought to another: what differs between
/// the two manifests is written, and nothing else is read or written.
extension RestoreRun {
    /// Where a refresh begins.
    private struct Base {
        let snapshot: Snapshot
        let note: TargetNote
        /// Whether one was cut off: some of it may be done.
        let isInterrupted: Bool
    }

    /// Whether what was cut off in the target was a refresh.
    func holdsUnfinishedRefresh() throws -> Bool { try readMarker()?.refreshes != nil }

    func refresh(_ snapshot: Snapshot) async throws {
        guard snapshot.record.kind != .device, options.include.isEmpty else {
            throw BackupError(
                .usage, "--refresh is for whole snapshots of directories",
                hint: "Restore devices, images and single paths without it.")
        }
        do {
            let base = try await base(snapshot)
            try requireIdentity()
            let manner = TargetNote.manner(owner: options.owner, hasProblems: false)
            let old = try await timed(.plan) { try await SnapshotNames.read(base.snapshot, repository) }
            let plan = try await timed(.plan) {
                try await RefreshPlan.make(
                    repository, from: old, to: snapshot, everything: base.isInterrupted || base.note.manner != manner)
            }
            let check = TargetCheck(repository: repository, target: options.target, note: base.note, old: old)
            try await timed(.check) {
                if base.isInterrupted { try await check.run(interrupted: plan) } else { try await check.run() }
            }
            summarize(plan, base)
            if !options.dryRun { try await write(plan, base) }
        } catch let error as TargetError {
            throw Self.failed(error)
        }
    }

    private func summarize(_ plan: RefreshPlan, _ base: Base) {
        report.refreshedFrom = base.snapshot.id
        report.files = plan.fileCount
        report.directories = plan.directoryCount
        report.bytesTotal = plan.bytesTotal
        report.bytesUnchanged = plan.bytesUnchanged
        report.changedFiles = plan.changed
        report.removed = plan.removals.map(\.path).filter { !RefreshPlan.rewritten.contains($0) }
        board.update {
            $0.phase = .write
            $0.bytesTotal = plan.restore.reads.reduce(0) { $0 + plan.restore.bytes(of: $1) }
            $0.filesTotal = plan.restore.files.count
        }
    }

    // MARK: - Where to start

    private func readMarker() throws -> RestoreMarker.Header? {
        do {
            if try TargetTree.isEmpty(path: options.target) { return nil }
            let tree = try TargetTree(path: options.target, create: false)
            guard let marker = try tree.readSmallFile(RestoreMarker.name, limit: RestoreMarker.sizeLimit) else { return nil }
            return RestoreMarker.parse(marker)?.header
        } catch {
            throw Self.failed(error)
        }
    }

    /// What the target holds. Throws `.targetChanged` where that is unknown.
    private func base(_ snapshot: Snapshot) async throws -> Base {
        func refused(_ why: String, _ hint: String = "Restore onto an empty volume.") -> BackupError {
            BackupError(.targetChanged, "the target \(options.target) cannot be refreshed: \(why)", hint: hint)
        }
        let marker = try readMarker()
        if let marker {
            guard marker.refreshes != nil else {
                throw refused("it holds an unfinished restore", "Go on with that by --resume, or empty the target first.")
            }
            guard marker.snapshot == "\(snapshot.id)", marker.repository == "\(repository.id)" else {
                throw refused(
                    "it holds an unfinished refresh to snapshot \(marker.snapshot)",
                    "Finish that first: give its id in place of this snapshot's.")
            }
        }
        guard let place = TargetNote.place(of: options.target, in: options.stateDirectory, repository),
            let note = TargetNote(place, repository)
        else {
            throw refused(
                "this node has no note of a restore there",
                "Restore onto an empty volume, by its path of then and with the same BGBACKUP_STATE_DIR next time.")
        }
        guard marker == nil || note.snapshot == snapshot.id || marker?.refreshes == "\(note.snapshot)" else {
            throw refused("it was under way from another snapshot than this node has a note of")
        }
        guard let held = try await repository.snapshotNames().first(where: { $0.id == note.snapshot }) else {
            throw refused("the repository does not hold snapshot \(note.snapshot) any more, which is there")
        }
        // The note is renewed before the marker goes: all may be done already.
        return Base(
            snapshot: try await repository.snapshot(held), note: note,
            isInterrupted: marker != nil && note.snapshot != snapshot.id)
    }

    // MARK: - Writing

    private func write(_ plan: RefreshPlan, _ base: Base) async throws {
        let tree = try TargetTree(path: options.target, create: false)
        let journal = try RestoreJournal(tree)
        let header = header(plan.restore.snapshot, refreshes: base.snapshot.id)
        try timed(.sync) { try journal.begin(try RestoreMarker.firstLine(header)) }
        try timed(.write) {
            try remove(plan, tree)
            try makeNames(plan.restore, tree)
            for (number, ranges) in plan.holes where !ranges.isEmpty {
                let file = try tree.openForWriting(plan.restore.files[number].path)
                for range in ranges { try file.punch(range) }
            }
            try writeZeros(plan.restore, tree)
        }
        // No comparing: zeros that end a block could be taken for a hole.
        try await writeData(plan.restore, tree, nil, from: 0, compare: false)
        board.update { $0.phase = .finish }
        try takeIdentity(tree)
        try timed(.sync) { try tree.synchronize() }
        timed(.metadata) {
            for (path, kind, names) in plan.attributes {
                do { try tree.removeAttributes(path, kind: kind, names: names) } catch { report.problems.append("\(error)") }
            }
        }
        try finish(plan.restore, tree, journal, names: plan.names)
    }

    private func remove(_ plan: RefreshPlan, _ tree: TargetTree) throws {
        for directory in plan.opened { try tree.makeWritable(directory) }
        // What a rewriting left that was cut off.
        for path in RefreshPlan.rewritten { try tree.remove(path + Array(".new".utf8)) }
        for removal in plan.removals {
            do {
                try tree.remove(removal.path)
            } catch {
                // The refresh was cut off after a directory above it had become something else.
                if error.errno == ENOTDIR || error.errno == ELOOP { continue }
                // Made of it, and filled, before the refresh was cut off.
                guard removal.becomesDirectory, error.errno == ENOTEMPTY || error.errno == EEXIST else { throw error }
            }
        }
    }
}
