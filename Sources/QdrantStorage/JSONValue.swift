import FoundationEssentials

/// A JSON document whose integers stay what they are: peer ids, clock tokens
/// and points are 64-bit unsigned, which a Double would round.
public enum JSONValue: Sendable, Hashable, Codable {
    case null
    case bool(Bool)
    case unsigned(UInt64)
    case signed(Int64)
    case double(Double)
    case string(String)
    case array([JSONValue])
    case object([String: JSONValue])

    /// Bytes that one document may have; Qdrant's own are some kilobytes.
    public static let sizeLimit = 16 << 20

    /// - Throws: `JSONProblem`
    public init(parsing bytes: [UInt8]) throws {
        self = try JSONParser.parse(bytes)
    }

    public init(from decoder: any Decoder) throws {
        let container = try decoder.singleValueContainer()
        if container.decodeNil() {
            self = .null
        } else if let value = try? container.decode(Bool.self) {
            self = .bool(value)
        } else if let value = try? container.decode(UInt64.self) {
            self = .unsigned(value)
        } else if let value = try? container.decode(Int64.self) {
            self = .signed(value)
        } else if let value = try? container.decode(Double.self) {
            self = .double(value)
        } else if let value = try? container.decode(String.self) {
            self = .string(value)
        } else if let value = try? container.decode([JSONValue].self) {
            self = .array(value)
        } else {
            self = .object(try container.decode([String: JSONValue].self))
        }
    }

    public func encode(to encoder: any Encoder) throws {
        var container = encoder.singleValueContainer()
        switch self {
        case .null: try container.encodeNil()
        case .bool(let value): try container.encode(value)
        case .unsigned(let value): try container.encode(value)
        case .signed(let value): try container.encode(value)
        case .double(let value): try container.encode(value)
        case .string(let value): try container.encode(value)
        case .array(let value): try container.encode(value)
        case .object(let value): try container.encode(value)
        }
    }

    /// Compact, with sorted keys.
    public var encoded: [UInt8] {
        get throws {
            let encoder = JSONEncoder()
            encoder.outputFormatting = [.sortedKeys, .withoutEscapingSlashes]
            return Array(try encoder.encode(self))
        }
    }

    /// Bytes of a value as compact JSON.
    static func size(of value: some Encodable) throws -> Int { try JSONEncoder().encode(value).count }

    // MARK: - Looking in

    /// The member of an object; null where there is none.
    public subscript(_ name: String) -> JSONValue {
        get { if case .object(let members) = self { members[name] ?? .null } else { .null } }
        set {
            var members = object ?? [:]
            members[name] = newValue
            self = .object(members)
        }
    }

    public var object: [String: JSONValue]? { if case .object(let value) = self { value } else { nil } }
    public var array: [JSONValue]? { if case .array(let value) = self { value } else { nil } }
    public var string: String? { if case .string(let value) = self { value } else { nil } }
    public var unsigned: UInt64? { if case .unsigned(let value) = self { value } else { nil } }
    public var bool: Bool? { if case .bool(let value) = self { value } else { nil } }
    public var isNull: Bool { self == .null }

    public var double: Double? {
        switch self {
        case .unsigned(let value): Double(value)
        case .signed(let value): Double(value)
        case .double(let value): value
        default: nil
        }
    }

    /// Whether nothing is in it: null, [] or {}.
    public var isEmpty: Bool {
        switch self {
        case .null: true
        case .array(let value): value.isEmpty
        case .object(let value): value.isEmpty
        default: false
        }
    }

    /// An array of 64-bit numbers; nil where it is anything else.
    public var numbers: [UInt64]? {
        guard let array else { return nil }
        let values = array.compactMap(\.unsigned)
        return values.count == array.count ? values : nil
    }
}
