import BackupBase

@testable import ObjectStorage

/// Answers requests as a test says, and keeps them.
final class ScriptedTransport: HTTPTransport {
    private let kept = Locked<[HTTPRequest]>([])
    private let answer: @Sendable (HTTPRequest, _ number: Int) async throws -> HTTPResponse

    /// - Parameter answer: called with each request and its number from 0
    init(_ answer: @escaping @Sendable (HTTPRequest, Int) async throws -> HTTPResponse) { self.answer = answer }

    var requests: [HTTPRequest] { kept.withLock { $0 } }

    func send(_ request: HTTPRequest) async throws -> HTTPResponse {
        let number = kept.withLock {
            $0.append(request)
            return $0.count - 1
        }
        return try await answer(request, number)
    }
}

/// What a store says of when an object was written.
let dated = (name: "last-modified", value: "Wed, 21 Oct 2015 07:28:00 GMT")

extension HTTPResponse {
    init(_ status: Int, _ headers: [(name: String, value: String)] = [], _ text: String = "") {
        self.init(status: status, headers: headers, body: AlignedBuffer(copying: Array(text.utf8)))
    }

    static func error(_ status: Int, _ code: String, _ message: String = "no", _ headers: [(name: String, value: String)] = [])
        -> HTTPResponse
    {
        HTTPResponse(status, headers, "<Error><Code>\(code)</Code><Message>\(message)</Message></Error>")
    }
}

extension S3Store {
    /// A store over a transport of the test's own, with keys that never end.
    static func scripted(
        _ url: String, _ transport: any HTTPTransport, ambient: Ambient = .prompt, keys: [String: String] = [:]
    ) throws -> S3Store {
        var settings = CredentialSettings()
        let variables = ["AWS_ACCESS_KEY_ID": "SCRIPTED", "AWS_SECRET_ACCESS_KEY": "secret-canary"].merging(keys) { $1 }
        settings.environment = { variables[$0] }
        return try S3Store(
            place: S3Place(url: url, environment: { _ in nil }),
            credentials: CredentialProvider(settings: settings, transport: transport), transport: transport, ambient: ambient)
    }
}

extension Ambient {
    /// The system's time; pauses between repetitions as short as they can be; and chance that costs
    /// little, which nobody has to be unable to guess here.
    static var prompt: Ambient {
        Ambient(
            now: Ambient.system.now,
            random: { count in
                if count == 4 { return [0, 0, 0, 0] }
                var random = Seeded(UInt64.random(in: 0...UInt64.max))
                return random.bytes(count)
            })
    }
}

extension HTTPRequest {
    func value(of header: String) -> String? { headers.first { $0.name == header }?.value }
}
