import Foundation
import TestSupport
import Testing

/// kill -9 at the changes a refresh makes, as `KillTests` does of a restore.
@Suite(.enabled(if: FaultLibrary.canRun, "needs a C compiler for the fault library"))
struct RefreshKillTests {
    private func rest(_ tree: String) -> [Substring] { Array(tree.split(separator: "\n").dropFirst()) }

    @Test(arguments: KillPlan.refresh.points)
    func `A refresh that is killed is marked, and ends in the right tree`(_ point: KillPlan.Point) throws {
        let stage = try RefreshStage.shared.get()
        let work = try stage.restored()
        let target = work.path("target")
        let faults = try Faults(below: work.directory.path).killing(at: point.number, torn: point.torn)
        let killed = try work.bgbackup("restore", stage.second, "--target", target, "--refresh", extra: faults.environment)
        #expect(killed.status == 128 + SIGKILL, "\(killed.errors)")

        let names = try FileManager.default.contentsOfDirectory(atPath: target)
        let isMarked = names.contains(".bgbackup-incomplete")
        if !isMarked {
            // Nothing was done yet, or everything but the root's own time.
            let found = Set(rest(try Fixture.hash(target)).filter { !$0.contains(".bgbackup-incomplete.new") })
            #expect(found == Set(rest(stage.firstTree)) || found == Set(rest(stage.secondTree)))
        } else {
            let plain = try work.bgbackup("restore", stage.second, "--target", target)
            #expect(plain.status == 15 && plain.errors.contains("--resume"), "\(plain.errors)")
            let other = try work.bgbackup("restore", stage.first, "--target", target, "--refresh")
            #expect(other.status == 15 && other.errors.contains(stage.second), "\(other.errors)")
        }
        let how = isMarked && point.number % 2 == 1 ? "--resume" : "--refresh"
        let again = try work.bgbackup("restore", stage.second, "--target", target, how)
        #expect(again.status == 0, "\(again.errors)")
        #expect(try Fixture.hash(target) == stage.secondTree)
        // And the note is good for the next.
        let back = try work.bgbackup("restore", stage.first, "--target", target, "--refresh")
        #expect(back.status == 0, "\(back.errors)")
        #expect(try Fixture.hash(target) == stage.firstTree)
    }

    /// The middle of the refresh: names are gone and made, blocks half written.
    private func interrupted() throws -> (stage: RefreshStage, work: Workspace) {
        let stage = try RefreshStage.shared.get()
        let work = try stage.restored()
        let points = KillPlan.refresh.points
        let middle = try #require(points.last { $0.kind == "write" && $0.torn && $0.number < (points.last?.number ?? 0) - 8 })
        let faults = try Faults(below: work.directory.path).killing(at: middle.number, torn: true)
        let killed = try work.bgbackup(
            "restore", stage.second, "--target", work.path("target"), "--refresh", extra: faults.environment)
        #expect(killed.status == 128 + SIGKILL)
        return (stage, work)
    }

    @Test(arguments: [
        "echo x > new-name", "touch link -h", "echo >> raft_state.json", "mkdir empty/inside",
        "printf x | dd of=segment/page_0.dat bs=1 seek=100 conv=notrunc status=none",
        "rm segment/page_0.dat",
    ])
    func `A start in between is found when it goes on`(_ alter: String) throws {
        let (stage, work) = try interrupted()
        let target = work.path("target")
        let untouched = alter.contains("raft_state") || alter.contains("page_0.dat")
        let altered = try Program.run("/bin/sh", ["-ec", alter], directory: target)
        #expect(altered.status == 0, "\(altered.errors)")
        for how in ["--resume", "--refresh"] {
            let again = try work.bgbackup("restore", stage.second, "--target", target, how)
            // What the refresh writes anyway comes out right all the same.
            if untouched, again.status == 0 {
                #expect(try Fixture.hash(target) == stage.secondTree)
                return
            }
            #expect(again.status == 15 && again.errors.contains("not as the restore"), "\(again.errors)")
            #expect(try FileManager.default.contentsOfDirectory(atPath: target).contains(".bgbackup-incomplete"))
        }
    }

    @Test func `Without its note a refresh that was killed is refused, and stays marked`() throws {
        let (stage, work) = try interrupted()
        try Program.run("/bin/rm", ["-rf", work.path("state")])
        let again = try work.bgbackup("restore", stage.second, "--target", work.path("target"), "--resume")
        #expect(again.status == 15 && again.errors.contains("no note"), "\(again.errors)")
    }

    @Test func `Every kind of change is met`() {
        #expect(
            Set(KillPlan.refresh.points.map(\.kind)).isSuperset(
                of: [
                    "create", "write", "fsync", "rename", "mkdir", "truncate", "link", "symlink", "utimens", "unlink", "syncfs",
                    "fallocate",
                ]))
    }
}

@Suite(.enabled(if: FaultLibrary.canRun, "needs a C compiler for the fault library"))
struct RestoreOrderTests {
    @Test func `What a start reads first is written first`() throws {
        let work = try Workspace("order")
        let volume = work.path("volume")
        let segment = "\(volume)/collections/c/0/segments/s"
        try FileManager.default.createDirectory(atPath: segment, withIntermediateDirectories: true)
        try FileManager.default.createDirectory(atPath: "\(volume)/collections/c/0/wal", withIntermediateDirectories: true)
        var random = Seeded(5)
        // The first by name is what is written last, so that names are no excuse.
        try SmallVolume.write("collections/c/0/matrix.dat", random.bytes(80 << 20), in: volume)
        try SmallVolume.write("collections/c/0/payload.dat", random.bytes(24 << 20), in: volume)
        try SmallVolume.write("collections/c/0/segments/s/segment.json", random.bytes(900), in: volume)
        try SmallVolume.write("collections/c/0/wal/open-1", random.bytes(16 << 20), in: volume)
        try SmallVolume.write("collections/c/config.json", random.bytes(700), in: volume)
        try SmallVolume.write("raft_state.json", random.bytes(500), in: volume)
        #expect(try work.bgbackup("backup", volume).status == 0)
        let log = work.path("log")
        let result = try work.bgbackup(
            "restore", "latest", "--target", work.path("target"),
            extra: Faults(below: work.path("target")).logging(to: log).environment)
        #expect(result.status == 0, "\(result.errors)")
        #expect(try Fixture.hash(work.path("target")) == Fixture.hash(volume))
        let writes = try Faults.calls(log).filter { $0.kind == "write" && !$0.path.contains(".bgbackup") }
        func middle(_ name: String) throws -> Int {
            let of = writes.indices.filter { writes[$0].path.hasSuffix(name) }
            return try #require(of.isEmpty ? nil : of[of.count / 2])
        }
        let order = try ["open-1", "payload.dat", "matrix.dat"].map(middle)
        #expect(order == order.sorted())
        // They stand behind payload in one read, beside which the log's are under way.
        for name in ["raft_state.json", "config.json", "segment.json"] {
            #expect(try middle(name) < middle("payload.dat"), "\(name) of \(writes.count)")
        }
    }
}
