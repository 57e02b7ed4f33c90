import BackupBase
import Foundation
import TestSupport
import Testing

/// The summary or document that a command printed.
struct Summary {
    let fields: [String: Any]

    /// A number; fails the test where it is missing.
    func number(_ name: String, sourceLocation: SourceLocation = #_sourceLocation) throws -> Int64 {
        try #require((fields[name] as? NSNumber)?.int64Value, "no number '\(name)' in \(fields)", sourceLocation: sourceLocation)
    }

    func text(_ name: String, sourceLocation: SourceLocation = #_sourceLocation) throws -> String {
        try #require(fields[name] as? String, "no text '\(name)' in \(fields)", sourceLocation: sourceLocation)
    }

    var id: String { fields["snapshot_id"] as? String ?? "" }
    var problems: [String] { fields["problems"] as? [String] ?? [] }
}

extension Workspace {
    /// Runs `bgbackup` and requires this exit status.
    @discardableResult
    func expect(
        _ status: Int32, _ arguments: [String], extra: [String: String] = [:],
        sourceLocation: SourceLocation = #_sourceLocation
    ) throws -> Program.Result {
        let result = try run(arguments, extra: extra)
        try #require(
            result.status == status, "bgbackup \(arguments.joined(separator: " ")): \(result.errors)\(result.output.prefix(500))",
            sourceLocation: sourceLocation)
        return result
    }

    /// One backup with the writer key, as a node makes them; requires the exit
    /// status. Deriving a password's key takes 0.3 s in a debug build.
    @discardableResult
    func backup(
        _ path: String, _ more: String..., status: Int32 = 0, sourceLocation: SourceLocation = #_sourceLocation
    ) throws -> Summary {
        try backup(path, more, status, sourceLocation)
    }

    @discardableResult
    func backup(
        _ volume: Volume, _ more: String..., status: Int32 = 0, sourceLocation: SourceLocation = #_sourceLocation
    ) throws -> Summary {
        try backup(volume.path, more, status, sourceLocation)
    }

    private func backup(
        _ path: String, _ more: [String], _ status: Int32, _ sourceLocation: SourceLocation
    ) throws -> Summary {
        let key = try writerKey(sourceLocation: sourceLocation)
        let result = try expect(
            status, ["backup", path, "--json", "--writer-key", key] + more, sourceLocation: sourceLocation)
        return Summary(fields: result.summary)
    }

    /// The writer key's file, made at the first call.
    func writerKey(sourceLocation: SourceLocation = #_sourceLocation) throws -> String {
        let file = path("writer-key")
        if !FileManager.default.fileExists(atPath: file) {
            try expect(0, ["key", "export-writer", file], sourceLocation: sourceLocation)
        }
        return file
    }

    /// One restore onto `name` in the workspace; requires the exit status.
    @discardableResult
    func restore(
        _ snapshot: String, onto name: String = "restored", _ more: String..., status: Int32 = 0,
        sourceLocation: SourceLocation = #_sourceLocation
    ) throws -> Summary {
        let target = name.hasPrefix("/") ? name : path(name)
        let result = try expect(
            status, ["restore", snapshot, "--target", target, "--json"] + more, sourceLocation: sourceLocation)
        return Summary(fields: result.summary)
    }

    /// The paths of a snapshot, as `ls` prints them.
    func list(_ snapshot: String, sourceLocation: SourceLocation = #_sourceLocation) throws -> [String] {
        try expect(0, ["ls", snapshot], sourceLocation: sourceLocation).output.split(separator: "\n").map(String.init)
    }

    /// What `show` says of a snapshot.
    func show(_ snapshot: String, sourceLocation: SourceLocation = #_sourceLocation) throws -> Summary {
        let result = try expect(0, ["show", snapshot, "--json"], sourceLocation: sourceLocation)
        return Summary(fields: try #require(result.document as? [String: Any], sourceLocation: sourceLocation))
    }

    /// One file of a snapshot.
    func dump(_ snapshot: String, _ path: String, sourceLocation: SourceLocation = #_sourceLocation) throws -> [UInt8] {
        Array(try expect(0, ["dump", snapshot, path], sourceLocation: sourceLocation).outputBytes)
    }

    /// The same repository as another node sees it: no password, no state, no cache.
    func node(_ name: String, writerKey: String? = nil) -> Workspace {
        var other = self
        other.environment["BGBACKUP_PASSWORD_FILE"] = nil
        other.environment["BGBACKUP_WRITER_KEY_FILE"] = writerKey
        other.environment["BGBACKUP_STATE_DIR"] = path("\(name)-state")
        other.environment["BGBACKUP_CACHE_DIR"] = path("\(name)-cache")
        return other
    }

    /// Bytes of all objects of the repository, as the program counts them.
    func storedBytes() throws -> Int64 {
        let kinds = try expect(0, ["repo", "stats", "--json"]).document as? [[String: Any]] ?? []
        return kinds.reduce(0) { $0 + (($1["bytes"] as? NSNumber)?.int64Value ?? 0) }
    }

    /// Takes away what the node remembers. Where one node may write, that was its
    /// right to: it has to be taken anew, as an operator would.
    func loseState() throws {
        try Program.run("/bin/rm", ["-rf", path("state")])
        if server?.kind == .rclone { try expect(0, ["repo", "claim", "--take-over"]) }
    }
}

/// Lines that stand in one text only: what differs between two trees.
func differences(_ one: String, _ two: String) -> [String] {
    let (first, second) = (one.split(separator: "\n"), two.split(separator: "\n"))
    let (firstSet, secondSet) = (Set(first), Set(second))
    let missing = first.filter { !secondSet.contains($0) }.map { "- \($0)" }
    let added = second.filter { !firstSet.contains($0) }.map { "+ \($0)" }
    return Array((missing + added).prefix(20))
        + (first.count == second.count ? [] : ["\(first.count) lines, then \(second.count)"])
}

/// Expects two trees to be the same, byte for byte, hole for hole.
func expectIdentical(
    _ one: String, _ two: String, omitting fields: [String] = [], sourceLocation: SourceLocation = #_sourceLocation
) throws {
    let (first, second) = (try Fixture.hash(one, omitting: fields), try Fixture.hash(two, omitting: fields))
    #expect(differences(first, second) == [], sourceLocation: sourceLocation)
}
