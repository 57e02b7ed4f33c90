import Foundation
import TestSupport
import Testing

@Suite("Progress is for terminals", .enabled(if: Program.hasTool("script"), "needs script of util-linux"))
struct ProgressTests {
    let workspace: Workspace
    let volume: Volume
    private static let clear = "\r\u{1b}[K"

    init() throws {
        workspace = try Workspace.ready("progress")
        volume = try Volume(workspace.path("volume"))
        try volume.writeRandom("matrix.dat", megabytes: 200)
        _ = try workspace.writerKey()
    }

    /// Runs a backup in a terminal of its own.
    private func terminal(_ words: String) throws -> String {
        let key = try workspace.writerKey()
        let command = "stty cols 100; '\(Program.binary)' backup '\(volume.path)' --writer-key '\(key)' --rescan \(words)"
        let result = try Program.tool(
            "script", ["-qec", command, "/dev/null"], environment: workspace.environment.merging(["SHELL": "/bin/sh"]) { $1 })
        try #require(result.status == 0, "\(result.output)")
        return result.output
    }

    @Test func `On a terminal a line shows bytes and rate, and goes away`() throws {
        let output = try terminal("")
        #expect(output.contains(Self.clear))
        #expect(output.contains("/s"))
        #expect(output.contains(/\d+%/))
        let last = try #require(output.range(of: Self.clear, options: .backwards))
        #expect(output[last.upperBound...].hasPrefix("snapshot "))
        for line in output.components(separatedBy: Self.clear) { #expect(line.prefix { $0 != "\r\n" }.count < 100) }
    }

    @Test(arguments: ["--no-progress", "--quiet", "2>/dev/null", "--json"])
    func `Not where it was not asked for`(words: String) throws {
        #expect(try !terminal(words).contains("\u{1b}"))
    }

    @Test func `Not into a file or a pipe`() throws {
        let result = try workspace.expect(0, ["backup", volume.path])
        #expect(!result.errors.contains("\u{1b}") && !result.output.contains("\u{1b}"))
        #expect(result.errors == "")
    }
}
