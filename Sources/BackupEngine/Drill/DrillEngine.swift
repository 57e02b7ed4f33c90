import BackupBase
import CLinux
import Glibc
import QdrantStorage

/// One thread with a network of its own, in which nothing is but a loopback:
/// what is started and asked from there can neither reach the cluster that the
/// volume came from, nor be reached.
final class IsolatedRoom: Sendable {
    private let executor = BlockingExecutor(threads: 1)
    private let isShared: Bool

    /// - Parameter shared: leave the machine's network as it is
    init(shared: Bool) { isShared = shared }

    /// Runs `body`, which must not suspend, on the room's thread.
    /// - Throws: `.failed` where it cannot be isolated
    func run<Value: Sendable>(_ body: @escaping @Sendable () throws -> Value) async throws -> Value {
        let isShared = isShared
        let task = Task(executorPreference: executor) {
            // Each time a fresh one: nothing of an earlier engine is left in it.
            if !isShared, bgb_isolate_network() != 0 {
                throw BackupError(
                    .failed, "the engine cannot get a network of its own: \(String(cString: strerror(errno)))",
                    hint: "Run the drill as root. --shared-network starts it on this machine's network instead, from where it "
                        + "could reach other nodes.")
            }
            return try body()
        }
        return try await withTaskCancellationHandler {
            try await task.value
        } onCancel: {
            task.cancel()
        }
    }
}

/// Starts the database on a restored volume and asks it what it holds.
struct DrillEngine: Sendable {
    let command: EngineCommand
    /// Seconds until it has to be ready.
    let patience: Double
    let fingerprint: ServerFingerprint?
    let inspection: VolumeInspection

    struct Result: Sendable {
        let version: ServerVersion
        /// Seconds from the start until it said that it is ready.
        let boot: Double
        /// Seconds from then to the first right answer with data in it; nil where there was none.
        let firstAnswer: Double?
        let compare: Double
        let checks: [ServerCheck]
    }

    /// Blocks; belongs into an isolated room.
    /// - Throws: `.failed` where it does not start or answer
    func prove(storage: String, in directory: String, log: String) throws -> Result {
        let ports = try Self.freePorts()
        let filled = command.filled(["storage": storage, "port": "\(ports.0)", "grpc_port": "\(ports.1)"])
        let begin = monotonicSeconds()
        let process = try EngineProcess(filled, in: directory, log: log)
        defer { process.stop() }
        let address = try QdrantAddress("http://127.0.0.1:\(ports.0)")
        let client = try QdrantClient(address)
        // One that takes the connection and never answers must not outlast the patience by much.
        let version = try wait(for: try QdrantClient(address, timeout: 2), process, until: begin + patience)
        let ready = monotonicSeconds()
        do {
            var first: Double?
            let checks = try checks(client) { if first == nil { first = monotonicSeconds() - ready } }
            return Result(
                version: version, boot: ready - begin, firstAnswer: first, compare: monotonicSeconds() - ready, checks: checks)
        } catch let error as BackupError {
            let found = process.end.map { "\(died($0, process))" } ?? "\(error)"
            return Result(
                version: version, boot: ready - begin, firstAnswer: nil, compare: monotonicSeconds() - ready,
                checks: [ServerCheck("answers", .fail, expected: "an answer to each question", found: found)])
        }
    }

    /// - Parameter right: called when a collection answered right
    private func checks(_ client: QdrantClient, right: () -> Void) throws -> [ServerCheck] {
        let note: (_ collection: String, [ServerCheck]) -> Void = { _, checks in
            // An empty collection answers right without any data.
            let hasPoints = checks.contains { ["points", "points in files"].contains($0.name) && $0.found != "0" }
            if hasPoints, checks.verdict != .fail { right() }
        }
        guard let fingerprint else { return try inspection.checks(against: client, each: note) }
        var checks = try fingerprint.checks(against: client, digest: ServerFingerprint.digest, each: note)
        if !fingerprint.omitted.isEmpty {
            checks.append(
                ServerCheck(
                    "fingerprint", .warn, expected: "of all collections", found: "\(fingerprint.omitted.count) not or not wholly",
                    detail: fingerprint.omitted.prefix(8).joined(separator: ", ")))
        }
        // What it does not tell of, the files do: collections it lacks, and those of which it compares no points here.
        let known = Set(fingerprint.collections.map(\.name))
        let all = Set(inspection.collections.map(\.name))
        let (lacking, partly) = (all.subtracting(known), all.intersection(known).subtracting(fingerprint.compared))
        if !lacking.isEmpty { checks += try inspection.checks(against: client, of: lacking, each: note) }
        if !partly.isEmpty { checks += try inspection.checks(against: client, of: partly, counting: false) }
        return checks
    }

    private func wait(for client: QdrantClient, _ process: EngineProcess, until end: Double) throws -> ServerVersion {
        var last = "nothing"
        while true {
            try Task.checkCancellation()
            if let end = process.end { throw died(end, process) }
            do {
                if try client.isReady() { return try client.version() }
                last = "some shards are not ready"
            } catch let error as BackupError where error.code == .serverUnreachable {
                last = "\(error)"
            }
            guard monotonicSeconds() < end else {
                throw BackupError(
                    .failed, "the engine was not ready within \(formatDuration(patience)): \(last)\(words(process))",
                    hint: "--boot-timeout gives it more time.")
            }
            // Waiting is the work here, and has an end.
            WorkPulse.beat()
            usleep(20_000)
        }
    }

    private func died(_ end: String, _ process: EngineProcess) -> BackupError {
        BackupError(.failed, "the engine ended \(end)\(words(process))")
    }

    private func words(_ process: EngineProcess) -> String {
        let words = process.lastWords
        return words.isEmpty ? "" : "; its last words: \(words)"
    }

    /// Two ports of the loopback that nobody listens on.
    private static func freePorts() throws -> (UInt16, UInt16) {
        var (ports, sockets): ([UInt16], [Int32]) = ([], [])
        defer { sockets.forEach { close($0) } }
        for _ in 0..<2 {
            let socket = Glibc.socket(AF_INET, Int32(SOCK_STREAM.rawValue) | Int32(SOCK_CLOEXEC.rawValue), 0)
            sockets.append(socket)
            var address = sockaddr_in()
            address.sin_family = sa_family_t(AF_INET)
            address.sin_addr.s_addr = UInt32(0x7f00_0001).bigEndian
            var size = socklen_t(MemoryLayout<sockaddr_in>.size)
            let port: UInt16? = withUnsafeMutablePointer(to: &address) { pointer in
                pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) { generic in
                    guard bind(socket, generic, size) == 0, getsockname(socket, generic, &size) == 0 else { return nil }
                    return UInt16(bigEndian: pointer.pointee.sin_port)
                }
            }
            guard let port else { throw BackupError(.failed, "there is no free port: \(String(cString: strerror(errno)))") }
            ports.append(port)
        }
        return (ports[0], ports[1])
    }
}
