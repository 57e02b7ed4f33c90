import Foundation

/// AWS IAM's rules for one identity, as far as the project's policies use them:
/// refused by default, an explicit deny wins, wildcards, conditions. What it does
/// not know is an error and not ignored.
struct PolicyEvaluator {
    struct Unknown: Error { var what: String }

    private struct Statement {
        var sid: String
        var allows: Bool
        var actions: [String]
        var resources: [String]
        var conditions: [(operation: String, key: String, values: [String])]
    }
    private let statements: [Statement]

    init(_ json: String) throws {
        guard let document = try JSONSerialization.jsonObject(with: Data(json.utf8)) as? [String: Any],
            document["Version"] as? String == "2012-10-17", let list = document["Statement"] as? [[String: Any]]
        else { throw Unknown(what: "document") }
        statements = try list.map { fields in
            guard Set(fields.keys).isSubset(of: ["Sid", "Effect", "Action", "Resource", "Condition"]),
                let sid = fields["Sid"] as? String, let effect = fields["Effect"] as? String,
                ["Allow", "Deny"].contains(effect), let actions = fields["Action"] as? [String],
                let resources = fields["Resource"] as? [String], !actions.isEmpty, !resources.isEmpty,
                // IAM takes letters and digits only.
                !sid.isEmpty, sid.allSatisfy({ $0.isASCII && ($0.isLetter || $0.isNumber) })
            else { throw Unknown(what: "\(fields)") }
            let conditions = (fields["Condition"] as? [String: [String: [String]]] ?? [:]).flatMap { operation, keys in
                keys.map { (operation: operation, key: $0.key.lowercased(), values: $0.value) }
            }
            for condition in conditions { _ = try Self.holds(condition.operation, nil, condition.values) }
            return Statement(
                sid: sid, allows: effect == "Allow", actions: actions, resources: resources, conditions: conditions)
        }
        guard Set(statements.map(\.sid)).count == statements.count else { throw Unknown(what: "a Sid is there twice") }
    }

    /// Whether the action is allowed. Condition keys in `context` are compared without case, as IAM does.
    func allows(_ action: String, _ resource: String, _ context: [String: String] = [:]) -> Bool {
        verdict(action, resource, context) == .allowed
    }

    enum Verdict { case allowed, denied, notMentioned }

    func verdict(_ action: String, _ resource: String, _ context: [String: String] = [:]) -> Verdict {
        let context = Dictionary(uniqueKeysWithValues: context.map { ($0.key.lowercased(), $0.value) })
        let matching = statements.filter { statement in
            statement.actions.contains { Self.matches($0.lowercased(), action.lowercased()) }
                && statement.resources.contains { Self.matches($0, resource) }
                && statement.conditions.allSatisfy { (try? Self.holds($0.operation, context[$0.key], $0.values)) == true }
        }
        if matching.contains(where: { !$0.allows }) { return .denied }
        return matching.isEmpty ? .notMentioned : .allowed
    }

    /// All conditions of a statement must hold; of the values of one any.
    private static func holds(_ operation: String, _ actual: String?, _ values: [String]) throws -> Bool {
        if operation == "Null" { return values.contains { ($0 == "true") == (actual == nil) } }
        let ifExists = operation.hasSuffix("IfExists")
        let test: (String, String) -> Bool
        switch ifExists ? String(operation.dropLast("IfExists".count)) : operation {
        case "StringEquals": test = { $0 == $1 }
        case "StringLike": test = { matches($1, $0) }
        case "Bool": test = { $0.lowercased() == $1.lowercased() }
        case "NumericLessThanEquals": test = { (Double($0) ?? .nan) <= (Double($1) ?? .nan) }
        case "NumericLessThan": test = { (Double($0) ?? .nan) < (Double($1) ?? .nan) }
        case "NumericEquals": test = { (Double($0) ?? .nan) == (Double($1) ?? .nan) }
        case "NumericGreaterThan": test = { (Double($0) ?? .nan) > (Double($1) ?? .nan) }
        case "NumericGreaterThanEquals": test = { (Double($0) ?? .nan) >= (Double($1) ?? .nan) }
        default: throw Unknown(what: operation)
        }
        guard let actual else { return ifExists }
        return values.contains { test(actual, $0) }
    }

    /// `*` and `?`; `${*}`, `${?}` and `${$}` stand for themselves.
    static func matches(_ pattern: String, _ text: String) -> Bool {
        enum Piece: Equatable { case any, one, exactly(Character) }
        var pieces: [Piece] = []
        var rest = Array(pattern)[...]
        while let character = rest.popFirst() {
            if character == "$", rest.count >= 3, rest.first == "{", rest.dropFirst(2).first == "}" {
                pieces.append(.exactly(rest.dropFirst().first!))
                rest = rest.dropFirst(3)
            } else {
                pieces.append(character == "*" ? .any : character == "?" ? .one : .exactly(character))
            }
        }
        // Which prefixes of the pattern fit what was read of the text.
        var fits = [true] + pieces.indices.map { index in pieces[...index].allSatisfy { $0 == .any } }
        for character in text {
            var next = [Bool](repeating: false, count: pieces.count + 1)
            for (index, piece) in pieces.enumerated() {
                switch piece {
                case .any: next[index + 1] = next[index] || fits[index + 1] || fits[index]
                case .one: next[index + 1] = fits[index]
                case .exactly(let wanted): next[index + 1] = fits[index] && wanted == character
                }
            }
            fits = next
        }
        return fits[pieces.count]
    }
}
