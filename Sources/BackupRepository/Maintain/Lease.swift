import BackupBase
import FoundationEssentials
import ObjectStorage

/// The right to take things away, held by one run at a time.
///
/// The lease is an object that changes only by compare and swap. Each holder
/// has a fencing number, one more than the last one's; every destructive step
/// reads the object again and goes on only with its own number in it. It runs
/// out by the store's clock alone: what it was written at against what the
/// store says is now, so that no machine's clock can end another's lease.
///
/// What holds: for `margin` seconds of the store's clock after `confirm` spoke
/// to the store nobody else has the lease. A run that stands still for longer
/// between `confirm` and the step itself is not stopped: a store that deletes
/// knows no numbers. The step itself must bear that, by what it may take away.
public actor Lease {
    /// What the object says.
    struct State: Codable, Equatable {
        var format = 1
        var fence: UInt64
        var owner: String
        /// For people: host, process, command.
        var holder: String
        var released = false
        /// Makes each state another version.
        var nonce: String

        /// Nil for what is no lease, or one whose number cannot grow.
        static func read(_ bytes: [UInt8]) -> State? {
            let state = try? JSONDecoder().decode(State.self, from: Data(bytes))
            return state.flatMap { $0.fence < .max ? $0 : nil }
        }

        var bytes: [UInt8] {
            get throws {
                let encoder = JSONEncoder()
                encoder.outputFormatting = [.sortedKeys, .withoutEscapingSlashes]
                return Array(try encoder.encode(self))
            }
        }
    }

    public nonisolated let fence: UInt64
    private let store: any ObjectStore
    private let name: String
    private let ambient: Ambient
    private let state: State
    private var version: String
    private var isLost = false
    /// On a store of this machine: a lock keeps others out, ends with this
    /// process, and leaves nothing that would have to run out.
    private let lock: ProcessLock?

    /// Seconds for which a lease holds without being renewed.
    public static let duration = 120.0
    /// Seconds for which it is safe after `confirm`, which renews what is older than the rest.
    public static let margin = duration * 2 / 3
    private static let sizeLimit = 16 << 10

    static func objectName(_ purpose: String) -> String { "tmp/lease-\(purpose)" }

    private init(
        _ store: any ObjectStore, _ name: String, _ state: State, _ version: String, _ ambient: Ambient,
        lock: ProcessLock? = nil
    ) {
        self.lock = lock
        self.store = store
        self.name = name
        self.ambient = ambient
        self.state = state
        self.version = version
        fence = state.fence
    }

    /// Takes the lease, or throws `.busy` and says who holds it.
    static func acquire(_ store: any ObjectStore, _ purpose: String, holder: String, ambient: Ambient) async throws -> Lease {
        let name = objectName(purpose)
        if let lock = try processLock(store, purpose) {
            let state = State(fence: 0, owner: "", holder: holder, nonce: "")
            return Lease(store, name, state, "", ambient, lock: lock)
        }
        let found = try await look(store, name)
        // What cannot be read may have been somebody's a moment ago: it runs out like any other.
        let before = found.flatMap { State.read($0.bytes) }
        if let found, before?.released != true {
            let age = Double(found.now - found.modified) / 1e9
            guard age > duration else { throw busy(purpose, before, left: duration - age) }
        }
        let state = State(
            fence: (before?.fence ?? 0) + 1, owner: ambient.random(16).hex, holder: holder, nonce: ambient.random(8).hex)
        let bytes = try state.bytes
        do {
            let version = try await store.replace(name, bytes, expecting: found?.version)
            return Lease(store, name, state, version, ambient)
        } catch let error as StoreError where error.kind == .exists {
            throw BackupError(.busy, "another run took the lease for '\(purpose)' at this moment", hint: "Try again later.")
        } catch {
            // Only the answer may be lost: then the lease is ours, and nobody else's for a while.
            let now = await Task { try? await store.fetch(name, limit: sizeLimit) }.value
            guard let now, now.bytes == bytes else { throw error }
            let lease = Lease(store, name, state, now.version, ambient)
            guard !Task.isCancelled else {
                await Task { await lease.release() }.value
                throw error
            }
            return lease
        }
    }

    /// The object. What is larger than a lease is none, and goes.
    private static func look(_ store: any ObjectStore, _ name: String) async throws -> VersionedObject? {
        do {
            return try await store.fetch(name, limit: sizeLimit)
        } catch let error as StoreError where error.kind == .tooLarge {
            try await store.delete(name)
            return nil
        }
    }

    private static func processLock(_ store: any ObjectStore, _ purpose: String) throws -> ProcessLock? {
        do {
            return try store.processLock(purpose)
        } catch let error as StoreError where error.kind == .exists {
            throw BackupError(
                .busy, "another process holds the lock for '\(purpose)' of \(store.location)",
                hint: "Wait for it to end; the lock is gone when its process is.")
        }
    }

    private static func busy(_ purpose: String, _ state: State?, left: Double) -> BackupError {
        let holder = state.map { "held by \(printable($0.holder.utf8.prefix(200)))" } ?? "not readable"
        return BackupError(
            .busy, "the lease for '\(purpose)' is \(holder)",
            hint: "Wait for that run to end; if it was killed, its lease runs out in \(formatDuration(max(1, left))).")
    }

    private func isOurs(_ found: VersionedObject?) -> Bool {
        guard let now = found.flatMap({ State.read($0.bytes) }) else { return false }
        return now.owner == state.owner && now.fence == state.fence && !now.released
    }

    /// Reads the fence again: before each destructive step. Throws `.busy` when
    /// the lease is somebody else's by now.
    public func confirm() async throws {
        guard lock == nil else { return }
        guard !isLost, let found = try await find() else { throw lost() }
        version = found.version
        // Written in time, but by now nearly run out: whoever looks takes it.
        if Double(found.now - found.modified) / 1e9 > Self.duration - Self.margin { try await renew() }
    }

    /// The object, while it is ours.
    private func find() async throws -> VersionedObject? {
        do {
            let found = try await store.fetch(name, limit: Self.sizeLimit)
            return isOurs(found) ? found : nil
        } catch let error as StoreError where error.kind == .tooLarge {
            return nil
        }
    }

    /// Writes the lease anew, so that it lasts another `duration`.
    func renew() async throws {
        if lock == nil { try await write(released: false) }
    }

    private func write(released: Bool) async throws {
        guard !isLost else { throw lost() }
        var next = state
        next.released = released
        for _ in 0..<4 {
            next.nonce = ambient.random(8).hex
            do {
                version = try await store.replace(name, try next.bytes, expecting: version)
                return
            } catch let error as StoreError where error.kind == .exists || error.kind == .notFound {
                // In the way may be our own write: of the same moment, or one whose answer was lost.
                guard let found = try await find() else { throw lost() }
                version = found.version
            }
        }
        throw StoreError(.failed, "renew", name, "it changes all the time")
    }

    private func lost() -> BackupError {
        isLost = true
        return BackupError(
            .busy, "the lease was lost: another run took it over while this one stood still",
            hint: "Nothing more was taken away. Run the command again.")
    }

    /// Gives the lease back, if it is still ours. The object stays, for its number.
    func release() async {
        if let lock { return lock.release() }
        guard !isLost else { return }
        try? await write(released: true)
        isLost = true
    }
}

extension Repository {
    /// Runs `body` with the lease for destructive work, and gives it back.
    public func withLease<Result>(_ purpose: String, _ body: (Lease) async throws -> Result) async throws -> Result {
        try requireCurrent()
        try await requireClaim()
        let lock = isShared ? nil : try WriterLock(identity)
        defer { lock?.release() }
        return try await Self.withLease(purpose, on: store, holder: holder, ambient: ambient, body)
    }

    /// - Parameter pause: seconds between renewals
    static func withLease<Result>(
        _ purpose: String, on store: any ObjectStore, holder: String, ambient: Ambient, pause: Double = Lease.duration / 4,
        _ body: (Lease) async throws -> Result
    ) async throws -> Result {
        let lease = try await Lease.acquire(store, purpose, holder: holder, ambient: ambient)
        let renewing = Task {
            while !Task.isCancelled {
                try await Task.sleep(for: .seconds(pause))
                // A store that fails may answer the next time; a lease that is lost is lost.
                do { try await lease.renew() } catch is StoreError {}
            }
        }
        // Also when this run was cancelled: a lease that is left delays the next run.
        func end() async {
            renewing.cancel()
            _ = await renewing.result
            await Task { await lease.release() }.value
        }
        do {
            let result = try await body(lease)
            await end()
            return result
        } catch {
            await end()
            throw error
        }
    }
}
