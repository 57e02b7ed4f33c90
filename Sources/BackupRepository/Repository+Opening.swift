import BackupBase
import Crypto
import FoundationEssentials
import Glibc
import ObjectStorage

/// Making a repository, and opening one with a password or a writer key.
extension Repository {
    /// Creates configuration and first key slot.
    /// - Parameter probe: what was found out about the store.
    public static func create(
        store: any ObjectStore, password: [UInt8], label: String, probe: [String: String],
        executor: BlockingExecutor, ambient: Ambient = .system, identity: WriterIdentity? = nil
    ) async throws -> Repository {
        guard probe["conditionalReplace"] != "no" else {
            let lock = try WriterLock(identity)
            defer { lock?.release() }
            return try await createAlone(store, password, label, probe, executor, ambient, identity) {}
        }
        // Two at once would take each other's keys for leftovers.
        return try await withLease("init", on: store, holder: "an init, process \(getpid())", ambient: ambient) { lease in
            try await createAlone(store, password, label, probe, executor, ambient, identity) { try await lease.confirm() }
        }
    }

    /// - Parameter confirm: called before each step that could harm another init
    static func createAlone(
        _ store: any ObjectStore, _ password: [UInt8], _ label: String, _ probe: [String: String],
        _ executor: BlockingExecutor, _ ambient: Ambient, _ identity: WriterIdentity?, confirm: () async throws -> Void
    ) async throws -> Repository {
        try await requireNone(store)
        let id = ObjectID.random(ambient)
        let ring = KeyRing.generate(repository: id)
        let configuration = Configuration(
            repository: "\(id)", created: formatTime(ambient.now()),
            publicKey: Array(ring.publicKey.rawRepresentation).hex, probe: probe)
        let repository = Repository(
            store: store, keys: ring, configuration: configuration, executor: executor, ambient: ambient,
            identity: identity)
        // Before anything goes: who is refused here must not have taken another node's keys away.
        try await repository.requireClaim()
        try await requireNone(store)
        // Without a configuration there is no repository: what an init that was
        // killed left of its keys opens nothing.
        for info in try await store.list(slotPrefix) {
            try await confirm()
            do {
                try await store.delete(info.name)
            } catch let error as StoreError where error.kind == .locked {
                // It opens nothing of this repository: it may as well stay.
            }
        }
        // Keys first: a configuration without a key slot would be a repository nobody can open.
        _ = try await repository.addKeySlot(password: password, label: label)
        let bytes = AlignedBuffer(copying: try configuration.encoded(ring))
        for name in Configuration.names {
            // Who took over meanwhile took these keys away.
            try await confirm()
            try await store.put(name, bytes, ifAbsent: true)
        }
        try await repository.requireLocks()
        return repository
    }

    private static func requireNone(_ store: any ObjectStore) async throws {
        for name in Configuration.names where try await store.info(name) != nil {
            throw BackupError(
                .repositoryExists, "there is a repository at \(store.location) already",
                hint: "Use another place, or back up into this one with its password.")
        }
    }

    /// A store may accept a lock and keep none: look at what was just written.
    private func requireLocks() async throws {
        guard let duration = store.lockDuration else { return }
        for info in [Configuration.names[0], Configuration.names[1]] {
            let day: Int64 = 86_400_000_000_000
            guard let until = try await store.info(info)?.lockedUntil, until > ambient.now() + duration - day else {
                throw BackupError(
                    .storeFailed, "the store at \(store.location) accepts object locks and keeps none",
                    hint: "Make the bucket with Object Lock enabled, or leave lock and lock-for out of the URL.")
            }
        }
    }

    /// Opens with a password. Throws `.noRepository`, `.wrongPassword`, `.damaged`.
    public static func open(
        store: any ObjectStore, password: [UInt8], executor: BlockingExecutor, ambient: Ambient = .system,
        identity: WriterIdentity? = nil
    ) async throws -> Repository {
        let candidates = try await configurations(store)
        var problems: [String] = []
        for candidate in candidates {
            let (ring, found) = try await unlock(store, password, repository: candidate.id)
            problems += found
            guard let ring else { continue }
            guard candidate.isGenuine(ring) else {
                problems.append("the configuration was altered")
                continue
            }
            return Repository(
                store: store, keys: ring, configuration: candidate.configuration, executor: executor, ambient: ambient,
                identity: identity)
        }
        if problems.isEmpty {
            throw BackupError(
                .wrongPassword, "no key slot of \(store.location) opens with this password",
                hint: "Check --password-file or BGBACKUP_PASSWORD_FILE: is it this repository's?")
        }
        throw BackupError(.damaged, "the repository cannot be opened: \(Set(problems).sorted().joined(separator: "; "))")
    }

    /// Opens with a writer's ring, for backups.
    public static func open(
        store: any ObjectStore, writer ring: KeyRing, executor: BlockingExecutor, ambient: Ambient = .system,
        identity: WriterIdentity? = nil
    ) async throws -> Repository {
        let candidates = try await configurations(store)
        guard candidates.contains(where: { $0.id == ring.repository }) else {
            throw BackupError(
                .wrongPassword, "the writer key belongs to another repository than \(store.location)",
                hint: "Make one here with 'bgbackup key export-writer FILE'.")
        }
        guard let genuine = candidates.first(where: { $0.isGenuine(ring) }) else {
            throw BackupError(.damaged, "the configuration of \(store.location) was altered")
        }
        return Repository(
            store: store, keys: ring, configuration: genuine.configuration, executor: executor, ambient: ambient,
            identity: identity)
    }

    private static func configurations(_ store: any ObjectStore) async throws -> [UnverifiedConfiguration] {
        var found: [UnverifiedConfiguration] = []
        var damage: String?
        async let first = Result.of { try await store.get(Configuration.names[0], .all, limit: Configuration.sizeLimit).array }
        async let second = Result.of { try await store.get(Configuration.names[1], .all, limit: Configuration.sizeLimit).array }
        for (name, result) in zip(Configuration.names, [await first, await second]) {
            do {
                let parsed = try UnverifiedConfiguration(parsing: try result.get())
                guard parsed.configuration.format == 1, parsed.configuration.suite == 1 else {
                    throw BackupError(
                        .unsupportedFormat, "the repository at \(store.location) has format \(parsed.configuration.format)",
                        hint: "Use a newer bgbackup.")
                }
                // Both copies are kept when they differ: one of them was altered.
                if !found.contains(where: { $0.isSame(as: parsed) }) { found.append(parsed) }
            } catch let error as FormatError {
                damage = "\(name): \(error)"
            } catch let error as StoreError where error.kind == .tooLarge {
                damage = "\(error)"
            } catch let error as StoreError where error.kind == .notFound {
                continue
            }
        }
        if !found.isEmpty { return found }
        if let damage { throw BackupError(.damaged, "the repository's configuration is damaged: \(damage)") }
        throw BackupError(
            .noRepository, "there is no repository at \(store.location)",
            hint: "Check --repository, or create one with 'bgbackup init'.")
    }

    // MARK: - Key slots

    private static let slotPrefix = "v1/keys/"

    /// A key slot as listed.
    public struct ListedSlot: Sendable {
        public let id: String
        public let label: String
        public let created: String
    }

    /// Adds a password. Needs the owner's ring.
    public func addKeySlot(password: [UInt8], label: String) async throws -> String {
        let id = ambient.random(8)
        let slot = try KeySlot.make(keys, password: password, slot: id, label: label, ambient: ambient)
        let encoder = JSONEncoder()
        encoder.outputFormatting = [.sortedKeys, .withoutEscapingSlashes]
        let bytes = AlignedBuffer(copying: Array(try encoder.encode(slot)) + [0x0a])
        for copy in ["a", "b"] { try await store.put("\(Self.slotPrefix)\(id.hex).\(copy)", bytes, ifAbsent: true) }
        return id.hex
    }

    public func keySlots() async throws -> [ListedSlot] {
        var listed: [ListedSlot] = []
        for (id, slot) in try await Self.slots(store) where !listed.contains(where: { $0.id == id.hex }) {
            listed.append(ListedSlot(id: id.hex, label: slot.label, created: slot.created))
        }
        return listed
    }

    /// Removes a slot; the last one stays.
    public func removeKeySlot(_ prefix: String) async throws {
        let slots = try await keySlots()
        let matching = slots.filter { $0.id.hasPrefix(prefix) }
        guard matching.count == 1, let slot = matching.first else {
            throw BackupError(.usage, "\(matching.count) key slots match '\(prefix)'", hint: "See 'bgbackup key list'.")
        }
        guard slots.count > 1 else {
            throw BackupError(.usage, "this is the last key slot", hint: "Add another with 'bgbackup key add' first.")
        }
        try await withLease("maintenance") { lease in
            // Another run may have removed the other one meanwhile.
            guard try await keySlots().count > 1 else {
                throw BackupError(.usage, "this is the last key slot", hint: "Add another with 'bgbackup key add' first.")
            }
            for copy in ["a", "b"] {
                try await lease.confirm()
                try await store.delete("\(Self.slotPrefix)\(slot.id).\(copy)")
            }
        }
    }

    private static func slots(
        _ store: any ObjectStore, problem: (String) -> Void = { _ in }
    ) async throws -> [(id: [UInt8], slot: KeySlot)] {
        var found: [(id: [UInt8], slot: KeySlot)] = []
        let names = try await store.list(slotPrefix).map(\.name)
        // At once: with several copies on an object store each is a round trip.
        let contents = try await withThrowingTaskGroup(of: (String, Result<[UInt8], any Error>).self) { group in
            for name in names {
                group.addTask { (name, await Result.of { try await store.get(name, .all, limit: KeySlot.sizeLimit).array }) }
            }
            return try await group.reduce(into: [:]) { $0[$1.0] = $1.1 }
        }
        for name in names {
            let parts = name.dropFirst(slotPrefix.count).split(separator: ".")
            guard parts.count == 2, let id = bytesFromHex(parts[0]), id.count == 8, let content = contents[name] else { continue }
            do {
                let slot = try JSONDecoder().decode(KeySlot.self, from: Data(try content.get()))
                // Copies that differ are both tried: one of them was altered.
                if !found.contains(where: { $0.id == id && $0.slot == slot }) { found.append((id, slot)) }
            } catch let error as StoreError where error.kind != .tooLarge {
                throw error
            } catch is CancellationError {
                throw CancellationError()
            } catch {
                problem("key slot \(name) is damaged")
            }
        }
        return found
    }

    private static func unlock(
        _ store: any ObjectStore, _ password: [UInt8], repository: ObjectID
    ) async throws -> (KeyRing?, problems: [String]) {
        var problems: [String] = []
        let slots = try await slots(store) { problems.append($0) }
        if slots.isEmpty { problems.append("it has no readable key slot") }
        for (id, slot) in slots {
            do {
                if let ring = try slot.open(password: password, repository: repository, slot: id) { return (ring, []) }
            } catch let error as FormatError {
                problems.append("key slot \(id.hex): \(error)")
            }
        }
        return (nil, problems)
    }
}

extension Result where Failure == any Error {
    /// What `body` returned or threw.
    static func of(_ body: () async throws -> Success) async -> Self {
        do { return .success(try await body()) } catch { return .failure(error) }
    }
}
