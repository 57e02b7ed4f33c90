import BackupBase
import ObjectStorage

/// A store in which each answer is a round trip: those of a round are given once all that belong to it were asked for.
///
/// Who asks for one after the other what could be asked for at once waits for ever (and is told so after a minute), as
/// does who asks for more, or for something else.
final class RoundStore: ObjectStore {
    struct Unexpected: Error, CustomStringConvertible {
        let call: String
        let wanted: [String]
        var description: String { "\(call) was asked for, while \(wanted) was waited for" }
    }

    private struct State {
        var rounds: [Set<String>]
        var waiting: Set<String> = []
        /// Rounds that are over.
        var number = 0
    }

    private let store: MemoryStore
    private let state: Locked<State>

    /// - Parameter rounds: what is asked for in each: `get NAME` or `list PREFIX`
    init(_ store: MemoryStore, rounds: [Set<String>]) {
        self.store = store
        state = Locked(State(rounds: rounds))
    }

    /// Rounds that were not asked for.
    var left: [Set<String>] { state.withLock { $0.rounds } }

    private func take(_ call: String) async throws {
        let number = try state.withLock { state in
            guard let round = state.rounds.first, round.contains(call), state.waiting.insert(call).inserted else {
                throw Unexpected(call: call, wanted: state.rounds.first?.subtracting(state.waiting).sorted() ?? [])
            }
            defer {
                if state.waiting == round {
                    state.rounds.removeFirst()
                    state.waiting = []
                    state.number += 1
                }
            }
            return state.number
        }
        guard await eventually({ state.withLock { $0.number > number } }) else {
            throw Unexpected(call: "nothing more", wanted: state.withLock { $0.rounds[0].subtracting($0.waiting).sorted() })
        }
    }

    // MARK: - ObjectStore

    var location: String { store.location }
    var parallelPuts: Int { store.parallelPuts }

    func get(_ name: String, _ range: ByteRange, limit: Int) async throws -> ObjectBytes {
        try await take("get \(name)")
        return try await store.get(name, range, limit: limit)
    }

    func list(_ prefix: String) async throws -> [ObjectInfo] {
        try await take("list \(prefix)")
        return try await store.list(prefix)
    }

    func info(_ name: String) async throws -> ObjectInfo? {
        try await take("info \(name)")
        return try await store.info(name)
    }

    func fetch(_ name: String, limit: Int) async throws -> VersionedObject? {
        try await take("fetch \(name)")
        return try await store.fetch(name, limit: limit)
    }

    func put(_ name: String, _ content: AlignedBuffer, ifAbsent: Bool) async throws { try await take("put \(name)") }
    func delete(_ name: String) async throws { try await take("delete \(name)") }

    func replace(_ name: String, _ content: [UInt8], expecting version: String?) async throws -> String {
        try await take("replace \(name)")
        return ""
    }
}
