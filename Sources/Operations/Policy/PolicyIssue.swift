import BackupBase

/// Where a value of an effective policy comes from.
public enum PolicyOrigin: Sendable, Equatable, CustomStringConvertible {
    case byDefault
    /// Both count from 1; columns count Unicode scalars.
    case file(line: Int, column: Int)

    public var description: String {
        switch self {
        case .byDefault: "default"
        case .file(let line, _): "line \(line)"
        }
    }
}

/// One thing that is wrong with a policy file, or worth a warning.
public struct PolicyIssue: Sendable, Equatable, CustomStringConvertible {
    public enum Severity: String, Sendable, Encodable { case error, warning }

    public var file: String
    public var severity: Severity
    /// `byDefault` where it concerns the whole file.
    public var origin: PolicyOrigin
    public var message: String
    /// What to write instead.
    public var suggestion: String?

    public init(file: String, severity: Severity, origin: PolicyOrigin, message: String, suggestion: String?) {
        self.file = file
        self.severity = severity
        self.origin = origin
        self.message = message
        self.suggestion = suggestion
    }

    /// "FILE:LINE:COLUMN: message; suggestion", as compilers write it: editors jump there.
    public var description: String {
        var text = file
        if case .file(let line, let column) = origin { text += ":\(line):\(column)" }
        text += severity == .warning ? ": warning: " : ": "
        text += message
        if let suggestion { text += "; \(suggestion)" }
        return text
    }

    /// Errors of a file that are told.
    public static let most = 20
}

/// What is wrong with a value, before it has a place.
struct PolicyComplaint: Error, Equatable {
    var message: String
    var suggestion: String?

    init(_ message: String, _ suggestion: String? = nil) {
        self.message = message
        self.suggestion = suggestion
    }
}

/// What stands in a file, for a message: one line, not too long.
func shown(_ text: String) -> String {
    let short = text.unicodeScalars.count > 60 ? String(String.UnicodeScalarView(text.unicodeScalars.prefix(60))) + "…" : text
    return "'\(printable(short.utf8))'"
}

/// The name that was probably meant; nil where none is near.
public func nearest(_ text: String, among names: [String]) -> String? {
    let lowered = text.lowercased()
    if let same = names.first(where: { $0.lowercased() == lowered }) { return same }
    let best = names.map { ($0, editDistance($0.lowercased(), lowered)) }.min { $0.1 < $1.1 }
    guard let (name, distance) = best, distance <= max(1, min(text.count, name.count) / 3) else { return nil }
    return name
}

/// Edits from one word to the other (Levenshtein).
private func editDistance(_ one: String, _ two: String) -> Int {
    let (first, second) = (Array(one.utf8.prefix(64)), Array(two.utf8.prefix(64)))
    var row = Array(0...second.count)
    for (index, byte) in first.enumerated() {
        var diagonal = row[0]
        row[0] = index + 1
        for column in second.indices {
            let above = row[column + 1]
            row[column + 1] = min(above + 1, row[column] + 1, diagonal + (byte == second[column] ? 0 : 1))
            diagonal = above
        }
    }
    return row[second.count]
}
