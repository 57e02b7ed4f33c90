import HTTPTypes
import Hummingbird
import NIOCore

/// One request as S3 sees it: place, parameters, headers, and (once read) the body.
struct S3Request: Sendable {
    struct QueryItem: Sendable {
        var name: String
        var value: String
    }

    let number: Int
    let method: String
    let host: String
    let rawPath: String
    let rawQuery: String
    let query: [QueryItem]
    /// Lower-case names; several headers of a name are joined by commas, as they are signed.
    let headers: [String: String]
    let bucket: String?
    let key: String?
    var body = ByteBuffer()
    var digests = BodyDigests()
    /// Verified, once the request is known to be signed.
    var checksum: Checksum?

    /// - Parameter knownBuckets: to tell `a.b.localhost` with bucket `a.b` from one with bucket `a`
    init(_ head: HTTPRequest, number: Int, knownBuckets: [String], personality: Personality) throws {
        self.number = number
        method = head.method.rawValue
        host = head.authority ?? ""
        let target = head.path ?? "/"
        let mark = target.firstIndex(of: "?")
        rawPath = String(target[..<(mark ?? target.endIndex)])
        rawQuery = mark.map { String(target[target.index(after: $0)...]) } ?? ""
        headers = Self.collect(head)
        query = try Self.split(rawQuery)
        (bucket, key) = try Self.place(rawPath, host, knownBuckets, personality)
    }

    /// All headers of a request, Host included.
    static func collect(_ head: HTTPRequest) -> [String: String] {
        var headers: [String: String] = [:]
        headers["host"] = head.authority
        for field in head.headerFields {
            let value = field.value
            headers[field.name.canonicalName] = headers[field.name.canonicalName].map { $0 + "," + value } ?? value
        }
        return headers
    }

    static func split(_ rawQuery: String) throws -> [QueryItem] {
        try rawQuery.split(separator: "&").map { part in
            let halves = part.split(separator: "=", maxSplits: 1, omittingEmptySubsequences: false)
            guard let name = PercentCoding.decode(halves[0], plusIsSpace: true),
                let value = PercentCoding.decode(halves.count > 1 ? halves[1] : "", plusIsSpace: true)
            else { throw S3Error(400, "InvalidURI", "Couldn't parse the specified URI.") }
            return QueryItem(name: name, value: value)
        }
    }

    private static func place(
        _ rawPath: String, _ host: String, _ known: [String], _ personality: Personality
    ) throws -> (String?, String?) {
        guard rawPath.hasPrefix("/"),
            var path = PercentCoding.decode(rawPath.dropFirst(), plusIsSpace: personality.plusIsSpace)
        else { throw S3Error(400, "InvalidURI", "Couldn't parse the specified URI.") }
        if personality.caseMangles { path = path.lowercased() }
        let key: String?
        let bucket: String?
        if let virtual = bucketInHost(host, known) {
            bucket = virtual
            key = path
        } else {
            let slash = path.utf8.firstIndex(of: UInt8(ascii: "/"))
            bucket = String(path[..<(slash ?? path.endIndex)])
            key = slash.map { String(path[path.utf8.index(after: $0)...]) }
        }
        if let key, key.utf8.count > 1024 {
            throw S3Error(400, "KeyTooLongError", "Your key is too long")
        }
        return (bucket.flatMap { $0.isEmpty ? nil : $0 }, key.flatMap { $0.isEmpty ? nil : $0 })
    }

    /// The bucket of a virtual-host style request; nil for addresses, `localhost` and `s3.…`.
    private static func bucketInHost(_ host: String, _ known: [String]) -> String? {
        guard !host.hasPrefix("[") else { return nil }
        let name = host.split(separator: ":").first.map(String.init) ?? ""
        if name.allSatisfy({ $0.isNumber || $0 == "." }) { return nil }
        if let bucket = known.filter({ name.hasPrefix($0 + ".") }).max(by: { $0.count < $1.count }) { return bucket }
        let labels = name.split(separator: ".")
        guard labels.count > 1, let first = labels.first, first != "s3" else { return nil }
        return name.hasSuffix(".localhost") ? String(name.dropLast(".localhost".count)) : String(first)
    }

    func header(_ name: String) -> String? { headers[name] }
    func hasQuery(_ name: String) -> Bool { query.contains { $0.name == name } }
    func queryValue(_ name: String) -> String? { query.first { $0.name == name }?.value }

    var isConditional: Bool { header("if-none-match") != nil || header("if-match") != nil }
    var bypassesGovernance: Bool { header("x-amz-bypass-governance-retention")?.lowercased() == "true" }

    /// An integer parameter within a range, or InvalidArgument.
    func queryNumber(_ name: String, _ range: ClosedRange<Int>) throws -> Int? {
        guard let text = queryValue(name) else { return nil }
        guard let number = Int(text), number >= range.lowerBound else {
            throw S3Error.invalidArgument(
                "Argument \(name) must be an integer between \(range.lowerBound) and \(range.upperBound)")
        }
        return min(number, range.upperBound)
    }
}
