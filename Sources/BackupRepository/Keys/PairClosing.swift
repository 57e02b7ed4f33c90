import BackupBase
import Crypto
import FoundationEssentials
import ObjectStorage

/// The owner's word that no more snapshots come that are sealed for an older key
/// pair, and which ones there were: what turns up later was made with a writer
/// key that should be worthless, and is refused (docs/keys.md).
struct PairClosing: Codable, Sendable {
    var format = 1
    /// Of the closed pair.
    var generation: Int
    /// RFC 3339.
    var closed: String
    /// SHA-256 of each object, hex, by its name: who could make objects then can still make other ones of these names.
    var snapshots: [String: String]

    static let prefix = "v1/pairs/"
    static let sizeLimit = 64 << 20
    /// An entry has some 134 bytes.
    static let mostSnapshots = 450_000

    static func names(_ generation: Int) -> [String] { ["\(prefix)\(generation).a", "\(prefix)\(generation).b"] }

    static func digest(_ object: [UInt8]) -> String { Array(SHA256.hash(data: object)).hex }

    /// Line 1 is JSON, line 2 its MAC under the next pair's private key.
    /// Throws `.failed` for one that no reader would take.
    func encoded(_ ring: KeyRing) throws -> [UInt8] {
        guard snapshots.count <= Self.mostSnapshots else { throw Self.tooLarge(snapshots.count) }
        let encoder = JSONEncoder()
        encoder.outputFormatting = [.sortedKeys, .withoutEscapingSlashes]
        let line = Array(try encoder.encode(self))
        guard let mac = ring.closingMAC(line, generation + 1) else { throw KeyRing.writeOnly }
        let bytes = line + [0x0a] + Array(mac.hex.utf8) + [0x0a]
        guard bytes.count <= Self.sizeLimit else { throw Self.tooLarge(snapshots.count) }
        return bytes
    }

    static func tooLarge(_ count: Int) -> BackupError {
        BackupError(
            .failed, "the \(count) snapshots that are there are more than the closing of a key pair can list",
            hint: "'bgbackup forget' what is not needed, to \(mostSnapshots) or fewer, and run it again.")
    }

    /// Throws `FormatError` for what the owner did not write.
    init(opening bytes: [UInt8], _ ring: KeyRing, generation: Int) throws {
        let lines = bytes.split(separator: 0x0a, maxSplits: 1, omittingEmptySubsequences: false)
        guard lines.count == 2, lines[1].last == 0x0a,
            let mac = bytesFromHex(String(decoding: lines[1].dropLast(), as: UTF8.self)),
            ring.closingMAC(lines[0], generation + 1) == mac
        else { throw FormatError("it was altered") }
        self = try JSONDecoder().decode(PairClosing.self, from: Data(lines[0]))
        guard self.generation == generation, format == 1 else { throw FormatError("it closes another key pair") }
    }

    init(generation: Int, closed: String, snapshots: [String: String]) {
        (self.generation, self.closed, self.snapshots) = (generation, closed, snapshots)
    }
}

/// What the closings say, read once, all of them at the first question; that there is none, once a minute: a process
/// may live longer than a rotation takes.
final class PairClosings: Sendable {
    private struct Known: Sendable {
        var closed: String
        var snapshots: [String: String]
    }
    private let store: any ObjectStore
    private let keys: KeyRing
    private let executor: BlockingExecutor
    private let ambient: Ambient
    private struct Question {
        let answer: Task<Known?, any Error>
        /// Nanoseconds since 1970.
        let asked: Int64
    }
    /// By generation.
    private let known = Locked<[Int: Question]>([:])
    private static let absence: Int64 = 60_000_000_000

    init(store: any ObjectStore, keys: KeyRing, executor: BlockingExecutor, ambient: Ambient) {
        (self.store, self.keys, self.executor, self.ambient) = (store, keys, executor, ambient)
    }

    /// Throws `.damaged` for a snapshot that is sealed for a closed pair and was not there, as it is, when it was closed.
    func require(_ name: SnapshotName, _ object: [UInt8], of generation: Int) async throws {
        guard generation < keys.heldGeneration, let closing = try await closing(generation),
            closing.snapshots[name.object] != PairClosing.digest(object)
        else { return }
        throw BackupError(
            .damaged,
            "snapshot \(name.object) is sealed for key pair \(generation) and was not there, as it is, when that was closed"
                + " (\(closing.closed)): it was made or changed with keys from before the rotation",
            hint: "Nothing is restored from it. 'bgbackup forget \(name.id)' takes it away.")
    }

    private func closing(_ generation: Int) async throws -> Known? {
        while true {
            let now = ambient.now()
            // A list asks for many snapshots at once: they wait for one answer, and the pairs' answers for no other.
            let question = known.withLock { known in
                for pair in Set(1..<keys.heldGeneration).union([generation]) where known[pair] == nil {
                    known[pair] = Question(answer: read(pair), asked: now)
                }
                return known[generation]!
            }
            let result = await question.answer.result
            if case .success(let closing?) = result { return closing }
            // That there is none, or that the store did not answer, is worth nothing to who asks later, also where nobody
            // took the answer when it came.
            let isFresh = (0..<Self.absence).contains(now - question.asked)
            if case .success = result, isFresh { return nil }
            known.withLock { if $0[generation]?.answer == question.answer { $0[generation] = nil } }
            if isFresh { return try result.get() }
        }
    }

    private func read(_ generation: Int) -> Task<Known?, any Error> {
        Task(executorPreference: executor) { [store, keys] in
            try await Self.read(store, keys, generation).map {
                Known(closed: printable($0.closed.utf8.prefix(40)), snapshots: $0.snapshots)
            }
        }
    }

    /// Whether the owner closed the pair, as far as can be read.
    static func isThere(_ store: any ObjectStore, _ keys: KeyRing, _ generation: Int) async throws -> Bool {
        do { return try await read(store, keys, generation) != nil } catch let error as BackupError where error.code == .damaged {
            return false
        }
    }

    /// Whether both copies are the owner's.
    static func isWhole(_ store: any ObjectStore, _ keys: KeyRing, _ generation: Int) async throws -> Bool {
        for name in PairClosing.names(generation) {
            do {
                let bytes = try await store.get(name, .all, limit: PairClosing.sizeLimit).array
                guard (try? PairClosing(opening: bytes, keys, generation: generation)) != nil else { return false }
            } catch let error as StoreError where error.kind == .notFound || error.kind == .tooLarge {
                return false
            }
        }
        return true
    }

    /// The first copy that the owner wrote; nil where there is none at all. Throws `.damaged` where all were altered.
    static func read(_ store: any ObjectStore, _ keys: KeyRing, _ generation: Int) async throws -> PairClosing? {
        var problem: (any Error)?
        let names = PairClosing.names(generation)
        async let first = Result.of { try await store.get(names[0], .all, limit: PairClosing.sizeLimit).array }
        async let second = Result.of { try await store.get(names[1], .all, limit: PairClosing.sizeLimit).array }
        for copy in [await first, await second] {
            do {
                return try PairClosing(opening: try copy.get(), keys, generation: generation)
            } catch let error as StoreError where error.kind == .notFound {
                continue
            } catch let error as StoreError where error.kind != .tooLarge {
                throw error
            } catch is CancellationError {
                throw CancellationError()
            } catch {
                problem = error
            }
        }
        guard let problem else { return nil }
        throw BackupError(
            .damaged,
            "\(store.location)/\(PairClosing.names(generation)[0]), which says what was sealed for key pair \(generation),"
                + " is damaged",
            hint: "Look at 'bgbackup snapshots': 'bgbackup key rotate --finish' closes the pair anew, with those that are there"
                + " now.",
            cause: problem)
    }
}
