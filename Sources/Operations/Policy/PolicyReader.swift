import BackupBase
import Yams

/// Reads YAML nodes against the table of keys. What is wrong is collected, and
/// reading goes on: all that is wrong with a file is told at once.
struct PolicyReader {
    let file: String
    /// Issues of a file that are kept: a thousand say that it is no policy.
    static let most = 1000
    private(set) var issues: [PolicyIssue] = []

    init(file: String) { self.file = file }

    mutating func complain(
        _ origin: PolicyOrigin, _ message: String, _ suggestion: String? = nil, _ severity: PolicyIssue.Severity = .error
    ) {
        guard issues.count < Self.most else { return }
        issues.append(
            PolicyIssue(file: file, severity: severity, origin: origin, message: message, suggestion: suggestion))
    }

    /// Nil where something is wrong with it; what, is in `issues`.
    mutating func read(_ node: Node, _ kind: PolicyKey.Kind, at path: String) -> PolicyNode? {
        let origin = Self.origin(node)
        let name = path.isEmpty ? "the file" : path
        guard node.anchor == nil, !Self.hasTag(node) else {
            complain(origin, "a tag or an anchor stands before \(name)", "write the value alone")
            return nil
        }
        if case .scalar(let scalar) = node, scalar.style == .plain, ["", "~", "null", "Null", "NULL"].contains(scalar.string) {
            complain(origin, "\(name) is empty", "leave the key out, or give \(kind.expectation)")
            return nil
        }
        switch (kind, node) {
        case (.reference, _): return reference(node, origin, path)
        case (.scalar(let type), .scalar(let scalar)):
            do throws(PolicyComplaint) {
                return PolicyNode(value: try type.value(of: scalar.string, isPlain: scalar.style == .plain), origin: origin)
            } catch {
                complain(origin, "\(path): \(error.message)", error.suggestion)
                return nil
            }
        case (.mapping(let keys, let exactlyOne), .mapping(let mapping)):
            return self.mapping(mapping, keys, exactlyOne, origin, path)
        case (.labels, .mapping(let mapping)): return labels(mapping, origin, path)
        case (.list(let element, let range), .sequence(let sequence)):
            guard range.contains(sequence.count) else {
                complain(origin, "\(path) has \(sequence.count) entries", "valid: \(range.lowerBound) to \(range.upperBound)")
                return nil
            }
            let elements = sequence.enumerated().map { read($1, element, at: "\(path)[\($0)]") }
            return elements.contains { $0 == nil } ? nil : PolicyNode(value: .list(elements.compactMap { $0 }), origin: origin)
        case (.list, .scalar(let scalar)):
            complain(origin, "\(name) is no list", "did you mean [\(printable(scalar.string.prefix(60).utf8))]?")
        default: complain(origin, "\(name) is \(Self.noun(node))", "give \(kind.expectation)")
        }
        return nil
    }

    // MARK: - Mappings

    private mutating func mapping(
        _ mapping: Node.Mapping, _ keys: [PolicyKey], _ exactlyOne: [String], _ origin: PolicyOrigin, _ path: String
    ) -> PolicyNode? {
        var found: [String: PolicyNode.Member] = [:]
        var seen: Set<String> = []
        var isWhole = true
        for (key, value) in mapping {
            guard let name = self.name(of: key, path) else {
                isWhole = false
                continue
            }
            guard let known = keys.first(where: { $0.name == name }) else {
                unknown(name, Self.origin(key), keys, path)
                isWhole = false
                continue
            }
            seen.insert(name)
            guard let node = read(value, known.kind, at: path.isEmpty ? name : "\(path).\(name)") else {
                isWhole = false
                continue
            }
            found[name] = PolicyNode.Member(name: name, node: node, mark: Self.origin(key))
        }
        for key in keys where key.isRequired && !seen.contains(key.name) {
            complain(
                origin, "\(path.isEmpty ? "the file" : path) has no \(shown(key.name))",
                "add '\(key.name):' with \(key.kind.expectation)")
            isWhole = false
        }
        let chosen = exactlyOne.filter(seen.contains)
        if !exactlyOne.isEmpty, chosen.count > 1 || chosen.isEmpty && isWhole {
            let names = exactlyOne.map { "'\($0)'" }
            complain(
                origin,
                chosen.isEmpty
                    ? "\(path) has none of \(names.joined(separator: " and "))"
                    : "\(path) has both \(names.joined(separator: " and "))",
                "give one of them")
            isWhole = false
        }
        guard isWhole else { return nil }
        return PolicyNode(value: .mapping(keys.compactMap { found[$0.name] ?? Self.standard($0, origin) }), origin: origin)
    }

    /// What a key that is left out means; nil where that is nothing.
    private static func standard(_ key: PolicyKey, _ place: PolicyOrigin) -> PolicyNode.Member? {
        var value: PolicyNode.Value?
        switch key.kind {
        case .scalar(let scalar): value = key.fallback.flatMap { try? scalar.value(of: $0, isPlain: true) }
        case .mapping(let keys, _) where key.isImplied: value = .mapping(keys.compactMap { standard($0, place) })
        default: break
        }
        return value.map { PolicyNode.Member(name: key.name, node: PolicyNode(value: $0, origin: .byDefault), mark: place) }
    }

    private mutating func name(of key: Node, _ path: String) -> String? {
        guard case .scalar(let scalar) = key, key.anchor == nil else {
            complain(Self.origin(key), "a key in \(path.isEmpty ? "the file" : path) is \(Self.noun(key))", "a key is one word")
            return nil
        }
        return scalar.string
    }

    private mutating func unknown(_ name: String, _ origin: PolicyOrigin, _ keys: [PolicyKey], _ path: String) {
        let place = path.isEmpty ? "" : " in \(path)"
        guard issues.count < Self.most else { return }
        if name == "<<" { return complain(origin, "merge keys (<<) are refused", "write the values out") }
        let suggestion: String
        if let near = nearest(name, among: keys.map(\.name)) {
            suggestion = "did you mean '\(near)'?"
        } else if let other = PolicyKey.all.first(where: { $0.key.name == name }) {
            let above = other.path.split(separator: ".").dropLast().joined(separator: ".")
            suggestion = above.isEmpty ? "it belongs to the file's first level" : "it belongs to \(above)"
        } else {
            suggestion = "valid: \(keys.map(\.name).joined(separator: ", "))"
        }
        complain(origin, "unknown key \(shown(name))\(place)", suggestion)
    }

    private mutating func labels(_ mapping: Node.Mapping, _ origin: PolicyOrigin, _ path: String) -> PolicyNode? {
        guard mapping.count <= 64 else {
            complain(origin, "\(path) has \(mapping.count) entries", "valid: up to 64")
            return nil
        }
        var members: [PolicyNode.Member] = []
        for (key, value) in mapping {
            guard let name = self.name(of: key, path) else { return nil }
            guard let node = read(value, .scalar(.word), at: "\(path).\(printable(name.utf8))") else { return nil }
            members.append(PolicyNode.Member(name: name, node: node, mark: Self.origin(key)))
        }
        return PolicyNode(value: .mapping(members), origin: origin)
    }

    /// Values are never repeated in a message: they may be the secret itself.
    private mutating func reference(_ node: Node, _ origin: PolicyOrigin, _ path: String) -> PolicyNode? {
        let ways = "write {credential: NAME} or {file: /path}"
        guard case .mapping(let mapping) = node else {
            complain(origin, "\(path) is a secret, which never stands in a policy", ways)
            return nil
        }
        for (key, _) in mapping where ["env", "environment"].contains(key.scalar?.string) {
            complain(
                Self.origin(key), "\(path) is taken from the environment, which every program inherits that is started", ways)
            return nil
        }
        let count = issues.count
        guard let result = self.mapping(mapping, PolicyKey.reference, PolicyKey.reference.map(\.name), origin, path) else {
            for index in issues.indices.dropFirst(count) where issues[index].message.contains(": ") {
                let message = issues[index].message
                issues[index].message = String(message[..<message.firstRange(of: ": ")!.lowerBound]) + " is no place of a secret"
                issues[index].suggestion = ways
            }
            return nil
        }
        return result
    }

    // MARK: - Nodes

    static func origin(_ node: Node) -> PolicyOrigin {
        node.mark.map { .file(line: $0.line, column: $0.column) } ?? .file(line: 1, column: 1)
    }

    private static func noun(_ node: Node) -> String {
        switch node {
        case .scalar: "a single value"
        case .mapping: "a mapping of keys"
        case .sequence: "a list"
        case .alias: "an alias"
        }
    }

    /// Whether a tag is written before it. Quotes alone make the tag of texts.
    private static func hasTag(_ node: Node) -> Bool {
        switch node {
        case .scalar(let scalar):
            !(scalar.tag.description.isEmpty || scalar.style != .plain && scalar.tag.description == Tag.Name.str.rawValue)
        case .mapping(let mapping): !mapping.tag.description.isEmpty
        case .sequence(let sequence): !sequence.tag.description.isEmpty
        case .alias: true
        }
    }
}

extension PolicyKey.Kind {
    /// What belongs there, in words.
    var expectation: String {
        switch self {
        case .scalar(let scalar): scalar.expectation
        case .mapping(let keys, _):
            "a mapping of \(keys.prefix(3).map(\.name).joined(separator: ", "))\(keys.count > 3 ? ", …" : "")"
        case .list(let element, _): "a list, each entry \(element.expectation)"
        case .labels: "a mapping of names to texts"
        case .reference: "{credential: NAME} or {file: /path}"
        }
    }
}
