import BackupBase
import BackupRepository
import Glibc
import QdrantStorage
import VolumeIO

extension BackupRun {
    // MARK: - Unchanged files

    /// Files that the last snapshot has as they are now, or that an interrupted
    /// run has read as they are now.
    func takeUnchanged(_ volume: VolumeScan) -> Contents {
        var contents: Contents = [:]
        report.bytesResumed = 0
        guard volume.canBeUnchanged, !readsAll else { return contents }
        for (index, node) in volume.nodes.enumerated() where volume.holdsContent(index) {
            if let found = unchanged(node, in: state?.find(node.path)) {
                contents[index] = remember(found)
            } else if let found = unchanged(node, in: journal?.find(node.path)) {
                contents[index] = remember(found)
                report.bytesResumed += node.stat.size
            }
        }
        return contents
    }

    /// What was found, where the file is as it was then and all that holds its content may be used.
    func unchanged(_ node: ScannedNode, in found: LocalState.Found?) -> LocalState.Found? {
        guard let found, !found.racy, found.stamp == LocalState.Stamp(node.stat),
            let content = try? Content(decoding: found.content)
        else { return nil }
        switch content.layout {
        case .inline(let part): return part.extents.packs.allSatisfy(mayUse) ? found : nil
        case .indirect(_, let parts):
            // Noted beside it by whoever wrote the lists.
            let packs = found.packs
            return !packs.isEmpty && packs.allSatisfy(mayUse) && parts.packs.allSatisfy(mayUse) ? found : nil
        }
    }

    private func remember(_ found: LocalState.Found) -> [UInt8] {
        let content = Array(found.content)
        let packs = found.packs
        if !packs.isEmpty { packsOfIndirect[content] = Set(packs) }
        return content
    }

    /// Counts what the volume has against what the last snapshot had.
    func summarize(_ volume: VolumeScan, _ contents: Contents) {
        report.excluded = volume.excluded
        report.bytesTotal = volume.totalBytes
        (report.filesNew, report.filesChanged, report.filesUnmodified) = (0, 0, 0)
        for (index, node) in volume.nodes.enumerated() where volume.holdsContent(index) {
            guard let found = state?.find(node.path) else {
                report.filesNew += 1
                continue
            }
            let isSame = contents[index].map { $0.elementsEqual(found.content) } ?? false
            if isSame, found.stamp == LocalState.Stamp(node.stat) {
                report.filesUnmodified += 1
            } else {
                report.filesChanged += 1
            }
        }
    }

    // MARK: - Reading

    /// Reads and stores files, and adds what they hold to `contents`. A file
    /// that cannot be read, or changes meanwhile, makes a problem.
    func read(
        _ files: [FileToRead], of volume: VolumeScan, into writer: RepositoryWriter, _ contents: inout Contents
    ) async throws {
        board.update {
            $0.phase = .read
            $0.bytesTotal += files.reduce(0) { $0 + ($1.parent?.bytesToRead ?? $1.size) }
            $0.filesTotal += files.count
        }
        var finished: [FileAssembly] = []
        let queue = ReadQueue(files, open: volume.opener)
        let (buffers, hasher, opener, pace) = (writer.buffers, contentHasher, volume.opener, pace)
        var pieces = OrderedMap<ReadQueue.Work, ReadOutcome>(
            // Stretches of what changed are small and scattered: a disk wants more of them at once.
            width: files.contains { $0.parent != nil } ? 2 * Self.width : Self.width,
            on: repository.executor, from: { queue.take() },
            transform: {
                try await pace.wait(for: $0.byteCount)
                return ReadQueue.perform($0, opener, buffers, hasher)
            })
        var current: FileAssembly?
        var failed: Int?
        var idCount = 0
        var (nextSegment, files) = (report.bytesRead + ReadJournal.interval, 0)
        do {
            while let outcome = try await pieces.next() {
                switch outcome {
                case .failed(let file, let error):
                    if failed != file.node { note(error) }
                    failed = file.node
                    current = nil
                case .piece(let piece) where piece.file.node == failed:
                    writer.buffers.give(piece.region.buffer)
                case .piece(let piece):
                    guard let complete = try await take(piece, into: &current, writer, &failed) else { continue }
                    finished.append(complete)
                    idCount += complete.idCount
                    files += 1
                    // 32 MiB of ids, whatever the size of the volume.
                    if idCount >= 1 << 20 {
                        try await writer.settleTickets()
                    } else if report.bytesRead < nextSegment, files < ReadJournal.mostFiles {
                        continue
                    }
                    try await resolve(&finished, of: volume, writer, &contents)
                    idCount = finished.reduce(0) { $0 + $1.idCount }
                    (nextSegment, files) = (report.bytesRead + ReadJournal.interval, 0)
                }
            }
        } catch {
            await pieces.abandon()
            throw error
        }
        try await writer.settleTickets()
        try await resolve(&finished, of: volume, writer, &contents)
    }

    /// Stores a piece; returns the file when it was the last one.
    private func take(
        _ piece: FilePiece, into current: inout FileAssembly?, _ writer: RepositoryWriter, _ failed: inout Int?
    ) async throws -> FileAssembly? {
        if piece.isAudit { report.bytesAudited += Int64(piece.bytesRead) } else { report.bytesRead += Int64(piece.bytesRead) }
        guard piece.bytesRead == piece.expected else {
            note(piece.file.path, "became shorter while it was read: left out")
            writer.buffers.give(piece.region.buffer)
            failed = piece.file.node
            current = nil
            return nil
        }
        var assembly = current ?? FileAssembly(piece, digest: digestHasher, keepsIDs: lists != nil)
        current = nil
        if piece.isAudit, let parent = piece.file.parent {
            // What the parent has needs no look into the index, which is a random read for each block.
            assembly.add(piece, try parent.places(confirmedBy: piece))
            writer.buffers.give(piece.region.buffer)
        } else {
            assembly.add(piece, try await writer.add(piece.region, cohort: piece.file.cohort))
        }
        board.update { $0.bytesDone += Int64(piece.bytesRead) }
        guard piece.isLast else {
            current = assembly
            return nil
        }
        assembly.finish()
        report.bytesNewByRole[.of(piece.file.path), default: 0] += Int64(assembly.blocksNew * piece.file.kind.blockSize)
        assembly.isMixed = noteIfChanged(piece)
        board.update { $0.filesDone += 1 }
        return assembly
    }

    /// A file that moved between its opening and its last read is stored as it
    /// was read, and named: it may be a mixture of two moments.
    private func noteIfChanged(_ piece: FilePiece) -> Bool {
        if piece.stat.size > piece.size {
            note(piece.file.path, "grew between scan and reading: its first \(formatBytes(piece.size)) are in the snapshot")
            return true
        }
        do {
            if LocalState.Stamp(try piece.source.stat()) == LocalState.Stamp(piece.stat) { return false }
            note(piece.file.path, "changed while it was read")
        } catch {
            note(error)
        }
        return true
    }

    // MARK: - Finished files

    /// Turns finished files whose blocks all have their place into contents, and
    /// journals them. The others stay: a pack is not ended early for them.
    private func resolve(
        _ finished: inout [FileAssembly], of volume: VolumeScan, _ writer: RepositoryWriter, _ contents: inout Contents
    ) async throws {
        var segment = LocalState.Builder(hasher: repository.keys.stateHasher)
        var waiting: [(assembly: FileAssembly, whole: Content.Part, parts: [RepositoryWriter.Place])] = []
        let placed = finished.filter { writer.isPlaced(ticket: $0.lastTicket) }
        finished.removeAll { writer.isPlaced(ticket: $0.lastTicket) }
        for assembly in placed {
            let whole = assembly.whole(writer)
            switch assembly.draft(whole) {
            case .inline(let content):
                keep(assembly, content, whole.extents, of: volume, &contents, &segment)
            case .indirect(let parts):
                var places: [RepositoryWriter.Place] = []
                for part in parts { places.append(try await storeMetadata(part.encoded, writer)) }
                waiting.append((assembly, whole, places))
            }
        }
        if !waiting.isEmpty { try await writer.settleTickets() }
        for (assembly, whole, places) in waiting {
            var parts = Extents()
            for place in places { parts.append(Self.location(place, writer)) }
            keep(assembly, assembly.content(parts: parts), whole.extents, parts, of: volume, &contents, &segment)
        }
        journal?.append(segment)
    }

    /// - Parameters:
    ///   - extents: of the file's blocks
    ///   - parts: of the metadata blocks that list them, where they stand apart
    private func keep(
        _ assembly: FileAssembly, _ content: Content, _ extents: Extents, _ parts: Extents = Extents(), of volume: VolumeScan,
        _ contents: inout Contents, _ segment: inout LocalState.Builder
    ) {
        let node = volume.nodes[assembly.file.node]
        let encoded = content.encoded
        contents[assembly.file.node] = encoded
        if !parts.packs.isEmpty { packsOfIndirect[encoded] = extents.packs.union(parts.packs) }
        if volume.canBeUnchanged, !volume.isRacy(node.stat), !assembly.isMixed {
            segment.add(
                node.path, LocalState.Stamp(node.stat), racy: false, content: encoded,
                packs: extents.packs.union(parts.packs))
        }
        var assembly = assembly
        if let ids = assembly.takeIDs() { lists?.write(node.path, content: content, ids: ids, extents: extents) }
    }
}
