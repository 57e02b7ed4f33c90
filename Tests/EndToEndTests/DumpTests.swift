import Foundation
import TestSupport
import Testing

@Suite("One file of a snapshot on standard output")
struct DumpTests {
    let catalog: Catalog
    var workspace: Workspace { catalog.workspace }

    init() throws { catalog = try Catalog.shared.get() }

    @Test(arguments: [
        "collections/c/config.json", "collections/c/0/segments/s/vector_storage/matrix.dat", Catalog.sparse, Catalog.indirect,
        "empty",
    ])
    func `It is the file, byte for byte`(path: String) throws {
        let original = try Data(contentsOf: URL(filePath: "\(catalog.before)/\(path)"))
        #expect(try workspace.expect(0, ["dump", catalog.first, path]).outputBytes == original)
    }

    @Test func `Each snapshot gives its own`() throws {
        let log = "collections/c/0/wal/open-1"
        #expect(try workspace.dump(catalog.first, log) == noise(70_000, seed: 3))
        #expect(try workspace.dump(catalog.second, log) == Volume(catalog.after).read(log))
    }

    @Test func `A hard link gives the file's content, and slashes at the ends do not matter`() throws {
        #expect(try workspace.dump(catalog.first, "name-two") == Array("{\"params\": 1}\n".utf8))
        #expect(try workspace.dump(catalog.first, "/./name-two/") == Array("{\"params\": 1}\n".utf8))
    }

    @Test(arguments: ["collections", "pointer", "missing", "collections/c/config", ""])
    func `What is no file is refused and nothing is printed`(path: String) throws {
        let result = try workspace.expect(1, ["dump", catalog.first, path, "--json"])
        #expect(result.summary["code"] as? String == "no-such-path")
        #expect(result.output.split(separator: "\n").count == 1)
        #expect(result.errors.contains("bgbackup ls"))
    }

    @Test func `A full disk behind standard output is an error, a reader that had enough is not heard of`() throws {
        func shell(_ words: String) throws -> Program.Result {
            try Program.run(
                "/bin/bash",
                ["-c", words, Program.binary, catalog.first, "collections/c/0/segments/s/vector_storage/matrix.dat"],
                environment: workspace.environment)
        }
        let full = try shell("exec \"$0\" dump \"$1\" \"$2\" > /dev/full")
        #expect(full.status == 1)
        #expect(full.errors.contains("standard output"))
        let cut = try shell("\"$0\" dump \"$1\" \"$2\" | head -c 10 | wc -c")
        #expect(cut.output == "10\n")
        let listed = try shell("\"$0\" ls \"$1\" | head -n 1 | wc -l")
        #expect(listed.output == "1\n")
        #expect(listed.errors == "")
    }
}
