import BackupBase

/// Where a server's REST interface is: http://HOST[:PORT][/PATH] or https://….
public struct QdrantAddress: Sendable, Hashable, CustomStringConvertible {
    public let isEncrypted: Bool
    /// Lower case, an IPv6 address without its brackets.
    public let host: String
    public let port: Int
    /// Empty, or begins with a slash and ends without one.
    let path: String

    /// As Qdrant's own clients take it where none is given, also for https.
    static let defaultPort = 6333

    /// - Throws: `.usage`; the message never has what may be a password in the URL
    public init(_ text: String) throws {
        func wrong(_ why: String) -> BackupError {
            BackupError(.usage, "a server's URL \(why)", hint: "Give http://HOST:6333 or https://HOST:6333.")
        }
        guard text.utf8.count <= 2048, text.utf8.allSatisfy({ $0 > 0x20 && $0 < 0x7f && $0 != 0x22 && $0 != 0x5c }) else {
            throw wrong("is too long or has characters that none has")
        }
        let lower = text.lowercased()
        guard let scheme = ["http://", "https://"].first(where: { lower.hasPrefix($0) }) else {
            throw wrong("begins with neither http:// nor https://")
        }
        let rest = text.dropFirst(scheme.count)
        let authority = rest.prefix { $0 != "/" && $0 != "?" && $0 != "#" }
        let tail = rest.dropFirst(authority.count)
        guard !authority.contains("@") else {
            throw BackupError(
                .usage, "a server's URL holds a name or password, which everybody on this machine could see",
                hint: "Put the API key into a file and name that.")
        }
        guard !tail.contains("?"), !tail.contains("#") else { throw wrong("has a query or a fragment") }
        guard let (host, port) = Self.split(authority) else { throw wrong("has no host, or a port that is none") }
        isEncrypted = scheme == "https://"
        self.host = host
        self.port = port
        path = String(tail.reversed().drop { $0 == "/" }.reversed())
    }

    /// "host:1", "[::1]:1", "host" → the host in lower case, the port.
    static func split(_ authority: Substring, defaultPort: Int = Self.defaultPort) -> (host: String, port: Int)? {
        var host = authority
        var port = defaultPort
        if let close = authority.lastIndex(of: "]") {
            guard authority.first == "[" else { return nil }
            host = authority[authority.index(after: authority.startIndex)..<close]
            guard host.allSatisfy({ $0.isHexDigit || $0 == ":" || $0 == "." }) else { return nil }
            let behind = authority[authority.index(after: close)...]
            guard behind.isEmpty || behind.first == ":" else { return nil }
            if !behind.isEmpty {
                guard let number = Self.port(behind.dropFirst()) else { return nil }
                port = number
            }
        } else if let colon = authority.lastIndex(of: ":") {
            host = authority[..<colon]
            guard !host.contains(":"), let number = Self.port(authority[authority.index(after: colon)...]) else { return nil }
            port = number
        }
        return host.isEmpty ? nil : (host.lowercased(), port)
    }

    private static func port(_ text: Substring) -> Int? {
        guard text.allSatisfy({ $0.isASCII && $0.isNumber }), let port = Int(text), (1...65535).contains(port) else { return nil }
        return port
    }

    var isLoopback: Bool { host == "localhost" || host == "::1" || host.hasPrefix("127.") }

    public var description: String {
        let shown = host.contains(":") ? "[\(host)]" : host
        return "\(isEncrypted ? "https" : "http")://\(shown):\(port)\(path)"
    }

    /// "http://host:6335/" of a peer as host:port, for comparing; as it is where it is no URL.
    static func endpoint(_ uri: String) -> String {
        guard let mark = uri.firstRange(of: "://") else { return uri }
        let authority = uri[mark.upperBound...].prefix { $0 != "/" }
        guard let (host, port) = split(authority, defaultPort: 6335) else { return uri }
        return "\(host):\(port)"
    }

    /// One segment of a path.
    static func encode(_ segment: String) -> String {
        segment.utf8.map { byte in
            switch byte {
            case UInt8(ascii: "a")...UInt8(ascii: "z"), UInt8(ascii: "A")...UInt8(ascii: "Z"),
                UInt8(ascii: "0")...UInt8(ascii: "9"), UInt8(ascii: "-"), UInt8(ascii: "_"), UInt8(ascii: "~"):
                String(UnicodeScalar(byte))
            default: "%" + [byte].hex.uppercased()
            }
        }.joined()
    }
}
