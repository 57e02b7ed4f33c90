/// Text that is no JSON, or more of it than is read.
public struct JSONProblem: Error, CustomStringConvertible {
    public let reason: String
    /// Bytes from the start.
    public let offset: Int

    public var description: String { "\(reason) at byte \(offset)" }
}

/// JSON text (RFC 8259) to `JSONValue`, in one pass.
///
/// Foundation's decoder is asked for seven types in turn before it gives a
/// number, each refusal an error with a text: a page of vectors takes it
/// seconds. This reads a number once, and goes as deep as payloads do, not as
/// deep as a hostile server likes.
struct JSONParser {
    /// Arrays and objects within each other at the most.
    static let depthLimit = 128

    private let bytes: UnsafeBufferPointer<UInt8>
    private var index = 0

    static func parse(_ bytes: [UInt8]) throws -> JSONValue {
        try bytes.withUnsafeBufferPointer { buffer in
            var parser = JSONParser(buffer)
            let value = try parser.value(0)
            parser.skipSpace()
            guard parser.index == buffer.count else { throw parser.problem("something follows the document") }
            return value
        }
    }

    private init(_ bytes: UnsafeBufferPointer<UInt8>) { self.bytes = bytes }

    private func problem(_ reason: String) -> JSONProblem { JSONProblem(reason: reason, offset: index) }

    private var next: UInt8? { index < bytes.count ? bytes[index] : nil }

    private mutating func skipSpace() {
        while let byte = next, byte == 0x20 || byte == 0x0a || byte == 0x0d || byte == 0x09 { index += 1 }
    }

    /// Whether this character comes next, behind space; then it is passed over.
    private mutating func take(_ character: Unicode.Scalar) -> Bool {
        skipSpace()
        guard next == UInt8(ascii: character) else { return false }
        index += 1
        return true
    }

    private mutating func value(_ depth: Int) throws -> JSONValue {
        guard depth < Self.depthLimit else { throw problem("it is nested too deeply") }
        skipSpace()
        switch next {
        case UInt8(ascii: "{"): return try object(depth)
        case UInt8(ascii: "["): return try array(depth)
        case UInt8(ascii: "\""): return .string(try string())
        case UInt8(ascii: "t"): return try word("true", .bool(true))
        case UInt8(ascii: "f"): return try word("false", .bool(false))
        case UInt8(ascii: "n"): return try word("null", .null)
        case nil: throw problem("it ends too early")
        default: return try number()
        }
    }

    private mutating func word(_ text: StaticString, _ value: JSONValue) throws -> JSONValue {
        let count = text.utf8CodeUnitCount
        guard bytes.count - index >= count, (0..<count).allSatisfy({ bytes[index + $0] == text.utf8Start[$0] }) else {
            throw problem("it is no JSON")
        }
        index += count
        return value
    }

    private mutating func array(_ depth: Int) throws -> JSONValue {
        index += 1
        var values: [JSONValue] = []
        if take("]") { return .array(values) }
        repeat { values.append(try value(depth + 1)) } while take(",")
        guard take("]") else { throw problem("an array is not closed") }
        return .array(values)
    }

    private mutating func object(_ depth: Int) throws -> JSONValue {
        index += 1
        var members: [String: JSONValue] = [:]
        if take("}") { return .object(members) }
        repeat {
            skipSpace()
            guard next == UInt8(ascii: "\"") else { throw problem("a member has no name") }
            let name = try string()
            guard take(":") else { throw problem("a member has no value") }
            members[name] = try value(depth + 1)
        } while take(",")
        guard take("}") else { throw problem("an object is not closed") }
        return .object(members)
    }

    // MARK: - Numbers

    private mutating func digits() -> Int {
        let start = index
        while let byte = next, byte >= 0x30, byte <= 0x39 { index += 1 }
        return index - start
    }

    private mutating func number() throws -> JSONValue {
        let start = index
        let isNegative = next == UInt8(ascii: "-")
        if isNegative { index += 1 }
        let first = next
        let count = digits()
        guard count > 0, first != UInt8(ascii: "0") || count == 1 else { throw problem("it is no JSON") }
        var isWhole = true
        if next == UInt8(ascii: ".") {
            isWhole = false
            index += 1
            guard digits() > 0 else { throw problem("a number has no digits behind its point") }
        }
        if next == UInt8(ascii: "e") || next == UInt8(ascii: "E") {
            isWhole = false
            index += 1
            if next == UInt8(ascii: "+") || next == UInt8(ascii: "-") { index += 1 }
            guard digits() > 0 else { throw problem("a number has no exponent") }
        }
        let text = String(decoding: bytes[start..<index], as: UTF8.self)
        if isWhole {
            if !isNegative, let value = UInt64(text) { return .unsigned(value) }
            if isNegative, let value = Int64(text) { return value == 0 ? .unsigned(0) : .signed(value) }
        }
        guard let value = Double(text), value.isFinite else { throw problem("a number is too large") }
        return .double(value)
    }

    // MARK: - Text

    private mutating func string() throws -> String {
        index += 1
        let start = index
        while let byte = next, byte != UInt8(ascii: "\""), byte != UInt8(ascii: "\\"), byte >= 0x20 { index += 1 }
        if next == UInt8(ascii: "\"") {
            defer { index += 1 }
            return try text(bytes[start..<index])
        }
        var unescaped = Array(bytes[start..<index])
        while let byte = next, byte >= 0x20 {
            index += 1
            if byte == UInt8(ascii: "\"") { return try text(unescaped) }
            if byte == UInt8(ascii: "\\") { try escape(into: &unescaped) } else { unescaped.append(byte) }
        }
        throw problem(next == nil ? "a text is not closed" : "a text holds a control character")
    }

    private func text(_ bytes: some Collection<UInt8>) throws -> String {
        guard let text = String(validating: bytes, as: UTF8.self) else { throw problem("a text is no UTF-8") }
        return text
    }

    private static let escapes: [UInt8: UInt8] = [
        UInt8(ascii: "\""): 0x22, UInt8(ascii: "\\"): 0x5c, UInt8(ascii: "/"): 0x2f, UInt8(ascii: "b"): 0x08,
        UInt8(ascii: "f"): 0x0c, UInt8(ascii: "n"): 0x0a, UInt8(ascii: "r"): 0x0d, UInt8(ascii: "t"): 0x09,
    ]

    private mutating func escape(into text: inout [UInt8]) throws {
        guard let byte = next else { throw problem("a text is not closed") }
        index += 1
        if let plain = Self.escapes[byte] { return text.append(plain) }
        guard byte == UInt8(ascii: "u") else { throw problem("an escape is unknown") }
        var code = try hexadecimal()
        if (0xd800..<0xdc00).contains(code), next == UInt8(ascii: "\\") {
            index += 1
            guard next == UInt8(ascii: "u") else { throw problem("half a surrogate pair") }
            index += 1
            let low = try hexadecimal()
            guard (0xdc00..<0xe000).contains(low) else { throw problem("half a surrogate pair") }
            code = 0x10000 + (code - 0xd800) << 10 + (low - 0xdc00)
        }
        guard let scalar = Unicode.Scalar(code) else { throw problem("half a surrogate pair") }
        text += Array(String(Character(scalar)).utf8)
    }

    private mutating func hexadecimal() throws -> UInt32 {
        guard bytes.count - index >= 4, bytes[index] != UInt8(ascii: "+"), bytes[index] != UInt8(ascii: "-"),
            let code = UInt32(String(decoding: bytes[index..<index + 4], as: UTF8.self), radix: 16)
        else { throw problem("an escape is unknown") }
        index += 4
        return code
    }
}
