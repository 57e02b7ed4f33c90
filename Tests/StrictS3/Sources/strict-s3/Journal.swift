import Foundation
import HTTPTypes

/// What happened since the last reset: the counter that faults are decided by, sums, and one entry per request.
struct Journal: Sendable {
    struct Entry: Sendable {
        var number: Int
        var operation: String
        var method: String
        var path: String
        var query: String
        var headers: [String: String]
        /// nil while the request is being served, 0 when its connection was dropped without an answer.
        var status: Int?
        var error: String?
        var fault: String?
        var bytesIn = 0
        var bytesOut = 0

        var json: JSONValue {
            .object([
                "number": .int(number), "operation": .string(operation), "method": .string(method),
                "path": .string(path), "query": .string(query), "headers": .object(headers.mapValues(JSONValue.string)),
                "status": status.map(JSONValue.int) ?? .null, "error": error.map(JSONValue.string) ?? .null,
                "fault": fault.map(JSONValue.string) ?? .null, "bytesIn": .int(bytesIn), "bytesOut": .int(bytesOut),
            ])
        }
    }

    /// Which entry a request ends: a reset in between makes it nobody's.
    struct Ticket: Sendable {
        var number: Int
        var generation: Int
        /// Requests being served, this one included.
        var running: Int
    }

    private var generation = 0
    private var entries: [Entry] = []
    private var requests: [String: [String: Int]] = [:]
    private var faults: [String: Int] = [:]
    private var bytesIn = 0
    private var bytesOut = 0
    private var running = 0
    private var mostRunning = 0
    private(set) var connections = 0
    private var mostConnections = 0

    mutating func reset() {
        generation += 1
        entries = []
        requests = [:]
        faults = [:]
        (bytesIn, bytesOut) = (0, 0)
        (mostRunning, mostConnections) = (running, connections)
    }

    mutating func begin(_ head: HTTPRequest) -> Ticket {
        let target = (head.path ?? "/").split(separator: "?", maxSplits: 1, omittingEmptySubsequences: false)
        var headers = S3Request.collect(head)
        if let authorization = headers["authorization"], let name = authorization.range(of: "Signature=") {
            headers["authorization"] = authorization[..<name.upperBound] + "..."
        }
        entries.append(
            Entry(
                number: entries.count + 1, operation: "", method: head.method.rawValue, path: String(target[0]),
                query: target.count > 1 ? String(target[1]) : "", headers: headers))
        running += 1
        mostRunning = max(mostRunning, running)
        return Ticket(number: entries.count, generation: generation, running: running)
    }

    mutating func end(_ ticket: Ticket, _ fill: (inout Entry) -> Void) {
        running -= 1
        guard ticket.generation == generation else { return }
        fill(&entries[ticket.number - 1])
        let entry = entries[ticket.number - 1]
        requests[entry.operation, default: [:]][String(entry.status ?? 0), default: 0] += 1
        if let fault = entry.fault { faults[fault, default: 0] += 1 }
        bytesIn += entry.bytesIn
        bytesOut += entry.bytesOut
    }

    mutating func connectionOpened() {
        connections += 1
        mostConnections = max(mostConnections, connections)
    }

    mutating func connectionClosed() { connections -= 1 }

    var stats: JSONValue {
        .object([
            "count": .int(entries.count),
            "requests": .object(requests.mapValues { .object($0.mapValues(JSONValue.int)) }),
            "faults": .object(faults.mapValues(JSONValue.int)),
            "bytesIn": .int(bytesIn), "bytesOut": .int(bytesOut),
            "openConnections": .int(connections), "maxConnections": .int(mostConnections),
            "runningRequests": .int(running), "maxConcurrentRequests": .int(mostRunning),
        ])
    }

    /// One JSON object a line.
    var log: String { entries.map { $0.json.text + "\n" }.joined() }
}
