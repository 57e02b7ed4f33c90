/// Reads one segment file of Qdrant's write-ahead log as its bytes come.
///
/// Header `"wal" 00, u32 seed`; then records `u64 length, data, padding to 8
/// with the CRC, u32 crc`. Each CRC goes on from the one before, the first from
/// the seed, and the log ends with the first that does not (qdrant
/// lib/wal/src/segment.rs, `Segment::open`).
struct LogSegment {
    enum Ending: Equatable {
        /// What follows the last record is zeros, or the file's end.
        case clean
        /// A record was being written, or its page was lost: the log ends before it.
        case torn
        /// Records that fit together follow a broken one: Qdrant drops them without a word.
        case brokenBefore(records: Int)
        case noHeader
    }

    private(set) var records = 0
    /// Bytes up to the end of the last record.
    private(set) var end: Int64 = 0
    private(set) var ending = Ending.clean

    private enum State { case header, length, data, checksum, done }

    private let capacity: Int64
    /// Gets the data of each record that holds.
    private let collect: (([UInt8]) -> Void)?
    private var state = State.header
    private var pending: [UInt8] = []
    private var position: Int64 = 0
    private var crc: UInt32 = 0
    private var running = CRC32C()
    private var length = 0
    /// Of the current record: data and padding still to come.
    private var remaining = 0
    private var record: [UInt8] = []
    private var isBroken = false
    private var brokenRecords = 0

    private static let header = 8
    private static let checksumSize = 4
    /// Bytes of one raft log record that are kept for a look into it.
    private static let mostCollected = 1 << 20

    /// - Parameter size: bytes of the file
    init(size: Int64, collect: (([UInt8]) -> Void)? = nil) {
        capacity = size & ~7
        self.collect = collect
        if capacity < Self.header { ending = .noHeader }
    }

    /// Takes the next bytes of the file.
    /// - Returns: whether more are wanted
    mutating func feed(_ bytes: UnsafeRawBufferPointer) -> Bool {
        guard ending != .noHeader else { return false }
        var rest = bytes[...]
        while !rest.isEmpty, state != .done {
            switch state {
            case .header, .length: takeFixed(&rest, Self.header)
            case .data: takeData(&rest)
            case .checksum: takeFixed(&rest, Self.checksumSize)
            case .done: break
            }
        }
        return state != .done
    }

    private mutating func takeFixed(_ rest: inout Slice<UnsafeRawBufferPointer>, _ count: Int) {
        let taken = rest.prefix(count - pending.count)
        pending.append(contentsOf: taken)
        rest = rest.dropFirst(taken.count)
        guard pending.count == count else { return }
        position += Int64(count)
        switch state {
        case .header: takeHeader()
        case .length: takeLength()
        default: takeChecksum()
        }
        pending.removeAll(keepingCapacity: true)
    }

    private mutating func takeHeader() {
        guard pending.starts(with: Array("wal\0".utf8)) else {
            ending = .noHeader
            state = .done
            return
        }
        crc = Self.number(pending[4...])
        end = position
        expectRecord()
    }

    private mutating func expectRecord() {
        state = position + Int64(Self.header + Self.checksumSize) < capacity ? .length : .done
        if state == .done { settle() }
    }

    private mutating func takeLength() {
        let declared: UInt64 = Self.number(pending[...])
        // Checked against the file before anything is made of it.
        guard declared <= UInt64(capacity) else { return finish(nonzero: true) }
        length = Int(declared)
        remaining = length + ((4 - length) & 7)
        guard position + Int64(remaining + Self.checksumSize) <= capacity else { return finish(nonzero: declared != 0) }
        running = CRC32C(continuing: ~Self.reversed(crc))
        pending.withUnsafeBytes { running.update($0) }
        record.removeAll(keepingCapacity: true)
        state = remaining > 0 ? .data : .checksum
    }

    private mutating func takeData(_ rest: inout Slice<UnsafeRawBufferPointer>) {
        let taken = rest.prefix(remaining)
        running.update(UnsafeRawBufferPointer(rebasing: taken))
        if collect != nil, record.count < Self.mostCollected { record.append(contentsOf: taken) }
        rest = rest.dropFirst(taken.count)
        remaining -= taken.count
        position += Int64(taken.count)
        if remaining == 0 { state = .checksum }
    }

    private mutating func takeChecksum() {
        let stored: UInt32 = Self.number(pending[...])
        if stored == running.checksum {
            crc = stored
            if isBroken {
                brokenRecords += 1
            } else {
                records += 1
                end = position
                if let collect, length <= Self.mostCollected { collect(Array(record.prefix(length))) }
            }
            return expectRecord()
        }
        guard stored != 0, !isBroken else { return finish(nonzero: stored != 0) }
        // The records behind it, if any, go on from the checksum that is written here.
        isBroken = true
        crc = stored
        expectRecord()
    }

    private mutating func finish(nonzero: Bool) {
        state = .done
        if nonzero { isBroken = true }
        settle()
    }

    private mutating func settle() {
        if isBroken { ending = brokenRecords > 0 ? .brokenBefore(records: brokenRecords) : .torn }
    }

    /// To be called when the file has no more bytes.
    mutating func close() {
        guard state != .done, ending != .noHeader else { return }
        if state == .header { ending = .noHeader } else { settle() }
        state = .done
    }

    private static func number<Number: FixedWidthInteger>(_ bytes: ArraySlice<UInt8>) -> Number {
        bytes.prefix(MemoryLayout<Number>.size).reversed().reduce(0) { $0 << 8 | Number($1) }
    }

    static func reversed(_ value: UInt32) -> UInt32 {
        var (value, result) = (value, UInt32(0))
        for _ in 0..<32 {
            result = result << 1 | value & 1
            value >>= 1
        }
        return result
    }
}
