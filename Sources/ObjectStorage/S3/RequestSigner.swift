import BackupBase
import Crypto
import FoundationEssentials

/// AWS Signature Version 4 ("Authenticating Requests: Using the Authorization
/// Header", Amazon S3 API reference). Not libcurl's: that of 7.88 is wrong in
/// four ways (it leaves the query unsorted, for one).
struct RequestSigner: Sendable {
    var credentials: Credentials
    var region: String
    var service = "s3"

    /// What is signed of a request. Path and query are encoded already, the query sorted.
    struct Subject {
        var method: String
        var host: String
        var path: String
        var query: String
        /// Without host, date, payload hash and token, which are added.
        var headers: [(name: String, value: String)]
        /// Lower-case hexadecimal SHA-256 of the body.
        var payloadHash: String
    }

    /// All headers to send: the given ones, date, payload hash, token and
    /// authorization. Host is signed and left to the transport to send.
    /// - Parameter now: nanoseconds since 1970, by the server's clock
    func headers(for subject: Subject, now: Int64) -> [(name: String, value: String)] {
        let time = Self.timestamp(now)
        var headers = subject.headers
        headers.append(("x-amz-date", time))
        if service == "s3" { headers.append(("x-amz-content-sha256", subject.payloadHash)) }
        if let token = credentials.sessionToken { headers.append(("x-amz-security-token", token.reveal())) }
        headers.append(("authorization", authorization(subject, signing: headers, time: time)))
        return headers
    }

    private func authorization(_ subject: Subject, signing: [(name: String, value: String)], time: String) -> String {
        let canonical = (signing + [("host", subject.host)])
            .map { ($0.name.lowercased(), Self.trimmed($0.value)) }.sorted { $0.0 < $1.0 }
        let names = canonical.map(\.0).joined(separator: ";")
        let request = [
            subject.method, subject.path, subject.query,
            canonical.map { "\($0.0):\($0.1)\n" }.joined(), names, subject.payloadHash,
        ].joined(separator: "\n")
        let scope = "\(time.prefix(8))/\(region)/\(service)/aws4_request"
        let toSign = ["AWS4-HMAC-SHA256", time, scope, Self.hash(request.utf8)].joined(separator: "\n")
        let signature = Self.mac(signingKey(String(time.prefix(8))), toSign).hex
        return "AWS4-HMAC-SHA256 Credential=\(credentials.accessKey)/\(scope), SignedHeaders=\(names), Signature=\(signature)"
    }

    private func signingKey(_ date: String) -> [UInt8] {
        var key = Array("AWS4\(credentials.secretKey.reveal())".utf8)
        for part in [date, region, service, "aws4_request"] { key = Self.mac(key, part) }
        return key
    }

    private static func mac(_ key: [UInt8], _ text: String) -> [UInt8] {
        Array(HMAC<SHA256>.authenticationCode(for: Array(text.utf8), using: SymmetricKey(data: key)))
    }

    static func hash(_ bytes: some Sequence<UInt8>) -> String { Array(SHA256.hash(data: Array(bytes))).hex }

    /// "20130524T000000Z"
    static func timestamp(_ nanoseconds: Int64) -> String {
        formatTime(nanoseconds).filter { $0 != "-" && $0 != ":" }
    }

    /// Without spaces at the ends, and with single ones inside.
    private static func trimmed(_ value: String) -> String {
        value.split(separator: " ", omittingEmptySubsequences: true).joined(separator: " ")
    }

    // MARK: - Encoding

    /// Percent-encodes as the signature wants it: all but unreserved characters (RFC 3986).
    static func encode(_ text: String, keepingSlashes: Bool = false) -> String {
        var encoded: [UInt8] = []
        for byte in text.utf8 {
            switch byte {
            case UInt8(ascii: "A")...UInt8(ascii: "Z"), UInt8(ascii: "a")...UInt8(ascii: "z"),
                UInt8(ascii: "0")...UInt8(ascii: "9"), UInt8(ascii: "-"), UInt8(ascii: "."), UInt8(ascii: "_"),
                UInt8(ascii: "~"):
                encoded.append(byte)
            case UInt8(ascii: "/") where keepingSlashes: encoded.append(byte)
            default: encoded += Array("%\([byte].hex.uppercased())".utf8)
            }
        }
        return String(decoding: encoded, as: UTF8.self)
    }

    /// The query as it is sent and signed: encoded, sorted, each name with "=".
    static func query(_ items: [(name: String, value: String)]) -> String {
        items.map { (encode($0.name), encode($0.value)) }
            .sorted { ($0.0, $0.1) < ($1.0, $1.1) }.map { "\($0.0)=\($0.1)" }.joined(separator: "&")
    }
}
