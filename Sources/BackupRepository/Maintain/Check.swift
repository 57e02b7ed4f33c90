import BackupBase
import FoundationEssentials
import ObjectStorage

/// Something wrong with the repository, by object, snapshot and path.
public struct Finding: Sendable, Codable {
    public enum Severity: String, Sendable, Codable { case damage, notice }
    public var severity: Severity
    /// Name of the object in the store.
    public var object: String
    public var message: String
    public var snapshot: String?
    public var path: String?
}

public struct CheckReport: Sendable {
    public var findings: [Finding] = []
    public var packs = 0
    public var indexes = 0
    public var snapshots = 0
    public var files = 0
    public var framesRead = 0
    public var bytesRead: Int64 = 0
    public var bytesStored: Int64 = 0

    public var isDamaged: Bool { findings.contains { $0.severity == .damage } }
}

/// Verifies a repository: every configuration, key slot, trailer, index and
/// manifest against each other; with `readShare`, frames too.
///
/// It goes on after what it finds, so that one report names everything.
public final class Check {
    let repository: Repository
    private let readShare: Double
    private let progress: (_ done: Int, _ total: Int) -> Void
    private var report = CheckReport()
    private var sizes: [ObjectID: Int] = [:]
    private var badPacks: [ObjectID: String] = [:]
    private var badFrames: [ObjectID: [(blocks: Range<Int>, problem: String)]] = [:]
    private var used: Set<ObjectID> = []
    /// Those of the snapshot at hand.
    private var current: Set<ObjectID> = []
    /// Object names of snapshots, by their ids.
    private var names: [String: String] = [:]
    /// Packs that an index lists and the store has not, with the index.
    private var unstored: [ObjectID: String] = [:]
    private var successions = Successions()
    /// Packs that are to take the places of others, which are still there.
    private var ready: Set<ObjectID> = []
    /// Whether the notes could be read that say whose place a pack took.
    private var knowsSuccessions = true

    /// - Parameter readShare: 0 reads no frames, 1 all of them.
    public init(_ repository: Repository, readShare: Double, progress: @escaping (_ done: Int, _ total: Int) -> Void) {
        self.repository = repository
        self.readShare = readShare
        self.progress = progress
    }

    public func run() async throws -> CheckReport {
        try await checkCopies()
        try await listPacks()
        try await checkPacks()
        try await checkIndexes()
        try await checkSnapshots()
        try await checkSuccessions()
        // A prune takes an index's word away first, but a run that was given up may have written one later:
        // backups look whether a pack is there before they rely on it.
        for (pack, index) in unstored.sorted(by: { $0.key < $1.key }) {
            // Stored after the packs were listed.
            if try await repository.store.info(FinishedPack.name(pack)) != nil { continue }
            if used.contains(pack), successions.of[pack] == nil {
                damage(FinishedPack.name(pack), "it is missing and listed in \(index)")
            } else {
                notice(index, "it lists \(FinishedPack.name(pack)), which is gone and no snapshot needs")
            }
        }
        // Without the notes nobody knows whose place a pack took.
        let idle = knowsSuccessions ? sizes.keys.sorted() : []
        for pack in idle where !used.contains(pack) && !ready.contains(pack) && badPacks[pack] == nil {
            notice(FinishedPack.name(pack), "no snapshot uses it: space that a prune frees")
        }
        try await dropGone()
        return report
    }

    /// What was taken away meanwhile, by a forget or a prune, is not damaged: a
    /// snapshot that is gone, an object that is gone and that nothing needs.
    private func dropGone() async throws {
        var known: [String: Bool] = [:]
        func isGone(_ name: String) async throws -> Bool {
            if let gone = known[name] { return gone }
            let gone = try await repository.store.info(name) == nil
            known[name] = gone
            return gone
        }
        var kept: [Finding] = []
        for finding in report.findings {
            guard finding.severity == .damage else {
                kept.append(finding)
                continue
            }
            if let snapshot = finding.snapshot, let object = names[snapshot] {
                if try await isGone(object) { continue }
            } else if let pack = ObjectID(hex: finding.object.suffix(32)), FinishedPack.name(pack) == finding.object {
                if !used.contains(pack) || successions.of[pack] != nil, try await isGone(finding.object) { continue }
            } else if finding.object.hasPrefix(IndexObject.prefix), try await isGone(finding.object) {
                continue
            }
            kept.append(finding)
        }
        report.findings = kept
    }

    /// Reads a small object that has to be there; reports instead of throwing
    /// what is wrong with the object itself.
    func read(_ name: String, limit: Int) async throws -> [UInt8]? {
        do {
            return try await repository.store.get(name, .all, limit: limit).array
        } catch let error as StoreError where error.kind == .notFound {
            damage(name, "it is missing")
        } catch let error as StoreError where error.kind == .tooLarge {
            damage(name, "it is too large")
        } catch let error as StoreError where error.kind == .failed {
            damage(name, "it cannot be read: \(error.detail)")
        }
        return nil
    }

    // MARK: - Packs

    /// What took the place of a pack that a snapshot uses, and that is gone, is used.
    private func checkSuccessions() async throws {
        // A writer's key shows the notes, and not whose they are.
        guard repository.keys.canRead else { return }
        do { successions = try await Successions(repository) } catch let error as BackupError where error.code == .damaged {
            knowsSuccessions = false
            return damage(Succession.topic.prefix, error.description)
        }
        for note in successions.forged {
            notice(Succession.topic.object(note), "the owner did not make it: it does not count")
        }
        var next = Array(used)
        while let pack = next.popLast() {
            guard let successor = successions.of[pack]?.pack else { continue }
            if sizes[pack] != nil {
                ready.insert(successor)
            } else if used.insert(successor).inserted {
                next.append(successor)
            }
        }
    }

    private func listPacks() async throws {
        for info in try await repository.store.list("v1/packs/") {
            let parts = info.name.split(separator: "/")
            guard parts.count == 4, let id = ObjectID(hex: parts[3]), FinishedPack.name(id) == info.name else {
                notice(info.name, "it has no pack's name")
                continue
            }
            sizes[id] = info.size
            report.bytesStored += Int64(info.size)
        }
        report.packs = sizes.count
    }

    private func checkPacks() async throws {
        var done = 0
        for id in sizes.keys.sorted() {
            try Task.checkCancellation()
            do {
                let pack = try await repository.reader.pack(id)
                if try await checkHeader(pack), readShare > 0 { try await readFrames(pack) }
            } catch let error as BackupError where error.code == .damaged {
                // Pruned meanwhile: who needs it will miss it.
                guard try await repository.store.info(FinishedPack.name(id)) != nil else {
                    sizes[id] = nil
                    continue
                }
                badPacks[id] = error.cause ?? error.message
                damage(FinishedPack.name(id), error.cause ?? error.message)
            } catch let error as StoreError where error.kind == .failed {
                badPacks[id] = error.detail
                damage(FinishedPack.name(id), "it cannot be read: \(error.detail)")
            }
            done += 1
            WorkPulse.beat()
            progress(done, sizes.count)
        }
    }

    /// Without its header no frame of a pack can be opened, whatever its trailer says.
    private func checkHeader(_ pack: PackReader.OpenPack) async throws -> Bool {
        do {
            try await repository.reader.readHeader(of: pack)
            return true
        } catch let error as BackupError where error.code == .damaged {
            let problem = error.cause ?? error.message
            badFrames[pack.id, default: []].append((0..<pack.trailer.ids.count, problem))
            damage(FinishedPack.name(pack.id), problem)
            return false
        }
    }

    private func readFrames(_ pack: PackReader.OpenPack) async throws {
        let frames = pack.trailer.frames.indices.filter { _ in readShare >= 1 || Double.random(in: 0..<1) < readShare }
        let reader = repository.reader
        var next = frames[...]
        var results = OrderedMap<Int, (Int, String?)>(
            width: 4, on: repository.executor, from: { next.popFirst() },
            transform: { number in
                do {
                    let frame = try reader.open(number, in: try await reader.read(number..<number + 1, of: pack))
                    defer { reader.release(frame) }
                    WorkPulse.beat()
                    for (ordinal, range) in frame.held { try reader.verify(ordinal, range, of: frame) }
                    return (number, nil)
                } catch let error as BackupError where error.code == .damaged {
                    return (number, error.cause ?? error.message)
                } catch let error as StoreError where error.kind == .failed {
                    return (number, "it cannot be read: \(error.detail)")
                }
            })
        while let (number, problem) = try await results.next() {
            report.framesRead += 1
            report.bytesRead += Int64(pack.trailer.frames[number].sealedLength)
            guard let problem else { continue }
            badFrames[pack.id, default: []].append((pack.trailer.frames[number].blocks, problem))
            damage(FinishedPack.name(pack.id), problem)
        }
    }

    // MARK: - Indexes

    private func checkIndexes() async throws {
        var indexed: Set<ObjectID> = []
        for info in try await repository.store.list(IndexObject.prefix) {
            guard let id = IndexObject.id(name: info.name) else {
                notice(info.name, "it has no index's name")
                continue
            }
            report.indexes += 1
            guard let bytes = try await read(info.name, limit: IndexObject.sizeLimit) else { continue }
            do {
                for pack in try IndexObject(opening: bytes, repository.keys, id: id).packs {
                    indexed.insert(pack.id)
                    try await compare(pack, index: info.name)
                }
            } catch let error as FormatError {
                damage(info.name, "\(error) (an index only repeats the packs: 'bgbackup repair' rebuilds it)")
            }
        }
        for id in sizes.keys.sorted() where !indexed.contains(id) && badPacks[id] == nil {
            notice(FinishedPack.name(id), "no index lists it: its blocks are stored again when they are met")
        }
    }

    private func compare(_ pack: IndexObject.Pack, index: String) async throws {
        let name = FinishedPack.name(pack.id)
        guard let size = try await size(of: pack.id) else { return unstored[pack.id] = index }
        guard badPacks[pack.id] == nil else { return }
        let trailer: PackTrailer
        do {
            let opened = try await repository.reader.pack(pack.id)
            // Pruned meanwhile, and another one took its place.
            guard opened.id == pack.id else { return unstored[pack.id] = index }
            trailer = opened.trailer
        } catch let error as BackupError where error.code == .damaged {
            // Its trailer was read before: it was pruned meanwhile.
            guard try await repository.store.info(name) == nil else { throw error }
            return unstored[pack.id] = index
        }
        if size != pack.size || trailer.ids != pack.trailer.ids || trailer.lengths != pack.trailer.lengths {
            damage(index, "it does not say what the trailer of \(name) says")
        }
    }

    /// Of a pack that a backup stored since they were listed too: it is there before the index that names it.
    private func size(of pack: ObjectID) async throws -> Int? {
        if let size = sizes[pack] { return size }
        return try await repository.store.info(FinishedPack.name(pack))?.size
    }

    // MARK: - Snapshots

    private func checkSnapshots() async throws {
        for name in try await repository.snapshotNames() {
            WorkPulse.beat()
            report.snapshots += 1
            names["\(name.id)"] = name.object
            current = []
            do {
                let snapshot = try await repository.snapshot(name)
                for case .stored(let pack, let first, let count) in snapshot.manifest.runs {
                    use(pack, first: first, count: count, name, path: nil)
                }
                var entries = 0
                defer {
                    if snapshot.record.kind == .device, entries != 2 {
                        damage(name.object, "a device snapshot that holds not one device", snapshot: name.id)
                    }
                }
                try await repository.forEachEntry(of: snapshot) { entry in
                    entries += 1
                    guard case .file(_, let content) = entry.kind else { return }
                    self.report.files += 1
                    try await self.check(content, of: entry.path, name)
                }
            } catch let error as BackupError where error.code == .damaged {
                damage(name.object, error.description, snapshot: name.id)
            } catch let error as BackupError where error.code == .noSnapshot {
                // Forgotten meanwhile.
                report.snapshots -= 1
                continue
            } catch let error as StoreError where error.kind == .failed {
                damage(name.object, "it cannot be read: \(error.detail)", snapshot: name.id)
            }
            if try await repository.store.info(name.object) != nil { used.formUnion(current) }
        }
    }

    private func check(_ content: Content, of path: [UInt8], _ name: SnapshotName) async throws {
        do {
            var digest = FileDigest(content, repository)
            if case .indirect(_, let parts) = content.layout {
                for case .stored(let pack, let first, let count) in parts.runs {
                    use(pack, first: first, count: count, name, path: path)
                }
            }
            try await repository.forEachPart(of: content) { part, firstBlock in
                var block = firstBlock
                for run in part.extents.runs {
                    switch run {
                    case .zero(let count): digest.addZero(count)
                    case .stored(let pack, let first, let count):
                        // Also where it is missing.
                        self.current.insert(pack)
                        let opened = try await self.repository.reader.pack(pack)
                        self.use(pack, first: first, count: count, name, path: path, in: opened.id)
                        try digest.add(opened, first: first, count: count, at: block)
                    }
                    block += run.count
                }
            }
            try digest.check()
        } catch let error as BackupError where error.code == .damaged {
            damage(name.object, error.description, snapshot: name.id, path: path)
        }
    }

    /// Notes that a snapshot needs blocks, and what is known against them.
    /// - Parameter place: the pack that has them, where that is another one
    private func use(
        _ pack: ObjectID, first: Int, count: Int, _ name: SnapshotName, path: [UInt8]?, in place: ObjectID? = nil
    ) {
        current.insert(pack)
        for frame in badFrames[place ?? pack] ?? [] where frame.blocks.overlaps(first..<first + count) {
            damage(FinishedPack.name(place ?? pack), frame.problem, snapshot: name.id, path: path)
        }
    }

    // MARK: - Findings

    func damage(_ object: String, _ message: String, snapshot: ObjectID? = nil, path: [UInt8]? = nil) {
        report.findings.append(
            Finding(
                severity: .damage, object: object, message: message, snapshot: snapshot.map { "\($0)" },
                path: path.map { printable($0) }))
    }

    func notice(_ object: String, _ message: String) {
        report.findings.append(Finding(severity: .notice, object: object, message: message, snapshot: nil, path: nil))
    }
}
