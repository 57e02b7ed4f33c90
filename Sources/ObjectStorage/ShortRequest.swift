import BackupBase

/// One short HTTP request to an address that is a secret itself: tells somebody something.
///
/// Follows no redirect: what stands in the address is for its own host. What it throws names the host and never the
/// address.
public enum ShortRequest {
    /// Why nobody was told; for a message.
    public struct Failure: Error, Sendable, CustomStringConvertible {
        public let description: String
    }

    private static let transport = CurlTransport(connections: 4)
    /// Bytes of an answer at the most.
    private static let limit = 64 << 10

    /// - Parameters:
    ///   - url: http:// or https://
    ///   - seconds: for the whole of it
    /// - Throws: `Failure` where the answer is not of 2xx, or none comes in time
    public static func post(_ url: SecretText, _ body: [UInt8], type: String, agent: String, within seconds: Double) async throws
    {
        let address = url.reveal()
        guard let host = host(of: address) else { throw Failure(description: "its address is not of http:// or https://") }
        var request = HTTPRequest("POST", address)
        request.headers = [("Content-Type", type), ("User-Agent", agent)]
        request.body = .bytes(body)
        request.limit = limit
        request.connectTimeout = seconds
        request.stallTimeout = seconds
        let answer = try await answer(request, within: seconds, host)
        switch answer.status {
        case 200..<300: return
        case 300..<400:
            throw Failure(
                description: "\(host) answers \(answer.status): give the address that it redirects to, none is followed")
        default: throw Failure(description: "\(host) answers \(answer.status)")
        }
    }

    private static func answer(_ request: HTTPRequest, within seconds: Double, _ host: String) async throws -> HTTPResponse {
        do {
            return try await withThrowingTaskGroup(of: HTTPResponse?.self) { group in
                group.addTask { try await transport.send(request) }
                group.addTask {
                    try await Task.sleep(for: .seconds(seconds))
                    return nil
                }
                defer { group.cancelAll() }
                guard let first = try await group.next(), let answer = first else {
                    throw Failure(description: "\(host) gives no answer within \(formatDuration(seconds))")
                }
                return answer
            }
        } catch let error as TransportError {
            // libcurl repeats an address that it cannot take apart.
            throw Failure(description: error.kind == .unusable ? "its address cannot be used" : "\(host): \(error.detail)")
        }
    }

    /// Without user and password; nil of what is no such address.
    static func host(of url: String) -> String? {
        guard let colon = url.firstRange(of: "://"), ["http", "https"].contains(url[..<colon.lowerBound].lowercased()),
            url.utf8.allSatisfy({ $0 > 0x20 && $0 != 0x7f })
        else { return nil }
        let authority = url[colon.upperBound...].prefix { !"/?#".contains($0) }
        let host = authority.split(separator: "@", omittingEmptySubsequences: false).last ?? ""
        return host.isEmpty ? nil : printable(host.utf8)
    }
}
