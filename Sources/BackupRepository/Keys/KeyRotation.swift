import BackupBase
import FoundationEssentials
import ObjectStorage

/// A new key pair for a repository (docs/keys.md). In this order, so that at each
/// step everything opens that is there, and a run that is killed is taken up by the next:
///
/// 1. Slots with the new pair, each read back and opened.
/// 2. The configuration names the new pair: what opens from now on seals for it,
///    and writer keys from before are refused.
/// 3. Slots of the same passwords without the new pair go.
/// 4. The old pair is closed, once no run is left that seals for it.
public struct KeyRotation: Sendable {
    /// Of the key pair that is now the newest.
    public var generation = 1
    /// Whether it went on with one that was killed, or did not come to its end.
    public var wasResumed = false
    /// Slots that were written.
    public var added: [String] = []
    public var removed: [String] = []
    /// Slots that could not be removed, and until when; RFC 3339.
    public var locked: [String: String] = [:]
    /// Slots of other passwords: they open what is older, and nothing newer.
    public var outdated: [String] = []
    /// Runs that still seal for the old pair: it is closed when the rotation is run again. For people.
    public var waitingFor: [String] = []

    private let repository: Repository
    private let passwords: [Password]
    private let by: String?
    private let force: Bool
    private var ring: KeyRing

    public struct Password: Sendable {
        public var bytes: [UInt8]
        public var label: String?

        public init(_ bytes: [UInt8], label: String? = nil) { (self.bytes, self.label) = (bytes, label) }
    }

    /// - Parameters:
    ///   - passwords: all that are to open what is new; the first opened the repository
    ///   - by: who does it, on which host
    ///   - force: close the old pair whatever still seals for it
    public static func run(
        _ repository: Repository, _ passwords: [Password], by: String?, force: Bool = false, dryRun: Bool = false
    ) async throws -> KeyRotation {
        guard repository.keys.canRead else { throw KeyRing.writeOnly }
        try repository.requireCurrent()
        var rotation = try await KeyRotation(repository, passwords, by, force)
        if dryRun {
            rotation.outdated = try await rotation.slotsWithout(rotation.matching())
            return rotation
        }
        try await repository.withLease("maintenance") { lease in
            // Another rotation may have been at work until a moment ago.
            let versions = try await rotation.versions()
            try await rotation.run(lease, versions)
        }
        return rotation
    }

    private init(_ repository: Repository, _ passwords: [Password], _ by: String?, _ force: Bool) async throws {
        (self.repository, self.passwords, self.by, self.force) = (repository, passwords, by, force)
        ring = repository.keys
        wasResumed = try await Self.isUnfinished(repository)
        if !wasResumed {
            guard ring.generation < KeyPair.most else {
                throw BackupError(
                    .failed, "the key pair was rotated \(KeyPair.most - 1) times, which is as often as the format allows",
                    hint: "Make a new repository.")
            }
            ring = ring.rotated()
        }
        generation = ring.generation
    }

    /// Versions of the two copies, to replace these and no others. Throws `.busy` where another rotation was at work.
    private func versions() async throws -> [String: String] {
        var versions: [String: String] = [:]
        var isOurs = false
        for name in Configuration.names {
            guard let found = try await repository.store.fetch(name, limit: Configuration.sizeLimit) else { continue }
            versions[name] = found.version
            guard let parsed = try? UnverifiedConfiguration(parsing: found.bytes) else { continue }
            guard !parsed.outdates(repository.keys) else { throw Self.overtaken }
            isOurs = isOurs || parsed.isGenuine(repository.keys)
        }
        guard isOurs else { throw Self.overtaken }
        return versions
    }

    private static let overtaken = BackupError(
        .busy, "another rotation of the key pair was at work", hint: "See 'bgbackup key list'.")

    /// Whether a rotation to the keys' newest pair did not come to its end.
    static func isUnfinished(_ repository: Repository) async throws -> Bool {
        let generation = repository.keys.generation
        guard generation > 1 else { return false }
        if repository.configuration.keyGeneration < generation { return true }
        if try await Repository.configurations(repository.store).contains(where: { $0.generation < generation }) { return true }
        return try await PairClosings.read(repository.store, repository.keys, generation - 1) == nil
    }

    private mutating func run(_ lease: Lease, _ versions: [String: String]) async throws {
        let old = try await matching()
        try await addSlots(old)
        try await writeConfiguration(lease, versions)
        for slot in old where !slot.isCurrent {
            do {
                try await repository.delete(slot: slot.id.hex, lease)
                removed.append(slot.id.hex)
            } catch let error as BackupError where error.code == .immutable {
                locked[slot.id.hex] = error.message
            }
        }
        outdated = try await slotsWithout(old)
        try await close()
    }

    // MARK: - Slots

    /// A slot that one of the passwords opens.
    private struct Match {
        var id: [UInt8]
        var label: String
        var password: Int
        /// Whether it holds the newest pair: one of the same number may be of a rotation that was overtaken.
        var isCurrent: Bool
    }

    private func matching() async throws -> [Match] {
        var found: [Match] = []
        for (id, slot) in try await Repository.slots(repository.store) {
            for (number, password) in passwords.enumerated() {
                guard let opened = try? slot.open(password: password.bytes, repository: repository.id, slot: id) else { continue }
                found.append(
                    Match(id: id, label: slot.label, password: number, isCurrent: opened.secrets == ring.secrets))
            }
        }
        for number in passwords.indices where !found.contains(where: { $0.password == number }) {
            throw BackupError(
                .wrongPassword, "password \(number + 1) of those given opens no key slot",
                hint: "Passwords that are new are added afterwards: 'bgbackup key add'.")
        }
        return found
    }

    private func slotsWithout(_ matches: [Match]) async throws -> [String] {
        let ours = Set(matches.map { $0.id.hex })
        return try await repository.keySlots().filter { $0.generation < generation && !ours.contains($0.id) }.map(\.id)
    }

    private mutating func addSlots(_ old: [Match]) async throws {
        for (number, password) in passwords.enumerated() {
            let own = old.filter { $0.password == number }
            if own.contains(where: \.isCurrent) { continue }
            let label = password.label ?? own.first?.label ?? ""
            added.append(try await repository.writeSlot(ring, password.bytes, label, by).hex)
        }
    }

    // MARK: - Configuration

    private func writeConfiguration(_ lease: Lease, _ versions: [String: String]) async throws {
        let store = repository.store
        var next = repository.configuration
        if next.keyGeneration < generation { next = next.rotated(to: ring, at: repository.ambient.now()) }
        let bytes = try next.encoded(ring)
        // The first copy first: who begins looks there (`completeConfiguration`).
        for name in Configuration.names {
            try await lease.confirm()
            do {
                // A run that stood still must not replace what another one wrote meanwhile.
                if repository.isShared {
                    try await store.replace(name, bytes, expecting: versions[name])
                } else {
                    try await store.put(name, AlignedBuffer(copying: bytes), ifAbsent: false)
                }
            } catch let error as StoreError where error.kind == .exists || error.kind == .notFound {
                throw Self.overtaken
            }
            let back = try await store.get(name, .all, limit: Configuration.sizeLimit).array
            guard back == bytes else { throw BackupError(.storeFailed, "the store gave back another \(name) than was written") }
        }
    }

    // MARK: - Closing

    /// Closes the pair before, unless a run is left that may commit a snapshot under it.
    private mutating func close() async throws {
        let now = try await repository.storeTime()
        for intent in try await repository.intents() where intent.mayWrite {
            // All that an intent says, because another run can add to it.
            let isNewer = !intent.states.isEmpty && intent.states.allSatisfy { $0?.keyGeneration ?? 1 >= generation }
            guard !isNewer, try !repository.isDead(intent, now: now) else { continue }
            waitingFor.append(intent.holder)
        }
        guard waitingFor.isEmpty || force else { return }
        waitingFor = []
        let digests = try await repository.snapshotDigests(generation - 1)
        let closing = PairClosing(
            generation: generation - 1, closed: formatTime(repository.ambient.now()), snapshots: digests)
        try await repository.put(closing, ring)
    }
}

extension Repository {
    /// SHA-256 of the snapshots that are sealed for a key pair, by name.
    func snapshotDigests(_ generation: Int) async throws -> [String: String] {
        var digests: [String: String] = [:]
        for name in try await snapshotNames() {
            do {
                let bytes = try await store.get(name.object, .all, limit: Snapshot.bodyLimit).array
                let header = try? ObjectHeader(parsing: bytes, expecting: .snapshot, name.id)
                // What cannot be read is damaged with or without a word on it.
                if header?.generation == generation { digests[name.object] = PairClosing.digest(bytes) }
            } catch let error as StoreError where error.kind == .notFound || error.kind == .tooLarge {
                continue
            }
        }
        return digests
    }

    /// - Parameter ring: with the pair that took the closed one's place
    func put(_ closing: PairClosing, _ ring: KeyRing) async throws {
        let bytes = AlignedBuffer(copying: try closing.encoded(ring))
        for name in PairClosing.names(closing.generation) {
            // One that is there is of a run that was killed, and as true as this one.
            do { try await store.put(name, bytes, ifAbsent: true) } catch let error as StoreError where error.kind == .exists {}
        }
    }
}
