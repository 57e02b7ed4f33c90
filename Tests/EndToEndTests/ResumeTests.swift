import BackupBase
import Foundation
import Glibc
import TestSupport
import Testing

@Suite("A restore that was killed midway")
struct ResumeTests {
    let workspace: Workspace
    let volume: Volume
    let target: Volume
    let first: String
    let second: String
    private static let marker = ".bgbackup-incomplete"
    private static let megabyte: Int64 = 1 << 20

    init() throws {
        workspace = try Workspace.ready("resume")
        volume = try Volume(workspace.path("volume"))
        target = try Volume(workspace.path("target"))
        for index in 0..<4 {
            try volume.writeRandom("collections/c/0/segments/s\(index)/vector_storage/matrix.dat", megabytes: 40)
        }
        try volume.writeRandom("collections/c/0/wal/open-1", megabytes: 30)
        try volume.write("collections/c/config.json", "{}")
        try volume.link("collections/c/0/wal/open-1", "second-name")
        try volume.symlink("nowhere", "link")
        try volume.setMode("collections/c/config.json", 0o400)
        first = try workspace.backup(volume).id
        try volume.write("collections/c/config.json", "{\"new\": 1}")
        second = try workspace.backup(volume).id
    }

    private func allocated() throws -> Int64 {
        Int64(try target.shell("du -s --block-size=1 . | cut -f 1").trimmingCharacters(in: .whitespacesAndNewlines)) ?? 0
    }

    /// Ends a restore of the second snapshot by a signal when it has written
    /// this much; tries again on an empty target where it was faster than the look.
    private func interrupt(at bytes: Int64, _ signal: Int32 = SIGKILL) throws {
        for _ in 0..<8 {
            let restore = try workspace.start(["restore", second, "--target", target.path])
            while restore.isRunning, restore.bytesWritten < bytes { usleep(1000) }
            if restore.end(signal) == 128 + signal { return }
            try target.shell("find . -mindepth 1 -delete")
        }
        throw BackupError(.failed, "no restore could be interrupted")
    }

    @Test func `The target is marked, refused, and finished by --resume without writing again what is there`() throws {
        try interrupt(at: 40 * Self.megabyte)
        #expect(target.exists(Self.marker))
        let present = try allocated()

        let plain = try workspace.expect(15, ["restore", second, "--target", target.path, "--json"])
        #expect(plain.errors.contains("unfinished") && plain.errors.contains("--resume"))
        let other = try workspace.expect(15, ["restore", first, "--target", target.path, "--resume", "--json"])
        #expect(other.errors.contains(second))
        try workspace.restore(second, onto: "target", "--resume", "--include", "link", status: 15)
        let backup = try workspace.expect(1, ["backup", target.path, "--json"])
        #expect(backup.errors.contains("restore that did not end"))
        #expect(try allocated() == present)

        let summary = try workspace.restore(second, onto: "target", "--resume")
        let (written, kept) = (try summary.number("bytes_written"), try summary.number("bytes_kept"))
        #expect(kept > 20 * Self.megabyte)
        #expect(try written + kept == summary.number("bytes_total"))
        #expect(!target.exists(Self.marker))
        try expectIdentical(volume.path, target.path)
        #expect(try workspace.backup(target).number("bytes_new") < 64 << 10)
    }

    @Test func `SIGTERM ends it with 143 and the rest can be resumed`() throws {
        try interrupt(at: 20 * Self.megabyte, SIGTERM)
        #expect(target.exists(Self.marker))
        try workspace.restore(second, onto: "target", "--resume")
        try expectIdentical(volume.path, target.path)
    }

    @Test func `What was altered meanwhile is written again`() throws {
        try interrupt(at: 60 * Self.megabyte)
        try target.shell(
            "find . -name matrix.dat -size +0 -exec dd if=/dev/zero of={} bs=4096 seek=3 count=600 conv=notrunc status=none ';'")
        try workspace.restore(second, onto: "target", "--resume")
        try expectIdentical(volume.path, target.path)
    }
}
