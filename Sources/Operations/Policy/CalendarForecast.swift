import BackupBase
import Subprocess
import SystemPackage

/// The next moments of a calendar expression, as systemd itself computes them.
public struct CalendarForecast: Sendable {
    /// As the node's clock shows them.
    public let local: [String]
    /// RFC 3339.
    public let moments: [String]
    /// As systemd writes the expression.
    public let normalized: String

    /// - Parameter count: moments, at most 1000
    /// - Throws: `BackupError` where there is no systemd-analyze, or it refuses the expression
    public init(_ expression: String, count: Int, environment: [String: String] = [:]) async throws {
        var variables: [Environment.Key: String?] = ["LC_ALL": "C", "SYSTEMD_COLORS": "0"]
        for (name, value) in environment { variables[Environment.Key(stringLiteral: name)] = value }
        let (status, output, errors): (TerminationStatus, String, String)
        do {
            let result = try await Subprocess.run(
                .name("systemd-analyze"), arguments: ["calendar", "--iterations=\(max(1, min(count, 1000)))", "--", expression],
                environment: .inherit.updating(variables), output: .string(limit: 1 << 20), error: .string(limit: 64 << 10))
            (status, output, errors) = (result.terminationStatus, result.standardOutput, result.standardError)
        } catch let error as SubprocessError {
            throw BackupError(
                .failed, "systemd-analyze cannot be run, which computes when a job runs next",
                hint: "Install systemd, or look at the expression in the policy.", cause: error)
        }
        guard status.isSuccess else {
            let reason = errors.split(separator: "\n").last.map { printable($0.utf8) } ?? ""
            throw BackupError(.wrongPolicy, "systemd refuses the calendar expression \(shown(expression)): \(reason)")
        }
        (normalized, local, moments) = Self.parse(output)
    }

    /// "Next elapse: Sat 2026-11-28 00:00:00 CET", and where that is not UTC "(in UTC): Fri 2026-11-27 23:00:00 UTC".
    static func parse(_ text: String) -> (String, [String], [String]) {
        var normalized = ""
        var local: [String] = []
        var moments: [String] = []
        for line in text.split(separator: "\n") {
            guard let colon = line.firstRange(of: ": ") else { continue }
            let name = line[..<colon.lowerBound].drop { $0 == " " }
            let value = line[colon.upperBound...]
            if name == "Normalized form" {
                normalized = String(value)
            } else if name == "Next elapse" || name.hasPrefix("Iter. #") {
                guard value != "never" else { continue }
                local.append(String(value))
                moments.append(moment(value))
            } else if name == "(in UTC)", !moments.isEmpty {
                moments[moments.count - 1] = moment(value)
            }
        }
        return (normalized, local, moments)
    }

    /// "Sat 2026-11-28 00:00:00 UTC" → "2026-11-28T00:00:00Z"
    private static func moment(_ text: Substring) -> String {
        let words = text.split(separator: " ")
        return words.count >= 3 ? "\(words[1])T\(words[2])Z" : String(text)
    }
}
