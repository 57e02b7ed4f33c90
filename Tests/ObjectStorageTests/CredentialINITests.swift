import BackupBase
import Testing

@testable import ObjectStorage

@Suite struct CredentialINITests {
    private func parse(_ text: String) throws -> [String: [String: String]] {
        try INIDocument(Array(text.utf8)).sections.mapValues { $0.mapValues { $0.reveal() } }
    }

    @Test func `names and values are read without the spaces around them, whatever ends the lines`() throws {
        for end in ["\n", "\r\n"] {
            let text = [
                "\u{feff}# a comment", "; another", "[default]", "aws_access_key_id=AKIA", "REGION \t =  eu-central-1\t",
                "empty =",
                "", "[ profile a b ] # why", "credential_process = /bin/x --a=b # no comment", "colon: value",
            ].joined(separator: end)
            #expect(
                try parse(text) == [
                    "default": ["aws_access_key_id": "AKIA", "region": "eu-central-1", "empty": ""],
                    "profile a b": ["credential_process": "/bin/x --a=b # no comment", "colon": "value"],
                ])
        }
    }

    @Test func `names of their own below a name are passed over`() throws {
        let text = """
            [default]
            s3 =
              region = wrong
              [nested]
            \tmax_concurrent_requests = 20
            region = right
              # comment
                continued
            [other]
                indented = all
                region = also
            """
        #expect(try parse(text) == ["default": ["s3": "", "region": "right"], "other": ["indented": "all", "region": "also"]])
    }

    @Test func `a section that comes twice is one, and later values win`() throws {
        #expect(
            try parse("[a]\nx=1\ny=1\n[b]\nx=5\n[a]\ny=2\nz=3\n") == ["a": ["x": "1", "y": "2", "z": "3"], "b": ["x": "5"]])
    }

    @Test(
        arguments: [
            ("x = canary", 1, "stands before any section"), ("[a]\n\ncanary", 3, "is neither a section nor 'name = value'"),
            ("[a]\n[canary\n", 2, "opens a section and does not close it"),
        ])
    func `a wrong line is named by its number and never shown`(_ text: String, _ line: Int, _ what: String) {
        let error = #expect(throws: INIDocument.Malformed.self) { try parse(text) }
        #expect(error?.line == line && error?.what == what)
    }

    @Test func `bytes that are no text are refused`() {
        #expect(throws: INIDocument.Malformed.self) { try INIDocument([0x5b, 0x61, 0x5d, 0x0a, 0xff, 0x3d]) }
    }

    @Test(
        arguments: [
            ("a b", ["a", "b"]), ("  a\t b\n", ["a", "b"]), ("'a b' \"c d\"", ["a b", "c d"]), ("a'b'\"c\"", ["abc"]),
            ("\"a\\\"b\\\\c\\d\"", ["a\"b\\c\\d"]), ("'a\\b'", ["a\\b"]), ("a\\ b \\'", ["a b", "'"]), ("'' x", ["", "x"]),
            ("a # b", ["a", "#", "b"]), ("$HOME ~ | &&", ["$HOME", "~", "|", "&&"]), ("", []),
        ] as [(String, [String])])
    func `a command is split as Python's shlex does it`(_ text: String, _ words: [String]) throws {
        #expect(try ShellWords.split(text) == words)
    }

    @Test(arguments: ["'a", "a\"b", "a\\", "\"a\\\""]) func `a command that stops in the middle is refused`(_ text: String) {
        #expect(throws: ShellWords.Malformed.self) { try ShellWords.split(text) }
    }
}
