import BackupBase
import Crypto
import Foundation
import Testing

@testable import ObjectStorage

/// A very small cloud: an instance metadata service (version 2 only), a container
/// agent, and an STS. It makes keys up, remembers them, and believes nobody:
/// tokens and signatures of what it is asked are checked by its own code.
final class FakeCloud: HTTPTransport {
    struct Keys { var secret: String, token: String? }
    struct Role {
        /// The access keys that may take it on; nil for everybody.
        var takers: Set<String>?
        var externalID: String?
        var identity: String?
    }
    enum Fault { case status(Int), noAnswer(TransportError.Kind), body(String, status: Int = 200) }

    struct State {
        var asked: [String] = []
        var keys: [String: Keys] = [:]
        var roles: [String: Role] = [:]
        var instanceRole: String? = "vector-db"
        var isInstance = true
        var sessions: [String: Int64] = [:]
        var containerPath = "/v2/credentials/path-canary"
        var containerToken: String?
        var speaksJSON = true
        /// Seconds for which made-up keys are valid.
        var lifetime: Int64 = 3600
        var made = 0
        /// What the next requests to URLs with this text in them meet.
        var faults: [(text: String, fault: Fault)] = []
        /// While set, requests arrive and wait for their answer.
        var isHeld = false
        var lastForm: [String: String] = [:]
    }

    let state = Locked(State())
    let clock: Locked<Int64>

    init(clock: Locked<Int64> = Locked(1_800_000_000_000_000_000)) { self.clock = clock }

    var asked: [String] { state.withLock { $0.asked } }
    var made: Int { state.withLock { $0.made } }
    func set<Value>(_ path: WritableKeyPath<State, Value>, _ value: Value) {
        state.withLock { $0[keyPath: path] = value }
    }
    /// Waits until so many requests have arrived.
    func arrived(_ count: Int) async throws {
        while asked.count < count { try await Task.sleep(for: .milliseconds(2)) }
    }
    func fail(_ text: String, _ faults: Fault...) { state.withLock { $0.faults += faults.map { (text, $0) } } }

    func send(_ request: HTTPRequest) async throws -> HTTPResponse {
        state.withLock { $0.asked.append("\(request.method) \(request.url)") }
        while state.withLock({ $0.isHeld }) { try await Task.sleep(for: .milliseconds(2)) }
        return try state.withLock { state in
            if let at = state.faults.firstIndex(where: { request.url.contains($0.text) }) {
                switch state.faults.remove(at: at).fault {
                case .status(let status): return Self.answer(status, "")
                case .noAnswer(let kind): throw TransportError(kind: kind, detail: "no answer from \(request.url)")
                case .body(let text, let status): return Self.answer(status, text)
                }
            }
            guard request.limit <= 64 << 10, let url = URLComponents(string: request.url), let host = url.host else {
                throw TransportError(kind: .unusable, detail: "bad request")
            }
            let isLinkLocal = host.hasPrefix("169.254.") || host.contains("fd00") || host == "127.0.0.1"
            guard request.bypassesProxy == isLinkLocal else {
                throw TransportError(kind: .unusable, detail: "wrong way: \(host)")
            }
            switch host {
            case "169.254.169.254", "[fd00:ec2::254]":
                guard state.isInstance else { throw TransportError(kind: .connect, detail: "nobody at \(host)") }
                return metadata(request, url.path, &state)
            case "169.254.170.2", "127.0.0.1", "agent.example": return container(request, url.path, &state)
            default:
                guard host.hasPrefix("sts.") else { throw TransportError(kind: .resolve, detail: "no host \(host)") }
                return tokenService(request, url, &state)
            }
        }
    }

    // MARK: - Services

    private func metadata(_ request: HTTPRequest, _ path: String, _ state: inout State) -> HTTPResponse {
        if path == "/latest/api/token" {
            guard request.method == "PUT", let seconds = Int64(request.header("x-aws-ec2-metadata-token-ttl-seconds") ?? ""),
                (1...21600).contains(seconds)
            else { return Self.answer(400, "") }
            let token = "imds-canary-\(state.sessions.count)=="
            state.sessions[token] = now + seconds * 1_000_000_000
            return Self.answer(200, token)
        }
        guard request.method == "GET", let token = request.header("x-aws-ec2-metadata-token"),
            let end = state.sessions[token], end > now
        else { return Self.answer(401, "") }
        let folder = "/latest/meta-data/iam/security-credentials/"
        guard let role = state.instanceRole, path.hasPrefix(folder) else { return Self.answer(404, "") }
        if path == folder { return Self.answer(200, role) }
        guard path == folder + role else { return Self.answer(404, "") }
        return Self.answer(200, json(make(&state), tokenName: "Token", extra: "\"Code\": \"Success\", \"Type\": \"AWS-HMAC\", "))
    }

    private func container(_ request: HTTPRequest, _ path: String, _ state: inout State) -> HTTPResponse {
        guard request.method == "GET", path == state.containerPath else { return Self.answer(404, "") }
        guard request.header("authorization") == state.containerToken else { return Self.answer(401, "{\"message\": \"no\"}") }
        return Self.answer(200, json(make(&state), tokenName: "Token"))
    }

    private func tokenService(_ request: HTTPRequest, _ url: URLComponents, _ state: inout State) -> HTTPResponse {
        guard case .bytes(let body) = request.body, request.method == "POST",
            request.header("content-type")?.hasPrefix("application/x-www-form-urlencoded") == true
        else { return refuse("MalformedRequest", "no form", request, state) }
        var form: [String: String] = [:]
        for pair in String(decoding: body, as: UTF8.self).split(separator: "&") {
            let parts = pair.split(separator: "=", maxSplits: 1, omittingEmptySubsequences: false)
            form[String(parts[0])] = String(parts[1]).removingPercentEncoding
        }
        state.lastForm = form
        guard form["Version"] == "2011-06-15", (2...64).contains(form["RoleSessionName"]?.count ?? 0),
            let role = state.roles[form["RoleArn"] ?? ""]
        else { return refuse("AccessDenied", "no role \(form["RoleArn"] ?? "")", request, state) }
        switch form["Action"] {
        case "AssumeRole":
            guard let taker = signer(of: request, url, body, state) else {
                let echo = request.header("x-amz-security-token") ?? ""
                return refuse("SignatureDoesNotMatch", "canonical string: \(echo)", request, state)
            }
            guard role.identity == nil, role.takers?.contains(taker) ?? true, role.externalID == form["ExternalId"] else {
                return refuse("AccessDenied", "\(taker) is not authorized to perform: sts:AssumeRole", request, state)
            }
        case "AssumeRoleWithWebIdentity":
            guard let identity = role.identity, form["WebIdentityToken"] == identity, request.header("authorization") == nil
            else {
                return refuse("InvalidIdentityToken", "bad token \(form["WebIdentityToken"] ?? "")", request, state)
            }
        default: return refuse("InvalidAction", "", request, state)
        }
        return grant(form["Action"]!, request, &state)
    }

    private func grant(_ action: String, _ request: HTTPRequest, _ state: inout State) -> HTTPResponse {
        let keys = make(&state)
        if state.speaksJSON && request.header("accept") == "application/json" {
            let seconds = Double(keys.end) / 1e9
            let inner =
                "{\"AccessKeyId\": \"\(keys.id)\", \"SecretAccessKey\": \"\(keys.secret)\", \"SessionToken\": \"\(keys.token)\", \"Expiration\": \(seconds)}"
            return Self.answer(
                200,
                "{\"\(action)Response\": {\"\(action)Result\": {\"AssumedRoleUser\": {\"Arn\": \"x\"}, \"Credentials\": \(inner)}, \"ResponseMetadata\": {\"RequestId\": \"1\"}}}"
            )
        }
        return Self.answer(
            200,
            """
            <\(action)Response xmlns="https://sts.amazonaws.com/doc/2011-06-15/"><\(action)Result>
              <Credentials>
                <SessionToken>\(keys.token.replacingOccurrences(of: "&", with: "&amp;"))</SessionToken>
                <SecretAccessKey>\(keys.secret)</SecretAccessKey>
                <Expiration>\(formatTime(keys.end))</Expiration><AccessKeyId>\(keys.id)</AccessKeyId>
              </Credentials></\(action)Result></\(action)Response>
            """)
    }

    private func refuse(_ code: String, _ message: String, _ request: HTTPRequest, _ state: State) -> HTTPResponse {
        if state.speaksJSON && request.header("accept") == "application/json" {
            return Self.answer(403, "{\"Error\": {\"Code\": \"\(code)\", \"Message\": \"\(message)\"}, \"RequestId\": \"1\"}")
        }
        return Self.answer(
            403,
            "<ErrorResponse><Error><Type>Sender</Type><Code>\(code)</Code><Message>\(message)</Message></Error></ErrorResponse>")
    }

    // MARK: - Keys

    private var now: Int64 { clock.withLock { $0 } }

    private func make(_ state: inout State) -> (id: String, secret: String, token: String, end: Int64) {
        state.made += 1
        let (id, secret, token) = ("ASIA\(state.made)", "made-secret-canary/\(state.made)", "made-token-canary+&/\(state.made)==")
        state.keys[id] = Keys(secret: secret, token: token)
        return (id, secret, token, now + state.lifetime * 1_000_000_000)
    }

    private func json(
        _ keys: (id: String, secret: String, token: String, end: Int64), tokenName: String, extra: String = ""
    ) -> String {
        "{\(extra)\"AccessKeyId\": \"\(keys.id)\", \"SecretAccessKey\": \"\(keys.secret)\", \"\(tokenName)\": \"\(keys.token)\", \"Expiration\": \"\(formatTime(keys.end))\"}"
    }

    private static func answer(_ status: Int, _ text: String) -> HTTPResponse {
        HTTPResponse(status: status, headers: [], body: AlignedBuffer(copying: Array(text.utf8)))
    }

    // MARK: - Signatures

    /// The access key whose owner signed the request; nil when nobody known did.
    private func signer(of request: HTTPRequest, _ url: URLComponents, _ body: [UInt8], _ state: State) -> String? {
        guard let text = request.header("authorization"), text.hasPrefix("AWS4-HMAC-SHA256 ") else { return nil }
        var parts: [String: String] = [:]
        for part in text.dropFirst(17).split(separator: ",") {
            let pair = part.drop { $0 == " " }.split(separator: "=", maxSplits: 1)
            parts[String(pair[0])] = String(pair[1])
        }
        let scope = parts["Credential"]?.split(separator: "/").map(String.init) ?? []
        guard scope.count == 5, let keys = state.keys[scope[0]], let date = request.header("x-amz-date"),
            request.header("x-amz-security-token") == keys.token, date.hasPrefix(scope[1]), scope[3] == "sts",
            let names = parts["SignedHeaders"]?.split(separator: ";").map(String.init), names.contains("host"),
            Set(request.headers.map(\.name)).subtracting(["authorization"]).isSubset(of: names)
        else { return nil }
        let host = url.host! + (url.port.map { ":\($0)" } ?? "")
        let headers = names.map { "\($0):\($0 == "host" ? host : request.header($0) ?? "")\n" }.joined()
        let hash = SHA256.hash(data: body).map { String(format: "%02x", $0) }.joined()
        let canonical = "POST\n\(url.path)\n\n\(headers)\n\(names.joined(separator: ";"))\n\(hash)"
        let canonicalHash = SHA256.hash(data: Data(canonical.utf8)).map { String(format: "%02x", $0) }.joined()
        let toSign = "AWS4-HMAC-SHA256\n\(date)\n\(scope.dropFirst().joined(separator: "/"))\n\(canonicalHash)"
        var key = SymmetricKey(data: Data("AWS4\(keys.secret)".utf8))
        for part in scope.dropFirst() {
            key = SymmetricKey(data: HMAC<SHA256>.authenticationCode(for: Data(part.utf8), using: key))
        }
        let signature = HMAC<SHA256>.authenticationCode(for: Data(toSign.utf8), using: key)
        return signature.map { String(format: "%02x", $0) }.joined() == parts["Signature"] ? scope[0] : nil
    }
}

extension HTTPRequest {
    fileprivate func header(_ name: String) -> String? { headers.first { $0.name == name }?.value }
}

@Suite struct CredentialFakeTests {
    private func ask(_ cloud: FakeCloud, _ method: String, _ url: String, _ headers: [(name: String, value: String)] = [])
        async throws -> HTTPResponse
    {
        var request = HTTPRequest(method, url)
        request.headers = headers
        request.limit = 1000
        request.bypassesProxy = true
        return try await cloud.send(request)
    }

    @Test func `the fake metadata service wants a session that is not over`() async throws {
        let cloud = FakeCloud()
        let base = "http://169.254.169.254/latest"
        let roles = base + "/meta-data/iam/security-credentials/"
        #expect(try await ask(cloud, "GET", roles).status == 401)
        #expect(try await ask(cloud, "PUT", base + "/api/token").status == 400)
        let token = try await ask(cloud, "PUT", base + "/api/token", [("x-aws-ec2-metadata-token-ttl-seconds", "60")]).text
        #expect(try await ask(cloud, "GET", roles, [("x-aws-ec2-metadata-token", token)]).text == "vector-db")
        cloud.clock.withLock { $0 += 61_000_000_000 }
        #expect(try await ask(cloud, "GET", roles, [("x-aws-ec2-metadata-token", token)]).status == 401)
    }

    @Test func `the fake container agent wants its token`() async throws {
        let cloud = FakeCloud()
        cloud.set(\.containerToken, "t")
        let url = "http://169.254.170.2/v2/credentials/path-canary"
        #expect(try await ask(cloud, "GET", url).status == 401)
        #expect(try await ask(cloud, "GET", url, [("authorization", "t")]).isSuccess)
    }
}
