import BackupBase

/// A policy as read: values that are known to be of their kind, and where each
/// of them stands.
struct PolicyNode: Sendable {
    struct Member: Sendable {
        let name: String
        let node: PolicyNode
        /// Where the name stands.
        let mark: PolicyOrigin
    }

    indirect enum Value: Sendable {
        case mapping([Member])
        case list([PolicyNode])
        case text(String)
        /// As written, and in its unit's base: seconds, bytes, percent, minutes.
        case quantity(String, Double)
        case integer(Int)
        case number(Double)
        case boolean(Bool)
    }

    var value: Value
    var origin: PolicyOrigin

    subscript(_ name: String) -> PolicyNode? { members.first { $0.name == name }?.node }

    /// Where a key stands, or else what it would stand in.
    func mark(_ name: String) -> PolicyOrigin { members.first { $0.name == name }?.mark ?? origin }

    var members: [Member] {
        if case .mapping(let members) = value { members } else { [] }
    }
    var elements: [PolicyNode] {
        if case .list(let elements) = value { elements } else { [] }
    }
    var text: String? {
        switch value {
        case .text(let text), .quantity(let text, _): text
        default: nil
        }
    }
    var amount: Double? {
        switch value {
        case .quantity(_, let amount), .number(let amount): amount
        default: nil
        }
    }
    var integer: Int? {
        if case .integer(let number) = value { number } else { nil }
    }
    var boolean: Bool? {
        if case .boolean(let flag) = value { flag } else { nil }
    }
    var isDefault: Bool { origin == .byDefault }

    /// What a file would have to say to mean the same. Holds references, no secrets.
    var json: JSONText {
        switch value {
        case .mapping(let members): .object(members.map { ($0.name, $0.node.json) })
        case .list(let elements): .array(elements.map(\.json))
        case .text(let text), .quantity(let text, _): .text(text)
        case .integer(let number): .literal("\(number)")
        case .number(let number): .literal("\(number)")
        case .boolean(let flag): .literal("\(flag)")
        }
    }

    /// Every value with its path: "spec.schedules[0].name".
    func flattened(_ path: String = "") -> [PolicySetting] {
        switch value {
        case .mapping(let members):
            members.flatMap { $0.node.flattened(path.isEmpty ? $0.name : "\(path).\($0.name)") }
        case .list(let elements):
            elements.enumerated().flatMap { $1.flattened("\(path)[\($0)]") }
        default: [PolicySetting(path: path, value: json, origin: origin)]
        }
    }
}

/// One effective value, and where it comes from.
public struct PolicySetting: Sendable {
    public let path: String
    public let value: JSONText
    public let origin: PolicyOrigin

    /// The value as a person reads it.
    public var text: String {
        if case .text(let text) = value { printable(text.utf8) } else { value.compact }
    }
}

/// JSON that is written only: members stay in their order.
public indirect enum JSONText: Sendable {
    case object([(String, JSONText)])
    case array([JSONText])
    case text(String)
    /// A number, true, false, null, or what is JSON already, as it stands.
    case literal(String)

    /// On one line.
    public var compact: String { write(nil, "") }
    /// Over several lines, for people.
    public var pretty: String { write("  ", "") }

    private func write(_ step: String?, _ indent: String) -> String {
        let inner = indent + (step ?? "")
        let (begin, end, comma) = step == nil ? ("", "", ",") : ("\n\(inner)", "\n\(indent)", ",\n\(inner)")
        switch self {
        case .object(let members):
            guard !members.isEmpty else { return "{}" }
            let colon = step == nil ? ":" : ": "
            return "{" + begin + members.map { Self.quoted($0) + colon + $1.write(step, inner) }.joined(separator: comma) + end
                + "}"
        case .array(let elements):
            guard !elements.isEmpty else { return "[]" }
            return "[" + begin + elements.map { $0.write(step, inner) }.joined(separator: comma) + end + "]"
        case .text(let text): return Self.quoted(text)
        case .literal(let text): return text
        }
    }

    private static func quoted(_ text: String) -> String {
        var result = "\""
        for scalar in text.unicodeScalars {
            switch scalar {
            case "\"": result += "\\\""
            case "\\": result += "\\\\"
            case "\n": result += "\\n"
            case "\t": result += "\\t"
            case _ where scalar.value < 0x20 || scalar.value == 0x7f:
                let digits = String(scalar.value, radix: 16)
                result += "\\u" + String(repeating: "0", count: 4 - digits.count) + digits
            default: result.unicodeScalars.append(scalar)
            }
        }
        return result + "\""
    }
}
