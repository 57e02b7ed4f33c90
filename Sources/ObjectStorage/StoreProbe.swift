import BackupBase

/// Finds out what a store really does, whatever it answers: `init` records it.
///
/// A 200 proves nothing about a conditional write, so everything is read back
/// (kopia's `validate-provider` does the same).
public struct StoreProbe: Sendable {
    /// One thing that was tried.
    public struct Result: Sendable, Equatable {
        public let name: String
        public let holds: Bool
        public let detail: String
        /// A repository cannot be kept on a store without it.
        public let isNeeded: Bool
    }

    public private(set) var results: [Result] = []
    /// Nanoseconds that the store's clock is ahead of this machine's.
    public private(set) var clockOffset: Int64 = 0

    private let store: any ObjectStore
    private let ambient: Ambient
    private let folder: String

    /// Clocks further apart are reported: retention and leases count in the store's time.
    private static let clockTolerance: Int64 = 300_000_000_000

    /// Tries everything below `tmp/`, and leaves nothing there where the store lets go.
    /// - Throws: `StoreError` where the store cannot be asked at all
    public static func run(_ store: any ObjectStore, ambient: Ambient = .system) async throws -> StoreProbe {
        var probe = StoreProbe(store, ambient)
        do {
            try await probe.tryAll()
        } catch {
            await probe.clean()
            throw error
        }
        await probe.clean()
        return probe
    }

    private init(_ store: any ObjectStore, _ ambient: Ambient) {
        self.store = store
        self.ambient = ambient
        folder = "tmp/probe-\(ambient.random(8).hex)"
    }

    public var isUsable: Bool { results.allSatisfy { $0.holds || !$0.isNeeded } }

    /// What the configuration records.
    public var record: [String: String] {
        var record = ["probed": formatTime(ambient.now())]
        for result in results { record[result.name] = result.holds ? "yes" : "no" }
        return record
    }

    /// Throws unless a repository can be kept here.
    public func requireUsable() throws {
        guard let failed = results.first(where: { !$0.holds && $0.isNeeded }) else { return }
        throw StoreError(
            .failed, "use", store.location, "\(failed.name): \(failed.detail)",
            hint: "This store cannot hold a repository: 'bgbackup repo probe' shows everything that was tried.")
    }

    // MARK: - What is tried

    private mutating func tryAll() async throws {
        try await tryWholeObjects()
        try await tryRanges()
        try await tryListing()
        try await tryConditionalCreate()
        try await tryConditionalReplace()
        try await tryRemoval()
    }

    private mutating func note(_ name: String, _ holds: Bool, _ detail: String, needed: Bool = true) {
        results.append(Result(name: name, holds: holds, detail: detail, isNeeded: needed))
    }

    private mutating func tryWholeObjects() async throws {
        var wrong: [String] = []
        for size in [0, 4096, 262_145] {
            let bytes = ambient.random(size)
            let name = "\(folder)/size-\(size)"
            try await store.put(name, AlignedBuffer(copying: bytes), ifAbsent: true)
            let back = try await look(name)
            if back != bytes { wrong.append("\(size) bytes come back as \(back.map { "\($0.count) others" } ?? "nothing")") }
            let info = try await store.info(name)
            if info?.size != size {
                wrong.append("the size of \(size) bytes is told as \(info.map { "\($0.size)" } ?? "nothing")")
            }
            if let info { clockOffset = info.modified - ambient.now() }
        }
        note("readBack", wrong.isEmpty, wrong.isEmpty ? "what is written comes back" : wrong.joined(separator: "; "))
        let offset = formatDuration(abs(Double(clockOffset) / 1e9))
        note(
            "clock", abs(clockOffset) <= Self.clockTolerance,
            abs(clockOffset) <= Self.clockTolerance ? "clocks agree" : "the store's clock is \(offset) off this machine's",
            needed: false)
        let missing = try await look("\(folder)/missing")
        let info = try await store.info("\(folder)/missing")
        note(
            "absence", missing == nil && info == nil,
            "what was never written \(missing == nil && info == nil ? "is not there" : "is there")")
    }

    private mutating func tryRanges() async throws {
        let bytes = ambient.random(100_000)
        let name = "\(folder)/ranges"
        try await store.put(name, AlignedBuffer(copying: bytes), ifAbsent: true)
        let wanted: [(ByteRange, [UInt8])] = [
            (.from(0, count: 64), Array(bytes[..<64])), (.from(1000, count: 4097), Array(bytes[1000..<5097])),
            (.last(777), Array(bytes.suffix(777))), (.last(1 << 20), bytes),
            (.from(99_999, count: 500), Array(bytes[99_999...])),
        ]
        var wrong: [String] = []
        for (range, expected) in wanted {
            do {
                let got = try await store.get(name, range, limit: 1 << 20)
                if got.array != expected || got.objectSize != bytes.count { wrong.append("\(range)") }
            } catch let error as StoreError where [.failed, .tooLarge, .notFound].contains(error.kind) {
                wrong.append("\(range): \(error.detail)")
            }
        }
        note("ranges", wrong.isEmpty, wrong.isEmpty ? "parts of objects can be read" : "wrong: \(wrong.joined(separator: "; "))")
    }

    private mutating func tryListing() async throws {
        let names = (0..<5).map { "\(folder)/list/\($0)" }
        for name in names { try await store.put(name, AlignedBuffer(copying: ambient.random(10)), ifAbsent: true) }
        var listed = try await store.list("\(folder)/list/")
        let complete = listed.map(\.name) == names && listed.allSatisfy { $0.size == 10 }
        try await store.delete(names[2])
        listed = try await store.list("\(folder)/list/")
        let current = !listed.contains { $0.name == names[2] } && listed.count == 4
        note(
            "listing", complete && current,
            complete && current
                ? "lists are complete at once"
                : complete ? "a removed object stays listed" : "new objects are missing from the list")
    }

    private mutating func tryConditionalCreate() async throws {
        let name = "\(folder)/create"
        let first = ambient.random(512)
        try await store.put(name, AlignedBuffer(copying: first), ifAbsent: true)
        let refused = try await refuses(name, ambient.random(512))
        let kept = try await look(name) == first
        let raced = try await race()
        let known = try await knowsConditions()
        let holds = refused && kept && raced && known
        let detail =
            holds
            ? "one of several writers wins"
            : !known
                ? "it knows no conditions"
                : !kept
                    ? "an object was overwritten" : !refused ? "overwriting is not refused" : "several writers at once succeed"
        note("conditionalCreate", holds, detail, needed: false)
    }

    /// Whether conditions are the store's: `put` looks for itself where the store
    /// has none, and against a writer of the same moment that is chance.
    private func knowsConditions() async throws -> Bool {
        do {
            try await store.replace("\(folder)/condition", ambient.random(64), expecting: nil)
            return true
        } catch let error as StoreError {
            return error.kind != .unsupported
        }
    }

    private func refuses(_ name: String, _ bytes: [UInt8]) async throws -> Bool {
        do {
            try await store.put(name, AlignedBuffer(copying: bytes), ifAbsent: true)
            return false
        } catch let error as StoreError where error.kind == .exists {
            return true
        }
    }

    /// Four writers of one name at once: exactly one may win, and its bytes stay.
    private func race() async throws -> Bool {
        let name = "\(folder)/race"
        let bodies = (0..<4).map { _ in ambient.random(2048) }
        let winners = try await withThrowingTaskGroup(of: Int?.self) { group in
            for (index, body) in bodies.enumerated() {
                group.addTask { try await refuses(name, body) ? nil : index }
            }
            return try await group.reduce(into: [Int]()) { if let index = $1 { $0.append(index) } }
        }
        let left = try await look(name)
        return winners.count == 1 && left == bodies[winners[0]]
    }

    private mutating func tryConditionalReplace() async throws {
        let name = "\(folder)/replace"
        let (first, second, third) = (ambient.random(64), ambient.random(64), ambient.random(64))
        var holds = false
        var detail = "an object is replaced only by who saw its last state"
        do {
            let one = try await store.replace(name, first, expecting: nil)
            let again = try await isRefused(name, second, nil)
            let two = try await store.replace(name, second, expecting: one)
            let fresh = try await store.fetch(name, limit: 1024)?.bytes == second
            let stale = try await isRefused(name, third, one)
            let kept = try await store.fetch(name, limit: 1024)
            holds = again && fresh && stale && kept?.bytes == second && kept?.version == two
            if !holds {
                detail = !fresh ? "an old state is read after a new one was written" : "a stale replacement is not refused"
            }
        } catch let error as StoreError where [.exists, .unsupported, .failed, .notFound].contains(error.kind) {
            detail = "a rightful replacement fails: \(error.detail.isEmpty ? error.kind.rawValue : error.detail)"
        }
        note("conditionalReplace", holds, detail, needed: false)
    }

    private func isRefused(_ name: String, _ bytes: [UInt8], _ version: String?) async throws -> Bool {
        do {
            try await store.replace(name, bytes, expecting: version)
            return false
        } catch let error as StoreError where error.kind == .exists {
            return true
        }
    }

    private mutating func tryRemoval() async throws {
        let name = "\(folder)/size-4096"
        try await store.delete(name)
        let gone = try await look(name) == nil
        try await store.delete(name)
        let names = ["\(folder)/list/0", "\(folder)/list/1"]
        try await store.delete(all: names)
        var left = 0
        for name in names where try await store.info(name) != nil { left += 1 }
        note("removal", gone && left == 0, gone && left == 0 ? "removed objects are gone" : "removed objects can still be read")
    }

    private func look(_ name: String) async throws -> [UInt8]? {
        do {
            return try await store.get(name, .all, limit: 2 << 20).array
        } catch let error as StoreError where error.kind == .notFound {
            return nil
        }
    }

    private func clean() async {
        for info in (try? await store.list("\(folder)/")) ?? [] { try? await store.delete(info.name) }
    }
}
