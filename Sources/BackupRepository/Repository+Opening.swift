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
        store: any ObjectStore, password: [UInt8], label: String, by: String? = nil, probe: [String: String],
        executor: BlockingExecutor, ambient: Ambient = .system, identity: WriterIdentity? = nil
    ) async throws -> Repository {
        guard probe["conditionalReplace"] != "no" else {
            let lock = try WriterLock(identity)
            defer { lock?.release() }
            return try await createAlone(store, password, label, by, probe, executor, ambient, identity) {}
        }
        // Two at once would take each other's keys for leftovers.
        return try await withLease("init", on: store, holder: "an init, process \(getpid())", ambient: ambient) { lease in
            try await createAlone(store, password, label, by, probe, executor, ambient, identity) {
                try await lease.confirm()
            }
        }
    }

    /// - Parameter confirm: called before each step that could harm another init
    static func createAlone(
        _ store: any ObjectStore, _ password: [UInt8], _ label: String, _ by: String?, _ probe: [String: String],
        _ executor: BlockingExecutor, _ ambient: Ambient, _ identity: WriterIdentity?, confirm: () async throws -> Void
    ) async throws -> Repository {
        try await requireNone(store)
        let id = ObjectID.random(ambient)
        let ring = KeyRing.generate(repository: id)
        let configuration = Configuration(
            repository: "\(id)", created: formatTime(ambient.now()),
            publicKey: ring.publicKeyText, probe: probe)
        let repository = Repository(
            store: store, keys: ring, configuration: configuration, executor: executor, ambient: ambient,
            identity: identity)
        // Before anything goes: who is refused here must not have taken another node's keys away.
        try await repository.requireClaim()
        try await requireNone(store)
        // Without a configuration there is no repository: what an init that was
        // killed left of its keys opens nothing.
        for info in try await store.list(KeySlot.prefix) {
            try await confirm()
            do {
                try await store.delete(info.name)
            } catch let error as StoreError where error.kind == .locked {
                // It opens nothing of this repository: it may as well stay.
            }
        }
        // Keys first: a configuration without a key slot would be a repository nobody can open.
        _ = try await repository.writeSlot(ring, password, label, by, opening: false)
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

    /// Opens with a password. Keys from before a rotation come back too: they read what is older, and write nothing.
    /// Throws `.noRepository`, `.wrongPassword`, `.damaged`.
    /// - Parameter cache: of this node, which remembers which slot a password opens; nil tries them in any order
    public static func open(
        store: any ObjectStore, password: [UInt8], executor: BlockingExecutor, ambient: Ambient = .system,
        identity: WriterIdentity? = nil, cache: String? = nil
    ) async throws -> Repository {
        // Side by side with the configuration: each is a round trip, and none needs the other.
        async let reading = readSlots(store)
        let candidates = try await configurations(store)
        var opened = try unlock(store, candidates, try await reading, password, cache)
        // Slots that were listed just before the rotation that the configuration is of.
        if opened.found.outdates(opened.ring) {
            opened = try unlock(store, candidates, try await readSlots(store), password, cache)
        }
        return Repository(
            store: store, keys: try await sealing(opened.ring, opened.found, store),
            configuration: opened.found.configuration, executor: executor, ambient: ambient, identity: identity,
            slot: opened.slot.hex)
    }

    /// The same, and what lists start with, which needs no key: it is asked for meanwhile.
    public static func openWithListing(
        store: any ObjectStore, password: [UInt8], executor: BlockingExecutor, ambient: Ambient = .system,
        identity: WriterIdentity? = nil, cache: String? = nil
    ) async throws -> (Repository, SnapshotListing) {
        async let listing = SnapshotListing(store)
        let repository = try await open(
            store: store, password: password, executor: executor, ambient: ambient, identity: identity, cache: cache)
        return (repository, try await listing)
    }

    private static func unlock(
        _ store: any ObjectStore, _ candidates: [UnverifiedConfiguration],
        _ read: (found: [(id: [UInt8], slot: KeySlot)], problems: [String]), _ password: [UInt8], _ cache: String?
    ) throws -> Unlocked {
        var problems = read.problems
        if read.found.isEmpty { problems.append("it has no readable key slot") }
        for id in Set(candidates.map(\.id)).sorted() {
            let memory = read.found.count > 1 ? SlotMemory(cache, id) : nil
            let opened = unlock(
                read.found, password, candidates.filter { $0.id == id }, likely: memory?.slot, problem: { problems.append($0) })
            guard let opened else { continue }
            memory?.keep(opened.slot)
            return opened
        }
        if problems.isEmpty {
            throw BackupError(
                .wrongPassword, "no key slot of \(store.location) opens with this password",
                hint: "Check --password-file or BGBACKUP_PASSWORD_FILE: is it this repository's?")
        }
        throw BackupError(.damaged, "the repository cannot be opened: \(Set(problems).sorted().joined(separator: "; "))")
    }

    /// Opens with a writer's ring, for backups. Throws `.wrongPassword` also for one from before a rotation.
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
        guard let found = try await counting(candidates, for: ring, store) else {
            throw BackupError(.damaged, "the configuration of \(store.location) was altered")
        }
        if found.outdates(ring) { throw ring.outdated(found.configuration) }
        return Repository(
            store: store, keys: ring, configuration: found.configuration, executor: executor, ambient: ambient,
            identity: identity)
    }

    /// Those that can be read, of the newest key pair first.
    static func configurations(_ store: any ObjectStore) async throws -> [UnverifiedConfiguration] {
        var found: [UnverifiedConfiguration] = []
        var damage: String?
        async let first = Result.of { try await store.get(Configuration.names[0], .all, limit: Configuration.sizeLimit).array }
        async let second = Result.of { try await store.get(Configuration.names[1], .all, limit: Configuration.sizeLimit).array }
        for (name, result) in zip(Configuration.names, [await first, await second]) {
            do {
                let parsed = try UnverifiedConfiguration(parsing: try result.get())
                guard parsed.configuration.isKnown else {
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
        if !found.isEmpty { return found.sorted { $0.generation > $1.generation } }
        if let damage { throw BackupError(.damaged, "the repository's configuration is damaged: \(damage)") }
        throw BackupError(
            .noRepository, "there is no repository at \(store.location)",
            hint: "Check --repository, or create one with 'bgbackup init'.")
    }
}

extension Result where Failure == any Error {
    /// What `body` returned or threw.
    static func of(_ body: () async throws -> Success) async -> Self {
        do { return .success(try await body()) } catch { return .failure(error) }
    }
}

/// Which slot the password opened last, in this node's cache: a hint of where to begin, and never more.
private struct SlotMemory {
    private let directory: String

    init?(_ cache: String?, _ repository: ObjectID) {
        guard let cache else { return nil }
        directory = "\(cache)/\(repository)"
    }

    private var path: String { "\(directory)/slot" }

    var slot: [UInt8]? { LocalFile.read(path, limit: 16).flatMap { bytesFromHex(String(decoding: $0, as: UTF8.self)) } }

    func keep(_ slot: [UInt8]) {
        guard slot != self.slot, LocalFile.makeDirectory(directory) else { return }
        _ = LocalFile.replace(path, with: Array(slot.hex.utf8), durably: false)
    }
}
