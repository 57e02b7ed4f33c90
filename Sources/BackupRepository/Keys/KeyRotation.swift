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
    private let retired: [[UInt8]]
    private let by: String?
    private let force: Bool
    private var ring: KeyRing

    public struct Password: Sendable {
        public var bytes: [UInt8]
        public var label: String?
        /// Opens no slot yet.
        public var isNew: Bool

        public init(_ bytes: [UInt8], label: String? = nil, isNew: Bool = false) {
            (self.bytes, self.label, self.isNew) = (bytes, label, isNew)
        }
    }

    /// - Parameters:
    ///   - passwords: all that are to open what is new
    ///   - retired: passwords that are to open nothing more
    ///   - by: who does it, on which host
    ///   - force: close the old pair whatever still seals for it, and give that up
    ///   - finishing: make no new pair: only finish a rotation that was stopped
    public static func run(
        _ repository: Repository, _ passwords: [Password], retired: [[UInt8]] = [], by: String?, force: Bool = false,
        finishing: Bool = false, dryRun: Bool = false
    ) async throws -> KeyRotation {
        guard repository.keys.canRead else { throw KeyRing.writeOnly }
        try repository.requireCurrent()
        var rotation = try await KeyRotation(repository, passwords, retired, by, force)
        guard rotation.wasResumed || !finishing else {
            throw BackupError(
                .usage, "no rotation waits to be finished: the repository has key pair \(repository.keys.generation)",
                hint: "'bgbackup key rotate' makes a new pair.")
        }
        if dryRun {
            rotation.outdated = try await rotation.slotsWithout(rotation.matching())
            return rotation
        }
        try await repository.withLease("maintenance") { lease in
            // Another rotation may have been at work until a moment ago.
            try await rotation.run(lease, ConfigurationCopies(repository))
        }
        return rotation
    }

    private init(
        _ repository: Repository, _ passwords: [Password], _ retired: [[UInt8]], _ by: String?, _ force: Bool
    ) async throws {
        (self.repository, self.by, self.force) = (repository, by, force)
        self.passwords = passwords.indices.filter { number in
            !passwords[..<number].contains { $0.bytes == passwords[number].bytes }
        }.map { passwords[$0] }
        self.retired = retired.filter { old in !passwords.contains { $0.bytes == old } }
        ring = repository.keys.sealing(for: repository.keys.heldGeneration)
        wasResumed = try await Self.isUnfinished(repository)
        if !wasResumed {
            guard ring.generation < KeyPair.most else {
                throw BackupError(
                    .failed, "the key pair was rotated \(KeyPair.most - 1) times, which is as often as the format allows",
                    hint: "Make a new repository.")
            }
            let count = try await repository.snapshotNames().count
            guard count <= PairClosing.mostSnapshots else { throw PairClosing.tooLarge(count) }
            ring = ring.rotated()
        }
        generation = ring.generation
    }

    /// Whether a rotation to the keys' newest pair did not come to its end.
    static func isUnfinished(_ repository: Repository) async throws -> Bool {
        let generation = repository.keys.heldGeneration
        guard generation > 1 else { return false }
        if repository.configuration.keyGeneration < generation { return true }
        if try await Repository.configurations(repository.store).contains(where: { $0.generation < generation }) { return true }
        return try await !openPairs(repository.store, repository.keys).isEmpty
    }

    /// Pairs before the newest that are not closed, in both copies.
    private static func openPairs(_ store: any ObjectStore, _ ring: KeyRing) async throws -> [Int] {
        var open: [Int] = []
        for generation in 1..<max(ring.heldGeneration, 1)
        where try await !PairClosings.isWhole(store, ring, generation) { open.append(generation) }
        return open
    }

    private mutating func run(_ lease: Lease, _ copies: ConfigurationCopies) async throws {
        let old = try await matching()
        try await addSlots(old)
        var next = copies.configuration
        if next.keyGeneration < generation { next = next.rotated(to: ring, at: repository.ambient.now()) }
        try await copies.replace(with: next, ring, lease, comparing: repository.isShared)
        for slot in old where !slot.isCurrent {
            do {
                try await repository.delete(slot: slot.id.hex, lease)
                removed.append(slot.id.hex)
            } catch let error as BackupError where error.code == .immutable {
                locked[slot.id.hex] = error.message
            }
        }
        outdated = try await slotsWithout(old)
        try await close(lease)
    }

    // MARK: - Slots

    /// A slot that one of the passwords opens.
    private struct Match {
        var id: [UInt8]
        var label: String
        /// Nil for one that is to open nothing more.
        var password: Int?
        /// Whether it holds the newest pair, whole: one of the same number may be of a rotation that was overtaken.
        var isCurrent: Bool
    }

    private func matching() async throws -> [Match] {
        var found: [Match] = []
        for (id, slot) in try await Repository.slots(repository.store) {
            for (number, password) in (passwords.map(\.bytes) + retired).enumerated() {
                guard let opened = try? slot.open(password: password, repository: repository.id, slot: id) else { continue }
                let isKept = passwords.indices.contains(number)
                var isCurrent = isKept && opened.secrets == ring.secrets
                if isCurrent { isCurrent = try await isWhole(id) }
                found.append(Match(id: id, label: slot.label, password: isKept ? number : nil, isCurrent: isCurrent))
                break
            }
        }
        for (number, password) in passwords.enumerated()
        where !password.isNew && !found.contains(where: { $0.password == number }) {
            throw BackupError(
                .wrongPassword, "password \(number + 1) of those given opens no key slot",
                hint: "Passwords that are new are added afterwards: 'bgbackup key add'.")
        }
        return found
    }

    /// Whether both copies are there: a run that was killed may have left one.
    private func isWhole(_ id: [UInt8]) async throws -> Bool {
        var copies: [[UInt8]?] = []
        for name in KeySlot.names(id.hex) { copies.append(try await repository.existing(name, limit: KeySlot.sizeLimit)) }
        return copies[0] != nil && copies[0] == copies[1]
    }

    private func slotsWithout(_ matches: [Match]) async throws -> [String] {
        let ours = Set(matches.map { $0.id.hex })
        return try await repository.keySlots().filter { !$0.opensAll(ring) && !ours.contains($0.id) }.map(\.id)
    }

    private mutating func addSlots(_ old: [Match]) async throws {
        for (number, password) in passwords.enumerated() {
            let own = old.filter { $0.password == number }
            if own.contains(where: \.isCurrent) { continue }
            let before = own.first ?? (password.isNew ? old.first { $0.password == nil } : nil)
            let label = password.label ?? before?.label ?? ""
            added.append(try await repository.writeSlot(ring, password.bytes, label, by).hex)
        }
    }

    // MARK: - Closing

    /// Closes the pairs before, unless a run is left that may commit a snapshot under one.
    private mutating func close(_ lease: Lease) async throws {
        waitingFor = try await repository.writers(before: generation, givingUp: force).map(\.holder)
        guard waitingFor.isEmpty else { return }
        for generation in 1..<max(generation, 1) {
            // One that a run which was killed wrote counts: what came after it was refused already.
            var closing: PairClosing?
            if try await PairClosings.isThere(repository.store, ring, generation) {
                closing = try await PairClosings.read(repository.store, ring, generation)
            }
            let digests = closing == nil ? try await repository.snapshotDigests(generation) : [:]
            try await lease.confirm()
            try await repository.put(
                closing
                    ?? PairClosing(generation: generation, closed: formatTime(repository.ambient.now()), snapshots: digests),
                ring)
        }
    }
}

extension Repository {
    /// Intents of runs that may be alive and seal for a pair before this one. The others are given up first, as a prune
    /// does it: a host that was suspended finds out when it commits, and its snapshot is not taken for one that counts.
    /// - Parameter all: give up also those that are alive
    func writers(before generation: Int, givingUp all: Bool = false) async throws -> [ListedIntent] {
        // All that an intent says, because another run can add to it.
        try await livingRuns(givingUp: all) { intent in
            intent.mayWrite && (intent.states.isEmpty || !intent.states.allSatisfy { $0?.keyGeneration ?? 1 >= generation })
        }.intents
    }

    /// SHA-256 of the snapshots that are sealed for a key pair, by name. What a closing leaves out is refused for ever:
    /// throws `.storeFailed` where the store lists one and does not give it, `.damaged` where it cannot be told of which
    /// pair one is.
    func snapshotDigests(_ generation: Int) async throws -> [String: String] {
        var digests: [String: String] = [:]
        for name in try await snapshotNames() {
            do {
                let bytes = try await store.get(name.object, .all, limit: Snapshot.bodyLimit).array
                let header = try ObjectHeader(parsing: bytes, expecting: .snapshot, name.id)
                if header.generation == generation { digests[name.object] = PairClosing.digest(bytes) }
            } catch let error as StoreError where error.kind == .notFound {
                // Forgotten meanwhile.
                guard try await snapshotNames().contains(name) else { continue }
                throw Self.contradiction(name.object)
            } catch  where error is FormatError || (error as? StoreError)?.kind == .tooLarge {
                throw BackupError(
                    .damaged, "key pair \(generation) is not closed: whether snapshot \(name.object) is of it cannot be read",
                    hint: "Have it mended ('bgbackup repair --salvage') or forget it, then 'bgbackup key rotate --finish'.",
                    cause: error)
            }
        }
        return digests
    }

    /// Writes both copies, over what somebody else may have put there, and reads both back. Throws `.busy` where another
    /// run is at it.
    /// - Parameter ring: with the pair that took the closed one's place
    func put(_ closing: PairClosing, _ ring: KeyRing) async throws {
        let bytes = try closing.encoded(ring)
        for name in PairClosing.names(closing.generation) {
            let found: VersionedObject?
            var isOversized = false
            do { found = try await store.fetch(name, limit: PairClosing.sizeLimit) } catch let error as StoreError
                where error.kind == .tooLarge
            {
                (found, isOversized) = (nil, true)
            }
            if found?.bytes == bytes { continue }
            do {
                if isShared, !isOversized {
                    try await store.replace(name, bytes, expecting: found?.version)
                } else {
                    try await store.put(name, AlignedBuffer(copying: bytes), ifAbsent: false)
                }
            } catch let error as StoreError where error.kind == .exists || error.kind == .notFound {
                throw ConfigurationCopies.overtaken
            }
            guard try await existing(name, limit: PairClosing.sizeLimit) == bytes else {
                throw BackupError(.storeFailed, "the store gave back another \(name) than was written")
            }
        }
    }
}
