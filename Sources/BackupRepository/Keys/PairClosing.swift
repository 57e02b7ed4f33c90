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

    static func names(_ generation: Int) -> [String] { ["\(prefix)\(generation).a", "\(prefix)\(generation).b"] }

    static func digest(_ object: [UInt8]) -> String { Array(SHA256.hash(data: object)).hex }

    /// Line 1 is JSON, line 2 its MAC under the next pair's private key.
    func encoded(_ ring: KeyRing) throws -> [UInt8] {
        let encoder = JSONEncoder()
        encoder.outputFormatting = [.sortedKeys, .withoutEscapingSlashes]
        let line = Array(try encoder.encode(self))
        guard let mac = ring.closingMAC(line, generation + 1) else { throw KeyRing.writeOnly }
        return line + [0x0a] + Array(mac.hex.utf8) + [0x0a]
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

/// What the closings say, read once, all of them at the first question.
final class PairClosings: Sendable {
    private struct Known: Sendable {
        var closed: String
        var snapshots: [String: String]
    }
    private let store: any ObjectStore
    private let keys: KeyRing
    private let executor: BlockingExecutor
    /// By generation; nil for a pair that is not closed yet.
    private let known = Locked<[Int: Task<Known?, any Error>]>([:])

    init(store: any ObjectStore, keys: KeyRing, executor: BlockingExecutor) {
        (self.store, self.keys, self.executor) = (store, keys, executor)
    }

    /// Throws `.damaged` for a snapshot that is sealed for a closed pair and was not there, as it is, when it was closed.
    func require(_ name: SnapshotName, _ object: [UInt8], of generation: Int) async throws {
        guard generation < keys.generation, let closing = try await closing(generation),
            closing.snapshots[name.object] != PairClosing.digest(object)
        else { return }
        throw BackupError(
            .damaged,
            "snapshot \(name.object) is sealed for key pair \(generation) and was not there, as it is, when that was closed"
                + " (\(closing.closed)): it was made or changed with keys from before the rotation",
            hint: "Nothing is restored from it. 'bgbackup forget \(name.id)' takes it away.")
    }

    private func closing(_ generation: Int) async throws -> Known? {
        // A list asks for many snapshots at once: they wait for one answer, and the pairs' answers for no other.
        let reading = known.withLock { known in
            for pair in 1..<keys.generation where known[pair] == nil { known[pair] = read(pair) }
            return known[generation]!
        }
        do { return try await reading.value } catch {
            // Whoever asks next may have more luck.
            known.withLock { if $0[generation] == reading { $0[generation] = nil } }
            throw error
        }
    }

    private func read(_ generation: Int) -> Task<Known?, any Error> {
        Task(executorPreference: executor) { [store, keys] in
            try await Self.read(store, keys, generation).map {
                Known(closed: printable($0.closed.utf8.prefix(40)), snapshots: $0.snapshots)
            }
        }
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
            .damaged, "\(PairClosing.names(generation)[0]), which says what was sealed for key pair \(generation), is damaged",
            hint: "Run 'bgbackup check'.", cause: problem)
    }
}
