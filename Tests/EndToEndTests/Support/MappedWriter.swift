import BackupBase
import Foundation
import TestSupport

/// A process that maps a file and stores into it when told, as the database
/// does: no msync, no close, until it goes away.
final class MappedWriter {
    private let process = Process()
    private let orders = Pipe()
    private let answers = Pipe()

    private static let script = """
        import mmap, os, sys
        file = os.open(sys.argv[1], os.O_RDWR)
        memory = mmap.mmap(file, 0, mmap.MAP_SHARED)
        print("ready", flush=True)
        for line in sys.stdin:
            offset, text = line.split()
            memory[int(offset):int(offset) + len(text)] = text.encode()
            print("stored", flush=True)
        """

    init(_ path: String) throws {
        process.executableURL = URL(filePath: "/usr/bin/env")
        process.arguments = ["python3", "-c", Self.script, path]
        process.standardInput = orders
        process.standardOutput = answers
        try process.run()
        try wait("ready")
    }

    /// Stores text at an offset and leaves the page dirty.
    func store(_ text: String, at offset: Int) throws {
        try orders.fileHandleForWriting.write(contentsOf: Data("\(offset) \(text)\n".utf8))
        try wait("stored")
    }

    private func wait(_ word: String) throws {
        var answer = ""
        while !answer.hasSuffix("\n") {
            let more = answers.fileHandleForReading.availableData
            if more.isEmpty { break }
            answer += String(decoding: more, as: UTF8.self)
        }
        if answer != word + "\n" { throw BackupError(.failed, "the mapping process said '\(answer)'") }
    }

    deinit {
        try? orders.fileHandleForWriting.close()
        process.waitUntilExit()
    }
}
