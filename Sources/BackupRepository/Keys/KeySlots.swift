import BackupBase
import FoundationEssentials
import ObjectStorage

/// The passwords of a repository: each has a key slot, in two copies.
extension Repository {
    /// A key slot as listed.
    public struct ListedSlot: Sendable {
        public let id: String
        public let label: String
        /// RFC 3339.
        public let created: String
        /// Who made it, on which host; nil of slots that do not say.
        public let by: String?
        /// `password`.
        public let kind: String
        /// Key pairs that it opens.
        public let generation: Int
        /// Of the newest pair that it opens; nil of slots that do not say.
        public let fingerprint: String?
        /// Whether it opened the repository for this process.
        public let isInUse: Bool
        /// Nanoseconds since 1970 until which the store keeps it; nil where it is not locked.
        public let lockedUntil: Int64?

        /// Whether it says that it holds the pair that these keys seal for, and is not of another rotation.
        func opensAll(_ keys: KeyRing) -> Bool { keys.isKnown(generation, fingerprint) }
    }

    /// Adds a password. Needs the owner's ring, of the newest key pair.
    /// - Parameter by: who adds it, on which host
    /// - Returns: the slot's id, once it was read back and opened
    public func addKeySlot(password: [UInt8], label: String, by: String? = nil) async throws -> String {
        try requireCurrent()
        guard try await Set(Self.slots(store).map(\.id)).count < Self.mostSlots else {
            throw BackupError(
                .usage, "there are \(Self.mostSlots) key slots, which is as many as may be added",
                hint: "Remove what is not needed: 'bgbackup key list', 'bgbackup key remove'.")
        }
        let id = try await writeSlot(keys, password, label, by).hex
        // Only a look: what a rotation took out of use meanwhile must not be said to open everything.
        _ = try await ConfigurationCopies(self)
        return id
    }

    /// Key slots that may be added; what is read may be four times as many, because a rotation writes new ones first.
    static let mostSlots = 64

    /// Writes both copies and reads both back.
    /// - Parameter opening: derive the key once more and open what was read
    func writeSlot(
        _ ring: KeyRing, _ password: [UInt8], _ label: String, _ by: String?, opening: Bool = true
    ) async throws -> [UInt8] {
        let id = ambient.random(8)
        let slot = try KeySlot.make(ring, password: password, slot: id, label: label, by: by, ambient: ambient)
        let encoder = JSONEncoder()
        encoder.outputFormatting = [.sortedKeys, .withoutEscapingSlashes]
        let bytes = Array(try encoder.encode(slot)) + [0x0a]
        let names = KeySlot.names(id.hex)
        for name in names { try await store.put(name, AlignedBuffer(copying: bytes), ifAbsent: true) }
        for name in names {
            let back: [UInt8]
            do { back = try await store.get(name, .all, limit: KeySlot.sizeLimit).array } catch let error as StoreError
                where error.kind == .notFound
            {
                throw BackupError(
                    .busy, "another run that changes keys took the new key slot away again", hint: "See 'bgbackup key list'.")
            }
            guard back == bytes else {
                throw BackupError(.storeFailed, "the store gave back another key slot \(name) than was written")
            }
        }
        guard opening else { return id }
        let back = try JSONDecoder().decode(KeySlot.self, from: Data(bytes))
        guard try back.open(password: password, repository: self.id, slot: id)?.secrets == ring.secrets else {
            throw BackupError(.failed, "the new key slot does not open")
        }
        return id
    }

    public func keySlots() async throws -> [ListedSlot] {
        var listed: [ListedSlot] = []
        let slots = try await Self.slots(store)
        let locks = try await slotLocks()
        for (id, slot) in slots where !listed.contains(where: { $0.id == id.hex }) {
            listed.append(
                ListedSlot(
                    id: id.hex, label: slot.label, created: slot.created, by: slot.by, kind: slot.kind,
                    generation: slot.generation, fingerprint: slot.fingerprint, isInUse: id.hex == self.slot,
                    lockedUntil: locks[id.hex]))
        }
        return listed
    }

    /// A list tells no locks: each copy is asked for.
    private func slotLocks() async throws -> [String: Int64] {
        guard store.lockDuration != nil else { return [:] }
        var locks: [String: Int64] = [:]
        for name in try await store.list(KeySlot.prefix).map(\.name) {
            guard let until = try await store.info(name)?.lockedUntil, until > ambient.now() else { continue }
            let id = String(name.dropFirst(KeySlot.prefix.count).prefix(16))
            locks[id] = max(until, locks[id] ?? until)
        }
        return locks
    }

    /// The slot that a prefix names. Throws `.usage` for none, and for one that must stay.
    /// - Parameter force: also the one in use
    public func removableSlot(_ prefix: String, force: Bool) async throws -> ListedSlot {
        let slots = try await keySlots()
        let matching = slots.filter { $0.id.hasPrefix(prefix) }
        guard matching.count == 1, let slot = matching.first else {
            throw BackupError(.usage, "\(matching.count) key slots match '\(prefix)'", hint: "See 'bgbackup key list'.")
        }
        // One that opens nothing new may go whatever else is there.
        guard !slot.opensAll(keys) || slots.contains(where: { $0.id != slot.id && $0.opensAll(keys) }) else {
            throw BackupError(.usage, "this is the last key slot", hint: "Add another with 'bgbackup key add' first.")
        }
        guard force || !slot.isInUse else {
            throw BackupError(
                .usage, "key slot \(slot.id) is the one that your password opens",
                hint: "'bgbackup key passwd' changes a password. To remove this one all the same, give --force.")
        }
        return slot
    }

    /// Removes a slot; the last one stays. Throws `.immutable` where the store keeps it.
    /// - Returns: the slot's id
    @discardableResult
    public func removeKeySlot(_ prefix: String, force: Bool = false) async throws -> String {
        let slot = try await removableSlot(prefix, force: force)
        try await withKeyLease { lease in
            // Another run may have removed the other one meanwhile.
            _ = try await removableSlot(slot.id, force: force)
            try await delete(slot: slot.id, lease)
        }
        return slot.id
    }

    func delete(slot: String, _ lease: Lease) async throws {
        for name in KeySlot.names(slot) {
            try await lease.confirm()
            do { try await store.delete(name) } catch let error as StoreError where error.kind == .locked {
                let until = try? await store.info(name)?.lockedUntil
                throw BackupError(
                    .immutable, "key slot \(slot) is locked\(until.map { " until \(formatTime($0))" } ?? "")",
                    hint: "Its password opens the repository until then; 'bgbackup key remove \(slot)' afterwards.", cause: error)
            }
        }
    }

    /// The right to change key slots. Throws `.busy` where the key pair was rotated since the repository was opened.
    func withKeyLease<Result>(_ body: (Lease) async throws -> Result) async throws -> Result {
        try await withLease("maintenance") { lease in
            _ = try await ConfigurationCopies(self)
            return try await body(lease)
        }
    }

    /// Changes the password that opened the repository: a slot of the new one is there, and was opened, before all others
    /// go that one of the two opens, also what a change that was killed left.
    /// - Returns: the new slot's id, and those that went. Throws `.immutable` where one is locked; the new one then opens too
    public func changePassword(
        from old: [UInt8], to password: [UInt8], label: String?, by: String?
    ) async throws -> (added: String, removed: [String]) {
        guard keys.canRead else { throw KeyRing.writeOnly }
        return try await withKeyLease { lease in
            var matching: [[UInt8]] = []
            var label = label
            for (id, found) in try await Self.slots(store) where !matching.contains(id) {
                for known in Set([old, password]) {
                    guard (try? found.open(password: known, repository: self.id, slot: id)) ?? nil != nil else { continue }
                    matching.append(id)
                    if known == old { label = label ?? found.label }
                    break
                }
            }
            guard slot == nil || matching.contains(where: { $0.hex == slot }) else {
                throw BackupError(.busy, "key slot \(slot ?? "") was removed meanwhile", hint: "See 'bgbackup key list'.")
            }
            let id = try await writeSlot(keys, password, label ?? "", by)
            var locked: BackupError?
            for slot in matching {
                do { try await delete(slot: slot.hex, lease) } catch let error as BackupError where error.code == .immutable {
                    locked = locked ?? error
                }
            }
            if let locked { throw locked }
            return (id.hex, matching.map(\.hex))
        }
    }

    // MARK: - Reading

    /// Each is a request and a key derivation. Throws `.damaged` where there are more than anybody has.
    static func slotNames(_ store: any ObjectStore) async throws -> [String] {
        let names = try await store.list(KeySlot.prefix).map(\.name)
        guard names.count <= 8 * mostSlots else {
            throw BackupError(
                .damaged,
                "there are \(names.count) objects below \(store.location)/\(KeySlot.prefix), and at most \(8 * mostSlots)"
                    + " are read: somebody put what are no key slots",
                hint: "Look at when they were written, take away those that are not yours with the store's own tools, and"
                    + " take write access from whoever put them.")
        }
        return names
    }

    static func slots(_ store: any ObjectStore) async throws -> [(id: [UInt8], slot: KeySlot)] {
        try await readSlots(store).found
    }

    /// Those that can be read, and what is wrong with the others.
    static func readSlots(
        _ store: any ObjectStore
    ) async throws -> (found: [(id: [UInt8], slot: KeySlot)], problems: [String]) {
        var problems: [String] = []
        var names = try await slotNames(store)
        while true {
            let (found, absent) = try await slots(store, names) { problems.append($0) }
            guard let first = absent.first?.value else { return (found, problems) }
            // Removed meanwhile, by a rotation or 'key remove', which put others first: they are looked for again. A
            // slot that is still listed and not to be had is another matter.
            names = try await slotNames(store)
            guard absent.keys.allSatisfy({ !names.contains($0) }) else { throw first }
        }
    }

    private static func slots(
        _ store: any ObjectStore, _ names: [String], _ problem: (String) -> Void
    ) async throws -> (found: [(id: [UInt8], slot: KeySlot)], absent: [String: StoreError]) {
        var found: [(id: [UInt8], slot: KeySlot)] = []
        var absent: [String: StoreError] = [:]
        // At once: with several copies on an object store each is a round trip.
        let contents = try await withThrowingTaskGroup(of: (String, Result<[UInt8], any Error>).self) { group in
            for name in names {
                group.addTask { (name, await Result.of { try await store.get(name, .all, limit: KeySlot.sizeLimit).array }) }
            }
            return try await group.reduce(into: [:]) { $0[$1.0] = $1.1 }
        }
        for name in names {
            let parts = name.dropFirst(KeySlot.prefix.count).split(separator: ".")
            guard parts.count == 2, let id = bytesFromHex(parts[0]), id.count == 8, let content = contents[name] else { continue }
            do {
                let slot = try JSONDecoder().decode(KeySlot.self, from: Data(try content.get()))
                // Copies that differ are both tried: one of them was altered.
                if !found.contains(where: { $0.id == id && $0.slot == slot }) { found.append((id, slot)) }
            } catch let error as StoreError where error.kind == .notFound {
                absent[name] = error
            } catch let error as StoreError where error.kind != .tooLarge {
                throw error
            } catch is CancellationError {
                throw CancellationError()
            } catch {
                problem("key slot \(name) is damaged")
            }
        }
        return (found, absent)
    }

    struct Unlocked {
        let ring: KeyRing
        let slot: [UInt8]
        /// The configuration that counts for these keys.
        let found: UnverifiedConfiguration
    }

    /// The keys behind a slot that the password opens and a configuration belongs to; those from before a rotation only
    /// where there are no others. Of those that cost the same the likely one first. Cheap slots first, so that one which somebody put there to cost time keeps nobody out.
    static func unlock(
        _ slots: [(id: [UInt8], slot: KeySlot)], _ password: [UInt8], _ copies: [UnverifiedConfiguration],
        likely: [UInt8]? = nil, problem: (String) -> Void
    ) -> Unlocked? {
        var outdated: Unlocked?
        func rank(_ slot: (id: [UInt8], slot: KeySlot)) -> (Double, Int, Int) {
            (slot.slot.expense, -slot.slot.generation, slot.id == likely ? 0 : 1)
        }
        for (id, slot) in slots.sorted(by: { rank($0) < rank($1) }) {
            do {
                guard let ring = try slot.open(password: password, repository: copies[0].id, slot: id) else { continue }
                guard let (ring, found) = counting(copies, for: ring, slots.map(\.slot)) else {
                    problem("the configuration was altered")
                    continue
                }
                let unlocked = Unlocked(ring: ring, slot: id, found: found)
                guard found.outdates(ring) else { return unlocked }
                if ring.heldGeneration > outdated?.ring.heldGeneration ?? 0 { outdated = unlocked }
            } catch {
                problem("key slot \(id.hex): \(error)")
            }
        }
        return outdated
    }

    /// The configuration that counts. A rotation that was stopped may have left a pair in the slot that another rotation
    /// made one of its own for: without it the keys are from before that one.
    private static func counting(
        _ copies: [UnverifiedConfiguration], for ring: KeyRing, _ slots: [KeySlot]
    ) -> (KeyRing, UnverifiedConfiguration)? {
        if let found = counting(copies, for: ring, slots: slots) { return (ring, found) }
        guard ring.heldGeneration > 1 else { return nil }
        let older = ring.upTo(ring.heldGeneration - 1)
        let other = copies.first { copy in
            copy.outdates(older) && copy.configuration.publicKey != ring.publicKeyText
                && slots.contains(where: copy.isNamed)
        }
        return other.map { (older, $0) }
    }
}
