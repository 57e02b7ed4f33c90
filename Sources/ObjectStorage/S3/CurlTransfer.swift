import BackupBase
import CCurl
import Glibc

/// One exchange while libcurl carries it. Made by the caller, from then on used
/// by the transport's thread alone: hence unchecked.
final class CurlTransfer: @unchecked Sendable {
    /// Set before the transfer is handed over, taken when it ends.
    var continuation: CheckedContinuation<HTTPResponse, any Error>?
    let isCancelled = Locked(false)

    private let request: HTTPRequest
    private let certificates: String?
    private var list: UnsafeMutablePointer<curl_slist>?
    private let message: UnsafeMutablePointer<CChar>
    private var sent = 0
    private var headers: [(name: String, value: String)] = []
    private var body: AlignedBuffer?
    private var problem: TransportError?
    private var isError = false
    private var tries = 0

    /// Bytes of an error document at the most, however few were asked for of the object.
    private static let errorLimit = 64 << 10
    /// Bytes of headers at the most: S3 sends less than 4 KiB.
    private static let headerLimit = 64 << 10
    private var headerBytes = 0

    init(_ request: HTTPRequest, certificates: String?) {
        self.request = request
        self.certificates = certificates
        message = .allocate(capacity: Int(CURL_ERROR_SIZE))
        message.initialize(repeating: 0, count: Int(CURL_ERROR_SIZE))
    }

    deinit {
        curl_slist_free_all(list)
        message.deallocate()
    }

    func finish(_ result: Result<HTTPResponse, any Error>) {
        continuation?.resume(with: result)
        continuation = nil
    }

    /// Sets the handle up; returns what is wrong with the request.
    func prepare(_ handle: UnsafeMutableRawPointer) -> TransportError? {
        curl_easy_reset(handle)
        let own = Unmanaged.passUnretained(self).toOpaque()
        var codes = [
            bgb_curl_set_string(handle, CURLOPT_URL, request.url),
            bgb_curl_set_string(handle, CURLOPT_PROTOCOLS_STR, "http,https"),
            bgb_curl_set_long(handle, CURLOPT_HTTP_VERSION, Int(CURL_HTTP_VERSION_1_1)),
            bgb_curl_set_long(handle, CURLOPT_NOSIGNAL, 1),
            // Who is cancelled while a name is looked up does not wait for the resolver's thread, which nothing can stop: for
            // minutes, where no name server answers. It is let go, and frees what is its own.
            bgb_curl_set_long(handle, CURLOPT_QUICK_EXIT, 1),
            bgb_curl_set_long(handle, CURLOPT_PATH_AS_IS, 1),
            bgb_curl_set_long(handle, CURLOPT_TCP_KEEPALIVE, 1),
            bgb_curl_set_long(handle, CURLOPT_CONNECTTIMEOUT_MS, Int(request.connectTimeout * 1000)),
            bgb_curl_set_long(handle, CURLOPT_LOW_SPEED_LIMIT, 1),
            bgb_curl_set_long(handle, CURLOPT_LOW_SPEED_TIME, max(1, Int(request.stallTimeout.rounded(.up)))),
            bgb_curl_set_long(handle, CURLOPT_BUFFERSIZE, 256 << 10),
            bgb_curl_set_long(handle, CURLOPT_UPLOAD_BUFFERSIZE, 512 << 10),
            bgb_curl_set_pointer(handle, CURLOPT_ERRORBUFFER, message),
            bgb_curl_set_pointer(handle, CURLOPT_WRITEDATA, own),
            bgb_curl_set_pointer(handle, CURLOPT_HEADERDATA, own),
            bgb_curl_set_pointer(handle, CURLOPT_READDATA, own),
            bgb_curl_set_pointer(handle, CURLOPT_SEEKDATA, own),
            bgb_curl_set_pointer(handle, CURLOPT_PREREQDATA, own),
            bgb_curl_set_data(handle, CURLOPT_WRITEFUNCTION) { CurlTransfer.of($3).receive($0, $1 * $2) },
            bgb_curl_set_data(handle, CURLOPT_HEADERFUNCTION) { CurlTransfer.of($3).receiveHeader($0, $1 * $2) },
            bgb_curl_set_data(handle, CURLOPT_READFUNCTION) { CurlTransfer.of($3).provide($0, $1 * $2) },
            bgb_curl_set_seek(handle) { CurlTransfer.of($0).seek($1, $2) },
            bgb_curl_set_before(handle) { own, _, _, _, _ in CurlTransfer.of(own).begin() },
        ]
        if let certificates { codes.append(bgb_curl_set_string(handle, CURLOPT_CAINFO, certificates)) }
        if request.bypassesProxy { codes.append(bgb_curl_set_string(handle, CURLOPT_NOPROXY, "*")) }
        if request.speedLimit > 0 {
            codes.append(bgb_curl_set_size(handle, CURLOPT_MAX_SEND_SPEED_LARGE, curl_off_t(request.speedLimit)))
            codes.append(bgb_curl_set_size(handle, CURLOPT_MAX_RECV_SPEED_LARGE, curl_off_t(request.speedLimit)))
        }
        codes += setMethod(handle)
        setHeaders(handle)
        guard let failed = codes.first(where: { $0 != CURLE_OK }) else { return nil }
        return TransportError(kind: .unusable, detail: String(cString: curl_easy_strerror(failed)))
    }

    private func setMethod(_ handle: UnsafeMutableRawPointer) -> [CURLcode] {
        switch request.method {
        case "GET": [bgb_curl_set_long(handle, CURLOPT_HTTPGET, 1)]
        case "HEAD": [bgb_curl_set_long(handle, CURLOPT_NOBODY, 1)]
        case "DELETE": [bgb_curl_set_string(handle, CURLOPT_CUSTOMREQUEST, "DELETE")]
        default:
            [
                bgb_curl_set_long(handle, CURLOPT_UPLOAD, 1),
                bgb_curl_set_size(handle, CURLOPT_INFILESIZE_LARGE, curl_off_t(request.body.count)),
                bgb_curl_set_string(handle, CURLOPT_CUSTOMREQUEST, request.method),
            ]
        }
    }

    private func setHeaders(_ handle: UnsafeMutableRawPointer) {
        // Without "100-continue": a round trip for each pack, and some stores wait it out.
        list = curl_slist_append(list, "Expect:")
        list = curl_slist_append(list, "Accept:")
        for (name, value) in request.headers {
            list = curl_slist_append(list, value.isEmpty ? "\(name);" : "\(name): \(value)")
        }
        bgb_curl_set_pointer(handle, CURLOPT_HTTPHEADER, list)
    }

    // MARK: - Callbacks

    private static func of(_ pointer: UnsafeMutableRawPointer?) -> CurlTransfer {
        Unmanaged<CurlTransfer>.fromOpaque(pointer!).takeUnretainedValue()
    }

    /// Called before the request goes out, and again when libcurl repeats it because a
    /// kept connection died. A write may have had its effect by then: whoever made
    /// it has to look first, so it is not repeated unseen.
    private func begin() -> Int32 {
        tries += 1
        guard tries > 1, request.method != "GET", request.method != "HEAD" else { return Int32(CURL_PREREQFUNC_OK) }
        problem = TransportError(kind: .broken, detail: "the connection was closed before the answer came")
        return Int32(CURL_PREREQFUNC_ABORT)
    }

    private func provide(_ target: UnsafeMutablePointer<CChar>?, _ room: Int) -> Int {
        let count = min(room, request.body.count - sent)
        guard let target, count > 0 else { return 0 }
        switch request.body {
        case .none: return 0
        case .bytes(let bytes): bytes.withUnsafeBytes { _ = memcpy(target, $0.baseAddress! + sent, count) }
        case .buffer(let buffer, let offset, _): memcpy(target, buffer.pointer + offset + sent, count)
        }
        sent += count
        if sent >= LocalStore.workFrom { WorkPulse.beat() }
        return count
    }

    /// libcurl begins again from the start where it repeats.
    private func seek(_ offset: curl_off_t, _ origin: Int32) -> Int32 {
        guard origin == SEEK_SET, (0...Int64(request.body.count)).contains(Int64(offset)) else { return 1 }
        sent = Int(offset)
        return 0
    }

    private func receiveHeader(_ bytes: UnsafeMutablePointer<CChar>?, _ count: Int) -> Int {
        headerBytes += count
        guard let bytes, headerBytes <= Self.headerLimit else {
            problem = TransportError(kind: .tooLarge, detail: "its headers are too long")
            return -1
        }
        let line = String(decoding: UnsafeRawBufferPointer(start: bytes, count: count), as: UTF8.self)
        // The last answer counts: before it come "100" ones and a proxy's.
        if line.hasPrefix("HTTP/") {
            headers = []
            isError = line.split(separator: " ").dropFirst().first?.hasPrefix("2") != true
        }
        guard let colon = line.firstIndex(of: ":") else { return count }
        let value = line[line.index(after: colon)...].drop { $0 == " " || $0 == "\t" }
        headers.append((line[..<colon].lowercased(), String(value.prefix { !$0.isNewline })))
        return count
    }

    private func receive(_ bytes: UnsafeMutablePointer<CChar>?, _ count: Int) -> Int {
        guard let bytes, let target = room(for: count) else { return -1 }
        memcpy(target.pointer + target.count, bytes, count)
        target.count += count
        if target.count >= LocalStore.workFrom { WorkPulse.beat() }
        return count
    }

    /// The body's buffer with room for `count` more bytes; nil when it would grow beyond the limit.
    private func room(for count: Int) -> AlignedBuffer? {
        let announced = headers.last { $0.name == "content-length" }.flatMap { Int($0.value) } ?? 0
        let needed = (body?.count ?? 0) + count
        let limit = isError ? max(request.limit, Self.errorLimit) : request.limit
        guard max(needed, announced) <= limit else {
            problem = TransportError(
                kind: .tooLarge, detail: "it answers with \(max(needed, announced)) bytes, at most \(limit) are expected")
            return nil
        }
        if let body, body.capacity >= needed { return body }
        let larger = AlignedBuffer(capacity: max(announced, min(needed * 2, limit), 4096))
        if let body {
            memcpy(larger.pointer, body.pointer, body.count)
            larger.count = body.count
        }
        body = larger
        return larger
    }

    // MARK: - Outcome

    func outcome(_ handle: UnsafeMutableRawPointer, _ result: CURLcode) -> Result<HTTPResponse, any Error> {
        guard result == CURLE_OK else { return .failure(problem ?? error(result)) }
        var status = 0
        bgb_curl_get_long(handle, CURLINFO_RESPONSE_CODE, &status)
        return .success(HTTPResponse(status: status, headers: headers, body: body ?? AlignedBuffer(capacity: 0)))
    }

    private func error(_ code: CURLcode) -> TransportError {
        let text = String(cString: message)
        let kind: TransportError.Kind =
            switch code {
            case CURLE_COULDNT_RESOLVE_HOST, CURLE_COULDNT_RESOLVE_PROXY: .resolve
            case CURLE_COULDNT_CONNECT: .connect
            case CURLE_SSL_CONNECT_ERROR, CURLE_PEER_FAILED_VERIFICATION, CURLE_SSL_CACERT_BADFILE,
                CURLE_SSL_CIPHER, CURLE_SSL_CERTPROBLEM:
                .tls
            case CURLE_OPERATION_TIMEDOUT: sent == 0 && headers.isEmpty && isConnecting(text) ? .connect : .stalled
            case CURLE_URL_MALFORMAT, CURLE_UNSUPPORTED_PROTOCOL: .unusable
            default: .broken
            }
        return TransportError(kind: kind, detail: text.isEmpty ? String(cString: curl_easy_strerror(code)) : text)
    }

    private func isConnecting(_ text: String) -> Bool { text.contains("Connection timeout") || text.contains("connect") }
}
