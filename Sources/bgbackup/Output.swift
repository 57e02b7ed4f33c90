import BackupBase
import FoundationEssentials
import Glibc

/// An optional that JSON shows as null instead of leaving it out.
struct Nullable<Value: Encodable>: Encodable {
    let value: Value?

    init(_ value: Value?) { self.value = value }

    func encode(to encoder: any Encoder) throws {
        var container = encoder.singleValueContainer()
        if let value { try container.encode(value) } else { try container.encodeNil() }
    }
}

/// What stands on stdout (results) and stderr (messages).
enum Output {
    nonisolated(unsafe) private static var json = false  // Set once, before the command runs.

    static func useJSON(_ on: Bool) { json = on }

    static func line(_ text: String) { write(text + "\n", to: STDOUT_FILENO) }

    /// One JSON document, or one line of JSON Lines.
    /// - Parameter snakeCase: whether names get their underscores here
    static func document(_ value: some Encodable, lines: Bool = false, snakeCase: Bool = false) throws {
        let encoder = JSONEncoder()
        if snakeCase { encoder.keyEncodingStrategy = .convertToSnakeCase }
        encoder.outputFormatting =
            lines ? [.sortedKeys, .withoutEscapingSlashes] : [.sortedKeys, .withoutEscapingSlashes, .prettyPrinted]
        line(String(decoding: try encoder.encode(value), as: UTF8.self))
    }

    struct ErrorLine: Encodable {
        let message_type = "error"
        let schema = 1
        let code: String
        let exit_status: Int32
        let message: String
        let hint: String?
    }

    /// The error that was told last: what an exit status stands for.
    static var lastReported: BackupError? { reported.withLock { $0 } }
    private static let reported = Locked<BackupError?>(nil)

    static func report(_ error: BackupError) {
        reported.withLock { $0 = error }
        if json {
            try? document(
                ErrorLine(
                    code: error.code.rawValue, exit_status: error.code.exitStatus, message: error.description,
                    hint: error.hint), lines: true)
        }
        Terminal.note("bgbackup: \(error.description)", .error)
        if let hint = error.hint { Terminal.note("HINT: \(hint)", .error) }
    }

    /// Rows under headings, columns as wide as they need to be.
    static func table(_ headings: [String], _ rows: [[String]], right: Set<Int> = []) {
        let widths = headings.indices.map { column in
            ([headings] + rows).map { $0[column].unicodeScalars.count }.max() ?? 0
        }
        for row in [headings] + rows {
            let cells = row.enumerated().map { column, text in
                let space = String(repeating: " ", count: widths[column] - text.unicodeScalars.count)
                return right.contains(column) ? space + text : text + space
            }
            var joined = cells.joined(separator: "  ")
            while joined.hasSuffix(" ") { joined.removeLast() }
            line(joined)
        }
    }

    /// Throws when stdout is gone or full.
    static func bytes(_ bytes: UnsafeRawBufferPointer) throws {
        var done = 0
        while done < bytes.count {
            let written = Glibc.write(STDOUT_FILENO, bytes.baseAddress! + done, bytes.count - done)
            if written < 0, errno == EINTR { continue }
            guard written > 0 else {
                throw BackupError(.failed, "cannot write to standard output: \(String(cString: strerror(errno)))")
            }
            done += written
        }
    }

    fileprivate static func write(_ text: String, to descriptor: Int32) {
        var text = text
        text.withUTF8 { bytes in
            var done = 0
            while done < bytes.count {
                let written = Glibc.write(descriptor, bytes.baseAddress! + done, bytes.count - done)
                if written < 0, errno == EINTR { continue }
                if written <= 0 {
                    // Nobody reads any more: `bgbackup ls | head` is no failure worth words.
                    if descriptor == STDOUT_FILENO { exit(errno == EPIPE ? 128 + SIGPIPE : 1) }
                    return
                }
                done += written
            }
        }
    }
}

enum Terminal {
    static var isInteractive: Bool { isatty(STDERR_FILENO) == 1 }

    /// A message for people, on stderr; with its priority where that is the journal.
    static func note(_ text: String, _ priority: Journal.Priority = .notice) {
        ProgressLine.clear()
        Output.write((Journal.isStandardError ? Journal.marked(text, priority) : text) + "\n", to: STDERR_FILENO)
    }

    static func raw(_ text: String) { Output.write(text, to: STDERR_FILENO) }
}
