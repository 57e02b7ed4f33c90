import BackupBase
import ObjectStorage

@testable import BackupRepository

/// Objects in memory with a clock that a test sets, which notes every call and
/// fails the one it is told to. Nothing in it waits or runs by itself.
///
/// Several views of one memory are the several processes that use one store:
/// each has its own call log, failures and, with `Turns`, its turn.
final class MemoryStore: ObjectStore {
    struct Call: Sendable, Equatable, CustomStringConvertible {
        var operation: String
        var name: String
        var description: String { "\(operation) \(name)" }

        /// Whether it changes what is stored.
        var changes: Bool { ["put", "replace", "delete", "lock"].contains(operation) }
    }

    enum Moment: String, Sendable, CaseIterable { case before, after }

    /// What is thrown at the call chosen by `fail`.
    struct Stopped: Error {}

    /// What one process is told that is not so: a guard of the protocol, taken away.
    struct Distortion: Sendable {
        /// Lists leave out what begins so.
        var hidden: String?
        /// Lists of this prefix say for ever what the first one said.
        var frozen: String?
        /// What begins so is always there, and was written just now.
        var eternal: String?
    }

    struct Rules: Sendable {
        /// `put` with `ifAbsent` and `replace` do it whatever is there.
        var ignoresConditions = false
        var lockDuration: Int64?
        /// A store that accepts locks and keeps none.
        var dropsLocks = false
        var parallelPuts = 1
        var distortion = Distortion()
        /// Lists come in pieces, between which anything may happen; nil: as of one moment.
        var pieces: Pieces?
    }

    /// How a list is read: as a bucket's, by name, or as a directory's, in an order of its own.
    struct Pieces: Sendable {
        /// Objects of a piece, below `tmp/` and elsewhere.
        var scratch: Int
        var other: Int
        var salt: UInt64?

        func place(_ name: String) -> String {
            guard let salt else { return name }
            let hash = name.utf8.reduce(salt) { ($0 ^ UInt64($1)) &* 0x0000_0100_0000_01b3 }
            return String(repeating: "0", count: hash.leadingZeroBitCount / 4) + String(hash, radix: 16) + name
        }
    }

    private struct Object {
        var bytes: [UInt8]
        var version: Int
        var modified: Int64
        var lockedUntil: Int64?
    }

    private struct Memory {
        var objects: [String: Object] = [:]
        /// What temporary objects held that are gone, for whom they are there for ever.
        var gone: [String: [UInt8]] = [:]
        var counter = 0
        var now: Int64 = 1_800_000_000_000_000_000
    }

    private struct Plan {
        var number: Int
        var moment: Moment
        /// The process is gone: every later call fails too.
        var isDeath: Bool
        var error: any Error & Sendable
    }

    private struct View {
        var calls: [Call] = []
        var plan: Plan?
        var hook: (@Sendable (Call) -> Void)?
        var frozen: [ObjectInfo]?
    }

    let location = "memory"
    let rules: Rules
    private let memory: Locked<Memory>
    private let view = Locked(View())
    private let turns: (turns: any Pace, actor: Int)?

    var parallelPuts: Int { rules.parallelPuts }
    var lockDuration: Int64? { rules.lockDuration }

    init(_ rules: Rules = Rules()) {
        self.rules = rules
        memory = Locked(Memory())
        turns = nil
    }

    private init(_ store: MemoryStore, _ rules: Rules, _ turns: (any Pace, Int)?) {
        self.rules = rules
        memory = store.memory
        self.turns = turns
    }

    /// The same objects for another process.
    func another(_ rules: Rules? = nil, turns: (any Pace)? = nil, actor: Int = 0) -> MemoryStore {
        MemoryStore(self, rules ?? self.rules, turns.map { ($0, actor) })
    }

    /// The same objects at this moment in a memory of their own.
    func copy() -> MemoryStore {
        let copy = MemoryStore(rules)
        let now = memory.withLock { $0 }
        copy.memory.withLock { $0 = now }
        return copy
    }

    // MARK: - What a test does behind the store's back

    var now: Int64 { memory.withLock { $0.now } }
    var names: [String] { memory.withLock { $0.objects.keys.sorted() } }
    func names(_ prefix: String) -> [String] { names.filter { $0.hasPrefix(prefix) } }
    func advance(_ seconds: Double) { memory.withLock { $0.now += Int64(seconds * 1e9) } }
    func bytes(_ name: String) -> [UInt8]? { memory.withLock { $0.objects[name]?.bytes } }
    func lock(of name: String) -> Int64? { memory.withLock { $0.objects[name]?.lockedUntil } }
    func remove(_ name: String) { memory.withLock { $0.objects[name] = nil } }

    /// Sets an object as if some other program had written it now.
    func set(_ name: String, _ bytes: [UInt8], lockedUntil: Int64? = nil) {
        memory.withLock {
            $0.counter += 1
            $0.objects[name] = Object(bytes: bytes, version: $0.counter, modified: $0.now, lockedUntil: lockedUntil)
        }
    }

    func setLock(_ name: String, _ until: Int64?) { memory.withLock { $0.objects[name]?.lockedUntil = until } }

    /// Changes bytes in place, with neither version nor time.
    func damage(_ name: String, _ change: (inout [UInt8]) -> Void) {
        memory.withLock { memory in
            guard var object = memory.objects[name] else { return }
            change(&object.bytes)
            memory.objects[name] = object
        }
    }

    /// A clock that is this far from the store's.
    func ambient(offset seconds: Double = 0, seed: Int = 0) -> Ambient {
        let random = Locked(Seeded(seed))
        let memory = memory
        return Ambient(
            now: { memory.withLock { $0.now } + Int64(seconds * 1e9) },
            random: { count in
                // Longer ones are a probe's test data, and cost it a second.
                if count > 64 { return [UInt8](repeating: random.withLock { $0.bytes(1)[0] }, count: count) }
                return seed == 0 ? Ambient.system.random(count) : random.withLock { $0.bytes(count) }
            })
    }

    // MARK: - Calls of this view

    var calls: [Call] { view.withLock { $0.calls } }

    /// Forgets the calls so far, so that the next one is number 1.
    func restart() {
        view.withLock {
            $0.calls = []
            $0.plan = nil
        }
    }

    /// Fails the n-th call from here on, before or after it did its work.
    func fail(at number: Int, _ moment: Moment, dies: Bool = false, with error: any Error & Sendable = Stopped()) {
        restart()
        view.withLock { $0.plan = Plan(number: number, moment: moment, isDeath: dies, error: error) }
    }

    /// Called with each call before it is done.
    func onCall(_ hook: (@Sendable (Call) -> Void)?) { view.withLock { $0.hook = hook } }

    private func perform<Result>(
        _ operation: String, _ name: String, _ body: (inout Memory) throws -> Result
    ) async throws -> Result {
        let call = Call(operation: operation, name: name)
        if let turns { await turns.turns.arrive(turns.actor, call) }
        try Task.checkCancellation()
        let (failure, hook): (Plan?, (@Sendable (Call) -> Void)?) = view.withLock { view in
            view.calls.append(call)
            let number = view.calls.count
            guard let plan = view.plan else { return (nil, view.hook) }
            if number == plan.number { return (plan, view.hook) }
            guard number > plan.number, plan.isDeath else { return (nil, view.hook) }
            return (Plan(number: number, moment: .before, isDeath: true, error: plan.error), view.hook)
        }
        hook?(call)
        if let failure, failure.moment == .before { throw failure.error }
        let result = Swift.Result { try memory.withLock { try body(&$0) } }
        if let failure { throw failure.error }
        return try result.get()
    }

    // MARK: - ObjectStore

    func put(_ name: String, _ content: AlignedBuffer, ifAbsent: Bool) async throws {
        let bytes = Array(content.bytes)
        try await perform("put", name) { memory in
            if ifAbsent, !rules.ignoresConditions, memory.objects[name] != nil { throw StoreError(.exists, "write", name) }
            write(name, bytes, &memory)
        }
    }

    private func write(_ name: String, _ bytes: [UInt8], _ memory: inout Memory) {
        memory.counter += 1
        let isLocked = name.hasPrefix("v1/") && !name.hasPrefix("v1/notes/") && !rules.dropsLocks
        memory.objects[name] = Object(
            bytes: bytes, version: memory.counter, modified: memory.now,
            lockedUntil: isLocked ? rules.lockDuration.map { memory.now + $0 } : nil)
    }

    func get(_ name: String, _ range: ByteRange, limit: Int) async throws -> ObjectBytes {
        try await perform("get", name) { memory in
            guard let bytes = memory.objects[name]?.bytes else { throw StoreError(.notFound, "read", name) }
            let part: [UInt8]
            switch range {
            case .all: part = bytes
            case .from(let offset, let count): part = Array(bytes.dropFirst(offset).prefix(count))
            case .last(let count): part = bytes.suffix(count)
            }
            guard part.count <= limit else { throw StoreError(.tooLarge, "read", name) }
            return ObjectBytes(AlignedBuffer(copying: part), count: part.count, objectSize: bytes.count)
        }
    }

    private func isEternal(_ name: String) -> Bool { rules.distortion.eternal.map { name.hasPrefix($0) } ?? false }

    func info(_ name: String) async throws -> ObjectInfo? {
        try await perform("info", name) { memory in
            if isEternal(name) { return ObjectInfo(name: name, size: 1, modified: memory.now) }
            return memory.objects[name].map {
                ObjectInfo(name: name, size: $0.bytes.count, modified: $0.modified, lockedUntil: $0.lockedUntil)
            }
        }
    }

    func list(_ prefix: String) async throws -> [ObjectInfo] {
        var listed: [ObjectInfo] = []
        var last: String?
        let size = rules.pieces.map { prefix.hasPrefix("tmp/") ? $0.scratch : $0.other } ?? .max
        repeat {
            let piece = try await perform("list", prefix) { memory in
                let rest = memory.objects.filter { $0.key.hasPrefix(prefix) }.map { name, object in
                    (place: rules.pieces?.place(name) ?? name, name: name, object: object)
                }.filter { piece in last.map { $0 < piece.place } ?? true }.sorted { $0.place < $1.place }
                last = rest.count > size ? rest[size - 1].place : nil
                return rest.prefix(size).map {
                    ObjectInfo(name: $0.name, size: $0.object.bytes.count, modified: $0.object.modified)
                }
            }
            listed += piece
        } while last != nil
        listed.sort { $0.name < $1.name }
        let distortion = rules.distortion
        if let hidden = distortion.hidden { return listed.filter { !$0.name.hasPrefix(hidden) } }
        guard prefix == distortion.frozen else { return listed }
        return view.withLock { view in
            view.frozen = view.frozen ?? listed
            return view.frozen!
        }
    }

    func delete(_ name: String) async throws {
        try await perform("delete", name) { memory in
            if let until = memory.objects[name]?.lockedUntil, until > memory.now { throw StoreError(.locked, "delete", name) }
            if let object = memory.objects.removeValue(forKey: name), name.hasPrefix("tmp/") { memory.gone[name] = object.bytes }
        }
    }

    func fetch(_ name: String, limit: Int) async throws -> VersionedObject? {
        try await perform("fetch", name) { memory in
            if isEternal(name) {
                let bytes = memory.objects[name]?.bytes ?? memory.gone[name] ?? []
                return VersionedObject(bytes: bytes, version: "", modified: memory.now, now: memory.now)
            }
            guard let object = memory.objects[name] else { return nil }
            guard object.bytes.count <= limit else { throw StoreError(.tooLarge, "read", name) }
            return VersionedObject(
                bytes: object.bytes, version: "\(object.version)", modified: object.modified, now: memory.now)
        }
    }

    @discardableResult
    func replace(_ name: String, _ content: [UInt8], expecting version: String?) async throws -> String {
        try await perform("replace", name) { memory in
            if !rules.ignoresConditions, memory.objects[name].map({ "\($0.version)" }) != version {
                throw StoreError(.exists, "replace", name)
            }
            write(name, content, &memory)
            return "\(memory.counter)"
        }
    }

    func extendLock(_ name: String, until: Int64) async throws {
        try await perform("lock", name) { memory in
            guard memory.objects[name] != nil else { throw StoreError(.notFound, "lock", name) }
            // As given: that nothing is shortened is for the caller to see to.
            memory.objects[name]!.lockedUntil = until
        }
    }
}
