/// A version of Qdrant: "1.19.0", "1.20.1-dev".
public struct ServerVersion: Sendable, Hashable, Comparable, Codable, CustomStringConvertible {
    public let major: Int
    public let minor: Int
    public let patch: Int

    public init(_ major: Int, _ minor: Int, _ patch: Int = 0) {
        self.major = major
        self.minor = minor
        self.patch = patch
    }

    /// With or without a leading v; what follows the third number is ignored. Nil for anything else.
    public init?(_ text: String) {
        let digits = text.hasPrefix("v") ? text.dropFirst() : text[...]
        let parts = digits.split(separator: ".", maxSplits: 2, omittingEmptySubsequences: false)
        guard parts.count >= 2, let major = Int(parts[0]), let minor = Int(parts[1]), (0...999).contains(major),
            (0...9999).contains(minor)
        else { return nil }
        let last = parts.count > 2 ? Int(parts[2].prefix { $0.isASCII && $0.isNumber }) : 0
        guard let patch = last else { return nil }
        self.init(major, minor, patch)
    }

    public var description: String { "\(major).\(minor).\(patch)" }

    public static func < (one: ServerVersion, other: ServerVersion) -> Bool {
        (one.major, one.minor, one.patch) < (other.major, other.minor, other.patch)
    }

    public init(from decoder: any Decoder) throws {
        let container = try decoder.singleValueContainer()
        guard let version = ServerVersion(try container.decode(String.self)) else {
            throw DecodingError.dataCorruptedError(in: container, debugDescription: "no version")
        }
        self = version
    }

    public func encode(to encoder: any Encoder) throws {
        var container = encoder.singleValueContainer()
        try container.encode(description)
    }
}

/// Whether a Qdrant of one version may start on data of another
/// (qdrant.tech/documentation/upgrades: one minor at a time, never back).
public enum VersionGate: Sendable, Hashable {
    case same
    /// The next minor, or another patch.
    case upgrade
    /// Through these minors, each with its latest patch.
    case steps([ServerVersion])
    case downgrade
    /// RocksDB is gone from 1.18 on (#8529).
    case rocksDB
    case unknown

    public init(from source: ServerVersion?, to target: ServerVersion, hasRocksDB: Bool) {
        if hasRocksDB, target >= ServerVersion(1, 18) {
            self = .rocksDB
            return
        }
        guard let source else {
            self = .unknown
            return
        }
        if source.major != target.major {
            self = source > target ? .downgrade : .unknown
        } else if target.minor < source.minor {
            self = .downgrade
        } else if target.minor > source.minor + 1 {
            self = .steps((source.minor + 1...target.minor).map { ServerVersion(source.major, $0) })
        } else {
            self = source == target ? .same : .upgrade
        }
    }

    /// Whether the start should be refused.
    public var isRefused: Bool {
        switch self {
        case .steps, .downgrade, .rocksDB: true
        case .same, .upgrade, .unknown: false
        }
    }

    /// What to do, for the operator.
    public var advice: String {
        switch self {
        case .same: "the same version"
        case .upgrade: "at most one minor version newer"
        case .steps(let path):
            "upgrade one minor version at a time, through the latest patch of "
                + path.map { "\($0.major).\($0.minor)" }.joined(separator: ", then ")
        case .downgrade: "the target is older than the source: Qdrant's data does not go back"
        case .rocksDB:
            "the data has RocksDB files, which 1.18 and later cannot read: start it once with the latest 1.16, then 1.17"
        case .unknown: "the source's version is not known"
        }
    }
}
