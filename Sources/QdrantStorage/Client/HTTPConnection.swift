import BackupBase
import CCurl
import Glibc

/// Why there is no answer.
struct HTTPFailure: Error {
    enum Kind { case resolve, connect, tls, timeout, tooLarge, broken, cancelled }
    let kind: Kind
    /// libcurl's own words.
    let detail: String
}

/// Exchanges with one server over libcurl's easy interface, one after the
/// other, over a connection that is kept. Calls block: they belong on the
/// blocking executor.
final class HTTPConnection: @unchecked Sendable {
    struct Answer {
        let status: Int
        let body: [UInt8]
        /// Where it would have us go; that is never followed.
        let redirect: String?
        /// From the request's start to the answer's last byte.
        let seconds: Double
    }

    // Unchecked: the handle is used with `lock` held only.
    private let lock = Locked(())
    private let handle: UnsafeMutableRawPointer
    private let headers: UnsafeMutablePointer<curl_slist>?
    private let message: UnsafeMutablePointer<CChar>
    private let certificates: String?
    private let isDirect: Bool
    private let bodyLimit: Int

    private static let initialized: Void = { _ = curl_global_init(Int(CURL_GLOBAL_DEFAULT)) }()

    /// - Parameters:
    ///   - headers: of every request, as "name: value"
    ///   - certificates: PEM file of the authorities to trust, instead of the system's
    ///   - isDirect: whether a proxy that the environment names is passed by
    ///   - bodyLimit: bytes of an answer at the most
    init(headers: [String], certificates: String?, isDirect: Bool, bodyLimit: Int) {
        _ = Self.initialized
        handle = curl_easy_init()!
        var list: UnsafeMutablePointer<curl_slist>?
        for header in headers + ["Expect:"] { list = curl_slist_append(list, header) }
        self.headers = list
        message = .allocate(capacity: Int(CURL_ERROR_SIZE))
        message.initialize(repeating: 0, count: Int(CURL_ERROR_SIZE))
        self.certificates = certificates
        self.isDirect = isDirect
        self.bodyLimit = bodyLimit
    }

    deinit {
        curl_easy_cleanup(handle)
        curl_slist_free_all(headers)
        message.deallocate()
    }

    /// - Parameters:
    ///   - body: of a POST; nil makes a GET
    ///   - timeout: seconds for all of it
    func exchange(_ url: String, body: [UInt8]?, timeout: Double) throws -> Answer {
        try lock.withLock { _ in
            let received = Received(limit: bodyLimit)
            let begin = monotonicSeconds()
            let code = try withExtendedLifetime(received) {
                try (body ?? []).withUnsafeBufferPointer { bytes in
                    try prepare(url, received, isPost: body != nil, bytes, timeout)
                    return curl_easy_perform(handle)
                }
            }
            let seconds = monotonicSeconds() - begin
            guard code == CURLE_OK else { throw received.failure ?? failure(code) }
            var status = 0
            bgb_curl_get_long(handle, CURLINFO_RESPONSE_CODE, &status)
            var redirect: UnsafeMutableRawPointer?
            bgb_curl_get_pointer(handle, CURLINFO_REDIRECT_URL, &redirect)
            return Answer(
                status: status, body: received.bytes,
                redirect: redirect.map { String(cString: $0.assumingMemoryBound(to: CChar.self)) }, seconds: seconds)
        }
    }

    private func prepare(
        _ url: String, _ received: Received, isPost: Bool, _ body: UnsafeBufferPointer<UInt8>, _ timeout: Double
    ) throws {
        curl_easy_reset(handle)
        message[0] = 0
        let own = Unmanaged.passUnretained(received).toOpaque()
        var codes = [
            bgb_curl_set_string(handle, CURLOPT_URL, url),
            bgb_curl_set_string(handle, CURLOPT_PROTOCOLS_STR, "http,https"),
            bgb_curl_set_long(handle, CURLOPT_HTTP_VERSION, Int(CURL_HTTP_VERSION_1_1)),
            bgb_curl_set_long(handle, CURLOPT_NOSIGNAL, 1),
            bgb_curl_set_long(handle, CURLOPT_PATH_AS_IS, 1),
            bgb_curl_set_long(handle, CURLOPT_FOLLOWLOCATION, 0),
            bgb_curl_set_long(handle, CURLOPT_CONNECTTIMEOUT_MS, Int(min(timeout, 10) * 1000)),
            bgb_curl_set_long(handle, CURLOPT_TIMEOUT_MS, Int(timeout * 1000)),
            bgb_curl_set_long(handle, CURLOPT_NOPROGRESS, 0),
            bgb_curl_set_pointer(handle, CURLOPT_ERRORBUFFER, message),
            bgb_curl_set_pointer(handle, CURLOPT_HTTPHEADER, headers),
            bgb_curl_set_pointer(handle, CURLOPT_WRITEDATA, own),
            bgb_curl_set_pointer(handle, CURLOPT_HEADERDATA, own),
            bgb_curl_set_data(handle, CURLOPT_WRITEFUNCTION) { Received.of($3).add($0, $1 * $2) },
            bgb_curl_set_data(handle, CURLOPT_HEADERFUNCTION) { Received.of($3).addHeader($1 * $2) },
            // Runs on this very thread, inside the task: a signal ends a call that waits.
            bgb_curl_set_progress(handle) { _, _, _, _, _ in Task.isCancelled ? 1 : 0 },
        ]
        if isDirect { codes.append(bgb_curl_set_string(handle, CURLOPT_NOPROXY, "*")) }
        if let certificates { codes.append(bgb_curl_set_string(handle, CURLOPT_CAINFO, certificates)) }
        if isPost {
            codes.append(bgb_curl_set_long(handle, CURLOPT_POST, 1))
            codes.append(bgb_curl_set_size(handle, CURLOPT_POSTFIELDSIZE_LARGE, curl_off_t(body.count)))
            // Lives until perform returns: the caller's closure holds it.
            codes.append(
                bgb_curl_set_pointer(handle, CURLOPT_POSTFIELDS, UnsafeMutableRawPointer(mutating: body.baseAddress)))
        }
        guard let failed = codes.first(where: { $0 != CURLE_OK }) else { return }
        throw HTTPFailure(kind: .broken, detail: String(cString: curl_easy_strerror(failed)))
    }

    private func failure(_ code: CURLcode) -> HTTPFailure {
        let text = String(cString: message)
        let kind: HTTPFailure.Kind =
            switch code {
            case CURLE_COULDNT_RESOLVE_HOST, CURLE_COULDNT_RESOLVE_PROXY: .resolve
            case CURLE_COULDNT_CONNECT: .connect
            case CURLE_SSL_CONNECT_ERROR, CURLE_PEER_FAILED_VERIFICATION, CURLE_SSL_CACERT_BADFILE, CURLE_SSL_CIPHER,
                CURLE_SSL_CERTPROBLEM:
                .tls
            case CURLE_OPERATION_TIMEDOUT: .timeout
            case CURLE_ABORTED_BY_CALLBACK: .cancelled
            default: .broken
            }
        return HTTPFailure(kind: kind, detail: text.isEmpty ? String(cString: curl_easy_strerror(code)) : text)
    }
}

/// What one exchange has received so far; used by the one thread that makes it.
private final class Received {
    private(set) var bytes: [UInt8] = []
    private(set) var failure: HTTPFailure?
    private var headerBytes = 0
    private let limit: Int

    init(limit: Int) { self.limit = limit }

    static func of(_ pointer: UnsafeMutableRawPointer?) -> Received {
        Unmanaged<Received>.fromOpaque(pointer!).takeUnretainedValue()
    }

    func add(_ data: UnsafeMutablePointer<CChar>?, _ count: Int) -> Int {
        guard let data, bytes.count + count <= limit else {
            failure = HTTPFailure(kind: .tooLarge, detail: "it answers with more than \(formatBytes(Int64(limit)))")
            return -1
        }
        bytes.append(contentsOf: UnsafeRawBufferPointer(start: data, count: count))
        return count
    }

    func addHeader(_ count: Int) -> Int {
        headerBytes += count
        guard headerBytes <= 64 << 10 else {
            failure = HTTPFailure(kind: .tooLarge, detail: "it answers with more than 64 KiB of headers")
            return -1
        }
        return count
    }
}
