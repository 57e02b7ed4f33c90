import BackupBase
import BackupEngine

/// What a policy file says, with defaults where it says nothing. Durations are
/// seconds, sizes bytes, rates bytes a second. It holds no secret.
public struct Policy: Sendable, Codable, Equatable {
    /// Where a secret is.
    public enum SecretReference: Sendable, Codable, Equatable {
        /// Of systemd, below $CREDENTIALS_DIRECTORY.
        case credential(String)
        case file(String)
    }

    public struct Server: Sendable, Codable, Equatable {
        public var url: String
        public var apiKey: SecretReference?
    }

    public struct Source: Sendable, Codable, Equatable {
        public var path: String
        public var isDevice: Bool
        public var qdrant: Server?
    }

    public struct Capture: Sendable, Codable, Equatable {
        /// As `--capture` names it.
        public var method: String
        public var maxFreeze: Double
        public var keep: Bool
        public var hook: String?
        public var acceptFuzzy: Bool
    }

    /// A repository's place.
    public struct Place: Sendable, Codable, Equatable {
        public var url: String
        /// Of the URL, by name, as it takes them.
        public var options: [String: String]
        public var credentials: SecretReference?
        public var customerKey: SecretReference?
    }

    public struct Schedule: Sendable, Codable, Equatable {
        public var name: String
        public var onCalendar: String
        public var keepFor: Double?
        public var tags: [String]
        /// Between two of its moments at the most; nil where that cannot be told.
        public var interval: Double?

        /// The moment of the schedule that a run now belongs to; nil where none is near (`CalendarExpression`).
        /// - Parameters:
        ///   - now: seconds since 1970
        ///   - offset: seconds by which local time is ahead of UTC
        public func moment(near now: Double, offset: Double) -> Double? {
            (try? CalendarExpression(onCalendar))?.moment(near: now, offset: offset)
        }
    }

    public struct Window: Sendable, Codable, Equatable {
        /// Minutes since midnight, local time.
        public var from: Int
        public var to: Int
        /// Bytes a second.
        public var outside: Int
    }

    public struct Limits: Sendable, Codable, Equatable {
        public var upload: Int?
        public var download: Int?
        public var read: Int?
        public var window: Window?
    }

    public struct Immutability: Sendable, Codable, Equatable {
        public var mode: String
        public var lockFor: Double
    }

    public struct Prune: Sendable, Codable, Equatable {
        public var onCalendar: String
        public var grace: Double
        public var maxUnused: Double
    }

    public struct Check: Sendable, Codable, Equatable {
        public var onCalendar: String
        /// Percent; nil reads no data.
        public var readData: Double?
    }

    public struct Drill: Sendable, Codable, Equatable {
        public var onCalendar: String
        /// latest, random or oldest
        public var snapshot: String
        public var target: String?
        public var image: String?
        /// Program and arguments; empty: what is installed.
        public var boot: [String]
        public var bootTimeout: Double
        public var recoveryTime: Double?
        public var recoveryPoint: Double?
    }

    public struct Copy: Sendable, Codable, Equatable {
        public var name: String
        public var place: Place
        public var onCalendar: String
    }

    public struct Webhook: Sendable, Codable, Equatable {
        public var url: SecretReference
        /// success, warning, failure, recovered, drillFailed, damage
        public var events: [String]
        /// Whether words of errors go out too.
        public var sendLogs: Bool
    }

    public var name: String
    public var labels: [String: String]
    public var paused: Bool
    public var node: String?
    public var cluster: String?
    public var tags: [String]
    public var source: Source
    public var capture: Capture
    public var repository: Place
    public var password: SecretReference?
    public var writerKey: SecretReference?
    public var schedules: [Schedule]
    public var retention: RetentionPolicy
    public var limits: Limits
    public var immutability: Immutability?
    public var prune: Prune?
    public var check: Check?
    public var drill: Drill?
    public var copies: [Copy]
    /// Address of a healthchecks-style check.
    public var healthchecks: SecretReference?
    public var healthchecksGetLogs: Bool
    public var webhooks: [Webhook]
    /// Path of the metrics file.
    public var textfile: String?
}

extension Policy {
    /// Everything that runs by calendar: kind, name and expression.
    public struct Job: Sendable, Equatable {
        public enum Kind: String, Sendable, Encodable { case backup, prune, check, drill, copy }
        public let kind: Kind
        /// Of the schedule or copy; nil where there is one only.
        public let name: String?
        public let onCalendar: String
    }

    public var jobs: [Job] {
        schedules.map { Job(kind: .backup, name: $0.name, onCalendar: $0.onCalendar) }
            + copies.map { Job(kind: .copy, name: $0.name, onCalendar: $0.onCalendar) }
            + [
                prune.map { Job(kind: .prune, name: nil, onCalendar: $0.onCalendar) },
                check.map { Job(kind: .check, name: nil, onCalendar: $0.onCalendar) },
                drill.map { Job(kind: .drill, name: nil, onCalendar: $0.onCalendar) },
            ].compactMap { $0 }
    }

    /// The repository's URL with all options, the lock among them.
    /// - Parameters:
    ///   - keepFor: of the schedule that writes, seconds: what it writes is locked no longer, but a day at least, within
    ///     which the keeper looks what else needs it
    ///   - path: of the file that holds a secret
    public func repositoryURL(
        keepFor: Double? = nil, _ path: (SecretReference) throws -> String
    ) rethrows -> String {
        var lock = immutability
        if let keepFor, let longest = lock?.lockFor { lock?.lockFor = min(longest, max(keepFor, 86_400)) }
        return try repository.url(locked: lock, path)
    }

    /// Of a copy: no lock, which its store may not have.
    public func url(of copy: Copy, _ path: (SecretReference) throws -> String) rethrows -> String {
        try copy.place.url(locked: nil, path)
    }
}

extension Policy.Limits {
    /// What holds at a time of day, in minutes since midnight.
    public func at(_ minute: Int) -> Policy.Limits {
        guard let window else { return self }
        let isInside =
            window.from < window.to
            ? (window.from..<window.to).contains(minute) : minute >= window.from || minute < window.to
        if isInside { return Policy.Limits(upload: upload, download: download, read: read, window: window) }
        func least(_ limit: Int?) -> Int { min(limit ?? .max, window.outside) }
        return Policy.Limits(upload: least(upload), download: least(download), read: least(read), window: window)
    }
}

extension Policy.Place {
    var isS3: Bool { url.hasPrefix("s3://") }

    /// Nil of an object store.
    public var localPath: String? {
        isS3 ? nil : url.hasPrefix("file://") ? String(url.dropFirst("file://".count)) : url
    }

    func url(locked lock: Policy.Immutability?, _ path: (Policy.SecretReference) throws -> String) rethrows -> String {
        guard isS3 else { return url }
        var all = options
        all["credentials"] = try credentials.map(path)
        all["sse-c-key"] = try customerKey.map(path)
        if let lock {
            all["lock"] = lock.mode
            all["lock-for"] = "\(Int64(lock.lockFor))"
        }
        let pairs = all.sorted { $0.key < $1.key }.map { "\($0)=\(Self.encoded($1))" }
        return pairs.isEmpty ? url : "\(url)?\(pairs.joined(separator: "&"))"
    }

    private static func encoded(_ text: String) -> String {
        var result = ""
        for byte in text.utf8 {
            let character = Character(UnicodeScalar(byte))
            let isPlain = byte < 0x80 && (character.isLetter || character.isNumber || "-._~/:".contains(character))
            result += isPlain ? String(character) : "%" + [byte].hex.uppercased()
        }
        return result
    }
}
