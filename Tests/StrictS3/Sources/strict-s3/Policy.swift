/// One identity policy document, read strictly: what is not understood is refused, not ignored.
struct Policy: Sendable {
    struct Statement: Sendable {
        var sid: String
        var allows: Bool
        var actions: Pattern
        var resources: Pattern
        var conditions: [PolicyCondition]
    }

    /// A list of wildcards, or all that is not in it.
    struct Pattern: Sendable {
        var wildcards: [String]
        var negated: Bool

        func matches(_ text: String, ignoringCase: Bool = false) -> Bool {
            let found = wildcards.contains {
                ignoringCase ? wildcard($0.lowercased(), matches: text.lowercased()) : wildcard($0, matches: text)
            }
            return found != negated
        }
    }

    var statements: [Statement]

    init(_ json: JSONValue) throws {
        var reader = try FieldReader(json, in: "policy")
        _ = try reader.string("Version")
        _ = try reader.string("Id")
        let list: [JSONValue]
        switch reader.value("Statement") {
        case .array(let many): list = many
        case .object(let one): list = [.object(one)]
        default: throw FieldReader.Problem(description: "policy needs Statement")
        }
        try reader.finish()
        statements = try list.map(Self.statement)
    }

    private static func statement(_ json: JSONValue) throws -> Statement {
        var reader = try FieldReader(json, in: "policy.Statement[]")
        let sid = try reader.string("Sid") ?? ""
        // Principals belong to bucket policies; documents written for those serve here as well.
        _ = reader.value("Principal")
        guard let effect = try reader.string("Effect"), effect == "Allow" || effect == "Deny" else {
            throw FieldReader.Problem(description: "policy.Statement[].Effect must be Allow or Deny")
        }
        let actions = try pattern(&reader, "Action", "NotAction")
        let resources = try pattern(&reader, "Resource", "NotResource")
        var conditions: [PolicyCondition] = []
        if let value = reader.value("Condition") {
            guard case .object(let operators) = value else {
                throw FieldReader.Problem(description: "policy.Statement[].Condition must be an object")
            }
            for (name, tests) in operators { conditions += try PolicyCondition.read(name, tests) }
        }
        try reader.finish()
        return Statement(
            sid: sid, allows: effect == "Allow", actions: actions, resources: resources, conditions: conditions)
    }

    private static func pattern(_ reader: inout FieldReader, _ name: String, _ negated: String) throws -> Pattern {
        switch (try reader.strings(name), try reader.strings(negated)) {
        case (let list?, nil): return Pattern(wildcards: list, negated: false)
        case (nil, let list?): return Pattern(wildcards: list, negated: true)
        default: throw FieldReader.Problem(description: "policy.Statement[] needs one of \(name) and \(negated)")
        }
    }

    enum Decision: Equatable {
        case allowed, denied, notMentioned
    }

    /// Explicit deny wins, and what nothing allows is refused.
    static func decide(
        _ policies: [Policy], action: String, resource: String, context: [String: String]
    ) -> Decision {
        var decision = Decision.notMentioned
        for statement in policies.flatMap(\.statements) {
            guard statement.actions.matches(action, ignoringCase: true), statement.resources.matches(resource),
                statement.conditions.allSatisfy({ $0.holds(in: context) })
            else { continue }
            if !statement.allows { return .denied }
            decision = .allowed
        }
        return decision
    }
}

/// Whether `pattern` with * and ? matches all of `text`, in linear space and no recursion.
func wildcard(_ pattern: String, matches text: String) -> Bool {
    let pattern = Array(pattern.utf8)
    let text = Array(text.utf8)
    var (p, t) = (0, 0)
    var star: (pattern: Int, text: Int)?
    while t < text.count {
        if p < pattern.count, pattern[p] == UInt8(ascii: "*") {
            star = (p, t)
            p += 1
        } else if p < pattern.count, pattern[p] == UInt8(ascii: "?") || pattern[p] == text[t] {
            p += 1
            t += 1
        } else if let last = star {
            star = (last.pattern, last.text + 1)
            p = last.pattern + 1
            t = last.text + 1
        } else {
            return false
        }
    }
    return pattern[p...].allSatisfy { $0 == UInt8(ascii: "*") }
}
