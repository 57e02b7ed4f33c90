import BackupBase

/// Asks a service that hands out keys, again where that may help.
struct CredentialExchange: Sendable {
    /// Bytes of an answer at the most.
    static let limit = 64 << 10

    var transport: any HTTPTransport
    /// How often the service is asked at the most.
    var attempts: Int
    /// Seconds before the second attempt; they double from there.
    var delay: Double

    /// The last answer, whatever its status; throws `TransportError` where there is none.
    /// - Parameter passes: whether an answer below 500 says that it was a bad moment
    func send(_ request: HTTPRequest, passes: (HTTPResponse) -> Bool = { $0.status == 429 }) async throws -> HTTPResponse {
        var request = request
        request.limit = Self.limit
        var attempt = 1
        while true {
            do {
                let response = try await transport.send(request)
                if attempt >= attempts || response.status < 500 && !passes(response) { return response }
            } catch let error as TransportError {
                if attempt >= attempts || !Self.mayPass(error) { throw error }
            }
            // Jittered, so that the hosts of a fleet do not come back together.
            try await Task.sleep(for: .seconds(delay * Double(1 << (attempt - 1)) * Double.random(in: 0.5...1)))
            attempt += 1
        }
    }

    private static func mayPass(_ error: TransportError) -> Bool {
        switch error.kind {
        case .resolve, .connect, .stalled, .broken: true
        case .tls, .tooLarge, .unusable: false
        }
    }
}

extension String {
    /// At the most `limit` characters for a message: ASCII without what could move
    /// a cursor, and without any of the secrets that a server may have echoed.
    func safeToShow(hiding secrets: [SecretText?] = [], limit: Int = 300) -> String {
        var text = printableASCII
        for secret in secrets.compactMap({ $0?.reveal() }) where !secret.isEmpty {
            // As it is, and as a form or a URL holds it.
            for form in [secret.printableASCII, RequestSigner.encode(secret)] { text = text.replacing(form, with: "***") }
        }
        return text.count > limit ? text.prefix(limit) + "…" : text
    }

    private var printableASCII: String {
        String(String.UnicodeScalarView(unicodeScalars.map { (0x20...0x7e).contains($0.value) ? $0 : "?" }))
    }
}
