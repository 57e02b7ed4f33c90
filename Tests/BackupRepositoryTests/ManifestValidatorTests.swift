import Testing

@testable import BackupRepository

/// A corpus of manifests that no honest writer makes.
@Suite struct ManifestValidatorTests {
    private static let metadata = Entry.Metadata(mode: 0o755, owner: 0, group: 0, modified: 0, attributes: [])
    private static let content = Content(
        size: 0, blockSize: 4096, digest: [UInt8](repeating: 0, count: 32),
        layout: .inline(Content.Part(dataRanges: [], extents: Extents())))

    /// "d a" a directory, "f a" a file, "l a" a symbolic link, "h a>b" a hard link; \0 stays a NUL.
    private static func entry(_ text: String) -> Entry {
        let path = Array(text.utf8.dropFirst(2))
        switch text.first {
        case "d": return Entry(path: path, kind: .directory(metadata))
        case "f": return Entry(path: path, kind: .file(metadata, content))
        case "l": return Entry(path: path, kind: .symlink(metadata, target: Array("/etc".utf8)))
        default:
            let parts = path.split(separator: UInt8(ascii: ">"), omittingEmptySubsequences: false)
            return Entry(path: Array(parts[0]), kind: .hardLink(to: Array(parts[1])))
        }
    }

    private func validate(_ lines: [String]) throws {
        var validator = ManifestValidator()
        for line in lines { try validator.accept(Self.entry(line)) }
    }

    @Test(arguments: [
        ["d "], ["d ", "f a"], ["d ", "d a", "f a/b", "f b"], ["d ", "f a", "h b>a"], ["d ", "d a", "f a/f", "h b>a/f"],
        ["d ", "d a", "f a/x", "f a!"], ["d ", "d a", "f a-b"], ["d ", "l a", "l b"], ["d ", "f ..."], ["d ", "f .a"],
        ["d ", "f a.."],
        ["d ", "d a", "d a/a", "f a/a/a", "f a/b", "d b", "f b/a"], ["d ", "f \\"], ["d ", "f  "], ["d ", "f a\n"],
        ["d ", "f \u{1}"], ["d ", "d tmp", "d tmp/.deleted"],
    ])
    func `an honest manifest is accepted`(_ lines: [String]) throws { try validate(lines) }

    @Test(arguments: [
        // The root: missing, not first, twice, or no directory.
        ["f a"], ["d a"], ["d a", "d "], ["d ", "d "], ["f "], ["l "], ["h >a"], ["d ", "f "], ["d ", "f a", "d "],
        // Components that lead elsewhere or nowhere.
        ["d ", "d .."], ["d ", "f .."], ["d ", "f ../a"], ["d ", "d a", "f a/.."], ["d ", "d a", "f a/../b"], ["d ", "f ."],
        ["d ", "f ./a"], ["d ", "d a", "f a/."], ["d ", "f /a"], ["d ", "d /"], ["d ", "f /etc/passwd"], ["d ", "f a/"],
        ["d ", "d a", "f a//b"], ["d ", "f //"], ["d ", "f a\0b"], ["d ", "f \0"], ["d ", "d ../..", "f ../../a"],
        // Twice, or out of order.
        ["d ", "f a", "f a"], ["d ", "d a", "d a"], ["d ", "f a", "l a"], ["d ", "l a", "d a"], ["d ", "f b", "f a"],
        ["d ", "d a", "f a/b", "f a/a"], ["d ", "d a", "f a/b", "d a"], ["d ", "d a", "f b", "f a/c"], ["d ", "f a!", "d a"],
        ["d ", "d a", "f a!", "f a/b"], ["d ", "f a", "h a>a"],
        // Parents that are no directory before it.
        ["d ", "f a/b"], ["d ", "f a", "f a/b"], ["d ", "l a", "f a/b"], ["d ", "l a", "d a/b", "f a/b/c"],
        ["d ", "f x", "h y>x", "f y/z"], ["d ", "d a", "f a/b/c"], ["d ", "d a", "f a/b", "f a/b/c"], ["d ", "d ab", "f a/b"],
        // Hard links to what is not a file before them.
        ["d ", "h a>b"], ["d ", "h a>b", "f b"], ["d ", "h a>a"], ["d ", "d a", "h b>a"], ["d ", "l a", "h b>a"], ["d ", "h a>"],
        ["d ", "f a", "h b>a", "h c>b"], ["d ", "f a", "h b>../a"], ["d ", "f a", "h b>./a"], ["d ", "f a", "h b>/a"],
        ["d ", "f a", "h b>/etc/passwd"], ["d ", "f a", "h ..>a"],
    ])
    func `a hostile manifest is refused`(_ lines: [String]) {
        #expect(throws: FormatError.self) { try validate(lines) }
    }

    @Test func `a component of 256 bytes is refused and one of 255 is not`() throws {
        try validate(["d ", "f " + String(repeating: "a", count: 255)])
        #expect(throws: FormatError.self) { try validate(["d ", "f " + String(repeating: "a", count: 256)]) }
    }

    @Test(arguments: 0..<50) func `the order of paths is that of their components`(_ seed: Int) {
        var random = Seeded(seed)
        func path() -> [UInt8] {
            (0..<random.number(1...4)).map { _ in
                random.bytes(random.number(1...3)).map { $0 % 3 == 0 ? 0x21 : $0 % 3 == 1 ? 0x61 : 0x2e }
            }
            .joined(separator: [0x2f]).map { $0 }
        }
        for _ in 0..<200 {
            let (a, b) = (path(), path())
            let left = a.split(separator: 0x2f).map(Array.init)
            let right = b.split(separator: 0x2f).map(Array.init)
            let expected = a == b ? 0 : left.lexicographicallyPrecedes(right) { $0.lexicographicallyPrecedes($1) } ? -1 : 1
            #expect(comparePaths(a, b).signum() == expected, "\(a) \(b)")
        }
    }
}
