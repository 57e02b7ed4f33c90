import Testing

@testable import Operations

/// A policy that is right but for one line or block, and the one error that it must give.
struct WrongPolicy: Sendable, CustomTestStringConvertible {
    /// Replaced; after the last one, appended.
    let line: Int
    let text: String
    /// "LINE:COLUMN: message; suggestion"
    let expected: String
    /// Which of the two policies.
    let base: String

    init(_ line: Int, _ text: String, _ expected: String, base: String = WrongPolicy.local) {
        (self.line, self.text, self.expected, self.base) = (line, text, expected, base)
    }

    static func s3(_ line: Int, _ text: String, _ expected: String) -> WrongPolicy {
        WrongPolicy(line, text, expected, base: store)
    }

    static let local = """
        apiVersion: bgbackup.io/v1
        kind: BackupPolicy
        metadata:
          name: good
        spec:
          source:
            path: /var/lib/qdrant
          repository:
            url: /srv/backup
          schedules:
            - name: daily
              onCalendar: daily
              keepFor: 14d
        """
    static let store = """
        apiVersion: bgbackup.io/v1
        kind: BackupPolicy
        metadata:
          name: good
        spec:
          source:
            path: /var/lib/qdrant
          repository:
            url: s3://bucket/prefix
            s3:
              region: eu-central-1
          schedules:
            - {name: daily, onCalendar: daily, keepFor: 14d}
        """

    var yaml: String {
        var lines = base.split(separator: "\n", omittingEmptySubsequences: false).map(String.init)
        if line > lines.count { lines.append(text) } else { lines[line - 1] = text }
        return lines.joined(separator: "\n") + "\n"
    }
    var testDescription: String { "\(line): \(text.prefix(60))" }
}

@Suite(.timeLimit(.minutes(2))) struct WrongPolicyTests {
    @Test func `the two policies are right as they stand`() {
        for text in [WrongPolicy.local, WrongPolicy.store] {
            let file = PolicyFile(path: "p.yaml", text: text)
            #expect(file.policy != nil && file.errors.isEmpty && file.warnings.isEmpty, "\(file.errors) \(file.warnings)")
        }
    }

    @Test(arguments: WrongPolicy.syntax + WrongPolicy.keys + WrongPolicy.values + WrongPolicy.combinations)
    func `one mistake gives one error, where it is and with what to write`(wrong: WrongPolicy) {
        let file = PolicyFile(path: "p.yaml", text: wrong.yaml)
        #expect(file.errors.map { "\($0)" } == ["p.yaml:\(wrong.expected)"])
        #expect(file.policy == nil)
    }

    @Test func `there are more than sixty of them`() {
        let all = WrongPolicy.syntax + WrongPolicy.keys + WrongPolicy.values + WrongPolicy.combinations
        #expect(all.count > 100 && Set(all.map(\.yaml)).count == all.count)
    }

    @Test func `several mistakes are told at once, in the file's order`() {
        var text = WrongPolicy.local.replacing("path: /var", with: "path: var").replacing("14d", with: "14")
        text += "\n  drills: {}\n  retention: {keepLast: 0}\n"
        let places = PolicyFile(path: "p.yaml", text: text).errors.map { "\($0)".split(separator: " ").first.map(String.init) }
        #expect(places == ["p.yaml:7:11:", "p.yaml:13:16:", "p.yaml:14:3:", "p.yaml:15:25:"])
    }

    /// Typed where only a reference belongs: it must not get into a log.
    @Test(arguments: [
        "password: hunter2", "password: {value: hunter2}", "password: {env: hunter2}", "password: [hunter2]",
        "password: {file: hunter2}", "password: {credential: a/hunter2}", "writerKey: hunter2", "s3: {credentials: hunter2}",
        "url: https://user:hunter2@host/", "url: s3://key:hunter2@bucket/prefix",
    ])
    func `a secret in the wrong place is not repeated`(line: String) {
        let isURL = line.hasPrefix("url")
        let text = WrongPolicy.local.replacing(
            "    url: /srv/backup", with: isURL ? "    \(line)" : "    url: /srv/backup\n    \(line)")
        let errors = PolicyFile(path: "p.yaml", text: text).errors
        #expect(errors.count == 1)
        for error in errors { #expect(!"\(error)".contains("hunter2"), "\(error)") }
    }
}
