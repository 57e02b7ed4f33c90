import BackupBase
import FoundationEssentials
import ObjectStorage

/// The configuration's two copies as they are now, to be written anew under the lease for maintenance.
struct ConfigurationCopies {
    /// What the copy says that counts.
    let configuration: Configuration
    /// Copies that say something else than that one, or are not there.
    let others: [String]
    private let repository: Repository
    private let versions: [String: String]
    private let oversized: Set<String>
    private let good: [UInt8]

    /// Throws `.busy` where the key pair was rotated since the repository was opened.
    init(_ repository: Repository) async throws {
        var versions: [String: String] = [:]
        var oversized: Set<String> = []
        var bytes: [String: [UInt8]] = [:]
        for name in Configuration.names {
            do {
                guard let found = try await repository.store.fetch(name, limit: Configuration.sizeLimit) else { continue }
                (versions[name], bytes[name]) = (found.version, found.bytes)
            } catch let error as StoreError where error.kind == .tooLarge {
                // Nothing of this program's: the other copy tells, and it is written over.
                oversized.insert(name)
            }
        }
        let parsed = bytes.compactMapValues { try? UnverifiedConfiguration(parsing: $0) }
        guard
            let counted = try await Repository.counting(Array(parsed.values), for: repository.keys, repository.store),
            counted.generation <= repository.keys.generation
        else { throw Self.overtaken }
        let good = parsed.first { $0.value.isSame(as: counted) }.flatMap { bytes[$0.key] } ?? []
        self.repository = repository
        self.versions = versions
        self.oversized = oversized
        self.good = good
        configuration = counted.configuration
        others = Configuration.names.filter { bytes[$0] != good }
    }

    static let overtaken = BackupError(
        .busy, "another rotation of the key pair was at work", hint: "See 'bgbackup key list', and run it again.")

    /// Writes both copies and reads both back.
    /// - Parameter comparing: whether the store can compare and swap
    func replace(with next: Configuration, _ ring: KeyRing, _ lease: Lease?, comparing: Bool) async throws {
        // The first copy first: who begins looks there (`completeConfiguration`).
        try await write(try next.encoded(ring), to: Configuration.names, lease, comparing)
    }

    /// Makes the other copies the same as the one that counts.
    func repair(_ lease: Lease) async throws { try await write(good, to: others, lease, repository.isShared) }

    private func write(_ bytes: [UInt8], to names: [String], _ lease: Lease?, _ comparing: Bool) async throws {
        let store = repository.store
        for name in names {
            try await lease?.confirm()
            do {
                // A run that stood still must not replace what another one wrote meanwhile.
                if comparing, !oversized.contains(name) {
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
}

extension Repository {
    /// Of the copies of the configuration the one that counts for these keys; nil where all were altered. The newest of
    /// those that the keys vouch for, unless another names a newer key pair: nobody vouches for that, and it may be
    /// damage. But a rotation writes a slot with the pair first, so it counts where there is such a slot.
    static func counting(
        _ copies: [UnverifiedConfiguration], for ring: KeyRing, slots: [KeySlot]
    ) -> UnverifiedConfiguration? {
        let sorted = copies.sorted { $0.generation > $1.generation }
        let genuine = sorted.first { $0.isGenuine(ring) }
        guard let newer = sorted.first(where: { $0.outdates(ring) }) else { return genuine }
        return genuine == nil || slots.contains(where: newer.isNamed) ? newer : genuine
    }

    /// Looks at the slots only where the copies do not agree.
    static func counting(
        _ copies: [UnverifiedConfiguration], for ring: KeyRing, _ store: any ObjectStore
    ) async throws -> UnverifiedConfiguration? {
        let isClear = !copies.contains { $0.outdates(ring) } || !copies.contains { $0.isGenuine(ring) }
        return counting(copies, for: ring, slots: isClear ? [] : try await slots(store).map(\.slot))
    }

    /// The pair that these keys seal for: that of the configuration, unless an old one was put back. What was closed
    /// under the next pair shows that: a rotation closes a pair when the configuration names the next.
    static func sealing(_ ring: KeyRing, _ found: UnverifiedConfiguration, _ store: any ObjectStore) async throws -> KeyRing {
        var generation = min(found.generation, ring.heldGeneration)
        while generation < ring.heldGeneration, try await PairClosings.isThere(store, ring, generation) { generation += 1 }
        return ring.sealing(for: generation)
    }

    /// Throws `.wrongPassword` where the key pair was rotated since the repository was opened, `.busy` where these keys
    /// have the new one. Nothing is sealed for a pair before the configuration names it: where this does not throw, what
    /// could not be read until now is not newer than the keys.
    public func requireUnrotated() async throws { _ = try await unrotatedCopies() }

    /// Writes a second copy of the configuration that an init which was killed
    /// did not come to. Throws as `requireUnrotated` does: a rotation writes
    /// the configuration first, and looks for intents after.
    func completeConfiguration() async throws {
        let copies = try await unrotatedCopies()
        guard let good = copies.compactMap(\.bytes).first else { return }
        for copy in copies where copy.bytes == nil {
            do {
                try await store.put(copy.name, AlignedBuffer(copying: good), ifAbsent: true)
            } catch let error as StoreError where error.kind == .exists || error.kind == .denied {
                // Another run was here; or it is for the keeper to do ('bgbackup repair').
            }
        }
    }

    /// Those of a size that can be; none where nothing that is there counts.
    private func unrotatedCopies() async throws -> [(name: String, bytes: [UInt8]?)] {
        var copies: [(name: String, bytes: [UInt8]?)] = []
        for name in Configuration.names {
            do {
                copies.append((name, try await store.get(name, .all, limit: Configuration.sizeLimit).array))
            } catch let error as StoreError where error.kind == .notFound {
                copies.append((name, nil))
            } catch let error as StoreError where error.kind == .tooLarge {
                continue
            }
        }
        let parsed = copies.compactMap { copy in copy.bytes.flatMap { try? UnverifiedConfiguration(parsing: $0) } }
        guard let found = try await Self.counting(parsed, for: keys, store) else { return [] }
        if found.outdates(keys) { throw keys.outdated(found.configuration) }
        guard found.generation <= keys.generation else {
            throw BackupError(.busy, "the key pair was rotated since this run began", hint: "Run it again.")
        }
        return copies
    }
}
