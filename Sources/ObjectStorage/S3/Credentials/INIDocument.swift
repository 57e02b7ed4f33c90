import BackupBase

/// Sections of `name = value` lines, as the AWS tools write and read them (AWS
/// SDKs and Tools Reference Guide, "Shared config and credentials files"; where
/// that leaves something open, as Python's configparser does it, on which the AWS
/// CLI stands). Every value is held as a secret, since most files have one.
struct INIDocument: Sendable {
    /// By the text between the brackets, without the spaces around it.
    private(set) var sections: [String: [String: SecretText]] = [:]

    /// What is wrong with a line; never what the line says.
    struct Malformed: Error {
        var line: Int
        var what: String
    }

    init() {}

    init(_ bytes: [UInt8]) throws {
        guard let text = String(validating: bytes, as: UTF8.self) else { throw Malformed(line: 1, what: "is not UTF-8 text") }
        var reader = Reader()
        let scalars = text.unicodeScalars.drop { $0 == "\u{feff}" }
        for (number, line) in scalars.split(separator: "\n", omittingEmptySubsequences: false).enumerated() {
            try reader.take(String(line), number: number + 1)
        }
        sections = reader.sections
    }

    private struct Reader {
        var sections: [String: [String: SecretText]] = [:]
        var section: String?
        /// How far the section's latest `name = value` was indented: what is indented
        /// further belongs to that name ("s3 =" and its own names below it).
        var indentation: Int?

        mutating func take(_ line: String, number: Int) throws {
            let text = line.trimmingSpace()
            guard let first = text.first, first != "#", first != ";" else { return }
            let indentation = line.utf8.prefix { $0 == 0x20 || $0 == 0x09 }.count
            if let above = self.indentation, indentation > above { return }
            if first == "[" { return try header(text, number) }
            guard let section else { throw Malformed(line: number, what: "stands before any section") }
            guard let separator = text.firstIndex(where: { $0 == "=" || $0 == ":" }) else {
                throw Malformed(line: number, what: "is neither a section nor 'name = value'")
            }
            self.indentation = indentation
            let name = text[..<separator].trimmingSpace().lowercased()
            sections[section]![name] = SecretText(text[text.index(after: separator)...].trimmingSpace())
        }

        /// A section that comes again goes on: later values win.
        private mutating func header(_ text: String, _ number: Int) throws {
            guard let end = text.firstIndex(of: "]") else {
                throw Malformed(line: number, what: "opens a section and does not close it")
            }
            let name = text[text.index(after: text.startIndex)..<end].trimmingSpace()
            section = name
            indentation = nil
            if sections[name] == nil { sections[name] = [:] }
        }
    }
}
