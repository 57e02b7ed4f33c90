import BackupBase
import FoundationEssentials
import ObjectStorage

/// Copies snapshots to a second place: the same repository there, with the same
/// keys. Packs and snapshots go over as they are, sealed; each is checked on the
/// way as far as the keys reach, so that no damage is copied in silence.
///
/// The order is that of a backup: packs, then an index that lists only what is
/// there (never the source's own: a later backup to the second place would
/// trust in packs it does not have), then the snapshot.
public final class Replication {
    public struct Report: Sendable {
        public var snapshots = 0
        /// Snapshots that were there already.
        public var present = 0
        public var packs = 0
        public var packsPresent = 0
        /// Bytes that were, or would be, written.
        public var bytes: Int64 = 0
        /// The place was empty, and has the repository's configuration and keys now.
        public var created = false
        /// Snapshots that cannot be copied, each with its reason. Not empty: exit 17.
        public var damaged: [String] = []
    }

    let source: Repository
    let place: any ObjectStore
    let dryRun: Bool
    private let progress: (Report) -> Void
    var report = Report()
    private(set) var target: Repository?
    /// Packs that are at the target, with their sizes, and those that an index there lists.
    private(set) var there: [ObjectID: Int] = [:]
    private var listed: Set<ObjectID> = []
    private var unlisted = IndexObject()
    private(set) var sizes: [ObjectID: Int] = [:]
    /// Keeps prunes of the place away from what is there; nil for a dry run.
    private var intent: Intent?
    /// Packs of the place that a prune is about to take away.
    private(set) var usable = UsablePacks()
    var successions: (source: Successions, place: Successions)?

    public init(from source: Repository, to place: any ObjectStore, dryRun: Bool, progress: @escaping (Report) -> Void) {
        self.source = source
        self.place = place
        self.dryRun = dryRun
        self.progress = progress
    }

    /// - Parameter names: the snapshots to copy; nil copies all, also without the right to read them
    public func run(_ names: [SnapshotName]?) async throws -> Report { try await run(names, renewing: Intent.renewal) }

    /// - Parameter pause: seconds between renewals of the run's intent; nil for none
    func run(_ names: [SnapshotName]?, renewing pause: Double?) async throws -> Report {
        guard names == nil || source.keys.canRead else { throw KeyRing.writeOnly }
        target = try await openTarget()
        try await target?.requireClaim()
        guard let target, !dryRun else { return try await copy(names) }
        return try await target.withIntent(.writer, pause: pause) { intent in
            self.intent = intent
            // A rotation there that began before this looks for intents; one that comes later waits for this.
            try await target.completeConfiguration()
            usable = try await target.usablePacks(intent).packs
            return try await copy(names)
        }
    }

    private func copy(_ names: [SnapshotName]?) async throws -> Report {
        // Before the packs: those of a snapshot that is committed meanwhile are not on a list that was read before.
        let all = try await source.snapshotNames()
        for info in try await source.store.list("v1/packs/") { Self.id(info).map { sizes[$0] = info.size } }
        for info in try await place.list("v1/packs/") { Self.id(info).map { there[$0] = info.size } }
        if let target { listed = try await target.listedPacks().packs }
        let present = Set(try await place.list(SnapshotName.prefix).compactMap { SnapshotName(object: $0.name) })
        // Who cannot read a manifest cannot know what it needs: everything goes first.
        if !source.keys.canRead {
            try await copy(packs: Set(sizes.keys))
            try await copy(notes: try await source.noteIDs(Succession.topic).sorted())
        }
        for name in names ?? all {
            if present.contains(name) {
                report.present += 1
                continue
            }
            do {
                try await copy(name)
            } catch let error as BackupError where error.code == .damaged {
                report.damaged.append("snapshot \("\(name.id)".prefix(8)): \(error)")
            }
        }
        return report
    }

    private static func id(_ info: ObjectInfo) -> ObjectID? {
        let id = ObjectID(hex: info.name.suffix(32))
        return id.flatMap { FinishedPack.name($0) == info.name ? $0 : nil }
    }

    // MARK: - The place

    /// The target as a repository; nil for a dry run onto an empty place.
    private func openTarget() async throws -> Repository? {
        var copies: [UnverifiedConfiguration] = []
        var damaged: String?
        for name in Configuration.names {
            guard let bytes = try await existing(name) else { continue }
            // One that is damaged: its other copy tells whose place it is.
            do { copies.append(try UnverifiedConfiguration(parsing: bytes)) } catch { damaged = name }
        }
        if let found = try await Repository.counting(copies, for: source.keys, place) {
            guard !found.outdates(source.keys) else { throw source.keys.outdated(found.configuration) }
            let target = repository(found.configuration)
            guard !dryRun else { return target }
            // A copy that was stopped may not have come to the second one.
            try await target.completeConfiguration()
            return try await rotated(target)
        }
        guard copies.isEmpty || copies.contains(where: { $0.id == source.id }) else {
            throw BackupError(
                .repositoryExists, "there is another repository at \(place.location)",
                hint: "A copy has the keys of its source: give an empty place, or one that holds this repository.")
        }
        if damaged != nil || !copies.isEmpty {
            throw BackupError(
                .damaged, "\(place.location)/\(damaged ?? Configuration.names[0]) is damaged",
                hint: "Run 'bgbackup repair' there, or copy to an empty place.")
        }
        report.created = true
        guard !dryRun else { return nil }
        let probe = try await StoreProbe.run(place, ambient: source.ambient)
        try probe.requireUsable()
        var configuration = source.configuration
        configuration.probe = probe.record
        let target = repository(configuration)
        try await target.requireClaim()
        // Keys first: a configuration without a key slot would be a repository nobody can open.
        try await copyKeySlots()
        let bytes = AlignedBuffer(copying: try configuration.encoded(source.keys))
        for name in Configuration.names { try await place.put(name, bytes, ifAbsent: false) }
        if source.keys.canRead { try await copyClosings(to: target) } else { try await copyClosingsUnread() }
        return target
    }

    func existing(_ name: String) async throws -> [UInt8]? {
        do {
            return try await place.get(name, .all, limit: Configuration.sizeLimit).array
        } catch let error as StoreError where error.kind == .notFound {
            return nil
        }
    }

    func repository(_ configuration: Configuration) -> Repository {
        Repository(
            store: place, keys: source.keys, configuration: configuration, executor: source.executor,
            ambient: source.ambient, identity: source.identity)
    }

    // MARK: - Copying

    private func copy(_ name: SnapshotName) async throws {
        if source.keys.canRead {
            let found = try await standIns(for: source.snapshot(name))
            try await copy(packs: found.packs)
            try await copy(notes: found.notes)
        }
        let bytes = try await source.store.get(name.object, .all, limit: Snapshot.bodyLimit).array
        _ = try Self.checked(bytes, name)
        if !dryRun { try await commit(name, AlignedBuffer(copying: bytes)) }
        report.snapshots += 1
        report.bytes += Int64(bytes.count)
        progress(report)
    }

    /// At least the header says what the name says; with the key all was opened before.
    private static func checked(_ bytes: [UInt8], _ name: SnapshotName) throws -> ObjectHeader {
        do {
            return try ObjectHeader(parsing: bytes, expecting: .snapshot, name.id)
        } catch let error as FormatError {
            throw BackupError(.damaged, "snapshot \(name.object) is damaged", cause: error)
        }
    }

    /// As a backup does (`RepositoryWriter.commit`).
    private func commit(_ name: SnapshotName, _ object: AlignedBuffer) async throws {
        try await intent?.confirm()
        do { try await put(name.object, object) } catch {
            await intent?.stay()
            throw error
        }
        do { try await intent?.confirm() } catch let error as BackupError where error.code == .busy {
            try await place.delete(name.object)
            throw error
        }
    }

    private func copy(packs: Set<ObjectID>) async throws {
        if let bad = packs.first(where: { usable.isDamaged($0) }) {
            throw BackupError(
                .damaged, "a repair at \(place.location) found pack \(FinishedPack.name(bad)) damaged there",
                hint: "Forget there what needs it, run 'bgbackup prune' until it is gone, then copy again.")
        }
        // A pack has one name for ever: it cannot be stored beside the one that is about to go.
        if let doomed = packs.first(where: { usable.isDoomed($0) }) {
            throw BackupError(
                .busy, "a prune is about to take pack \(FinishedPack.name(doomed)) away at \(place.location)",
                hint: "Run 'bgbackup prune' there until nothing waits any more, then copy again.")
        }
        var missing: [ObjectID] = []
        for id in packs.sorted() {
            guard let size = sizes[id] ?? there[id] else {
                throw BackupError(.damaged, "pack \(FinishedPack.name(id)) is missing", hint: PackReader.hint)
            }
            guard there[id] == size else {
                missing.append(id)
                continue
            }
            report.packsPresent += 1
            let reader = sizes[id] == nil ? target?.reader : source.reader
            if !listed.contains(id), let pack = try await reader?.pack(id), pack.id == id { list(id, size, pack.trailer) }
        }
        if dryRun {
            for id in missing { note(id, sizes[id]!) }
        } else {
            try await transfer(missing)
            try await writeIndex()
        }
    }

    private func transfer(_ packs: [ObjectID]) async throws {
        var rest = packs[...]
        let (source, place) = (source, place)
        var copies = OrderedMap<ObjectID, PackCopy>(
            width: place.parallelPuts, on: source.executor, from: { rest.popFirst() },
            transform: { id in
                let pack = try await PackCopy.read(id, from: source)
                try await Self.put(FinishedPack.name(id), pack.buffer, place)
                return pack
            })
        while let copy = try await copies.next() {
            note(copy.id, copy.buffer.count)
            list(copy.id, copy.buffer.count, copy.trailer)
            if unlisted.packs.count >= 16 { try await writeIndex() }
        }
    }

    private func note(_ id: ObjectID, _ size: Int) {
        there[id] = size
        report.packs += 1
        report.bytes += Int64(size)
        progress(report)
    }

    private func list(_ id: ObjectID, _ size: Int, _ trailer: PackTrailer) {
        listed.insert(id)
        unlisted.packs.append(IndexObject.Pack(id: id, size: size, trailer: trailer))
    }

    private func writeIndex() async throws {
        guard !unlisted.packs.isEmpty else { return }
        let id = ObjectID.random(source.ambient)
        let object = try unlisted.sealed(source.keys, id: id, salt: source.ambient.random(32))
        try await put(IndexObject.name(id), object)
        report.bytes += Int64(object.count)
        unlisted = IndexObject()
    }

    func put(_ name: String, _ content: AlignedBuffer) async throws { try await Self.put(name, content, place) }

    /// What has the name and another size is not what was sent, and is not
    /// replaced: objects are written once.
    static func put(_ name: String, _ content: AlignedBuffer, _ place: any ObjectStore) async throws {
        do {
            try await place.put(name, content, ifAbsent: true)
        } catch let error as StoreError where error.kind == .exists {
            guard try await place.info(name)?.size == content.count else {
                throw BackupError(
                    .damaged, "\(place.location)/\(name) exists and is not this object",
                    hint: "Run 'bgbackup check' on the copy.")
            }
        }
    }
}

extension Repository {
    /// The packs that readable index objects list, and the index objects that are none. A prune that runs meanwhile
    /// replaces some: then all are looked at again.
    func listedPacks() async throws -> (packs: Set<ObjectID>, damaged: [String]) {
        var listed: Set<ObjectID> = []
        var damaged: [String] = []
        var known: Set<String> = []
        for _ in 0..<8 {
            var isWhole = true
            for info in try await store.list(IndexObject.prefix) where !known.contains(info.name) {
                guard let id = IndexObject.id(name: info.name) else { continue }
                do {
                    let bytes = try await store.get(info.name, .all, limit: IndexObject.sizeLimit).array
                    for pack in try IndexObject(opening: bytes, keys, id: id).packs { listed.insert(pack.id) }
                } catch let error as StoreError where error.kind == .notFound {
                    isWhole = false
                    continue
                } catch  where error is FormatError || (error as? StoreError)?.kind == .tooLarge {
                    damaged.append(info.name)  // 'check' names it; what it listed is listed again.
                }
                known.insert(info.name)
            }
            if isWhole { break }
        }
        return (listed, damaged)
    }
}
