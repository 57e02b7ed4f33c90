import BackupBase

/// One HTTP request, ready to be sent: the URL is encoded, every header is there.
struct HTTPRequest: Sendable {
    enum Body: Sendable {
        case none
        case bytes([UInt8])
        /// The first `count` bytes of the buffer from `offset`, sent without a copy of the whole.
        case buffer(AlignedBuffer, offset: Int, count: Int)

        var count: Int {
            switch self {
            case .none: 0
            case .bytes(let bytes): bytes.count
            case .buffer(_, _, let count): count
            }
        }
    }

    var method: String
    var url: String
    var headers: [(name: String, value: String)] = []
    var body = Body.none
    /// Bytes of an answer's body at the most; more is an error, before memory is taken.
    var limit = 1 << 20
    /// Link-local services (IMDS, containers) are never asked through a proxy.
    var bypassesProxy = false
    /// Seconds for connecting, and seconds without progress.
    var connectTimeout = 10.0
    var stallTimeout = 30.0
    /// Bytes a second at the most in either direction; 0 is no limit.
    var speedLimit = 0

    init(_ method: String, _ url: String) {
        self.method = method
        self.url = url
    }
}

/// An answer, whole: its body is as long as its Content-Length said.
struct HTTPResponse: Sendable {
    var status: Int
    /// Names in lower case.
    var headers: [(name: String, value: String)]
    var body: AlignedBuffer

    /// The first value of a header; its name in lower case.
    func header(_ name: String) -> String? { headers.first { $0.name == name }?.value }

    var text: String { String(decoding: body.bytes, as: UTF8.self) }
    var bytes: [UInt8] { Array(body.bytes) }
    var isSuccess: Bool { (200..<300).contains(status) }
}

/// Why there is no answer. What the server did is unknown unless `reachedServer` is false.
struct TransportError: Error, Sendable, CustomStringConvertible {
    enum Kind: Sendable {
        /// The host's name has no address.
        case resolve
        /// Nobody accepted the connection.
        case connect
        /// The server's certificate or protocol is not acceptable.
        case tls
        /// Nothing came or went for too long.
        case stalled
        /// The connection ended before the answer did.
        case broken
        /// The answer's body is larger than the request allows.
        case tooLarge
        /// The URL or the configuration is wrong: trying again is in vain.
        case unusable
    }
    var kind: Kind
    var detail: String

    var reachedServer: Bool {
        switch kind {
        case .resolve, .connect, .tls, .unusable: false
        case .stalled, .broken, .tooLarge: true
        }
    }
    var description: String { detail }
}

/// Carries a request to a server and its answer back. Throws `TransportError`,
/// or `CancellationError` when the task was cancelled.
protocol HTTPTransport: Sendable {
    func send(_ request: HTTPRequest) async throws -> HTTPResponse
}
