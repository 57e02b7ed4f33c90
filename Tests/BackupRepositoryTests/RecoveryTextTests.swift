import BackupBase
import Foundation
import Testing

@testable import BackupRepository

/// What is typed from a printed sheet comes back, or the line with the typo is named.
@Suite(CheapPasswords()) struct RecoveryTextTests {
    private static let password = Array("a sheet's own".utf8)

    private func export(_ generations: Int = 1) throws -> (KeyRing, KeyExport) {
        var ring = KeyRing.generate(repository: .random(.system))
        for _ in 1..<generations { ring = ring.rotated() }
        return (ring, try KeyExport(ring, password: Self.password, location: "/r", by: nil))
    }

    private func numbered(_ lines: [String]) -> String { lines.enumerated().map { "\($0 + 1) \($1)\n" }.joined() }

    @Test(arguments: [1, 2, 3, 7, KeyPair.most]) func `lines come back as the key they were made of`(_ generations: Int) throws {
        let (ring, export) = try export(generations)
        let lines = RecoveryText.lines(export)
        #expect(lines.allSatisfy { $0.count == 34 } && lines.count == (53 + 64 * generations + 16 + 14) / 15)
        for text in [numbered(lines), lines.joined(separator: "\n"), "Key:\n\(numbered(lines))\nStep 1. Type it\n"] {
            // Without numbers nothing else may stand there.
            let back = try RecoveryText.read(text)
            #expect(try back.open(password: Self.password).secrets == ring.secrets)
            #expect(back.repository == export.repository && back.created == export.created)
        }
        #expect(throws: BackupError.self) { try RecoveryText.read(numbered(lines)).open(password: [1]) }
    }

    @Test func `case, blanks, dashes and letters that look like digits do not matter`() throws {
        let (ring, export) = try export()
        let lines = RecoveryText.lines(export)
        let forms: [(String) -> String] = [
            { $0.lowercased() }, { $0.replacingOccurrences(of: " ", with: "") }, { $0.replacingOccurrences(of: " ", with: "-") },
            { $0.replacingOccurrences(of: " ", with: " \t  ") + "  " },
            { $0.replacingOccurrences(of: "0", with: "O").replacingOccurrences(of: "1", with: "l") },
            { $0.replacingOccurrences(of: "0", with: "o").replacingOccurrences(of: "1", with: "I") },
        ]
        for form in forms {
            #expect(try RecoveryText.read(numbered(lines.map(form))).open(password: Self.password).secrets == ring.secrets)
        }
        let crlf = lines.enumerated().map { "\($0 + 1): \($1)\r\n\r\n" }.joined()
        #expect(try RecoveryText.read(crlf).open(password: Self.password).secrets == ring.secrets)
        let shuffled = lines.enumerated().map { "\($0 + 1). \($1)\n" }.reversed().joined()
        #expect(try RecoveryText.read(shuffled).open(password: Self.password).secrets == ring.secrets)
    }

    private func problem(_ lines: [String]) -> String {
        do {
            _ = try RecoveryText.read(numbered(lines))
            return ""
        } catch {
            return "\(error)"
        }
    }

    @Test func `every wrong character is noticed, and its line named, mostly its group too`() throws {
        let (_, export) = try export()
        let lines = RecoveryText.lines(export)
        var located = 0
        var tried = 0
        for number in lines.indices {
            for place in lines[number].indices where lines[number][place] != " " {
                let now = lines[number][place]
                let other = try #require("0123456789ABCDEFGHJKMNPQRSTVWXYZ".filter { $0 != now }.randomElement())
                var changed = lines
                changed[number].replaceSubrange(place...place, with: [other])
                let text = problem(changed)
                #expect(text.contains("line \(number + 1) ") && !text.contains("line \(number + 2) "), "\(text)")
                tried += 1
                let group = lines[number].distance(from: lines[number].startIndex, to: place) / 5 + 1
                if text.contains("group \(group)") { located += 1 }
                #expect(!text.contains("in group") || text.contains("in group \(group)"), "\(text)")
            }
        }
        #expect(Double(located) > 0.8 * Double(tried), "\(located) of \(tried)")
    }

    @Test func `swapped characters, lines that are short, long, missing, doubled or exchanged are named`() throws {
        let (_, export) = try export()
        let lines = RecoveryText.lines(export)
        var changed = lines
        changed[2].removeLast()
        #expect(problem(changed).contains("line 3 has 27 characters instead of 28"))
        changed = lines
        changed[2] += "0"
        changed[4] = changed[4].replacingOccurrences(of: " ", with: "U")
        #expect(problem(changed).contains("line 3 has 29 characters") && problem(changed).contains("line 5 has 'U'"))
        changed = lines
        changed.swapAt(0, 1)
        #expect(problem(changed).contains("line 1 does not fit") && problem(changed).contains("line 2 does not fit"))
        let text = numbered(lines)
        func read(_ text: String) -> String {
            do {
                _ = try RecoveryText.read(text)
                return ""
            } catch { return "\(error)" }
        }
        #expect(read(text.replacingOccurrences(of: "\n4 ", with: "\nx ")).contains("line 4 is missing"))
        #expect(read(text + "4 \(lines[3])\n").contains("line 4 is there twice"))
        #expect(read(numbered(Array(lines.dropLast()))).contains("\(lines.count - 1) lines of \(lines.count)"))
        #expect(read("").contains("no line") && read("1 \n2\n") != "" && read(String(repeating: "A\n", count: 5000)) != "")
        #expect(read("1 \(lines[0])\n99 \(lines[0])\n").contains("line 2 is missing"))
        // Neighbours exchanged, the commonest slip of all.
        for number in lines.indices {
            var letters = Array(lines[number])
            guard
                let place = letters.indices.dropLast().first(where: {
                    letters[$0] != letters[$0 + 1] && letters[$0] != " " && letters[$0 + 1] != " "
                })
            else { continue }
            letters.swapAt(place, place + 1)
            changed = lines
            changed[number] = String(letters)
            #expect(problem(changed).contains("line \(number + 1) does not fit"))
        }
    }

    @Test func `an export is refused where it is none, and opens with its password only`() throws {
        let (ring, export) = try export(2)
        let bytes = try export.bytes
        #expect(try KeyExport(parsing: bytes).open(password: Self.password).secrets == ring.secrets)
        for bad in [
            [], Array("{}".utf8), Array("bgbackup-writer-key-1\n".utf8), bytes.dropLast(20),
            [UInt8](repeating: 0x20, count: 70_000),
        ] {
            #expect { try KeyExport(parsing: Array(bad)) } throws: { ($0 as? BackupError)?.code == .usage }
        }
        #expect { try export.open(password: [1]) } throws: { ($0 as? BackupError)?.code == .wrongPassword }
        // Out of bounds, or altered anywhere: no key comes of it.
        for (from, to) in [("\"n\" : 4096", "\"n\" : 1073741824"), ("\"r\" : 1", "\"r\" : 4096")] {
            let text = String(decoding: bytes, as: UTF8.self).replacingOccurrences(of: from, with: to)
            #expect(text != String(decoding: bytes, as: UTF8.self))
            #expect { try KeyExport(parsing: Array(text.utf8)).open(password: Self.password) } throws: {
                ($0 as? BackupError)?.code == .damaged
            }
        }
    }
}
