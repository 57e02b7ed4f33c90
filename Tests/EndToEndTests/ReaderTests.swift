import Foundation
import TestSupport
import Testing

/// The reader was written from docs/format.md alone: what it makes of a
/// repository is what the document says.
@Suite("The independent reader", .enabled(if: Reader.python != nil, "needs Python with the cryptography module"))
struct ReaderTests {
    let catalog: Catalog

    init() throws { catalog = try Catalog.shared.get() }

    @Test func `It lists the snapshots as the program does`() throws {
        let listed = try Reader.list(catalog.workspace)
        #expect(listed.compactMap { $0["id"] as? String } == [catalog.first, catalog.other, catalog.second])
        let shown = try catalog.workspace.show(catalog.second).fields
        let read = try #require(listed.last)
        for name in ["volume", "node", "parent", "started", "finished", "agent", "lineage", "kind"] {
            #expect(read[name] as? String == shown[name] as? String, "\(name)")
        }
        #expect(read["statistics"] as? [String: Int] == shown["statistics"] as? [String: Int])
    }

    @Test func `It lists the paths of a snapshot as the program does`() throws {
        let result = try Reader.run(catalog.workspace, catalog.first)
        let paths = try result.output.split(separator: "\n").map {
            try JSONSerialization.jsonObject(with: Data($0.utf8), options: .fragmentsAllowed) as? String
        }
        // The root's path is empty, as in the format; `ls` leaves the root out, and escapes control characters too.
        let listed = try catalog.workspace.list(catalog.first).map { $0.replacing("\\x0a", with: "\n") }
        #expect(paths == [""] + listed)
    }

    @Test func `It extracts each snapshot identical to the volume at its time`() throws {
        for (snapshot, source) in [(catalog.first, catalog.before), (String(catalog.second.prefix(8)), catalog.after)] {
            let target = catalog.workspace.path("read-\(snapshot)")
            let result = try Reader.run(catalog.workspace, snapshot, target)
            #expect(result.status == 0, "\(result.errors)")
            try expectIdentical(source, target)
        }
    }

    @Test func `It extracts the image of a device snapshot`() throws {
        let workspace = try Workspace.ready("reader")
        let files = try Volume(workspace.path("files"))
        try files.write("image", noise(300_000, seed: 4), at: 777_777, size: 5_000_001)
        try workspace.backup(files("image"))
        let target = workspace.path("target")
        let result = try Reader.run(workspace, "latest", target)
        #expect(result.status == 0, "\(result.errors)")
        #expect(try Volume(target).read("image") == files.read("image"))
    }

    @Test func `It refuses a wrong password with exit 12 and a used target with 15`() throws {
        var other = catalog.workspace
        other.environment["BGBACKUP_PASSWORD_FILE"] = other.path("writer-key")
        #expect(try Reader.run(other).status == 12)
        #expect(try Reader.run(catalog.workspace, "latest", catalog.before).status == 15)
    }
}

/// `docs/bgbackup_reader.py`.
enum Reader {
    static let python = Program.pythonWithCryptography

    /// It reads directories: of an S3 repository it gets a copy.
    /// - Parameter more: nothing to list the snapshots, one to list its paths, and a target to extract it
    static func run(_ workspace: Workspace, _ more: String...) throws -> Program.Result {
        let copy = try workspace.server.map { _ in try TemporaryDirectory("objects") }
        if let copy { try workspace.store.download(to: copy.path) }
        let repository = [copy?.path ?? workspace.repository, workspace.environment["BGBACKUP_PASSWORD_FILE"]!]
        return try Program.run("/usr/bin/env", [python!, Program.root + "docs/bgbackup_reader.py"] + repository + more)
    }

    /// The records of all snapshots.
    static func list(_ workspace: Workspace, sourceLocation: SourceLocation = #_sourceLocation) throws -> [[String: Any]] {
        let result = try run(workspace)
        try #require(result.status == 0, "\(result.errors)", sourceLocation: sourceLocation)
        return try result.output.split(separator: "\n").map {
            try #require(try JSONSerialization.jsonObject(with: Data($0.utf8)) as? [String: Any])
        }
    }
}
