import BackupBase
import Foundation
import Glibc
import TestSupport
import Testing

@testable import Operations

@Suite(.timeLimit(.minutes(2))) struct HostilePolicyTests {
    private func errors(_ text: String) -> [String] { PolicyFile(path: "p", text: text).errors.map { "\($0)" } }

    @Test func `references that multiply are refused before they do`() {
        var text = "a0: &a0 [x, x]\n"
        for level in 1..<60 { text += "a\(level): &a\(level) [*a\(level - 1), *a\(level - 1)]\n" }
        // As a key it would be hashed, whole.
        text += "? *a59\n: 1\n"
        let clock = ContinuousClock()
        let time = clock.measure { #expect(errors(text).first?.hasPrefix("p:1:5: anchors and aliases") == true) }
        #expect(time < .seconds(1))
    }

    @Test(arguments: [
        "{\"a\":&x 1}", "- &x 1", "[1,&x 2]", "? &x a\n: b", "a: # c\u{2028}b: &x 1", "\u{FEFF}&x a: 1", "k: 'it''s' \nb: \t&x 1",
    ])
    func `an anchor is found wherever one can be`(text: String) {
        #expect(errors(text).count == 1)
        #expect(errors(text)[0].contains("anchors and aliases"), "\(errors(text))")
    }

    @Test(arguments: ["# R &D", "   # see &x", "a: s3://b?x=1&y=2", "a: \"x & y\"", "a: b && c", "a: R&D"])
    func `an ampersand alone is no anchor`(text: String) {
        #expect(!errors(text).contains { $0.contains("anchors") }, "\(errors(text))")
    }

    @Test(arguments: [
        String(repeating: "[", count: 500_000), String(repeating: "{a: ", count: 200_000),
        String(repeating: "- ", count: 500_000),
        String(repeating: "? ", count: 500_000), String(repeating: "[", count: 990) + String(repeating: "]", count: 990),
        String(repeating: "- ", count: 990) + "x", (0..<1200).map { String(repeating: " ", count: $0) + "a:\n" }.joined(),
    ])
    func `nesting ends in an error, not in the stack`(text: String) async {
        // As the commands do: on a thread of the executor, with its stack.
        let executor = BlockingExecutor(threads: 1)
        let found = await Task(executorPreference: executor) { errors(text) }.value
        #expect(found.count >= 1 && found.allSatisfy { $0.utf8.count < 400 })
    }

    @Test func `of twenty thousand wrong keys a thousand are told, and soon`() {
        let text = WrongPolicy.local + "\n" + (0..<20_000).map { "  key\($0): x\n" }.joined()
        let clock = ContinuousClock()
        let time = clock.measure { #expect(errors(text).count == 1000) }
        #expect(time < .seconds(10))
    }

    @Test(arguments: [
        "", "\n\n", "# only a comment\n", "---\n", "x", "[]", "- a", "\u{0}", "a: \u{1}", "%YAML 1.1\n---\na: b", "null", "'",
    ])
    func `what is no policy at all is one error`(text: String) { #expect(errors(text).count >= 1, "\(errors(text))") }

    /// Cut anywhere, with any byte changed: an error or a policy, never a crash.
    @Test(arguments: Examples.names) func `damage of any kind is an error or nothing`(name: String) throws {
        let whole = Array(try Examples.text(name).utf8)
        for end in stride(from: 0, to: whole.count, by: 7) {
            if let text = String(validating: whole[..<end], as: UTF8.self) { _ = errors(text) }
        }
        var state: UInt64 = 20_261_127
        func next(_ limit: Int) -> Int {
            state = state &* 6_364_136_223_846_793_005 &+ 1_442_695_040_888_963_407
            return Int(state >> 33) % limit
        }
        let odd = Array("\t\n :-?{}[]&*!|>'\"%@`#,~0\\".utf8)
        for _ in 0..<400 {
            var bytes = whole
            for _ in 0...next(4) {
                let place = next(bytes.count)
                switch next(3) {
                case 0: bytes[place] = odd[next(odd.count)]
                case 1: bytes.insert(odd[next(odd.count)], at: place)
                default: bytes.remove(at: place)
                }
            }
            guard let text = String(validating: bytes, as: UTF8.self) else { continue }
            for error in errors(text) { #expect(!error.contains("\n") && error.hasPrefix("p:"), "\(error)") }
        }
    }

    @Test func `files are bounded, and must be files of text`() throws {
        let directory = try TemporaryDirectory("policy")
        func write(_ name: String, _ bytes: [UInt8]) throws -> String {
            try Data(bytes).write(to: URL(filePath: directory(name)))
            return directory(name)
        }
        let large = try PolicyFile(path: try write("large", [UInt8](repeating: 0x20, count: (1 << 20) + 1)))
        #expect(large.errors.map(\.message) == ["the file is larger than 1 MiB"])
        let latin = try PolicyFile(path: try write("latin", Array("a: ".utf8) + [0xE9, 0x0A]))
        #expect(latin.errors.map(\.message) == ["the file is no UTF-8 text"])
        #expect(throws: BackupError.self) { try PolicyFile(path: directory("missing")) }
        #expect(throws: BackupError.self) { try PolicyFile(path: directory.path) }
        mkfifo(directory("pipe"), 0o600)
        #expect(throws: BackupError.self) { try PolicyFile(path: directory("pipe")) }
        #expect(throws: BackupError.self) { try PolicyFile(path: "/dev/null") }
    }

    @Test func `a policy that would not fit into a snapshot is refused`() {
        let tags = (0..<32).map { "\"\(String(repeating: "t", count: 250))\($0)\"" }.joined(separator: ", ")
        let schedules = (0..<31).map { "    - {name: s\($0), onCalendar: daily, tags: [\(tags)]}\n" }.joined()
        let file = PolicyFile(path: "p", text: WrongPolicy.local + "\n" + schedules)
        #expect(
            file.policy == nil && file.errors.map(\.message) == ["the policy is longer than 64 KiB, and each snapshot stores it"])
    }
}
