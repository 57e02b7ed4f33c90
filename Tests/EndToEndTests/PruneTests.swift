import BackupBase
import Foundation
import Operations
import Glibc
import TestSupport
import Testing

/// `prune`: what no snapshot needs goes, and nothing else.
@Suite("prune")
struct PruneTests {
    /// A repository with two snapshots; the first has a megabyte that the second has not.
    private struct Stage {
        let workspace: Workspace
        let volume: Volume
        let first: String
        let second: String
        let kind: S3Server.Kind?

        init(_ label: String, kind: S3Server.Kind? = TestStore.kind) throws {
            self.kind = kind
            workspace = try Workspace.ready(label, kind: kind)
            volume = try Volume(workspace.path("volume"))
            try volume.write("collections/c/0/segments/old/vector_storage/matrix.dat", noise(1 << 20, seed: 5))
            first = try workspace.backup(volume).id
            try volume.shell("rm -r collections/c/0/segments/old")
            _ = try Volume.small(volume.path)
            second = try workspace.backup(volume).id
        }

        func forget(_ snapshot: String) throws {
            let names = try workspace.store.names("v1/snapshots/").filter { $0.hasSuffix(snapshot) }
            #expect(names.count == 1)
            for name in names { try workspace.store.remove(name) }
            // rclone lists for a while what is gone: a snapshot that is kept then, a run that seems to be at work (docs/prune.md).
            func isListed() throws -> Bool {
                try workspace.store.names("v1/snapshots/").contains { $0.hasSuffix(snapshot) }
                    || kind == .rclone && !workspace.store.names("tmp/intent-").isEmpty
            }
            let end = monotonicSeconds() + 60
            while try isListed(), monotonicSeconds() < end { usleep(300_000) }
        }

        func prune(_ more: String..., status: Int32 = 0, sourceLocation: SourceLocation = #_sourceLocation) throws -> Summary {
            let result = try workspace.expect(status, ["prune", "--json"] + more, sourceLocation: sourceLocation)
            return Summary(fields: result.summary)
        }

        func expectWhole(_ snapshot: String, sourceLocation: SourceLocation = #_sourceLocation) throws {
            try workspace.restore(snapshot, onto: "restored-\(UUID().uuidString)", sourceLocation: sourceLocation)
            let check = try workspace.expect(0, ["check", "--read-data", "--json"], sourceLocation: sourceLocation)
            #expect(check.summary["damaged"] as? Bool == false, sourceLocation: sourceLocation)
        }
    }

    private struct Amount: Equatable {
        var packs: Int64
        var bytes: Int64
    }

    private func amount(_ summary: Summary, _ name: String) throws -> Amount {
        let fields = Summary(fields: try #require(summary.fields[name] as? [String: Any], "no '\(name)' in \(summary.fields)"))
        return Amount(packs: try fields.number("packs"), bytes: try fields.number("bytes"))
    }

    // MARK: - What goes

    @Test(arguments: [nil] + S3Server.available.map { $0 })
    func `Space of a snapshot that was forgotten comes free, and the others stay whole`(kind: S3Server.Kind?) throws {
        let stage = try Stage("prune", kind: kind)
        #expect(try amount(stage.prune("--grace", "0"), "freed") == Amount(packs: 0, bytes: 0))
        try stage.forget(stage.first)
        let before = try stage.workspace.storedBytes()
        let fingerprint = try stage.workspace.store.fingerprint("v1/")
        let plan = try stage.prune("--grace", "0", "--dry-run")
        #expect(try stage.workspace.store.fingerprint("v1/") == fingerprint, "a dry run changes nothing")
        let freed = try amount(try stage.prune("--grace", "0"), "freed")
        #expect(freed.bytes > 1 << 20)
        #expect(try amount(plan, "freed") == freed)
        if kind != .rclone {
            #expect(try stage.workspace.storedBytes() < before - (1 << 20))
        }
        try stage.expectWhole(stage.second)
        try expectIdentical(stage.volume.path, try lastRestored(stage.workspace))
        // A backup after it knows what is gone and what is not.
        try stage.volume.write("collections/c/0/segments/old/vector_storage/matrix.dat", noise(1 << 20, seed: 5))
        let third = try stage.workspace.backup(stage.volume)
        #expect(try third.number("bytes_new") > 1 << 20 && third.number("bytes_new") < 1 << 20 + 64 << 10)
        _ = try stage.prune("--grace", "0")
        try stage.expectWhole(third.id)
        try expectIdentical(stage.volume.path, try lastRestored(stage.workspace))
        if kind != .rclone { #expect(try stage.workspace.store.names("v1/notes/").isEmpty) }
    }

    private func lastRestored(_ workspace: Workspace) throws -> String {
        let names = try FileManager.default.contentsOfDirectory(atPath: workspace.directory.path).filter {
            $0.hasPrefix("restored-")
        }
        let dated = names.map { name in
            var status = Glibc.stat()
            _ = lstat(workspace.path(name), &status)
            return (status.st_ctim.tv_sec, status.st_ctim.tv_nsec, name)
        }
        return workspace.path(try #require(dated.max { $0 < $1 }).2)
    }

    @Test func `What is young waits, what is marked waits for its grace`() async throws {
        let stage = try Stage("grace")
        try stage.forget(stage.first)
        let young = try stage.prune()
        #expect(try amount(young, "freed").packs == 0 && amount(young, "young").bytes > 1 << 20)
        #expect(try stage.workspace.store.names("v1/notes/").isEmpty)
        try await Task.sleep(for: .seconds(3))
        let marked = try stage.prune("--grace", "2s")
        #expect(try amount(marked, "freed").packs == 0 && amount(marked, "after_grace").bytes > 1 << 20)
        #expect(marked.fields["after_grace_from"] is String)
        #expect(try stage.workspace.store.names("v1/notes/tombstone/").count == 1)
        try await Task.sleep(for: .seconds(3))
        let dry = try stage.prune("--grace", "2s", "-n")
        #expect(try amount(dry, "freed").bytes > 1 << 20)
        #expect(try amount(stage.prune("--grace", "2s"), "freed").bytes > 1 << 20)
        try stage.expectWhole(stage.second)
        let text = try stage.workspace.expect(0, ["prune"]).output
        #expect(text.contains("needed by 1 snapshots") && text.contains("freed"))
        #expect(try stage.workspace.store.names("v1/notes/").isEmpty)
    }

    // MARK: - Repacking

    /// A volume of which three of four MiB were written anew, and the snapshot before that is forgotten.
    private func partlyUsed() throws -> (stage: Stage, snapshot: String, volume: Volume) {
        let stage = try Stage("repack")
        let volume = try Volume(stage.workspace.path("partly"))
        let matrix = "collections/c/0/segments/s/vector_storage/matrix.dat"
        try volume.write(matrix, noise(4 << 20, seed: 6))
        let first = try stage.workspace.backup(volume).id
        try volume.write(matrix, noise(3 << 20, seed: 7))
        let second = try stage.workspace.backup(volume).id
        for snapshot in [first, stage.first] { try stage.forget(snapshot) }
        return (stage, second, volume)
    }

    @Test func `What little is needed of a pack moves, and the rest comes free`() throws {
        let (stage, snapshot, volume) = try partlyUsed()
        let workspace = stage.workspace
        _ = try stage.prune("--grace", "0")
        #expect(try amount(stage.prune("--grace", "0"), "repacked").packs == 0, "16 MiB may lie unused anywhere")
        let before = try workspace.storedBytes()
        let dry = try workspace.expect(0, ["prune", "--grace", "0", "--max-unused", "0", "--dry-run"]).output
        #expect(dry.contains("would be repacked into 1"), "\(dry)")
        #expect(try workspace.storedBytes() == before)
        let done = try stage.prune("--grace", "0", "--max-unused", "0")
        #expect(try amount(done, "repacked").packs >= 1 && amount(done, "freed").bytes > 3 << 20)
        #expect(try workspace.storedBytes() < before - (5 << 19))
        try stage.expectWhole(stage.second)
        try workspace.restore(snapshot, onto: "again")
        try expectIdentical(volume.path, workspace.path("again"))
        if Reader.python != nil {
            let read = try Reader.run(workspace, snapshot, workspace.path("read"))
            #expect(read.status == 0 && read.errors.isEmpty, "\(read.errors)")
            try expectIdentical(volume.path, workspace.path("read"))
        }
        // The next backup finds what is there.
        let next = try workspace.backup(volume)
        #expect(try next.number("bytes_stored") < 100_000)
        let copy = workspace.path("copy")
        try workspace.expect(0, ["copy", "--all", "--to", copy])
        var second = workspace
        second.environment["BGBACKUP_REPOSITORY"] = copy
        try second.restore(snapshot, onto: "from the copy")
        try expectIdentical(volume.path, workspace.path("from the copy"))
    }

    @Test func `A pack that cannot be read is not repacked, and that ends with 17`() throws {
        let (stage, _, _) = try partlyUsed()
        _ = try stage.prune("--grace", "0")
        let store = stage.workspace.store
        for name in try store.names("v1/packs/") {
            // In its last frames: those of the MiB that is still needed.
            var bytes = try store.read(name)
            bytes[bytes.count * 9 / 10] ^= 1
            if bytes.count > 7 << 19 { try store.write(name, bytes) }
        }
        let text = try stage.workspace.expect(17, ["prune", "--grace", "0", "--max-unused", "0"]).output
        #expect(text.contains("DAMAGE  not repacked: pack v1/packs/"), "\(text)")
        let run = try #require(stage.workspace.runs.first)
        #expect(run.errorCode == "damaged" && run.errorMessage?.contains("not repacked: pack v1/packs/") == true)
        for wrong in ["1.5", "-1", "10%"] { try stage.workspace.expect(64, ["prune", "--max-unused=\(wrong)"]) }
    }

    // MARK: - What stops it

    @Test func `A damaged snapshot ends the run with 17, and nothing goes`() throws {
        let stage = try Stage("damage")
        try stage.forget(stage.first)
        let name = try #require(try stage.workspace.store.names("v1/snapshots/").first)
        try stage.workspace.store.flip(name)
        let before = try stage.workspace.store.fingerprint("v1/")
        for more in [[], ["--dry-run"]] {
            let result = try stage.workspace.expect(17, ["prune", "--grace", "0", "--json"] + more)
            #expect(result.summary["code"] as? String == "damaged" && result.errors.contains("HINT: "))
        }
        #expect(try stage.workspace.store.fingerprint("v1/") == before)
    }

    @Test func `A damaged manifest or tombstone ends the run with 17, and nothing goes`() throws {
        let stage = try Stage("damage")
        _ = try stage.prune("--grace", "0")
        try stage.forget(stage.first)
        let tombstone = "v1/notes/tombstone/\(String(repeating: "a", count: 32))"
        try FileManager.default.createDirectory(
            atPath: "\(stage.workspace.repository)/v1/notes/tombstone", withIntermediateDirectories: true)
        try stage.workspace.store.write(tombstone, Data("no note".utf8))
        let before = try stage.workspace.store.fingerprint("v1/")
        let result = try stage.workspace.expect(17, ["prune", "--grace", "0", "--json"])
        #expect(result.errors.contains(tombstone))
        #expect(try stage.workspace.store.fingerprint("v1/") == before)
        // Nor is anything backed up: what may be used is not known.
        try stage.workspace.backup(stage.volume, status: 17)
        try stage.workspace.store.remove(tombstone)
        #expect(try amount(stage.prune("--grace", "0"), "freed").bytes > 1 << 20)
    }

    @Test func `A writer key cannot prune, and durations are checked`() throws {
        let stage = try Stage("keys")
        let node = stage.workspace.node("node", writerKey: try stage.workspace.writerKey())
        try node.expect(12, ["prune"])
        for wrong in ["1", "h", "-1h", "1w", "nan", "1e30d"] {
            let result = try stage.workspace.expect(64, ["prune", "--grace=\(wrong)"])
            #expect(result.errors.contains("HINT: "), "\(wrong)")
        }
    }

    @Test(.enabled(if: TestStore.kind == nil, "the lock of a directory"))
    func `A second prune is told who holds it up`() throws {
        let stage = try Stage("twice")
        let file = open("\(stage.workspace.repository)/tmp/lock-prune", O_RDWR | O_CREAT, 0o600)
        #expect(flock(file, LOCK_EX) == 0)
        defer { close(file) }
        let result = try stage.workspace.expect(11, ["prune", "--json"])
        #expect(result.summary["code"] as? String == "busy")
        try stage.workspace.expect(0, ["prune", "--dry-run"])
    }

    // MARK: - Beside a backup

    @Test func `A backup that runs meanwhile loses nothing`() async throws {
        let stage = try Stage("beside")
        try stage.volume.writeRandom("collections/c/0/segments/new/vector_storage/matrix.dat", megabytes: 40)
        // The blocks of the first snapshot are met again, after it is forgotten.
        try stage.volume.write("collections/c/0/segments/z/vector_storage/matrix.dat", noise(1 << 20, seed: 5))
        try await settle()
        let key = try stage.workspace.writerKey()
        let backup = try stage.workspace.start([
            "backup", stage.volume.path, "--writer-key", key, "--limit-read", "8MiB", "--json",
        ])
        try backup.wait { try stage.workspace.store.names("tmp/intent-").count > 0 }
        usleep(300_000)
        try stage.forget(stage.first)
        let during = try stage.prune("--grace", "0")
        let runs = try #require(during.fields["runs"] as? [String])
        let (held, young) = (try amount(during, "waiting_for_runs"), try amount(during, "young"))
        #expect(try amount(during, "freed").packs == 0 && held.packs + young.packs > 0)
        #expect(held.packs == 0 || runs.count == 1)
        #expect(backup.isRunning)
        let status = backup.wait()
        let printed = try backup.printed
        #expect(status == 0, "\(printed)")
        #expect(try stage.workspace.store.names("tmp/intent-").isEmpty)
        for _ in 0..<2 { _ = try stage.prune("--grace", "0") }
        try stage.expectWhole("latest")
        try expectIdentical(stage.volume.path, try lastRestored(stage.workspace))
        try stage.expectWhole(stage.second)
    }

    @Test(.enabled(if: TestStore.kind == nil, "by the lock of a directory"))
    func `A backup that was killed holds nobody up, whatever its intent says`() async throws {
        let stage = try Stage("killed")
        try stage.volume.writeRandom("collections/c/0/segments/new/vector_storage/matrix.dat", megabytes: 40)
        try await settle()
        let key = try stage.workspace.writerKey()
        let backup = try stage.workspace.start(["backup", stage.volume.path, "--writer-key", key, "--limit-read", "4MiB"])
        try backup.wait { try stage.workspace.store.names("tmp/intent-").count > 0 }
        usleep(300_000)
        // It lives: a clock that jumps does not end it.
        let intent = try #require(try stage.workspace.store.names("tmp/intent-").first)
        try Program.tool("touch", ["-d", "2 days ago", "\(stage.workspace.repository)/\(intent)"])
        try stage.forget(stage.first)
        let during = try stage.prune("--grace", "0")
        #expect(try amount(during, "freed").packs == 0)
        #expect(try (#require(during.fields["runs_given_up"] as? [String])).isEmpty)
        #expect(try stage.workspace.store.names("tmp/intent-") == [intent])
        backup.end()
        let after = try stage.prune("--grace", "0")
        #expect(try (#require(after.fields["runs_given_up"] as? [String])).count == 1)
        #expect(try amount(after, "freed").bytes > 1 << 20)
        #expect(try stage.workspace.store.names("tmp/intent-").isEmpty)
        #expect(try stage.workspace.store.names("tmp/lock-intent-").isEmpty)
        try stage.expectWhole(stage.second)
    }

    // MARK: - Locks

    @Test(.enabled(if: S3Server.available.contains(.strict), "needs the strict S3 server"))
    func `What is locked stays marked, and exit 13 says that nothing came free`() throws {
        let server = try S3Server(
            .strict,
            configuration: #"{"buckets": [{"name": "bucket", "region": "us-east-1", "objectLock": true, "versioning": true}]}"#)
        let workspace = try Workspace("lock", server: server, options: "lock=compliance&lock-for=2d")
        let volume = try Volume.small(workspace.path("volume"))
        try workspace.backup(volume)
        try volume.write("collections/c/0/segments/s/vector_storage/matrix.dat", noise(300 << 10, seed: 9))
        try workspace.backup(volume)
        // Taken away by hand: as a forget does after the lock's end.
        let name = try #require(try workspace.store.names("v1/snapshots/").first)
        let before = try workspace.store.names("v1/packs/")
        let none = try workspace.expect(0, ["prune", "--grace", "0", "--json"])
        #expect((none.summary["locked"] as? [String: Any])?["packs"] as? Int == 0)
        _ = try server.control("POST", "damage?mode=delete&key=\(workspace.location.dropFirst("s3://bucket/".count))/\(name)")
        let result = try workspace.expect(13, ["prune", "--grace", "0", "--json"])
        #expect(result.summary["code"] as? String == "immutable" && result.errors.contains("locks keep"))
        #expect(try workspace.store.names("v1/packs/") == before)
        #expect(try workspace.store.names("v1/notes/tombstone/").count == 1)
        // What is there, and until when, is remembered of such a run too.
        let figures = try #require(workspace.runs.first?.figures)
        #expect(figures.repositoryBytesLocked ?? 0 > 0 && figures.lockedUntil != nil && figures.snapshots == 1)
        let plan = try workspace.expect(0, ["prune", "--grace", "0", "--json", "--dry-run"])
        let locked = try #require(plan.summary["locked"] as? [String: Any])
        #expect((locked["packs"] as? Int ?? 0) > 0 && plan.summary["locked_until"] is String)
        try workspace.expect(0, ["check", "--read-data"])
    }
}
