import Testing

@testable import VolumeIO

/// What thin_delta says, taken at its word or not at all.
@Suite struct ThinDeltaTests {
    private static let block: Int64 = 64 << 10
    private static let good = """
        <superblock uuid="" time="2" transaction="3" data_block_size="128" nr_data_blocks="0">
          <diff left="2" right="3">
            <same begin="0" length="80"/>
            <left_only begin="80" length="16"/>
            <different begin="100" length="3"/>
            <right_only begin="800" length="32"/>
          </diff>
        </superblock>

        """

    @Test func `every kind of difference counts, and nothing else`() throws {
        let delta = try #require(ThinDelta(Self.good, left: "2", right: "3"))
        #expect(delta.changed == [(80, 96), (100, 103), (800, 832)].map { $0 * Self.block..<$1 * Self.block })
        #expect(delta.onlyEarlier == 19 * Self.block)
    }

    @Test(arguments: [
        ("</superblock>", ""), ("  </diff>\n", ""), ("left=\"2\"", "left=\"7\""), ("\"128\"", "\"0\""), ("\"128\"", "\"x\""),
        ("different", "similar"), ("begin=\"100\"", "begin=\"90\""), ("length=\"3\"", "length=\"0\""),
        ("length=\"3\"", "length=\"9223372036854775807\""), ("length=\"3\"", "length=\"-3\""), ("begin=\"100\" ", ""),
        ("<superblock", "<?xml version=\"1.0\"?>\n<superblock"),
    ])
    func `what is not understood is no answer`(_ from: String, _ to: String) {
        #expect(ThinDelta(Self.good.split(separator: from).joined(separator: to), left: "2", right: "3") == nil)
    }

    @Test func `a place is the same where it is the same place and nobody wrote there`() {
        let old = [FileExtent(logical: 0, physical: 1_000_000, length: 40960, flags: 1)]
        func changed(_ new: [FileExtent], _ written: [Range<Int64>]?) -> [Range<Int64>] {
            ExtentComparison.changed(new, old, size: 40960, earlierSize: 40960, needsShared: written == nil, written: written)
                .ranges
        }
        #expect(changed(old, []) == [])
        #expect(changed(old, nil) == [0..<40960], "on one file system, what is not shared is another's")
        #expect(changed(old, [0..<1_000_000, 1_004_096..<1_008_192, 1_040_000..<9_000_000]) == [4096..<8192, 40000..<40960])
        var moved = old
        moved[0].physical += 4096
        #expect(changed(moved, []) == [0..<40960])
        moved = old
        moved[0].flags |= 0x800
        #expect(changed(moved, []) == [0..<40960])
        #expect(changed([], []) == [0..<40960], "a hole was punched")
    }
}
