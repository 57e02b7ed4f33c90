import Foundation
import TestSupport
import Testing

@Suite("Volumes of many small files")
struct ManyFilesTests {
    /// 20 000, or 200 000 with BGBACKUP_TEST_LONG=1.
    @Test func `Every one of them comes back, and none is read twice`() async throws {
        let count = Requirement.long ? 200_000 : 20_000
        let workspace = try Workspace.ready("many")
        let volume = try Volume(workspace.path("volume"))
        try volume.shell(
            """
            python3 -c '
            import os, random
            chance = random.Random(7)
            for i in range(\(count)):
                folder = "collections/c/%d/%d" % (i % 7, i // 1000)
                if i % 1000 < 7: os.makedirs(folder, exist_ok=True)
                with open("%s/%06d" % (folder, i), "wb") as f: f.write(chance.randbytes(chance.randrange(300)))'
            """)
        try await settle()
        let first = try workspace.backup(volume)
        #expect(try first.number("files_new") == count)
        let second = try workspace.backup(volume)
        #expect(try second.number("bytes_read") == 0)
        #expect(try second.number("files_unmodified") == count)
        try volume.write("collections/c/0/0/000000", "changed")
        let third = try workspace.backup(volume)
        #expect(try third.number("bytes_read") == 7)
        #expect(try third.number("bytes_stored") < 256 << 10)
        try workspace.restore(third.id)
        try expectIdentical(volume.path, workspace.path("restored"))
    }
}
