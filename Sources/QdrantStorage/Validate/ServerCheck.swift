/// One thing that was looked at on a running server, and how it was.
public struct ServerCheck: Sendable, Codable, Hashable {
    public enum Verdict: String, Sendable, Codable, CaseIterable {
        case pass
        /// Worth a look; nothing that forbids to go on.
        case warn
        case fail
    }

    public let name: String
    /// Nil for the cluster as a whole.
    public let collection: String?
    public let verdict: Verdict
    public let expected: String
    public let found: String
    /// What it means or what to do; may be empty.
    public let detail: String

    /// Characters of one field at the most: names and errors are the server's own.
    static let textLimit = 600

    public init(
        _ name: String, of collection: String? = nil, _ verdict: Verdict, expected: String, found: String, detail: String = ""
    ) {
        func bounded(_ text: String) -> String { text.count > Self.textLimit ? text.prefix(Self.textLimit) + "…" : text }
        self.name = name
        self.collection = collection
        self.verdict = verdict
        self.expected = bounded(expected)
        self.found = bounded(found)
        self.detail = bounded(detail)
    }

    /// Of two values that have to be the same.
    static func equal<Value: Equatable>(
        _ name: String, of collection: String? = nil, _ expected: Value, _ found: Value, detail: String = ""
    ) -> ServerCheck {
        let same = expected == found
        return ServerCheck(
            name, of: collection, same ? .pass : .fail, expected: "\(expected)", found: "\(found)", detail: same ? "" : detail)
    }

    /// One sentence: what is wrong.
    public var reason: String {
        let place = collection.map { "\(name) of \($0)" } ?? name
        return "\(place): \(expected) expected, \(found) found" + (detail.isEmpty ? "" : " (\(detail))")
    }
}

extension [ServerCheck] {
    /// The worst of all.
    public var verdict: ServerCheck.Verdict {
        contains { $0.verdict == .fail } ? .fail : contains { $0.verdict == .warn } ? .warn : .pass
    }
}

extension Array {
    /// "a, b, c and 4 more"
    func listed(_ most: Int = 5) -> String {
        let shown = prefix(most).map { "\($0)" }.joined(separator: ", ")
        return count > most ? "\(shown) and \(count - most) more" : shown
    }
}
