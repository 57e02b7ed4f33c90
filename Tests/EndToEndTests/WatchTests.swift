import Foundation
import Glibc
import TestSupport
import Testing

@Suite("Continuous protection")
struct WatchTests {
    let workspace: Workspace

    init() throws { workspace = try Workspace.ready("watch") }

    private func watch(_ path: String, _ more: String...) throws -> Running {
        let key = try workspace.writerKey()
        return try workspace.start(["backup", path, "--watch", "--every", "1s", "--json", "--writer-key", key] + more)
    }

    /// The summaries printed so far.
    private func summaries(_ watch: Running) throws -> [Summary] {
        try watch.printed.split(separator: "\n").compactMap {
            let fields = (try? JSONSerialization.jsonObject(with: Data($0.utf8))) as? [String: Any]
            return fields?["message_type"] as? String == "summary" ? Summary(fields: fields!) : nil
        }
    }

    /// Waits for the next runs to begin and end.
    private func next(_ runs: Int, of watch: Running) throws -> [Summary] {
        let before = try summaries(watch).count
        // The run that is under way may have read before whatever the test did.
        try watch.wait { try summaries(watch).count > before + runs }
        return Array(try summaries(watch).dropFirst(before))
    }

    private func snapshots() throws -> [[String: Any]] {
        try #require(try workspace.expect(0, ["snapshots", "--json"]).document as? [[String: Any]])
    }

    @Test(.enabled(if: Requirement.mountable.contains("btrfs"), "needs a loop mount of btrfs"))
    func `the newest snapshot of a busy volume is one moment, and seconds old`() throws {
        let mount = try LoopMount("btrfs", megabytes: 600, in: workspace.directory)
        let volume = try Volume(mount.path + "/volume")
        try volume.writeRandom("collections/c/0/segments/s/payload_storage/page_0.dat", megabytes: 24)
        let writer = try TwinWriter(volume.path)
        let watch = try watch(volume.path)
        try watch.wait { try summaries(watch).count >= 1 }
        for round in 0..<2 {
            let count = try writer.count()
            let made = try next(1, of: watch)
            #expect(made.allSatisfy { $0.fields["consistency"] as? String == "atomic" })
            #expect(Set(made.map(\.id)).count == made.count && !made.contains { $0.id == "" }, "each is a snapshot of its own")
            try workspace.restore(try #require(made.last).id, onto: "out\(round)")
            let (first, second) = try TwinWriter.counts(workspace.path("out\(round)"))
            #expect(second == first || second + 1 == first, "\(first) and \(second)")
            #expect(first >= count, "what was written before the last run began is not in it")
        }
        #expect(watch.end(SIGTERM) == 128 + SIGTERM)
        #expect(try writer.isWriting(), "it was left stopped")
        #expect(try snapshots().allSatisfy { ($0["tags"] as? [String]) == ["watch"] })
        writer.stop()
        withExtendedLifetime(mount) {}
    }

    @Test func `a volume that does not change makes no snapshots, whatever else changes does`() throws {
        let volume = try Volume(workspace.path("volume"))
        try volume.write("collections/c/config.json", "{}")
        try volume.makeDirectory("collections/empty")
        let watch = try watch(volume.path)
        try watch.wait { try summaries(watch).count >= 1 }
        let first = try #require(try summaries(watch).first).id
        let quiet = try next(2, of: watch)
        #expect(quiet.allSatisfy { $0.id == "" && $0.fields["parent"] as? String == first })
        #expect(try snapshots().count == 1)

        try volume.write("collections/c/config.json", "{\"changed\":1}")
        #expect(try next(1, of: watch).contains { $0.id != "" })
        #expect(try String(decoding: workspace.dump("latest", "collections/c/config.json"), as: UTF8.self) == "{\"changed\":1}")

        // No file's content tells: a directory that is gone, a mode.
        for change in ["rmdir collections/empty", "chmod 600 collections/c/config.json", "rm collections/c/config.json"] {
            try volume.shell(change)
            #expect(try next(1, of: watch).filter { $0.id != "" }.count == 1, "\(change)")
        }
        watch.end(SIGTERM)
        #expect(try snapshots().count == 5)
        #expect(try !workspace.list("latest").contains("collections/c/config.json"))
    }

    @Test func `what another backup made in between is not taken for the state before`() throws {
        let volume = try Volume(workspace.path("volume"))
        try volume.write("a.json", "as it was")
        let watch = try watch(volume.path)
        try watch.wait { try summaries(watch).count >= 2 }
        // Stopped between two runs, or the lock is taken and the backup says so.
        var other = 11 as Int32
        while other == 11 {
            kill(watch.pid, SIGSTOP)
            try volume.shell("touch -r a.json ../stamp && touch -r . ../root && printf changed > a.json")
            other = try workspace.run(["backup", volume.path, "--writer-key", workspace.writerKey()]).status
            try volume.shell("printf 'as it was' > a.json && touch -r ../stamp a.json && touch -r ../root .")
            kill(watch.pid, SIGCONT)
        }
        #expect(other == 0)
        let made = try next(1, of: watch)
        #expect(made.contains { $0.id != "" }, "the newest snapshot is not the volume as it is")
        watch.end(SIGTERM)
        #expect(try String(decoding: workspace.dump("latest", "a.json"), as: UTF8.self) == "as it was")
    }

    @Test(.enabled(if: TestStore.kind == nil, "moves a local repository away"))
    func `a store that is away for a while is told of, and the watch goes on`() throws {
        let volume = try Volume(workspace.path("volume"))
        try volume.write("a.json", "1")
        let watch = try watch(volume.path)
        try watch.wait { try summaries(watch).count >= 1 }
        try FileManager.default.moveItem(atPath: workspace.repository, toPath: workspace.path("away"))
        try volume.write("a.json", "2")
        try watch.wait { try watch.printed.contains("trying again in") }
        #expect(try watch.printed.contains("\"message_type\":\"error\""))
        try FileManager.default.moveItem(atPath: workspace.path("away"), toPath: workspace.repository)
        try watch.wait { try summaries(watch).filter { $0.id != "" }.count >= 2 }
        #expect(watch.end(SIGTERM) == 128 + SIGTERM)
        #expect(try workspace.dump("latest", "a.json") == Array("2".utf8))
    }

    @Test func `a run that meets another backup is left out`() throws {
        let volume = try Volume(workspace.path("volume"))
        try volume.write("a.json", "1")
        let watch = try watch(volume.path)
        try watch.wait { try summaries(watch).count >= 1 }
        let locks = try Program.run("/bin/sh", ["-c", "echo \(workspace.path("state"))/*/*.lock"]).output
        let holder = try Running(
            "/usr/bin/env", ["flock", locks.trimmingCharacters(in: .whitespacesAndNewlines), "sleep", "60"], environment: [:])
        try watch.wait { try watch.printed.contains("this run is left out") }
        let before = try summaries(watch).count
        try Program.tool("pkill", ["-P", "\(holder.pid)"])
        holder.end()
        try watch.wait { try summaries(watch).count > before }
        #expect(watch.end(SIGTERM) == 128 + SIGTERM)
    }

    @Test func `a first run that fails ends it, and wrong options are told`() throws {
        let missing = try workspace.expect(1, ["backup", workspace.path("nowhere"), "--watch"])
        #expect(missing.errors.contains("cannot read \(workspace.path("nowhere"))"))
        let volume = try Volume(workspace.path("volume"))
        for wrong in [
            ["--every", "5s"], ["--watch", "-n"], ["--watch", "--rescan"], ["--watch", "--every", "0s"],
            ["--watch", "--every", "ten"], ["--watch", "--every", "25h"],
        ] {
            #expect(try workspace.run(["backup", volume.path] + wrong).status == 64, "\(wrong)")
        }
    }
}
