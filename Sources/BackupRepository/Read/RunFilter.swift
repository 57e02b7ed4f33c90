import BackupBase

/// Which ids a run surely does not hold: a Bloom filter of 10 bits per record, in
/// pages of its own of which each answers for the ids of one range.
///
/// A large one stays in the file, and a lookup reads one page of it; so memory
/// does not grow with the repository. Ids are random and in order, so the pages
/// fill alike and one after the other, and making a filter takes one page.
struct RunFilter {
    private enum Place {
        case memory([UInt8])
        case file(Int32, start: Int)
    }

    private let place: Place
    private let pages: Int

    private static let bits = UInt64(IndexRun.pageSize - 16) * 8
    /// Pages of a filter that is kept in memory: 16 MiB, for 13 million records.
    private static let mostResident = 4096

    /// - Parameter memory: whole pages
    init(_ memory: [UInt8]) {
        place = .memory(memory)
        pages = memory.count / IndexRun.pageSize
    }

    /// - Parameters:
    ///   - start: the first of its pages in the file
    ///   - resident: pages up to which it is kept in memory
    init(_ descriptor: Int32, start: Int, pages: Int, resident: Int = mostResident) {
        self.pages = pages
        var memory: [UInt8] = []
        if pages <= resident {
            memory.reserveCapacity(pages * IndexRun.pageSize)
            for number in start..<start + pages {
                guard let page = IndexRun.readPage(descriptor, number) else { break }
                memory += page
            }
        }
        // One with a damaged page says so when it is asked.
        place = memory.count == pages * IndexRun.pageSize ? .memory(memory) : .file(descriptor, start: start)
    }

    private static func page(_ id: BlockID, of pages: Int) -> Int {
        Int(id.words.0.multipliedFullWidth(by: UInt64(pages)).high)
    }

    /// Throws `IndexRun.Damaged`.
    func mayHold(_ id: BlockID) throws -> Bool {
        let number = Self.page(id, of: pages)
        switch place {
        case .memory(let bytes): return bytes.withUnsafeBytes { Self.isSet(id, $0, number * IndexRun.pageSize) }
        case .file(let descriptor, let start):
            guard let page = IndexRun.readPage(descriptor, start + number) else { throw IndexRun.Damaged() }
            return page.withUnsafeBytes { Self.isSet(id, $0, 0) }
        }
    }

    private static func isSet(_ id: BlockID, _ bytes: UnsafeRawBufferPointer, _ offset: Int) -> Bool {
        var bit = id.words.1
        for _ in 0..<7 {
            let position = Int(bit % bits)
            if bytes[offset + position >> 3] & (1 << UInt8(position & 7)) == 0 { return false }
            bit &+= id.words.2 | 1
        }
        return true
    }

    /// Takes ids in ascending order.
    struct Builder {
        let pages: Int
        private var current = 0
        private var page = [UInt8](repeating: 0, count: IndexRun.pageSize)

        /// - Parameter records: at the most
        init(records: Int) { pages = max((records * 10 + Int(RunFilter.bits) - 1) / Int(RunFilter.bits), 1) }

        mutating func add(_ id: BlockID, _ keep: ([UInt8]) -> Void) {
            let number = RunFilter.page(id, of: pages)
            while current < number { end(keep) }
            var bit = id.words.1
            for _ in 0..<7 {
                let position = Int(bit % RunFilter.bits)
                page[position >> 3] |= 1 << UInt8(position & 7)
                bit &+= id.words.2 | 1
            }
        }

        mutating func finish(_ keep: ([UInt8]) -> Void) { while current < pages { end(keep) } }

        private mutating func end(_ keep: ([UInt8]) -> Void) {
            IndexRun.seal(&page)
            keep(page)
            page = [UInt8](repeating: 0, count: IndexRun.pageSize)
            current += 1
        }
    }
}
