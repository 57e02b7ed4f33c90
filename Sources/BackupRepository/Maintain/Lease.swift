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
    }

    public nonisolated let fence: UInt64
    private let store: any ObjectStore
    private let name: String
    private let ambient: Ambient
    private var state: State
    private var version: String
    private var renewed: Double
    private var isLost = false

    /// Seconds for which a lease holds without being renewed.
    public static let duration = 120.0
    private static let sizeLimit = 16 << 10

    static func objectName(_ purpose: String) -> String { "tmp/lease-\(purpose)" }

    private init(_ store: any ObjectStore, _ name: String, _ state: State, _ version: String, _ ambient: Ambient) {
        self.store = store
        self.name = name
        self.ambient = ambient
        self.state = state
        self.version = version
        fence = state.fence
        renewed = monotonicSeconds()
    }

    /// Takes the lease, or throws `.busy` and says who holds it.
    static func acquire(_ store: any ObjectStore, _ purpose: String, holder: String, ambient: Ambient) async throws -> Lease {
        let name = objectName(purpose)
        let found = try await store.fetch(name, limit: sizeLimit)
        let before = found.flatMap { try? JSONDecoder().decode(State.self, from: Data($0.bytes)) }
        if let found, let before, !before.released {
            let age = Double(found.now - found.modified) / 1e9
            guard age > duration else { throw busy(purpose, before, left: duration - age) }
        }
        let state = State(
            fence: (before?.fence ?? 0) + 1, owner: ambient.random(16).hex, holder: holder, nonce: ambient.random(8).hex)
        do {
            let version = try await store.replace(name, try encoded(state), expecting: found?.version)
            return Lease(store, name, state, version, ambient)
        } catch let error as StoreError where error.kind == .exists {
            throw BackupError(.busy, "another run took the lease for '\(purpose)' at this moment", hint: "Try again later.")
        }
    }

    private static func busy(_ purpose: String, _ state: State, left: Double) -> BackupError {
        BackupError(
            .busy, "the lease for '\(purpose)' is held by \(printable(state.holder.utf8.prefix(200)))",
            hint: "Wait for that run to end; if it was killed, its lease runs out in \(formatDuration(max(1, left))).")
    }

    private static func encoded(_ state: State) throws -> [UInt8] {
        let encoder = JSONEncoder()
        encoder.outputFormatting = [.sortedKeys, .withoutEscapingSlashes]
        return Array(try encoder.encode(state))
    }

    /// Reads the fence again: before each destructive step. Throws `.busy` when
    /// the lease is somebody else's by now.
    public func confirm() async throws {
        guard !isLost, let found = try await store.fetch(name, limit: Self.sizeLimit),
            let now = try? JSONDecoder().decode(State.self, from: Data(found.bytes)),
            now.owner == state.owner, now.fence == state.fence, !now.released
        else { throw lost() }
        version = found.version
        // Written in time, but by now nearly run out: whoever looks takes it.
        if monotonicSeconds() - renewed > Self.duration / 3 { try await renew() }
    }

    /// Writes the lease anew, so that it lasts another `duration`.
    func renew() async throws {
        guard !isLost else { throw lost() }
        var next = state
        next.nonce = ambient.random(8).hex
        let before = monotonicSeconds()
        do {
            version = try await store.replace(name, try Self.encoded(next), expecting: version)
        } catch let error as StoreError where error.kind == .exists || error.kind == .notFound {
            throw lost()
        }
        state = next
        renewed = before
    }

    private func lost() -> BackupError {
        isLost = true
        return BackupError(
            .busy, "the lease was lost: another run took it over while this one stood still",
            hint: "Nothing more was taken away. Run the command again.")
    }

    /// Gives the lease back, if it is still ours. The object stays, for its number.
    func release() async {
        guard !isLost else { return }
        state.released = true
        state.nonce = ambient.random(8).hex
        guard let bytes = try? Self.encoded(state) else { return }
        _ = try? await store.replace(name, bytes, expecting: version)
        isLost = true
    }
}

extension Repository {
    /// Runs `body` with the lease for destructive work, and gives it back.
    public func withLease<Result>(_ purpose: String, _ body: (Lease) async throws -> Result) async throws -> Result {
        try await requireClaim()
        return try await Self.withLease(purpose, on: store, holder: holder, ambient: ambient, body)
    }

    static func withLease<Result>(
        _ purpose: String, on store: any ObjectStore, holder: String, ambient: Ambient,
        _ body: (Lease) async throws -> Result
    ) async throws -> Result {
        let lease = try await Lease.acquire(store, purpose, holder: holder, ambient: ambient)
        let renewing = Task {
            while !Task.isCancelled {
                try await Task.sleep(for: .seconds(Lease.duration / 4))
                try await lease.renew()
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
