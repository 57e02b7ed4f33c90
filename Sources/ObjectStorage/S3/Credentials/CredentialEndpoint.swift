import Glibc

/// The address of a service that hands out keys, taken apart.
struct CredentialEndpoint: Sendable {
    var isSecure: Bool
    /// Without the brackets of an IPv6 address.
    var host: String
    /// As in the Host header: with brackets, and with a port that is not the scheme's.
    var authority: String
    /// From the first "/" on, with the query; "" where there is none.
    var path: String

    /// Nil for anything but http(s)://host[:port][/path]. No user information: a
    /// host that only looks like a local one must not be taken for it.
    init?(_ text: String) {
        guard text.utf8.allSatisfy({ (0x21...0x7e).contains($0) && $0 != UInt8(ascii: "#") && $0 != UInt8(ascii: "\\") }),
            let colon = text.firstRange(of: "://")
        else { return nil }
        switch text[..<colon.lowerBound].lowercased() {
        case "http": isSecure = false
        case "https": isSecure = true
        default: return nil
        }
        let rest = text[colon.upperBound...]
        let end = rest.firstIndex { $0 == "/" || $0 == "?" } ?? rest.endIndex
        path = String(rest[end...])
        guard let (host, port) = Self.split(rest[..<end]) else { return nil }
        self.host = host
        let name = host.contains(":") ? "[\(host)]" : host
        authority = port == nil || port == (isSecure ? 443 : 80) ? name : "\(name):\(port!)"
    }

    private static func split(_ authority: Substring) -> (host: String, port: Int?)? {
        let isAddress = authority.first == "["
        guard let end = isAddress ? authority.firstIndex(of: "]") : authority.firstIndex(of: ":") ?? authority.endIndex else {
            return nil
        }
        let host = (isAddress ? authority[..<end].dropFirst() : authority[..<end]).lowercased()
        let rest = isAddress ? authority[end...].dropFirst() : authority[end...]
        guard !host.isEmpty, host.utf8.allSatisfy(isAddress ? { isHexadecimal($0) || $0 == 0x3a || $0 == 0x2e } : isName) else {
            return nil
        }
        if rest.isEmpty { return (host, nil) }
        guard rest.first == ":", let port = UInt16(rest.dropFirst()) else { return nil }
        return (host, Int(port))
    }

    private static func isHexadecimal(_ byte: UInt8) -> Bool {
        (0x30...0x39).contains(byte) || (0x61...0x66).contains(byte)
    }

    private static func isName(_ byte: UInt8) -> Bool {
        (0x30...0x39).contains(byte) || (0x61...0x7a).contains(byte) || [0x2d, 0x2e, 0x5f].contains(byte)
    }

    var base: String { "\(isSecure ? "https" : "http")://\(authority)" }

    /// Where the answer comes from this host or from the agent beside it, so that
    /// nobody between can read it without TLS: loopback, and the addresses of ECS and
    /// EKS (AWS SDKs and Tools Reference Guide, "Container credential provider").
    var isLocal: Bool {
        if host == "localhost" { return true }
        var four = in_addr()
        if inet_pton(AF_INET, host, &four) == 1 {
            let address = UInt32(bigEndian: four.s_addr)
            return address >> 24 == 127 || address == 0xa9fe_aa02 || address == 0xa9fe_aa17
        }
        return Self.six(host).map { [Self.six("::1"), Self.six("fd00:ec2::23")].contains($0) } ?? false
    }

    private static func six(_ text: String) -> [UInt8]? {
        var address = in6_addr()
        return inet_pton(AF_INET6, text, &address) == 1 ? withUnsafeBytes(of: address) { Array($0) } : nil
    }
}
