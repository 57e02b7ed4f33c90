import BackupBase

/// Qdrant's REST interface, as far as it is read here: nothing is ever changed.
///
/// Calls block, one at a time. Errors: `.serverUnreachable` where nothing
/// answers, `.serverRefused` with the server's own words where it answers with
/// an error, `.notQdrant` where the answer is none that Qdrant gives.
public final class QdrantClient: Sendable {
    public let address: QdrantAddress
    public let hasKey: Bool
    private let key: SecretText?
    private let connection: HTTPConnection
    /// Seconds for one call.
    private let timeout: Double

    /// Bytes of an answer at the most.
    public static let answerLimit = 64 << 20

    /// - Parameters:
    ///   - key: sent as `api-key`; nil sends none
    ///   - certificates: PEM file of the authorities to trust, instead of the system's
    ///   - timeout: seconds for one call
    /// - Throws: `.usage` for a key that no header can hold
    public init(
        _ address: QdrantAddress, key: SecretText? = nil, certificates: String? = nil, timeout: Double = 60,
        answerLimit: Int = QdrantClient.answerLimit
    ) throws {
        var headers = ["Content-Type: application/json", "Accept: application/json"]
        if let key {
            let text = key.reveal()
            guard !text.isEmpty, text.utf8.count <= 16 << 10, text.utf8.allSatisfy({ $0 > 0x20 && $0 < 0x7f }) else {
                throw BackupError(
                    .usage, "the API key for \(address) is empty, or has characters that none has",
                    hint: "The file holds the key alone, on one line.")
            }
            headers.append("api-key: \(text)")
        }
        self.address = address
        self.key = key
        hasKey = key != nil
        self.timeout = timeout
        // No proxy has this machine's loopback.
        connection = HTTPConnection(
            headers: headers, certificates: certificates, isDirect: address.isLoopback, bodyLimit: answerLimit)
    }

    // MARK: - Calls

    /// The server's version, from `GET /`.
    public func version() throws -> ServerVersion {
        let answer = try exchange("/", nil)
        guard answer.status == 200, let json = try? JSONValue(parsing: answer.body),
            json["title"].string?.contains("qdrant") == true, let version = json["version"].string.flatMap({ ServerVersion($0) })
        else {
            throw BackupError(
                .notQdrant, "what answers at \(address) is not Qdrant (status \(answer.status): \(excerpt(answer.body)))",
                hint: "Give the address of Qdrant's REST interface, by default port 6333.")
        }
        return version
    }

    /// Whether `GET /readyz` says that all shards are ready.
    public func isReady() throws -> Bool {
        let answer = try exchange("/readyz", nil)
        guard answer.status == 200 || answer.status == 503 else { throw refusal("/readyz", answer) }
        return answer.status == 200
    }

    /// Names, sorted.
    public func collections() throws -> [String] {
        let path = "/collections"
        let names = try get(path)["collections"].array?.map { $0["name"].string }
        guard let names, !names.contains(nil) else { throw nonsense(path, "a list of collections is missing") }
        return names.compactMap { $0 }.sorted()
    }

    public func info(_ collection: String) throws -> CollectionInfo {
        let path = Self.path(collection)
        guard let info = CollectionInfo(try get(path)) else { throw nonsense(path, "status or configuration is missing") }
        return info
    }

    public func cluster(of collection: String) throws -> CollectionCluster {
        let path = Self.path(collection) + "/cluster"
        guard let cluster = CollectionCluster(try get(path)) else {
            throw nonsense(path, "the list of shards is of another form")
        }
        return cluster
    }

    public func cluster() throws -> ClusterInfo {
        guard let cluster = ClusterInfo(try get("/cluster")) else {
            throw nonsense("/cluster", "the list of peers is of another form")
        }
        return cluster
    }

    /// Collections by alias.
    public func aliases() throws -> [String: String] {
        var found: [String: String] = [:]
        guard let list = try get("/aliases")["aliases"].array else { throw nonsense("/aliases", "a list of aliases is missing") }
        for item in list {
            guard let alias = item["alias_name"].string, let name = item["collection_name"].string else {
                throw nonsense("/aliases", "an alias is of another form")
            }
            found[alias] = name
        }
        return found
    }

    /// The exact number of points.
    public func count(_ collection: String) throws -> UInt64 {
        let path = Self.path(collection) + "/points/count"
        guard let count = try post(path, ["exact": .bool(true)])["count"].unsigned else {
            throw nonsense(path, "a count is missing")
        }
        return count
    }

    /// Points in the order of their ids.
    /// - Returns: the points, and the id to go on with
    public func scroll(
        _ collection: String, from offset: PointID? = nil, limit: Int, withContent: Bool = true
    ) throws -> (points: [StoredPoint], next: PointID?) {
        let path = Self.path(collection) + "/points/scroll"
        var body: [String: JSONValue] = [
            "limit": .unsigned(UInt64(limit)), "with_payload": .bool(withContent), "with_vector": .bool(withContent),
        ]
        if let offset { body["offset"] = offset.json }
        let answer = try post(path, body)
        return (try points(answer["points"], path, StoredPoint.init), PointID(answer["next_page_offset"]))
    }

    /// Ids chosen by chance, at most `count`; where the server cannot do that, the first ones.
    public func sample(_ collection: String, count: Int) throws -> [PointID] {
        do {
            let query: [String: JSONValue] = [
                "query": .object(["sample": .string("random")]), "limit": .unsigned(UInt64(count)), "with_payload": .bool(false),
            ]
            return try found(collection, query).points.map(\.id)
        } catch let error as BackupError where error.code == .serverRefused {
            // Before 1.11.
            return try scroll(collection, limit: count, withContent: false).points.map(\.id)
        }
    }

    /// Those of the points that are there, with payload and all vectors.
    public func retrieve(_ collection: String, _ ids: [PointID]) throws -> [StoredPoint] {
        let path = Self.path(collection) + "/points"
        let answer = try post(
            path, ["ids": .array(ids.map(\.json)), "with_payload": .bool(true), "with_vector": .bool(true)])
        return try points(answer, path, StoredPoint.init)
    }

    /// `POST /points/query` with a body of the caller's.
    /// - Returns: what was found, best first, and the seconds it took from here
    public func found(_ collection: String, _ body: [String: JSONValue]) throws -> (points: [FoundPoint], seconds: Double) {
        let path = Self.path(collection) + "/points/query"
        let answer = try exchange(path, try JSONValue.object(body).encoded)
        return (try points(try result(path, answer)["points"], path, FoundPoint.init), answer.seconds)
    }

    private static func path(_ collection: String) -> String { "/collections/\(QdrantAddress.encode(collection))" }

    private func points<Point>(_ json: JSONValue, _ path: String, _ make: (JSONValue) -> Point?) throws -> [Point] {
        guard let list = json.array else { throw nonsense(path, "a list of points is missing") }
        let points = list.compactMap(make)
        guard points.count == list.count else { throw nonsense(path, "a point is of another form") }
        return points
    }

    // MARK: - Exchanges

    private func get(_ path: String) throws -> JSONValue { try result(path, try exchange(path, nil)) }

    private func post(_ path: String, _ body: [String: JSONValue]) throws -> JSONValue {
        try result(path, try exchange(path, try JSONValue.object(body).encoded))
    }

    private func exchange(_ path: String, _ body: [UInt8]?) throws -> HTTPConnection.Answer {
        try Task.checkCancellation()
        defer { WorkPulse.beat() }
        do { return try connection.exchange("\(address)\(path)", body: body, timeout: timeout) } catch let failure as HTTPFailure
        {
            throw try unanswered(path, failure)
        }
    }

    /// The `result` of Qdrant's envelope.
    private func result(_ path: String, _ answer: HTTPConnection.Answer) throws -> JSONValue {
        guard answer.status == 200 else { throw refusal(path, answer) }
        let json: JSONValue
        do { json = try JSONValue(parsing: answer.body) } catch { throw nonsense(path, "\(error)") }
        guard let result = json.object?["result"], json["status"] == .string("ok") else {
            throw nonsense(path, "it has no result: \(excerpt(answer.body))")
        }
        return result
    }

    // MARK: - Errors

    private func unanswered(_ path: String, _ failure: HTTPFailure) throws -> BackupError {
        let hint: String?
        switch failure.kind {
        case .cancelled: throw CancellationError()
        case .tooLarge: return BackupError(.notQdrant, "\(address)\(path) cannot be read: \(failure.detail)")
        case .tls:
            hint =
                address.isEncrypted
                ? "Name the certificate of the authority that signed the server's with --ca-file." : nil
        case .resolve: hint = "Check the host's name."
        case .connect: hint = "Check address and port, and that the server runs and listens there."
        case .timeout: hint = "Check that nothing between here and there drops packets; the server may be overloaded."
        case .broken:
            hint = address.isEncrypted ? nil : "Give https:// if the server speaks TLS."
        }
        return BackupError(.serverUnreachable, "\(address) does not answer \(path): \(shown(failure.detail))", hint: hint)
    }

    private func refusal(_ path: String, _ answer: HTTPConnection.Answer) -> BackupError {
        if let redirect = answer.redirect {
            return BackupError(
                .notQdrant, "\(address)\(path) answers with a redirect to \(shown(redirect))",
                hint: "Redirects are not followed, so that the API key stays with this server: give the address itself.")
        }
        let words = (try? JSONValue(parsing: answer.body))?["status"]["error"].string.map(shown) ?? excerpt(answer.body)
        var error = BackupError(.serverRefused, "\(address)\(path) answers with status \(answer.status): \(words)")
        if answer.status == 401 || answer.status == 403 {
            error.hint =
                hasKey
                ? "The server does not take this API key: check the file that holds it."
                : "The server wants an API key: name a file that holds one, or use the credential."
        }
        return error
    }

    private func nonsense(_ path: String, _ why: String) -> BackupError {
        BackupError(
            .notQdrant, "\(address)\(path) does not answer as Qdrant does: \(why)",
            hint: "Give the address of Qdrant's REST interface, by default port 6333.")
    }

    private func excerpt(_ bytes: [UInt8]) -> String {
        bytes.isEmpty ? "nothing" : shown(String(decoding: bytes.prefix(300), as: UTF8.self))
    }

    /// A server's words for a message: one bounded line, without the key that it may have echoed.
    private func shown(_ text: String) -> String {
        var text = text
        if let key { text = text.replacing(key.reveal(), with: "***") }
        return printable(text.prefix(300).utf8)
    }
}
