import Foundation
import TestSupport
import Testing

/// What goes over to a second place, what does not, and what must not be
/// believed there.
@Suite("Copies of a repository at a second place")
struct CopyTests {
    /// Kinds of places, with one of which a copy begins and with one of which it ends.
    struct Route: Sendable, CustomTestStringConvertible {
        let from: S3Server.Kind?
        let to: S3Server.Kind?
        var testDescription: String { "\(from.map(\.rawValue) ?? "directory") to \(to.map(\.rawValue) ?? "directory")" }

        static let all =
            S3Server.available.map { Route(from: $0, to: $0) } + S3Server.available.map { Route(from: nil, to: $0) }
            + S3Server.available.map { Route(from: $0, to: nil) }
    }

    /// Two snapshots that share little: each has a pack that the other does not need.
    private struct Source {
        let workspace: Workspace
        let volume: Volume
        let first: String
        let second: String

        init(_ kind: S3Server.Kind?) throws {
            workspace = try Workspace.ready("copy", kind: kind)
            volume = try Volume.small(workspace.path("volume"))
            first = try workspace.backup(volume).id
            try Program.tool("cp", ["-a", volume.path, workspace.path("before")])
            try volume.write("more/matrix.dat", noise(900_000, seed: 11))
            second = try workspace.backup(volume).id
        }

        /// An empty place of this kind, with the source's password.
        func place(_ kind: S3Server.Kind?) throws -> Workspace { try Workspace("copied", initialize: false, kind: kind) }

        func copy(
            _ place: Workspace, _ arguments: String..., status: Int32 = 0, sourceLocation: SourceLocation = #_sourceLocation
        ) throws
            -> Program.Result
        {
            // The place's keys: where only one of the two is on a server, they are that one's.
            try workspace.expect(
                status, ["copy", "--to", place.url, "--json"] + arguments,
                extra: place.server?.environment ?? [:], sourceLocation: sourceLocation)
        }
    }

    private func number(_ result: Program.Result, _ name: String) -> Int { result.summary[name] as? Int ?? -1 }

    @Test(arguments: Route.all)
    func `Everything is there, opens with the same password, and goes over once`(route: Route) throws {
        let source = try Source(route.from)
        let place = try source.place(route.to)
        let dry = try source.copy(place, "--all", "--dry-run")
        #expect(number(dry, "snapshots_copied") == 2 && number(dry, "bytes_copied") > 1_000_000)
        #expect(dry.summary["dry_run"] as? Bool == true)
        #expect(try place.store.names().isEmpty)
        let untouched = try source.workspace.store.fingerprint("v1/")

        let done = try source.copy(place, "--all")
        #expect(done.summary["created"] as? Bool == true)
        #expect(done.summary["location"] as? String == place.location)
        #expect(number(done, "snapshots_copied") == 2 && number(done, "packs_copied") == number(dry, "packs_copied"))
        for (snapshot, tree) in [(source.first, source.workspace.path("before")), (source.second, source.volume.path)] {
            try place.restore(snapshot, onto: snapshot)
            try expectIdentical(tree, place.path(snapshot))
        }
        try place.expect(0, ["check", "--read-data"])
        #expect(try source.workspace.store.fingerprint("v1/") == untouched)

        let copied = try place.store.fingerprint("v1/")
        let again = try source.copy(place, "--all")
        #expect(number(again, "snapshots_present") == 2 && number(again, "bytes_copied") == 0)
        #expect(again.summary["created"] as? Bool == false)
        #expect(try place.store.fingerprint("v1/") == copied)
    }

    @Test(arguments: S3Server.available)
    func `A copy that was cut off goes on where it was`(kind: S3Server.Kind) throws {
        let source = try Source(kind)
        let place = try source.place(kind)
        _ = try source.copy(place, "--all")
        // As after a kill: packs without an index, and no snapshot yet.
        try place.store.remove("v1/snapshots/")
        try place.store.remove("v1/index/")
        let lost = try #require(try place.store.names("v1/packs/").first)
        try place.store.remove(lost)
        let rest = try source.copy(place, "--all")
        #expect(number(rest, "packs_copied") == 1 && number(rest, "packs_present") >= 1)
        #expect(number(rest, "snapshots_copied") == 2)
        try place.expect(0, ["check", "--read-data"])
        // What its index says is there is there. (The one writer of the copy is the source's node so far.)
        if kind == .rclone { try place.expect(0, ["repo", "claim", "--take-over"]) }
        #expect(try place.backup(source.volume.path, "--node", "copy").number("bytes_new") < 64 << 10)
        try place.restore(source.second)
        try expectIdentical(source.volume.path, place.path("restored"))
    }

    /// borg #9748: after a copy of a part, a backup that trusts the source's
    /// index refers to blocks which are not there.
    @Test(arguments: S3Server.available)
    func `A backup into a copy of one snapshot trusts no block that is not there`(kind: S3Server.Kind) throws {
        let source = try Source(kind)
        let place = try source.place(kind)
        let done = try source.copy(place, source.first)
        #expect(number(done, "snapshots_copied") == 1)
        #expect(try place.store.names("v1/snapshots/").count == 1)
        // With all that the node knows of the source.
        for name in ["state", "cache"] { try Program.tool("cp", ["-a", source.workspace.path(name), place.path(name)]) }
        let snapshot = try place.backup(source.volume)
        #expect(try snapshot.number("bytes_stored") > 900_000, "the second snapshot's pack is not there")
        try place.expect(0, ["check", "--read-data"])
        try place.restore(snapshot.id)
        try expectIdentical(source.volume.path, place.path("restored"))
    }

    @Test(arguments: S3Server.available)
    func `A damaged pack keeps its snapshot from being copied, and no other`(kind: S3Server.Kind) throws {
        let source = try Source(kind)
        let store = source.workspace.store
        let place = try source.place(kind)
        let needed = try #require(
            try source.workspace.expect(0, ["copy", source.first, "--to", place.url, "--dry-run", "--json"]).summary[
                "packs_copied"]
                as? Int)
        let packs = try store.names("v1/packs/")
        #expect(needed < packs.count)
        _ = try source.copy(place, source.first)
        let copied = Set(try place.store.names("v1/packs/"))
        let own = try #require(try packs.filter { !copied.contains($0) }.max { try store.read($0).count < store.read($1).count })
        try store.flip(own)
        let other = try source.place(kind)
        let result = try source.copy(other, "--all", status: 17)
        let damaged = try #require(result.summary["damaged"] as? [String])
        #expect(damaged.count == 1 && damaged[0].contains(source.second.prefix(8)) && damaged[0].contains(own), "\(damaged)")
        #expect(result.errors.contains(own))
        #expect(number(result, "snapshots_copied") == 1)
        try other.restore(source.first)
        try expectIdentical(source.workspace.path("before"), other.path("restored"))
        try other.expect(0, ["check", "--read-data"])
    }

    @Test(arguments: S3Server.available)
    func `Another repository is not copied onto`(kind: S3Server.Kind) throws {
        let source = try Source(kind)
        let other = try Workspace("foreign", kind: kind)
        let before = try other.store.fingerprint("v1/")
        let result = try source.copy(other, "--all", status: 1)
        #expect(result.summary["code"] as? String == "repository-exists")
        #expect(result.errors.contains("HINT: "))
        #expect(try other.store.fingerprint("v1/") == before)
        try source.workspace.expect(64, ["copy", "--all", "--to", source.workspace.url])
    }

    @Test(arguments: S3Server.available)
    func `With a writer key everything can be copied, and nothing chosen`(kind: S3Server.Kind) throws {
        let source = try Source(kind)
        let key = try source.workspace.writerKey()
        let place = try source.place(kind)
        var node = source.workspace
        node.environment["BGBACKUP_PASSWORD_FILE"] = nil
        node.environment["BGBACKUP_WRITER_KEY_FILE"] = key
        let chosen = try node.expect(12, ["copy", source.first, "--to", place.url, "--json"])
        #expect(chosen.summary["code"] as? String == "write-only-key")
        #expect(try place.store.names().isEmpty)
        let all = try node.expect(0, ["copy", "--all", "--to", place.url, "--json"])
        #expect(number(all, "snapshots_copied") == 2)
        try place.restore(source.second)
        try expectIdentical(source.volume.path, place.path("restored"))
        try place.expect(0, ["check", "--read-data"])
    }
}
