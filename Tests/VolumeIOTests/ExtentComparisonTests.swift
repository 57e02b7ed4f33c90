import Testing

@testable import VolumeIO

/// What two files' extents tell of their content, without any file.
@Suite struct ExtentComparisonTests {
    private static let shared: UInt32 = 0x2000
    private static let page: Int64 = 4096

    /// Extents in pages.
    private func extents(_ list: (at: Int64, on: Int64, count: Int64, flags: UInt32)...) -> [FileExtent] {
        list.map {
            FileExtent(logical: $0.at * Self.page, physical: $0.on * Self.page, length: $0.count * Self.page, flags: $0.flags)
        }
    }

    private func changed(_ new: [FileExtent], _ old: [FileExtent], pages: Int64 = 10, earlier: Int64? = nil) -> [Range<Int64>] {
        ExtentComparison.changed(new, old, size: pages * Self.page, earlierSize: (earlier ?? pages) * Self.page).ranges.map {
            $0.lowerBound / Self.page..<($0.upperBound + Self.page - 1) / Self.page
        }
    }

    @Test func `what is in the same place is the same, however it is cut up`() {
        let whole = extents((0, 100, 10, Self.shared | 1))
        #expect(changed(whole, whole) == [])
        let cut = extents((0, 100, 3, Self.shared), (3, 103, 5, Self.shared), (8, 108, 2, Self.shared | 1))
        #expect(changed(cut, whole) == [])
        #expect(changed(whole, cut) == [])
    }

    @Test func `what was written elsewhere has changed, and nothing else`() {
        let old = extents((0, 100, 10, Self.shared | 1))
        let new = extents((0, 100, 3, Self.shared), (3, 900, 1, 0), (4, 104, 6, Self.shared | 1))
        #expect(changed(new, old) == [3..<4])
        // The same place in another order is another content.
        #expect(changed(extents((0, 105, 5, Self.shared), (5, 100, 5, Self.shared | 1)), old) == [0..<10])
        #expect(changed(extents((0, 101, 10, Self.shared | 1)), old) == [0..<10])
    }

    @Test(arguments: [0x2, 0x4, 0x8, 0x80, 0x100, 0x200, 0x400, 0x800, 0x1000, 0x4000, 0x8000_0000] as [UInt32])
    func `a place that means something else is no proof`(_ flag: UInt32) {
        let plain = extents((0, 100, 10, Self.shared | 1))
        let odd = extents((0, 100, 4, Self.shared), (4, 104, 2, Self.shared | flag), (6, 106, 4, Self.shared | 1))
        #expect(changed(odd, plain) == [4..<6])
        #expect(changed(plain, odd) == [4..<6])
        #expect(changed(odd, odd) == [4..<6])
    }

    @Test func `what is not shared is in one of them only`() {
        let old = extents((0, 100, 10, Self.shared | 1))
        #expect(changed(extents((0, 100, 10, 1)), old) == [0..<10])
    }

    @Test func `a hole is the same as a hole, and as nothing else`() {
        let old = extents((2, 102, 3, Self.shared), (8, 108, 1, Self.shared | 1))
        #expect(changed(old, old) == [])
        #expect(changed(extents((2, 102, 3, Self.shared | 1)), old) == [8..<9])
        #expect(changed(extents((0, 500, 1, 0), (2, 102, 3, Self.shared), (8, 108, 1, Self.shared | 1)), old) == [0..<1])
        #expect(changed([], []) == [])
    }

    @Test func `what is behind the shorter one's end is not compared`() {
        let old = extents((0, 100, 10, Self.shared | 1))
        #expect(changed(old, old, pages: 10, earlier: 6) == [6..<10])
        #expect(changed(old, old, pages: 6, earlier: 10) == [])
        #expect(changed(extents((0, 100, 10, Self.shared | 1)), [], pages: 10, earlier: 0) == [0..<10])
    }
}
