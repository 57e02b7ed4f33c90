import TestSupport
import Testing

/// A few runs of what `Benchmarks/torture` does by the hundred.
@Suite(
    "Captures of a Qdrant engine that never rests", .serialized,
    .enabled(if: Requirement.mountable.count == 3, "needs loop mounts"),
    .enabled(if: Fixture.engineIsAvailable, "qdrant-edge-py cannot be installed"))
struct TortureTests {
    @Test(arguments: ["btrfs", "reflink", "pause"])
    func `Every restored capture opens, with every point acknowledged before it`(method: String) throws {
        let directory = try TemporaryDirectory("torture")
        let result = try Program.run(
            "/usr/bin/env",
            [
                "python3", Program.root + "Benchmarks/torture", "--method", method, "--runs", "2", "--points", "1000",
                "--ballast", "20M", "--size", "1GiB", "--bgbackup", Program.binary, "--dir", directory.path,
                "--image-dir", directory.path,
            ])
        #expect(result.status == 0, "\(result.output)\(result.errors)")
        #expect(result.output.contains("2 of 2"), "\(result.output)")
    }
}
