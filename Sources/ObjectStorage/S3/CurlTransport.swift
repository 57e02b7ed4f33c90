import BackupBase
import CCurl
import Glibc

/// HTTP/1.1 over libcurl's multi interface: one thread drives all transfers and
/// keeps the connections, so that no caller's thread waits for a socket.
///
/// It honours proxy variables and the system's certificates, follows no
/// redirect (a request is signed for one host) and speaks no HTTP/2, whose
/// uploads stall in libcurl 7.88 (fixed only in 8.0 to 8.2).
final class CurlTransport: HTTPTransport, Sendable {
    fileprivate struct Inbox {
        var waiting: [CurlTransfer] = []
        var cancelled: [CurlTransfer] = []
        var isStopped = false
    }

    /// What the thread owns; the thread keeps it alive.
    fileprivate final class Loop: Sendable {
        let inbox = Locked(Inbox())
        // Used by the thread only, but for curl_multi_wakeup, which any thread may call.
        nonisolated(unsafe) let multi: OpaquePointer
        let certificates: String?

        init(certificates: String?, connections: Int) {
            _ = CurlTransport.initialized
            multi = OpaquePointer(curl_multi_init()!)
            self.certificates = certificates
            bgb_curl_multi_long(UnsafeMutableRawPointer(multi), CURLMOPT_MAXCONNECTS, connections)
        }
    }

    private let loop: Loop
    private static let initialized: Void = { _ = curl_global_init(Int(CURL_GLOBAL_DEFAULT)) }()

    /// - Parameters:
    ///   - certificates: PEM file of the authorities to trust, instead of the system's
    ///   - connections: idle connections kept
    init(certificates: String? = nil, connections: Int = 16) {
        loop = Loop(certificates: certificates, connections: connections)
        let argument = Unmanaged.passRetained(loop).toOpaque()
        var thread = pthread_t()
        let status = pthread_create(
            &thread, nil,
            { argument in
                Unmanaged<Loop>.fromOpaque(argument!).takeRetainedValue().run()
                return nil
            }, argument)
        precondition(status == 0, "cannot start a thread: errno \(status)")
        pthread_detach(thread)
    }

    deinit {
        // Within the lock: once the thread has seen it, there is nothing left to wake.
        loop.inbox.withLock {
            $0.isStopped = true
            loop.wake()
        }
    }

    func send(_ request: HTTPRequest) async throws -> HTTPResponse {
        try Task.checkCancellation()
        let transfer = CurlTransfer(request, certificates: loop.certificates)
        return try await withTaskCancellationHandler {
            try await withCheckedThrowingContinuation { continuation in
                transfer.continuation = continuation
                loop.inbox.withLock { $0.waiting.append(transfer) }
                loop.wake()
            }
        } onCancel: {
            transfer.isCancelled.withLock { $0 = true }
            loop.inbox.withLock { $0.cancelled.append(transfer) }
            loop.wake()
        }
    }
}

extension CurlTransport.Loop {
    fileprivate func wake() { curl_multi_wakeup(UnsafeMutableRawPointer(multi)) }

    fileprivate func run() {
        let multi = UnsafeMutableRawPointer(multi)
        var active: [UnsafeMutableRawPointer: CurlTransfer] = [:]
        var idle: [UnsafeMutableRawPointer] = []
        defer {
            for (handle, transfer) in active {
                curl_multi_remove_handle(multi, handle)
                curl_easy_cleanup(handle)
                transfer.finish(.failure(CancellationError()))
            }
            for handle in idle { curl_easy_cleanup(handle) }
            curl_multi_cleanup(multi)
        }
        func retire(_ handle: UnsafeMutableRawPointer, reuse: Bool) {
            curl_multi_remove_handle(multi, handle)
            active[handle] = nil
            // After a failure libcurl may still hold buffers, and refuses to size them anew.
            if reuse { idle.append(handle) } else { curl_easy_cleanup(handle) }
        }
        while true {
            let (waiting, cancelled, isStopped) = inbox.withLock { inbox in
                defer { (inbox.waiting, inbox.cancelled) = ([], []) }
                return (inbox.waiting, inbox.cancelled, inbox.isStopped)
            }
            for transfer in waiting {
                // Cancelled before it came here: its place in the other list may be behind us.
                if transfer.isCancelled.withLock({ $0 }) {
                    transfer.finish(.failure(CancellationError()))
                    continue
                }
                let handle = idle.popLast() ?? curl_easy_init()!
                if let error = transfer.prepare(handle) {
                    curl_easy_cleanup(handle)
                    transfer.finish(.failure(error))
                } else {
                    active[handle] = transfer
                    curl_multi_add_handle(multi, handle)
                }
            }
            for transfer in cancelled {
                if let handle = active.first(where: { $0.value === transfer })?.key { retire(handle, reuse: false) }
                transfer.finish(.failure(CancellationError()))
            }
            if isStopped { return }
            var running: Int32 = 0
            curl_multi_perform(multi, &running)
            var left: Int32 = 0
            while let message = curl_multi_info_read(multi, &left) {
                guard bgb_curl_is_done(message) != 0, let handle = message.pointee.easy_handle,
                    let transfer = active[handle]
                else { continue }
                let result = bgb_curl_result(message)
                let outcome = transfer.outcome(handle, result)
                retire(handle, reuse: result == CURLE_OK)
                transfer.finish(outcome)
            }
            curl_multi_poll(multi, nil, 0, 10_000, nil)
        }
    }
}
