/// The form of policy files for other programs: JSON Schema, and the table of
/// docs/policy.md. Both from `PolicyKey.root`.
public enum PolicySchema {
    /// JSON Schema, draft 2020-12.
    public static var json: JSONText {
        guard case .object(let members) = schema(.mapping(PolicyKey.root)) else { preconditionFailure("a mapping is an object") }
        return .object(
            [
                ("$schema", .text("https://json-schema.org/draft/2020-12/schema")),
                ("$id", .text("https://bgbackup.io/v1/policy.schema.json")), ("title", .text("bgbackup policy")),
            ] + members)
    }

    private static func schema(_ kind: PolicyKey.Kind) -> JSONText {
        switch kind {
        case .scalar(let scalar): .object(schema(scalar))
        case .mapping(let keys, let exactlyOne): .object(mapping(keys, exactlyOne))
        case .list(let element, let range):
            .object([
                ("type", .text("array")), ("items", schema(element)), ("minItems", .literal("\(range.lowerBound)")),
                ("maxItems", .literal("\(range.upperBound)")),
            ])
        case .labels:
            .object([
                ("type", .text("object")), ("additionalProperties", schema(.scalar(.word))), ("maxProperties", .literal("64")),
            ])
        case .reference: .object(mapping(PolicyKey.reference, PolicyKey.reference.map(\.name)))
        }
    }

    private static func mapping(_ keys: [PolicyKey], _ exactlyOne: [String]) -> [(String, JSONText)] {
        let properties = keys.map { key -> (String, JSONText) in
            guard case .object(var members) = schema(key.kind) else { return (key.name, .object([])) }
            members.append(("description", .text(key.about)))
            if let fallback = key.fallback { members.append(("default", value(fallback, key.kind))) }
            return (key.name, .object(members))
        }
        var members: [(String, JSONText)] = [
            ("type", .text("object")), ("properties", .object(properties)), ("additionalProperties", .literal("false")),
        ]
        let required = keys.filter(\.isRequired).map { JSONText.text($0.name) }
        if !required.isEmpty { members.append(("required", .array(required))) }
        if !exactlyOne.isEmpty {
            members.append(("oneOf", .array(exactlyOne.map { .object([("required", .array([.text($0)]))]) })))
        }
        return members
    }

    private static func value(_ text: String, _ kind: PolicyKey.Kind) -> JSONText {
        switch kind {
        case .scalar(.boolean), .scalar(.integer), .scalar(.ratio): .literal(text)
        default: .text(text)
        }
    }

    private static func schema(_ scalar: PolicyScalar) -> [(String, JSONText)] {
        func text(_ pattern: String? = nil, most: Int = 4096) -> [(String, JSONText)] {
            [("type", .text("string")), ("minLength", .literal("1")), ("maxLength", .literal("\(most)"))]
                + (pattern.map { [("pattern", .text($0))] } ?? [])
        }
        func quantity(_ units: [String], _ end: String = "") -> [(String, JSONText)] {
            text("^[0-9]+(\\.[0-9]+)?(\(units.joined(separator: "|")))\(end)$")
        }
        switch scalar {
        case .name: return text("^[a-z0-9]([a-z0-9-]*[a-z0-9])?$", most: 63)
        case .word, .calendar: return text(most: 256)
        case .argument: return text()
        case .choice(let names) where names.count == 1: return [("const", .text(names[0]))]
        case .choice(let names): return [("enum", .array(names.map { .text($0) }))]
        case .boolean: return [("type", .text("boolean"))]
        case .integer(let range):
            return [
                ("type", .text("integer")), ("minimum", .literal("\(range.lowerBound)")),
                ("maximum", .literal("\(range.upperBound)")),
            ]
        case .ratio: return [("type", .text("number")), ("minimum", .literal("0")), ("maximum", .literal("1"))]
        case .duration: return quantity(PolicyScalar.durationUnits.map(\.name))
        case .size: return quantity(PolicyScalar.sizeUnits.map(\.name))
        case .rate: return quantity(PolicyScalar.sizeUnits.map(\.name), "/s")
        case .percent: return quantity(["%"])
        case .timeOfDay: return text("^([01][0-9]|2[0-3]):[0-5][0-9]$")
        case .path: return text("^/")
        case .address: return text("^https?://[^@]+$")
        case .repository: return text("^(/|file:///|s3://[^?]+$)")
        case .credential: return text("^[^/]+$", most: 200)
        }
    }

    // MARK: - Document

    /// Rows of docs/policy.md: key, what stands there, default, meaning.
    public static var rows: [String] {
        PolicyKey.all.map { path, key in
            let standard = key.fallback.map { "`\($0)`" } ?? (key.isRequired ? "required" : "")
            return "| `\(path)` | \(words(key.kind)) | \(standard) | \(key.about) |"
        }
    }

    private static func words(_ kind: PolicyKey.Kind) -> String {
        switch kind {
        case .scalar(let scalar):
            switch scalar {
            case .choice(let names): names.map { "`\($0)`" }.joined(separator: ", ")
            case .integer(let range): "\(range.lowerBound)–\(range.upperBound)"
            case .duration(let range): "duration, \(PolicyScalar.words(range.lowerBound))–\(PolicyScalar.words(range.upperBound))"
            default: word(scalar)
            }
        case .mapping(_, let exactlyOne):
            exactlyOne.isEmpty ? "mapping" : "mapping with one of \(exactlyOne.map { "`\($0)`" }.joined(separator: ", "))"
        case .list(let element, let range): "list of up to \(range.upperBound): \(words(element))"
        case .labels: "names with texts"
        case .reference: "secret"
        }
    }

    private static func word(_ scalar: PolicyScalar) -> String {
        switch scalar {
        case .name: "name"
        case .word, .argument, .choice, .credential: "text"
        case .boolean: "`true`, `false`"
        case .ratio: "0–1"
        case .integer, .duration: "number"
        case .size: "size"
        case .rate: "rate"
        case .percent: "percent"
        case .timeOfDay: "time of day"
        case .calendar: "calendar"
        case .path: "path"
        case .address: "http address"
        case .repository: "place"
        }
    }
}
