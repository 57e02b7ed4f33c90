import Foundation
import TestSupport
import Testing

/// Archives made by hand to do harm. Each ends with its status and one
/// sentence, in bounded time and memory, and leaves no snapshot.
@Suite("Hostile archives")
struct HostileArchiveTests {
    let workspace: Workspace
    let archive: String

    init() throws {
        workspace = try Workspace.ready("hostile")
        archive = workspace.path("a.tar")
    }

    /// What every script begins with: `t` is an open archive with a volume in it.
    private static let prelude = """
        import io, sys, tarfile, gzip, bz2
        raw = io.BytesIO()
        t = tarfile.open(fileobj=raw, mode="w", format=tarfile.PAX_FORMAT)
        def add(name, data=b"x", **fields):
            info = tarfile.TarInfo(name)
            info.size = len(data)
            for key, value in fields.items(): setattr(info, key, value)
            t.addfile(info, io.BytesIO(data))
            return info
        def folder(name): add(name, b"", type=tarfile.DIRTYPE)
        def link(name, to, type=tarfile.SYMTYPE): add(name, b"", type=type, linkname=to)
        folder("collections")
        add("collections/config.json", b"{}")
        def bytes_of():
            t.close()
            return bytearray(raw.getvalue())
        result = None

        """

    private func make(_ script: String) throws {
        let whole = Self.prelude + script + "\nopen(sys.argv[1], 'wb').write(bytes_of() if result is None else result)\n"
        let made = try Program.tool("python3", ["-c", whole, archive])
        try #require(made.status == 0, "\(made.errors)")
    }

    private func expectRefused(
        _ status: Int32, _ words: String, memoryMiB: Int = 700, sourceLocation: SourceLocation = #_sourceLocation
    ) throws {
        let before = try Program.tool("find", [workspace.directory.path, "-newer", archive, "-not", "-path", "*/repository*"])
        // Of the process's data, in KiB: more is refused by the kernel, and the program dies.
        let result = try Program.run(
            "/bin/sh",
            [
                "-c", "ulimit -d \(memoryMiB << 10); exec timeout 60 \"$@\"", "sh", Program.binary, "import", archive, "--node",
                "n",
                "--writer-key", workspace.path("writer-key"),
            ], environment: workspace.environment, directory: workspace.directory.path)
        #expect(result.status == status, "\(result.status): \(result.errors)", sourceLocation: sourceLocation)
        #expect(words.isEmpty || result.errors.contains(words), "\(result.errors)", sourceLocation: sourceLocation)
        let listed = try workspace.expect(0, ["snapshots", "--json"]).document as? [Any]
        #expect(listed?.isEmpty == true, sourceLocation: sourceLocation)
        let after = try Program.tool("find", [workspace.directory.path, "-newer", archive, "-not", "-path", "*/repository*"])
        // State and cache may be new; nothing of the archive's may.
        let allowed = ["state", "cache"].map { workspace.path($0) }
        let new = Set(after.output.split(separator: "\n").map(String.init))
            .subtracting(before.output.split(separator: "\n").map(String.init))
            .filter { path in path != workspace.directory.path && !allowed.contains { path.hasPrefix($0) } }
        #expect(new.isEmpty, "\(new)", sourceLocation: sourceLocation)
    }

    @Test(arguments: [
        ("add('/etc/evil')", "is an absolute path"),
        ("add('../evil')", "leads out of it"),
        ("add('collections/../../evil')", "leads out of it"),
        ("folder('..')", "leads out of it"),
        ("add('collections/' + 'n' * 256)", "longer than 255"),
        ("add('collections/' + 'd/' * 1100 + 'f')", "nested too deeply"),
        ("link('collections/out', '/etc'); add('collections/out/passwd')", "which is no directory"),
        ("add('collections/out/passwd'); link('collections/out', '/etc')", "which is no directory"),
        ("link('collections', '/etc')", "twice"),
        ("add('collections/f'); add('collections/f')", "twice"),
        ("add('collections/f'); link('collections/f', 'x')", "twice"),
        ("add('./collections//f'); add('collections/f')", "twice"),
        ("add('collections/f'); folder('collections/f/g')", "which is no directory"),
        ("link('collections/h', 'collections/none', tarfile.LNKTYPE)", "hard link to no file"),
        ("link('collections/h', 'collections/h', tarfile.LNKTYPE)", "hard link to no file"),
        ("link('collections/h', '/etc/passwd', tarfile.LNKTYPE)", "absolute path"),
        ("link('collections/h', '../../etc/passwd', tarfile.LNKTYPE)", "leads out of it"),
        ("link('collections/h', 'collections', tarfile.LNKTYPE)", "hard link to no file"),
    ])
    func `Names and links that lead elsewhere`(script: String, words: String) throws {
        try make(script)
        try expectRefused(17, words)
    }

    @Test(arguments: ["CHRTYPE", "BLKTYPE", "FIFOTYPE"]) func `Devices and pipes`(type: String) throws {
        try make("add('collections/null', b'', type=tarfile.\(type), devmajor=1, devminor=3)")
        try expectRefused(1, "device, pipe or socket")
    }

    @Test func `What is no archive, or holds no volume`() throws {
        for (script, status, words) in [
            ("result = b''", Int32(17), "no archive"), ("result = b'no tar at all ' * 1000", 17, "no archive"),
            ("result = bytes(1 << 20)", 1, "holds no volume"),
            ("result = gzip.compress(b'')", 17, "no archive"),
            ("raw.truncate(0); raw.seek(0); t.offset = 0; add('one'); add('two')", 1, "holds no volume"),
        ] {
            try make(script)
            try expectRefused(status, words)
        }
        #expect(try workspace.run(["import", workspace.path("none.tar"), "--node", "n"]).status == 1)
        #expect(try workspace.run(["import", archive]).status == 64)
    }

    @Test func `An archive that was cut off anywhere`() throws {
        try make("add('collections/f', b'y' * 3000); add('collections/g', bytes(3000))")
        let whole = try Data(contentsOf: URL(filePath: archive))
        // 512 blocks: folder, config (2), f (1 + 6), g (1 + 6), end (2) and padding.
        for length in [100, 512, 1024, 1536, 2000, 1536 + 7 * 512, 1536 + 13 * 512, 1536 + 14 * 512, 9_000] {
            try whole.prefix(length).write(to: URL(filePath: archive))
            try expectRefused(17, "no archive")
        }
    }

    @Test func `Bits that flip in headers, and in compressed bytes`() throws {
        try make("data = bytes_of(); data[3] ^= 1; data[512 * 1 + 148] ^= 4; result = data")
        try expectRefused(17, "no archive")
        try make(
            "data = bytearray(gzip.compress(bytes(bytes_of()) + bytes(300000))); data[len(data) // 2] ^= 0x55; result = data")
        try expectRefused(17, "no archive")
    }

    @Test func `Sizes that no file has`() throws {
        // The size field in base 256: 2^62 bytes.
        try make(
            """
            data = bytes_of()
            i = tarfile.TarInfo('collections/huge'); head = bytearray(i.tobuf(tarfile.GNU_FORMAT))
            head[124:136] = b'\\x80' + (1 << 62).to_bytes(11, 'big')
            head[148:156] = b' ' * 8; head[148:156] = b'%06o\\0 ' % sum(head)
            result = bytes(data[:1536]) + bytes(head) + b'z' * 5000
            """)
        try expectRefused(17, "")
        try make("t.addfile(tarfile.TarInfo('x')); add('collections/big', b'', pax_headers={'size': str(1 << 50)})")
        try expectRefused(17, "no archive")
    }

    /// A sparse file in GNU's pax form 1.0, whose map is `map`.
    private func sparse(_ size: String, _ map: String) -> String {
        """
        map = \(map)
        body = map + bytes(-len(map) % 512)
        add('collections/sparse', body, pax_headers={'GNU.sparse.major': '1', 'GNU.sparse.minor': '0',
            'GNU.sparse.name': 'collections/sparse', 'GNU.sparse.realsize': '\(size)'})
        """
    }

    @Test func `Sparse maps that lie`() throws {
        for (size, map) in [
            ("100", "b'2\\n0\\n10\\n5\\n10\\n' "), ("100", "b'2\\n50\\n10\\n0\\n10\\n'"), ("100", "b'1\\n90\\n4096\\n'"),
            ("100", "b'1\\n9223372036854775807\\n4096\\n'"), ("-5", "b'1\\n0\\n4\\n'"), ("100", "b'1\\nx\\n4\\n'"),
            ("1000000", "b'99999999999\\n0\\n1\\n'"),
        ] {
            try make(sparse(size, map))
            try expectRefused(17, "no archive")
        }
        // A map that never ends, of a few compressed bytes: its ranges would fill the memory.
        try make(
            sparse("1000000000", "b'900000000\\n' + b'0\\n0\\n' * 50000000") + "\nresult = gzip.compress(bytes(bytes_of()), 1)")
        try expectRefused(17, "header is larger")
    }

    @Test func `A hole of terabytes costs nothing`() throws {
        try make(sparse("\(1 << 42)", "b'1\\n0\\n0\\n'"))
        let result = try workspace.expect(0, ["import", archive, "--node", "n", "--json"])
        #expect(try Summary(fields: result.summary).number("bytes_total") == (1 << 42) + 2)
        try make(sparse("\(1 << 61)", "b'1\\n0\\n0\\n'"))
        #expect(try workspace.run(["import", archive, "--node", "n"]).status == 17)
    }

    @Test func `Zeros without end are read and stored nowhere, and a signal ends it`() throws {
        try make(
            """
            head = tarfile.TarInfo('collections/zeros'); head.size = 1 << 30
            data = bytes(bytes_of()[:1536]) + head.tobuf(tarfile.PAX_FORMAT)
            out = io.BytesIO()
            with gzip.GzipFile(fileobj=out, mode='w', compresslevel=1) as g:
                g.write(data)
                for _ in range(1 << 6): g.write(bytes(16 << 20))
                g.write(bytes(1024))
            result = out.getvalue()
            """)
        let taken = try workspace.expect(0, ["import", archive, "--node", "n", "--json"])
        #expect((taken.summary["bytes_stored"] as? NSNumber)?.int64Value ?? .max < 100_000)
        try Data().write(to: URL(filePath: archive))
        let ended = try Program.run(
            "/bin/sh", ["-c", "timeout -s TERM 3 \"$0\" import /dev/zero --node n", Program.binary],
            environment: workspace.environment)
        #expect(ended.status != 0)
    }

    @Test func `Headers of names and attributes without measure`() throws {
        try make("add('collections/' + 'a/' * 600000)")
        try expectRefused(17, "")
        try make("add('collections/f', pax_headers={'SCHILY.xattr.user.x': 'v' * 100000})")
        try expectRefused(17, "attribute")
        try make("add('collections/f', pax_headers={'SCHILY.xattr.user.%d' % i: 'v' * 60 for i in range(40000)})")
        try expectRefused(17, "")
        try make("add('collections/f', uid=1 << 40); add('collections/g', mtime=1 << 60)")
        try expectRefused(17, "sensible")
    }

    @Test func `A link to what is left out becomes the file`() throws {
        try make("add('tmp/x', b'content'); link('collections/h', 'tmp/x', tarfile.LNKTYPE)")
        try workspace.expect(0, ["import", archive, "--node", "n"])
        #expect(try workspace.dump("latest", "collections/h") == Array("content".utf8))
    }
}
