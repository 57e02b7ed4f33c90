import BackupBase
import CLinux
import Crypto
import Glibc

/// Block ids in ascending order with their locations: in pages of a file of the
/// local cache, or in memory where there is no cache.
///
/// Only the head is resident, 8 bytes per page of 102 records, and the filter
/// (`RunFilter`) where it is small. A page is read when the filter says so, and
/// checked, because a wrong page would silently lose a block.
final class IndexRun {
    static let recordSize = 40
    static let pageSize = 4096
    static let recordsPerPage = 102
    private static let magic = Array("BGBRUN02".utf8)

    struct Record {
        let id: BlockID
        let pack: UInt32
        let ordinal: UInt32
    }

    private enum Pages {
        case memory([UInt8])
        case file(Int32)
    }

    let recordCount: Int
    let packs: [ObjectID]
    /// Index objects whose content the run holds.
    let covers: Set<ObjectID>
    let path: String?
    private let firstWords: [UInt64]
    private let filter: RunFilter
    private let pages: Pages

    deinit { if case .file(let descriptor) = pages { close(descriptor) } }

    // MARK: - Finding

    /// A page of the cache is not what was written: the run has to be made anew.
    struct Damaged: Error {}

    /// Throws `Damaged`.
    func find(_ id: BlockID) throws -> Location? {
        guard recordCount > 0, try filter.mayHold(id) else { return nil }
        // Ids of equal first words may begin on the page before.
        var page = firstWords.partitioningIndex { $0 > id.words.0 } - 1
        while page >= 0 {
            guard let bytes = self.page(page) else { throw Damaged() }
            if let found = search(bytes, id, records: records(on: page)) { return found }
            guard firstWords[page] == id.words.0 else { return nil }
            page -= 1
        }
        return nil
    }

    private func records(on page: Int) -> Int {
        min(Self.recordsPerPage, recordCount - page * Self.recordsPerPage)
    }

    private func search(_ bytes: [UInt8], _ id: BlockID, records: Int) -> Location? {
        bytes.withUnsafeBytes { raw in
            var low = 0
            var high = records
            while low < high {
                let middle = (low + high) / 2
                let record = Self.record(raw, middle)
                if record.id == id { return location(record) }
                if record.id < id { low = middle + 1 } else { high = middle }
            }
            return nil
        }
    }

    private func location(_ record: Record) -> Location? {
        guard Int(record.pack) < packs.count else { return nil }
        return Location(pack: packs[Int(record.pack)], ordinal: Int(record.ordinal))
    }

    private static func record(_ raw: UnsafeRawBufferPointer, _ index: Int) -> Record {
        let start = index * recordSize
        return Record(
            id: BlockID(raw: UnsafeRawBufferPointer(rebasing: raw[start..<start + 32])),
            pack: raw.loadUnaligned(fromByteOffset: start + 32, as: UInt32.self),
            ordinal: raw.loadUnaligned(fromByteOffset: start + 36, as: UInt32.self))
    }

    /// A checked page, or nil when it is damaged.
    private func page(_ number: Int) -> [UInt8]? {
        switch pages {
        case .memory(let bytes):
            return Array(bytes[number * Self.pageSize..<(number + 1) * Self.pageSize])
        case .file(let descriptor): return Self.readPage(descriptor, number)
        }
    }

    /// A page of the file, or nil when its checksum is another one.
    static func readPage(_ descriptor: Int32, _ number: Int) -> [UInt8]? {
        let bytes = [UInt8](unsafeUninitializedCapacity: pageSize) { buffer, count in
            count = max(pread(descriptor, buffer.baseAddress, pageSize, off_t(number * pageSize)), 0)
        }
        guard bytes.count == pageSize, checksum(bytes[..<(pageSize - 16)]) == Array(bytes.suffix(16)) else { return nil }
        return bytes
    }

    static func seal(_ page: inout [UInt8]) {
        page.replaceSubrange((pageSize - 16)..., with: checksum(page[..<(pageSize - 16)]))
    }

    /// Walks the records in order, a page in memory at a time.
    struct Cursor {
        private let run: IndexRun
        private let packBase: UInt32
        private var page: [UInt8] = []
        private var number = -1
        private var slot = 0
        private(set) var current: Record?
        private(set) var isDamaged = false

        /// - Parameter packBase: added to each record's pack number.
        init(_ run: IndexRun, packBase: UInt32) {
            self.run = run
            self.packBase = packBase
            advance()
        }

        mutating func advance() {
            if number < 0 || slot == run.records(on: number) {
                number += 1
                slot = 0
                guard number < run.firstWords.count, let next = run.page(number) else {
                    isDamaged = isDamaged || number < run.firstWords.count
                    number = run.firstWords.count - 1
                    slot = number < 0 ? 0 : run.records(on: number)
                    current = nil
                    return
                }
                page = next
            }
            let record = page.withUnsafeBytes { IndexRun.record($0, slot) }
            // In a merged run its number would be another pack's.
            guard Int(record.pack) < run.packs.count else {
                (isDamaged, current) = (true, nil)
                (number, slot) = (run.firstWords.count - 1, run.records(on: run.firstWords.count - 1))
                return
            }
            current = Record(id: record.id, pack: packBase + record.pack, ordinal: record.ordinal)
            slot += 1
        }
    }

    // MARK: - Making

    /// Makes a run of records in ascending order, without duplicates. With a
    /// `path`, writes it there; where that fails the run stays in memory.
    /// - Parameter count: of the records, at the most
    /// - Returns: nil where the file took pages and did not give them back; never without a path
    init?(sorted records: some Sequence<Record>, count: Int, packs: [ObjectID], covers: Set<ObjectID>, path: String?) {
        var filter = RunFilter.Builder(records: count)
        var firstWords: [UInt64] = []
        var written = 0
        var page = [UInt8](repeating: 0, count: Self.pageSize)
        let start = (count + Self.recordsPerPage - 1) / Self.recordsPerPage
        let output = path.flatMap { RunFile(path: $0, filterAt: start) }
        var (pageMemory, filterMemory): ([UInt8], [UInt8]) = ([], [])
        func endPage() {
            Self.seal(&page)
            if let output { output.append(page) } else { pageMemory += page }
            page = [UInt8](repeating: 0, count: Self.pageSize)
        }
        func keep(_ page: [UInt8]) { if let output { output.appendFilter(page) } else { filterMemory += page } }
        for record in records {
            let slot = written % Self.recordsPerPage
            if slot == 0 { firstWords.append(record.id.words.0) }
            page.withUnsafeMutableBytes { raw in
                let start = raw.baseAddress! + slot * Self.recordSize
                record.id.write(to: start)
                start.storeBytes(of: record.pack, toByteOffset: 32, as: UInt32.self)
                start.storeBytes(of: record.ordinal, toByteOffset: 36, as: UInt32.self)
            }
            filter.add(record.id, keep)
            written += 1
            if slot == Self.recordsPerPage - 1 { endPage() }
        }
        if written % Self.recordsPerPage != 0 { endPage() }
        filter.finish(keep)
        recordCount = written
        self.packs = packs
        self.covers = covers
        self.firstWords = firstWords
        let head = Self.head(written, packs, covers, firstWords, filterAt: start, filterPages: filter.pages)
        if let output, let descriptor = output.finish(head: head) {
            self.filter = RunFilter(descriptor, start: start, pages: filter.pages)
            pages = .file(descriptor)
            self.path = path
            return
        }
        if let output {
            // The cache is full or gone: what was written is read back once.
            guard let recovered = output.recover() else { return nil }
            (pageMemory, filterMemory) = recovered
        }
        self.filter = RunFilter(filterMemory)
        pages = .memory(pageMemory)
        self.path = nil
    }

    private static func head(
        _ records: Int, _ packs: [ObjectID], _ covers: Set<ObjectID>, _ firstWords: [UInt64], filterAt start: Int,
        filterPages: Int
    ) -> [UInt8] {
        var writer = ByteWriter()
        writer.varint(records)
        writer.varint(packs.count)
        for pack in packs { writer.id(pack) }
        writer.varint(covers.count)
        for id in covers.sorted() { writer.id(id) }
        writer.varint(firstWords.count)
        for word in firstWords { writer.u64(word) }
        writer.varint(start)
        writer.varint(filterPages)
        var footer = ByteWriter()
        footer.u64(UInt64(writer.bytes.count))
        footer.raw(SHA256.hash(data: writer.bytes))
        footer.raw(magic)
        return writer.bytes + footer.bytes
    }

    // MARK: - Opening

    /// Opens a run of the cache; nil when it is damaged, unfinished or foreign.
    init?(path: String) {
        let descriptor = open(path, O_RDONLY | O_CLOEXEC)
        guard descriptor >= 0 else { return nil }
        guard let head = Self.head(of: descriptor) else { close(descriptor); return nil }
        (recordCount, packs, covers, firstWords) = (head.records, head.packs, head.covers, head.firstWords)
        filter = RunFilter(descriptor, start: head.filter.start, pages: head.filter.count)
        pages = .file(descriptor)
        self.path = path
    }

    private struct Head {
        let records: Int
        let packs: [ObjectID]
        let covers: Set<ObjectID>
        let firstWords: [UInt64]
        let filter: (start: Int, count: Int)

        /// - Parameter pages: that stand before it in the file: nothing it says can be more
        init(_ bytes: [UInt8], pages: Int) throws {
            var reader = ByteReader(bytes)
            records = try reader.varint(limit: pages * recordsPerPage)
            packs = try (0..<(try reader.elementCount(of: 16))).map { _ in try reader.id() }
            covers = Set(try (0..<(try reader.elementCount(of: 16))).map { _ in try reader.id() })
            firstWords = try (0..<(try reader.elementCount(of: 8))).map { _ in try reader.u64() }
            let start = try reader.varint(limit: pages)
            filter = (start, try reader.varint(limit: pages - start))
            guard filter.count > 0, firstWords.count == (records + recordsPerPage - 1) / recordsPerPage,
                firstWords.count <= start
            else { throw FormatError("no filter, or pages without records") }
        }
    }

    private static let footerSize = 48
    /// Bytes of a head at the most: it has 16 MiB for 10 TiB.
    private static let headLimit = 1 << 30

    private static func head(of descriptor: Int32) -> Head? {
        func read(_ offset: Int, _ count: Int) -> [UInt8]? {
            let bytes = [UInt8](unsafeUninitializedCapacity: count) { buffer, got in
                got = max(pread(descriptor, buffer.baseAddress, count, off_t(offset)), 0)
            }
            return bytes.count == count ? bytes : nil
        }
        let end = Int(lseek(descriptor, 0, SEEK_END)) - footerSize
        guard end >= 0, let footer = read(end, footerSize), footer.suffix(8) == magic[...] else { return nil }
        var reader = ByteReader(footer)
        guard let length = try? reader.u64(), length <= UInt64(min(end, headLimit)),
            let bytes = read(end - Int(length), Int(length)), Array(SHA256.hash(data: bytes)) == Array(footer[8..<40])
        else { return nil }
        return try? Head(bytes, pages: (end - Int(length)) / pageSize)
    }

    static func checksum(_ bytes: ArraySlice<UInt8>) -> [UInt8] {
        bytes.withUnsafeBytes { raw in
            var hash = SHA256()
            hash.update(bufferPointer: raw)
            return Array(hash.finalize().prefix(16))
        }
    }
}
