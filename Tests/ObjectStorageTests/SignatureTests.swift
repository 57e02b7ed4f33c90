import BackupBase
import Foundation
import TestSupport
import Testing

@testable import ObjectStorage

/// Signature version 4 against the published examples ("Signature Calculations
/// for the Authorization Header", Amazon S3 API reference) and botocore.
@Suite struct SignatureTests {
    private static let example = Credentials(
        accessKey: "AKIAIOSFODNN7EXAMPLE", secretKey: SecretText("wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"),
        sessionToken: nil, expires: nil, source: "test")
    /// 2013-05-24T00:00:00Z
    private static let time: Int64 = 1_369_353_600_000_000_000

    struct Example: Sendable, CustomTestStringConvertible {
        var name: String
        var method: String
        var key: String
        var query: [(name: String, value: String)] = []
        var headers: [(name: String, value: String)] = []
        var body = ""
        var signature: String
        var testDescription: String { name }
    }

    static let examples = [
        Example(
            name: "GET object", method: "GET", key: "test.txt", headers: [("Range", "bytes=0-9")],
            signature: "f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41"),
        Example(
            name: "PUT object", method: "PUT", key: "test$file.text",
            headers: [("Date", "Fri, 24 May 2013 00:00:00 GMT"), ("x-amz-storage-class", "REDUCED_REDUNDANCY")],
            body: "Welcome to Amazon S3.",
            signature: "98ad721746da40c64f1a55b78f14c238d841ea1380cd77a1b5971af0ece108bd"),
        Example(
            name: "GET bucket lifecycle", method: "GET", key: "", query: [("lifecycle", "")],
            signature: "fea454ca298b7da1c68078a5d1bdbfbbe0d65c699e0f91ac7a200a0136783543"),
        Example(
            name: "GET bucket (list objects)", method: "GET", key: "", query: [("prefix", "J"), ("max-keys", "2")],
            signature: "34b48302e7b5fa45bde8084f4b7868a86f0a534bc59db6670ed5711ef69dc6f7"),
    ]

    private func authorization(_ example: Example, _ credentials: Credentials = example, host: String? = nil) -> String {
        let subject = RequestSigner.Subject(
            method: example.method, host: host ?? "examplebucket.s3.amazonaws.com",
            path: "/" + RequestSigner.encode(example.key, keepingSlashes: true), query: RequestSigner.query(example.query),
            headers: example.headers, payloadHash: RequestSigner.hash(example.body.utf8))
        let headers = RequestSigner(credentials: credentials, region: "us-east-1").headers(for: subject, now: Self.time)
        return headers.first { $0.name == "authorization" }?.value ?? ""
    }

    @Test(arguments: examples) func `the published examples come out`(_ example: Example) {
        let text = authorization(example)
        #expect(text.hasSuffix("Signature=\(example.signature)"), "\(text)")
        #expect(
            text.hasPrefix("AWS4-HMAC-SHA256 Credential=AKIAIOSFODNN7EXAMPLE/20130524/us-east-1/s3/aws4_request, SignedHeaders="))
    }

    @Test(arguments: examples) func `each part of a request is signed`(_ example: Example) {
        let signature = authorization(example)
        var others: [Example] = []
        for change in 0..<6 {
            var other = example
            switch change {
            case 0: other.method = "HEAD"
            case 1: other.key += "x"
            case 2: other.query.append(("x", ""))
            case 3: other.headers.append(("x-amz-meta-a", "1"))
            case 4: other.body += " "
            default: if other.headers.isEmpty { other.query.append(("z", "1")) } else { other.headers[0].value += "0" }
            }
            others.append(other)
        }
        let all = Set(others.map { authorization($0) } + [signature, authorization(example, host: "other.s3.amazonaws.com")])
        #expect(all.count == others.count + 2)
    }

    @Test func `a session token travels along and is signed`() {
        var credentials = Self.example
        credentials.sessionToken = SecretText("token/canary+=")
        let subject = RequestSigner.Subject(
            method: "GET", host: "h", path: "/", query: "", headers: [], payloadHash: S3Call.emptyHash)
        let headers = RequestSigner(credentials: credentials, region: "r").headers(for: subject, now: Self.time)
        #expect(headers.first { $0.name == "x-amz-security-token" }?.value == "token/canary+=")
        let text = headers.first { $0.name == "authorization" }?.value ?? ""
        #expect(text.contains("SignedHeaders=host;x-amz-content-sha256;x-amz-date;x-amz-security-token,"))
        #expect(!text.contains("canary"))
        #expect(headers.first { $0.name == "x-amz-date" }?.value == "20130524T000000Z")
    }

    @Test func `keys are encoded byte by byte, slashes where they divide`() {
        #expect(RequestSigner.encode("a b+c&d=e?f#g%h", keepingSlashes: true) == "a%20b%2Bc%26d%3De%3Ff%23g%25h")
        #expect(RequestSigner.encode("ä/日本/~._-", keepingSlashes: true) == "%C3%A4/%E6%97%A5%E6%9C%AC/~._-")
        #expect(RequestSigner.encode("a/b") == "a%2Fb")
        #expect(RequestSigner.encode("\u{1}\u{7f}*'()!@:,;$[]") == "%01%7F%2A%27%28%29%21%40%3A%2C%3B%24%5B%5D")
        #expect(RequestSigner.encode("") == "")
    }

    @Test func `a query is sorted by its encoded names, then values`() {
        #expect(RequestSigner.query([]) == "")
        #expect(
            RequestSigner.query([("uploads", ""), ("prefix", "a b"), ("list-type", "2")]) == "list-type=2&prefix=a%20b&uploads=")
        #expect(RequestSigner.query([("b", "2"), ("b", "10"), ("B", "z"), ("a-", "1"), ("a", "1")]) == "B=z&a=1&a-=1&b=10&b=2")
        #expect(RequestSigner.query([("é", "1"), ("z", "1")]) == "%C3%A9=1&z=1")
    }

    // MARK: - botocore

    private static var interpreter: String {
        let cache = ProcessInfo.processInfo.environment["XDG_CACHE_HOME"] ?? NSHomeDirectory() + "/.cache"
        return cache + "/bgbackup/s3-venv/bin/python"
    }

    /// A request of odd parts.
    private struct Request: Codable {
        var method: String
        var scheme: String
        var host: String
        var key: String
        var query: [String: String]
        var headers: [String: String]
        var body: String
        var access: String
        var secret: String
        var token: String?
        var region: String
        var time: String

        static func random(_ random: inout Seeded) -> Request {
            let odd = "abcXYZ019-_.~ /+%&=?#$!*'()@:,;<>\"äß日€"
            let names = [
                "range", "if-match", "if-none-match", "content-type", "x-amz-meta-a", "x-amz-meta-aa", "x-amz-meta-a-b",
                "x-amz-storage-class", "x-amz-server-side-encryption", "x-amz-server-side-encryption-aws-kms-key-id",
                "x-amz-copy-source", "x-amz-copy-source-range", "content-md5",
            ]
            var headers: [String: String] = [:]
            for _ in 0..<random.number(0...5) {
                headers[names[random.number(0...names.count - 1)]] =
                    random.text(1...30, of: "abc  XYZ=/\"*+,;:-").trimmingCharacters(in: .whitespaces) + "x"
            }
            var query: [String: String] = [:]
            for _ in 0..<random.number(0...4) { query[random.text(1...8, of: "aAbB-zä~ +")] = random.text(0...12, of: odd) }
            let year = random.number(2000...2099)
            return Request(
                method: ["GET", "PUT", "HEAD", "DELETE", "POST"][random.number(0...4)],
                scheme: ["http", "https"][random.number(0...1)],
                host: ["127.0.0.1:9000", "b.s3.eu-west-1.amazonaws.com", "h:8443", "[::1]:9"][random.number(0...3)],
                key: random.text(0...40, of: odd), query: query, headers: headers, body: random.text(0...50, of: odd),
                access: random.text(1...20, of: "ABCXYZ019"), secret: random.text(1...40, of: "abcXYZ/+=019"),
                token: random.number(0...1) == 0 ? nil : random.text(1...80, of: "abcXYZ/+=019"),
                region: ["us-east-1", "eu-central-2", "auto", "x"][random.number(0...3)],
                time:
                    "\(year)\(["01", "06", "12"][random.number(0...2)])\(["01", "28"][random.number(0...1)])T\(["000000", "235959"][random.number(0...1)])Z"
            )
        }
    }

    private static let script = """
        import json, sys
        from urllib.parse import quote
        from botocore.auth import S3SigV4Auth
        from botocore.awsrequest import AWSRequest
        from botocore.credentials import Credentials
        for line in sys.stdin:
            r = json.loads(line)
            request = AWSRequest(method=r["method"], url=f'{r["scheme"]}://{r["host"]}/' + quote(r["key"], safe="/~"),
                                 headers=r["headers"], data=r["body"].encode(), params=r["query"])
            class Config: s3 = {"payload_signing_enabled": True}
            request.context.update(timestamp=r["time"], client_config=Config)
            auth = S3SigV4Auth(Credentials(r["access"], r["secret"], r.get("token")), "s3", r["region"])
            auth._modify_request_before_signing(request)
            text = auth.canonical_request(request)
            signature = auth.signature(auth.string_to_sign(request, text), request)
            auth._inject_signature_to_request(request, signature)
            print(json.dumps(request.headers["Authorization"]))
        """

    @Test(.enabled(if: FileManager.default.isExecutableFile(atPath: interpreter), "botocore comes with the servers"))
    func `200 random requests are signed as botocore signs them`() throws {
        var random = Seeded(4711)
        let requests = (0..<200).map { _ in Request.random(&random) }
        let input = try requests.map { try JSONEncoder().encode($0) }.reduce(into: Data()) { $0 += $1 + Data("\n".utf8) }
        let result = try Program.run(Self.interpreter, ["-c", Self.script], input: input)
        try #require(result.status == 0, "\(result.errors)")
        let expected = try result.output.split(separator: "\n").map {
            try JSONDecoder().decode(String.self, from: Data($0.utf8))
        }
        try #require(expected.count == requests.count)
        for (request, wanted) in zip(requests, expected) {
            let credentials = Credentials(
                accessKey: request.access, secretKey: SecretText(request.secret),
                sessionToken: request.token.map { SecretText($0) }, expires: nil, source: "test")
            let subject = RequestSigner.Subject(
                method: request.method, host: request.host, path: "/" + RequestSigner.encode(request.key, keepingSlashes: true),
                query: RequestSigner.query(request.query.map { ($0.key, $0.value) }),
                headers: request.headers.map { ($0.key, $0.value) }, payloadHash: RequestSigner.hash(request.body.utf8))
            let headers = RequestSigner(credentials: credentials, region: request.region)
                .headers(for: subject, now: Self.nanoseconds(request.time))
            #expect(headers.first { $0.name == "authorization" }?.value == wanted, "\(request)")
        }
    }

    /// "20130524T000000Z"
    private static func nanoseconds(_ text: String) -> Int64 {
        let digits = Array(text)
        func part(_ range: Range<Int>) -> String { String(digits[range]) }
        return parseListDate(
            "\(part(0..<4))-\(part(4..<6))-\(part(6..<8))T\(part(9..<11)):\(part(11..<13)):\(part(13..<15))Z") ?? 0
    }
}
