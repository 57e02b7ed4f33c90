import BackupBase
import Foundation
import Glibc
import TestSupport

/// A socket that plays systemd: takes what a service tells it (sd_notify(3)).
final class NotifySocket: @unchecked Sendable {
    // Unchecked: immutable but for what is behind the lock.
    struct Message {
        let lines: [String]
        /// Monotonic seconds.
        let moment: Double
    }

    /// What a service gets as NOTIFY_SOCKET.
    let name: String
    private let descriptor: Int32
    private let received = Locked<[Message]>([])

    /// - Parameter isAbstract: in the abstract namespace, as `systemd --user` and containers have it
    init(in directory: TemporaryDirectory, isAbstract: Bool = false) throws {
        let label = "notify-\(UUID().uuidString.prefix(8))"
        name = isAbstract ? "@bgbackup/\(label)" : directory(label)
        let queue = socket(AF_UNIX, Int32(SOCK_DGRAM.rawValue | SOCK_CLOEXEC.rawValue), 0)
        descriptor = queue
        var address = sockaddr_un()
        address.sun_family = sa_family_t(AF_UNIX)
        let bytes = Array(name.utf8)
        withUnsafeMutableBytes(of: &address.sun_path) { path in
            path.copyBytes(from: bytes)
            if isAbstract { path[0] = 0 }
        }
        let length = socklen_t(MemoryLayout<sa_family_t>.size + bytes.count + (isAbstract ? 0 : 1))
        let status = withUnsafePointer(to: &address) {
            $0.withMemoryRebound(to: sockaddr.self, capacity: 1) { bind(queue, $0, length) }
        }
        guard status == 0 else { throw BackupError(.failed, "cannot bind \(name): errno \(errno)") }
        let messages = received
        Thread.detachNewThread {
            var buffer = [UInt8](repeating: 0, count: 8192)
            while true {
                let count = recv(queue, &buffer, buffer.count, 0)
                guard count > 0 else { return }
                let text = String(decoding: buffer[..<count], as: UTF8.self)
                let message = Message(
                    lines: text.split(separator: "\n", omittingEmptySubsequences: false).map(String.init),
                    moment: monotonicSeconds())
                messages.withLock { $0.append(message) }
            }
        }
    }

    deinit {
        shutdown(descriptor, Int32(SHUT_RDWR))
        close(descriptor)
    }

    var messages: [Message] { received.withLock { $0 } }
    var lines: [String] { messages.flatMap(\.lines) }
    var pings: [Double] { messages.filter { $0.lines.contains("WATCHDOG=1") }.map(\.moment) }

    /// What systemd puts into a service's environment.
    func environment(watchdog seconds: Double? = nil) -> [String: String] {
        var all = ["NOTIFY_SOCKET": name]
        if let seconds { all["WATCHDOG_USEC"] = "\(Int(seconds * 1e6))" }
        return all
    }
}
