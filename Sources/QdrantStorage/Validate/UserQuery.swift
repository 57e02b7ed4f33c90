import BackupBase

/// A search of the user's own: one line of a queries file.
public struct UserQuery: Sendable {
    public let collection: String
    /// What `POST /points/query` takes: a vector of any kind, or a point's id.
    let query: JSONValue
    let using: String?
    let filter: JSONValue
    /// Nil: as many results as are compared anyway.
    let limit: Int?

    init(collection: String, query: JSONValue, using: String?) {
        self.collection = collection
        self.query = query
        self.using = using
        filter = .null
        limit = nil
    }

    /// Lines of `{"collection":…, "vector":…|"id":…, "using":…, "filter":…, "limit":…}`; empty ones are passed over.
    /// - Throws: `.usage`, with the number of the line
    public static func parse(_ bytes: [UInt8]) throws -> [UserQuery] {
        var queries: [UserQuery] = []
        let lines = bytes.split(separator: 0x0a, omittingEmptySubsequences: false)
        for (number, line) in lines.enumerated() where line.contains(where: { $0 > 0x20 }) {
            do {
                queries.append(try UserQuery(JSONValue(parsing: Array(line))))
            } catch {
                throw BackupError(
                    .usage, "line \(number + 1) of the queries cannot be used: \(error)",
                    hint:
                        "A line is {\"collection\":…, \"vector\" or \"id\":…, and, if wanted, \"using\", \"filter\", \"limit\"}.")
            }
        }
        return queries
    }

    private struct Unusable: Error, CustomStringConvertible { let description: String }

    private static let members: Set<String> = ["collection", "vector", "id", "using", "filter", "limit"]

    private init(_ json: JSONValue) throws {
        guard let object = json.object else { throw Unusable(description: "it is no object") }
        if let other = object.keys.sorted().first(where: { !Self.members.contains($0) }) {
            throw Unusable(description: "there is no member '\(printable(other.utf8))'")
        }
        guard let collection = json["collection"].string, !collection.isEmpty else {
            throw Unusable(description: "it names no collection")
        }
        let (vector, id) = (json["vector"], json["id"])
        guard vector.isNull != id.isNull else { throw Unusable(description: "it needs either a vector or an id") }
        guard vector.isNull || vector.array?.isEmpty == false || vector.object != nil else {
            throw Unusable(description: "its vector is none")
        }
        guard id.isNull || PointID(id) != nil else { throw Unusable(description: "its id is none") }
        let limit = json["limit"].unsigned
        guard json["limit"].isNull || limit.map({ (1...10_000).contains($0) }) == true else {
            throw Unusable(description: "its limit is not between 1 and 10000")
        }
        guard json["using"].isNull || json["using"].string != nil, json["filter"].isNull || json["filter"].object != nil else {
            throw Unusable(description: "'using' is a text, 'filter' an object")
        }
        self.collection = collection
        query = vector.isNull ? id : vector
        using = json["using"].string
        filter = json["filter"]
        self.limit = limit.map { Int($0) }
    }

    /// The request's body.
    func body(top: Int, exact: Bool) -> [String: JSONValue] {
        var body: [String: JSONValue] = [
            "query": query, "limit": .unsigned(UInt64(limit ?? top)), "with_payload": .bool(false),
        ]
        // Without params the server searches as it does for everybody.
        if exact { body["params"] = .object(["exact": .bool(true)]) }
        if let using, !using.isEmpty { body["using"] = .string(using) }
        if !filter.isNull { body["filter"] = filter }
        return body
    }
}
