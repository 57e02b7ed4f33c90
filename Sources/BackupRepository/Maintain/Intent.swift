import BackupBase
import FoundationEssentials
import ObjectStorage

/// What a run says before it trusts in anything that a prune may take away,
/// and again and again while it works (docs/prune.md).
///
/// An object below `tmp/`, put before the run looks at the repository and gone
/// at its end. It is renewed by a successor; then the predecessor goes. That it
/// was there after the successor was written shows that nobody has given the
/// run up for dead: who does that deletes what it sees and then looks again.
/// Plain puts and lists are all it takes, so it works on every store.
actor Intent {
    enum Kind: String, Codable, Sendable { case writer, prune }

    /// What the object says.
    struct State: Codable, Sendable {
        var format = 1
        var kind: Kind
        /// For people: node and process.
        var holder: String
        /// Of the machine since it was started: tells whether a process lock speaks for the run.
        var machine: String
        /// Nanoseconds since 1970 by the store's clock, once it is known: when the run began.
        var started: Int64?
        /// The tombstones that the run knows of, and whose packs it treats as gone.
        var tombstones: [String] = []
        /// Of the key pair that the run seals for; nil of runs from before there were several.
        var keyGeneration: Int?

        var bytes: [UInt8] {
            get throws {
                let encoder = JSONEncoder()
                encoder.outputFormatting = [.sortedKeys, .withoutEscapingSlashes]
                return Array(try encoder.encode(self))
            }
        }
    }

    static let prefix = "tmp/intent-"
    /// Seconds by the store's clock after which a run that did not renew its intent is given up for dead.
    static let life = 3600.0
    /// Seconds between renewals.
    static let renewal = 300.0
    /// Seconds: what is older is renewed before the run relies on it. What relies on it has `life` less this to happen:
    /// 50 minutes; a store takes no request that was signed more than 15 minutes ago.
    static let freshness = 600.0
    static let sizeLimit = 1 << 20

    nonisolated let run: ObjectID
    private let store: any ObjectStore
    private let executor: BlockingExecutor
    private var state: State
    private var number = 0
    private var current = ""
    /// All names that may be there, each with what this run wrote there.
    private var written: [String: [[UInt8]]] = [:]
    private(set) var isLost = false
    private var stays = false
    private let lock: ProcessLock?

    static func name(_ run: ObjectID, _ number: Int) -> String { "\(prefix)\(run)-\(number)" }
    static func lockPurpose(_ run: ObjectID) -> String { "intent-\(run)" }

    private init(_ repository: Repository, _ kind: Kind) throws {
        run = .random(repository.ambient)
        store = repository.store
        executor = repository.executor
        state = State(kind: kind, holder: repository.holder, machine: Self.machine, keyGeneration: repository.keys.generation)
        lock = try repository.store.processLock(Self.lockPurpose(run))
    }

    /// The id that the kernel gave itself at this start; empty where it tells none.
    static let machine = (LocalFile.readText("/proc/sys/kernel/random/boot_id") ?? "").filter { !$0.isWhitespace }

    static func begin(_ kind: Kind, _ repository: Repository) async throws -> Intent {
        let intent = try Intent(repository, kind)
        do { try await intent.writeFirst() } catch {
            await intent.end()
            throw error
        }
        return intent
    }

    private func writeFirst() async throws {
        current = Self.name(run, 0)
        try await put(current)
    }

    private func put(_ name: String, ifAbsent: Bool = true) async throws {
        let bytes = try state.bytes
        written[name, default: []].append(bytes)
        try await store.put(name, AlignedBuffer(copying: bytes), ifAbsent: ifAbsent)
    }

    // MARK: - One at a time

    private var isTaken = false
    private var waiting: [CheckedContinuation<Void, Never>] = []

    private func enter() async {
        if !isTaken { return isTaken = true }
        await withCheckedContinuation { waiting.append($0) }
    }

    private func leave() {
        if waiting.isEmpty { isTaken = false } else { waiting.removeFirst().resume() }
    }

    // MARK: - While it lasts

    /// Says that the run knows of these tombstones. Before it relies on anything.
    func respect(_ tombstones: [ObjectID]) async throws {
        guard !tombstones.isEmpty else { return }
        await enter()
        defer { leave() }
        state.tombstones = tombstones.map { "\($0)" }
        try await succeed()
        // The first one says so too: others believe what all objects of a run say, so that nobody can speak for it by
        // adding one. Where the run was given up just now the successor is gone, which it finds out by.
        try await put(Self.name(run, 0), ifAbsent: false)
    }

    /// Shows that the run is alive. Throws `.busy` where somebody gave it up.
    func renew() async throws {
        await enter()
        defer { leave() }
        try await succeed()
    }

    private func succeed() async throws {
        guard !isLost else { throw lost() }
        number += 1
        let next = Self.name(run, number)
        try await put(next)
        // Only now: who gave the run up before the successor was there has deleted this one.
        guard let before = try await own(current) else {
            isLost = true
            try? await store.delete(next)
            throw lost()
        }
        if state.started == nil { state.started = before.modified }
        guard try await isThere() else {
            isLost = true
            throw lost()
        }
        let old = current
        current = next
        // The first one stays: an object that is there throughout is in every list, while a list that is read in
        // pieces may miss a name that is about to come as well as one that just went.
        guard old != Self.name(run, 0) else { return }
        do {
            try await store.delete(old)
            written[old] = nil
        } catch is StoreError {
            // The older one says nothing that the newer one does not; it goes at the end.
        }
    }

    /// An object of this run, as long as it says what this run wrote there, now or before (some servers read late): who
    /// can speak for a run by other words has taken it over. Read, not only looked up: a network file system answers
    /// looks from its cache.
    private func own(_ name: String) async throws -> VersionedObject? {
        do {
            guard let found = try await store.fetch(name, limit: Self.sizeLimit), written[name, default: []].contains(found.bytes)
            else {
                return nil
            }
            return found
        } catch let error as StoreError where error.kind == .tooLarge {
            return nil
        }
    }

    /// Whether the first object is there: who gives a run up takes it away.
    private func isThere() async throws -> Bool {
        let first = Self.name(run, 0)
        guard current != first else { return true }
        return try await own(first) != nil
    }

    /// Leaves the intent to run out by itself: a request that was given up may still arrive. Not where the store is on
    /// this machine, whose answer is never outstanding.
    func stay() { stays = lock == nil }

    /// Makes sure that nobody gave the run up, and that nobody will for the next 50 minutes.
    /// Throws `.busy` where it was given up.
    func confirm() async throws {
        await enter()
        defer { leave() }
        // The last word is the store's, on what is there: each step of a renewal may take its time.
        for _ in 0..<4 {
            guard !isLost else { throw lost() }
            guard try await isThere(), let found = try await own(current) else {
                isLost = true
                throw lost()
            }
            // Also where a process lock speaks for the run: another host may not see it.
            if abs(Double(found.now - found.modified)) / 1e9 <= Self.freshness { return }
            try await succeed()
        }
        throw lost()
    }

    private func lost() -> BackupError {
        BackupError(
            .busy, "this run was given up: it stood still for too long, or a rotation of the keys was forced",
            hint: "Nothing was committed. Run it again; what was stored is found where it is still there.")
    }

    /// Renews again and again until it is cancelled.
    nonisolated func renewing(every pause: Double) -> Task<Void, any Error> {
        Task {
            while !Task.isCancelled {
                try await Task.sleep(for: .seconds(pause))
                // A store that fails may answer the next time; a run that was given up learns it when it confirms.
                try? await renew()
            }
        }
    }

    /// Takes the intent away. What cannot go runs out by itself.
    func end() async {
        guard !stays else { return }
        let (store, names, lock, run) = (store, written.keys.sorted(), lock, run)
        // Also where this run was cancelled: an intent that is left delays the next prune.
        await Task(executorPreference: executor) {
            for name in names { try? await store.delete(name) }
            guard let lock else { return }
            lock.release()
            try? await store.delete("tmp/lock-\(Self.lockPurpose(run))")
        }.value
    }
}

extension Repository {
    /// Runs `body` with an intent that is renewed meanwhile and taken away at the end.
    /// - Parameter pause: seconds between renewals; nil leaves them to `body`
    func withIntent<Result>(
        _ kind: Intent.Kind, pause: Double? = Intent.renewal, _ body: (Intent) async throws -> Result
    ) async throws -> Result {
        try requireCurrent()
        let intent = try await Intent.begin(kind, self)
        let renewing = pause.map { intent.renewing(every: $0) }
        func end() async {
            renewing?.cancel()
            _ = await renewing?.result
            await intent.end()
        }
        do {
            let result = try await body(intent)
            await end()
            return result
        } catch {
            await end()
            throw error
        }
    }

    /// The store's clock, by what it writes on an object now: the same clock that intents and tombstones are dated by.
    func storeTime() async throws -> Int64 {
        let name = "tmp/clock-\(ObjectID.random(ambient))"
        try await store.put(name, AlignedBuffer(copying: [0x0a]), ifAbsent: true)
        let info = try await store.info(name)
        try? await store.delete(name)
        guard let info else { throw StoreError(.failed, "read", name, "it is gone as soon as it is written") }
        return info.modified
    }
}

/// An intent as others see it: what all its objects say alike. Any writer can add one to another run's.
struct ListedIntent: Sendable {
    let run: ObjectID
    let names: [String]
    /// When it was renewed last, by the store's clock.
    let modified: Int64
    /// What each of its objects says, the newest first; nil for what cannot be read.
    let states: [Intent.State?]

    /// Whether it may rely on what it found, and whether it may take away.
    var mayWrite: Bool { !states.allSatisfy { $0?.kind == .prune } }
    var mayPrune: Bool { !states.allSatisfy { $0?.kind == .writer } }
    var started: Int64 { min((states.first ?? nil)?.started ?? modified, modified) }
    var holder: String { (states.first ?? nil).map { printable($0.holder.utf8.prefix(200)) } ?? "a run that cannot be read" }

    func knows(_ tombstone: ObjectID) -> Bool {
        let name = "\(tombstone)"
        return !states.isEmpty && states.allSatisfy { $0?.tombstones.contains(name) ?? false }
    }

    /// Whether it says of itself that it runs on this machine since its start.
    var isOfThisMachine: Bool { !Intent.machine.isEmpty && states.allSatisfy { $0?.machine == Intent.machine } }
}

extension Repository {
    /// Runs at once at the most, and objects of one: what a writer can put is bounded before it is read.
    private static let mostRuns = 10_000
    private static let mostObjects = 16

    /// All intents that are there. Throws `.busy` where there are more than any cluster has.
    func intents() async throws -> [ListedIntent] {
        var found: [ListedIntent] = []
        // One that is renewed meanwhile has another name: look again.
        for attempt in 0..<8 {
            var isWhole = true
            found = []
            let listed = try await intentObjects()
            guard listed.count <= Self.mostRuns else {
                throw BackupError(
                    .busy, "\(listed.count) runs say that they are at work at \(store.location)",
                    hint: "Look at who writes below tmp/ there; what is not renewed runs out within an hour.")
            }
            for (run, objects) in listed {
                let newest = objects.sorted { ($0.modified, $0.number) > ($1.modified, $1.number) }
                var states: [Intent.State?] = []
                // An honest run has two or three; what cannot be deleted stays, and then it knows of nothing.
                if newest.count > Self.mostObjects { states.append(nil) }
                for object in newest.prefix(Self.mostObjects) {
                    do {
                        let bytes = try await store.get(object.name, .all, limit: Intent.sizeLimit).array
                        states.append(try? JSONDecoder().decode(Intent.State.self, from: Data(bytes)))
                    } catch let error as StoreError where error.kind == .notFound {
                        isWhole = false
                        states.append(nil)
                    } catch let error as StoreError where error.kind == .tooLarge {
                        states.append(nil)
                    }
                }
                found.append(
                    ListedIntent(run: run, names: objects.map(\.name), modified: newest[0].modified, states: states))
            }
            if isWhole || attempt == 7 { break }
        }
        return found
    }

    private func intentObjects() async throws -> [(ObjectID, [(name: String, number: Int, modified: Int64)])] {
        var byRun: [ObjectID: [(name: String, number: Int, modified: Int64)]] = [:]
        for info in try await store.list("tmp/") where info.name.hasPrefix(Intent.prefix) {
            let parts = info.name.dropFirst(Intent.prefix.count).split(separator: "-")
            guard parts.count == 2, let run = ObjectID(hex: parts[0]), let number = Int(parts[1]) else { continue }
            byRun[run, default: []].append((info.name, number, info.modified))
        }
        return byRun.sorted { $0.key < $1.key }.map { ($0.key, $0.value) }
    }

    /// Whether a run can be given up: its process is gone, or nothing was heard of it for too long.
    /// - Parameter now: the store's clock
    func isDead(_ intent: ListedIntent, now: Int64) throws -> Bool {
        // One that is dated an hour ahead is as little a sign of life: the store's clock was set back, or somebody
        // dated it. Its run, if there is one, finds out.
        let isSilent = abs(Double(now - intent.modified)) / 1e9 > Intent.life
        guard let isLocked = try store.isProcessLocked(Intent.lockPurpose(intent.run)) else { return isSilent }
        // Where its process is there it lives, whatever the clock says. A lock that is free says that it does not only
        // for a process of this machine since it was started.
        return !isLocked && (isSilent || intent.isOfThisMachine)
    }

    /// Takes away lock files of runs that were killed before they put an intent. Only space: errors wait.
    /// - Parameter now: the store's clock
    func sweepIntentLocks(now: Int64) async {
        let prefix = "tmp/lock-\(Intent.lockPurpose(id))".dropLast("\(id)".count)
        for info in (try? await store.list("tmp/")) ?? [] where info.name.hasPrefix(prefix) {
            // One that is a day old and not held is of nobody who begins just now.
            guard info.modified < now - 86_400_000_000_000, let run = ObjectID(hex: info.name.dropFirst(prefix.count)),
                let lock = try? store.processLock(Intent.lockPurpose(run))
            else { continue }
            lock.release()
            try? await store.delete(info.name)
        }
    }

    /// Gives a run up. Its intents have to be looked at again afterwards: it may have renewed them meanwhile.
    func revoke(_ intent: ListedIntent) async throws {
        for name in intent.names { try await store.delete(name) }
        // The lock file only takes room: another prune that looks at it just now takes it away.
        guard let lock = try? store.processLock(Intent.lockPurpose(intent.run)) else { return }
        lock.release()
        try await store.delete("tmp/lock-\(Intent.lockPurpose(intent.run))")
    }
}
