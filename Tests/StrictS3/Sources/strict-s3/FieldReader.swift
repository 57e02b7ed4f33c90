/// Reads the fields of one JSON object and refuses those nobody asked for: a misspelt fault
/// would otherwise make a test pass for want of the fault.
struct FieldReader {
    struct Problem: Error, CustomStringConvertible {
        let description: String
    }

    let place: String
    private var fields: [String: JSONValue]

    init(_ value: JSONValue?, in place: String) throws {
        self.place = place
        switch value {
        case nil, .null: fields = [:]
        case .object(let object): fields = object
        default: throw Problem(description: "\(place) is not an object")
        }
    }

    mutating func value(_ name: String) -> JSONValue? {
        let value = fields.removeValue(forKey: name)
        return value == .null ? nil : value
    }

    mutating func bool(_ name: String) throws -> Bool {
        switch value(name) {
        case nil: return false
        case .bool(let flag): return flag
        default: throw wrong(name, "true or false")
        }
    }

    mutating func int(_ name: String) throws -> Int? {
        switch value(name) {
        case nil: return nil
        case .int(let number): return number
        default: throw wrong(name, "a whole number")
        }
    }

    mutating func double(_ name: String) throws -> Double? {
        switch value(name) {
        case nil: return nil
        case .int(let number): return Double(number)
        case .double(let number): return number
        default: throw wrong(name, "a number")
        }
    }

    mutating func string(_ name: String) throws -> String? {
        switch value(name) {
        case nil: return nil
        case .string(let text): return text
        default: throw wrong(name, "a string")
        }
    }

    mutating func strings(_ name: String) throws -> [String]? {
        guard let value = value(name) else { return nil }
        guard let strings = value.strings else { throw wrong(name, "a list of strings") }
        return strings
    }

    mutating func list(_ name: String) throws -> [JSONValue]? {
        switch value(name) {
        case nil: return nil
        case .array(let list): return list
        default: throw wrong(name, "a list")
        }
    }

    /// A map of strings to strings.
    mutating func map(_ name: String) throws -> [String: String] {
        switch value(name) {
        case nil: return [:]
        case .object(let object):
            return try object.mapValues {
                guard case .string(let text) = $0 else { throw wrong(name, "a map of strings") }
                return text
            }
        default: throw wrong(name, "a map of strings")
        }
    }

    /// What is left was not known.
    func finish() throws {
        guard let unknown = fields.keys.min() else { return }
        throw Problem(description: "\(place) has no field \(unknown)")
    }

    private func wrong(_ name: String, _ wanted: String) -> Problem {
        Problem(description: "\(place).\(name) must be \(wanted)")
    }
}
