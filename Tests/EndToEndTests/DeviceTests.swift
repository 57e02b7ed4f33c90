import Foundation
import Glibc
import TestSupport
import Testing

@Suite("Block devices and raw images")
struct DeviceTests {
    let workspace: Workspace
    let files: Volume
    private static let megabyte: Int64 = 1 << 20

    init() throws {
        workspace = try Workspace.ready("device")
        files = try Volume(workspace.path("files"))
    }

    /// An image of 64 MiB with 3 MiB of data, also in its first and last bytes.
    private func makeImage(_ name: String = "image") throws -> String {
        try files.write(name, noise(1 << 20, seed: 1), size: 64 * Self.megabyte)
        try files.write(name, noise(1 << 20, seed: 2), at: 20 * Self.megabyte + 12345)
        try files.write(name, noise(1 << 20, seed: 3), at: 63 * Self.megabyte)
        return files(name)
    }

    @Test func `An image is stored without its zeros and restores to a sparse image`() throws {
        let image = try makeImage()
        // Allocated zeros are no more worth storing than holes.
        try files.write("image", [UInt8](repeating: 0, count: 4 << 20), at: 40 * Self.megabyte)
        let snapshot = try workspace.backup(image)
        #expect(try snapshot.number("bytes_total") == 64 * Self.megabyte)
        #expect(try snapshot.number("bytes_stored") < 7 * Self.megabyte / 2)
        #expect(try workspace.show(snapshot.id).text("kind") == "device")
        let restored = try workspace.restore(snapshot.id, onto: "new.img")
        #expect(try restored.number("bytes_written") < 9 * Self.megabyte)
        try expectSame(image, workspace.path("new.img"))
        #expect(try Volume(workspace.directory.path).stat("new.img").st_blocks * 512 < 9 * Self.megabyte)
    }

    @Test func `An image whose size is no multiple of anything`() throws {
        try files.write("odd", noise(300_000, seed: 4), at: 777, size: 5_000_001)
        let snapshot = try workspace.backup(files("odd"))
        try workspace.restore(snapshot.id, onto: "new.img")
        try expectSame(files("odd"), workspace.path("new.img"))
    }

    @Test func `An unchanged image is not read again, a changed one stores what changed`() async throws {
        let image = try makeImage()
        try await settle()
        try workspace.backup(image)
        let second = try workspace.backup(image)
        #expect(try second.number("bytes_read") == 0)
        try files.write("image", noise(4096, seed: 9), at: 30 * Self.megabyte)
        let third = try workspace.backup(image)
        #expect(try third.number("bytes_new") < 160 << 10)
        try workspace.restore(third.id, onto: "new.img")
        try expectSame(image, workspace.path("new.img"))
    }

    @Test func `dump and ls know the image by its name`() throws {
        let image = try makeImage("volume.img")
        try workspace.backup(image)
        #expect(try workspace.list("latest") == ["volume.img"])
        let dumped = try workspace.run(["dump", "latest", "volume.img"])
        #expect(dumped.outputBytes == (try Data(contentsOf: URL(filePath: image))))
    }

    @Test func `A target that is smaller, a directory or not empty is refused`() throws {
        try workspace.backup(try makeImage())
        try files.write("small", [], size: 63 * Self.megabyte)
        let small = try workspace.run(["restore", "latest", "--target", files("small"), "--json"])
        #expect(small.status == 1)
        #expect(small.summary["code"] as? String == "target-failed")
        try workspace.restore("latest", onto: files.path, status: 15)
        try files.write("used", [7], at: 4000, size: 64 * Self.megabyte)
        try workspace.restore("latest", onto: files("used"), status: 15)
        #expect(try files.read("used")[4000] == 7)
        try workspace.restore("latest", onto: files("used"), "--force")
        try expectSame(files("image"), files("used"))
    }

    @Test func `A dry run leaves the target alone`() throws {
        try workspace.backup(try makeImage())
        try workspace.restore("latest", onto: "new.img", "--dry-run")
        #expect(access(workspace.path("new.img"), F_OK) != 0)
        try files.write("present", [], size: 64 * Self.megabyte)
        try workspace.restore("latest", onto: files("present"), "--dry-run")
        #expect(try files.stat("present").st_blocks == 0)
    }

    @Test func `A tree does not go onto an image file`() throws {
        try workspace.backup(try Volume.small(workspace.path("volume")))
        try files.write("target", [], size: Self.megabyte)
        let result = try workspace.run(["restore", "latest", "--target", files("target")])
        #expect(result.status == 1 || result.status == 15)
        #expect(try files.stat("target").st_size == Self.megabyte)
    }

    @Test(.enabled(if: Requirement.loopDevices, "needs root and loop devices"))
    func `A block device restores onto a larger one, whose old content goes`() throws {
        let source = try LoopDevice(try makeImage(), megabytes: 64)
        let snapshot = try workspace.backup(source.path)
        #expect(try snapshot.number("bytes_total") == 64 * Self.megabyte)
        #expect(try snapshot.number("bytes_stored") < 7 * Self.megabyte / 2)

        try files.writeRandom("garbage", megabytes: 66)
        let target = try LoopDevice(files("garbage"), megabytes: 66)
        let before = try target.digest(bytes: 66 * Self.megabyte)
        try workspace.restore(snapshot.id, onto: target.path, status: 15)
        #expect(try target.digest(bytes: 66 * Self.megabyte) == before)
        try workspace.restore(snapshot.id, onto: target.path, "--force")
        #expect(try target.digest(bytes: 64 * Self.megabyte) == source.digest(bytes: 64 * Self.megabyte))

        let small = try LoopDevice(files("small"), megabytes: 63)
        #expect(try workspace.run(["restore", snapshot.id, "--target", small.path, "--force"]).status == 1)
        #expect(try small.digest(bytes: 63 * Self.megabyte) == digestOfZeros(63))
    }

    @Test(.enabled(if: Requirement.loopDevices, "needs root and loop devices"))
    func `A device is read again each time and stores nothing twice`() throws {
        let device = try LoopDevice(try makeImage(), megabytes: 64)
        let first = try workspace.backup(device.path)
        let second = try workspace.backup(device.path)
        #expect(try first.number("bytes_new") > 3 * Self.megabyte)
        #expect(try second.number("bytes_read") == 64 * Self.megabyte)
        #expect(try second.number("bytes_new") < 64 << 10)
    }

    private func expectSame(_ one: String, _ two: String, sourceLocation: SourceLocation = #_sourceLocation) throws {
        let result = try Program.tool("cmp", [one, two])
        #expect(result.status == 0, "\(result.output)\(result.errors)", sourceLocation: sourceLocation)
    }

    private func digestOfZeros(_ megabytes: Int) throws -> String {
        String(try Program.run("/bin/sh", ["-ec", "head -c \(megabytes)M /dev/zero | sha256sum"]).output.prefix(64))
    }
}
