import BackupBase

/// Sends calls to one bucket: address, credentials, signature, repetition.
///
/// Its rules: a redirect is followed by signing anew, never by the transport;
/// the store's clock counts, once it says that ours is wrong; expired keys are
/// fetched anew once; what may have had an effect unseen is settled by whoever
/// made the call, before it is repeated.
final class S3Client: Sendable {
    struct Route: Sendable {
        var region: String
        /// Nanoseconds that the store's clock is ahead of ours.
        var skew: Int64 = 0
        /// The store has answered something sensible: what fails now is a matter of patience.
        var hasContact = false
    }

    let place: S3Place
    let flow: FlowControl
    private let credentials: CredentialProvider
    private let transport: any HTTPTransport
    private let ambient: Ambient
    private let route: Locked<Route>
    private let uploads: RateLimiter
    private let downloads: RateLimiter

    /// Seconds within which a store that never answered is given up.
    private static let firstPatience = 20.0
    /// Seconds: the first pause, and the longest.
    private static let backoff = (base: 0.1, cap: 8.0)

    init(place: S3Place, credentials: CredentialProvider, transport: any HTTPTransport, region: String?, ambient: Ambient) {
        self.place = place
        self.credentials = credentials
        self.transport = transport
        self.ambient = ambient
        flow = FlowControl(maximum: place.connections)
        uploads = RateLimiter(rate: place.uploadLimit)
        downloads = RateLimiter(rate: place.downloadLimit)
        route = Locked(Route(region: place.region ?? region ?? "us-east-1"))
    }

    var region: String { route.withLock { $0.region } }
    /// Nanoseconds that the store's clock is ahead of ours, as far as that mattered.
    var skew: Int64 { route.withLock { $0.skew } }
    func currentCredentials() async throws -> Credentials { try await credentials.credentials() }

    // MARK: - Performing

    /// The answer to a call, a success. Repeats what may succeed later.
    /// - Parameter settle: asked after a failure that may have had its effect;
    ///   an answer ends the call, nil repeats it
    /// - Throws: `S3Failure`, `TransportError`, `CredentialError`, `CancellationError`
    func perform(_ call: S3Call, settle: (() async throws -> HTTPResponse?)? = nil) async throws -> HTTPResponse {
        // From the first failure on: a long upload is no reason to give up.
        var troubleSince: Double?
        var attempt = 0
        var corrected: Set<Correction> = []
        // Where a temporary redirect sent this very call.
        var host: String?
        while true {
            try Task.checkCancellation()
            do {
                return try await send(call, host)
            } catch let failure as S3Failure {
                // Each kind once: a store that goes on complaining is not to be pleased.
                if let correction = correct(failure, call, corrected) {
                    corrected.insert(correction)
                    if correction == .host { host = redirect(failure) }
                    continue
                }
                guard failure.isTransient, isPatient(&troubleSince) else { throw failure }
                if failure.isUnknown, let answer = try await settle?() { return answer }
            } catch let error as TransportError {
                let hopeless = error.kind == .unusable || error.kind == .tooLarge || error.kind == .tls && !hasContact
                let refused = !error.reachedServer && !hasContact && attempt >= 2
                guard !hopeless, !refused, isPatient(&troubleSince) else { throw error }
                if error.reachedServer, let answer = try await settle?() { return answer }
            }
            try await pause(attempt)
            attempt += 1
        }
    }

    private var hasContact: Bool { route.withLock { $0.hasContact } }

    private func isPatient(_ since: inout Double?) -> Bool {
        let now = monotonicSeconds()
        let start = since ?? now
        since = start
        return now - start < (hasContact ? place.patience : min(place.patience, Self.firstPatience))
    }

    /// Full jitter ("Exponential Backoff And Jitter", AWS architecture blog), and
    /// never more repetitions than the store's whole allowance.
    private func pause(_ attempt: Int) async throws {
        let longest = min(Self.backoff.cap, Self.backoff.base * Double(1 << min(attempt, 16)))
        let random = ambient.random(4).reduce(UInt32(0)) { $0 << 8 | UInt32($1) }
        let seconds = longest * Double(random) / Double(UInt32.max) + flow.takeRetry()
        try await Task.sleep(for: .seconds(seconds))
    }

    // MARK: - One try

    private func send(_ call: S3Call, _ host: String?) async throws -> HTTPResponse {
        let keys = try await credentials.credentials()
        let wait = max(uploads.delay(call.body.count), call.expected.map { downloads.delay($0) } ?? downloads.debt())
        if wait > 0 { try await Task.sleep(for: .seconds(wait)) }
        let route = route.withLock { $0 }
        let request = request(call, keys, route, host)
        await flow.enter()
        let response: HTTPResponse
        do {
            try Task.checkCancellation()
            response = try await transport.send(request)
        } catch {
            flow.leave(overloaded: false)
            throw error
        }
        if call.expected == nil { downloads.charge(response.body.count) }
        var failure = failure(in: response, to: call)
        flow.leave(overloaded: failure?.isOverload ?? false)
        failure?.keys = keys
        failure?.signedRegion = route.region
        // Whoever is refused or finds a store in trouble may have the wrong address.
        if response.status < 500, ![301, 307, 308, 400, 401, 403, 429].contains(response.status) {
            self.route.withLock { $0.hasContact = true }
        }
        if let failure { throw failure }
        return response
    }

    private func failure(in response: HTTPResponse, to call: S3Call) -> S3Failure? {
        guard response.isSuccess else { return S3Failure(response) }
        guard call.mayFailInside, XMLElement.parse(response.body.bytes)?.name == "Error" else { return nil }
        var failure = S3Failure(response)
        // It came late: the first byte of a long answer commits the server to 200.
        if failure.isTransient { failure.status = 500 }
        return failure
    }

    private func request(_ call: S3Call, _ keys: Credentials, _ route: Route, _ host: String?) -> HTTPRequest {
        let address = S3Address(place, region: route.region, host: host)
        let path = address.path(call.key)
        let query = RequestSigner.query(call.query)
        let signer = RequestSigner(credentials: keys, region: route.region)
        var request = HTTPRequest(call.method, address.base + path + (query.isEmpty ? "" : "?\(query)"))
        request.headers = signer.headers(
            for: .init(
                method: call.method, host: address.host, path: path, query: query, headers: call.headers,
                payloadHash: call.payloadHash), now: ambient.now() + route.skew)
        request.body = call.body
        request.limit = call.limit
        request.stallTimeout = route.hasContact ? place.stallTimeout : min(place.stallTimeout, 15)
        request.speedLimit = call.method == "GET" ? place.downloadLimit : place.uploadLimit
        return request
    }

    // MARK: - Corrections

    private enum Correction { case region, host, clock, keys }

    /// Mends what the store says is wrong about the request itself.
    /// - Returns: what was mended, if it is worth another try
    private func correct(_ failure: S3Failure, _ call: S3Call, _ done: Set<Correction>) -> Correction? {
        let current = route.withLock { $0 }
        // Not the region of now: another of several first requests may have put it right meanwhile.
        if [301, 307, 308, 400, 403].contains(failure.status), let region = failure.region, region != failure.signedRegion,
            !done.contains(.region)
        {
            route.withLock { $0.region = region }
            return .region
        }
        if [307, 308].contains(failure.status), !done.contains(.host), redirect(failure) != nil { return .host }
        if failure.status == 403, let time = failure.serverTime, !done.contains(.clock) {
            let skew = time - ambient.now()
            // Half of the 15 minutes that AWS allows: closer clocks are not the reason.
            if failure.code == "RequestTimeTooSkewed" || abs(skew - current.skew) > 450_000_000_000 {
                route.withLock { $0.skew = skew }
                return .clock
            }
        }
        // A HEAD has no body to say why.
        let mayBeExpiry = failure.isExpiry || call.method == "HEAD" && [400, 403].contains(failure.status)
        if mayBeExpiry, let keys = failure.keys, keys.sessionToken != nil, !done.contains(.keys) {
            credentials.invalidate(keys)
            return .keys
        }
        return nil
    }

    private func redirect(_ failure: S3Failure) -> String? {
        failure.location.flatMap { S3Address.host(ofRedirect: $0, from: S3Address(place, region: region, host: nil)) }
    }
}
