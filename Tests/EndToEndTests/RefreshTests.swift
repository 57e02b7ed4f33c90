import BackupBase
import Foundation
import Glibc
import TestSupport
import Testing

@Suite("A target that is brought to another snapshot")
struct RefreshTests {
    let workspace: Workspace
    let volume: Volume
    private static let page = "collections/c/0/segments/s/payload_storage/page_0.dat"
    private static let matrix = "collections/c/0/segments/s/vector_storage/matrix.dat"
    private static let log = "collections/c/0/wal/open-1"

    init() throws {
        workspace = try Workspace.ready("refresh")
        volume = try Volume(workspace.path("volume"))
        try volume.write(Self.matrix, noise(3 << 20, seed: 1))
        try volume.write(Self.page, noise(1 << 20, seed: 2), at: 1 << 20, size: 4 << 20)
        try volume.write(Self.page, noise(64 << 10, seed: 3), at: 3 << 20)
        try volume.write(Self.log, noise(300_000, seed: 4))
        try volume.write("collections/c/config.json", "{\"params\": 1}\n")
        try volume.write("node_state.json", "{}")
        try volume.setMode("node_state.json", 0o400)
        try volume.write("linked", noise(50_000, seed: 5))
        try volume.link("linked", "linked-too")
        try volume.link("linked", "linked-three")
        try volume.write("alone", noise(20_000, seed: 6))
        try volume.symlink("alone", "pointer")
        try volume.symlink("alone", "same-pointer")
        try volume.write("file-then-folder", "x")
        try volume.write("folder-then-file/deep/inside", noise(30_000, seed: 7))
        try volume.write("folder-then-link/inside", "x")
        try volume.symlink("nowhere", "link-then-file")
        try volume.write("gone/one/two", "x")
        try volume.makeDirectory("empty")
        try volume.write("zeros", [], size: 1 << 20)
        try volume.shell("setfattr -n user.one -v 1 node_state.json; setfattr -n user.two -v 2 empty linked || true")
    }

    /// What a database and an operator would do, and what hardly anybody does.
    private func change() throws {
        try volume.write(Self.page, noise(4096, seed: 20), at: 1 << 20 + 400 << 10)
        try volume.write(Self.log, noise(100_000, seed: 21), at: 250_000)
        try volume.write("node_state.json", "{\"term\": 8}")
        try volume.write("file-made/deep/file", noise(200_000, seed: 22))
        try volume.shell(
            """
            fallocate --punch-hole --offset 1310720 --length 131072 '\(Self.page)'   # a hole in the middle
            fallocate --punch-hole --offset 3145728 --length 1048576 '\(Self.page)'  # and at the end
            dd if=/dev/zero of='\(Self.page)' bs=65536 seek=2 count=1 conv=notrunc status=none  # a hole filled
            dd if=/dev/zero of='\(Self.page)' bs=16384 seek=70 count=1 conv=notrunc status=none # data made zero
            dd if=/dev/zero of=zeros bs=4096 seek=3 count=9 conv=notrunc status=none
            truncate -s 1900001 '\(Self.matrix)'; truncate -s 25000 alone
            rm linked; mv linked-three other-name; ln alone alone-too
            rm linked-too; cp other-name linked-too
            ln -sfn node_state.json pointer; chown -h 5:6 same-pointer || true
            rm file-then-folder; mkdir -p file-then-folder/below; echo y > file-then-folder/below/new
            rm -r folder-then-file folder-then-link gone; echo z > folder-then-file; ln -s linked-too folder-then-link
            rm link-then-file; echo w > link-then-file
            chmod 751 empty; setfattr -x user.one node_state.json; setfattr -x user.two empty
            setfattr -n user.three -v 3 empty || true
            """)
    }

    @Test func `It is what a full restore would have made, in both directions, and only what differs was written`() throws {
        let first = try workspace.backup(volume).id
        try workspace.restore(first, onto: "target")
        try volume.shell("cp -a . '\(workspace.path("before"))'")
        try change()
        let second = try workspace.backup(volume).id

        let summary = try workspace.restore(second, onto: "target", "--refresh")
        try workspace.restore(second, onto: "full")
        try expectIdentical(workspace.path("full"), workspace.path("target"))
        try expectIdentical(volume.path, workspace.path("target"))
        #expect(try summary.text("refreshed_from") == first)
        #expect(try summary.number("bytes_unchanged") > 5 << 20)
        // 900 KiB of the matrix are one new block; the rest are files and blocks of less than 500 KiB.
        #expect(try summary.number("bytes_written") < 2 << 20)
        #expect(try summary.number("bytes_written") > 400_000)
        #expect(try summary.number("names_removed") >= 10)

        try workspace.restore(first, onto: "target", "--refresh")
        try expectIdentical(workspace.path("before"), workspace.path("target"))
        let again = try workspace.restore(first, onto: "target", "--refresh")
        #expect(try again.number("bytes_written") == 0)
        #expect(try again.number("bytes_unchanged") == again.number("bytes_total"))
        try expectIdentical(workspace.path("before"), workspace.path("target"))
    }

    @Test func `A page that changed is all that is fetched, written and touched`() throws {
        for number in 0..<20 { try volume.writeRandom("segments/\(number)/page_0.dat", megabytes: 2) }
        let first = try workspace.backup(volume).id
        try workspace.restore(first, onto: "target")
        let target = try Volume(workspace.path("target"))
        let untouched = try target.stat("segments/3/page_0.dat")
        try volume.write("segments/7/page_0.dat", noise(4096, seed: 8), at: 900_000)
        try workspace.backup(volume)
        let summary = try workspace.restore("latest", onto: "target", "--refresh")
        #expect(try summary.number("bytes_written") == 32 << 10, "two blocks of 16 KiB, as the write crosses their border")
        #expect(try summary.number("bytes_fetched") < 64 << 10)
        #expect(try summary.number("files_changed") == 1)
        #expect(try target.stat("segments/3/page_0.dat").st_ctim.tv_nsec == untouched.st_ctim.tv_nsec)
        try expectIdentical(volume.path, target.path)
    }

    /// Random writes, holes and cuts, generation after generation, each refresh
    /// onto what the one before left.
    @Test(arguments: [1, 2, 3, 4])
    func `Any sequence of writes and holes comes out the same`(_ seed: Int) throws {
        try workspace.backup(volume)
        try workspace.restore("latest", onto: "target")
        for round in 0..<4 {
            try volume.shell(
                """
                python3 - <<'END'
                import os, random, subprocess
                rng = random.Random(\(seed * 100 + round))
                names = ["\(Self.page)", "\(Self.log)", "zeros", "odd-\(seed)", "linked"]
                for name in rng.sample(names, 3):
                    file = os.open(name, os.O_RDWR | os.O_CREAT)
                    for _ in range(rng.randrange(1, 8)):
                        at, length = rng.randrange(2 << 20), rng.choice([100, 4096, 16384, 70000, 200000])
                        what = rng.randrange(5)
                        if what < 2: os.pwrite(file, rng.randbytes(length), at)
                        elif what == 2: os.pwrite(file, bytes(length), at // 4096 * 4096)
                        elif what == 3 and os.fstat(file).st_size > at: os.ftruncate(file, at)
                        else:
                            start, end = at // 4096 * 4096, at // 4096 * 4096 + max(length // 4096, 1) * 4096
                            os.ftruncate(file, max(os.fstat(file).st_size, end))
                            subprocess.run(["fallocate", "-p", "-o", str(start), "-l", str(end - start), name], check=True)
                    os.close(file)
                END
                """)
            let id = try workspace.backup(volume).id
            try workspace.restore(id, onto: "target", "--refresh")
            try workspace.restore(id, onto: "full-\(round)")
            try expectIdentical(workspace.path("full-\(round)"), workspace.path("target"))
        }
    }

    @Test(.enabled(if: Requirement.ext4, "needs root and loop mounts"), arguments: Requirement.mountable)
    func `On a file system of its own too, with its lost+found`(_ type: String) throws {
        let mount = try LoopMount(type, megabytes: type == "ext4" ? 48 : 320, in: workspace.directory)
        let first = try workspace.backup(volume).id
        try workspace.restore(first, onto: mount.path)
        try change()
        let second = try workspace.backup(volume).id
        try workspace.restore(second, onto: mount.path, "--refresh")
        let full = try LoopMount(type, megabytes: type == "ext4" ? 48 : 320, in: workspace.directory, name: "full")
        try workspace.restore(second, onto: full.path)
        func tree(_ path: String) throws -> String {
            try Fixture.hash(path).split(separator: "\n").filter { !$0.contains("\"lost+found\"") }.joined(separator: "\n")
        }
        #expect(differences(try tree(full.path), try tree(mount.path)) == [])
    }

    @Test func `A dry run says what would be written and removed, and changes nothing`() throws {
        try workspace.backup(volume)
        try workspace.restore("latest", onto: "target")
        try change()
        try workspace.backup(volume)
        let before = try Fixture.hash(workspace.path("target"))
        let arguments = ["restore", "latest", "--target", workspace.path("target"), "--refresh", "--dry-run"]
        let text = try workspace.expect(0, arguments + ["-v"]).output
        for line in ["remove  gone/one/two", "write   \(Self.page)", "write   file-made/deep/file"] {
            #expect(text.contains(line + "\n"), "\(text)")
        }
        #expect(!text.contains("write   collections/c/config.json"))
        let summary = Summary(fields: try workspace.expect(0, arguments + ["--json"]).summary)
        #expect(try summary.number("bytes_written") == 0)
        #expect(try summary.number("files_changed") > 5)
        #expect(differences(before, try Fixture.hash(workspace.path("target"))) == [])
        try workspace.restore("latest", onto: "target", "--refresh")
        try expectIdentical(volume.path, workspace.path("target"))
    }

    @Test func `The text says what was kept, and the summary where the time went`() throws {
        try workspace.backup(volume)
        let full = try workspace.restore("latest", onto: "target")
        let stages = try #require(full.fields["stages"] as? [String: Double])
        #expect(Set(stages.keys) == ["plan", "fetch", "verify", "write", "sync", "metadata"])
        let duration = try #require(full.fields["duration_seconds"] as? Double)
        #expect(abs(stages.values.reduce(0, +) - duration) < max(0.05, duration * 0.1), "\(stages) of \(duration)")
        #expect(stages[try full.text("slowest_stage")] == stages.values.max())
        #expect(try full.number("bytes_per_second") > 0)
        #expect(full.fields["refreshed_from"] is NSNull)
        try volume.write("node_state.json", "{\"term\": 9}")
        try workspace.backup(volume)
        let text = try workspace.expect(0, ["restore", "latest", "--target", workspace.path("target"), "--refresh"]).output
        #expect(text.contains("were kept") && text.contains("/s; most of it to"), "\(text)")
    }

    @Test(.enabled(if: Requirement.root, "needs root")) func `Another --owner is given to everything`() throws {
        try workspace.backup(volume)
        try workspace.restore("latest", onto: "target")
        try change()
        try workspace.backup(volume)
        try workspace.restore("latest", onto: "target", "--refresh", "--owner", "4321:1234")
        let target = try Volume(workspace.path("target"))
        #expect(try target.shell("find . -printf '%U:%G\\n' | sort -u") == "4321:1234\n")
        try workspace.restore("latest", onto: "target", "--refresh")
        try expectIdentical(volume.path, target.path)
    }
}

@Suite("What a refresh refuses")
struct RefreshRefusalTests {
    let workspace: Workspace
    let volume: Volume
    let target: Volume

    init() throws {
        workspace = try Workspace.ready("refused")
        volume = try Volume.small(workspace.path("volume"))
        target = try Volume(workspace.path("target"))
        try volume.makeDirectory("empty")
        try workspace.backup(volume)
        try workspace.restore("latest", onto: "target")
        try volume.write("collections/c/config.json", "{\"params\": 2}\n")
        try workspace.backup(volume)
    }

    private func refuse(
        _ word: String, _ code: String = "target-changed", status: Int32 = 15, onto name: String = "target", _ more: String...,
        sourceLocation: SourceLocation = #_sourceLocation
    ) throws {
        let result = try workspace.expect(
            status, ["restore", "latest", "--target", workspace.path(name), "--refresh", "--json"] + more,
            sourceLocation: sourceLocation)
        #expect(result.summary["code"] as? String == code, sourceLocation: sourceLocation)
        #expect(result.errors.contains(word), "\(result.errors)", sourceLocation: sourceLocation)
    }

    static let alterations = [
        ("echo >> collections/c/config.json", "collections/c/config.json changed"),
        ("touch collections/c/0/segments/s/vector_storage/matrix.dat", "matrix.dat changed"),
        ("chmod 600 collections/c/config.json", "collections/c/config.json changed"),
        ("echo x > node_state.json", "node_state.json is new"),
        ("mkdir collections/d", "collections/d is new"),
        ("rm collections/c/config.json", "collections/c/config.json is missing"),
        ("rmdir empty; mkdir empty", "empty changed"),
        ("cp -a empty copy; rmdir empty; mv copy empty", "empty changed"),
        ("ln collections/c/config.json name", "name is new"),
        (
            "f=collections/c/0/segments/s/payload_storage/page_0.dat; cp -p $f /tmp/$$; printf x | dd of=$f bs=1 seek=9 conv=notrunc status=none; touch -r /tmp/$$ $f; rm /tmp/$$",
            "page_0.dat changed"
        ),
        (
            "python3 -c \"import mmap; f = open('collections/c/0/segments/s/payload_storage/page_0.dat', 'r+b'); mmap.mmap(f.fileno(), 0)[5] = 7\"",
            "page_0.dat changed"
        ),
    ]

    @Test(arguments: alterations)
    func `A target that was written to since is refused and left alone`(_ alter: String, _ word: String) throws {
        try target.shell(alter)
        let before = try Fixture.hash(target.path)
        try refuse(word)
        #expect(differences(before, try Fixture.hash(target.path)) == [])
    }

    @Test(.enabled(if: Requirement.ext4, "needs root and loop mounts"))
    func `Bytes that changed behind every stat are found by the sample`() throws {
        let mount = try LoopMount("ext4", megabytes: 16, in: workspace.directory)
        let first = try workspace.backup(volume).id
        try workspace.restore(first, onto: mount.path)
        try target.shell(
            """
            umount '\(mount.path)'
            python3 - <<'END'
            image = open("\(mount.image)", "r+b").read()
            wanted = open("\(volume("collections/c/0/segments/s/payload_storage/page_0.dat"))", "rb").read()
            place = image.index(wanted[:1024])
            with open("\(mount.image)", "r+b") as file:
                file.seek(place + 100)
                file.write(bytes([wanted[100] ^ 1]))
            END
            mount -o loop '\(mount.image)' '\(mount.path)'
            """)
        try refuse("page_0.dat holds other bytes at 0", onto: "mount")
    }

    @Test func `What no restore on this node left whole is refused`() throws {
        try refuse("no note", onto: "nowhere")
        try Volume(workspace.path("other")).shell("cp -a '\(target.path)'/. .")
        try refuse("no note", onto: "other")
        try workspace.restore("latest", onto: "part", "--include", "collections/c/config.json")
        try refuse("no note", onto: "part")
        try Program.run("/bin/mv", [target.path, workspace.path("elsewhere")])
        try Program.run("/bin/cp", ["-a", workspace.path("elsewhere"), target.path])
        try refuse("the directory itself changed")
        try Program.run("/bin/rm", ["-rf", workspace.path("state")])
        try refuse("no note")
    }

    @Test func `A note that was altered is none`() throws {
        try target.shell(
            "for f in '\(workspace.path("state"))'/*/*.target; do printf x | dd of=$f bs=1 seek=70 conv=notrunc status=none; done"
        )
        try refuse("no note")
    }

    @Test func `The snapshot that the target holds must be there`() throws {
        let folder = "\(workspace.repository)/v1/snapshots"
        guard workspace.server == nil else { return }
        let names = try FileManager.default.subpathsOfDirectory(atPath: folder).sorted()
        try FileManager.default.removeItem(atPath: "\(folder)/\(try #require(names.first))")
        try refuse("does not hold snapshot")
    }

    @Test func `Parts and devices are no matter of it`() throws {
        try refuse("whole snapshots", "usage", status: 64, "--include", "collections")
        try Data(noise(200_000, seed: 3)).write(to: URL(filePath: workspace.path("disk.img")))
        try workspace.backup(workspace.path("disk.img"))
        try refuse("whole snapshots", "usage", status: 64)
    }

    @Test func `A restore that was cut off is no base`() throws {
        try target.write(".bgbackup-incomplete", "{\"plan\":\"\",\"repository\":\"x\",\"snapshot\":\"y\",\"warning\":\"\"}\n")
        try refuse("unfinished restore")
    }
}

@Suite("The first backup of a node that was seeded")
struct SeededNodeTests {
    @Test(.severalWriters) func `Green's first backup shares blue's blocks, in a lineage of its own`() throws {
        let blue = try Workspace.ready("seeded")
        let volume = try Volume(blue.path("volume"))
        try volume.writeRandom("collections/c/0/segments/s/vector_storage/matrix.dat", megabytes: 20)
        try volume.writeRandom("collections/c/0/segments/s/payload_storage/page_0.dat", megabytes: 4)
        try volume.write("collections/c/0/wal/open-1", noise(200_000, seed: 1))
        try volume.write("node_state.json", "{\"this_peer_id\": 1}")
        let first = try blue.backup(volume, "--node", "blue")

        var green = blue.node("green")
        green.environment["BGBACKUP_PASSWORD_FILE"] = blue.passwordFile
        try green.restore(first.id, onto: "green-volume")
        let seeded = try Volume(blue.path("green-volume"))
        // A start rewrites what names the node.
        try seeded.write("node_state.json", "{\"this_peer_id\": 2}")
        let own = try green.backup(seeded, "--node", "green")
        #expect(own.fields["parent"] is NSNull || own.fields["parent"] == nil)
        #expect(try own.number("bytes_total") > 24_000_000)
        #expect(try own.number("bytes_new") < 32 << 10, "the list of names, and one small file")
        #expect(try own.number("bytes_stored") < 32 << 10)
        #expect(try lineages("state", blue) != lineages("green-state", blue))

        // Neither is in the other's way.
        try volume.write("node_state.json", "{\"this_peer_id\": 1, \"term\": 3}")
        #expect(try blue.backup(volume, "--node", "blue").text("parent") == first.id)
        #expect(try green.backup(seeded, "--node", "green").text("parent") == own.id)
        try green.restore(own.id, onto: "again")
        try expectIdentical(seeded.path, blue.path("again"))
    }

    private func lineages(_ state: String, _ workspace: Workspace) throws -> [String] {
        let names = try Volume(workspace.path(state)).shell("ls */*.state | xargs -n 1 basename").split(separator: "\n")
        #expect(names.count == 1)
        return names.map(String.init)
    }
}
