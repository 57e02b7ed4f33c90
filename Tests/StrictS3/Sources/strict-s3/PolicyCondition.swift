/// One test of a policy's Condition block: an operator, a key, and the values of which one must fit.
struct PolicyCondition: Sendable {
    enum Test: String, Sendable, CaseIterable {
        case stringEquals = "StringEquals"
        case stringNotEquals = "StringNotEquals"
        case stringEqualsIgnoreCase = "StringEqualsIgnoreCase"
        case stringNotEqualsIgnoreCase = "StringNotEqualsIgnoreCase"
        case stringLike = "StringLike"
        case stringNotLike = "StringNotLike"
        case numericEquals = "NumericEquals"
        case numericNotEquals = "NumericNotEquals"
        case numericLessThan = "NumericLessThan"
        case numericLessThanEquals = "NumericLessThanEquals"
        case numericGreaterThan = "NumericGreaterThan"
        case numericGreaterThanEquals = "NumericGreaterThanEquals"
        case dateLessThan = "DateLessThan"
        case dateLessThanEquals = "DateLessThanEquals"
        case dateGreaterThan = "DateGreaterThan"
        case dateGreaterThanEquals = "DateGreaterThanEquals"
        case bool = "Bool"
        case null = "Null"
    }

    var test: Test
    var ifExists: Bool
    /// Lower case, for condition keys are compared so.
    var key: String
    var values: [String]

    static func read(_ name: String, _ tests: JSONValue) throws -> [PolicyCondition] {
        let ifExists = name.hasSuffix("IfExists")
        guard let test = Test(rawValue: ifExists ? String(name.dropLast(8)) : name), test != .null || !ifExists else {
            throw FieldReader.Problem(description: "policy condition operator \(name) is not known")
        }
        guard case .object(let keys) = tests else {
            throw FieldReader.Problem(description: "policy condition \(name) must be an object")
        }
        return try keys.map { key, value in
            guard let values = value.strings else {
                throw FieldReader.Problem(description: "policy condition \(name) \(key) must be a value or a list")
            }
            return PolicyCondition(test: test, ifExists: ifExists, key: key.lowercased(), values: values)
        }
    }

    /// A missing key fails the positive operators and passes the negated ones, as in IAM.
    func holds(in context: [String: String]) -> Bool {
        let actual = context[key]
        if test == .null {
            return values.contains { ($0.lowercased() == "true") == (actual == nil) }
        }
        guard let actual else { return ifExists || isNegated }
        return isNegated ? values.allSatisfy { holds(actual, $0) } : values.contains { holds(actual, $0) }
    }

    private var isNegated: Bool { test.rawValue.contains("Not") }

    private func holds(_ actual: String, _ wanted: String) -> Bool {
        switch test {
        case .stringEquals: actual == wanted
        case .stringNotEquals: actual != wanted
        case .stringEqualsIgnoreCase, .bool: actual.lowercased() == wanted.lowercased()
        case .stringNotEqualsIgnoreCase: actual.lowercased() != wanted.lowercased()
        case .stringLike: wildcard(wanted, matches: actual)
        case .stringNotLike: !wildcard(wanted, matches: actual)
        case .numericEquals: numbers(actual, wanted, ==)
        case .numericNotEquals: numbers(actual, wanted, !=)
        case .numericLessThan: numbers(actual, wanted, <)
        case .numericLessThanEquals: numbers(actual, wanted, <=)
        case .numericGreaterThan: numbers(actual, wanted, >)
        case .numericGreaterThanEquals: numbers(actual, wanted, >=)
        case .dateLessThan: dates(actual, wanted, <)
        case .dateLessThanEquals: dates(actual, wanted, <=)
        case .dateGreaterThan: dates(actual, wanted, >)
        case .dateGreaterThanEquals: dates(actual, wanted, >=)
        case .null: false
        }
    }

    private func numbers(_ actual: String, _ wanted: String, _ compare: (Double, Double) -> Bool) -> Bool {
        guard let a = Double(actual), let w = Double(wanted) else { return false }
        return compare(a, w)
    }

    private func dates(_ actual: String, _ wanted: String, _ compare: (Double, Double) -> Bool) -> Bool {
        guard let a = Timestamp.parseISO(actual), let w = Timestamp.parseISO(wanted) else { return false }
        return compare(a.timeIntervalSince1970, w.timeIntervalSince1970)
    }
}
